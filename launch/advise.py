r"""Prints what the class counts of a config's data suggest: measures, methods, settings, reasons.

    python launch/advise.py --config=configs/digits.py
    python launch/advise.py --config=configs/digits.py --config.data.source=folder:photos \
        --config.data.imbalance=0 --config.data.image_size=64

Trains and writes nothing. From Python, with counts alone: `lt_jax.advise([500, 50, 5])`.
"""

from absl import flags
from ml_collections import config_flags

from lt_jax import cli
from lt_jax.advice import advise
from lt_jax.configuration import check_config
from lt_jax.data import load_dataset
from lt_jax.settings import with_string
from lt_jax.writers import say

CONFIG = cli.config_flag("configs/digits.py")


def main() -> None:
    """Loads the data, and advises."""
    check_config(CONFIG.value)
    dataset = load_dataset(CONFIG.value.data)
    for note in dataset.notes:
        say(note)
    flag = flags.FLAGS["config"]
    fields = config_flags.get_override_values(flag)
    name = config_flags.get_config_filename(flag)
    if "data.source" not in fields:  # for other data the file need not have the recipe
        name = with_string(name)
    advise(
        dataset.class_counts,
        dataset.multi_label,
        num_examples=len(dataset.train_labels) if dataset.multi_label else None,
        config=(name, *(f"{field}={value}" for field, value in fields.items())),
    )


if __name__ == "__main__":
    cli.main(main)
