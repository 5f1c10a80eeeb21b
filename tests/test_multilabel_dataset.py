"""Multi-label sets as they are assembled: notes on labels, streaming, normalisation, configs."""

import json

import numpy as np
import pytest
from made_up import NAMES, multi_hot
from ml_collections import ConfigDict

from lt_jax import data
from lt_jax.configuration import base_config, check_config
from lt_jax.data import StreamedImages, tfds_source
from lt_jax.errors import InputError

# What is told of the labels


def test_classes_without_positives_or_negatives_are_named_and_trained_around(hot_npz):
    train, test = multi_hot(), multi_hot(100, seed=2)
    train[:, 3], train[:, 0], test[:, 2] = 0, 1, 0
    got = data.load_dataset({"source": hot_npz(y_train=train, y_test=test), "validation_size": 20})
    assert got.notes == (
        "classes without positives in train, which cannot be learned: 'dog'",
        "classes that every training example has, which cannot be learned: 'ant'",
        "classes without positives in test, which have no score there: 'cat'",
    )
    assert got.class_counts[3] == 0
    tail = data.load_dataset({"source": hot_npz(y_train=train, y_test=test), "imbalance": 5.0})
    assert tail.class_counts[3] == 0
    assert tail.class_counts[2] > 0


def test_examples_without_labels_are_counted_and_can_be_dropped(hot_npz):
    config = {"source": hot_npz(), "validation_size": 50}
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


def test_streamed_images_stay_unread_but_for_the_statistics_and_a_sample(photographs):
    """A thousand to normalise by, and 32 of each split (test has 30) whose content is hashed."""
    images, asked, loads = photographs
    config = {"source": "tfds:photographs", "stream": True, "image_size": 4}
    got = data.load_dataset({**config, "validation_size": 100})
    assert (asked["name"], asked["reading"].stream) == ("photographs", True)
    assert asked["reading"].image_size == 4
    assert isinstance(got.train_images, StreamedImages)
    assert got.train_images.shape == (len(got.train_labels), 4, 4, 3)
    assert len(got.validation_images) == len(got.validation_labels)
    assert len(loads) == 1000 + 32 + 32 + 30
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
    assert len(loads) == 32 + 30  # those that tell the set by their content: none for statistics


@pytest.mark.parametrize(
    ("source", "value", "sentence"),
    [
        ("digits", "imagenet", r"'imagenet', but digits has 1 channel; expected images of 3 chan"),
        ("", "imagenet", r"'imagenet', but .*set.npz has feature vectors; expected images of 3"),
        ("digits", "unit", r"data.normalization is 'unit'; expected 'data' or 'imagenet'"),
    ],
)
def test_another_normalisation_is_refused(hot_npz, source, value, sentence):
    with pytest.raises(InputError, match=sentence):
        data.load_dataset({"source": source or hot_npz(), "normalization": value})


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


# Validation to select on


def test_validation_without_any_label_is_refused(hot_npz, monkeypatch):
    """There is no mAP to select by: the weights of the start would be the best ones."""
    train = np.zeros_like(multi_hot())
    train[0] = 1  # the last example of a class is not given away
    config = {"source": hot_npz(y_train=train)}
    assert len(data.load_dataset({**config, "validation_size": 0}).validation_labels) == 0
    with pytest.raises(InputError, match=r"no validation example of arrays:.* has a label, so"):
        data.load_dataset({**config, "validation_size": 20})
    own = (np.zeros((5, 4, 4, 3), np.uint8), np.zeros((5, 4), np.uint8))

    def read(*_, **__):
        images = np.zeros((20, 4, 4, 3), np.uint8)
        return (images, multi_hot(20)), (images, multi_hot(20)), list(NAMES), own

    monkeypatch.setattr(tfds_source, "read", read)
    with pytest.raises(InputError, match="no validation example of tfds:own has a label, so that"):
        data.load_dataset({"source": "tfds:own", "validation_split": "val"})
    own[1][4, 2] = 1
    assert data.load_dataset({"source": "tfds:own", "validation_split": "val"}).num_classes == 4
