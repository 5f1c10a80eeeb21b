r"""Predicts each example of a finished run's own test or validation split, into a file.

    python launch/predict_split.py --workdir=runs/digits --split=test --out=predictions.npz
    python launch/predict_split.py --workdir=runs/gcl --split=validation --seed=1 \
        --weights=best_on_validation --data_dir=DIR --out=predictions.csv

The data are loaded as the run's config says, and must be those of the run. For other images:
launch/export.py and launch/predict.py.
"""

import sys

from absl import flags

from lt_jax import cli
from lt_jax.predict_split import SPLITS, write_split_predictions
from lt_jax.summaries import label

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the finished run.")
SPLIT = flags.DEFINE_enum("split", "test", list(SPLITS), "Which examples of it.")
OUT = flags.DEFINE_string("out", "predictions.npz", "File to write, .npz or .csv.")
SEED = flags.DEFINE_integer("seed", None, "Of the replica; the first if not given.")
WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best_on_validation"], "Which of them.")
SOURCE = flags.DEFINE_string(
    "source", "", "Where the data of the run are, if not where they were: folder:PATH, arrays:FILE."
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where the data are, if not where they were.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a file that is there.")


def main() -> None:
    """Predicts, and tells the score of what was written beside that of the summary."""
    found = write_split_predictions(
        cli.required(WORKDIR),
        OUT.value,
        split=SPLIT.value,
        seed=SEED.value,
        weights=WEIGHTS.value,
        source=SOURCE.value,
        data_dir=DATA_DIR.value,
        overwrite=OVERWRITE.value,
    )
    score = label("map" if found.facts["multi_label"] else "balanced_accuracy")
    before = "" if found.in_summary is None else f" ({found.in_summary:.4f} in its summary)"
    print(
        f"{len(found.labels)} predictions of seed {found.facts['seed']} on {SPLIT.value} are in"
        f" {OUT.value}: {score} {found.headline:.4f}{before}.",
        file=sys.stderr,
    )


if __name__ == "__main__":
    cli.main(main)
