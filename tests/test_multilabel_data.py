"""Multi-label sets and feature vectors: files, validation cuts, long tails, notes."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats
from sklearn.preprocessing import StandardScaler

from lt_jax import data, longtail
from lt_jax.configuration import base_config, check_config
from lt_jax.data import StreamedImages, tfds_source
from lt_jax.data.tails import kept_examples
from lt_jax.errors import InputError

NAMES = np.array(["ant", "bee", "cat", "dog"])
SHARES = (0.6, 0.3, 0.1, 0.05)


def multi_hot(count=200, shares=SHARES, seed=0):
    """Labels whose classes occur together by chance; some examples have none."""
    return (np.random.default_rng(seed).random((count, len(shares))) < shares).astype(np.uint8)


def made_up(count=200, test=100, **changes):
    """Arrays of an npz file of feature vectors."""
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.normal(5, [1, 2, 3], (count, 3)).astype(np.float32),
        "y_train": multi_hot(count),
        "x_test": rng.normal(5, [1, 2, 3], (test, 3)).astype(np.float32),
        "y_test": multi_hot(test, seed=2),
        "label_names": NAMES,
    }
    return {k: v for k, v in {**arrays, **changes}.items() if v is not None}


@pytest.fixture
def npz(tmp_path):
    """Writes made-up arrays with changes and returns ``arrays:<file>``."""

    def write(**changes):
        np.savez(tmp_path / "set.npz", **made_up(**changes))
        return f"arrays:{tmp_path / 'set.npz'}"

    return write


# npz files


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_labels_of_zeros_and_ones_of_any_dtype_become_uint8(npz, dtype):
    source = data.load_source(npz(y_train=multi_hot().astype(dtype)))
    assert source.train_labels.dtype == source.test_labels.dtype == np.uint8
    np.testing.assert_array_equal(source.train_labels, multi_hot())
    assert (source.num_classes, source.class_names) == (4, tuple(NAMES))


@pytest.mark.parametrize("key", ["class_names", "label_names"])
def test_either_name_of_the_names_is_taken(npz, key):
    other = "class_names" if key == "label_names" else "label_names"
    assert data.load_source(npz(**{key: NAMES, other: None})).class_names == tuple(NAMES)
    assert data.load_source(npz(label_names=None)).class_names == ("0", "1", "2", "3")


def test_multi_label_images_stay_uint8(npz):
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8)).astype(np.uint8)
    got = data.load_dataset({"source": npz(x_train=images[:200], x_test=images[200:])})
    assert got.multi_label
    assert got.train_images.dtype == np.uint8
    assert got.train_images.shape == (200, 8, 8, 1)
    np.testing.assert_allclose(got.std, (got.train_images / 255).std((0, 1, 2)))


def labels_with(value, dtype=np.float64):
    labels = multi_hot().astype(dtype)
    labels[7, 2] = value
    return labels


def features_with(value, dtype=np.float32):
    features = np.ones((200, 3), dtype)
    features[5, 1] = value
    return features


BAD_ARRAYS = [
    ({"y_train": labels_with(2, np.int64)}, r"y_train of .* holds 2 in row 7 for class 2; expect"),
    ({"y_train": labels_with(-1, np.int8)}, r"y_train of .* holds -1 in row 7 for class 2; expec"),
    ({"y_train": labels_with(0.5)}, r"y_train of .* holds 0.5 in row 7 for class 2; expected 0 or"),
    ({"y_train": labels_with(np.nan)}, r"y_train of .* holds nan in row 7 for class 2; expected 0"),
    ({"y_test": multi_hot(100)[:, :3]}, r"set.npz has labels of 4 and 3 classes; expected as many"),
    ({"y_test": multi_hot(99)}, r"y_test of .* has 99 labels for 100 images"),
    ({"y_test": np.zeros(100, int)}, r"has labels \(200, 4\) and \(100,\); expected one label per"),
    ({"y_train": multi_hot()[:, :1]}, r"has shape \(200, 1\); expected one label per image, \[N"),
    ({"y_train": multi_hot().astype(str)}, r"y_train of .* is <U3; expected integer labels"),
    ({"label_names": NAMES[:3]}, r"names 3 classes, but num_classes is 4"),
    ({"label_names": np.arange(4)}, r"label_names of .* is not a vector of strings"),
    ({"y_train": 0 * multi_hot()}, r"no training example of .* has a label; expected some"),
    ({"x_train": features_with(np.nan)}, r"x_train of .* holds nan in row 5, column 1; expected"),
    ({"x_train": features_with(-np.inf)}, r"x_train of .* holds -inf in row 5, column 1; expect"),
    ({"x_train": features_with(1e39, np.float64)}, r"holds 1e\+39 in row 5, column 1; expected fi"),
    ({"x_train": np.ones((200, 0))}, r"x_train of .* \(200, 0\); expected at least one feature"),
    ({"x_train": np.ones((200, 3), int)}, r"x_train of .* is int64; expected uint8 pixels .* or f"),
    ({"x_test": np.ones((100, 2))}, r"train images are \(3,\), but test images are \(2,\)"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_ARRAYS)
def test_a_bad_npz_is_refused_in_a_sentence(npz, changes, sentence):
    with pytest.raises(InputError, match=sentence) as told:
        data.load_dataset({"source": npz(**changes)})
    assert "\n" not in str(told.value)


def test_a_number_of_classes_that_the_labels_have_not_is_refused(npz):
    assert data.load_source(npz(), num_classes=4).num_classes == 4
    with pytest.raises(InputError, match=r"num_classes is 5, but .* has labels of 4 classes"):
        data.load_source(npz(), num_classes=5)


# Features


@pytest.mark.parametrize("multi_label", [True, False])
def test_features_are_standardised_by_what_is_trained_on(npz, multi_label):
    arrays = made_up()
    labels = {} if multi_label else {"y_train": np.arange(200) % 4, "y_test": np.arange(100) % 4}
    arrays["x_train"][:, 1] = 7.0
    config = {"source": npz(x_train=arrays["x_train"], **labels), "validation_size": 50}
    got = data.load_dataset({**config, "imbalance": 3.0})
    assert got.multi_label == multi_label
    train, validation = (
        got.std * part + got.mean for part in (got.train_images, got.validation_images)
    )
    scaler = StandardScaler().fit(train)
    np.testing.assert_allclose(got.mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(got.std, scaler.scale_, rtol=1e-5)
    assert got.std[1] == 1.0
    np.testing.assert_allclose(got.test_images, scaler.transform(arrays["x_test"]), atol=1e-4)
    np.testing.assert_allclose(got.train_images.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(got.train_images.std(axis=0), [1, 0, 1], atol=1e-6)
    rows = {tuple(row) for row in arrays["x_train"].round(3).tolist()}
    assert {tuple(row) for row in validation.astype(np.float32).round(3).tolist()} <= rows
    assert got.train_images.dtype == got.test_images.dtype == np.float32
    assert got.mean.dtype == got.std.dtype == np.float64
    assert json.loads(json.dumps(got.info()))["pixel_std"][1] == 1.0


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_features_of_other_precisions_become_float32(npz, dtype):
    assert data.load_source(npz(x_train=np.ones((200, 3), dtype))).train_images.dtype == np.float32


def test_the_hash_of_test_features_does_not_depend_on_the_split(npz):
    config = {"source": npz(), "validation_size": 50}
    first, second = (data.load_dataset({**config, "split_seed": s}) for s in (0, 1))
    assert (first.test_images != second.test_images).any()  # other statistics
    assert first.test_hash == second.test_hash
    assert first.index_hash != second.index_hash


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


def test_validation_is_cut_before_the_long_tail_is_drawn(npz):
    config = {"source": npz(), "validation_size": 50, "split_seed": 2}
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
def test_the_tail_of_a_config_goes_by_how_frequent_classes_are(npz, options):
    """The second class is the most frequent here, and has the largest count."""
    shares = (0.2, 0.6, 0.1, 0.06)
    labels = multi_hot(400, shares)
    got = data.load_dataset(
        {"source": npz(count=400, y_train=labels), "validation_size": 80, **options}
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


def test_more_positives_than_there_are_are_refused(npz):
    source = npz()
    with pytest.raises(InputError, match=r"class \d has \d+ positives, but .* counts ask for \d+"):
        data.load_dataset({"source": source, "imbalance": 2.0, "max_count": 199})
    with pytest.raises(InputError, match=r"class 1 has \d+ positives, but .* counts ask for 150"):
        data.load_dataset({"source": source, "class_counts": (1, 150, 1, 1)})
    with pytest.raises(InputError, match=r"class_counts has 2 counts; expected one for each of th"):
        data.load_dataset({"source": source, "class_counts": (1, 1)})
    with pytest.raises(InputError, match=r"labels have shape \(2,\); expected 0 and 1 for each"):
        longtail.multi_label_indices([0, 1], [1, 1], 0)


# What is told of the labels


def test_classes_without_positives_or_negatives_are_named_and_trained_around(npz):
    train, test = multi_hot(), multi_hot(100, seed=2)
    train[:, 3], train[:, 0], test[:, 2] = 0, 1, 0
    got = data.load_dataset({"source": npz(y_train=train, y_test=test), "validation_size": 20})
    assert got.notes == (
        "classes without positives in train, which cannot be learned: 'dog'",
        "classes that every training example has, which cannot be learned: 'ant'",
        "classes without positives in test, which have no score there: 'cat'",
    )
    assert got.class_counts[3] == 0
    tail = data.load_dataset({"source": npz(y_train=train, y_test=test), "imbalance": 5.0})
    assert tail.class_counts[3] == 0
    assert tail.class_counts[2] > 0


def test_examples_without_labels_are_counted_and_can_be_dropped(npz):
    config = {"source": npz(), "validation_size": 50}
    got = data.load_dataset(config)
    without = int((~got.train_labels.any(axis=1)).sum())
    assert without > 10
    note = f"training examples without a label, negatives of every class: {without}"
    assert got.notes == (note,)
    info = got.info()
    assert (info["multi_label"], info["total_unlabelled"]) == (True, without)
    assert info["labels_per_image"] == got.train_labels.sum() / len(got.train_labels)
    assert info["validation"] == "stratified"
    assert info["class_names"] == list(got.class_names)
    assert info["test_class_counts"] == got.test_labels.sum(axis=0).tolist()
    dropped = data.load_dataset({**config, "drop_unlabelled": True})
    assert dropped.notes == ()
    assert dropped.info()["total_unlabelled"] == 0
    assert len(dropped.train_labels) == len(got.train_labels) - without
    np.testing.assert_array_equal(dropped.validation_labels, got.validation_labels)


def test_single_label_sets_say_so():
    info = data.load_dataset({"source": "digits"}).info()
    assert [info[k] for k in ("multi_label", "total_unlabelled", "labels_per_image")] == [
        False,
        0,
        1.0,
    ]


def test_long_lists_of_classes_are_cut_short():
    names = [f"c{i}" for i in range(30)]
    labels = np.zeros((5, 30), np.uint8)
    labels[:, :3] = np.eye(5, 3)
    (first, *_) = data.multilabel.label_notes(labels, np.ones((2, 30)), names)
    assert first.endswith(
        "'c3', 'c4', 'c5', 'c6', 'c7', 'c8', 'c9', 'c10', 'c11', 'c12' and 17 more"
    )


# Streamed images, and how images are normalised


def streamed(count, seed, loads):
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)

    def load(i):
        loads.append(i)
        return images[i]

    return StreamedImages(load, count, (4, 4, 3)), images


@pytest.fixture
def photographs(monkeypatch):
    """``tfds:photographs`` of 2,500 streamed images, what was asked of TFDS, and what was read."""
    loads, asked = [], {}
    (train, images), (test, _) = streamed(2500, 0, loads), streamed(30, 1, loads)

    def read(name, **options):
        asked.update(options, name=name)
        return (train, multi_hot(2500)), (test, multi_hot(30, seed=2)), list(NAMES), None

    monkeypatch.setattr(tfds_source, "read", read)
    return images, asked, loads


def test_streamed_images_stay_unread_but_a_thousand_for_the_statistics(photographs):
    images, asked, loads = photographs
    config = {"source": "tfds:photographs", "stream": True, "image_size": 4}
    got = data.load_dataset({**config, "validation_size": 100})
    assert (asked["name"], asked["reading"].stream) == ("photographs", True)
    assert asked["reading"].image_size == 4
    assert isinstance(got.train_images, StreamedImages)
    assert got.train_images.shape == (len(got.train_labels), 4, 4, 3)
    assert len(got.validation_images) == len(got.validation_labels)
    assert len(loads) == 1000
    train = data.validation_indices(multi_hot(2500), 100, 0, 4)[0]
    np.testing.assert_array_equal(got.train_images.read([5, 2]), images[train[[5, 2]]])
    spaced = train[np.linspace(0, len(train) - 1, 1000).round().astype(int)]
    assert sorted(loads[:1000]) == spaced.tolist()
    np.testing.assert_allclose(got.mean, (images[spaced] / 255).mean((0, 1, 2)), rtol=1e-9)
    assert json.loads(json.dumps(got.info()))["total_test"] == 30


def test_the_hash_of_streamed_images_is_of_their_labels_and_shape():
    def hashed(count, seed, labels):
        return data.statistics.array_hash(labels, streamed(count, seed, [])[0])

    labels = multi_hot(20)
    assert hashed(20, 0, labels) == hashed(20, 1, labels)
    assert hashed(20, 0, labels) != hashed(21, 0, labels)
    assert hashed(20, 0, labels) != hashed(20, 0, 1 - labels)


def test_images_for_pretrained_weights_are_normalised_as_those_of_imagenet(photographs):
    _, _, loads = photographs
    got = data.load_dataset({"source": "tfds:photographs", "normalization": "imagenet"})
    assert got.mean.tolist() == [0.485, 0.456, 0.406]
    assert got.std.tolist() == [0.229, 0.224, 0.225]
    assert loads == []  # nothing needs to be read


@pytest.mark.parametrize(
    ("source", "value", "sentence"),
    [
        ("digits", "imagenet", r"'imagenet', but digits has 1 channel; expected images of 3 chan"),
        ("", "imagenet", r"'imagenet', but .*set.npz has feature vectors; expected images of 3"),
        ("digits", "unit", r"data.normalization is 'unit'; expected 'data' or 'imagenet'"),
    ],
)
def test_another_normalisation_is_refused(npz, source, value, sentence):
    with pytest.raises(InputError, match=sentence):
        data.load_dataset({"source": source or npz(), "normalization": value})


# Configs


def test_a_config_may_give_some_fields_of_a_group():
    config = base_config("plm")
    config.data.canvas.images = 30
    check_config(config)
    given = ConfigDict({"source": "multi_digits", "canvas": {"images": 30}})
    assert data.load_dataset(given).train_images.shape == (30, 20, 20, 1)
    assert data.DEFAULTS["canvas"]["images"] == 2000  # nobody has changed it


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_the_index_hash_takes_both_kinds_of_labels(dtype):
    labels = np.array([1, 0, 1], dtype)
    assert data.index_hash([0, 2, 5], labels) == data.index_hash([0, 2, 5], labels.tolist())
    hot = np.eye(2, dtype=dtype)[labels]
    assert data.index_hash([0, 2, 5], hot) != data.index_hash([0, 2, 5], 1 - hot)
