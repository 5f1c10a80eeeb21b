"""The assembled data set: validation splits, long tails, what it says of itself, batch orders."""

import json
import re

import jax
import ml_collections
import numpy as np
import pytest
from made_up import MIXED, one_label

from lt_jax import data
from lt_jax.errors import InputError

# validation splits


@pytest.mark.parametrize(
    ("counts", "size", "want"),
    [
        ([50, 50], 0, [0, 0]),
        ([50, 50], 20, [10, 10]),
        ([50, 50], 21, [10, 10]),
        ([50, 20], 20, [10, 10]),  # every class keeps as many as it gives
        ([50, 19], 20, [14, 6]),
        ([96, 2, 1, 1], 10, [10, 1, 0, 0]),
        ([5, 5, 5], 2, [1, 1, 1]),  # fewer than classes: one of each
        ([10, 0], 4, [4, 0]),
        ([3, 2], 4, [2, 1]),  # the last image of a class stays
    ],
)
def test_validation_counts_are_as_documented(counts, size, want):
    assert data.validation_counts(counts, size).tolist() == want


@pytest.mark.parametrize("size", [0, 7, 20, 60, 99])
def test_validation_split_is_disjoint_complete_and_deterministic(size):
    labels = np.random.default_rng(1).permutation(MIXED)
    train, validation = data.validation_indices(labels, size, seed=3, num_classes=3)
    assert sorted([*train, *validation]) == list(range(100))
    want = data.validation_counts(np.bincount(labels), size)
    np.testing.assert_array_equal(np.bincount(labels[validation], minlength=3), want)
    again = data.validation_indices(labels, size, seed=3, num_classes=3)[1]
    np.testing.assert_array_equal(validation, again)
    if size:
        other = data.validation_indices(labels, size, seed=4, num_classes=3)[1]
        assert validation.tolist() != other.tolist()


@pytest.mark.parametrize("size", [-1, 100, 1.5, float("nan")])
def test_an_impossible_validation_size_is_refused(size):
    with pytest.raises(InputError, match=rf"validation_size is {size}; expected a whole number"):
        data.validation_indices(MIXED, size, seed=0, num_classes=3)


@pytest.mark.parametrize(
    ("counts", "size", "sentence"),
    [
        ([*range(60, 0, -1)] * 5, 30, "295 .* not 30: each class gives its share, rounded, at le"),
        ([50, 50], 21, None),
        ([50, 50], 3, "2 images of .* are cut from train to select on, not 3: each class gives as"),
        ([9, 1, 1, 1], 8, "6 images of .*, not 8: each class gives its share, .* never its last"),
        ([50, 50], 0, None),
    ],
)
def test_a_validation_split_of_another_size_is_told(npz, counts, size, sentence):
    arrays = one_label(counts=counts, test=1, shape=(1, 2, 1))
    got = data.load_dataset({"source": npz(**arrays), "validation_size": size})
    told = [note for note in got.notes if "to select on" in note]
    assert len(told) == (sentence is not None)
    if sentence:
        assert re.search(sentence, told[0])


# the data set


def test_a_long_tail_is_drawn_after_the_validation_cut():
    config = ml_collections.ConfigDict(
        {**data.DEFAULTS, "imbalance": 10.0, "validation_size": 200, "split_seed": 2}
    )
    tail, source = data.load_dataset(config), data.load_source("digits")
    assert np.bincount(tail.train_labels).tolist() == tail.class_counts.tolist()
    assert tail.class_counts[0] == (source.train_labels == 0).sum() - 20
    assert tail.class_counts[-1] == tail.class_counts[0] // 10
    assert np.bincount(tail.validation_labels).tolist() == [20] * 10
    whole = data.load_dataset({**config, "imbalance": 0})
    np.testing.assert_array_equal(whole.validation_images, tail.validation_images)
    assert len(whole.train_labels) + 200 == len(source.train_labels)
    kept = {im.tobytes() for im in tail.train_images}
    assert kept <= {im.tobytes() for im in whole.train_images}
    assert not kept & {im.tobytes() for im in tail.validation_images}


