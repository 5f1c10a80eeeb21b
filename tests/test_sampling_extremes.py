"""Batches drawn by class at a million images to one, and by effective numbers of each class."""

import functools

import jax
import numpy as np
import pytest
from drawing import EPOCHS, order_of, p_value
from scipy import stats

from lt_jax.longtail import SCHEMES, long_tailed_counts, sampling_probabilities

EXTREME = np.array([1_000_000, 1000, 100, *[1] * 3996, 0, 1])

# Extremes


@functools.cache
def extreme_draws(scheme):
    """An epoch at `EXTREME` under the default options, on the way to its end."""
    labels = np.repeat(np.arange(len(EXTREME)), EXTREME)
    order = order_of(scheme, labels, len(EXTREME), 256, beta=0.9999, beta_spread=1e-5, power=0.25)
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
    options = {"progressive": {"progress": 0.9}, "power": {"power": 0.25}}.get(scheme, {})
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
