"""Scores where every example has one label: counts on the device, then NumPy on the host.

Headline numbers follow the evaluation protocol of the field: top-1 on a balanced test set, which is
balanced accuracy, and the mean accuracy of classes with many, medium and few training images.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike

from lt_jax.errors import InputError
from lt_jax.longtail import shot_groups
from lt_jax.losses._inputs import are_classes, promoted
from lt_jax.sharding import automatic

Array = jax.Array
ECE_BINS = 15
LARGEST_TABLE = 1000  # classes; a summary with the confusions of more would be hundreds of MB


class Counts(NamedTuple):
    """What adds up over batches.

    Attributes:
      confusion: int32 ``[C, C]``, rows are labels, columns predictions; of more than 1,000 classes
        ``[0, 0]``.
      total: examples of each class, int32 ``[C]``.
      correct: right ones among them, int32 ``[C]``.
      nll: summed negative log-likelihood of the labels, float scalar.
      bin_count: examples per confidence bin, int32 ``[bins]``.
      bin_correct: right ones among them, int32 ``[bins]``.
      bin_confidence: their summed confidence, float ``[bins]``.
      top5: examples whose label is among the five largest logits, int32 scalar; labels tied with
        the fifth count.
    """

    confusion: Array
    total: Array
    correct: Array
    nll: Array
    bin_count: Array
    bin_correct: Array
    bin_confidence: Array
    top5: Array


def count(
    logits: ArrayLike,
    probabilities: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None = None,
    *,
    bins: int = ECE_BINS,
) -> Counts:
    """Counts of one batch.

    Args:
      logits: ``[B, C]``, float; the largest is the prediction. Sigmoids of large ones are all 1 in
        float32, and a tie would go to the class of the lowest number, mostly the most frequent.
      probabilities: what they mean, ``[B, C]``, float.
      labels: integers ``[B]``. Under `jax.jit`, where it cannot be read, one that is no class makes
        the negative log-likelihood NaN; its row counts nowhere else.
      where: which rows count, bool ``[B]``: padding of the last batch does not; all if None.
      bins: equal bins of confidence, the largest probability, each closed on the right.

    Returns:
      `Counts`.

    Raises:
      InputError: for shapes that do not fit, or a label that is no class.
    """
    logits, probabilities = jnp.asarray(logits), jnp.asarray(probabilities)
    labels = jnp.asarray(labels)
    rows = jnp.ones(labels.shape, bool) if where is None else jnp.asarray(where)
    if not (logits.shape == probabilities.shape == (*labels.shape, logits.shape[-1])):
        raise InputError(
            f"logits, probabilities and labels have shapes {logits.shape}, {probabilities.shape}"
            f" and {labels.shape}; expected [B, C] twice, and [B]"
        )
    fits = are_classes(labels, logits.shape[-1], None if where is None else rows)
    counted = rows if fits is None else rows & fits
    found = automatic(partial(_count, bins=bins), probabilities, as_like=False)(
        logits, probabilities, labels.astype(jnp.int32), counted
    )
    if fits is None:
        return found
    return found._replace(nll=jnp.where((rows & ~fits).any(), jnp.nan, found.nll))


def _count(
    logits: Array, probabilities: Array, labels: Array, where: Array, *, bins: int
) -> Counts:
    num_classes = probabilities.shape[-1]
    # Sums of halves stop growing.
    probabilities = probabilities.astype(promoted(probabilities.dtype, jnp.float32))
    predicted = jnp.argmax(logits, axis=-1)
    confidence = jnp.max(probabilities, axis=-1)
    index = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    in_bin = (index[:, None] == jnp.arange(bins)) & where[:, None]
    correct = (predicted == labels) & where
    own = jnp.take_along_axis(probabilities, labels[:, None], axis=-1)[:, 0]
    # Not "above": of NaN nothing is, and its label would be among the largest.
    other = ~(logits <= jnp.take_along_axis(logits, labels[:, None], axis=-1))
    size = num_classes if num_classes <= LARGEST_TABLE else 0  # beyond, C**2 counts fill the memory
    none, each = jnp.zeros(num_classes, jnp.int32), where.astype(jnp.int32)
    return Counts(
        confusion=jnp.zeros((size, size), jnp.int32).at[labels, predicted].add(each),
        total=none.at[labels].add(each),
        correct=none.at[labels].add(correct.astype(jnp.int32)),
        nll=jnp.sum(jnp.where(where, -jnp.log(jnp.maximum(own, 1e-12)), 0.0)),
        bin_count=jnp.sum(in_bin, axis=0, dtype=jnp.int32),
        bin_correct=jnp.sum(in_bin & correct[:, None], axis=0, dtype=jnp.int32),
        bin_confidence=jnp.sum(jnp.where(in_bin, confidence[:, None], 0.0), axis=0),
        top5=jnp.sum((other.sum(-1) < 5) & where, dtype=jnp.int32),
    )


@jax.jit  # one program, not one for each of their fields
def add(a: Counts, b: Counts) -> Counts:
    """Counts of both."""
    return jax.tree.map(jnp.add, a, b)


def balanced_accuracy(counts: Counts | npt.ArrayLike) -> np.ndarray:
    """Mean accuracy of the classes that occur.

    Args:
      counts: from `count`; or a confusion, ``[..., C, C]``, rows are labels.

    Returns:
      float64 ``[...]``.

    Example:
      >>> balanced_accuracy([[3, 1], [0, 2]]).item()
      0.875
    """
    if isinstance(counts, Counts):
        total, correct = np.asarray(counts.total), np.asarray(counts.correct)
    else:
        confusion = np.asarray(counts)
        total, correct = confusion.sum(-1), np.diagonal(confusion, axis1=-2, axis2=-1)
    return (correct / np.maximum(total, 1)).sum(-1) / (total > 0).sum(-1)


def expected_calibration_error(counts: Counts) -> float:
    r"""Expected calibration error.

    .. math:: \sum_b \frac{n_b}{N} |\text{accuracy}_b - \text{confidence}_b|

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    correct, confidence = np.asarray(counts.bin_correct), np.asarray(counts.bin_confidence, float)
    return float(np.abs(correct - confidence).sum() / np.asarray(counts.bin_count).sum())