def test_info_says_what_was_kept_and_is_json():
    config = {"source": "digits", "imbalance": 10, "max_count": 50, "validation_size": 100}
    info = data.load_dataset(config).info()
    assert json.loads(json.dumps(info)) == info
    assert info["class_counts"] == [50, 38, 29, 23, 17, 13, 10, 8, 6, 5]
    assert (info["imbalance"], info["kind"], info["split_seed"]) == (10, "exponential", 0)
    totals = [info[f"total_{split}"] for split in ("train", "validation", "test")]
    assert totals == [199, 100, 500]
    assert (info["validation"], info["test_class_counts"]) == ("balanced", [50] * 10)
    assert info["index_hash"] == data.load_dataset(config).index_hash
    assert info["index_hash"] != data.load_dataset({**config, "split_seed": 1}).index_hash


@pytest.mark.parametrize(
    ("options", "index_hash"),
    [
        ({"imbalance": 50.0, "validation_size": 150}, "f7ea32ba29143ba5"),
        ({"imbalance": 20.0, "imbalance_kind": "step", "split_seed": 3}, "e335cdc10626ec30"),
        (
            {"class_counts": (5,) * 10, "validation_size": 37, "split_seed": 1},
            "65c1d8901ffbec7f",
        ),
    ],
)
def test_a_config_means_the_same_images_for_ever(options, index_hash):
    """Noted before sets had several labels: results name these hashes, runs go on by them."""
    got = data.load_dataset({"source": "digits", **options})
    assert (got.index_hash, got.test_hash) == (index_hash, "c44f973bd2df1aae")


@pytest.mark.parametrize(
    ("options", "counts", "kind"),
    [
        ({}, [40, 30, 30], "unchanged"),
        ({"imbalance": 1}, [30, 30, 30], "exponential"),  # every class has enough
        ({"imbalance": 2}, [40, 28, 20], "exponential"),
        ({"imbalance": 2, "imbalance_kind": "step"}, [30, 30, 15], "step"),
        ({"class_counts": (3, 30, 1), "imbalance": 100}, [3, 30, 1], "explicit"),
        ({"class_counts": [0, 30, 1]}, [0, 30, 1], "explicit"),
    ],
)
def test_class_counts_follow_the_options(npz, options, counts, kind):
    got = data.load_dataset({"source": npz(), **options})
    assert (got.class_counts.tolist(), got.kind) == (counts, kind)
    assert (got.class_counts.dtype, got.num_classes) == (np.int64, 3)
    assert np.bincount(got.train_labels, minlength=3).tolist() == counts


