"""Batches drawn by class: every class and image as often as its probability says."""

import jax
import numpy as np
import pytest
from drawing import BATCH, CASES, COUNTS, LABELS, epochs_of, expected, order_of, p_value
from scipy import stats

# By class


@pytest.mark.parametrize(("scheme", "epoch"), CASES)
def test_classes_are_drawn_as_often_as_their_probabilities_say(scheme, epoch):
    """400,000 draws against `sampling_probabilities`; and against no other scheme or epoch."""
    drawn = epochs_of(order_of(scheme), epoch)
    assert drawn.shape == (400, 20, BATCH)
    assert drawn.dtype == np.int32
    observed = np.bincount(LABELS[drawn.ravel()], minlength=7)
    assert p_value(observed, expected(scheme, epoch)) > 1e-3
    for other in [*CASES, ("instance", 0)]:
        same = {other, (scheme, epoch)} == {("instance", 0), ("progressive", 0)}
        if other != (scheme, epoch) and not same:
            assert p_value(observed, expected(*other)) < 1e-9


@pytest.mark.parametrize(("scheme", "epoch"), CASES)
def test_images_of_a_class_are_drawn_equally_often(scheme, epoch):
    """Within each class, and all 1000 images at once: no image is left out or taken twice."""
    drawn = epochs_of(order_of(scheme), epoch, seed=1)
    observed = np.bincount(drawn.ravel(), minlength=len(LABELS))
    for c in np.flatnonzero(COUNTS):
        assert p_value(observed[c == LABELS], np.full(COUNTS[c], 1 / COUNTS[c])) > 1e-3
    per_class = expected(scheme, epoch) / np.maximum(COUNTS, 1)
    assert p_value(observed, per_class[LABELS]) > 1e-3


def test_draws_do_not_depend_on_each_other():
    """Places of a batch have the same distribution, and neighbours are independent."""
    drawn = epochs_of(order_of("class"), 0, seed=2)
    classes = LABELS[drawn]
    p = expected("class", 0)
    for part in (classes[:, 0], classes[:, -1], classes[:, :, 0], classes[:, :, -1]):
        assert p_value(np.bincount(part.ravel(), minlength=7), p) > 1e-3
    for first, second in (
        (classes[:, :, 0::2], classes[:, :, 1::2]),  # neighbours in a batch
        (classes[:, :, :25], classes[:, :, 25:]),  # halves of a batch
        (classes[:, 0::2], classes[:, 1::2]),  # batches
        (classes[0::2], classes[1::2]),  # keys
    ):
        pairs = np.bincount((7 * first + second).ravel(), minlength=49)
        assert p_value(pairs, np.outer(p, p).ravel()) > 1e-3
    # The image of a class is independent of the class drawn before it.
    table = np.zeros((7, len(LABELS)))
    np.add.at(table, (classes[:, :, :-1].ravel(), drawn[:, :, 1:].ravel()), 1)
    assert stats.chi2_contingency(table[COUNTS > 0][:, LABELS == 5]).pvalue > 1e-3


def test_an_epoch_under_class_sampling_is_with_replacement():
    """As many draws as images, of which some are left out and some come often."""
    drawn = epochs_of(order_of("class"), 0)[0].ravel()
    assert drawn.size == len(LABELS)
    assert len(set(drawn.tolist())) < 0.6 * len(LABELS)


# Instance


@pytest.mark.parametrize(("count", "batch"), [(103, 10), (100, 10), (10, 10), (11, 6), (5, 1)])
def test_instance_takes_no_image_twice(count, batch):
    """A permutation, less the incomplete last batch; another one for each epoch and key."""
    order = order_of("instance", np.zeros(count, int), 1, batch)
    seen = [np.asarray(order(jax.random.key(k), e)) for k, e in ((0, 0), (0, 1), (1, 0))]
    for one in seen:
        assert one.shape == (count // batch, batch)
        assert one.dtype == np.int32
        assert len(set(one.ravel().tolist())) == one.size
        assert one.min() >= 0
        assert one.max() < count
    if count > 5:
        assert len({one.tobytes() for one in seen}) == 3


def test_instance_treats_every_image_alike():
    """What is left out of an epoch, and what comes first in it, is any image equally likely."""
    order = order_of("instance", np.zeros(103, int), 1, 10)
    drawn = epochs_of(order, 2, seeds=20_000)
    taken = np.bincount(drawn.ravel(), minlength=103)
    left_out = len(drawn) - taken
    assert left_out.sum() == 3 * len(drawn)
    assert p_value(left_out, np.full(103, 1 / 103)) > 1e-3
    for step in (0, -1):
        first = np.bincount(drawn[:, step, 0], minlength=103)
        assert p_value(first, np.full(103, 1 / 103)) > 1e-3


# Progressive


@pytest.mark.parametrize("epochs", [1, 3, 10, 200])
def test_progressive_goes_from_instance_towards_class_sampling(epochs):
    """p(t) = (1 - t/T) p_instance + t/T p_class, t = 0 ... T - 1: written out, not looked up."""
    order = order_of("progressive", epochs=epochs)
    instance = COUNTS / COUNTS.sum()
    balanced = (COUNTS > 0) / (COUNTS > 0).sum()
    rarest, last = [], epochs - 1
    for epoch in sorted({0, epochs // 2, last}):
        share = epoch / epochs
        observed = np.bincount(LABELS[epochs_of(order, epoch, seed=3).ravel()], minlength=7)
        assert p_value(observed, (1 - share) * instance + share * balanced) > 1e-3
        rarest.append(observed[-1] / observed.sum())
    assert rarest == sorted(rarest)
    assert rarest[0] == pytest.approx(0.01, rel=0.1)
    if epochs == 200:  # nearly balanced: 0.995 of the way
        assert rarest[-1] == pytest.approx(1 / 6, rel=0.02)
