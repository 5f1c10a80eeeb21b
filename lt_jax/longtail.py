"""From class counts to per-class vectors, on the host in float64.

Everything a long-tailed method derives from how many images each class has is computed here, with
NumPy and in float64: ``0.9999 ** n`` in float32 has lost all of its digits by the time it is
subtracted from one. The results become float32 constants of the jitted step.

A class without images (count 0) is allowed where the formula has a limit: it gets effective number
0, weight 0 and sampling probability 0, and the normalisation is over the classes that do occur.
Where the formula has none (priors, margins, clouds) a count of 0 is refused.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError

Vector = npt.NDArray[np.float64]
Imbalance = Literal["exponential", "step"]
Scheme = Literal[
    "instance",
    "class",
    "square_root",
    "progressive",
    "effective_number",
    "class_based_effective_number",
]
SCHEMES: tuple[str, ...] = Scheme.__args__  # type: ignore[attr-defined]


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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def check_beta(beta: float) -> float:
    """``beta`` if it lies in [0, 1), else an `InputError`."""
    if not (_is_number(beta) and 0.0 <= float(beta) < 1.0):
        raise InputError(f"beta is {beta!r}; expected a number in [0, 1), such as 0.9999")
    return float(beta)


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
        if not (_is_number(value) and value == np.floor(value) and value >= 1):
            raise InputError(f"{name} is {value!r}; expected a whole number of at least 1")
    if not (_is_number(imbalance) and imbalance >= 1):
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


def effective_number(class_counts: npt.ArrayLike, beta: float | npt.ArrayLike) -> Vector:
    r"""Effective number of samples of each class.

    .. math:: E(n) = (1 - \beta^n) / (1 - \beta)

    Args:
      class_counts: images of each class, ``[C]``.
      beta: in [0, 1); one number, or one for each class ``[C]``. 0 gives 1 for every class that
        occurs, towards 1 it gives n.

    Returns:
      E(n), float64 ``[C]``; 0 for a class without images.

    Raises:
      InputError: for bad counts or a beta outside [0, 1).

    Example:
      >>> effective_number([1, 10, 0], 0.9).round(4)
      array([1.    , 6.5132, 0.    ])

    Source: Cui et al., Class-Balanced Loss, CVPR 2019, equation 3.
    """
    counts = check_class_counts(class_counts)
    betas = np.array([check_beta(b) for b in np.atleast_1d(beta).tolist()])
    if betas.size not in (1, counts.size):
        raise InputError(f"there are {betas.size} betas for {counts.size} class counts")
    with np.errstate(divide="ignore", invalid="ignore"):  # beta = 0 has no logarithm
        general = -np.expm1(counts * np.log(betas)) / (1.0 - betas)
    return np.where(counts == 0, 0.0, np.where(betas == 0, 1.0, general))


def _normalised_inverse(amount: Vector) -> Vector:
    """1 / amount where it is positive, scaled so that the mean over those classes is 1."""
    present = amount > 0
    inverse = np.where(present, 1.0 / np.where(present, amount, 1.0), 0.0)
    return inverse * (present.sum() / inverse.sum())


def class_balanced_weights(class_counts: npt.ArrayLike, beta: float) -> Vector:
    r"""Weight of each class by the inverse of its effective number.

    .. math:: w_c = \frac{C / E(n_c)}{\sum_j 1 / E(n_j)}

    Args:
      class_counts: images of each class, ``[C]``.
      beta: in [0, 1). 0 gives equal weights; towards 1 it gives `inverse_frequency_weights`.

    Returns:
      Weights, float64 ``[C]``, that sum to the number of classes with images; 0 for the others.

    Raises:
      InputError: for bad counts or a beta outside [0, 1).

    Example:
      >>> class_balanced_weights([5000, 50], 0.9999).round(4)
      array([0.025, 1.975])

    Source: Cui et al., Class-Balanced Loss, CVPR 2019, section 4.
    """
    return _normalised_inverse(effective_number(class_counts, check_beta(beta)))


def inverse_frequency_weights(class_counts: npt.ArrayLike, power: float = 1.0) -> Vector:
    r"""Weight of each class by a power of its inverse frequency.

    .. math:: w_c \propto n_c^{-p}

    Args:
      class_counts: images of each class, ``[C]``.
      power: 1 for the inverse frequency, 0.5 for its square root, 0 for equal weights.

    Returns:
      Weights, float64 ``[C]``, that sum to the number of classes with images; 0 for the others.

    Raises:
      InputError: for bad counts or a power that is not finite.

    Example:
      >>> inverse_frequency_weights([30, 10])
      array([0.5, 1.5])
    """
    if not np.isfinite(power):
        raise InputError(f"power is {power!r}; expected a finite number")
    counts = check_class_counts(class_counts)
    return _normalised_inverse(np.where(counts > 0, np.maximum(counts, 1) ** power, 0.0))


def log_prior(class_counts: npt.ArrayLike) -> Vector:
    r"""Logarithm of each class's share of the images, float64 ``[C]``.

    .. math:: \log \pi_c = \log (n_c / \sum_j n_j)

    Args:
      class_counts: images of each class, ``[C]``, each at least 1.

    Returns:
      Log priors, float64 ``[C]``.

    Raises:
      InputError: for bad counts; a class without images has a prior of minus infinity.

    Example:
      >>> np.exp(log_prior([30, 10])).round(6)
      array([0.75, 0.25])

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021.
    """
    counts = check_class_counts(class_counts, allow_zero=False)
    return np.log(counts) - np.log(counts.sum())


def label_distribution_margins(class_counts: npt.ArrayLike, max_margin: float = 0.5) -> Vector:
    r"""Margin of each class: larger for rarer classes.

    .. math:: m_c = m_{max} \, (n_c / n_{min})^{-1/4}

    Args:
      class_counts: images of each class, ``[C]``, each at least 1.
      max_margin: margin of the rarest class, at least 0, in units of the (cosine) logits.

    Returns:
      Margins, float64 ``[C]``.

    Raises:
      InputError: for bad counts or a negative margin.

    Example:
      >>> label_distribution_margins([1600, 100]).round(3)
      array([0.25, 0.5 ])

    Source: Cao et al., LDAM, NeurIPS 2019, equation 13.
    """
    if not (np.isfinite(max_margin) and max_margin >= 0):
        raise InputError(f"max_margin is {max_margin!r}; expected a number of at least 0")
    counts = check_class_counts(class_counts, allow_zero=False)
    return max_margin * (counts.min() / counts) ** 0.25


def cloud_sizes(class_counts: npt.ArrayLike) -> Vector:
    r"""Relative size of the Gaussian cloud of each class.

    .. math:: \delta_c = \frac{\log n_{max} - \log n_c}{\max_j (\log n_{max} - \log n_j)}

    Args:
      class_counts: images of each class, ``[C]``, each at least 1.

    Returns:
      Sizes in [0, 1], float64 ``[C]``: 0 for the most frequent class, 1 for the rarest, all 0 if
      the classes are balanced.

    Raises:
      InputError: for bad counts; a class without images would have an infinite cloud.

    Example:
      >>> cloud_sizes([1000, 100, 10])
      array([0. , 0.5, 1. ])

    Source: Li, Cheung and Lu, Gaussian Clouded Logit Adjustment, CVPR 2022.
    """
    log_counts = np.log(check_class_counts(class_counts, allow_zero=False))
    size = log_counts.max() - log_counts
    return size / size.max() if size.max() > 0 else np.zeros_like(size)


def sampling_probabilities(
    class_counts: npt.ArrayLike,
    scheme: Scheme,
    *,
    beta: float = 0.9999,
    beta_spread: float = 1e-5,
    progress: float = 0.0,
) -> Vector:
    """Probability that the next image drawn belongs to each class.

    Within a class every image is equally likely, so an image of class c is drawn with probability
    ``p[c] / n[c]``. With n the counts and E the effective number:

    ============================== ====================================================
    instance                       p proportional to n
    class                          equal for every class that has images
    square_root                    p proportional to sqrt(n)
    progressive                    (1 - progress) * instance + progress * class
    effective_number               p proportional to n / E(n), one beta for all
    class_based_effective_number   the same with beta_c = beta + beta_spread * cloud size
    ============================== ====================================================

    Args:
      class_counts: images of each class, ``[C]``.
      scheme: one of the names above.
      beta: for the effective-number schemes, in [0, 1).
      beta_spread: what is added to beta for the rarest class, for the class-based scheme.
      progress: share of training that is over, in [0, 1], for ``progressive``.

    Returns:
      Probabilities, float64 ``[C]``, that sum to 1; 0 for a class without images.

    Raises:
      InputError: for bad counts, an unknown scheme, or a number outside its range.

    Example:
      >>> sampling_probabilities([900, 100], "square_root")
      array([0.75, 0.25])

    Source: Kang et al., Decoupling, ICLR 2020 (instance to progressive); Li, Cheung and Lu,
    CVPR 2022 (class-based effective number).
    """
    counts = check_class_counts(class_counts)
    present = counts > 0
    instance, uniform = counts / counts.sum(), present / present.sum()
    if not 0 <= progress <= 1:
        raise InputError(f"progress is {progress!r}; expected a number in [0, 1]")
    if scheme == "instance":
        return instance
    if scheme == "class":
        return uniform
    if scheme == "progressive":
        return (1 - progress) * instance + progress * uniform
    if scheme == "square_root":
        mass = np.sqrt(counts)
    elif scheme == "effective_number":
        mass = counts * _normalised_inverse(effective_number(counts, check_beta(beta)))
    elif scheme == "class_based_effective_number":
        betas = np.full(counts.shape, check_beta(beta))
        betas[present] += beta_spread * cloud_sizes(counts[present])
        mass = counts * _normalised_inverse(effective_number(counts, betas))
    else:
        raise InputError(f"sampling scheme is {scheme!r}; expected one of {', '.join(SCHEMES)}")
    return mass / mass.sum()