def test_a_class_without_images_is_left_out_of_a_long_tail(npz):
    """As of sets of several labels: nobody has asked for an image of it."""
    got = data.load_dataset({"source": npz(), "imbalance": 4, "num_classes": 4})
    assert got.class_counts.tolist() == [40, 20, 10, 0]
    assert "classes without images in train: '3'" in got.notes
    labels = np.where(MIXED == 0, 3, MIXED)
    tail = data.load_dataset({"source": npz(y_train=labels), "imbalance": 4})
    assert tail.class_counts.tolist() == [0, 30, 15, 7]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"imbalance": 2, "max_count": 41}, r"class 0 has 40 images, but .* ask for 41"),
        ({"class_counts": (40, 31, 1)}, r"class 1 has 30 images, but .* ask for 31"),
        ({"class_counts": (40, 30)}, r"class_counts has 2 counts; expected one for each of the 3"),
        ({"class_counts": (1, -1, 1)}, r"class_counts\[1\] is -1; expected 0 or more"),
        ({"imbalance": 0.5}, r"imbalance is 0.5; expected a number of at least 1"),
        ({"imbalance": 2, "imbalance_kind": "linear"}, r"kind is 'linear'; expected 'exponential'"),
        ({"split_seed": -1}, r"split_seed is -1; expected a whole number of at least 0"),
        ({"validation_size": 100}, r"validation_size is 100; expected .* below 100"),
        ({"validation_size": float("nan")}, r"validation_size is nan; expected a whole number of"),
        (
            {"validation_size": "9"},
            r"validation_size is '9'; expected a whole number of at least 0",
        ),
        ({"image_size": 8.5}, r"image_size is 8.5; expected a whole number of at least 0"),
        ({"workers": -1}, r"workers is -1; expected a whole number of at least 0"),
        ({"num_classes": float("nan")}, r"num_classes is nan; expected a whole number"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(npz, options, sentence):
    with pytest.raises(InputError, match=sentence):
        data.load_dataset({"source": npz(), **options})


def test_pixel_statistics_are_those_of_the_train_images_kept(npz):
    got = data.load_dataset({"source": npz(), "class_counts": (5, 6, 7)})
    pixels = got.train_images / 255
    np.testing.assert_allclose(got.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(got.std, pixels.std((0, 1, 2)), rtol=1e-9)
    assert got.mean.dtype == got.std.dtype == np.float64


def test_a_constant_channel_has_a_deviation_of_one():
    images = one_label()["x_train"]
    images[..., 1] = 77
    mean, std = data.pixel_statistics(images)
    assert mean[1] == pytest.approx(77 / 255)
    assert std[1] == 1
    assert (std[[0, 2]] < 1).all()


# order of batches


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (12, 4), (5, 5), (7, 1)])
def test_epoch_order_visits_no_example_twice(count, batch):
    order = jax.jit(data.epoch_order, static_argnums=(1, 2))(jax.random.key(1), count, batch)
    assert (order.shape, order.dtype) == ((count // batch, batch), np.int32)
    seen = np.asarray(order).ravel()
    assert len(set(seen.tolist())) == seen.size
    assert set(seen.tolist()) <= set(range(count))
    other = np.asarray(data.epoch_order(jax.random.key(2), count, batch)).ravel()
    assert count == batch == 1 or seen.tolist() != other.tolist()


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (12, 4), (2, 5), (0, 4)])
def test_eval_order_visits_every_example_once_and_marks_padding(count, batch):
    indices, where = data.eval_order(count, batch)
    assert indices.shape == where.shape == (-(-count // batch), batch)
    assert (indices.dtype, where.dtype) == (np.int32, np.bool_)
    np.testing.assert_array_equal(np.asarray(indices)[np.asarray(where)], np.arange(count))
    assert (np.asarray(indices)[~np.asarray(where)] == 0).all()


@pytest.mark.parametrize("batch", [0, 11])
def test_a_batch_larger_than_the_data_is_refused(batch):
    with pytest.raises(InputError, match=rf"batch size is {batch}; expected 1 to 10"):
        data.epoch_order(jax.random.key(0), 10, batch)
    with pytest.raises(InputError, match=r"batch size is 0 for 10 examples; expected at least 1"):
        data.eval_order(10, 0)


def test_classes_without_images_are_told(npz):
    """In one sentence for each split, before training; a set that has all says nothing."""
    labels = np.repeat([0, 2], 50)
    source = npz(y_train=labels, class_names=np.array(["a", "b", "c"]))
    found = data.load_dataset({"source": source, "imbalance": 0})
    assert found.notes == ("classes without images in train: 'b'",)
    assert data.load_dataset({"source": "digits", "imbalance": 10}).notes == ()


@pytest.mark.parametrize(
    ("tail", "told"),
    [
        ({"imbalance": 5}, "(config.data.imbalance 5); 0 takes it as it is."),
        (
            {"imbalance_kind": "pareto"},
            "(config.data.imbalance_kind pareto); exponential with config.data.imbalance 0 takes"
            " it as it is.",
        ),
    ],
)
def test_what_makes_a_set_long_tailed_is_told(npz, tail, told):
    """Of pareto an imbalance of 0 is one more tail: the note named 0 as cause and as way out."""
    images = np.zeros((60, 4, 5, 3), np.uint8)
    source = npz(x_train=images, y_train=np.repeat([0, 1, 2], 20))
    (note,) = (n for n in data.load_dataset({"source": source, **tail}).notes if "left out" in n)
    assert note.endswith(told)
    back = {"imbalance": 0, "imbalance_kind": "exponential"}
    assert not any("left out" in n for n in data.load_dataset({"source": source, **back}).notes)


def test_one_hot_labels_are_told_to_be_a_set_for_several(npz):
    """Where all have exactly one, integers may have been meant."""
    one_hot = {"y_train": np.eye(3)[np.arange(100) % 3], "y_test": np.eye(3)[np.arange(15) % 3]}
    for more, told in ((0, True), (1, False)):
        one_hot["y_test"][0, 1] = more
        found = data.load_dataset({"source": npz(**one_hot), "imbalance": 0})
        assert any("every example has one label" in note for note in found.notes) == told
