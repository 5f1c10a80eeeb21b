"""What a report computes: paired tests, Holm's correction, and what its figures draw."""

import numpy as np
import pytest
from compared_runs import CE, PLM, metric_rows, single, summary
from scipy import stats

from lt_jax import metrics
from lt_jax.comparison import curves, figures, holm, paired_test
from lt_jax.comparison.svg import style_of

# Tests.


def test_only_common_seeds_are_paired():
    ours = summary("a", [single(a) for a in PLM], seeds=[3, 0, 1, 7])
    found = paired_test(ours, summary("b", [single(a) for a in CE]))
    expected = stats.ttest_rel(PLM[:3], [CE[3], CE[0], CE[1]])
    assert found.seeds == 3
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize(
    ("seeds", "values", "reason"),
    [
        ([7, 8], [0.1, 0.2], "no common seeds"),
        ([1, 9], [0.1, 0.2], "1 common seed: no"),
        ([0, 1], [CE[0] + 0.1, CE[1] + 0.1], "the same for all seeds"),
        ([0, 1], [None, 0.2], "not scored in both"),
    ],
)
def test_no_test_is_invented(seeds, values, reason):
    ours = summary("a", [single(v) for v in values], seeds=seeds)
    found = paired_test(ours, summary("b", [single(a) for a in CE]))
    assert found.p is found.low is found.high is None
    assert reason in found.reason


def test_holm_by_hand():
    """0.005 * 4, 0.01 * 3, 0.03 * 2; 0.04 * 1 may not be below the one before."""
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


# Figures.


def test_reliability_is_of_all_seeds_together():
    """Against the predictions themselves, in float64; bins without any are left out."""
    rng = np.random.default_rng(0)
    confidence, hit = rng.uniform(0.4, 1, (2, 50)), rng.random((2, 50)) < 0.7
    index = (confidence * 10).astype(int)
    replicas = [
        {
            "calibration": metrics.calibration_bins(
                np.bincount(i, minlength=10),
                np.bincount(i, h, minlength=10),
                np.bincount(i, c, minlength=10),
            )
        }
        for i, h, c in zip(index, hit, confidence, strict=True)
    ]
    found = figures.reliability({"test": {"last": {"replicas": replicas}}})
    members = [index == b for b in range(4, 10)]
    expected = [[confidence[m].mean(), hit[m].mean(), m.mean()] for m in members]
    np.testing.assert_allclose(np.transpose(found), 100 * np.array(expected))


def test_classes_of_about_equal_frequency_are_drawn_together():
    counts = [*range(1, 38), 0]
    scores = np.linspace(0.9, 0.1, 38).tolist()
    scores[3] = None  # has no test images
    test = {"mean": {"per_class": scores}, "std": {"per_class": [None] * 38}}
    made = {"test": {"last": test}, "data": {"class_counts": counts}}
    x, y, deviation = figures.by_frequency(made, "per_class")
    assert len(x) == figures.FREQUENCIES
    assert deviation is None
    assert (np.diff(x) > 0).all()
    rarest = [scores[i] for i in (37, 0, 1, 2)]  # the first of 12 parts of 37 classes
    assert y[0] == pytest.approx(100 * np.mean(rarest))


def test_curves_are_mean_and_deviation_over_seeds():
    rows = list(metric_rows(3))
    found = curves.curve(rows, "train", "loss")
    loss = np.array([row["loss"] for row in rows if row["split"] == "train"])
    assert found.place.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found.mean, loss.mean(axis=1))
    np.testing.assert_allclose(found.deviation, loss.std(axis=1, ddof=1))
    long = [{"split": "train", "epoch": i / 10, "loss": [float(i)]} for i in range(1000)]
    thin = curves.curve(long, "train", "loss")
    assert len(thin.place) == curves.POINTS
    np.testing.assert_allclose(thin.mean, 10 * thin.place)
    assert curves.curve(rows, "train", "accuracy") is None


def test_runs_are_told_apart_without_colours():
    styles = [tuple(style_of(i).items()) for i in range(42)]
    assert len(set(styles)) == 42
    assert len({(s["marker"], s["linestyle"]) for s in map(style_of, range(6))}) == 6
