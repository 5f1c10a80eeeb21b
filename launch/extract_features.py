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
SOURCE = flags.DEFINE_string(
    "source", "", "Where the data of the run are, if not where they were: folder:PATH, arrays:FILE."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "Where TFDS sets are, and what other names are relative to, if not as before."
)


def main() -> None:
    """Extracts, and tells where to."""
    source, out = cli.required(FROM), cli.required(OUT)
    folders = extract_features(
        source,
        out,
        weights=WEIGHTS.value,
        shard_size=SIZE.value,
        settings=cli.given(SOURCE, DATA_DIR),
    )
    say(f"features are in {', '.join(str(folder) for folder in folders)}.")


if __name__ == "__main__":
    cli.main(main)
