"""Transforms of the mask: which labels the loss sees."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax.losses import equalization as eql
from lt_jax.losses import partial_label
from lt_jax.losses._inputs import Array, check_number, constant
from lt_jax.objectives.core import Report, Terms, Transform, stateless


class PartialLabelState(NamedTuple):
    """What partial label masking remembers.

    Attributes:
      ideal_ratio: float ``[C]``.
      positives: histogram of the positives' probabilities since the last update, int32
        ``[C, bins]``.
      negatives: the same of the negatives.
      last_positives: `positives` as they were at the last update, zeros before the first.
      last_negatives: the same of the negatives.
      step: calls since the start, int32 scalar.
    """

    ideal_ratio: Array
    positives: Array
    negatives: Array
    last_positives: Array
    last_negatives: Array
    step: Array


def _with_histograms(state: PartialLabelState, seen: tuple[Array, Array]) -> PartialLabelState:
    """The state after a batch that is not followed by an update."""
    return state._replace(
        positives=state.positives + seen[0],
        negatives=state.negatives + seen[1],
        step=state.step + 1,
    )


def _updated(state: PartialLabelState, ideal_ratio: Array) -> PartialLabelState:
    """The state after an update: its histograms are kept to be reported, and begun anew."""
    return state._replace(
        ideal_ratio=ideal_ratio,
        positives=jnp.zeros_like(state.positives),
        negatives=jnp.zeros_like(state.negatives),
        last_positives=state.positives,
        last_negatives=state.negatives,
    )


def _reported(state: PartialLabelState) -> Report:
    divergence = partial_label.histogram_divergence
    return {
        "ideal_ratio": state.ideal_ratio,
        "divergence_positives": divergence(state.last_positives, positives=True),
        "divergence_negatives": divergence(state.last_negatives, positives=False),
        "histogram_positives": state.last_positives,
        "histogram_negatives": state.last_negatives,
    }


def partial_label_mask(
    class_counts: npt.ArrayLike,
    *,
    update_every: int,
    rate: float = 0.01,
    bins: int = 10,
    bound: float = 100.0,
    ratio: Literal["odds", "share"] = "odds",
    num_examples: int | None = None,
) -> Transform:
    """Leaves labels out of the loss at random, with ratios that adapt (PLM).

    The ideal ratio starts at that of the data, so that nothing is masked before the first update.
    It is updated inside the step, from the probabilities predicted since the last update.

    It reports, for each class, ``ratio`` and ``ideal_ratio`` (both 1 for a class without positives
    or without negatives, which is never masked), and of the interval before the last update
    ``histogram_positives`` and ``histogram_negatives``, ``[C, bins]``, with
    ``divergence_positives`` and ``divergence_negatives``: zeros before the first update.

    Args:
      class_counts: positives of each class, ``[C]``.
      update_every: steps between updates; the steps of an epoch, usually.
      rate: step of the update.
      bins: of the histograms.
      bound: the ideal ratio stays within this factor of the data's.
      ratio: ``"odds"`` (positives / negatives) or ``"share"`` (positives / all). What is masked
        follows from ideal ratio / ratio, which starts at 1 and is updated by factors: it is the
        same with both, only what is reported differs.
      num_examples: training examples; the sum of the counts if None (single-label data).

    Returns:
      A transform of the mask.

    Raises:
      InputError: for bad counts or a number outside its range.

    Source: Duarte, Rawat and Shah, CVPRW 2021; see `lt_jax.losses.partial_label`.
    """
    data_ratio = partial_label.label_ratio(class_counts, num_examples, ratio)
    partial_label.check_plm(rate, bound, bins, update_every)
    bins = int(bins)

    def start_ratio() -> Array:
        return jnp.asarray(np.nan_to_num(data_ratio, nan=1.0), jnp.result_type(float))

    def init() -> PartialLabelState:
        # Four arrays, not one four times: the buffers of a state are donated to the step.
        p, n, last_p, last_n = (jnp.zeros((data_ratio.size, bins), jnp.int32) for _ in range(4))
        return PartialLabelState(start_ratio(), p, n, last_p, last_n, jnp.zeros((), jnp.int32))

    def apply(
        state: PartialLabelState, key: Array, terms: Terms
    ) -> tuple[Terms, PartialLabelState]:
        r = constant(data_ratio, terms.logits)
        probability = partial_label.keep_probabilities(
            terms.targets, r, state.ideal_ratio.astype(r.dtype)
        )
        keep = jax.random.uniform(key, probability.shape) < probability
        seen = partial_label.probability_histograms(
            terms.predicted, terms.targets, bins, terms.where
        )
        grown = _with_histograms(state, seen)
        due = grown.step % update_every == 0
        updated = partial_label.updated_ideal_ratio(
            state.ideal_ratio, r, grown.positives, grown.negatives, rate=rate, bound=bound
        )
        new_state = jax.tree.map(partial(jnp.where, due), _updated(grown, updated), grown)
        return terms._replace(keep=terms.keep & keep), new_state

    def report(state: PartialLabelState) -> Report:
        return {"ratio": start_ratio(), **_reported(state)}

    return Transform("partial_label_mask", "mask", init, apply, report=report)


def equalization(
    class_counts: npt.ArrayLike,
    *,
    num_examples: int | None = None,
    threshold: float | None = None,
    probability: float = 0.9,
) -> Transform:
    """Leaves out negatives of rare classes, so that they are not pushed down by the others (EQL).

    Args:
      class_counts: training images of each class, ``[C]``.
      num_examples: training images; the sum of the counts if None (single-label data).
      threshold: share of the images below which a class is rare; if None, the mean of the classes'
        shares, which is 1 / C for single-label data.
      probability: with which each negative of a rare class is left out.

    Returns:
      A transform of the mask.

    Raises:
      InputError: for bad counts or a number outside [0, 1].

    Source: Tan et al., CVPR 2020; see `lt_jax.losses.equalization_loss`.
    """
    rare = eql.rare_classes(class_counts, threshold, num_examples)
    check_number("probability", probability, 0.0, 1.0)

    def apply(key: Array, terms: Terms) -> Terms:
        protected = constant(rare.astype(float), terms.logits) > 0
        keep = eql.equalization_keep(key, terms.targets, protected, probability)
        return terms._replace(keep=terms.keep & keep)

    return stateless(apply, name="equalization", stage="mask")
