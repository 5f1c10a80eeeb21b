"""Transforms of the entries' weights: class balance, focal modulation, re-balancing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy.typing as npt

from lt_jax import longtail
from lt_jax.losses import cross_entropy, reweighted
from lt_jax.losses._inputs import Array, check_number, constant
from lt_jax.losses.class_balanced import entry_weights
from lt_jax.losses.positive_weight import positive_entry_weights
from lt_jax.objectives.core import Terms, Transform, stateless

_ALREADY = "that loss has its own modulation of easy entries"
_NO_NEGATIVES = "its negatives have no entries of their own to weigh against; use inverse_frequency"


def _per_class(vector: longtail.Vector, name: str, normalize: bool) -> Transform:
    def apply(key: Array, terms: Terms) -> Terms:
        weights = entry_weights(
            constant(vector, terms.logits),
            terms.targets,
            competing=terms.competing,
            single_label=terms.single_label,
        )
        if normalize:
            weights = weights / _mean_weight(weights, terms)
        return terms._replace(weights=terms.weights * weights)

    return stateless(apply, name=name, stage="weights", balances=True)


def _mean_weight(weights: Array, terms: Terms) -> Array:
    """Mean over the rows that count, of the label's weight where classes compete; else of all."""
    own = jnp.broadcast_to(weights, terms.targets.shape)
    own = (terms.targets * own).sum(-1) if terms.competing else own.mean(-1)
    total = jnp.where(terms.where, own, 0.0).sum()
    count = jnp.maximum(terms.where.sum(), 1).astype(total.dtype)
    return jnp.where(total > 0, total / count, 1.0)


def class_balanced(
    class_counts: npt.ArrayLike, *, beta: float = 0.9999, normalize: bool = False
) -> Transform:
    """Weighs by the inverse effective number of samples of the class.

    With multi-hot labels each entry of class c, positive or negative, is weighed by the class's
    weight, and a class without positives by 1, the mean of the others.

    Args:
      class_counts: training images of each class, ``[C]``.
      beta: in [0, 1); 0 weighs all classes alike.
      normalize: divides by the mean weight of the batch, as the weighted mean of PyTorch's
        cross-entropy does, so that the loss keeps its size: the mean over a long-tailed batch of
        weights whose mean over classes is 1 is far below 1. So deferred re-weighting has it.

    Returns:
      A transform of the weights.

    Raises:
      InputError: for bad counts or a beta outside [0, 1).

    Source: Cui et al., CVPR 2019; see `lt_jax.losses.class_balanced_focal_loss`.
    """
    vector = longtail.class_balanced_weights(class_counts, beta)
    return _per_class(vector, "class_balanced", normalize)


def inverse_frequency(
    class_counts: npt.ArrayLike, *, power: float = 1.0, normalize: bool = False
) -> Transform:
    """Weighs by a power of the inverse class frequency.

    Args:
      class_counts: training images of each class, ``[C]``.
      power: 1, or 0.5 for the square root.
      normalize: divides by the mean weight of the batch, see `class_balanced`.

    Returns:
      A transform of the weights.

    Raises:
      InputError: for bad counts or a power that is not finite.
    """
    vector = longtail.inverse_frequency_weights(class_counts, power)
    return _per_class(vector, "inverse_frequency", normalize)


def focal(*, gamma: float = 1.0, differentiate_modulator: bool = True) -> Transform:
    """Weighs entries by how far their probability is from the truth, ``(1 - p_t) ** gamma``.

    The probability is that of the adjusted logits, under the softmax or sigmoid of the base, and
    does not see weights or masks.

    Args:
      gamma: at least 0; 0 changes nothing.
      differentiate_modulator: False treats the factor as a constant, as GCL's second stage does.

    Returns:
      A transform of the weights.

    Raises:
      InputError: if gamma is negative.

    Source: Lin et al., ICCV 2017; see `lt_jax.losses.sigmoid_focal_loss`.
    """
    check_number("gamma", gamma, 0.0)

    def apply(key: Array, terms: Terms) -> Terms:
        if terms.competing:
            factor = cross_entropy.softmax_focal_modulation(terms.logits, gamma)
        else:
            factor = cross_entropy.sigmoid_focal_modulation(terms.logits, terms.targets, gamma)
        if not differentiate_modulator:
            factor = jax.lax.stop_gradient(factor)
        return terms._replace(weights=terms.weights * factor)

    return stateless(apply, name="focal", stage="weights", refuses=(("asymmetric", _ALREADY),))


def positive_weight(
    class_counts: npt.ArrayLike, *, num_examples: int | None = None, power: float = 1.0
) -> Transform:
    """Weighs the positives of a class by how many negatives there are for each, negatives by 1.

    Args:
      class_counts: positives of each class, ``[C]``; a class without positives or without negatives
        is not weighed.
      num_examples: training examples; the sum of the counts if None (single-label data).
      power: of that ratio; 1, or less for milder weights.

    Returns:
      A transform of the weights, for independent classes.

    Raises:
      InputError: for bad counts, fewer examples than positives, or a power that is not finite.

    Source: common practice; see `lt_jax.losses.weighted_sigmoid_cross_entropy`.
    """
    vector = longtail.positive_weights(class_counts, num_examples, power)

    def apply(key: Array, terms: Terms) -> Terms:
        weights = positive_entry_weights(constant(vector, terms.logits), terms.targets)
        return terms._replace(weights=terms.weights * weights)

    refuses = (("softmax", _NO_NEGATIVES),)
    return stateless(apply, name="positive_weight", stage="weights", balances=True, refuses=refuses)


def rebalanced(
    class_counts: npt.ArrayLike,
    *,
    num_examples: int | None = None,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.2,
) -> Transform:
    """Weighs entries of multi-label examples by how often their image would be drawn for them.

    Args:
      class_counts: positives of each class, ``[C]``, each at least 1; with `num_examples` a class
        may also have none and is taken for one with a single positive.
      num_examples: training examples, if they may have several labels or none.
      alpha: least weight, at least 0.
      beta: steepness, above 0.
      mu: ratio at which the weight is in the middle.

    Returns:
      A transform of the weights, for independent classes.

    Raises:
      InputError: for bad counts, or numbers outside their range.

    Source: Wu et al., Distribution-Balanced Loss, ECCV 2020.
    """
    reweighted.check_rebalancing(alpha, beta, mu)
    counts = reweighted.rebalanced_counts(class_counts, num_examples)

    def apply(key: Array, terms: Terms) -> Terms:
        factor = reweighted.rebalanced_weights(
            terms.targets, constant(counts, terms.logits), alpha=alpha, beta=beta, mu=mu
        )
        return terms._replace(weights=terms.weights * factor)

    reason = "with one label for each example its ratio is 1 and re-balances nothing"
    return stateless(apply, name="rebalanced", stage="weights", refuses=(("softmax", reason),))
