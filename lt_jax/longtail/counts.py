"""Class counts: checked, made, and turned into the images that stay."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError

Vector = npt.NDArray[np.float64]
Imbalance = Literal["exponential", "step"]


def check_class_counts(class_counts: npt.ArrayLike, *, allow_zero: bool = True) -> Vector:
    """Class counts as a float64 vector, or a sentence that says what is wrong with them.

    Args:
      class_counts: number of training images of each class, ``[C]``. Floats are taken if each is a
        whole number.
      allow_zero: whether a class may have no image.

    Returns:
      The counts, float64 ``[C]``.

    Raises:
      InputError: for an empty, scalar or multi-dimensional argument, for NaN, infinite, negative
        or fractional counts, for counts that are all zero, and for a zero where none is allowed.
    """
    try:
        counts = np.asarray(class_counts, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"class_counts must be numbers, one for each class; got {class_counts!r}"
        ) from error
    if counts.ndim != 1 or counts.size == 0:
        raise InputError(
            f"class_counts must be a vector with one count for each class; got shape {counts.shape}"
        )
    for bad, what in (
        (~np.isfinite(counts), "a finite number"),
        (counts < 0, "0 or more"),
        (counts != np.floor(counts), "a whole number"),
        ((counts == 0) & (not allow_zero), "at least 1 for this method"),
    ):
        if bad.any():
            c = int(np.argmax(bad))
            raise InputError(f"class_counts[{c}] is {counts[c]:g}; expected {what}")
    if not counts.any():
        raise InputError("class_counts are all 0; expected at least one class with images")
    return counts


def is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def long_tailed_counts(
    max_count: int, num_classes: int, imbalance: float, kind: Imbalance = "exponential"
) -> npt.NDArray[np.int64]:
    r"""Images per class of a long-tailed subset, most frequent class first.

    .. math:: n_c = n_{max} \, \rho^{-c / (C - 1)}

    rounded down, for ``exponential``; for ``step`` the first half of the classes has ``max_count``
    and the rest ``max_count / imbalance``. No class gets less than one image.

    Args:
      max_count: images of the most frequent class.
      num_classes: C, at least 1.
      imbalance: rho, the largest count divided by the smallest; 1 is balanced.
      kind: ``"exponential"`` or ``"step"``.

    Returns:
      Counts, int64 ``[C]``, not increasing.

    Raises:
      InputError: for counts below 1, an imbalance below 1 or an unknown kind.

    Example:
      >>> long_tailed_counts(5000, 10, 100).tolist()
      [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]

    Source: Cui et al., CVPR 2019 (exponential); Buda et al., Neural Networks 2018 (step).
    """
    for name, value in (("max_count", max_count), ("num_classes", num_classes)):
        if not (is_number(value) and value == np.floor(value) and value >= 1):
            raise InputError(f"{name} is {value!r}; expected a whole number of at least 1")
    if not (is_number(imbalance) and imbalance >= 1):
        raise InputError(f"imbalance is {imbalance!r}; expected a number of at least 1")
    position = np.arange(num_classes, dtype=np.float64)
    if kind == "exponential":
        exponent = position / max(num_classes - 1, 1)
    elif kind == "step":
        exponent = (position >= num_classes / 2).astype(np.float64)
    else:
        raise InputError(f"imbalance kind is {kind!r}; expected 'exponential' or 'step'")
    # The tiny factor keeps a count that is whole in exact arithmetic (5000 / 100) from being
    # rounded down by the last bit of the power.
    counts = np.floor(max_count * float(imbalance) ** -exponent * (1 + 1e-12))
    return np.maximum(counts, 1).astype(np.int64)


def long_tailed_indices(
    labels: npt.ArrayLike, counts: npt.ArrayLike, seed: int
) -> npt.NDArray[np.int64]:
    """Which examples stay so that class c keeps ``counts[c]`` of them.

    Each class is shuffled by its own generator, seeded by ``(seed, class)``, and its first
    ``counts[c]`` examples stay: a smaller subset of the same seed lies inside a larger one.

    Args:
      labels: integer labels, ``[N]``.
      counts: how many examples of each class to keep, ``[C]``.
      seed: which subset to draw.

    Returns:
      Sorted indices into ``labels``, int64 ``[sum(counts)]``.

    Raises:
      InputError: if a class has fewer examples than are asked for, or a label is not in [0, C).

    Example:
      >>> long_tailed_indices([0, 0, 0, 1, 1, 1], [3, 1], seed=0)[:3]
      array([0, 1, 2])
    """
    wanted = check_class_counts(counts).astype(np.int64)
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels must be a vector of integers; got {labels.dtype} of shape {labels.shape}"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= wanted.size):
        bad = labels[(labels < 0) | (labels >= wanted.size)][0]
        raise InputError(f"label {bad} is outside the {wanted.size} classes of the class counts")
    kept = []
    for c, count in enumerate(wanted):
        members = np.flatnonzero(labels == c)
        if members.size < count:
            raise InputError(
                f"class {c} has {members.size} images, but the class counts ask for {count}"
            )
        kept.append(np.random.default_rng([seed, c]).permutation(members)[:count])
    return np.sort(np.concatenate(kept)).astype(np.int64)
