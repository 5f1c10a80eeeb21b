"""Scores against the reference values and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from lt_jax import metrics
from lt_jax.errors import InputError
from lt_jax.metrics import single_label


def counts_of(probabilities, labels, batch=64):
    """Counts over batches of one size, the last one padded and masked."""
    count = jax.jit(metrics.count)
    total = None
    for start in range(0, len(labels), batch):
        rows = np.arange(start, start + batch)
        where = rows < len(labels)
        rows = np.where(where, rows, 0)
        own = jnp.asarray(probabilities[rows])  # which is the largest is all that logits tell
        part = count(own, own, jnp.asarray(labels[rows]), where)
        total = part if total is None else metrics.add(total, part)
    return total


def test_reference_values(golden, x64):
    case = golden["metrics"]
    probabilities, labels = np.array(case["scores"]), np.array(case["labels"])
    counts = counts_of(probabilities, labels)
    ece = metrics.expected_calibration_error(counts)
    assert ece == pytest.approx(case["ece_15"], rel=1e-9)
    average = metrics.average_precision(probabilities, np.eye(probabilities.shape[1])[labels])
    np.testing.assert_allclose(average, case["average_precision"], rtol=1e-9)
    predicted = np.array(case["pred"])
    per_class = [np.mean(predicted[labels == c] == c) for c in range(probabilities.shape[1])]
    shots = metrics.shot_accuracy(per_class, golden["class_counts"])
    assert shots.keys() == case["shot_accuracy"].keys()
    for name, expected in case["shot_accuracy"].items():
        assert shots[name] == (None if expected is None else pytest.approx(expected, rel=1e-9))


def test_ece_in_float32(golden):
    case = golden["metrics"]
    counts = counts_of(np.array(case["scores"], np.float32), np.array(case["labels"]))
    ece = metrics.expected_calibration_error(counts)
    assert ece == pytest.approx(case["ece_15"], rel=1e-5)


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), 333).astype(np.float32)
    labels = rng.integers(0, 4, 333)  # class 4 has no test images
    predicted = probabilities.argmax(1)
    counts = counts_of(probabilities, labels)
    found = metrics.scores(counts, [500, 101, 100, 20, 19])
    np.testing.assert_array_equal(
        found["confusion"], confusion_matrix(labels, predicted, labels=range(5))
    )
    keep = np.isin(labels, range(4))
    expected = balanced_accuracy_score(labels[keep], np.minimum(predicted, 4)[keep])
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert metrics.balanced_accuracy(counts) == pytest.approx(expected)
    assert metrics.balanced_accuracy(counts.confusion) == pytest.approx(expected)
    assert found["top1"] == pytest.approx(np.mean(predicted == labels))
    assert found["per_class"][4] is None
    assert found["few"] is None  # its only class has no test images
    assert found["many"] == pytest.approx(np.mean(found["per_class"][:2]))
    assert found["medium"] == pytest.approx(np.mean(found["per_class"][2:4]))
    own = probabilities[np.arange(333), labels]
    assert found["nll"] == pytest.approx(-np.log(own).mean(), rel=1e-5)


def test_top5_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet(np.ones(9), 200), rng.integers(0, 9, 200)
    found = metrics.scores(counts_of(probabilities.astype(np.float32), labels), [10] * 9)
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5))
    assert found["top1"] < found["top5"] < 1


def test_calibration_bins_are_those_of_the_predictions():
    """Over batches, and over replicas side by side, against float64; they give the error too."""
    rng = np.random.default_rng(2)
    both = rng.dirichlet(np.ones(4), (2, 333)).astype(np.float32)
    labels, where = rng.integers(0, 4, 333), np.ones(333, bool)
    side_by_side = jax.jit(jax.vmap(metrics.count, in_axes=(0, 0, None, None)))
    replicas = side_by_side(both, both, labels, where)
    for r, probabilities in enumerate(both):
        confidence = probabilities.astype(np.float64).max(1)
        index = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1], right=True)
        right = probabilities.argmax(1) == labels
        expected = [np.bincount(index, weights=w, minlength=15) for w in (where, right, confidence)]
        for counts in (
            counts_of(probabilities, labels),
            metrics.Counts(*(leaf[r] for leaf in replicas)),
        ):
            found = metrics.scores(counts, [10] * 4)
            bins = found["calibration"]
            assert bins["count"] == expected[0].tolist()
            assert bins["observed"] == expected[1].tolist()
            np.testing.assert_allclose(bins["predicted"], expected[2], rtol=1e-6)
            error = np.abs(expected[1] - expected[2]).sum() / 333
            assert found["ece"] == pytest.approx(error, rel=1e-5)


def test_confusions_of_many_classes_are_not_kept(monkeypatch):
    counts = counts_of(np.eye(7, dtype=np.float32), np.arange(7))
    assert "confusion" in metrics.scores(counts, [10] * 7)
    monkeypatch.setattr(single_label, "LARGEST_TABLE", 6)
    assert "confusion" not in metrics.scores(counts, [10] * 7)


def test_scores_of_more_classes_than_a_table_of_int32_could_have():
    """50,000 classes: their confusions would be 10 GB, in places that int32 cannot number."""
    classes, rng = 50_000, np.random.default_rng(3)
    labels = rng.integers(0, classes, 20)
    labels[:3] = classes - 1
    logits = rng.normal(size=(20, classes)).astype(np.float32)
    logits[np.arange(12), labels[:12]] = 9.0  # the right ones
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    where = np.arange(20) < 18
    counts = jax.jit(metrics.count)(logits, probabilities, labels, where)
    right, of_class = logits.argmax(1) == labels, labels[where, None] == np.unique(labels[where])
    recall = of_class[right[where]].sum(0) / of_class.sum(0)
    found = metrics.scores(counts, np.full(classes, 5))
    assert found["top1"] == pytest.approx(12 / 18)
    assert found["balanced_accuracy"] == pytest.approx(recall.mean())
    assert found["few"] == pytest.approx(recall.mean())
    assert found["per_class"][classes - 1] == 1.0
    assert sum(score is not None for score in found["per_class"]) == len(recall)
    assert metrics.balanced_accuracy(metrics.add(counts, counts)) == pytest.approx(recall.mean())
    assert "confusion" not in found


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_of_halves_keep_growing(dtype):
    """Of numbers that halves hold exactly, the scores are those of float32."""
    rng = np.random.default_rng(0)
    probabilities = jnp.asarray(rng.choice([0.0, 0.25, 0.5, 0.75], (40, 3)), dtype)
    labels, where = jnp.asarray(rng.integers(0, 3, 40), jnp.int8), jnp.ones(40, bool)

    @jax.jit
    def total(p):
        one = metrics.count(p, p, labels, where)
        return jax.lax.fori_loop(0, 300, lambda _, sum: metrics.add(sum, one), one)

    found, expected = (
        metrics.scores(total(p), [9, 9, 9])
        for p in (probabilities, probabilities.astype(jnp.float32))
    )
    assert found == expected
    labelled = (probabilities, probabilities, jnp.eye(3, dtype=jnp.uint8)[labels], where)
    several = metrics.multi_label_count(*labelled)
    assert several.nll.dtype == several.bin_probability.dtype == jnp.float32
    assert np.isfinite(several.nll)
    assert np.isfinite(metrics.average_precision(probabilities, labelled[2])).all()


def test_a_split_without_examples_is_refused():
    probabilities, nothing = jnp.full((3, 2), 0.5), jnp.zeros(3, bool)
    one = metrics.count(probabilities, probabilities, jnp.array([0, 1, 0]), nothing)
    with pytest.raises(InputError, match="no examples to score"):
        metrics.scores(one, [5, 5])
    several = metrics.multi_label_count(probabilities, probabilities, jnp.ones((3, 2)), nothing)
    with pytest.raises(InputError, match="no examples to score"):
        metrics.multi_label_scores(several, [5, 5])


def test_padding_rows_do_not_count():
    probabilities, labels = jnp.full((3, 2), 0.5), jnp.array([0, 1, 0])
    nothing = metrics.count(probabilities, probabilities, labels, jnp.zeros(3, bool))
    assert all(np.all(np.asarray(leaf) == 0) for leaf in nothing)


def test_average_precision_without_positives_is_nan():
    found = metrics.average_precision([[0.2, 0.4], [0.3, 0.1]], [[1, 0], [0, 0]])
    assert found[0] == pytest.approx(0.5)
    assert np.isnan(found[1])


def test_saturated_sigmoids_do_not_tie():
    """In float32 the sigmoids of 17.5 and 25 are both 1; the prediction is still the larger one."""
    logits = jnp.array([[17.5, 9.0, 25.0]])
    where = jnp.array([True])
    counts = metrics.count(logits, jax.nn.sigmoid(logits), jnp.array([2]), where)
    assert int(counts.confusion[2, 2]) == 1
