"""Partial label masking as functions: the update of the ratios, the masks, the histograms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from every_loss import KEY, value_and_gradient

from lt_jax import losses
from lt_jax.losses import partial_label

# Updates of the ideal ratio


UPDATE = jax.jit(partial_label.updated_ideal_ratio)


def test_log_updates_sum_to_zero():
    rng = np.random.default_rng(0)
    histograms = rng.integers(0, 40, size=(2, 9, 10)).astype(np.int32)
    histograms[0, 3] = 0  # never seen present
    histograms[1, 4] = 0  # never seen absent
    ratio = np.where(np.arange(9) == 5, np.nan, rng.random(9) + 0.1).astype(np.float32)
    start = np.nan_to_num(ratio, nan=1.0)
    updated = np.asarray(UPDATE(start, ratio, *map(jnp.asarray, histograms), rate=0.2))
    moved = np.log(updated / start)
    assert abs(moved.sum()) < 1e-5
    assert (moved[3:6] == 0).all()
    assert (np.delete(moved, [3, 4, 5]) != 0).all()
    np.testing.assert_allclose(
        updated, reference.updated_ideal_ratio(start, ratio, *histograms, 0.2), rtol=1e-5
    )


def test_missed_positives_raise_the_ideal_ratio():
    seen, missed = np.zeros((2, 10), np.int32), np.zeros((2, 10), np.int32)
    seen[:, 9], missed[:, 0] = 50, 50
    positives = jnp.asarray(np.stack([seen[0], missed[0]]))  # class 1 is missed
    negatives = jnp.asarray(np.stack([missed[0], missed[0]]))
    ratio = jnp.array([0.5, 0.5])
    updated = UPDATE(ratio, ratio, positives, negatives, rate=0.1)
    np.testing.assert_allclose(updated, 0.5 * np.exp([-0.1, 0.1]), rtol=1e-6)


@pytest.mark.parametrize("classes", [3, 10, 20])
def test_classes_that_do_alike_do_not_move(classes):
    """Every prediction in one bin, as early in training: no class differs, nothing changes."""
    ratio = np.full(classes, 0.1, np.float32)
    counts = np.arange(1, classes + 1)
    for b in (0, 3, 9):
        histogram = np.zeros((classes, 10), np.int32)
        histogram[:, b] = counts
        updated = UPDATE(ratio, ratio, histogram, histogram, rate=0.5)
        np.testing.assert_array_equal(updated, ratio)


def test_ideal_ratio_is_bounded():
    ratio = jnp.array([0.5, 0.25])
    histogram = jnp.asarray(np.eye(10, dtype=np.int32)[[9, 0]])
    negatives = jnp.asarray(np.eye(10, dtype=np.int32)[[0, 0]])
    updated = UPDATE(ratio, ratio, histogram, negatives, rate=50.0, bound=4.0)
    np.testing.assert_allclose(updated, [0.125, 1.0], rtol=1e-6)


def test_nothing_seen_changes_nothing():
    ratio, empty = jnp.array([0.5, 0.25]), jnp.zeros((2, 10), jnp.int32)
    updated = UPDATE(ratio, ratio, empty, empty, rate=1.0)
    np.testing.assert_array_equal(updated, ratio)
    assert (partial_label.histogram_divergence(empty, positives=True) == 0).all()


# Masks


def test_kept_labels_have_the_ideal_ratio_in_expectation():
    """Counted through the loss itself, which at logit 0 is log 2 for each kept entry."""
    n = 200_000
    ideals = np.array([0.02, 0.25, 0.6, 3.0])
    positives = n // 5
    labels = (jnp.arange(n) < positives)[:, None].astype(jnp.float32)
    ratio = positives / (n - positives)

    @jax.jit
    @jax.vmap
    def kept(key, ideal):
        loss = losses.partial_label_masked_cross_entropy(
            jnp.zeros((n, 1)), labels, jnp.array([ratio]), ideal[None], key=key
        )
        return jnp.round(loss / np.log(2)).astype(jnp.int32)

    counted = np.asarray(kept(jax.random.split(KEY, len(ideals)), jnp.asarray(ideals)))
    for ideal, row in zip(ideals, counted, strict=True):
        p, q = row[:positives].sum(), row[positives:].sum()
        # One of the two is not masked; the other is binomial with at least 3,000 expected. Bound: 5
        # standard deviations of its relative error, at most 1 / sqrt(expected).
        assert p / q == pytest.approx(ideal, rel=5 / np.sqrt(min(p, q)))
        assert p == positives or ideal < ratio
        assert q == n - positives or ideal > ratio


def masked_surely(base, labels, ideal):
    """Loss and gradient at logits (2, 1, 0.5) with all ratios 1.

    An ideal of 1e-30 drops every positive of its class, one of 1e30 every negative.
    """
    loss = jax.jit(
        lambda z: value_and_gradient(
            lambda z: losses.partial_label_masked_cross_entropy(
                z, labels, np.ones(3), np.array(ideal), key=KEY, base=base
            ),
            z,
        )
    )
    return map(np.asarray, loss(np.array([[2.0, 1.0, 0.5]], np.float32)))


def test_softmax_base_drops_terms_and_competitors():
    loss, gradient = masked_surely("softmax", np.array([0]), [1e-30, 1.0, 1.0])
    assert loss == 0
    assert (gradient == 0).all()
    loss, gradient = masked_surely("softmax", np.array([0]), [1.0, 1e30, 1.0])
    np.testing.assert_allclose(loss, np.log1p(np.exp(0.5 - 2.0)), rtol=1e-6)
    p = 1 / (1 + np.exp(1.5))
    np.testing.assert_allclose(gradient, [[-p, 0.0, p]], rtol=1e-5)


def test_sigmoid_base_drops_entries_alone():
    loss, gradient = masked_surely("sigmoid", np.array([[1, 0, 0]]), [1e-30, 1e30, 1.0])
    np.testing.assert_allclose(loss, np.log1p(np.exp(0.5)), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.0, 0.0, reference.sigmoid(0.5)]], rtol=1e-6)


def test_classes_without_positives_or_negatives_are_never_masked():
    ratio = losses.label_ratio([0, 10, 4], num_examples=10)
    np.testing.assert_array_equal(np.isnan(ratio), [True, True, False])
    keep = partial_label.keep_probabilities(
        jnp.array([[0.0, 1.0, 1.0]]), jnp.asarray(ratio), jnp.array([9.0, 1e-9, 1.0])
    )
    np.testing.assert_array_equal(keep[0], 1.0)


# Ratios and histograms


def test_label_ratios():
    counts = [50, 20, 5]
    np.testing.assert_allclose(losses.label_ratio(counts), [2.0, 20 / 55, 5 / 70])
    np.testing.assert_allclose(losses.label_ratio(counts, 200), [50 / 150, 20 / 180, 5 / 195])
    np.testing.assert_allclose(losses.label_ratio(counts, 200, "share"), [0.25, 0.1, 0.025])


def test_histograms_leave_padding_out_and_hold_the_ends():
    probabilities = jnp.array([[0.0, 1.0], [0.05, 0.95], [0.5, 0.5]])
    targets = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    where = jnp.array([True, True, False])
    positives, negatives = jax.jit(partial_label.probability_histograms)(
        probabilities, targets, where=where
    )
    assert positives.dtype == jnp.int32
    assert np.argwhere(positives).tolist() == [[0, 0], [1, 9]]
    assert np.argwhere(negatives).tolist() == [[0, 0], [1, 9]]
