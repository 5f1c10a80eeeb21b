"""Numbers that papers report, beside which measured ones stand."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lt_jax.errors import InputError

_COLUMNS = ("paper", "dataset", "imbalance", "backbone", "method", "metric", "value", "note")
# Names of rows here, and of methods in the file.
_SAME = {
    "cb_best": ("class_balanced_best",),
    **dict.fromkeys(("cross_entropy", "softmax"), ("softmax", "ce")),
    # The same loss at tau = 1.
    **dict.fromkeys(
        ("balanced_softmax", "logit_adjustment"), ("balanced_softmax", "logit_adjustment")
    ),
}
_CIFAR_EPOCHS = 200
# What the file calls sets of TFDS.
_SETS = {
    "i_naturalist2017": "inat2017",
    "i_naturalist2018": "inat2018",
    "imagenet2012": "ilsvrc2012",
    "places365_small": "places_lt",
}
_BY_LISTS = ("places365_small",)
_PRETRAINED = ("places365_small",)  # papers start from ImageNet's weights there, and there alone


class Reported(NamedTuple):
    """A reported accuracy in %, with where it is from and how sure it is."""

    value: float
    source: str
    note: str


def read_reported(path: Path) -> list[dict[str, str]]:
    """The rows of a file of reported numbers.

    Args:
      path: of a CSV with the columns paper, dataset, imbalance, backbone, method, metric, value and
        note.

    Returns:
      Its rows.

    Raises:
      InputError: if it cannot be read.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            float(row["value"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read as reported numbers ({error})") from error
    missing = [name for name in _COLUMNS if rows and name not in rows[0]]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; expected {', '.join(_COLUMNS)}")
    return rows


def reported_for(
    rows: Sequence[Mapping[str, str]], config: Mapping[str, Any], method: str
) -> list[Reported]:
    """What has been reported for a run: same data, imbalance, network, method and regime.

    Of CIFAR the usual regime is 200 epochs of SGD without AutoAugment and Cutout, the strong one
    has both, and at least as many epochs; on Places-LT networks start from pretrained weights, on
    other sets from random ones. Beside other runs nothing stands.

    Args:
      rows: from `read_reported`.
      config: of the run.
      method: name of its row, such as ``"gcl"``.

    Returns:
      Accuracies on the balanced test set, in %.

    Example:
      >>> row = {"paper": "CB", "dataset": "cifar10", "imbalance": "100", "method": "softmax",
      ...        "backbone": "resnet32", "metric": "top1_error", "value": "29.64", "note": ""}
      >>> from lt_jax.configuration import base_config
      >>> config = base_config()
      >>> config.data.source, config.data.imbalance = "tfds:cifar10", 100.0
      >>> config.model.name, config.train.epochs = "resnet32", 200
      >>> [round(r.value, 2) for r in reported_for([row], config, "cross_entropy")]
      [70.36]
    """
    data, network = config["data"], config["model"]["name"]
    if data["imbalance_kind"] != "exponential" or data["max_count"] or len(data["class_counts"]):
        return []  # another long tail than that of the papers
    data_set = data["source"].removeprefix("tfds:")
    # Runs of earlier versions have fewer fields.
    part = "[" in f"{data.get('train_split', '')}{data.get('test_split', '')}"
    if part or bool(data.get("train_list")) != (data_set in _BY_LISTS):
        return []  # other images
    if bool(config["model"].get("pretrained")) != (data_set in _PRETRAINED):
        return []  # another start
    same_data = (
        _SETS.get(data_set, data_set),
        f"{data['imbalance']:g}" if data["imbalance"] else "",
    )
    names = _names(method, network, data.get("image_size", 0))
    if data_set.startswith("cifar"):
        names = {f"{name}{ending}" for name in names for ending in _regime(config)}
    found = []
    for row in rows:
        same = (row["dataset"], row["imbalance"]) == same_data and row["backbone"] == network
        if same and row["method"] in names and row["metric"] in ("top1_accuracy", "top1_error"):
            value = float(row["value"])
            accuracy = value if row["metric"] == "top1_accuracy" else 100 - value
            found.append(Reported(accuracy, row["paper"], row["note"]))
    return found


def _regime(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the file appends to a method's name for how a run on CIFAR was trained."""
    # Runs of earlier versions have fewer fields.
    augmentation, epochs = config["augment"], config["train"]["epochs"]
    strong = augmentation.get("autoaugment", False), augmentation.get("cutout_size", 0) > 0
    if all(strong) and epochs >= _CIFAR_EPOCHS:
        return ("_strong",)
    usual = not any(strong) and config["optimizer"]["name"] == "sgd" and epochs == _CIFAR_EPOCHS
    return ("",) if usual else ()


def _names(method: str, network: str, image_size: int) -> set[str]:
    """What the file may call a row: of photographs it names the size, if not the usual 224."""
    method = method.rpartition(f"{network}_{image_size}_")[2]
    same = _SAME.get(method, (method,))
    usual = same if image_size in (0, 224) else ()
    return {*usual, *(f"{name}_{image_size}px" for name in same)}
