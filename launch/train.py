"""Trains a config, or goes on where an earlier start of the same run stopped.

python launch/train.py --config=configs/digits.py:cb_focal --config.replicas=5 --workdir=runs/a
"""

from ml_collections import ConfigDict

from lt_jax import cli
from lt_jax.report import table_rows
from lt_jax.train import train
from lt_jax.writers import say


def main(config: ConfigDict, workdir: str) -> None:
    """Trains and tells the headline scores."""
    summary = train(config, workdir)
    if summary is not None:
        header, row = table_rows([summary])
        say(", ".join(f"{name} {value}" for name, value in zip(header, row, strict=True)))


if __name__ == "__main__":
    cli.run_with_config(main, "configs/digits.py")
