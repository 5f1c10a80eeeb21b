"""Losses that put the class counts into the logits: logit adjustment and the seesaw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from lt_jax import longtail
from lt_jax.losses._inputs import Array, check_number, constant, prepare
from lt_jax.losses.cross_entropy import softmax_cross_entropy, target_entries


def logit_adjusted_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    tau: float = 1.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy of logits to which the class priors are added.

    .. math:: \ell_i = \mathrm{CE}(z_i + \tau \log \pi)

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]``, or a distribution ``[B, C]``.
      class_counts: training images of each class, ``[C]``, each at least 1.
      tau: strength; 1 is the balanced softmax, 0 the plain loss exactly.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts or a tau that is not finite.

    Example:
      >>> logit_adjusted_cross_entropy(jnp.zeros((1, 2)), jnp.array([1]), [30, 10]).round(4)
      Array([1.3863], dtype=float32)

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021.
    """
    logits, targets = prepare(logits, labels, where)
    prior = constant(longtail.log_prior(class_counts), logits)
    return softmax_cross_entropy(logits + check_number("tau", tau) * prior, targets, where=where)


def balanced_softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy under the training prior: logit adjustment with tau = 1.

    .. math:: \ell_i = -\log \frac{n_y e^{z_{iy}}}{\sum_j n_j e^{z_{ij}}}

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]``, or a distribution ``[B, C]``.
      class_counts: training images of each class, ``[C]``, each at least 1.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, or for bad counts.

    Example:
      >>> balanced_softmax_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), [30, 10]).round(4)
      Array([0.2877], dtype=float32)

    Source: Ren et al., Balanced Meta-Softmax, NeurIPS 2020.
    """
    return logit_adjusted_cross_entropy(logits, labels, class_counts, tau=1.0, where=where)


def seesaw_logits(
    logits: Array,
    targets: Array,
    log_counts: Array,
    *,
    mitigation: float = 0.8,
    compensation: float = 2.0,
    floor: float = 1e-2,
) -> Array:
    r"""Logits with the seesaw's factors added to those of the other classes.

    .. math:: z_{ij} + p \min(0, \log n_j - \log n_y)
              + q \max(0, \log \sigma_{ij} - \log \max(\sigma_{iy}, \epsilon))

    Args:
      logits: ``[B, C]``.
      targets: one-hot ``[B, C]``; for a distribution the label's terms are its means.
      log_counts: logarithm of the class counts, ``[C]``.
      mitigation: p, at least 0: rarer classes are pushed down less by frequent ones.
      compensation: q, at least 0: classes scored above the label are pushed down more.
      floor: epsilon, smallest probability of the label that the compensation divides by.

    Returns:
      Logits, ``[B, C]``. The factors carry no gradient.

    Source: Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021.
    """
    check_number("mitigation", mitigation, 0.0)
    check_number("compensation", compensation, 0.0)
    own_count = (targets * log_counts).sum(-1, keepdims=True)
    log_p = jax.lax.stop_gradient(jax.nn.log_softmax(logits))
    own_log_p = target_entries(log_p, targets).sum(-1, keepdims=True)
    own_log_p = jnp.maximum(own_log_p, float(np.log(floor)))
    factors = mitigation * jnp.minimum(0.0, log_counts - own_count)
    factors += compensation * jnp.maximum(0.0, log_p - own_log_p)
    return logits + (1.0 - targets) * factors


def seesaw_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    mitigation: float = 0.8,
    compensation: float = 2.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy that balances the gradients of frequent and rare classes.

    .. math:: \ell_i = -\log \frac{e^{z_{iy}}}{e^{z_{iy}} + \sum_{j \ne y} M_{yj} C_{ij} e^{z_{ij}}}

    The counts are those of the training set; the paper counts labels as they come, for detectors.

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]``, or a distribution ``[B, C]``.
      class_counts: training images of each class, ``[C]``, each at least 1.
      mitigation: p of :math:`M_{yj} = \min(1, n_j / n_y)^p`.
      compensation: q of :math:`C_{ij} = \max(1, \sigma_{ij} / \max(\sigma_{iy}, 0.01))^q`; the
        floor, of the authors' code, keeps the factors finite.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts or a negative exponent.

    Example:
      >>> seesaw_loss(jnp.zeros((1, 2)), jnp.array([0]), [100, 10], mitigation=1.0).round(4)
      Array([0.0953], dtype=float32)

    Source: Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021.
    """
    logits, targets = prepare(logits, labels, where)
    log_counts = constant(longtail.log_prior(class_counts), logits)
    adjusted = seesaw_logits(
        logits, targets, log_counts, mitigation=mitigation, compensation=compensation
    )
    return softmax_cross_entropy(adjusted, targets, where=where)
