"""Equalization loss (Tan et al., CVPR 2020): negatives of rare classes are left out."""

from __future__ import annotations

from typing import Literal

import jax
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from lt_jax import longtail
from lt_jax.longtail.counts import check_known
from lt_jax.losses._inputs import Array, check_number, constant, is_positive, prepare
from lt_jax.losses.cross_entropy import cross_entropy_of


def rare_classes(
    class_counts: npt.ArrayLike,
    threshold: float | None = None,
    num_examples: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Which classes less than `threshold` of the images have, bool ``[C]``; if None, the mean."""
    counts = longtail.check_class_counts(class_counts)
    total = longtail.total_examples(counts, num_examples)
    if threshold is None:
        return counts * counts.size < counts.sum()
    check_known("threshold", threshold)
    return counts / total < check_number("threshold", threshold, 0, 1)


def equalization_keep(key: Array, targets: Array, rare: Array, probability: float = 0.9) -> Array:
    """Entries that the equalization loss keeps: all but the negatives of rare classes.

    Args:
      key: PRNG key; not used if `probability` is 1.
      targets: ``[B, C]``; positive from 0.5 on.
      rare: which classes are protected, bool ``[C]``.
      probability: with which each such negative is dropped.

    Returns:
      bool ``[B, C]``.
    """
    drop = jax.random.uniform(key, targets.shape) < check_number("probability", probability, 0, 1)
    return is_positive(targets) | ~(rare & drop)


def equalization_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    key: Array,
    num_examples: int | None = None,
    threshold: float | None = None,
    probability: float = 0.9,
    base: Literal["softmax", "sigmoid"] = "softmax",
    where: ArrayLike | None = None,
) -> Array:
    r"""Cross-entropy in which rare classes are not pushed down by the others' examples.

    .. math:: \ell_i = -\log \frac{e^{z_{iy}}}{\sum_j (1 - \beta_{ij} [n_j / N < \lambda]
              [j \ne y]) e^{z_{ij}}}, \quad \beta_{ij} \sim \mathrm{Bernoulli}(\gamma)

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]``, or a distribution or multi-hot ``[B, C]``.
      class_counts: training images of each class, ``[C]``.
      key: PRNG key of this call.
      num_examples: N, training images; the sum of the counts if None (single-label data).
      threshold: lambda, share of the images below which a class is rare; if None, the mean of the
        classes' shares, which is 1 / C for single-label data.
      probability: gamma, with which each negative of a rare class is left out.
      base: ``"softmax"`` or ``"sigmoid"``.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts, an unknown base or numbers outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> z, y = jnp.zeros((1, 3)), jnp.array([0])
      >>> equalization_loss(z, y, [50, 45, 5], key=jax.random.key(0), probability=1.0).round(4)
      Array([0.6931], dtype=float32)

    Source: Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020.
    """
    loss = cross_entropy_of(base)
    logits, targets = prepare(logits, labels, where)
    rare = rare_classes(class_counts, threshold, num_examples).astype(np.float64)
    keep = equalization_keep(key, targets, constant(rare, logits) > 0, probability)
    return loss(logits, targets, keep=keep, where=where)
