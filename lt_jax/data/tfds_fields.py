"""Which features of a TFDS set are its images, its labels and the names of its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lt_jax.data.tfds_builder import import_tfds
from lt_jax.errors import InputError

LABELS = ("label", "objects", "labels")  # where labels are looked for
FILE_NAMES = ("filename", "file_name", "image/filename")


class Fields(NamedTuple):
    """Which features of a set are what.

    Attributes:
      image: name of the image.
      label: name of the label or labels, or the names on the way to them.
      classes: the feature that describes one label.
      multi_label: whether an example has any number of labels.
      file_name: name of the name of the file, if examples have one.
    """

    image: str
    label: tuple[str, ...]
    classes: Any
    multi_label: bool
    file_name: str = ""

    def targets(self, labels: Sequence[Any]) -> np.ndarray:
        """Labels of examples as targets: ``[N]``, or 0 and 1 ``[N, C]``."""
        if not self.multi_label:
            return np.array(labels)
        targets = np.zeros((len(labels), self.classes.num_classes), np.uint8)
        for target, present in zip(targets, labels, strict=True):
            present = np.asarray(present, np.int64)
            target[present[present >= 0]] = 1  # TFDS writes -1 for no label
        return targets


def fields_of(builder: Any) -> Fields:
    """Which features are the image and the label: what the set itself says, else by name.

    Every annotated object makes its class present. Of COCO that includes crowds; of VOC also
    objects marked as difficult, as its own ``labels`` do: training usually counts them. (The
    official evaluation of VOC leaves out a class in an image where all its objects are difficult,
    which labels of 0 and 1 cannot say.)

    Args:
      builder: of the set.

    Returns:
      `Fields`.

    Raises:
      InputError: if it is not a set for image classification.
    """
    keys, features = builder.info.supervised_keys, builder.info.features
    pair = keys if keys and len(keys) == 2 and all(isinstance(k, str) for k in keys) else None
    names = list(features.keys()) if hasattr(features, "keys") else []
    image, label = pair or ("image", next((n for n in LABELS if n in names), LABELS[0]))
    if not {image, label} <= set(names):
        raise InputError(
            f"tfds:{builder.name} has no image and label; its features are {', '.join(names)}"
        )
    file_name = next((name for name in FILE_NAMES if name in names), "")
    fields = Fields(image, (label,), features[label], False, file_name)
    if isinstance(fields.classes, import_tfds().features.Sequence):
        fields = fields._replace(classes=fields.classes.feature, multi_label=True)
        if hasattr(fields.classes, "keys") and "label" in fields.classes:
            fields = fields._replace(classes=fields.classes["label"], label=(label, "label"))
    _check_fields(builder, fields)
    return fields


def _check_fields(builder: Any, fields: Fields) -> None:
    image, label = builder.info.features[fields.image], builder.info.features[fields.label[0]]
    labelled = hasattr(fields.classes, "num_classes") if fields.multi_label else label.shape == ()
    if len(image.shape or ()) != 3 or not labelled:
        raise InputError(
            f"tfds:{builder.name} is not for image classification: its inputs {fields.image!r} have"
            f" shape {image.shape} and its targets {fields.label[0]!r} {label.shape}"
        )
    if image.np_dtype != np.uint8:
        raise InputError(
            f"tfds:{builder.name} has {np.dtype(image.np_dtype)} images; expected uint8"
        )
