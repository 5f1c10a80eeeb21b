r"""Divides long-tailed features by DLSA: trains a first stage, or takes a finished one, or files.

    python launch/dlsa.py --config=configs/dlsa_digits.py --workdir=runs/dlsa_digits
    python launch/dlsa.py --config=configs/dlsa_digits.py --from_workdir=runs/digits \
        --workdir=runs/dlsa_of_digits
    python launch/dlsa.py --config=configs/dlsa_imagenet_lt.py --config.data.source=features:DIR \
        --workdir=runs/dlsa_imagenet_lt

Stop it or kill it, start the same command again, and it goes on. Where the data of a finished run
have moved since, --source or --data_dir says where they are.
"""

from absl import flags
from ml_collections import ConfigDict

from lt_jax import cli
from lt_jax.configuration import with_stage_of
from lt_jax.dividing_report import tell_division
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.stage1 import config_of
from lt_jax.train import train

FROM = flags.DEFINE_string(
    "from_workdir", "", "Folder of a finished run, whose features to divide."
)
SOURCE = flags.DEFINE_string(
    "source", "", "Where the data of the run are, if not where they were: folder:PATH, arrays:FILE."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Where TFDS sets are, and what other names are relative to, if not as before."
)


def main(config: ConfigDict, workdir: str) -> None:
    """Divides, and tells what came of it."""
    if config.retrain.method != "dlsa":
        raise InputError(
            f"config.retrain.method is {config.retrain.method!r}; expected 'dlsa', as of"
            " configs/dlsa_digits.py"
        )
    moved = cli.given(SOURCE, DATA_DIR)
    if moved and not FROM.value:
        name = next(iter(moved))
        raise InputError(
            f"--{name} is given, which is for --from_workdir; expected"
            f" --config.data.{name}={moved[name]}"
        )
    if not FROM.value:
        tell_division(train(config, workdir))
        return
    cli.check_retrain_alone()
    both = with_stage_of(config_of(FROM.value, moved), config, "dlsa")
    tell_division(retrain(both, workdir, FROM.value))


if __name__ == "__main__":
    cli.run_with_config(main, "configs/dlsa_digits.py")
