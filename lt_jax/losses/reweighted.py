"""Baselines that weigh single entries of a sigmoid: asymmetric, distribution-balanced."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from lt_jax import longtail
from lt_jax.errors import InputError
from lt_jax.longtail.counts import check_known
from lt_jax.losses._inputs import (
    Array,
    check_number,
    constant,
    prepare,
    proportional,
    sum_of,
)


def asymmetric_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma_positive: float = 1.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
    weights: ArrayLike = 1.0,
    keep: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Sigmoid loss that focuses negatives harder than positives and drops the easiest ones.

    .. math:: \ell_i = -\sum_c t (1 - p)^{\gamma_+} \log p + (1 - t) p_m^{\gamma_-} \log (1 - p_m),
              \quad p_m = \max(p - m, 0)

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]`` or multi-hot ``[B, C]``.
      gamma_positive: focus of the positives, at least 0.
      gamma_negative: focus of the negatives, at least 0.
      clip: m, in [0, 1): negatives below this probability cost nothing.
      weights: weight of each entry, broadcastable to ``[B, C]``.
      keep: which entries count, bool ``[B, C]``.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``. Both gammas and the clip at 0 give the sigmoid cross-entropy.

    Raises:
      InputError: if shapes do not fit, or for a number outside its range.

    Example:
      >>> asymmetric_loss(jnp.array([[3.0, -3.0]]), jnp.array([[1, 0]])).round(4)
      Array([0.0023], dtype=float32)

    Source: Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021.
    """
    logits, targets = prepare(logits, labels, where)
    for name, gamma in (("gamma_positive", gamma_positive), ("gamma_negative", gamma_negative)):
        check_number(name, gamma, 0.0)
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive = jnp.exp(gamma_positive * log_q) * log_p
    negative = _clipped_negative(log_p, log_q, gamma_negative, check_clip(clip))
    entries = -(targets * positive + (1.0 - targets) * negative)
    return sum_of(entries, weights, keep, where)


def check_clip(clip: float) -> float:
    """``clip`` if it lies in [0, 1), else an `InputError`."""
    check_number("clip", clip, 0.0, 1.0)
    if not isinstance(clip, jax.core.Tracer) and clip == 1:
        raise InputError("clip is 1; expected a number in [0, 1)")
    return clip


def _clipped_negative(log_p: Array, log_q: Array, gamma: float, clip: float) -> Array:
    """``p_m ** gamma * log(1 - p_m)`` with ``p_m = max(p - clip, 0)``, gradient finite at 0.

    Above one half ``1 - p_m`` is summed as ``(1 - p) + clip``: in float32 ``p_m`` may round to 1.
    """
    if not isinstance(clip, jax.core.Tracer) and clip == 0:
        return jnp.exp(gamma * log_p) * log_q
    shifted = jnp.exp(log_p) - clip
    inside = shifted > 0
    safe = jnp.where(inside, shifted, 0.5)
    small = safe < 0.5
    far = jnp.logaddexp(jnp.where(small, 0.0, log_q), jnp.log(jnp.asarray(clip, log_q.dtype)))
    log_rest = jnp.where(small, jnp.log1p(-jnp.where(small, safe, 0.0)), far)
    return jnp.where(inside, safe**gamma * log_rest, 0.0)


def rebalanced_weights(
    targets: Array,
    class_counts: Array,
    *,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
) -> Array:
    r"""Weight of every entry that undoes the double sampling of images with several labels.

    .. math:: r_{ic} = \frac{1 / n_c}{\sum_j t_{ij} / n_j}, \quad
              w_{ic} = \alpha + \sigma(\beta (r_{ic} - \mu))

    Args:
      targets: multi-hot ``[B, C]``. A row without any label gets the weights' upper limit.
      class_counts: positives of each class, ``[C]``, each at least 1.
      alpha: least weight, at least 0.
      beta: steepness, above 0.
      mu: ratio at which the weight is in the middle.

    Returns:
      Weights, ``[B, C]``.

    Raises:
      InputError: for numbers outside their range.

    Source: Wu et al., Distribution-Balanced Loss, ECCV 2020, equations 2 to 5.
    """
    check_rebalancing(alpha, beta, mu)
    inverse = 1.0 / class_counts
    drawn = jnp.sum(targets * inverse, axis=-1, keepdims=True)
    ratio = jnp.where(drawn > 0, inverse / jnp.where(drawn > 0, drawn, 1.0), jnp.inf)
    return alpha + jax.nn.sigmoid(beta * (ratio - mu))


def check_rebalancing(alpha: float, beta: float, mu: float) -> None:
    """Refuses numbers outside their range: beta multiplies infinity in rows without labels."""
    check_number("alpha", alpha, 0.0)
    check_number("beta", beta, 0.0, open_low=True)
    check_number("mu", mu)


