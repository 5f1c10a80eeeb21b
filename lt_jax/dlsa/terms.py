"""The three terms of the loss by which flow and mixture divide a long-tailed set."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from lt_jax.longtail import Vector, check_class_counts

Array = jax.Array
_TINY = 1e-7  # added to mean posteriors, so that no cluster's logarithm is infinite


def likelihood_weights(class_counts: npt.ArrayLike, *, power: float = 2.0) -> Vector:
    r"""Weight of each class in the likelihood term: the rarer, the heavier.

    .. math:: w_c \propto (n_\max / n_c)^p

    with mean 1 over the classes, as pairs draw positives of every class equally often. (The
    released code has sum 1; with C classes its coefficient is C times ours.)

    Args:
      class_counts: samples of each class, ``[C]``.
      power: p; 0 for equal weights, -1 for weights as the counts.

    Returns:
      Weights, float64 ``[C]``; 0 for a class without samples, which no pair has.

    Raises:
      InputError: for bad counts.

    Example:
      >>> likelihood_weights([20, 10]).round(3)
      array([0.4, 1.6])
      >>> likelihood_weights([20, 10], power=-1.0).round(3)
      array([1.333, 0.667])

    Source: Xu et al., ECCV 2022.
    """
    counts = check_class_counts(class_counts)
    there = counts > 0
    raw = np.where(there, (counts.max() / np.where(there, counts, 1)) ** power, 0.0)
    return raw * there.sum() / raw.sum()


def likelihood_term(log_likelihood: Array, weights: Array) -> Array:
    """Weighted negative log-likelihood of the positives, a scalar.

    Args:
      log_likelihood: of the positives, ``[B]``.
      weights: of their classes, ``[B]``.

    Example:
      >>> likelihood_term(jnp.array([-1.0, -3.0]), jnp.array([1.0, 2.0]))
      Array(3.5, dtype=float32)
    """
    return -(weights * log_likelihood).mean()


def balance_term(
    log_density: Array, running: Array, step: Array | int, *, momentum: float = 0.7
) -> tuple[Array, Array]:
    r"""How far the clusters are from being used equally.

    .. math:: \log K - H(q), \quad q_t = (m q_{t-1} + (1 - m) \bar p) / (1 - m^t)

    with p the mean posterior of the batch, through which alone the gradient flows.

    Args:
      log_density: of the positives under each Gaussian, ``[B, K]``.
      running: average before bias correction, ``[K]``; zeros at first.
      step: t, 1 at first.
      momentum: m.

    Returns:
      The term, a scalar, and the new running average.

    Example:
      >>> value, _ = balance_term(jnp.zeros((2, 4)), jnp.zeros(4), 1)
      >>> abs(float(value)) < 1e-5
      True
    """
    mean = jax.nn.softmax(log_density, axis=-1).mean(axis=0) + _TINY
    new = momentum * lax.stop_gradient(running) + (1 - momentum) * mean
    q = new / (1 - momentum**step)
    return math.log(log_density.shape[-1]) + (q * jnp.log(q)).sum(), lax.stop_gradient(new)


def purity_term(log_density: Array, other_log_density: Array, *, floor: float = 0.0) -> Array:
    r"""How much two samples of different classes are in the same clusters.

    .. math:: \frac1B \sum_b \sum_k p_{bk} \max(\log p^-_{bk}, -f)

    with the posteriors of the positive, through which no gradient flows, and of the negative. The
    lower, the purer the clusters. Without a floor f it can be lowered without end by scaling the
    latents up, against the likelihood.

    Args:
      log_density: of the positives, ``[B, K]``.
      other_log_density: of the negatives, ``[B, K]``.
      floor: f, positive; 0 for none, as in the released code.

    Returns:
      A scalar.

    Example:
      >>> purity_term(jnp.zeros((1, 2)), jnp.zeros((1, 2))).round(4)
      Array(-0.6931, dtype=float32)
    """
    own = lax.stop_gradient(jax.nn.softmax(log_density, axis=-1))
    other = jax.nn.log_softmax(other_log_density, axis=-1)
    return (own * (jnp.maximum(other, -floor) if floor else other)).sum(axis=-1).mean()
