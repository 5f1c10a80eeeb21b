"""Which training examples stay, so that the classes are as frequent as asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail import (
    check_class_counts,
    count_classes,
    long_tailed_counts,
    long_tailed_indices,
    multi_label_indices,
)

Counts = npt.NDArray[np.int64]


def has_tail(options: Mapping[str, Any]) -> bool:
    """Whether ``imbalance`` and ``imbalance_kind`` ask for a long tail."""
    return float(options["imbalance"]) != 0 or options["imbalance_kind"] == "pareto"


def kept_examples(
    labels: np.ndarray, num_classes: int, options: Mapping[str, Any]
) -> tuple[Counts, str]:
    """Draws the long-tailed subset that a config asks for.

    Single-label classes have exactly the counts asked for, the first class the most. Multi-label
    ones have at least theirs, the class that is the most frequent already the most, see
    `lt_jax.longtail.multi_label_indices`. Classes that never occur are left out of a tail.

    Args:
      labels: int32 ``[N]``, or multi-hot ``[N, C]``.
      num_classes: C.
      options: ``class_counts``, ``max_count``, ``imbalance``, ``imbalance_kind``,
        ``pareto_power``, ``drop_unlabelled`` and ``split_seed`` of `lt_jax.data.load_dataset`.

    Returns:
      Sorted indices into `labels`, and the kind of tail: ``"exponential"``, ``"step"``,
      ``"pareto"``, ``"explicit"`` or ``"unchanged"``.

    Raises:
      InputError: for counts that cannot be met.
    """
    available, seed = count_classes(labels, num_classes), options["split_seed"]
    multi_label = labels.ndim == 2
    counts, kind = _wanted(available, options, by_frequency=multi_label)
    if not multi_label:
        return long_tailed_indices(labels, counts, seed), kind
    if kind != "unchanged":
        return multi_label_indices(labels, counts, seed), kind
    dropped = options["drop_unlabelled"] & ~labels.any(axis=1)
    return np.flatnonzero(~dropped), kind


def _wanted(
    available: Counts, options: Mapping[str, Any], *, by_frequency: bool
) -> tuple[Counts, str]:
    """Examples to keep of each class, and the kind of tail."""
    explicit = tuple(options["class_counts"])
    if explicit:
        if len(explicit) != available.size:
            raise InputError(
                f"class_counts has {len(explicit)} counts; expected one for each of the "
                f"{available.size} classes"
            )
        return check_class_counts(explicit).astype(np.int64), "explicit"
    kind = options["imbalance_kind"]
    if not has_tail(options):
        return available, "unchanged"
    order = np.argsort(-available, kind="stable") if by_frequency else np.arange(available.size)
    order = order[available[order] > 0]
    counts = np.zeros_like(available)
    counts[order] = _long_tail(available[order], options)
    return counts, kind


def _long_tail(available: Counts, options: Mapping[str, Any]) -> Counts:
    """Counts of the largest tail that the classes allow, or of the one asked for."""

    def tail(max_count: int) -> Counts:
        return long_tailed_counts(
            max_count,
            available.size,
            float(options["imbalance"]),
            options["imbalance_kind"],
            options["pareto_power"],
        )

    low, high = 1, max(int(available[0]), 1)
    while low < high and not options["max_count"]:  # counts grow with max_count: bisected
        middle = (low + high + 1) // 2
        low, high = (middle, high) if (tail(middle) <= available).all() else (low, middle - 1)
    return tail(options["max_count"] or low)
