r"""Re-trains or re-computes the classifier of a finished run on its frozen features.

    python launch/retrain_classifier.py --from_workdir=runs/ce --stage=crt --workdir=runs/crt
    python launch/retrain_classifier.py --from_workdir=runs/ce --stage=tau_norm \
        --set='tau=[0,0.5,1]' --workdir=runs/tau_norm
    python launch/retrain_classifier.py --from_workdir=runs/gcl_stage1 \
        --config=configs/digits.py:gcl --workdir=runs/gcl

The second stages: crt, lws, finetune, gcl, tau_norm, ncm, posthoc_logit_adjustment; after a slash
another objective (crt/balanced_softmax). --config takes the second stage of a config instead, whose
recipe suits its data. --set sets a field of `config.retrain`.

Where the data have moved since, --source or --data_dir says where they are; images other than those
of the run are refused.
"""

from absl import flags
from ml_collections import ConfigDict

from lt_jax import cli
from lt_jax.configuration import with_stage, with_stage_of
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.settings import override
from lt_jax.stage1 import config_of
from lt_jax.tables import tell

FROM = flags.DEFINE_string("from_workdir", None, "Folder of the finished run of stage 1.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the second stage.")
STAGE = flags.DEFINE_string(
    "stage", None, "The second stage, and after a slash its objective; crt if none."
)
CONFIG = cli.config_flag(None)
SET = flags.DEFINE_multi_string("set", [], "A field of config.retrain, such as epochs=20.")
SOURCE = flags.DEFINE_string(
    "source", "", "Where the data of the run are, if not where they were: folder:PATH, arrays:FILE."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Where TFDS sets are, and what other names are relative to, if not as before."
)
SEEDS = flags.DEFINE_integer("seeds", 0, "Replicas of stage 1 to use; 0 for all.", lower_bound=0)


def both_stages(first: ConfigDict) -> ConfigDict:
    """The config of the run with the second stage that was asked for."""
    given = CONFIG.value
    if given is None:
        return with_stage(first, STAGE.value or "crt")
    if STAGE.value is not None:
        raise InputError(f"--stage={STAGE.value} and --config are given; expected one of them")
    if not given.retrain.method:
        raise InputError(
            f"the config {given.name!r} has no second stage; expected such as"
            " --config=configs/digits.py:crt"
        )
    cli.check_retrain_alone()
    return with_stage_of(first, given, given.name)


def main() -> None:
    """Runs the second stage and tells the headline scores of both."""
    source, folder = cli.required(FROM), cli.required(WORKDIR)
    config = both_stages(config_of(source, cli.given(SOURCE, DATA_DIR)))
    config.replicas = SEEDS.value or config.replicas
    override(config, [f"retrain.{setting.removeprefix('retrain.')}" for setting in SET.value])
    tell(retrain(config, folder, source))


if __name__ == "__main__":
    cli.main(main)
