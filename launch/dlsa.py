r"""Divides long-tailed features by DLSA: trains a first stage, or takes a finished one, or files.

    python launch/dlsa.py --config=configs/dlsa_digits.py --workdir=runs/dlsa_digits
    python launch/dlsa.py --config=configs/dlsa_digits.py --from_workdir=runs/digits \
        --workdir=runs/dlsa_of_digits
    python launch/dlsa.py --config=configs/dlsa_imagenet_lt.py --config.data.source=features:DIR \
        --workdir=runs/dlsa_imagenet_lt

Stop it or kill it, start the same command again, and it goes on.
"""

from absl import flags
from ml_collections import ConfigDict, config_flags

from lt_jax import cli
from lt_jax.dividing_report import tell_division
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.stage1 import config_of
from lt_jax.train import train

FROM = flags.DEFINE_string(
    "from_workdir", "", "Folder of a finished run, whose features to divide."
)


def main(config: ConfigDict, workdir: str) -> None:
    """Divides, and tells what came of it."""
    if config.retrain.method != "dlsa":
        raise InputError(
            f"config.retrain.method is {config.retrain.method!r}; expected 'dlsa', as of"
            " configs/dlsa_digits.py"
        )
    if not FROM.value:
        tell_division(train(config, workdir))
        return
    given = config_flags.get_override_values(flags.FLAGS["config"])
    ignored = next((name for name in given if not name.startswith("retrain.")), None)
    if ignored:
        raise InputError(
            f"config.{ignored} is {given[ignored]!r}, but all but config.retrain is that of the run"
            " in --from_workdir; expected no such flag"
        )
    source = config_of(FROM.value)
    source.unlock()
    source.name, source.retrain = f"{source.name}_dlsa", config.retrain
    tell_division(retrain(source.lock(), workdir, FROM.value))


if __name__ == "__main__":
    cli.run_with_config(main, "configs/dlsa_digits.py")