def calibration_bins(
    count: npt.ArrayLike, observed: npt.ArrayLike, predicted: npt.ArrayLike
) -> dict[str, list[Any]]:
    """What a reliability diagram is drawn from, as numbers that JSON can hold.

    Args:
      count: predictions in each bin of confidence or probability, ``[bins]``.
      observed: how many of them came true, ``[bins]``.
      predicted: their summed confidence or probability, ``[bins]``.

    Returns:
      The three as lists, by name; they add up over seeds.

    Example:
      >>> calibration_bins([2, 1], [1, 1], [0.75, 0.9])
      {'count': [2, 1], 'observed': [1, 1], 'predicted': [0.75, 0.9]}
    """
    return {
        "count": np.asarray(count).tolist(),
        "observed": np.asarray(observed).tolist(),
        "predicted": np.asarray(predicted, np.float64).tolist(),
    }


def shot_accuracy(per_class: npt.ArrayLike, class_counts: npt.ArrayLike) -> dict[str, float | None]:
    """Mean accuracy of classes with many (> 100), medium (20 to 100) and few (< 20) images.

    Args:
      per_class: accuracy of each class, ``[C]``; NaN for one without test images.
      class_counts: training images of each class, ``[C]``.

    Returns:
      ``many``, ``medium`` and ``few``; None where no class is of that kind.

    Example:
      >>> shot_accuracy([0.9, 0.5, 0.25], [500, 101, 20])
      {'many': 0.7, 'medium': 0.25, 'few': None}

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
    """
    accuracy = np.asarray(per_class, np.float64)
    groups = shot_groups(class_counts)
    seen = {name: members & ~np.isnan(accuracy) for name, members in groups.items()}
    return {k: float(accuracy[m].mean()) if m.any() else None for k, m in seen.items()}


def scores(counts: Counts, class_counts: npt.ArrayLike) -> dict[str, Any]:
    """Every score of one evaluation, as numbers that JSON can hold.

    Args:
      counts: summed over the whole split.
      class_counts: training images of each class, ``[C]``.

    Returns:
      top1, top5 (of more than 5 classes), balanced_accuracy, many, medium, few, ece, nll, per_class
      (None for a class without test images), calibration (see `calibration_bins`), and confusion
      of up to 1,000 classes.

    Raises:
      InputError: if no example was counted.
    """
    total, correct = np.asarray(counts.total), np.asarray(counts.correct)
    if not total.any():
        raise InputError("there are no examples to score; expected at least one")
    if np.shape(class_counts) != total.shape:
        raise InputError(
            f"class_counts have shape {np.shape(class_counts)}; expected {total.shape}, one for"
            " each class that was counted"
        )
    per_class = np.where(total > 0, correct / np.maximum(total, 1), np.nan)
    few_classes = len(total) <= LARGEST_TABLE
    return {
        "top1": float(correct.sum() / total.sum()),
        **({"top5": float(counts.top5) / int(total.sum())} if len(total) > 5 else {}),
        "balanced_accuracy": float(np.nanmean(per_class)),
        **shot_accuracy(per_class, class_counts),
        "ece": expected_calibration_error(counts),
        "nll": float(counts.nll) / int(total.sum()),
        "per_class": [None if np.isnan(a) else float(a) for a in per_class],
        "calibration": calibration_bins(
            counts.bin_count, counts.bin_correct, counts.bin_confidence
        ),
        **({"confusion": np.asarray(counts.confusion).tolist()} if few_classes else {}),
    }
