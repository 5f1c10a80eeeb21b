"""Counts where an example may have several labels: they add up over batches and devices.

Everything but the average precision follows from counts. That needs the order of all scores, and
so do thresholds chosen on validation: the scores are kept too, four bytes an entry, which is 13 MB
for the 40,504 images and 80 classes of COCO's validation split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Array = jax.Array
BINS = 10


class MultiLabelCounts(NamedTuple):
    """What adds up over batches.

    Attributes:
      true_positives: int32 ``[C]``.
      predicted_positives: int32 ``[C]``.
      positives: int32 ``[C]``.
      exact: examples of which every label is right, int32 scalar.
      examples: int32 scalar.
      nll: negative log-likelihood, summed over all entries, float scalar.
      bin_count: entries by predicted probability, int32 ``[C, bins]``.
      bin_positives: positives among them, int32 ``[C, bins]``.
      bin_probability: their summed probability, float ``[C, bins]``.
      logits: of the examples, float32 ``[B, C]``.
      targets: uint8 ``[B, C]``.
      where: which rows count, bool ``[B]``.
    """

    true_positives: Array
    predicted_positives: Array
    positives: Array
    exact: Array
    examples: Array
    nll: Array
    bin_count: Array
    bin_positives: Array
    bin_probability: Array
    logits: Array
    targets: Array
    where: Array


def multi_label_count(
    logits: ArrayLike,
    probabilities: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None = None,
    *,
    threshold: float = 0.5,
    bins: int = BINS,
) -> MultiLabelCounts:
    """Counts of one batch.

    Args:
      logits: ``[B, C]``, float; they rank the examples, as probabilities near 1 are equal in
        float32.
      probabilities: what they mean, ``[B, C]``, float.
      labels: multi-hot ``[B, C]``.
      where: which rows count, bool ``[B]``: padding of the last batch does not; all if None.
      threshold: a positive is predicted where the probability is above it.
      bins: equal bins of [0, 1]; the last one holds 1.

    Returns:
      `MultiLabelCounts`.
    """
    logits, probabilities = jnp.asarray(logits), jnp.asarray(probabilities)
    labels = jnp.asarray(labels)
    where = jnp.ones(labels.shape[:1], bool) if where is None else jnp.asarray(where)
    # Sums of halves stop growing.
    probabilities = probabilities.astype(jnp.promote_types(probabilities.dtype, jnp.float32))
    rows = where[:, None]
    positive, predicted = (labels > 0) & rows, (probabilities > threshold) & rows
    index = jnp.clip(jnp.floor(probabilities * bins).astype(jnp.int32), 0, bins - 1)
    in_bin = (index[..., None] == jnp.arange(bins)) & rows[..., None]
    own = jnp.where(positive, probabilities, 1.0 - probabilities)

    def total(entries: Array) -> Array:
        return jnp.sum(entries, axis=0, dtype=jnp.int32)

    return MultiLabelCounts(
        true_positives=total(positive & predicted),
        predicted_positives=total(predicted),
        positives=total(positive),
        exact=jnp.sum((positive == predicted).all(axis=1) & where, dtype=jnp.int32),
        examples=jnp.sum(where, dtype=jnp.int32),
        nll=jnp.sum(jnp.where(rows, -jnp.log(jnp.maximum(own, 1e-12)), 0.0)),
        bin_count=total(in_bin),
        bin_positives=total(in_bin & positive[..., None]),
        bin_probability=jnp.sum(jnp.where(in_bin, probabilities[..., None], 0.0), axis=0),
        logits=logits.astype(jnp.float32),
        targets=labels.astype(jnp.uint8),
        where=where,
    )


def multi_label_total(parts: Sequence[Any]) -> MultiLabelCounts:
    """Counts of several batches together, on the host; a leading axis of replicas is allowed.

    Args:
      parts: `MultiLabelCounts` of batches.

    Returns:
      Sums of the counts; logits, targets and where of all batches, one after another.
    """
    names = MultiLabelCounts._fields
    columns = {n: [np.asarray(getattr(part, n)) for part in parts] for n in names}
    rows = {"logits": -2, "targets": -2, "where": -1}  # axis of the examples
    together: dict[str, Any] = {
        n: np.concatenate(columns[n], axis=rows[n]) if n in rows else np.sum(columns[n], axis=0)
        for n in names
    }
    return MultiLabelCounts(**together)