def negative_tolerant_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike,
    *,
    negative_scale: float = 2.0,
    weights: ArrayLike = 1.0,
    keep: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Sigmoid cross-entropy that stops pushing negatives down once they are low enough.

    .. math:: \ell_i = \sum_c t \log(1 + e^{-(z - \nu_c)})
              + \tfrac{1}{\lambda} (1 - t) \log(1 + e^{\lambda (z - \nu_c)})

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]`` or multi-hot ``[B, C]``.
      bias: nu of each class, ``[C]`` (`tolerant_bias`).
      negative_scale: lambda, positive; 1 with bias 0 gives the sigmoid cross-entropy.
      weights: weight of each entry, broadcastable to ``[B, C]``.
      keep: which entries count, bool ``[B, C]``.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Source: Wu et al., Distribution-Balanced Loss, ECCV 2020, equation 9.
    """
    logits, targets = prepare(logits, labels, where)
    scale = check_number("negative_scale", negative_scale, 0.0, open_low=True)
    shifted = logits - bias
    entries = -targets * jax.nn.log_sigmoid(shifted)
    entries -= (1.0 - targets) / scale * jax.nn.log_sigmoid(-scale * shifted)
    return sum_of(entries, weights, keep, where)


def tolerant_bias(
    class_counts: npt.ArrayLike, num_examples: int | None = None, kappa: float = 0.05
) -> longtail.Vector:
    r"""Bias of the negative-tolerant loss, :math:`\nu_c = \kappa \log(N / n_c - 1)`, ``[C]``.

    Multi-label data, of which the number of examples is given, may have classes that every example
    or none has; their bias is 0.

    Raises:
      InputError: for bad counts; for single-label data also if a class is empty or the only one.
    """
    check_known("kappa", kappa)
    check_number("kappa", kappa, 0.0)
    counts = _positives(class_counts, num_examples)
    total = longtail.total_examples(counts, num_examples)
    if num_examples is None and counts.max() == total:
        raise InputError("class_counts are of one class only; expected at least two")
    # The weight of the positives is the same ratio, and 1 where there is none.
    return kappa * np.log(longtail.positive_weights(counts, num_examples))


def _positives(class_counts: npt.ArrayLike, num_examples: int | None) -> longtail.Vector:
    """Class counts, of which only multi-label ones (`num_examples` given) may be 0."""
    return longtail.check_class_counts(class_counts, allow_zero=num_examples is not None)


def rebalanced_counts(
    class_counts: npt.ArrayLike, num_examples: int | None = None
) -> longtail.Vector:
    """Counts for `rebalanced_weights`, ``[C]``: at least 1.

    A class without positives, which multi-label data (`num_examples` given) may have, is taken for
    one with a single positive; it can only have negatives, which then weigh nearly the most.
    """
    return np.maximum(_positives(class_counts, num_examples), 1.0)


def distribution_balanced_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    num_examples: int | None = None,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
    kappa: float = 0.05,
    negative_scale: float = 2.0,
    where: ArrayLike | None = None,
) -> Array:
    """Re-balanced weights on the negative-tolerant sigmoid loss, for multi-label data.

    The sum over the classes, like the other sigmoid losses here; the paper divides it by C.

    Args:
      logits: ``[B, C]``, any floating type.
      labels: multi-hot ``[B, C]``, or integers ``[B]``.
      class_counts: positives of each class, ``[C]``, each at least 1; with `num_examples` a class
        may also have none or all, see `tolerant_bias` and `rebalanced_counts`.
      num_examples: training examples; the sum of the counts if None (single-label data).
      alpha: see `rebalanced_weights`.
      beta: see `rebalanced_weights`.
      mu: see `rebalanced_weights`.
      kappa: see `tolerant_bias`.
      negative_scale: see `negative_tolerant_cross_entropy`.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts or numbers outside their range.

    Example:
      >>> z, y = jnp.zeros((1, 2)), jnp.array([[1, 0]])
      >>> distribution_balanced_loss(z, y, [50, 5], num_examples=100).round(1)
      Array([1.1], dtype=float32)

    Source: Wu et al., Distribution-Balanced Loss, ECCV 2020.
    """
    logits, targets = prepare(logits, labels, where)
    counts = constant(rebalanced_counts(class_counts, num_examples), logits)
    weights = rebalanced_weights(targets, counts, alpha=alpha, beta=beta, mu=mu)
    bias = proportional(kappa, partial(tolerant_bias, class_counts, num_examples), logits)
    return negative_tolerant_cross_entropy(
        logits, targets, bias, negative_scale=negative_scale, weights=weights, where=where
    )
