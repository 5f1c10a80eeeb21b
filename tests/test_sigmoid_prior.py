"""Sigmoids start at the prior of a label, with small weights; softmaxes do not."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_runs import tiny

from lt_jax.build import make_model, make_objective
from lt_jax.data import load_dataset


@pytest.fixture(scope="module")
def digits():
    return load_dataset({"source": "digits", "imbalance": 0})


def with_classes(digits, count):
    return dataclasses.replace(
        digits, num_classes=count, train_labels=digits.train_labels % count,
        class_counts=np.full(count, 100), class_names=("?",) * count,
    )  # fmt: skip


def with_shares(digits, *shares):
    """Several labels an image, each of so many of the images."""
    place = np.arange(len(digits.train_labels)) / len(digits.train_labels)
    labels = (place[:, None] < np.array(shares)).astype(np.uint8)
    return dataclasses.replace(
        digits, num_classes=len(shares), train_labels=labels,
        class_counts=labels.sum(axis=0), class_names=("?",) * len(shares),
    )  # fmt: skip


def head(dataset, method, **fields):
    config = tiny(method, **{"model__name": "small", **fields})
    network = make_model(config, dataset, make_objective(config.objective, dataset))
    params, _ = network.init(jax.random.key(0))
    return np.asarray(params["head"]["kernel"]), np.asarray(params["head"]["bias"])


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("method", ["sigmoid", "cb_focal", "plm"])
def test_one_label_an_image(digits, method, classes):
    """Cui et al., CVPR 2019: a share of 1 / C, and weights that are small beside it."""
    kernel, bias = head(with_classes(digits, classes), method)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), 1 / classes, rtol=1e-5)
    np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.2)


@pytest.mark.parametrize("shares", [(0.6, 0.2, 0.1), (0.75, 0.25)])
def test_several_labels_an_image(digits, shares):
    """The mean share of the classes, which may be a half."""
    kernel, bias = head(with_shares(digits, *shares), "sigmoid")
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), np.mean(shares), atol=1e-3)
    np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.2)


@pytest.mark.parametrize(
    ("method", "fields"),
    [("cross_entropy", {}), ("sigmoid", {"model__sigmoid_prior": False})],
)
@pytest.mark.parametrize("classes", [2, 10])
def test_without_a_prior_weights_are_as_elsewhere(digits, method, fields, classes):
    """He normal of the features, and no bias."""
    kernel, bias = head(with_classes(digits, classes), method, **fields)
    assert not bias.any()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / len(kernel)), rtol=0.2)
