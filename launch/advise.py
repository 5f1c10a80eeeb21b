r"""Prints what the class counts of a config's data suggest: measures, methods, settings, reasons.

    python launch/advise.py --config=configs/digits.py
    python launch/advise.py --config=configs/digits.py --config.data.source=folder:photos \
        --config.data.imbalance=0 --config.data.image_size=64

Trains and writes nothing. From Python, with counts alone: `lt_jax.advise([500, 50, 5])`.
"""

from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import config_flags

from lt_jax import cli
from lt_jax.advice import advise
from lt_jax.advice.usage import held_out
from lt_jax.configuration import check_config
from lt_jax.data import DEFAULTS, load_dataset
from lt_jax.settings import with_string
from lt_jax.writers import say

CONFIG = cli.config_flag("configs/digits.py")
TAIL_FIELDS = ("imbalance", "imbalance_kind", "pareto_power", "max_count", "class_counts")
SPLIT_FIELDS = (
    *("train_split", "test_split", "validation_split"),
    *("train_list", "test_list", "validation_list"),
)


def main() -> None:
    """Loads the data, and advises."""
    check_config(CONFIG.value)
    flag = flags.FLAGS["config"]
    fields = dict(config_flags.get_override_values(flag))
    data = CONFIG.value.data
    if "data.source" in fields:  # the command may be of another file, with a set of its own
        fields = _of_the_set(data) | fields
    if _is_cut(data, fields):
        # What is described has to be what the command trains on.
        data.validation_size = 0
        data.validation_size = held_out(len(load_dataset(data).train_labels))
        fields["data.validation_size"] = data.validation_size
    dataset = load_dataset(data)
    for note in dataset.notes:
        say(note)
    name = config_flags.get_config_filename(flag)
    if "data.source" not in fields:  # for other data the file need not have the recipe
        name = with_string(name)
    advise(
        dataset.class_counts,
        dataset.multi_label,
        num_examples=len(dataset.train_labels) if dataset.multi_label else None,
        config=(name, *(f"{field}={value}" for field, value in fields.items())),
        image_shape=dataset.train_images.shape[1:] if "model.name" not in fields else (),
    )


def _of_the_set(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that say which images are meant, as far as the config changes them."""
    changed = {
        name: data[name]
        for name in (*TAIL_FIELDS, *SPLIT_FIELDS)
        if name == "imbalance" or data[name] != DEFAULTS[name]
    }
    return {f"data.{name}": value for name, value in changed.items()}


def _is_cut(data: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether validation is to be cut from data of one's own, whose size the file cannot know."""
    form = str(fields.get("data.source", "")).partition(":")[0]
    own = data["validation_split"] or data["validation_list"] or "data.validation_size" in fields
    return form in ("arrays", "folder", "tfds") and not own


if __name__ == "__main__":
    cli.main(main)
