"""What of a set is trained on and what is selected on.

The order matters: validation is cut from train first, then the long tail is drawn from the rest,
so that runs of different imbalance select on the same images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.data.checks import Labels, check_can_select
from lt_jax.data.sources import Source
from lt_jax.data.splits import validation_indices
from lt_jax.data.statistics import array_hash, index_hash
from lt_jax.data.streamed import StreamedImages
from lt_jax.data.tails import has_tail, kept_examples
from lt_jax.errors import InputError

_WITH_TAILS = ("features", "tfds", "folder")  # others with own validation have their tail already


class Parts(NamedTuple):
    """What is kept of train, and what validation gets.

    Attributes:
      train_images: as those of `Source`.
      train_labels: theirs.
      validation_images: cut from train, or the set's own.
      validation_labels: theirs.
      kind: of the tail, from `kept_examples`.
      hash: which train images were kept, as 16 hex digits.
      validation_rows: which images of train it was cut from; None if it is the set's own.
    """

    train_images: Any
    train_labels: Labels
    validation_images: Any
    validation_labels: Labels
    kind: str
    hash: str
    validation_rows: npt.NDArray[np.int64] | None = None


def parts_of(source: Source, options: Mapping[str, Any]) -> tuple[Source, Parts, dict[str, int]]:
    """Cuts validation, then draws the long tail from the rest.

    Args:
      source: the whole set.
      options: of `lt_jax.data.load_dataset`.

    Returns:
      The set, with corrupt images of test replaced; its parts; and how many were replaced of each
      split in memory that has some.

    Raises:
      InputError: for a size or counts that cannot be met, and for labels of which no training or no
        validation example has one.
    """
    replaced: dict[str, int] = {}
    if options["on_corrupt"] == "skip" and not options["stream"]:
        source, parts = _read_once_cut(source, options, replaced)
    else:
        parts = _substituting(_cut(source, options), options)
    check_can_select(source.name, parts.validation_labels)
    return source, parts, replaced


def _cut(source: Source, options: Mapping[str, Any]) -> Parts:
    """Validation is cut, then the long tail drawn from the rest, unless the set has both."""
    images, labels, num_classes = source.train_images, source.train_labels, source.num_classes
    if source.validation_labels is not None:
        kind = options["imbalance_kind"] if has_tail(options) else "unchanged"
        own = (source.validation_images, source.validation_labels)
        if source.name.partition(":")[0] in _WITH_TAILS:
            kept, kind = kept_examples(labels, num_classes, options)
            images, labels = images[kept], labels[kept]
        return Parts(images, labels, *own, kind, array_hash(labels, images))
    if labels.ndim == 2 and not labels.any():
        raise InputError(f"no training example of {source.name} has a label; expected some")
    rest, validation = validation_indices(
        labels, options["validation_size"], options["split_seed"], num_classes
    )
    among, kind = kept_examples(labels[rest], num_classes, options)
    kept = rest[among]
    return Parts(
        images[kept],
        labels[kept],
        images[validation],
        labels[validation],
        kind,
        index_hash(kept, labels[kept]),
        validation,
    )


def _in_memory(images: Any, split: str, replaced: dict[str, int]) -> Any:
    if not isinstance(images, StreamedImages):
        return images
    read = images.read_all()
    if images.replaced:
        replaced[split] = images.replaced
    return read


def _read_once_cut(
    source: Source, options: Mapping[str, Any], replaced: dict[str, int]
) -> tuple[Source, Parts]:
    """The set and its parts in memory, corrupt images replaced by others of the same part."""
    source = _all_but_cut(source, replaced)
    parts = _substituting(_cut(source, options), options)
    train = _in_memory(parts.train_images, "train", replaced)
    validation = _in_memory(parts.validation_images, "validation", replaced)
    return source, parts._replace(train_images=train, validation_images=validation)


def _all_but_cut(source: Source, replaced: dict[str, int]) -> Source:
    """The set in memory, but for what validation is cut from, see `_substituting`."""
    source = source._replace(test_images=_in_memory(source.test_images, "test", replaced))
    if source.validation_labels is None:
        return source
    train = _in_memory(source.train_images, "train", replaced)
    validation = _in_memory(source.validation_images, "validation", replaced)
    return source._replace(train_images=train, validation_images=validation)


def _substituting(parts: Parts, options: Mapping[str, Any]) -> Parts:
    """Has corrupt images replaced by others of the same part, never of another one."""
    images = (parts.train_images, parts.validation_images)
    labels = (parts.train_labels, parts.validation_labels)
    if options["on_corrupt"] != "skip":
        return parts
    train, validation = (
        x.substituting(y) if isinstance(x, StreamedImages) else x
        for x, y in zip(images, labels, strict=True)
    )
    return parts._replace(train_images=train, validation_images=validation)
