r"""Writes what a finished run has trained as a folder from which plain JAX predicts.

    python launch/export.py --workdir=runs/digits --out=exported/digits
    python launch/export.py --workdir=runs/gcl --seed=2 --weights=best_on_validation \
        --out=exported/gcl

The data of the run are not needed.
"""

from absl import flags

from lt_jax import cli
from lt_jax.export import PLATFORMS, export_run
from lt_jax.writers import say

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the finished run.")
OUT = flags.DEFINE_string("out", None, "Folder to write.")
SEED = flags.DEFINE_integer("seed", None, "Which of the run's seeds; the first by default.")
WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best_on_validation"], "Which of the run.")
TARGETS = flags.DEFINE_list("platforms", list(PLATFORMS), "Where it is to run, also rocm.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an exported model that is there.")


def main() -> None:
    """Exports, and tells where to."""
    folder = export_run(
        cli.required(WORKDIR),
        cli.required(OUT),
        seed=SEED.value,
        weights=WEIGHTS.value,
        platforms=TARGETS.value,
        overwrite=OVERWRITE.value,
    )
    say(f"the model is in {folder}.")


if __name__ == "__main__":
    cli.main(main)
