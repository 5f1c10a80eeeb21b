r"""Writes the features of a finished run into files, for DLSA or for anything else.

    python launch/extract_features.py --from_workdir=runs/digits --out=features/digits
    python launch/dlsa.py --config=configs/dlsa_features.py:features/digits/seed_0,dlsa \
        --workdir=runs/dlsa_seed_0

Each seed has a folder with train, validation and test in parts of --shard_size examples. Stop it or
kill it, start the same command again, and it goes on.
"""

from absl import flags

from lt_jax import cli
from lt_jax.extract import extract_features
from lt_jax.writers import say

FROM = flags.DEFINE_string("from_workdir", None, "Folder of the finished run.")
OUT = flags.DEFINE_string("out", None, "Folder for the features.")
WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best_on_validation"], "Which of the run.")
SIZE = flags.DEFINE_integer("shard_size", 10_000, "Examples in a file.", lower_bound=1)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where TFDS sets are, if not where they were.")


def main() -> None:
    """Extracts, and tells where to."""
    source, out = cli.required(FROM), cli.required(OUT)
    settings = {"data_dir": DATA_DIR.value} if DATA_DIR.value else {}
    folders = extract_features(
        source, out, weights=WEIGHTS.value, shard_size=SIZE.value, settings=settings
    )
    say(f"features are in {', '.join(str(folder) for folder in folders)}.")


if __name__ == "__main__":
    cli.main(main)
