"""Colour jitter against Pillow, one image and one change at a time, and its draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_jax import augment, color
from lt_jax.errors import InputError

Image = pytest.importorskip("PIL.Image")
ImageEnhance = pytest.importorskip("PIL.ImageEnhance")

KEY = jax.random.key(5)
NAMES = ("Brightness", "Contrast", "Color")  # in the order of the strengths
STRENGTHS = {"brightness": 0.4, "contrast": 0.9, "saturation": 1.5}
jitter = jax.jit(color.color_jitter, static_argnames=("brightness", "contrast", "saturation"))


def pictures(batch, side=9):
    """Of every darkness and contrast, so that values are clipped at both ends."""
    rng = np.random.default_rng(0)
    shift, spread = rng.uniform(0, 255, (batch, 1, 1, 3)), rng.uniform(1, 120, (batch, 1, 1, 1))
    noisy = shift + spread * rng.normal(size=(batch, side, side + 2, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def draws(key, batch, strengths):
    """Factors and orders ``[B, 3]``."""
    factor_key, order_key = jax.random.split(key)
    strengths = np.float32(strengths)
    low, high = np.maximum(0, 1 - strengths), 1 + strengths
    unit = np.asarray(jax.random.uniform(factor_key, (batch, 3), jnp.float32))
    order = np.argsort(np.asarray(jax.random.uniform(order_key, (batch, 3), jnp.float32)), axis=1)
    return low + unit * (high - low), order


def by_pillow(image, factors, order):
    picture = Image.fromarray(image)
    for kind in order:
        picture = getattr(ImageEnhance, NAMES[kind])(picture).enhance(float(factors[kind]))
    return np.asarray(picture)


def test_each_image_is_what_pillow_makes_of_it():
    images = pictures(200)
    factors, order = draws(KEY, len(images), tuple(STRENGTHS.values()))
    expected = np.stack([by_pillow(*given) for given in zip(images, factors, order, strict=True)])
    got = np.asarray(jitter(KEY, images, **STRENGTHS))
    assert got.dtype == np.uint8
    assert (expected != images).any((1, 2, 3)).all()
    assert np.abs(got.astype(int) - expected).max() <= 1
    # The last digit of a drawn factor may differ from NumPy's; the arithmetic is Pillow's.
    assert (got == expected).mean() > 0.999


@pytest.mark.parametrize("kind", range(3), ids=NAMES)
def test_one_change_is_pillows_bit_for_bit(kind):
    images = pictures(60)
    factors = np.float32(np.random.default_rng(1).uniform(0, 2.5, 60))
    factors[:3] = 0, 1, 0.5
    got = jax.jit(color._enhance)(images, jnp.full(60, kind, jnp.int32), factors)
    enhance = getattr(ImageEnhance, NAMES[kind])
    for image, factor, result in zip(images, factors, got, strict=True):
        expected = np.asarray(enhance(Image.fromarray(image)).enhance(float(factor)))
        np.testing.assert_array_equal(result, expected)


def test_strength_0_leaves_its_part_alone():
    images = pictures(40)
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    np.testing.assert_array_equal(jitter(KEY, images, **off), images)
    darker = np.asarray(jitter(KEY, images, **(off | {"brightness": 0.5}))).astype(float)
    factors, _ = draws(KEY, 40, (0.5, 0, 0))
    np.testing.assert_allclose(darker, np.clip(factors[:, :1, None, None] * images, 0, 255), atol=1)


def test_factors_are_uniform_and_all_orders_equally_likely():
    """The orders are those that images were changed in above; the factors are read off here."""
    batch = 6000
    _, order = draws(KEY, batch, (0.4, 0.4, 0.4))
    found = [np.sum((order == p).all(1)) for p in itertools.permutations(range(3))]
    # chi-square of 6 cells: 5 degrees of freedom, 20.5 has probability 0.001
    assert sum((count - batch / 6) ** 2 / (batch / 6) for count in found) < 20.5
    grey = np.full((batch, 1, 1, 3), 100, np.uint8)  # which brightness alone changes
    got = np.asarray(jitter(KEY, grey, brightness=0.4, contrast=0.4, saturation=0.4))[:, 0, 0, 0]
    assert (got.min(), got.max()) in {(60, 139), (60, 140)}
    counts, _ = np.histogram(got, bins=8, range=(60, 140))
    # 7 degrees of freedom, 24.3 has probability 0.001
    assert ((counts - batch / 8) ** 2 / (batch / 8)).sum() < 24.3


def test_augment_jitters_after_the_flip_and_leaves_other_draws_alone():
    images = pictures(16)
    on = jax.jit(lambda x: augment.augment(KEY, x, flip=True, color_jitter=0.4, cutout_size=3))
    off = jax.jit(lambda x: augment.augment(KEY, x, flip=True))
    key = jax.random.fold_in(KEY, 4)
    jittered = jitter(key, off(images), brightness=0.4, contrast=0.4, saturation=0.4)
    expected = augment.cutout(jax.random.split(KEY, 3)[2], jittered, 3)
    np.testing.assert_array_equal(on(images), expected)


@pytest.mark.parametrize(
    ("images", "strength", "sentence"),
    [
        (np.zeros((2, 8, 8, 1), np.uint8), 0.4, r"shape \(2, 8, 8, 1\).*uint8 \[B, H, W, 3\]"),
        (np.zeros((2, 8, 8, 3), np.float32), 0.4, r"dtype float32; expected uint8"),
        (np.zeros((2, 8, 8, 3), np.uint8), -0.1, "color jitter is -0.1; expected a number of at"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("inf"), "color jitter is inf"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "color jitter is nan"),
    ],
)
def test_what_cannot_be_jittered_is_refused(images, strength, sentence):
    with pytest.raises(InputError, match=sentence):
        augment.augment(KEY, jnp.asarray(images), color_jitter=strength)
