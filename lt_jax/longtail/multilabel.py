"""Counts and long-tailed subsets where an example may have several labels, or none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail.counts import check_class_counts, check_seed


def count_classes(labels: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.int64]:
    """How many examples have each class.

    Args:
      labels: integers ``[N]``, or multi-hot ``[N, C]``.
      num_classes: C.

    Returns:
      Counts, int64 ``[C]``; of multi-hot labels the positives of each class.

    Raises:
      InputError: for a label that is no class, shares of labels, or another number of columns.

    Example:
      >>> count_classes([2, 0, 2], 3), count_classes([[1, 0], [1, 1], [0, 0]], 2)
      (array([1, 0, 2]), array([2, 1]))
    """
    labels = np.asarray(labels)
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise InputError(
                f"labels have shape {labels.shape}; expected one column for each of the"
                f" {num_classes} classes"
            )
        if not np.issubdtype(labels.dtype, np.integer) and not np.isin(labels, (0, 1)).all():
            wrong = labels[~np.isin(labels, (0, 1))][0]
            raise InputError(f"labels hold {wrong}; expected multi-hot ones, 0 or 1")
        return labels.sum(axis=0, dtype=np.int64)
    labels = labels.astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise InputError(f"label {wrong[0]} is outside the {num_classes} classes")
    return np.bincount(labels, minlength=num_classes)


def multi_label_indices(
    labels: npt.ArrayLike, counts: npt.ArrayLike, seed: int
) -> npt.NDArray[np.int64]:
    """Which examples stay so that class c keeps about ``counts[c]`` positives, and never fewer.

    Classes are filled one after another, the one with the smallest count first, of equal counts the
    one with the fewest examples to choose from. What a class still
    lacks after those before it is drawn from its examples, those first that have the fewest labels
    of classes that are full already. A class gets more than its count only where the examples that
    others need have it too. An example without any label does not stay.

    Args:
      labels: multi-hot, 0 and 1, ``[N, C]``.
      counts: how many positives of each class to keep, ``[C]``.
      seed: which subset to draw.

    Returns:
      Sorted indices into ``labels``, int64.

    Raises:
      InputError: if a class has fewer positives than are asked for.

    Example:
      >>> multi_label_indices([[1, 0], [1, 1], [0, 1], [1, 0], [0, 0]], [2, 1], seed=0)
      array([0, 1])
    """
    wanted = check_class_counts(counts).astype(np.int64)
    check_seed(seed)
    labels = np.asarray(labels).astype(np.uint8)
    if labels.ndim != 2 or labels.shape[1] != wanted.size:
        raise InputError(
            f"labels have shape {labels.shape}; expected 0 and 1 for each of the {wanted.size} "
            "classes of the class counts"
        )
    available = count_classes(labels, wanted.size)
    if (available < wanted).any():
        c = int(np.argmax(available < wanted))
        raise InputError(
            f"class {c} has {available[c]} positives, but the class counts ask for {wanted[c]}"
        )
    stays = np.zeros(len(labels), bool)
    kept = np.zeros(wanted.size, np.int64)
    for c in np.lexsort((available, wanted)):
        if kept[c] < wanted[c]:
            candidates = np.flatnonzero((labels[:, c] == 1) & ~stays)
            shuffled = np.random.default_rng([seed, c]).permutation(candidates)
            too_many = labels[shuffled] @ (kept >= wanted).astype(np.int64)
            chosen = shuffled[np.argsort(too_many, kind="stable")[: wanted[c] - kept[c]]]
            stays[chosen] = True
            kept += count_classes(labels[chosen], wanted.size)
    return np.flatnonzero(stays)
