"""What a run has to know of its scores, so that nothing else asks which kind they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.metrics import single_label
from lt_jax.metrics.multi_label import multi_label_count, multi_label_total
from lt_jax.metrics.operating_points import multi_label_scores

# Of counts: no mean of these is taken over seeds.
TABLES = ("confusion", "histograms", "calibration")
_MULTI_LABEL_ROW = ("map", "recall_rarest", "precision_head", "cf1", "of1", "nll")


class Scoring(NamedTuple):
    """How predictions are scored.

    Attributes:
      headline: the score by which validation selects.
      columns: the scores that tables show.
      count: ``(logits, probabilities, labels, where) -> counts`` of a batch, on the device.
      total: counts of batches -> those of all of them.
      validation_row: counts with a leading axis R -> scores for the metrics file, ``[R]`` each; the
        headline is one of them.
      scores: ``(counts, counts of validation or None) -> scores`` of one replica, for JSON.
    """

    headline: str
    columns: tuple[str, ...]
    count: Callable[..., Any]
    total: Callable[[list[Any]], Any]
    validation_row: Callable[[Any], dict[str, list[float]]]
    scores: Callable[[Any, Any], dict[str, Any]]


def scoring_for(
    multi_label: bool,
    class_counts: npt.ArrayLike,
    *,
    threshold: float = 0.5,
    groups: Any = "thirds",
) -> Scoring:
    """The scores for data with one label an example, or several.

    Args:
      multi_label: which of the two.
      class_counts: training images of each class, or its positives, ``[C]``.
      threshold: of multi-label predictions: the probability above which a positive is predicted.
      groups: of multi-label scores, see `lt_jax.metrics.class_groups`.

    Returns:
      A `Scoring`.

    Raises:
      InputError: for a threshold outside (0, 1) or unknown groups.

    Example:
      >>> scoring_for(False, [9, 1]).headline, scoring_for(True, [9, 1]).headline
      ('balanced_accuracy', 'map')
    """
    if not 0 < threshold < 1:
        raise InputError(f"metrics.threshold is {threshold!r}; expected a number between 0 and 1")
    if groups not in ("thirds", "counts"):
        raise InputError(f"metrics.groups is {groups!r}; expected 'thirds' or 'counts'")
    if multi_label:
        return _multi_label(class_counts, threshold, groups)
    return Scoring(
        headline="balanced_accuracy",
        columns=("balanced_accuracy", "top1", "many", "medium", "few", "ece"),
        count=single_label.count,
        total=partial(functools.reduce, single_label.add),
        validation_row=_single_label_row,
        scores=lambda counts, validation: single_label.scores(counts, class_counts),
    )


def _single_label_row(counts: single_label.Counts) -> dict[str, list[float]]:
    total = np.asarray(counts.total).sum(axis=1)
    return {
        "balanced_accuracy": single_label.balanced_accuracy(counts).tolist(),
        "top1": (np.asarray(counts.correct).sum(axis=1) / total).tolist(),
        "nll": (np.asarray(counts.nll, np.float64) / total).tolist(),
    }


def _multi_label(class_counts: npt.ArrayLike, threshold: float, groups: Any) -> Scoring:
    def each(counts: Any) -> list[Any]:
        return [type(counts)(*(leaf[r] for leaf in counts)) for r in range(len(counts.where))]

    def row(counts: Any) -> dict[str, list[float]]:
        found = [multi_label_scores(c, class_counts, groups=groups) for c in each(counts)]
        return {name: [scores[name] for scores in found] for name in _MULTI_LABEL_ROW}

    return Scoring(
        headline="map",
        columns=(
            *("map", "map_head", "map_medium", "map_tail", "recall_rarest", "precision_head"),
            *("cf1", "of1", "exact_match", "ece"),
        ),
        count=partial(multi_label_count, threshold=threshold),
        total=multi_label_total,
        validation_row=row,
        scores=lambda counts, validation: multi_label_scores(
            counts, class_counts, validation, groups
        ),
    )
