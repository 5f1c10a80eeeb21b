"""One number for each class: effective numbers, weights, priors, margins, clouds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail.counts import Vector, check_class_counts, check_known, is_number


def check_beta(beta: float, name: str = "beta") -> float:
    """``beta`` if it lies in [0, 1), else an `InputError` that calls it by that name."""
    check_known(name, beta)
    if not (is_number(beta) and 0.0 <= float(beta) < 1.0):
        raise InputError(f"{name} is {beta!r}; expected a number in [0, 1), such as 0.9999")
    return float(beta)


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


def normalised_inverse(amount: Vector) -> Vector:
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
    return normalised_inverse(effective_number(class_counts, check_beta(beta)))


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
    counts = check_class_counts(class_counts)
    powers = _finite_powers(np.maximum(counts, 1), power)
    return normalised_inverse(np.where(counts > 0, powers, 0.0))


def _finite_powers(values: Vector, power: float) -> Vector:
    """The power of each positive value; refuses one that leads out of the range of numbers."""
    check_known("power", power)
    if not is_number(power):
        raise InputError(f"power is {power!r}; expected a finite number")
    with np.errstate(over="ignore"):
        powers = values**power
    if not (np.isfinite(powers) & (powers > 0)).all():
        raise InputError(f"power is {power!r}; expected one of which weights stay finite")
    return powers


def total_examples(class_counts: Vector, num_examples: int | None) -> float:
    """Examples of the training set.

    Args:
      class_counts: positives of each class, ``[C]``.
      num_examples: where an example may have several labels or none; the sum of the counts if None.

    Returns:
      N.

    Raises:
      InputError: for fewer examples than a class has positives.

    Example:
      >>> total_examples(np.array([30.0, 10.0]), None), total_examples(np.array([30.0, 10.0]), 32)
      (40.0, 32.0)
    """
    if num_examples is None:
        return float(class_counts.sum())
    check_known("num_examples", num_examples)
    if not (is_number(num_examples) and num_examples >= class_counts.max()):
        raise InputError(
            f"num_examples is {num_examples!r}; expected at least the largest count"
            f" {class_counts.max():g}"
        )
    return float(num_examples)


def positive_weights(
    class_counts: npt.ArrayLike, num_examples: int | None = None, power: float = 1.0
) -> Vector:
    r"""Weight of each class's positives against its negatives.

    .. math:: w_c = ((N - n_c) / n_c)^p

    With a power of 1 the positives of a class weigh as much as its negatives, all of them together.

    Args:
      class_counts: positives of each class, ``[C]``.
      num_examples: N; the sum of the counts if None (single-label data).
      power: 1, or less for milder weights; 0 for none.

    Returns:
      Weights, float64 ``[C]``; 1 for a class without positives or without negatives.

    Raises:
      InputError: for bad counts, fewer examples than positives, or a power that is not finite.

    Example:
      >>> positive_weights([10, 50, 0, 100], num_examples=100)
      array([9., 1., 1., 1.])
    """
    counts = check_class_counts(class_counts)
    total = total_examples(counts, num_examples)
    varies = (counts > 0) & (counts < total)
    odds = np.where(varies, (total - counts) / np.maximum(counts, 1.0), 1.0)
    return _finite_powers(odds, power)


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
    check_known("max_margin", max_margin)
    if not (is_number(max_margin) and max_margin >= 0):
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
