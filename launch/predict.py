r"""Predicts images with an exported model, into a CSV file.

    python launch/predict.py --model=exported/digits --images=photos --out=predictions.csv
    python launch/predict.py --model=exported/digits --images=a.png --images=more.npz \
        --top_k=3 --out=predictions.csv

--images is a folder, taken with its sub-folders, an image, or an .npz file of images or features.
The test split of a run, with its labels: launch/predict_split.py.
"""

import sys

from absl import flags

from lt_jax import cli
from lt_jax.artifact import load_artifact
from lt_jax.predict import write_predictions

MODEL = flags.DEFINE_string("model", None, "Folder of the exported model.")
IMAGES = flags.DEFINE_multi_string("images", [], "A folder or a file; may be given several times.")
OUT = flags.DEFINE_string("out", "predictions.csv", "File to write.")
TOP_K = flags.DEFINE_integer("top_k", 5, "Most probable classes of a row.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch_size", 64, "Images at once.", lower_bound=1)
EVERY = flags.DEFINE_bool("all_probabilities", False, "Add a column for each class.")
ON_CORRUPT = flags.DEFINE_enum("on_corrupt", "refuse", ["refuse", "skip"], "Damaged images.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a file that is there.")


def main() -> None:
    """Predicts, and tells how many rows there are and what was left out."""
    written = write_predictions(
        load_artifact(cli.required(MODEL)),
        IMAGES.value,
        OUT.value,
        top_k=TOP_K.value,
        batch_size=BATCH.value,
        all_probabilities=EVERY.value,
        on_corrupt=ON_CORRUPT.value,
        overwrite=OVERWRITE.value,
    )
    for sentence in written.skipped:
        print(f"left out: {sentence}", file=sys.stderr)
    print(f"{written.rows} predictions are in {OUT.value}.", file=sys.stderr)


if __name__ == "__main__":
    cli.main(main)
