"""Validation cuts and long tails of multi-label sets: shares, targets, seeds, what is too much."""

import numpy as np
import pytest
from made_up import multi_hot
from scipy import stats

from lt_jax import data, longtail
from lt_jax.data.tails import kept_examples
from lt_jax.errors import InputError

# Validation


@pytest.mark.parametrize("size", [0, 1, 10, 100, 199])
def test_the_validation_cut_is_disjoint_complete_and_by_seed(size):
    labels = multi_hot()
    train, validation = data.validation_indices(labels, size, seed=3, num_classes=4)
    assert sorted([*train, *validation]) == list(range(200))
    again = data.validation_indices(labels, size, seed=3, num_classes=4)[1]
    np.testing.assert_array_equal(validation, again)
    assert abs(len(validation) - size) <= max(4, 0.05 * size)
    if 10 <= size <= 100:
        other = data.validation_indices(labels, size, seed=4, num_classes=4)[1]
        assert validation.tolist() != other.tolist()


@pytest.mark.parametrize("size", [-1, 200, 1.5])
def test_an_impossible_validation_size_is_refused(size):
    with pytest.raises(InputError, match=rf"validation_size is {size}; expected a whole .* 200"):
        data.validation_indices(multi_hot(), size, seed=0, num_classes=4)


def test_validation_has_the_share_of_every_class_much_closer_than_by_chance():
    shares = 0.5 * 100.0 ** (-np.arange(20) / 19)
    labels = multi_hot(1500, shares, seed=5)
    stratified, random, sizes = [], [], []
    for seed in range(10):
        chosen = data.validation_indices(labels, 300, seed, 20)[1]
        by_chance = np.random.default_rng(seed).permutation(1500)[:300]
        sizes.append(len(chosen))
        for which, deviations in ((chosen, stratified), (by_chance, random)):
            deviations.append(abs(labels[which].sum(axis=0) - labels.sum(axis=0) / 5))
    rare = labels.sum(axis=0) < 50
    assert np.mean(stratified) < 0.3 * np.mean(random)
    assert np.max(np.array(stratified)[:, rare]) <= 3
    assert np.mean(np.array(stratified)[:, rare]) < 1
    assert max(abs(np.array(sizes) - 300)) <= 15


def test_a_class_of_two_has_one_in_validation_and_one_without_labels_fills_up():
    labels = np.zeros((100, 3), np.uint8)
    labels[:40, 0], labels[[3, 60], 1], labels[50, 2] = 1, 1, 1
    validation = data.validation_indices(labels, 20, 0, 3)[1]
    assert labels[validation].sum(axis=0).tolist() == [8, 1, 0]
    assert len(validation) == 20
    assert (~labels[validation].any(axis=1)).sum() in (11, 12)


def test_validation_is_cut_before_the_long_tail_is_drawn(hot_npz):
    config = {"source": hot_npz(), "validation_size": 50, "split_seed": 2}
    whole = data.load_dataset(config)
    tail = data.load_dataset({**config, "imbalance": 5.0})
    np.testing.assert_array_equal(whole.validation_labels, tail.validation_labels)
    assert len(whole.train_labels) + len(whole.validation_labels) == 200
    assert whole.kind == "unchanged"
    assert len(tail.train_labels) < len(whole.train_labels)


# Long tails


@pytest.mark.parametrize(("classes", "most", "last"), [(80, 1200, 6), (20, 800, 4), (7, 50, 1)])
def test_pareto_counts_are_those_of_coco_mlt_and_voc_mlt(classes, most, last):
    """Against SciPy's density; the published sets have 6 and 4 images of the rarest class."""
    got = longtail.long_tailed_counts(most, classes, 0, "pareto")
    pareto = stats.pareto(6)
    points = np.linspace(pareto.ppf(0), pareto.ppf(0.99), classes)
    want = 1 + (most - 1) * pareto.pdf(points) / pareto.pdf(1.0)
    np.testing.assert_array_equal(got, np.floor(want + 1e-9))
    assert (got[0], got[-1]) == (most, last)


@pytest.mark.parametrize("power", [0.5, 2.0, 6.0, 20.0])
def test_a_pareto_tail_has_the_imbalance_asked_for(power):
    profile = longtail.long_tailed_profile(30, 40.0, "pareto", power)
    assert profile[0] == 1
    assert profile[-1] == pytest.approx(1 / 40)
    assert (np.diff(profile) < 0).all()
    counts = longtail.long_tailed_counts(400, 30, 40.0, "pareto", power)
    assert (counts[0], counts[-1]) == (400, 10)


@pytest.mark.parametrize("power", [0, -1.0, np.nan, np.inf, "6"])
def test_a_pareto_power_outside_its_range_is_named(power):
    with pytest.raises(InputError, match=r"pareto_power is .*; expected a number above 0"):
        longtail.long_tailed_counts(10, 3, 5, "pareto", power)


def test_single_label_sets_can_have_a_pareto_tail():
    got = data.load_dataset({"source": "digits", "imbalance_kind": "pareto", "max_count": 120})
    assert got.class_counts.tolist() == longtail.long_tailed_counts(120, 10, 0, "pareto").tolist()
    assert (got.kind, got.imbalance, got.multi_label) == ("pareto", 0.0, False)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_subset_of_one_label_each_is_the_single_label_one(seed):
    labels = np.random.default_rng(0).integers(0, 5, 300)
    counts = [40, 20, 10, 0, 3]
    np.testing.assert_array_equal(
        longtail.multi_label_indices(np.eye(5, dtype=int)[labels], counts, seed),
        longtail.long_tailed_indices(labels, counts, seed),
    )


