"""Softmax and sigmoid cross-entropy and their focal forms: what the methods are built on."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lt_jax.errors import InputError
from lt_jax.losses._inputs import (
    Array,
    check_entries,
    check_number,
    is_positive,
    prepare,
    sum_of,
    zero_outside,
)


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike = 1.0,
    keep: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy with a weight and a mask for every entry.

    .. math:: \ell_i = -\sum_c k_{ic} w_{ic} t_{ic} \log
              \frac{e^{z_{ic}}}{\sum_{j: k_{ij} = 1 \text{ or } t_{ij} \ge 1/2} e^{z_{ij}}}

    A masked positive drops its term; a masked negative leaves the normaliser.

    Args:
      logits: ``[B, C]``, any floating type; computed in at least float32.
      labels: integers ``[B]``, or a distribution over the classes ``[B, C]``.
      weights: weight of each entry, broadcastable to ``[B, C]``.
      keep: which entries count, bool ``[B, C]``; all if None.
      where: which rows count, bool ``[B]``; the others have zero loss and gradient.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes or dtypes do not fit.

    Example:
      >>> softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
      Array([1.3863], dtype=float32)
    """
    logits, targets = prepare(logits, labels, where)
    check_entries(logits, weights=weights, keep=keep)
    if keep is None:
        log_p = jax.nn.log_softmax(logits)
    else:
        keep = jnp.asarray(keep)
        competing = keep | is_positive(targets)
        log_p = jax.nn.log_softmax(jnp.where(competing, logits, -jnp.inf))
        log_p = jnp.where(competing & keep, log_p, 0.0)
    return zero_outside(-jnp.sum(target_entries(log_p, targets, weights), axis=-1), where)


def target_entries(log_p: Array, targets: Array, weights: ArrayLike = 1.0) -> Array:
    """``weights * targets * log_p``, 0 with a gradient of 0 where there is no target.

    A class that a mask of the caller's has put at minus infinity is no target: neither its entry
    nor the gradient of its weight is 0 * inf. NaN stays NaN.
    """
    is_target = targets != 0
    return jnp.where(is_target, weights * targets * jnp.where(is_target, log_p, 0.0), 0.0)


