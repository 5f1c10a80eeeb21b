"""Trains a config, or goes on where an earlier start of the same run stopped.

python launch/train.py --config=configs/digits.py:cb_focal --config.replicas=5 --workdir=runs/a
"""

from ml_collections import ConfigDict

from lt_jax import cli
from lt_jax.tables import tell
from lt_jax.train import train


def main(config: ConfigDict, workdir: str) -> None:
    """Trains and tells the headline scores."""
    tell(train(config, workdir))


if __name__ == "__main__":
    cli.run_with_config(main, "configs/digits.py")
