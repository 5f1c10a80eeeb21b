"""Class-balanced losses: weights by the effective number of samples (Cui et al., CVPR 2019)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from lt_jax import longtail
from lt_jax.losses._inputs import Array, constant, prepare
from lt_jax.losses.cross_entropy import (
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    softmax_cross_entropy,
)


def entry_weights(
    class_weights: Array, targets: Array, *, competing: bool, single_label: bool
) -> Array:
    r"""Weight of every entry from one weight per class, broadcastable to ``[B, C]``.

    With classes that compete (softmax) entry ``(i, c)`` carries :math:`w_c`, of which the targets
    pick the label's. With independent classes (sigmoid) a single-label example carries its label's
    weight in every entry, as in the paper; a multi-label example, of which the paper does not
    speak, carries :math:`w_c` in the entries of class c, positive or negative. There a class
    without any positive, which has no weight, is trained on its negatives with weight 1, the mean
    of the others.

    Args:
      class_weights: ``[C]``; 0 for a class without positives.
      targets: ``[B, C]``.
      competing: whether the base loss is a softmax.
      single_label: whether labels were given as integers.

    Returns:
      ``[1, C]`` or ``[B, 1]``.
    """
    if single_label and not competing:
        return (targets * class_weights).sum(-1, keepdims=True)
    if not competing:
        class_weights = jnp.where(class_weights > 0, class_weights, 1.0)
    return class_weights[None, :]


def _weights(logits: Array, class_counts: npt.ArrayLike, beta: float) -> Array:
    return constant(longtail.class_balanced_weights(class_counts, beta), logits)


def class_balanced_softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    beta: float = 0.9999,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy, weighted by the inverse effective number of the label's class.

    .. math:: \ell_i = -w_y \log \mathrm{softmax}(z_i)_y

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]``, or a distribution ``[B, C]``.
      class_counts: training images of each class, ``[C]``; of the whole set, never of the batch.
      beta: in [0, 1); 0 gives the plain loss exactly.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``; take the mean (not divided by the sum of the weights).

    Raises:
      InputError: if shapes do not fit, for bad counts, or a beta outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> z, y = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> class_balanced_softmax_cross_entropy(z, y, [900, 100], beta=0.999).round(3)
      Array([0.192, 1.195], dtype=float32)

    Source: Cui et al., Class-Balanced Loss, CVPR 2019, equation 7.
    """
    logits, targets = prepare(logits, labels, where)
    weights = _weights(logits, class_counts, beta)[None, :]
    return softmax_cross_entropy(logits, targets, weights=weights, where=where)


def class_balanced_sigmoid_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    beta: float = 0.9999,
    where: ArrayLike | None = None,
) -> Array:
    r"""Sigmoid cross-entropy, weighted by the inverse effective number.

    .. math:: \ell_i = -w_y \sum_c (t_{ic} \log \sigma(z_{ic}) + (1-t_{ic}) \log \sigma(-z_{ic}))

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]``; or multi-hot ``[B, C]``, where each entry of class c is weighted by
        :math:`w_c` (see `entry_weights`).
      class_counts: training images of each class, ``[C]``.
      beta: in [0, 1); 0 gives the plain loss exactly.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts, or a beta outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> z, y = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> class_balanced_sigmoid_cross_entropy(z, y, [900, 100], beta=0.999).round(1)
      Array([0.4, 2.4], dtype=float32)

    Source: Cui et al., Class-Balanced Loss, CVPR 2019, equation 8.
    """
    return class_balanced_focal_loss(
        logits, labels, class_counts, beta=beta, gamma=None, where=where
    )


def class_balanced_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    beta: float = 0.9999,
    gamma: float | None = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Sigmoid focal loss, weighted by the inverse effective number.

    .. math:: \ell_i = -w_y \sum_c (1 - p_t)^\gamma \log p_t

    with ``p_t`` from the unweighted sigmoid.

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]``; or multi-hot ``[B, C]``, where each entry of class c is weighted by
        :math:`w_c` (see `entry_weights`).
      class_counts: training images of each class, ``[C]``.
      beta: in [0, 1); 0 gives the focal loss exactly.
      gamma: at least 0; 0 or None gives the class-balanced sigmoid cross-entropy.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts, a beta outside [0, 1) or a negative gamma.

    Example:
      >>> import jax.numpy as jnp
      >>> z, y = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> class_balanced_focal_loss(z, y, [900, 100], beta=0.999, gamma=1.0).round(3)
      Array([0.192, 1.195], dtype=float32)

    Source: Cui et al., Class-Balanced Loss, CVPR 2019, equation 9.
    """
    single_label = np.ndim(labels) == 1
    logits, targets = prepare(logits, labels, where)
    weights = entry_weights(
        _weights(logits, class_counts, beta),
        targets,
        competing=False,
        single_label=single_label,
    )
    if gamma is None:
        return sigmoid_cross_entropy(logits, targets, weights=weights, where=where)
    return sigmoid_focal_loss(logits, targets, gamma=gamma, weights=weights, where=where)