def sigmoid_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike = 1.0,
    keep: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Sum over the classes of binary cross-entropies, with a weight and a mask for every entry.

    .. math:: \ell_i = -\sum_c k_{ic} w_{ic}
              (t_{ic} \log \sigma(z_{ic}) + (1 - t_{ic}) \log \sigma(-z_{ic}))

    Args:
      logits: ``[B, C]``, any floating type; computed in at least float32.
      labels: integers ``[B]`` (each class against the rest) or multi-hot ``[B, C]``.
      weights: weight of each entry, broadcastable to ``[B, C]``.
      keep: which entries count, bool ``[B, C]``; all if None.
      where: which rows count, bool ``[B]``; the others have zero loss and gradient.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes or dtypes do not fit.

    Example:
      >>> sigmoid_cross_entropy(jnp.zeros((1, 2)), jnp.array([1])).round(4)
      Array([1.3863], dtype=float32)
    """
    logits, targets = prepare(logits, labels, where)
    entries = -(
        targets * jax.nn.log_sigmoid(logits) + (1.0 - targets) * jax.nn.log_sigmoid(-logits)
    )
    return sum_of(entries, weights, keep, where)


def cross_entropy_of(base: str) -> Callable[..., Array]:
    """The cross-entropy of a base by name, ``"softmax"`` or ``"sigmoid"``; else an `InputError`."""
    if base not in ("sigmoid", "softmax"):
        raise InputError(f"base is {base!r}; expected 'sigmoid' or 'softmax'")
    return sigmoid_cross_entropy if base == "sigmoid" else softmax_cross_entropy


def log_one_minus_softmax(logits: Array) -> Array:
    r"""``log(1 - softmax(logits))`` of every entry, finite at any logit.

    For the largest entry, whose probability may round to 1, the other classes are summed; for the
    rest, whose probability is at most one half, ``log1p`` is exact.

    Args:
      logits: float ``[B, C]`` with C of at least 2.

    Returns:
      ``[B, C]``, in the dtype of the logits.

    Example:
      >>> log_one_minus_softmax(jnp.array([[1e4, 1e4, 0.0]])).round(4)
      Array([[-0.6931, -0.6931, -0.    ]], dtype=float32)
    """
    # Sums near logits of 1e4 would keep only three decimals. Of classes that are all at minus
    # infinity but one, the logarithm of a sum has no gradient.
    logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    logits = jnp.maximum(logits, -1e30)
    largest = jnp.argmax(logits, axis=-1, keepdims=True) == jnp.arange(logits.shape[-1])
    others = jax.nn.logsumexp(jnp.where(largest, -jnp.inf, logits), axis=-1, keepdims=True)
    everything = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    # Each branch sees only arguments it is safe for, so that its gradient is finite too.
    small = jnp.where(largest, 0.0, jnp.exp(logits - everything))
    return jnp.where(largest, others - everything, jnp.log1p(-small))


def softmax_focal_modulation(logits: Array, gamma: float) -> Array:
    r"""Focal factor :math:`(1 - p_{ic})^\gamma` of every entry under a softmax, ``[B, C]``."""
    return jnp.exp(check_number("gamma", gamma, 0.0) * log_one_minus_softmax(logits))


def sigmoid_focal_modulation(logits: Array, targets: Array, gamma: float) -> Array:
    r"""Focal factor :math:`(1 - p_t)^\gamma` of every entry under a sigmoid, ``[B, C]``.

    ``p_t`` is the probability of the truth: that of the class where it is present (target 1), one
    minus it where it is absent. Targets are 0 or 1; mix the losses, not the targets.
    """
    gamma = check_number("gamma", gamma, 0.0)
    if_present = jnp.exp(gamma * jax.nn.log_sigmoid(-logits))
    if_absent = jnp.exp(gamma * jax.nn.log_sigmoid(logits))
    return targets * if_present + (1.0 - targets) * if_absent


def softmax_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 1.0,
    differentiate_modulator: bool = True,
    weights: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy that counts well-classified examples less.

    .. math:: \ell_i = -(1 - p_{iy})^\gamma \log p_{iy}

    Args:
      logits: ``[B, C]``, any floating type, C of at least 2.
      labels: integers ``[B]``, or a distribution over the classes ``[B, C]``.
      gamma: strength, at least 0; 0 gives the cross-entropy exactly.
      differentiate_modulator: False treats the factor as a constant, as GCL's second stage does.
      weights: weight of each entry, broadcastable to ``[B, C]``.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes or dtypes do not fit, or gamma is negative.

    Example:
      >>> softmax_focal_loss(jnp.zeros((1, 2)), jnp.array([1]), gamma=1.0).round(4)
      Array([0.3466], dtype=float32)

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, for a softmax.
    """
    logits, targets = prepare(logits, labels, where)
    factor = softmax_focal_modulation(logits, gamma)
    if not differentiate_modulator:
        factor = jax.lax.stop_gradient(factor)
    return softmax_cross_entropy(logits, targets, weights=weights * factor, where=where)


def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 1.0,
    weights: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Sum over the classes of focal binary cross-entropies.

    .. math:: \ell_i = -\sum_c (1 - p_t)^\gamma \log p_t

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]`` or multi-hot ``[B, C]``.
      gamma: strength, at least 0; 0 gives the sigmoid cross-entropy exactly.
      weights: weight of each entry, broadcastable to ``[B, C]``.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``. Its gradient is finite at any logit and gamma.

    Raises:
      InputError: if shapes or dtypes do not fit, or gamma is negative.

    Example:
      >>> sigmoid_focal_loss(jnp.zeros((1, 2)), jnp.array([1]), gamma=1.0).round(4)
      Array([0.6931], dtype=float32)

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    logits, targets = prepare(logits, labels, where)
    factor = sigmoid_focal_modulation(logits, targets, gamma)
    return sigmoid_cross_entropy(logits, targets, weights=weights * factor, where=where)
