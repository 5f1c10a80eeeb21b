"""Batches drawn by class: frequencies, permutations, devices, classes without images, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lt_jax import sharding
from lt_jax.data import draw, make_order, members_of
from lt_jax.data.sampling import cumulative
from lt_jax.errors import InputError
from lt_jax.longtail import SCHEMES, long_tailed_counts, sampling_probabilities

COUNTS = np.array([450, 0, 300, 140, 70, 30, 10])  # 1000 images; the second class has none
LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(7), COUNTS))
# Far from the defaults, so that an option that is not handed on shows.
OPTIONS = {"beta": 0.98, "beta_spread": 0.0195}
BATCH, EPOCHS = 50, 10
DRAWN = [scheme for scheme in SCHEMES if scheme != "instance"]
LARGEST_UNIFORM = np.float32(1 - 2**-23)
EXTREME = np.array([1_000_000, 1000, 100, *[1] * 3996, 0, 1])
# Gaps at the beginning, in the middle and at the end.
GAPS = {"first": [0, 0, 770, 170, 60], "middle": [770, 0, 0, 170, 60], "last": [770, 170, 60, 0, 0]}


def order_of(scheme, labels=LABELS, num_classes=7, batch=BATCH, epochs=EPOCHS, **options):
    return make_order({"scheme": scheme, **OPTIONS, **options}, labels, num_classes, batch, epochs)


def expected(scheme, epoch, counts=COUNTS, epochs=EPOCHS):
    """Probabilities that `longtail.sampling_probabilities` gives for an epoch."""
    options = {}
    if scheme == "progressive":
        options["progress"] = epoch / epochs
    if "effective_number" in scheme:
        options["beta"] = OPTIONS["beta"]
    if scheme == "class_based_effective_number":
        options["beta_spread"] = OPTIONS["beta_spread"]
    return sampling_probabilities(counts, scheme, **options)


def epochs_of(order, epoch, seeds=400, seed=0):
    """Batches ``[seeds, steps, B]`` of one epoch under many keys.

    Not compiled as a whole: its parts are, once for all orders of one shape.
    """
    keys = jax.random.split(jax.random.key(seed), seeds)
    return np.asarray(jax.vmap(order, in_axes=(0, None))(keys, epoch))


def p_value(observed, probabilities):
    """Of the chi-square test; what has probability 0 must not occur at all."""
    observed, probabilities = np.asarray(observed), np.asarray(probabilities)
    assert observed[probabilities == 0].sum() == 0
    kept = probabilities > 0
    return stats.chisquare(observed[kept], probabilities[kept] * observed.sum()).pvalue


def shuffled_labels(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


# Frequencies

CASES = [(s, 3) for s in DRAWN if s != "progressive"] + [("progressive", e) for e in (0, 3, 5, 9)]


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


# The same everywhere


def test_orders_are_the_same_on_one_and_eight_devices_and_side_by_side():
    """Compiled as `lt_jax.replicas` does it, against one by one without compilation."""
    assert len(jax.devices()) == 8
    orders = {scheme: order_of(scheme) for scheme in SCHEMES}
    keys = jax.random.split(jax.random.key(4), 3)

    def all_schemes(key, epoch):
        return {scheme: order(key, epoch) for scheme, order in orders.items()}

    for devices in (1, 8):
        everywhere = sharding.replicated(sharding.make_mesh(devices))
        compiled = jax.jit(jax.vmap(all_schemes, in_axes=(0, None)), out_shardings=everywhere)
        for epoch in (0, 7):
            together = compiled(jax.device_put(keys, everywhere), epoch)
            for scheme, order in orders.items():
                assert len(together[scheme].sharding.device_set) == devices
                assert together[scheme].is_fully_replicated
                for r, key in enumerate(keys):
                    np.testing.assert_array_equal(together[scheme][r], order(key, epoch))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_epoch_is_a_function_of_its_number_and_the_key(scheme):
    """A resumed run makes its functions anew and begins at a later epoch: same images."""
    key, order = jax.random.key(6), order_of(scheme)
    through = [np.asarray(order(key, e)) for e in range(4)]
    resumed = order_of(scheme)
    np.testing.assert_array_equal(resumed(key, 3), through[3])
    np.testing.assert_array_equal(resumed(key, jnp.int32(2)), through[2])
    np.testing.assert_array_equal(resumed(key, np.int64(1)), through[1])
    np.testing.assert_array_equal(order(key, 0), through[0])
    assert len({one.tobytes() for one in through}) == 4
    assert np.asarray(order(jax.random.key(7), 0)).tobytes() != through[0].tobytes()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_of_any_integer_type_give_the_same_order(scheme):
    key = jax.random.key(0)
    want = np.asarray(order_of(scheme)(key, 1))
    for labels in (LABELS.astype(np.uint8), LABELS.astype(np.int32), LABELS.tolist()):
        np.testing.assert_array_equal(order_of(scheme, labels)(key, 1), want)


# Classes without images


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


# Several labels an image

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


# Extremes


@functools.cache
def extreme_draws(scheme):
    """An epoch at `EXTREME` under the default options, on the way to its end."""
    labels = np.repeat(np.arange(len(EXTREME)), EXTREME)
    order = order_of(scheme, labels, len(EXTREME), 256, beta=0.9999, beta_spread=1e-5)
    drawn = np.asarray(order(jax.random.key(0), EPOCHS - 1)).ravel()
    assert drawn.size == len(labels) // 256 * 256
    assert drawn.min() >= 0
    assert drawn.max() < len(labels)
    return drawn, np.bincount(labels[drawn], minlength=len(EXTREME))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_extreme_imbalance_stays_inside_the_data(scheme):
    """A million images to one, 4000 classes: no index is outside, no rare class is starved."""
    drawn, observed = extreme_draws(scheme)
    if scheme == "instance":
        assert len(np.unique(drawn)) == drawn.size
        assert (observed <= EXTREME).all()
        return
    options = {"progress": 0.9} if scheme == "progressive" else {}
    assert p_value(observed, sampling_probabilities(EXTREME, scheme, **options)) > 1e-3


def test_the_rarest_classes_are_drawn_as_often_as_the_others_under_class_sampling():
    """A million to one: 250 draws for each of 4000 classes, up to chance alone."""
    drawn, observed = extreme_draws("class")
    assert p_value(observed, (EXTREME > 0) / 4000) > 1e-3
    each = drawn.size / 4000
    rare = observed[EXTREME == 1]
    assert rare.mean() == pytest.approx(each, rel=0.01)
    assert rare.min() > 0.6 * each
    assert observed[0] == pytest.approx(each, rel=0.25)
    # The million images of the first class are spread over, not its beginning.
    assert stats.kstest(drawn[drawn < 1_000_000] / 1e6, "uniform").pvalue > 1e-3


def test_one_class_of_one_image():
    """The smallest case; and the other classes are empty."""
    for scheme in SCHEMES:
        for label, classes in ((0, 1), (1, 3)):
            order = order_of(scheme, [label], classes, 1)
            assert np.asarray(order(jax.random.key(0), 9)).tolist() == [[0]]


# Class-based effective numbers


def class_based(counts, beta=0.9999, spread=1e-5):
    """Written from the paper: n / E(n), with beta larger by the relative rarity."""
    counts = np.asarray(counts, np.float64)
    present = counts > 0
    rarity = np.log(counts.max() / np.where(present, counts, counts.max()))
    betas = beta + spread * rarity / rarity.max()
    effective = np.where(present, (1 - betas**counts) / (1 - betas), 1.0)
    return (counts / effective) / (counts / effective).sum()


def test_class_based_effective_number_is_nearly_class_sampling_on_cifar():
    """Few images are all effective: within 2.5 % on CIFAR-100-LT, 21 % on CIFAR-10-LT."""
    for classes, most, tolerance in ((100, 500, 0.025), (10, 5000, 0.21)):
        for imbalance in (10, 50, 100, 200):
            counts = long_tailed_counts(most, classes, imbalance)
            p = sampling_probabilities(counts, "class_based_effective_number")
            np.testing.assert_allclose(p, class_based(counts), rtol=1e-9)
            np.testing.assert_allclose(p * classes, 1.0, atol=tolerance)
            assert abs(p * classes - 1).max() > tolerance / 5  # nearly, not exactly


def test_class_based_effective_number_differs_from_class_sampling_at_large_counts():
    """A class of a million images is worth 100 small ones, and is drawn 100 times as often."""
    p = class_based(EXTREME)
    assert p[0] / p[-1] == pytest.approx(100, rel=0.01)
    np.testing.assert_allclose(
        sampling_probabilities(EXTREME, "class_based_effective_number"), p, rtol=1e-9
    )
    _, observed = extreme_draws("class_based_effective_number")
    assert p_value(observed, p) > 1e-3
    assert p_value(observed, (EXTREME > 0) / 4000) < 1e-9
    assert observed[0] == pytest.approx(100 * observed[EXTREME == 1].mean(), rel=0.05)
    assert p_value(extreme_draws("class")[1], p) < 1e-9


# Bad input


@pytest.mark.parametrize("scheme", ["fair", "", "Class", "sqrt", None])
def test_an_unknown_scheme_is_named_with_those_there_are(scheme):
    sentence = rf"sampling\.scheme is {scheme!r}; expected one of instance, class, square_root"
    with pytest.raises(InputError, match=sentence):
        order_of(scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("batch", [1001, 0, -1])
def test_a_batch_that_the_data_cannot_fill_is_refused(scheme, batch):
    """At once, in every scheme, also in those that could draw more images than there are."""
    with pytest.raises(InputError, match=rf"batch size is {batch}; expected 1 to 1000"):
        order_of(scheme, batch=batch)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_images_at_all_are_refused(scheme):
    with pytest.raises(InputError, match=r"batch size is 1; expected 1 to 0"):
        order_of(scheme, np.zeros(0, int), 3, 1)


@pytest.mark.parametrize("scheme", ["effective_number", "class_based_effective_number"])
@pytest.mark.parametrize("beta", [1.0, -0.1, 1.5, np.nan, np.inf, "0.9"])
def test_a_beta_outside_its_range_is_named(scheme, beta):
    with pytest.raises(InputError, match=rf"beta is {beta!r}; expected a number in \[0, 1\)"):
        order_of(scheme, beta=beta)


def test_a_spread_that_takes_beta_out_of_its_range_is_named():
    """With beta_spread, too, beta must stay below 1 for every class."""
    with pytest.raises(
        InputError, match=r"beta_spread is 0.001; expected 0 or more, and less than 1"
    ):
        order_of("class_based_effective_number", beta=0.9999, beta_spread=1e-3)
    order_of("class_based_effective_number", beta=0.9999, beta_spread=9.9e-5)
