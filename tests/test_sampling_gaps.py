"""Classes without images are never drawn, at the ends of the random numbers neither."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import COUNTS, DRAWN, LABELS, epochs_of, expected, order_of, p_value

from lt_jax.data import draw, members_of
from lt_jax.data.sampling import cumulative

LARGEST_UNIFORM = np.float32(1 - 2**-23)
# Gaps at the beginning, in the middle and at the end.
GAPS = {"first": [0, 0, 770, 170, 60], "middle": [770, 0, 0, 170, 60], "last": [770, 170, 60, 0, 0]}


def shuffled_labels(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("scheme", DRAWN)
def test_a_class_without_images_is_never_drawn(scheme, gap):
    """Its images would be another class's, which would be drawn more often than it should."""
    counts = np.array(GAPS[gap])
    labels = shuffled_labels(counts)
    order = order_of(scheme, labels, len(counts))
    for epoch in (0, 9):
        drawn = epochs_of(order, epoch, seed=1)
        assert set(labels[np.unique(drawn)]) == set(np.flatnonzero(counts))
        observed = np.bincount(drawn.ravel(), minlength=len(labels))
        per_image = (expected(scheme, epoch, counts) / np.maximum(counts, 1))[labels]
        assert p_value(observed, per_image) > 1e-3


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("scheme", DRAWN)
def test_the_ends_of_the_random_numbers_fall_into_classes_with_images(scheme, gap, monkeypatch):
    """0, the largest number below 1 and every boundary: each once in millions of draws.

    Here all classes have images, so that one of probability 0 could be seen to be drawn.
    """
    p = expected(scheme, 5, np.array(GAPS[gap]))
    edges = cumulative(p)
    full = np.repeat(np.arange(len(p)), 3)
    ends = np.unique(np.minimum(np.concatenate([[0.0], edges, [1.0]]), LARGEST_UNIFORM))
    ends = ends.astype(np.float32)
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.asarray(ends))
    members = members_of(full, len(p))
    drawn = full[draw(jax.random.key(0), jnp.asarray(edges), members, len(ends))]
    assert (p[drawn] > 0).all()
    # A boundary belongs to the class that begins there.
    present = np.flatnonzero(p)
    np.testing.assert_array_equal(drawn, [*present, present[-1]])


@pytest.mark.parametrize("epochs", [1, 3, 7, 10, 30, 200])
@pytest.mark.parametrize("scheme", DRAWN)
def test_mixed_probabilities_leave_no_gap_below_one(scheme, epochs, monkeypatch):
    """The largest random number is of the last class with images, in every epoch."""
    counts = np.array([770, 170, 0, 60, 0])
    labels = shuffled_labels(counts)
    order = order_of(scheme, labels, 5, epochs=epochs)

    def largest(key, shape):
        return jnp.full(shape, LARGEST_UNIFORM)

    monkeypatch.setattr(jax.random, "uniform", largest)
    every = jnp.arange(400) % epochs
    drawn = jax.vmap(order, in_axes=(None, 0))(jax.random.key(0), every)
    assert set(labels[np.asarray(drawn).ravel()]) == {3}
    # All its images, not the last of the list alone, to which an index beyond it is clamped.
    assert set(np.unique(drawn)) == set(np.flatnonzero(labels == 3))


@pytest.mark.parametrize(
    "p",
    [
        [0.5, 0.5 - 1e-6, 0.0, 0.0],  # rounding left a gap
        [0.0, 1.0],
        [1.0, 0.0],
        [0.0, 0.25, 0.0, 0.75, 0.0],
        np.r_[0.0, np.full(9999, 1 / 9999), 0.0],
        np.r_[np.full(49, 1 / 49), np.zeros(3)],
    ],
    ids=["gap", "first", "last", "around", "many", "trailing"],
)
def test_cumulative_probabilities_end_at_one_and_are_flat_where_the_probability_is_zero(p):
    p = np.asarray(p)
    edges = cumulative(p)
    assert edges.dtype == np.float32
    last = np.flatnonzero(p)[-1]
    assert (edges[last:] == 1.0).all()
    steps = np.diff(np.r_[np.float32(0), edges])
    assert (steps >= 0).all()
    assert (steps[p == 0] == 0).all()
    assert (steps[p > 0] > 0).all()
    np.testing.assert_allclose(steps[:last], p[:last], atol=2**-23)


def test_members_are_sorted_by_class_and_begin_where_they_say():
    """Every index once, in its own class's stretch, in its old order; gaps have length 0."""
    members = members_of(LABELS, 9)
    assert [a.dtype for a in members] == [np.int32] * 3
    indices, starts, counts = map(np.asarray, members)
    np.testing.assert_array_equal(counts, [*COUNTS, 0, 0])
    for c in range(9):
        own = indices[starts[c] : starts[c] + counts[c]]
        np.testing.assert_array_equal(own, np.flatnonzero(c == LABELS))
