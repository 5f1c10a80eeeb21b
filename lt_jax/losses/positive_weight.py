"""Weighted binary cross-entropy: positives weighed by how few they are."""

from __future__ import annotations

import numpy.typing as npt
from jax.typing import ArrayLike

from lt_jax import longtail
from lt_jax.losses._inputs import Array, constant, prepare
from lt_jax.losses.cross_entropy import sigmoid_cross_entropy


def positive_entry_weights(weights: Array, targets: Array) -> Array:
    """The class's weight for positives and 1 for negatives, ``[B, C]``.

    Args:
      weights: of the positives of each class, ``[C]``.
      targets: 0 or 1, ``[B, C]``; what lies between gets the mean of the two weights.

    Returns:
      Weight of each entry.
    """
    return targets * weights + (1.0 - targets)


def weighted_sigmoid_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    num_examples: int | None = None,
    power: float = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Sigmoid cross-entropy whose positives weigh as much as the negatives of their class.

    .. math:: \ell_i = -\sum_c \left(\frac{N - n_c}{n_c}\right)^p t_{ic} \log \sigma(z_{ic})
              + (1-t_{ic}) \log \sigma(-z_{ic})

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]`` (each class against the rest) or multi-hot ``[B, C]``.
      class_counts: positives of each class in the training set, ``[C]``; a class without positives
        or without negatives is not weighed.
      num_examples: N, training examples; the sum of the counts if None (single-label data).
      power: p; 0 gives the plain loss exactly.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts, fewer examples than positives, or a power
        that is not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> z, y = jnp.zeros((1, 2)), jnp.array([[1, 0]])
      >>> weighted_sigmoid_cross_entropy(z, y, [10, 50], num_examples=100).round(4)
      Array([6.9315], dtype=float32)
    """
    logits, targets = prepare(logits, labels, where)
    vector = longtail.positive_weights(class_counts, num_examples, power)
    weights = positive_entry_weights(constant(vector, logits), targets)
    return sigmoid_cross_entropy(logits, targets, weights=weights, where=where)
