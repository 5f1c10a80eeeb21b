"""Partial label masking (Duarte, Rawat and Shah, CVPRW 2021).

Labels are left out of the loss at random so that the ratio of positives to negatives that each
class's classifier sees approaches an ideal ratio, which adapts to how the predicted probabilities
differ from the truth. The pieces are pure functions; `lt_jax.objectives.partial_label_mask` keeps
the state between steps.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from lt_jax import longtail
from lt_jax.errors import InputError
from lt_jax.longtail.counts import check_whole
from lt_jax.losses._inputs import Array, check_number, is_positive, prepare
from lt_jax.losses.cross_entropy import cross_entropy_of

EPS = 1e-7  # share of the truth's empty bins, and what keeps a deviation of 0 from dividing


def label_ratio(
    class_counts: npt.ArrayLike,
    num_examples: int | None = None,
    kind: Literal["odds", "share"] = "odds",
) -> longtail.Vector:
    r"""Ratio of positive labels to negative ones, for each class.

    .. math:: r_c = n_c / (N - n_c) \text{ (odds)}, \quad r_c = n_c / N \text{ (share)}

    Args:
      class_counts: positives of each class, ``[C]``.
      num_examples: N; the sum of the counts if None, which is right for single-label data.
      kind: ``"odds"``, for which the expected ratio of kept labels is the ideal one exactly, or
        ``"share"``.

    Returns:
      Ratios, float64 ``[C]``; NaN for a class without positives or without negatives, whose labels
      are never masked.

    Raises:
      InputError: for bad counts, fewer examples than positives, or an unknown kind.

    Example:
      >>> label_ratio([10, 30])
      array([0.33333333, 3.        ])
    """
    counts = longtail.check_class_counts(class_counts)
    total = longtail.total_examples(counts, num_examples)
    if kind not in ("odds", "share"):
        raise InputError(f"ratio kind is {kind!r}; expected 'odds' or 'share'")
    usable = (counts > 0) & (counts < total)
    other = np.where(usable, total - counts if kind == "odds" else total, 1.0)
    return np.where(usable, counts / other, np.nan)


def keep_probabilities(targets: Array, ratio: Array, ideal_ratio: Array) -> Array:
    r"""Probability of keeping each label.

    .. math:: \text{positives: } \min(1, \hat r_c / r_c), \quad
              \text{negatives: } \min(1, r_c / \hat r_c)

    so that kept positives / kept negatives is the ideal ratio in expectation.

    Args:
      targets: ``[B, C]``; positive from 0.5 on.
      ratio: r of each class ``[C]``; NaN keeps every label of the class.
      ideal_ratio: ideal r of each class, ``[C]``, positive.

    Returns:
      Probabilities, ``[B, C]``.

    Example:
      >>> keep_probabilities(jnp.array([[1.0, 0.0]]), jnp.array([0.5, 0.5]), jnp.array([0.25, 1.0]))
      Array([[0.5, 0.5]], dtype=float32)
    """
    # By comparing, so that 1 is exact where the ratios are equal, whatever a compiler makes of a
    # division by a constant; no comparison with NaN holds.
    positives = jnp.where(ideal_ratio < ratio, ideal_ratio / ratio, 1.0)
    negatives = jnp.where(ratio < ideal_ratio, ratio / ideal_ratio, 1.0)
    return jnp.where(is_positive(targets), positives, negatives)


def probability_histograms(
    probabilities: Array, targets: Array, bins: int = 10, where: Array | None = None
) -> tuple[Array, Array]:
    """Histograms on [0, 1] of the probabilities predicted for positives and for negatives.

    Args:
      probabilities: ``[B, C]``.
      targets: ``[B, C]``; positive from 0.5 on.
      bins: how many equal bins; the last one holds 1.
      where: which rows count, bool ``[B]``.

    Returns:
      Two arrays of counts, int32 ``[C, bins]``. Integers add up exactly in any order, so that the
      result is the same on one device and on many.
    """
    rows = jnp.ones(targets.shape[0], bool) if where is None else where
    index = jnp.clip(jnp.floor(probabilities * bins).astype(jnp.int32), 0, bins - 1)
    in_bin = (index[..., None] == jnp.arange(bins)) & rows[:, None, None]
    positive = is_positive(targets)[..., None]
    return (
        jnp.sum(in_bin & positive, axis=0, dtype=jnp.int32),
        jnp.sum(in_bin & ~positive, axis=0, dtype=jnp.int32),
    )


def histogram_divergence(histogram: Array, *, positives: bool) -> Array:
    r"""How far predicted probabilities are from the truth, for each class.

    .. math:: D_c = \sum_b p_{cb} \log (p_{cb} / q_b)

    with p the normalised histogram and q the truth: 1 in the top bin for positives, in the bottom
    bin for negatives, and 1e-7 in the others.

    Args:
      histogram: counts, ``[C, bins]``.
      positives: whether these are positives.

    Returns:
      KL(predicted || truth), float ``[C]``; 0 for an empty histogram.

    Example:
      >>> histogram_divergence(jnp.array([[0, 5], [5, 0]]), positives=True).round(3)
      Array([ 0.   , 16.118], dtype=float32)
    """
    counts = histogram.astype(jnp.result_type(float))
    total = counts.sum(-1, keepdims=True)
    share = counts / jnp.maximum(total, 1)
    certain = jnp.arange(histogram.shape[-1]) == (histogram.shape[-1] - 1 if positives else 0)
    log_truth = jnp.where(certain, 0.0, np.log(EPS))
    log_share = jnp.log(jnp.where(share > 0, share, 1.0))
    return jnp.sum(share * (log_share - log_truth), axis=-1)


def updated_ideal_ratio(
    ideal_ratio: Array,
    ratio: Array,
    positives: Array,
    negatives: Array,
    *,
    rate: float = 0.01,
    bound: float = 100.0,
) -> Array:
    r"""One adaptive update of the ideal ratio.

    .. math:: \hat r_c \leftarrow \hat r_c \exp(\eta (\tilde D^+_c - \tilde D^-_c))

    where the tilde standardises a divergence over the classes. A large divergence of the positives
    (they are missed) raises the ratio, so that negatives are masked. Before bounding, the
    logarithms of the factors sum to 0.

    Args:
      ideal_ratio: ``[C]``.
      ratio: that of the training labels, ``[C]``; classes with NaN keep theirs.
      positives: histogram of the positives since the last update, ``[C, bins]``.
      negatives: histogram of the negatives, ``[C, bins]``.
      rate: eta, step of the update.
      bound: the ideal stays within ``[ratio / bound, ratio * bound]``.

    Returns:
      Ideal ratio, ``[C]``. A class of which no positive or no negative was seen keeps its own and
      joins no statistic.

    Source: Duarte et al., Partial Label Masking, CVPRW 2021, equations 4 to 6.
    """
    usable = (positives.sum(-1) > 0) & (negatives.sum(-1) > 0) & ~jnp.isnan(ratio)
    count = jnp.maximum(usable.sum(), 1).astype(ideal_ratio.dtype)

    def standardised(divergence: Array) -> Array:
        # Measured from one of them first: equal divergences (every prediction in one bin, as early
        # in training) then give exactly 0, and not the rounding of their mean divided by itself.
        first = jnp.max(jnp.where(usable, divergence, -jnp.inf))
        distance = jnp.where(usable, divergence - first, 0.0)
        centred = jnp.where(usable, distance - jnp.sum(distance) / count, 0.0)
        return centred / (jnp.sqrt(jnp.sum(centred**2) / count) + EPS)

    excess = standardised(histogram_divergence(positives, positives=True)) - standardised(
        histogram_divergence(negatives, positives=False)
    )
    raw = ideal_ratio * jnp.exp(rate * excess)
    bounded = jnp.clip(raw, ratio / bound, ratio * bound)
    return jnp.where(usable, bounded, ideal_ratio).astype(ideal_ratio.dtype)


def partial_label_masked_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    ratio: npt.ArrayLike,
    ideal_ratio: npt.ArrayLike,
    *,
    key: Array,
    base: Literal["sigmoid", "softmax"] = "sigmoid",
    where: ArrayLike | None = None,
) -> Array:
    r"""Cross-entropy with labels left out at random until their ratio is the ideal one.

    The loss is the sum over the kept entries and is not divided by their number. With a softmax a
    masked positive drops the example's term and a masked negative leaves the normaliser.

    Args:
      logits: ``[B, C]``, any floating type.
      labels: integers ``[B]`` or multi-hot ``[B, C]`` (for a softmax, a distribution).
      ratio: positives / negatives of the training labels, ``[C]`` (`label_ratio`).
      ideal_ratio: what the loss is to see, ``[C]``; equal to `ratio` nothing is masked.
      key: PRNG key of this call.
      base: ``"sigmoid"`` or ``"softmax"``.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit or the base is unknown.

    Example:
      >>> z, y = jnp.zeros((1, 2)), jnp.array([[1, 0]])
      >>> r = jnp.array([0.5, 0.5])
      >>> partial_label_masked_cross_entropy(z, y, r, r, key=jax.random.key(0)).round(4)
      Array([1.3863], dtype=float32)

    Source: Duarte, Rawat and Shah, Partial Label Masking, CVPRW 2021 (arXiv 2105.10782).
    """
    loss = cross_entropy_of(base)
    logits, targets = prepare(logits, labels, where)
    vectors = [jnp.asarray(v, logits.dtype) for v in (ratio, ideal_ratio)]
    if any(v.shape != (logits.shape[1],) for v in vectors):
        raise InputError(
            f"ratio and ideal_ratio need one value for each of {logits.shape[1]} classes"
        )
    keep = jax.random.uniform(key, logits.shape) < keep_probabilities(targets, *vectors)
    return loss(logits, targets, keep=keep, where=where)


def check_plm(rate: float, bound: float, bins: int, update_every: int) -> None:
    """Refuses numbers outside their range."""
    check_number("rate", rate, 0.0)
    check_number("bound", bound, 1.0)
    check_number("bins", check_whole("bins", bins, 2), 2, 1e6)
    check_whole("update_every", update_every, 1)
