"""From an image set to what a run trains, selects and tests on.

The order matters: validation is cut from train first, then the long tail is drawn from the rest,
so that runs of different imbalance select on the same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.data.checks import Images, Labels
from lt_jax.data.sources import load_source
from lt_jax.data.splits import validation_indices
from lt_jax.errors import InputError
from lt_jax.longtail import check_class_counts, long_tailed_counts, long_tailed_indices

Counts = npt.NDArray[np.int64]

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "source": "digits",
        "data_dir": "",
        "download": False,
        "num_classes": 0,
        "test_split": "test",
        "imbalance": 0.0,
        "imbalance_kind": "exponential",
        "max_count": 0,
        "class_counts": (),
        "split_seed": 0,
        "validation_size": 0,
    }
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a run trains, selects and tests on; all in memory.

    Attributes:
      train_images: the images kept, uint8 ``[N, H, W, Ch]``; labels int32 ``[N]``.
      validation_images: cut from train before anything else; may be empty.
      test_images: the whole test split.
      class_counts: train images of each class, int64 ``[C]``.
      class_names: one for each class.
      num_classes: C.
      mean: mean of the train pixels / 255, float64 ``[Ch]``.
      std: their standard deviation, float64 ``[Ch]``; 1 for a channel that is constant.
      index_hash: 16 hex digits that tell which train images were kept.
      test_hash: 16 hex digits that tell the test images and labels.
      source: what was loaded.
      split_seed: which validation split and which subset were drawn.
      imbalance: what was asked for; 0 if the counts do not come from it.
      kind: ``"exponential"``, ``"step"``, ``"explicit"`` or ``"unchanged"``.
    """

    train_images: Images
    train_labels: Labels
    validation_images: Images
    validation_labels: Labels
    test_images: Images
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

    def info(self) -> dict[str, Any]:
        """What to write beside a result: only numbers, strings, lists of them."""
        validation = np.bincount(self.validation_labels, minlength=self.num_classes)
        test = np.bincount(self.test_labels, minlength=self.num_classes)
        return {
            "source": self.source,
            "num_classes": self.num_classes,
            "split_seed": self.split_seed,
            "imbalance": self.imbalance,
            "kind": self.kind,
            "class_counts": self.class_counts.tolist(),
            "total_train": len(self.train_labels),
            "total_validation": len(self.validation_labels),
            "total_test": len(self.test_labels),
            "validation": _evenness(validation),
            "index_hash": self.index_hash,
            "pixel_mean": self.mean.tolist(),
            "pixel_std": self.std.tolist(),
            "test_class_counts": test.tolist(),
            "test_hash": self.test_hash,
        }


def load_dataset(config: Mapping[str, Any]) -> Dataset:
    """Loads a set, cuts the validation split, makes the rest long-tailed.

    Args:
      config: a mapping, such as a ``ConfigDict``, with these fields; one that is missing has the
        value in ``DEFAULTS``:

        - source, data_dir, download, num_classes, test_split: see `load_source`.
        - validation_size: about how many images to cut from train, see `validation_counts`.
        - imbalance: largest / smallest class count, at least 1; 0 leaves train as it is.
        - imbalance_kind: ``"exponential"`` or ``"step"``.
        - max_count: images of class 0; 0 takes the most for which every class has enough.
        - class_counts: explicit counts, one for each class, instead of the three above.
        - split_seed: which images; two runs with the same one use the same images.

    Returns:
      The arrays and what is known about them.

    Raises:
      InputError: for anything that cannot be loaded or be met, such as counts above what there is.

    Example:
      >>> data = load_dataset({"source": "digits", "imbalance": 10, "max_count": 100})
      >>> data.class_counts
      array([100,  77,  59,  46,  35,  27,  21,  16,  12,  10])
    """
    options = {**DEFAULTS, **dict(config)}
    seed = options["split_seed"]
    if seed != int(seed) or seed < 0:
        raise InputError(f"split_seed is {seed!r}; expected a whole number of at least 0")
    source = load_source(
        options["source"],
        data_dir=options["data_dir"],
        num_classes=options["num_classes"],
        test_split=options["test_split"],
        download=options["download"],
    )
    labels, num_classes = source.train_labels, source.num_classes
    rest, validation = validation_indices(labels, options["validation_size"], seed, num_classes)
    available = np.bincount(labels[rest], minlength=num_classes)
    counts, imbalance, kind = _wanted_counts(available, options)
    kept = rest[long_tailed_indices(labels[rest], counts, seed)]
    train_images = source.train_images[kept]
    mean, std = pixel_statistics(train_images)
    return Dataset(
        train_images=train_images,
        train_labels=labels[kept],
        validation_images=source.train_images[validation],
        validation_labels=labels[validation],
        test_images=source.test_images,
        test_labels=source.test_labels,
        class_counts=counts,
        class_names=source.class_names,
        num_classes=num_classes,
        mean=mean,
        std=std,
        index_hash=index_hash(kept, labels[kept]),
        test_hash=array_hash(source.test_labels, source.test_images),
        source=source.name,
        split_seed=int(seed),
        imbalance=imbalance,
        kind=kind,
    )


