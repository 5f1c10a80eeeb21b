"""Composed sets as data sets: splits of their own, tails of a config, digits or MNIST on them."""

import json

import numpy as np
import pytest
from made_up import pool
from scipy import stats

from lt_jax import data
from lt_jax.data import Canvas, Composition, tfds_source
from lt_jax.errors import InputError
from lt_jax.longtail import long_tailed_profile


def test_multi_digits_come_with_splits_of_their_own():
    config = {
        "source": "multi_digits",
        "imbalance": 50.0,
        "validation_size": 100,
        "canvas": {"images": 400, "test_images": 150},  # the others keep their defaults
    }
    got = data.load_dataset(config)
    assert got.multi_label
    assert got.train_images.shape == (400, 20, 20, 1)
    assert got.validation_images.shape == (100, 20, 20, 1)
    assert got.test_images.shape == (150, 20, 20, 1)
    assert got.train_labels.dtype == np.uint8
    assert got.class_counts.tolist() == got.train_labels.sum(axis=0).tolist()
    assert got.class_counts[0] > 10 * got.class_counts[-1]
    assert got.class_names == tuple("0123456789")
    assert (got.imbalance, got.kind) == (50.0, "exponential")
    np.testing.assert_allclose(got.mean, (got.train_images / 255).mean((0, 1, 2)))
    info = got.info()
    assert json.loads(json.dumps(info)) == info
    assert (info["multi_label"], info["validation"]) == (True, "balanced")
    assert info["total_unlabelled"] == 0
    assert info["labels_per_image"] == pytest.approx(got.train_labels.sum(axis=1).mean())
    assert info["test_class_counts"] == got.test_labels.sum(axis=0).tolist()
    other = data.load_dataset({**config, "split_seed": 1})
    assert (other.test_hash, other.index_hash == got.index_hash) == (got.test_hash, False)
    assert data.load_dataset(config).index_hash == got.index_hash
    moved = {**config["canvas"], "overlap": 0.1}
    assert data.load_dataset({**config, "canvas": moved}).index_hash != got.index_hash


@pytest.mark.parametrize(
    ("options", "kind", "profile"),
    [
        ({}, "unchanged", np.ones(10)),
        ({"imbalance": 9.0, "imbalance_kind": "step"}, "step", long_tailed_profile(10, 9, "step")),
        (
            {"imbalance_kind": "pareto", "pareto_power": 3.0},
            "pareto",
            long_tailed_profile(10, 0, "pareto", 3.0),
        ),
    ],
)
def test_the_tail_of_the_digits_is_the_one_of_the_config(options, kind, profile):
    canvases = {"images": 20_000, "test_images": 1, "size": 8, "min_digits": 1, "max_digits": 1}
    got = data.load_dataset({"source": "multi_digits", "canvas": canvases, **options})
    assert got.kind == kind
    assert got.imbalance == options.get("imbalance", 0.0)
    expected = 20_000 * profile / profile.sum()
    assert stats.chisquare(got.class_counts, expected).pvalue > 1e-3


def test_digits_of_test_canvases_are_the_fixed_test_digits():
    digits = data.load_source("digits")
    one = Canvas(images=3000, test_images=3000, size=8, min_digits=1, max_digits=1)
    got = data.load_source("multi_digits", composition=Composition(one, 500))
    shown = [
        {image.tobytes() for image in images}
        for images in (got.train_images, got.validation_images, got.test_images)
    ]
    train, test = ({i.tobytes() for i in x} for x in (digits.train_images, digits.test_images))
    assert shown[2] <= test
    assert shown[0] | shown[1] <= train
    assert not shown[0] & shown[1]


def test_multi_mnist_is_made_of_the_mnist_that_tfds_reads(monkeypatch):
    calls = []

    def read(name, **options):
        calls.append((name, options["data_dir"], options["download"], options["test_split"]))
        return pool(200, side=28), pool(100, seed=1, side=28), list("0123456789"), None

    monkeypatch.setattr(tfds_source, "read", read)
    config = {
        "source": "multi_mnist",
        "data_dir": "somewhere",
        "download": True,
        "validation_size": 10,
        "canvas": {"images": 30, "test_images": 20, "size": 56},
    }
    got = data.load_dataset(config)
    assert calls == [("mnist", "somewhere", True, "test")]
    assert got.train_images.shape == (30, 56, 56, 1)
    assert (len(got.validation_labels), len(got.test_labels)) == (10, 20)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"max_count": 9},
            r"data.max_count is 9, but multi_digits has as many .*; expected 0, and",
        ),
        ({"class_counts": (1,) * 10}, r"data.class_counts is \(1, .* expected \(\), and data.imb"),
        ({"imbalance": 0.5}, r"imbalance is 0.5; expected a number of at least 1"),
        ({"num_classes": 9}, r"num_classes is 9, but multi_digits has labels of 10 classes"),
        ({"test_split": "train"}, r"test_split is 'train'; 'multi_digits' has only the split"),
        ({"image_size": 32}, r"image_size is 32; expected 0 for 'multi_digits'"),
        ({"stream": True}, r"stream is True; expected False for 'multi_digits'"),
        ({"canvas": {"digits": 2}}, r"data.canvas has no field 'digits'; expected some of images"),
        ({"normalization": "imagenet"}, r"'imagenet', but multi_digits has 1 channel; expected im"),
    ],
)
def test_options_that_composed_sets_have_not_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        data.load_dataset({"source": "multi_digits", **options})
