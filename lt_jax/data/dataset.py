"""From an image set to what a run trains, selects and tests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.data.canvas import COMPOSED
from lt_jax.data.checks import Labels
from lt_jax.data.multilabel import label_notes
from lt_jax.data.notes import left_out, other_number
from lt_jax.data.options import PASSED, composition_of, made_of, options_of
from lt_jax.data.parts import Parts, parts_of
from lt_jax.data.reading import Lists
from lt_jax.data.sources import Source, load_source
from lt_jax.data.statistics import (
    array_hash,
    content_hash,
    input_statistics,
    sample_hash,
    standardised,
)
from lt_jax.data.streamed import StreamedImages
from lt_jax.data.tails import Counts
from lt_jax.longtail import count_classes


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a run trains, selects and tests on; in memory, or `StreamedImages`.

    Attributes:
      train_images: the images kept, uint8 ``[N, H, W, Ch]``; or features, float32 ``[N, D]``, less
        their mean and divided by their deviation.
      train_labels: int32 ``[N]``, or multi-hot uint8 ``[N, C]``.
      validation_images: cut from train before anything else; may be empty.
      validation_labels: as those of train.
      test_images: the whole test split.
      test_labels: as those of train.
      class_counts: train images of each class, int64 ``[C]``; of multi-label sets the positives.
      class_names: one for each class.
      num_classes: C.
      mean: what pixels / 255 are normalised by: the mean over train, float64 ``[Ch]``, or that of
        ImageNet; or what was taken from the features, ``[D]``.
      std: the standard deviation; 1 for a channel or feature that is constant.
      index_hash: 16 hex digits that tell which train images were kept.
      test_hash: 16 hex digits that tell the test images and labels; of streamed ones the labels.
      source: what was loaded.
      split_seed: which validation split and which subset were drawn.
      imbalance: what was asked for; 0 if the counts do not come from it.
      kind: ``"exponential"``, ``"step"``, ``"pareto"``, ``"explicit"`` or ``"unchanged"``.
      notes: sentences about the labels that one should read before training.
      replaced: how many of the images read could not be decoded, so that others stand for them, by
        split; only splits in memory that have some.
      content: by name what else tells images from others, in `info` too: ``train_hash`` and
        ``validation_hash`` of labels and pixels, or of streamed images the names and sizes of files
        (of TFDS sets the numbers of examples); ``test_files_hash`` of streamed test images; and
        ``sample_hash`` of the content of some files of each streamed split.
      paths: of the files of ``test`` and ``validation``, bytes ``[N]``, relative to the folder; of
        folders only.
    """

    train_images: Any
    train_labels: Labels
    validation_images: Any
    validation_labels: Labels
    test_images: Any
    test_labels: Labels
    class_counts: Counts
    class_names: tuple[str, ...]
    num_classes: int
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    index_hash: str
    test_hash: str
    source: str
    split_seed: int
    imbalance: float
    kind: str
    notes: tuple[str, ...] = ()
    replaced: Mapping[str, int] = field(default_factory=dict)
    content: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels, or none."""
        return self.train_labels.ndim == 2

    def info(self) -> dict[str, Any]:
        """What to write beside a result: only numbers, strings, lists of them."""
        validation = count_classes(self.validation_labels, self.num_classes)
        test = count_classes(self.test_labels, self.num_classes)
        labels, total = self.train_labels, len(self.train_labels)
        return {
            "source": self.source,
            "image_shape": list(self.train_images.shape[1:]),
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "multi_label": self.multi_label,
            "split_seed": self.split_seed,
            "imbalance": self.imbalance,
            "kind": self.kind,
            "class_counts": self.class_counts.tolist(),
            "total_train": total,
            "total_validation": len(self.validation_labels),
            "total_test": len(self.test_labels),
            "total_unlabelled": int((~labels.any(axis=1)).sum()) if self.multi_label else 0,
            "labels_per_image": float(self.class_counts.sum() / total) if total else 0.0,
            "validation": "balanced"
            if self.source in COMPOSED and len(self.validation_labels)
            else _evenness(validation),
            "index_hash": self.index_hash,
            "pixel_mean": self.mean.tolist(),
            "pixel_std": self.std.tolist(),
            "test_class_counts": test.tolist(),
            "test_hash": self.test_hash,
            **self.content,
            **({"replaced_images": dict(self.replaced)} if self.replaced else {}),
        }


def load_dataset(config: Mapping[str, Any]) -> Dataset:
    """Loads a set, cuts the validation split, makes the rest long-tailed.

    Args:
      config: a mapping, such as a ``ConfigDict``, with these fields; one that is missing has the
        value in ``DEFAULTS``:

        - source, data_dir, download, num_classes, train_split, test_split, validation_split,
          train_list, test_list, validation_list, image_size, resize, stream, workers, on_corrupt:
          see `load_source`.
        - normalization: of images, ``"data"`` by the statistics of train or ``"imagenet"``.
        - validation_size: about how many images to cut from train, see `validation_indices`; of
          composed sets how many to make; of sets with a validation split of their own nothing.
        - imbalance: largest / smallest class count, at least 1; 0 leaves train as it is. How often
          classes of multi-label sets occur together does not always allow it exactly, see
          `lt_jax.longtail.multi_label_indices`; of composed sets it is that of the digits drawn.
        - imbalance_kind: ``"exponential"``, ``"step"`` or ``"pareto"``; the last with an imbalance
          of 0 is the tail of COCO-MLT, see `lt_jax.longtail.long_tailed_profile`.
        - pareto_power: of that kind.
        - max_count: images of class 0, of multi-label sets those of the most frequent class; 0
          takes the most for which every class has enough.
        - class_counts: explicit counts, one for each class, instead of the four above.
        - drop_unlabelled: whether train images without any label are left out. A long-tailed
          multi-label subset has none in any case.
        - split_seed: which images; two runs with the same one use the same images.
        - canvas: of composed sets, the fields of `lt_jax.data.canvas.Canvas`.

    Returns:
      The arrays and what is known about them.

    Raises:
      InputError: for anything that cannot be loaded or be met, such as counts above what there is.

    Example:
      >>> data = load_dataset({"source": "digits", "imbalance": 10, "max_count": 100})
      >>> data.class_counts
      array([100,  77,  59,  46,  35,  27,  21,  16,  12,  10])
    """
    options = options_of(config)
    source = load_source(
        options["source"],
        data_dir=options["data_dir"],
        num_classes=options["num_classes"],
        lists=Lists(*(options[f"{name}_list"] for name in Lists._fields)),
        **{name: options[name] for name in PASSED},
        composition=composition_of(options) if options["source"] in COMPOSED else None,
        made=made_of(options),
    )
    source, parts, replaced = parts_of(source, options)
    statistics = input_statistics(parts.train_images, options["normalization"], source.name)
    images = [parts.train_images, parts.validation_images, source.test_images]
    if len(source.train_images.shape) == 2:
        images = [standardised(features, statistics) for features in images]
    labels = parts.train_labels
    return Dataset(
        train_images=images[0],
        train_labels=labels,
        validation_images=images[1],
        validation_labels=parts.validation_labels,
        test_images=images[2],
        test_labels=source.test_labels,
        class_counts=count_classes(labels, source.num_classes),
        class_names=source.class_names,
        num_classes=source.num_classes,
        mean=statistics[0],
        std=statistics[1],
        index_hash=parts.hash,
        test_hash=array_hash(source.test_labels, source.test_images),
        source=source.name,
        split_seed=int(options["split_seed"]),
        imbalance=0.0 if parts.kind in ("explicit", "unchanged") else float(options["imbalance"]),
        kind=parts.kind,
        notes=(
            *source.notes,
            *left_out(source, labels, parts.validation_labels, parts.kind, options),
            *other_number(source, parts.validation_labels, options),
            *label_notes(labels, source.test_labels, source.class_names),
        ),
        replaced=replaced,
        content=_content(source, parts),
        paths=_paths(source, parts),
    )


def _content(source: Source, parts: Parts) -> dict[str, str]:
    """Hashes of inputs as they were loaded, so that no rounding is in them."""
    train = parts.hash  # of a set with validation of its own, in memory, it has the pixels
    if source.validation_labels is None or isinstance(parts.train_images, StreamedImages):
        train = content_hash(parts.train_labels, parts.train_images)
    found = {
        "train_hash": train,
        "validation_hash": content_hash(parts.validation_labels, parts.validation_images),
    }
    if isinstance(source.test_images, StreamedImages):
        found["test_files_hash"] = content_hash(source.test_labels, source.test_images)
    splits = parts.train_images, parts.validation_images, source.test_images
    if any(isinstance(images, StreamedImages) for images in splits):
        found["sample_hash"] = sample_hash(*splits)
    return found


def _paths(source: Source, parts: Parts) -> dict[str, npt.NDArray[Any]]:
    """Of the files that are selected and tested on."""
    if not source.paths:
        return {}
    rows = parts.validation_rows
    own = source.paths.get("validation") if rows is None else source.paths["train"][rows]
    return {"test": source.paths["test"], **({} if own is None else {"validation": own})}


def _evenness(counts: Counts) -> str:
    if not counts.any():
        return "none"
    return "balanced" if (counts == counts[0]).all() else "stratified"
