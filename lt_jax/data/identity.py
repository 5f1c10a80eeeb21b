"""What tells the images of a run from others under the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_jax.errors import InputError

Facts = Mapping[str, Any]

# Of `Dataset.info`, and what differs where one of them does; earlier versions had not all.
OF_IMAGES = {
    "class_counts": "class counts",
    "index_hash": "training images",
    "train_hash": "training images",
    "pixel_mean": "training images",
    "validation_hash": "validation images",
    "total_test": "test images",
    "test_hash": "test images",
    "test_files_hash": "test images",
    "sample_hash": "image files",
}
# Fields of `config.data` that say where files lie; which they are, hashes tell.
PLACES = ("source", "train_list", "test_list", "validation_list")
_FORMS = ("arrays", "folder", "features")  # of sources that are a path


def data_fingerprint(info: Facts) -> dict[str, Any]:
    """What tells the images of a run from others under the same name.

    Args:
      info: from `Dataset.info`, or ``summary["data"]``.

    Returns:
      A dictionary that JSON can hold.
    """
    return {name: info[name] for name in OF_IMAGES if name in info}


def different(before: Facts, now: Facts) -> str:
    """What tells two sets of images apart, as far as both noted it.

    Args:
      before: from `data_fingerprint` or `Dataset.info`.
      now: likewise.

    Returns:
      The first name of `OF_IMAGES` of which the values differ; empty if none does.

    Example:
      >>> different({"index_hash": "a", "total_test": 3}, {"index_hash": "b"})
      'index_hash'
      >>> different({"pixel_mean": [0.1]}, {"pixel_mean": [0.1 + 1e-17]})
      ''
    """
    both = [name for name in OF_IMAGES if name in before and name in now]
    if "train_hash" in both:  # which tells more
        both.remove("pixel_mean")
    return next((name for name in both if not _equal(name, before[name], now[name])), "")


def _equal(name: str, one: Any, other: Any) -> bool:
    if name != "pixel_mean":
        return bool(one == other)
    # The last bits of a mean depend on the processor.
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-6, atol=1e-9)


def only_moved(field: str, before: Any, now: Any) -> bool:
    """Whether two values of a field differ at most in where the same kind of data lies.

    What lies there, `different` compares.

    Args:
      field: of a config, such as ``"data.source"``.
      before: its value.
      now: the other one.

    Example:
      >>> only_moved("data.source", "folder:/a/cats", "folder:/b/cats")
      True
      >>> only_moved("data.source", "folder:/a/cats", "arrays:/a/cats.npz")
      False
    """
    group, _, name = field.partition(".")
    if group != "data" or name not in PLACES:
        return False
    if name != "source":
        return bool(before) and bool(now)
    forms = {str(source).partition(":")[0] for source in (before, now)}
    return len(forms) == 1 and forms <= {*_FORMS}


def without_place(field: str, value: Any) -> Any:
    """A field's value without where data lie: the same for all of which one has `only_moved`.

    Example:
      >>> without_place("data.source", "folder:/a"), without_place("data.source", "tfds:cifar10")
      ('folder:', 'tfds:cifar10')
    """
    if not only_moved(field, value, value):
        return value
    return f"{str(value).partition(':')[0]}:" if field == "data.source" else "a list"


def check_can_move(before: Facts, where: str, whose: str) -> None:
    """Refuses data that are said to have moved if nobody can tell whether they are the same.

    Args:
      before: from `data_fingerprint` or `Dataset.info`, as the run noted it.
      where: the images were then, such as ``"arrays:/a/set.npz"``.
      whose: they are, such as ``"the run in /runs/a"``.

    Raises:
      InputError: if the run is of an earlier version, which noted no hashes of all images.
    """
    if "train_hash" not in before:
        raise InputError(
            f"{whose} is of an earlier version and has no hashes of its images, so that nobody can"
            f" tell whether they are the same elsewhere; expected them as there, in {where}"
        )
