"""How likely the next image drawn is of each class."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail.counts import Vector, check_class_counts, is_number
from lt_jax.longtail.vectors import check_beta, cloud_sizes, effective_number, normalised_inverse

Scheme = Literal[
    "instance",
    "class",
    "square_root",
    "progressive",
    "effective_number",
    "class_based_effective_number",
    "power",
]

SCHEMES: tuple[str, ...] = get_args(Scheme)


def sampling_probabilities(
    class_counts: npt.ArrayLike,
    scheme: Scheme,
    *,
    beta: float = 0.9999,
    beta_spread: float = 1e-5,
    power: float = 1.0,
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
    power                          p proportional to n ** power
    ============================== ====================================================

    A power of 1 is ``instance``, 0 ``class`` and 0.5 ``square_root``; below 0 rare classes are
    drawn more often than frequent ones, at -1 in reverse to their counts.

    Args:
      class_counts: images of each class, ``[C]``.
      scheme: one of the names above.
      beta: for the effective-number schemes, in [0, 1).
      beta_spread: what is added to beta for the rarest class, for the class-based scheme.
      power: for ``power``, any finite number.
      progress: share of training that is over, in [0, 1], for ``progressive``.

    Returns:
      Probabilities, float64 ``[C]``, that sum to 1; 0 for a class without images.

    Raises:
      InputError: for bad counts, an unknown scheme, or a number outside its range.

    Example:
      >>> sampling_probabilities([900, 100], "square_root")
      array([0.75, 0.25])

    Source: Kang et al., Decoupling, ICLR 2020 (instance to progressive, power); Zhou et al., BBN,
    CVPR 2020 (a power of -1, its reversed sampler); Li, Cheung and Lu, CVPR 2022 (class-based
    effective number).
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
        mass = counts * normalised_inverse(effective_number(counts, check_beta(beta)))
    elif scheme == "class_based_effective_number":
        check_beta(beta)
        if not beta_spread >= 0 or not beta + beta_spread < 1:
            raise InputError(
                f"beta_spread is {beta_spread!r}; expected 0 or more, and less than 1 with the beta"
                f" of {beta!r} it is added to"
            )
        betas = np.full(counts.shape, beta)
        betas[present] += beta_spread * cloud_sizes(counts[present])
        mass = counts * normalised_inverse(effective_number(counts, betas))
    elif scheme == "power":
        mass = _powers(counts, power)
    else:
        raise InputError(f"sampling scheme is {scheme!r}; expected one of {', '.join(SCHEMES)}")
    return mass / mass.sum()


def _powers(counts: Vector, power: float) -> Vector:
    """The power of each count relative to the likeliest class; 0 for a class without images."""
    if not is_number(power):
        raise InputError(f"power is {power!r}; expected a finite number")
    present = counts > 0
    likeliest = counts[present].max() if power >= 0 else counts[present].min()
    mass = np.zeros(counts.shape)
    with np.errstate(over="ignore"):  # by logarithms, as powers of counts need not be finite
        mass[present] = np.exp(power * np.log(counts[present] / likeliest))
    return mass
