"""Images of several labels are drawn by their classes."""

import jax
import numpy as np
import pytest
from drawing import BATCH, CASES, DRAWN, LABELS, epochs_of, expected, order_of, p_value

from lt_jax import sharding
from lt_jax.data import members_of
from lt_jax.errors import InputError
from lt_jax.longtail import SCHEMES

# Of the last class there is one image, which has all others too; the fourth has none at all.
HOT = np.random.default_rng(8).random((300, 7)) < (0.5, 0.3, 0.12, 0.0, 0.06, 0.2, 0.0)
HOT[17] = [True, True, True, False, True, True, True]
HOT = HOT.astype(np.uint8)
HOT_COUNTS = HOT.sum(axis=0, dtype=np.int64)


def image_probabilities(p):
    """Each class's probability, shared evenly among the images that have it."""
    return HOT @ (p / np.maximum(HOT_COUNTS, 1))


@pytest.mark.parametrize(("scheme", "epoch"), CASES)
def test_multi_label_images_are_drawn_by_their_classes(scheme, epoch):
    """Every image as often as the classes it has say together; without labels never."""
    assert (~HOT.any(axis=1)).sum() > 20
    drawn = epochs_of(order_of(scheme, HOT), epoch, seed=9)
    assert drawn.shape == (400, 6, BATCH)
    observed = np.bincount(drawn.ravel(), minlength=len(HOT))
    p = image_probabilities(expected(scheme, epoch, HOT_COUNTS))
    assert p.sum() == pytest.approx(1)
    assert p_value(observed, p) > 1e-3
    assert p_value(observed, HOT.any(axis=1) / HOT.any(axis=1).sum()) < 1e-9


def test_multi_label_instance_sampling_takes_every_image_once():
    """Also those without a label, and in the same order as single-label ones."""
    key = jax.random.key(3)
    order = order_of("instance", HOT)
    drawn = np.asarray(order(key, 2)).ravel()
    assert sorted(drawn.tolist()) == list(range(300))
    np.testing.assert_array_equal(order(key, 2), order_of("instance", LABELS[:300])(key, 2))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_label_each_is_drawn_as_in_single_label_sets(scheme):
    """Multi-hot rows of one label give the same images, draw by draw."""
    hot = np.eye(7, dtype=np.uint8)[LABELS]
    np.testing.assert_array_equal(
        order_of(scheme, hot)(jax.random.key(1), 4), order_of(scheme)(jax.random.key(1), 4)
    )


@pytest.mark.parametrize("kind", ["integers", "multi-hot"])
def test_members_are_those_that_take_part(kind):
    """And of integers the shapes are the same whichever do, so that replicas can be stacked."""
    where = np.random.default_rng(1).random(len(LABELS)) < 0.4
    multi_hot = np.eye(7, dtype=np.uint8)[LABELS] | np.eye(7, dtype=np.uint8)[(LABELS + 3) % 7]
    labels = LABELS if kind == "integers" else multi_hot
    members = members_of(labels, 7, where)
    for c in range(7):
        has = labels == c if kind == "integers" else labels[:, c] > 0
        begin = int(members.starts[c])
        own = members.indices[begin : begin + int(members.counts[c])]
        np.testing.assert_array_equal(own, np.flatnonzero(has & where))
    if kind == "integers":
        assert members.indices.shape == LABELS.shape


def test_members_of_multi_label_images_are_all_that_have_the_class():
    indices, starts, counts = map(np.asarray, members_of(HOT, 7))
    np.testing.assert_array_equal(counts, HOT_COUNTS)
    assert len(indices) == HOT.sum()
    for c in range(7):
        own = indices[starts[c] : starts[c] + counts[c]]
        np.testing.assert_array_equal(own, np.flatnonzero(HOT[:, c]))


def test_multi_label_orders_are_the_same_on_one_and_eight_devices():
    orders = {scheme: order_of(scheme, HOT) for scheme in DRAWN}
    key, found = jax.random.key(4), []
    for devices in (1, 8):
        everywhere = sharding.replicated(sharding.make_mesh(devices))
        compiled = jax.jit(
            lambda key, epoch: {scheme: order(key, epoch) for scheme, order in orders.items()},
            out_shardings=everywhere,
        )
        found.append(jax.tree.map(np.asarray, compiled(jax.device_put(key, everywhere), 7)))
    for scheme, order in orders.items():
        np.testing.assert_array_equal(found[0][scheme], found[1][scheme])
        np.testing.assert_array_equal(found[0][scheme], order(key, 7))


def test_no_labels_at_all_cannot_be_drawn_by_class():
    with pytest.raises(InputError, match=r"class_counts are all 0; expected at least one class"):
        order_of("class", np.zeros((60, 7), np.uint8))
