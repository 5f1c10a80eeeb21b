"""Scores of several labels against scikit-learn, over uneven batches, devices and replicas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from lt_jax import metrics, sharding
from lt_jax.errors import InputError

CLASSES, EXAMPLES = 7, 205
COUNTS = [400, 300, 150, 60, 20, 8, 3]


def made_up(seed=0):
    """Logits that tell the labels; class 6 has no positives, class 5 is never predicted."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((EXAMPLES, CLASSES)) < np.linspace(0.6, 0.05, CLASSES)).astype(np.uint8)
    logits = rng.normal(size=targets.shape) + 1.5 * targets - 0.7
    targets[:, 6] = 0
    logits[:, 5] -= 50
    targets[0, 5] = 1
    return logits.astype(np.float32), targets


def counted(logits, targets, batch=48, threshold=0.5, mesh=None):
    """Counts over batches of one size, the last one padded and masked."""
    count = jax.jit(partial(metrics.multi_label_count, threshold=threshold))
    parts = []
    for start in range(0, len(targets), batch):
        rows = np.arange(start, start + batch)
        where = rows < len(targets)
        rows = np.where(where, rows, 0)
        arrays = (jnp.asarray(logits[rows]), jnp.asarray(targets[rows]), jnp.asarray(where))
        if mesh is not None:
            arrays = jax.device_put(arrays, sharding.split_batch(mesh))
        z, t, w = arrays
        parts.append(count(z, jax.nn.sigmoid(z), t, w))
    return metrics.multi_label_total(parts)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_scores_are_those_of_scikit_learn(threshold):
    logits, targets = made_up()
    found = metrics.multi_label_scores(counted(logits, targets, threshold=threshold), COUNTS)
    predicted = (sigmoid(logits) > threshold).astype(int)
    seen = targets[:, :6], predicted[:, :6]  # the classes with positives
    precision, recall, _, _ = precision_recall_fscore_support(*seen, average=None, zero_division=0)
    assert found["cp"] == pytest.approx(precision.mean())
    assert found["cr"] == pytest.approx(recall.mean())
    assert found["cf1"] == pytest.approx(2 / (1 / precision.mean() + 1 / recall.mean()))
    assert found["macro_f1"] == pytest.approx(f1_score(*seen, average="macro", zero_division=0))
    overall = precision_recall_fscore_support(targets, predicted, average="micro")
    assert [found[k] for k in ("op", "or", "of1")] == pytest.approx(overall[:3])
    assert found["exact_match"] == pytest.approx(accuracy_score(targets, predicted))
    ap = average_precision_score(targets[:, :6], logits[:, :6], average=None)
    np.testing.assert_allclose(found["per_class_ap"][:6], ap)
    assert found["per_class_ap"][6] is None
    assert found["map"] == pytest.approx(ap.mean())
    assert [found[f"map_{g}"] for g in ("head", "medium", "tail")] == pytest.approx(
        [ap[:2].mean(), ap[2:5].mean(), ap[5]]
    )
    assert found["precision_head"] == pytest.approx(precision[:2].mean())
    assert found["recall_rarest"] == pytest.approx(recall[5])  # of the two rarest one is not there
    each = [log_loss(targets[:, c], sigmoid(logits)[:, c], labels=[0, 1]) for c in range(5)]
    clipped = metrics.multi_label_scores(counted(logits[:, :5], targets[:, :5]), COUNTS[:5])
    assert clipped["nll"] == pytest.approx(sum(each), rel=1e-5)


def test_calibration_and_histograms_follow_a_second_implementation():
    logits, targets = made_up()
    counts = counted(logits, targets)
    found = metrics.multi_label_scores(counts, COUNTS)
    probability = sigmoid(logits)
    for c in range(CLASSES):
        own, positive = probability[:, c], targets[:, c] > 0
        index = np.minimum((own * 10).astype(int), 9)
        error = sum(abs(positive[index == b].sum() - own[index == b].sum()) for b in range(10))
        assert found["per_class_ece"][c] == pytest.approx(error / EXAMPLES, abs=1e-6)
        for kind, rows in (("positives", positive), ("negatives", ~positive)):
            histogram = np.bincount(index[rows], minlength=10).tolist()
            assert found["histograms"][kind][c] == histogram
    every, positive = probability.ravel(), targets.ravel() > 0
    index = np.minimum((every * 10).astype(int), 9)
    bins = found["calibration"]  # of all classes together
    assert bins["count"] == np.bincount(index, minlength=10).tolist()
    assert bins["observed"] == np.bincount(index[positive], minlength=10).tolist()
    np.testing.assert_allclose(bins["predicted"], np.bincount(index, every), rtol=1e-5)


