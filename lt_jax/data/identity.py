"""What tells the images of a run from others under the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

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
}


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
