"""Scores of multi-label predictions from their counts: precision, recall, F1, calibration."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail import shot_groups
from lt_jax.metrics.multi_label import MultiLabelCounts
from lt_jax.metrics.ranking import average_precision, tune_thresholds
from lt_jax.metrics.single_label import calibration_bins

Vector = npt.NDArray[np.float64]
Groups = Literal["thirds", "counts"]
MOST_RAREST = 10


def class_groups(class_counts: npt.ArrayLike, kind: Groups = "thirds") -> dict[str, np.ndarray]:
    """Which classes are frequent, in the middle and rare.

    Args:
      class_counts: training positives of each class, ``[C]``.
      kind: ``"thirds"`` of the classes ordered by frequency, of which head and tail are the smaller
        ones if C is no multiple of 3; equally frequent ones by number. Or ``"counts"``: more than
        100 positives, 20 to 100, fewer than 20.

    Returns:
      ``head``, ``medium`` and ``tail``, bool ``[C]``.

    Example:
      >>> class_groups([5, 9, 7, 1])["tail"].tolist()
      [False, False, False, True]
    """
    counts = np.asarray(class_counts, np.float64)  # the negative of unsigned ones would wrap
    if kind == "counts":
        return dict(zip(("head", "medium", "tail"), shot_groups(counts).values(), strict=True))
    rank = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
    third = counts.size // 3
    tail = rank >= counts.size - third
    head = rank < third
    return {"head": head, "medium": ~head & ~tail, "tail": tail}


def rarest_classes(class_counts: npt.ArrayLike) -> np.ndarray:
    """The ten rarest classes, or the rarest third of fewer than 30, bool ``[C]``.

    Example:
      >>> rarest_classes([5, 9, 7, 1, 8, 2]).tolist()
      [False, False, False, True, False, True]
    """
    counts = np.asarray(class_counts)
    chosen = np.argsort(counts, kind="stable")[: min(MOST_RAREST, max(1, counts.size // 3))]
    return np.isin(np.arange(counts.size), chosen)


def _mean(values: Vector, members: np.ndarray | None = None) -> float | None:
    """Mean over the classes that have a value; None if there are none."""
    chosen = values if members is None else values[members]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if chosen.size else None


def _ratio(numerator: Any, denominator: Any, empty: float) -> Vector:
    n, d = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.where(d > 0, n / np.maximum(d, 1.0), empty)


def _harmonic(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2.0 * a * b / (a + b) if a and b else 0.0


def point_scores(
    true_positives: npt.ArrayLike,
    predicted: npt.ArrayLike,
    positives: npt.ArrayLike,
    class_counts: npt.ArrayLike,
    groups: Groups = "thirds",
) -> dict[str, Any]:
    r"""Precision, recall and F1 at an operating point.

    .. math:: CP = \frac{1}{C} \sum_c \frac{TP_c}{\hat P_c}, \quad
              CR = \frac{1}{C} \sum_c \frac{TP_c}{P_c}, \quad CF1 = \frac{2 CP \cdot CR}{CP + CR}

    and OP, OR, OF1 likewise from the sums over all classes. A class that is never predicted has
    precision 0; classes without test positives join no mean over classes.

    Args:
      true_positives: of each class, ``[C]``.
      predicted: predicted positives, ``[C]``.
      positives: positives, ``[C]``.
      class_counts: training positives, ``[C]``.
      groups: see `class_groups`.

    Returns:
      cp, cr, cf1, op, or, of1, macro_f1 (mean of the classes' F1), recall_rarest (see
      `rarest_classes`), precision and recall of head, medium and tail, per_class_precision and
      per_class_recall; None where there is nothing to take the mean of.

    Source: Wang et al., CNN-RNN: A Unified Framework for Multi-label Image Classification, CVPR
    2016 (CP to OF1).
    """
    tp, said, there = (np.asarray(v, np.float64) for v in (true_positives, predicted, positives))
    recall = _ratio(tp, there, np.nan)
    precision = np.where(there > 0, _ratio(tp, said, 0.0), np.nan)
    f1 = np.where(there > 0, _ratio(2 * tp, said + there, 0.0), np.nan)
    cp, cr = _mean(precision), _mean(recall)
    op, overall = (float(_ratio(tp.sum(), v.sum(), 0.0)) for v in (said, there))
    result = {
        "cp": cp,
        "cr": cr,
        "cf1": _harmonic(cp, cr),
        "op": op,
        "or": overall,
        "of1": _harmonic(op, overall),
        "macro_f1": _mean(f1),
        "recall_rarest": _mean(recall, rarest_classes(class_counts)),
    }
    for name, members in class_groups(class_counts, groups).items():
        result[f"precision_{name}"] = _mean(precision, members)
        result[f"recall_{name}"] = _mean(recall, members)
    return {
        **result,
        "per_class_precision": _listed(precision),
        "per_class_recall": _listed(recall),
    }


def _listed(values: Vector) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def classwise_calibration_error(counts: MultiLabelCounts) -> Vector:
    r"""Expected calibration error of each class's probabilities, float64 ``[C]``.

    .. math:: \sum_b \frac{n_{cb}}{N} |\text{share of positives}_{cb} - \text{probability}_{cb}|

    Source: Kull et al., Beyond temperature scaling, NeurIPS 2019 (classwise).
    """
    positives, probability = (
        np.asarray(v, np.float64) for v in (counts.bin_positives, counts.bin_probability)
    )
    return np.abs(positives - probability).sum(axis=-1) / max(int(counts.examples), 1)


def multi_label_scores(
    counts: MultiLabelCounts,
    class_counts: npt.ArrayLike,
    validation: MultiLabelCounts | None = None,
    groups: Groups = "thirds",
) -> dict[str, Any]:
    """Every score of one evaluation, as numbers that JSON can hold.

    Args:
      counts: of the whole split.
      class_counts: training positives of each class, ``[C]``.
      validation: of the validation split, to choose the threshold of each class on; or None.
      groups: see `class_groups`.

    Returns:
      map, map_head, map_medium, map_tail, exact_match (every label right), ece (mean over classes),
      nll per example, those of `point_scores`, per_class_ap, per_class_ece, histograms, and
      calibration of all classes together (see `lt_jax.metrics.calibration_bins`); with validation
      also those of `point_scores` and exact_match at its thresholds, named ``_tuned``, and
      per_class_threshold, on the logits, None for a class that all examples are claimed to have.

    Raises:
      InputError: if no example was counted.
    """
    examples, binned = int(counts.examples), np.asarray(counts.bin_count)
    if not examples:
        raise InputError("there are no examples to score; expected at least one")
    rows = np.asarray(counts.where)
    logits, targets = (np.asarray(v)[rows] for v in (counts.logits, counts.targets))
    ap, errors = average_precision(logits, targets), classwise_calibration_error(counts)
    by_group = class_groups(class_counts, groups)
    point = point_scores(
        counts.true_positives, counts.predicted_positives, counts.positives, class_counts, groups
    )
    return {
        "map": _mean(ap),
        **{f"map_{name}": _mean(ap, members) for name, members in by_group.items()},
        "exact_match": int(counts.exact) / examples,
        "ece": float(errors.mean()),
        "nll": float(counts.nll) / examples,
        **point,
        **_tuned(logits, targets, validation, class_counts, groups),
        "per_class_ap": _listed(ap),
        "per_class_ece": _listed(errors),
        "histograms": {
            "positives": np.asarray(counts.bin_positives).tolist(),
            "negatives": (binned - np.asarray(counts.bin_positives)).tolist(),
        },
        "calibration": calibration_bins(
            *(np.sum(v, axis=0) for v in (binned, counts.bin_positives, counts.bin_probability))
        ),
    }


def _tuned(
    logits: np.ndarray,
    targets: np.ndarray,
    validation: MultiLabelCounts | None,
    class_counts: npt.ArrayLike,
    groups: Groups,
) -> dict[str, Any]:
    """Scores with the threshold of each class that is best on validation."""
    if validation is None:
        return {}
    rows = np.asarray(validation.where)
    own = (np.asarray(v)[rows] for v in (validation.logits, validation.targets))
    thresholds = tune_thresholds(*own)
    predicted, positive = logits > thresholds, targets > 0
    hits, said, there = (v.sum(axis=0) for v in (predicted & positive, predicted, positive))
    point = point_scores(hits, said, there, class_counts, groups)
    point["exact_match"] = float((predicted == positive).all(axis=1).mean())
    return {
        **{f"{k}_tuned": v for k, v in point.items() if not k.startswith("per_class")},
        "per_class_threshold": [None if np.isinf(t) else t for t in thresholds.tolist()],
    }
