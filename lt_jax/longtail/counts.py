"""Class counts: checked, made, and turned into the images that stay."""

from __future__ import annotations

from typing import Any, Literal, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError

Vector = npt.NDArray[np.float64]
Imbalance = Literal["exponential", "step", "pareto"]


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
    for value in (class_counts, *(class_counts if isinstance(class_counts, (list, tuple)) else ())):
        check_known("class_counts", value)
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


def check_known(name: str, value: object) -> None:
    """Refuses what JAX traces, of which vectors cannot be made on the host."""
    # By name, as nothing here needs JAX.
    if any(kind.__name__ == "Tracer" for kind in type(value).__mro__):
        raise InputError(
            f"{name} is traced by JAX; expected a value from outside of the function that is"
            " compiled or mapped: a number, a tuple or a NumPy array"
        )


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite real number, also as an array without dimensions, of JAX too."""
    if isinstance(value, np.complexfloating) or not hasattr(value, "__float__"):
        return False
    if getattr(value, "ndim", 0) != 0:
        return False
    try:
        return bool(np.isfinite(float(cast(Any, value))))
    except (TypeError, ValueError):  # such as of what JAX traces
        return False


def long_tailed_profile(
    num_classes: int, imbalance: float, kind: Imbalance = "exponential", power: float = 6.0
) -> Vector:
    r"""How frequent each class of a long tail is, relative to the most frequent one.

    ============== ==========================================================================
    exponential    :math:`\rho^{-c / (C - 1)}`
    step           1 for the first half of the classes, :math:`1 / \rho` for the others
    pareto         :math:`x_c^{-(\alpha + 1)}`, the density of a Pareto distribution relative to
                   its highest value, at C evenly spaced points from 1 to
                   :math:`\rho^{1 / (\alpha + 1)}`
    ============== ==========================================================================

    For ``pareto`` an imbalance of 0 is that of COCO-MLT and VOC-MLT, whose points end where 99 % of
    the distribution lie, at :math:`100^{1/\alpha}`: 215 for a power of 6.

    Args:
      num_classes: C, at least 1.
      imbalance: rho, how much more frequent the first class is than the last; 1 is balanced.
      kind: one of the three names.
      power: alpha, of ``pareto``, above 0.

    Returns:
      Relative frequencies, float64 ``[C]``, from 1 downwards.

    Raises:
      InputError: for numbers outside their ranges or an unknown kind.

    Example:
      >>> long_tailed_profile(3, 100)
      array([1.  , 0.1 , 0.01])

    Source: Cui et al., CVPR 2019 (exponential); Buda et al., Neural Networks 2018 (step); Wu et
    al., ECCV 2020, and its released code (pareto).
    """
    num_classes = check_whole("num_classes", num_classes, 1)
    if kind == "pareto" and not (is_number(power) and power > 0):
        raise InputError(f"pareto_power is {power!r}; expected a number above 0, such as 6")
    if kind == "pareto" and imbalance == 0:
        imbalance = 100.0 ** ((power + 1) / power)
    if not (is_number(imbalance) and imbalance >= 1):
        raise InputError(f"imbalance is {imbalance!r}; expected a number of at least 1")
    position = np.arange(num_classes, dtype=np.float64)
    if kind == "exponential":
        exponent = position / max(num_classes - 1, 1)
    elif kind == "step":
        exponent = (position >= num_classes / 2).astype(np.float64)
    elif kind == "pareto":
        last = float(imbalance) ** (1 / (power + 1))
        return np.linspace(1.0, last, num_classes) ** -(power + 1)
    else:
        raise InputError(
            f"imbalance kind is {kind!r}; expected 'exponential' or 'step' or 'pareto'"
        )
    return float(imbalance) ** -exponent


def long_tailed_counts(
    max_count: int,
    num_classes: int,
    imbalance: float,
    kind: Imbalance = "exponential",
    power: float = 6.0,
) -> npt.NDArray[np.int64]:
    r"""Images per class of a long-tailed subset, most frequent class first.

    .. math:: n_c = n_{max} \, p_c

    rounded down, with p the `long_tailed_profile`; no class gets less than one image. For
    ``pareto`` it is :math:`1 + (n_{max} - 1) p_c`, as in the code that made COCO-MLT.

    Args:
      max_count: images of the most frequent class.
      num_classes: C, at least 1.
      imbalance: rho, the largest count divided by the smallest; 1 is balanced.
      kind: ``"exponential"``, ``"step"`` or ``"pareto"``.
      power: of ``"pareto"``.

    Returns:
      Counts, int64 ``[C]``, not increasing.

    Raises:
      InputError: for counts below 1, an imbalance below 1 or an unknown kind.

    Example:
      >>> long_tailed_counts(5000, 10, 100).tolist()
      [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]

    Source: see `long_tailed_profile`.
    """
    check_whole("max_count", max_count, 1)
    profile = long_tailed_profile(num_classes, imbalance, kind, power)
    least = 1 if kind == "pareto" else 0
    # The tiny factor keeps a count that is whole in exact arithmetic (5000 / 100) from being
    # rounded down by the last bit of the power.
    counts = np.floor(least + (max_count - least) * profile * (1 + 1e-12))
    return np.maximum(counts, 1).astype(np.int64)


def is_whole(value: object, least: int = 0) -> TypeGuard[float]:
    """Whether it is a whole number of at least `least`; a float such as 3.0 is one."""
    return is_number(value) and value >= least and value == int(value)


def check_whole(name: str, value: object, least: int) -> int:
    """``value`` as an int if it is a whole number of at least ``least``, else an error."""
    if not is_whole(value, least):
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def check_seed(seed: object) -> None:
    """Refuses what NumPy cannot start a generator from."""
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}; expected a whole number of at least 0")


def class_members(labels: npt.NDArray[Any], num_classes: int) -> list[npt.NDArray[np.int64]]:
    """Sorted indices of the examples of each class.

    Args:
      labels: integer labels in [0, C), ``[N]``.
      num_classes: C.

    Returns:
      C vectors, int64, together 0 .. N - 1, each once.

    Example:
      >>> [members.tolist() for members in class_members(np.array([2, 0, 2]), 3)]
      [[1], [], [0, 2]]
    """
    # Sorted once; looking for each class among all labels takes minutes of 50,000 classes.
    ends = np.cumsum(np.bincount(labels.astype(np.int64), minlength=num_classes))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


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
      InputError: if a class has fewer examples than are asked for, a label is not in [0, C), or
        the seed is no whole number of at least 0.

    Example:
      >>> long_tailed_indices([0, 0, 0, 1, 1, 1], [3, 1], seed=0)[:3]
      array([0, 1, 2])
    """
    wanted = check_class_counts(counts).astype(np.int64)
    check_seed(seed)
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels must be a vector of integers; got {labels.dtype} of shape {labels.shape}"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= wanted.size):
        bad = labels[(labels < 0) | (labels >= wanted.size)][0]
        raise InputError(f"label {bad} is outside the {wanted.size} classes of the class counts")
    members, kept = class_members(labels, wanted.size), []
    for c, count in enumerate(wanted):
        if members[c].size < count:
            raise InputError(
                f"class {c} has {members[c].size} images, but the class counts ask for {count}"
            )
        kept.append(np.random.default_rng([seed, c]).permutation(members[c])[:count])
    return np.sort(np.concatenate(kept)).astype(np.int64)