def test_examples_with_labels_that_are_full_are_avoided():
    labels = np.array([[1, 0]] * 10 + [[1, 1]] * 10 + [[0, 1]] * 10 + [[0, 0]] * 5)
    for seed in range(5):
        kept = longtail.multi_label_indices(labels, [8, 3], seed)
        assert labels[kept].sum(axis=0).tolist() == [8, 3]
    # With [8, 0] no example of the second class need stay; with none but such, it must.
    assert labels[longtail.multi_label_indices(labels, [8, 0], 0)].sum(axis=0).tolist() == [8, 0]
    only_both = labels[10:30]
    kept = longtail.multi_label_indices(only_both, [8, 0], 0)
    assert only_both[kept].sum(axis=0).tolist() == [8, 8]


@pytest.mark.parametrize(
    ("kind", "most", "in_all", "of_one"),
    [("exponential", 1000, 1.01, 1.05), ("pareto", 1000, 1.01, 1.05), ("step", 200, 1.08, 1.35)],
)
def test_subsets_reach_their_targets_and_exceed_them_little(kind, most, in_all, of_one):
    """40 classes that occur together by chance, three in an image. Never fewer than asked for.

    A step asks for equally many of classes of which some come with nearly every image.
    """
    labels = multi_hot(20_000, 0.4 * 200.0 ** (-np.arange(40) / 39), seed=3)
    wanted = longtail.long_tailed_counts(most, 40, 60.0, kind)
    kept = longtail.multi_label_indices(labels, wanted, seed=0)
    counts = labels[kept].sum(axis=0)
    assert (counts >= wanted).all()
    assert counts.sum() <= in_all * wanted.sum()
    assert (counts <= of_one * wanted).all()
    assert labels[kept].any(axis=1).all()
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(kept, longtail.multi_label_indices(labels, wanted, seed=0))
    assert kept.tolist() != longtail.multi_label_indices(labels, wanted, seed=1).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"imbalance": 12.0},
        {"imbalance": 12.0, "max_count": 30},
        {"imbalance": 4.0, "imbalance_kind": "step", "max_count": 12},
        {"imbalance_kind": "pareto", "max_count": 40},
        {"imbalance_kind": "pareto", "pareto_power": 2.0, "max_count": 40},
        {"class_counts": (3, 20, 5, 1)},
    ],
)
def test_the_tail_of_a_config_goes_by_how_frequent_classes_are(hot_npz, options):
    """The second class is the most frequent here, and has the largest count."""
    shares = (0.2, 0.6, 0.1, 0.06)
    labels = multi_hot(400, shares)
    got = data.load_dataset(
        {"source": hot_npz(count=400, y_train=labels), "validation_size": 80, **options}
    )
    wanted = np.array(options.get("class_counts") or (0,) * 4)
    if "class_counts" not in options:
        available = labels.sum(axis=0) - got.validation_labels.sum(axis=0)
        most = options.get("max_count", 0) or got.class_counts[1]
        tail = longtail.long_tailed_counts(
            most,
            4,
            options.get("imbalance", 0),
            options.get("imbalance_kind", "exponential"),
            options.get("pareto_power", 6.0),
        )
        wanted[[1, 0, 2, 3]] = tail
        assert (wanted <= available).all()
        kind = options.get("imbalance_kind", "exponential")
        assert (got.kind, got.imbalance) == (kind, options.get("imbalance", 0.0))
    assert (got.class_counts >= wanted).all()
    assert (got.class_counts <= 1.3 * wanted + 6).all()
    np.testing.assert_array_equal(got.class_counts, got.train_labels.sum(axis=0))
    assert got.train_labels.any(axis=1).all()


def test_without_a_largest_count_the_tail_is_as_large_as_the_classes_allow():
    """One more of the most frequent class would ask some class for more than there are."""
    labels = np.repeat(np.eye(3, dtype=np.uint8), (50, 30, 20), axis=0)
    kept, _ = kept_examples(labels, 3, {**data.DEFAULTS, "imbalance": 2.0})
    counts = labels[kept].sum(axis=0)
    np.testing.assert_array_equal(counts, longtail.long_tailed_counts(counts[0], 3, 2.0))
    larger = longtail.long_tailed_counts(counts[0] + 1, 3, 2.0)
    assert counts[0] == 50 or (larger > [50, 30, 20]).any()


def test_more_positives_than_there_are_are_refused(hot_npz):
    source = hot_npz()
    with pytest.raises(InputError, match=r"class \d has \d+ positives, but .* counts ask for \d+"):
        data.load_dataset({"source": source, "imbalance": 2.0, "max_count": 199})
    with pytest.raises(InputError, match=r"class 1 has \d+ positives, but .* counts ask for 150"):
        data.load_dataset({"source": source, "class_counts": (1, 150, 1, 1)})
    with pytest.raises(InputError, match=r"class_counts has 2 counts; expected one for each of th"):
        data.load_dataset({"source": source, "class_counts": (1, 1)})
    with pytest.raises(InputError, match=r"labels have shape \(2,\); expected 0 and 1 for each"):
        longtail.multi_label_indices([0, 1], [1, 1], 0)