def test_devices_and_replicas_change_nothing():
    logits, targets = made_up()
    one = counted(logits, targets)
    eight = counted(logits, targets, mesh=sharding.make_mesh(8))
    many = jax.vmap(metrics.multi_label_count, in_axes=(0, 0, None, None))
    both = jnp.stack([jnp.asarray(logits), -jnp.asarray(logits)])
    halves = [
        many(both[:, s], jax.nn.sigmoid(both[:, s]), jnp.asarray(targets[s]), jnp.ones(n, bool))
        for s, n in ((slice(0, 100), 100), (slice(100, None), 105))
    ]
    whole = metrics.multi_label_total([jax.tree.map(np.asarray, h) for h in halves])
    scores = metrics.multi_label_scores(one, COUNTS)
    for other in (eight, type(whole)(*(leaf[0] for leaf in whole))):
        found = metrics.multi_label_scores(other, COUNTS)
        for name, value in scores.items():
            if isinstance(value, float):
                assert found[name] == pytest.approx(value, rel=1e-5), name
        assert found["histograms"] == scores["histograms"]
    scoring = metrics.scoring_for(True, COUNTS)
    assert scoring.validation_row(whole)[scoring.headline][0] == pytest.approx(scores["map"])
    assert scoring.validation_row(whole)["of1"][0] == pytest.approx(scores["of1"])


def test_saturated_sigmoids_are_still_ranked():
    """In float32 the sigmoids of 20 and 30 are both 1."""
    logits = np.array([[30.0], [20.0]], np.float32)
    counts = counted(logits, np.array([[1], [0]], np.uint8), batch=2)
    assert metrics.multi_label_scores(counts, [1])["map"] == 1.0


def test_thresholds_are_the_best_of_all():
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(60, 4)).round(1), rng.random((60, 4)) < 0.3
    targets[:, 3] = False
    chosen = metrics.tune_thresholds(logits, targets)
    assert chosen[3] == 0.0
    for c in range(3):
        every = np.concatenate([np.unique(logits[:, c]) - 0.05, [9.0]])
        best = max(f1_score(targets[:, c], logits[:, c] > t, zero_division=0) for t in every)
        assert f1_score(targets[:, c], logits[:, c] > chosen[c]) == pytest.approx(best)


def test_thresholds_of_validation_are_used_on_test():
    logits, targets = made_up()
    validation = made_up(1)
    found = metrics.multi_label_scores(
        counted(logits, targets), COUNTS, counted(*validation), "counts"
    )
    predicted = logits > metrics.tune_thresholds(*validation)
    expected = precision_recall_fscore_support(targets, predicted, average="micro")
    assert found["of1_tuned"] == pytest.approx(expected[2])
    assert found["exact_match_tuned"] == pytest.approx(accuracy_score(targets, predicted))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("thirds", [2, 3, 2]), ("counts", [3, 2, 2])],
)
def test_groups(kind, expected):
    groups = metrics.class_groups(COUNTS, kind)
    assert [groups[g].sum() for g in ("head", "medium", "tail")] == expected
    np.testing.assert_array_equal(sum(g.astype(int) for g in groups.values()), 1)
    assert groups["head"][0]
    assert groups["tail"][6]


def test_counts_may_be_unsigned():
    """As sums of uint8 labels are; the negative of 0 is then not the largest number."""
    counts = np.array([300, 0, 20], np.uint64)
    assert metrics.class_groups(counts)["head"].tolist() == [True, False, False]
    assert metrics.class_groups(counts)["tail"].tolist() == [False, True, False]


def test_without_positives_there_is_no_mean():
    found = metrics.point_scores([0, 0], [1, 0], [0, 0], [5, 3])
    assert found["cp"] is found["cr"] is found["cf1"] is None


@pytest.mark.parametrize(("classes", "rarest"), [(80, 10), (30, 10), (14, 4), (6, 2), (2, 1)])
def test_the_rarest_classes_are_ten_or_a_third(classes, rarest):
    chosen = metrics.rarest_classes(np.arange(classes)[::-1])
    assert chosen[-rarest:].all()
    assert chosen.sum() == rarest


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1}, {"groups": "halves"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=r"metrics\.\w+ is .*; expected"):
        metrics.scoring_for(True, COUNTS, **options)
