"""Scores: counts that add up over batches on the device, then NumPy on the host."""

from lt_jax.longtail import FEW, GROUPS, MANY
from lt_jax.metrics.multi_label import MultiLabelCounts, multi_label_count, multi_label_total
from lt_jax.metrics.operating_points import (
    class_groups,
    classwise_calibration_error,
    multi_label_scores,
    point_scores,
    rarest_classes,
)
from lt_jax.metrics.ranking import average_precision, tune_thresholds
from lt_jax.metrics.scoring import TABLES, Scoring, scoring_for
from lt_jax.metrics.single_label import (
    Counts,
    add,
    balanced_accuracy,
    calibration_bins,
    count,
    expected_calibration_error,
    scores,
    shot_accuracy,
)

__all__ = [
    "FEW",
    "GROUPS",
    "MANY",
    "TABLES",
    "Counts",
    "MultiLabelCounts",
    "Scoring",
    "add",
    "average_precision",
    "balanced_accuracy",
    "calibration_bins",
    "class_groups",
    "classwise_calibration_error",
    "count",
    "expected_calibration_error",
    "multi_label_count",
    "multi_label_scores",
    "multi_label_total",
    "point_scores",
    "rarest_classes",
    "scores",
    "scoring_for",
    "shot_accuracy",
    "tune_thresholds",
]