def pixel_statistics(
    images: Images,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each channel of pixels / 255.

    From a histogram of the 256 values, so it is exact and needs no float copy of the images.

    Args:
      images: uint8 ``[N, H, W, Ch]``.

    Returns:
      Mean and standard deviation, float64 ``[Ch]``. A constant channel gets a deviation of 1: it
      can be divided by, and the channel becomes 0.

    Example:
      >>> pixel_statistics(np.array([0, 255, 0, 255], np.uint8).reshape(1, 2, 2, 1))
      (array([0.5]), array([0.5]))
    """
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for chunk in np.array_split(images, max(1, len(images) // 4096)):
        for c in range(channels):
            histogram[c] += np.bincount(chunk[..., c].ravel(), minlength=256)
    share = histogram / histogram.sum(axis=1, keepdims=True)
    value = np.arange(256) / 255
    mean = share @ value
    std = np.sqrt((share * (value - mean[:, None]) ** 2).sum(axis=1))
    return mean, np.where((histogram > 0).sum(axis=1) > 1, std, 1.0)


def index_hash(indices: npt.ArrayLike, labels: npt.ArrayLike) -> str:
    """Which images were kept, as 16 hex digits: two runs that agree here trained on the same ones.

    The start of the SHA-256 of the indices, then the labels, each as little-endian int64.

    Example:
      >>> index_hash([0, 2], [1, 0])
      '698e31029fef80c4'
    """
    data = b"".join(np.asarray(a).astype("<i8").tobytes() for a in (indices, labels))
    return hashlib.sha256(data).hexdigest()[:16]


def array_hash(*arrays: npt.NDArray[Any]) -> str:
    """The content of arrays, as 16 hex digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _wanted_counts(available: Counts, options: Mapping[str, Any]) -> tuple[Counts, float, str]:
    """Images to keep of each class, the imbalance they were made from, and the kind of tail."""
    explicit = tuple(options["class_counts"])
    if explicit:
        if len(explicit) != available.size:
            raise InputError(
                f"class_counts has {len(explicit)} counts; expected one for each of the "
                f"{available.size} classes"
            )
        return check_class_counts(explicit).astype(np.int64), 0.0, "explicit"
    imbalance, kind = float(options["imbalance"]), options["imbalance_kind"]
    if imbalance == 0:
        return available, 0.0, "unchanged"
    max_count = options["max_count"] or _largest_max_count(available, imbalance, kind)
    return long_tailed_counts(max_count, available.size, imbalance, kind), imbalance, kind


def _largest_max_count(available: Counts, imbalance: float, kind: Any) -> int:
    """The most images of class 0 for which every class has enough; at least 1."""
    low, high = 1, max(int(available[0]), 1)
    while low < high:  # counts grow with max_count, so it can be bisected
        middle = (low + high + 1) // 2
        enough = (long_tailed_counts(middle, available.size, imbalance, kind) <= available).all()
        low, high = (middle, high) if enough else (low, middle - 1)
    return low


def _evenness(counts: Counts) -> str:
    if not counts.any():
        return "none"
    return "balanced" if (counts == counts[0]).all() else "stratified"
