"""Cutting a validation split from the training images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lt_jax.data.multilabel import stratified_split
from lt_jax.errors import InputError
from lt_jax.longtail import count_classes
from lt_jax.longtail.counts import class_members, is_whole

Indices = npt.NDArray[np.int64]


def validation_counts(counts: npt.ArrayLike, size: int) -> Indices:
    """How many images of each class go to a validation split of about ``size``.

    With C classes, N images and n_c images of class c:

    - balanced: ``size // C`` of every class, if that is at least 1 and every class keeps at least
      as many as it gives away. ``size % C`` images fewer than asked for.
    - otherwise stratified: ``size * n_c / N``, rounded, but at least 1 of a class with two images
      or more, and never the last image of a class. Of many classes with few
      images, or for a size below C, that can be many times what was asked for.

    Args:
      counts: images of each class, ``[C]``.
      size: about how many images in total; 0 for none.

    Returns:
      Validation images of each class, int64 ``[C]``.

    Raises:
      InputError: if size is not a whole number from 0 to below N.

    Example:
      >>> validation_counts([50, 40, 30], 20)
      array([6, 6, 6])
      >>> validation_counts([80, 12, 2, 1], 20)
      array([17,  3,  1,  0])
    """
    counts = np.asarray(counts, np.int64)
    total = int(counts.sum())
    _check_size(size, total)
    if size == 0:
        return np.zeros_like(counts)
    each = int(size) // counts.size
    if each >= 1 and (counts >= 2 * each).all():
        return np.full_like(counts, each)
    return _stratified_counts(counts, int(size) / total)


def _stratified_counts(counts: Indices, share: float) -> Indices:
    """A share of each class, but at least 1 and never the last."""
    given = np.floor(counts * share + 0.5).astype(np.int64)
    return np.clip(given, np.minimum(1, np.maximum(counts - 1, 0)), np.maximum(counts - 1, 0))


def _check_size(size: int, total: int) -> None:
    if not is_whole(size) or size >= max(total, 1):
        raise InputError(
            f"validation_size is {size!r}; expected a whole number from 0 to below {total}, the "
            "number of training images"
        )


def validation_indices(
    labels: npt.ArrayLike, size: int, seed: int, num_classes: int
) -> tuple[Indices, Indices]:
    """Splits examples into training and validation.

    How many of each class is `validation_counts`; which ones is drawn for each class by a
    generator of its own, seeded by ``(seed, class)``. Of multi-label examples, each class gives
    about the share of ``size`` in N, see `lt_jax.data.multilabel.stratified_split`.

    Args:
      labels: integer labels in [0, C), ``[N]``, or multi-hot ``[N, C]``.
      size: about how many validation images in total; 0 for none.
      seed: which split to draw, at least 0.
      num_classes: C.

    Returns:
      Sorted indices of the training and of the validation examples, both int64; together they are
      0 .. N - 1, each once.

    Raises:
      InputError: if size is not a whole number from 0 to below N.

    Example:
      >>> train, validation = validation_indices([0, 0, 0, 0, 1, 1], 2, seed=0, num_classes=2)
      >>> len(train), np.array([0, 0, 0, 0, 1, 1])[validation]
      (4, array([0, 1]))
    """
    labels = np.asarray(labels)
    if labels.ndim == 2:
        _check_size(size, len(labels))
        wanted = _stratified_counts(count_classes(labels, num_classes), int(size) / len(labels))
        given = np.zeros(len(labels), bool)
        if size:
            given = stratified_split(labels, wanted, int(size), seed)
        return np.flatnonzero(~given), np.flatnonzero(given)
    wanted = validation_counts(np.bincount(labels, minlength=num_classes), size)
    members, given = class_members(labels, num_classes), np.zeros(labels.size, bool)
    for c, count in enumerate(wanted):
        # The third number keeps this draw apart from the long-tailed subset's of the same seed.
        given[np.random.default_rng([seed, c, 1]).permutation(members[c])[:count]] = True
    return np.flatnonzero(~given), np.flatnonzero(given)
