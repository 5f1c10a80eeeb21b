"""Augmentations against one-image-at-a-time NumPy, their distributions, and many devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lt_jax import augment
from lt_jax.errors import InputError

BATCH, HEIGHT, WIDTH = 16, 8, 10
KEY = jax.random.key(5)


def pictures(batch=BATCH, dtype=np.uint8):
    shape = (batch, HEIGHT, WIDTH, 3)
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


def crop_one(image, top, left, padding):
    padded = np.zeros((HEIGHT + 2 * padding, WIDTH + 2 * padding, 3), image.dtype)
    padded[padding : padding + HEIGHT, padding : padding + WIDTH] = image
    return padded[top : top + HEIGHT, left : left + WIDTH]


def cutout_one(image, y, x, size, fill=0):
    out = image.copy()
    top, left = y - size // 2, x - size // 2
    out[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = fill
    return out


def test_normalize_is_float32_and_matches_numpy():
    images, mean, std = pictures(), np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    got = augment.normalize(images, mean, std)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, (images / 255 - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_random_crop_matches_one_image_at_a_time(padding, dtype):
    images = pictures(dtype=dtype)
    offsets = np.asarray(jax.random.randint(KEY, (BATCH, 2), 0, 2 * padding + 1))
    want = [crop_one(im, *o, padding) for im, o in zip(images, offsets, strict=True)]
    got = jax.jit(augment.random_crop, static_argnums=2)(KEY, images, padding)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)


def test_random_crop_reaches_every_shift_equally_often():
    # One bright pixel in the middle shows where each image went.
    images = np.zeros((4500, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    got = np.asarray(augment.random_crop(KEY, images, 1))
    _, rows, columns, _ = np.nonzero(got)
    counts = np.zeros((9, 9), int)
    np.add.at(counts, (rows, columns), 1)
    assert counts[3:6, 3:6].sum() == 4500
    # chi-square of 9 cells: 8 degrees of freedom, 26.1 has probability 0.001
    assert ((counts[3:6, 3:6] - 500) ** 2 / 500).sum() < 26.1


def test_random_flip_mirrors_about_half_of_the_images_and_keeps_the_rest():
    images = pictures(2000)
    got = np.asarray(augment.random_flip(KEY, images))
    flipped = (got == images[:, :, ::-1]).all((1, 2, 3))
    kept = (got == images).all((1, 2, 3))
    assert (flipped ^ kept).all()
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 30])
def test_cutout_matches_one_image_at_a_time(size):
    images = pictures()
    centres = np.asarray(jax.random.randint(KEY, (BATCH, 2), 0, jnp.array([HEIGHT, WIDTH])))
    want = [cutout_one(im, *c, size) for im, c in zip(images, centres, strict=True)]
    got = jax.jit(augment.cutout, static_argnums=2)(KEY, images, size)
    np.testing.assert_array_equal(got, want)


def test_cutout_fills_each_channel_with_what_is_asked_for():
    images = pictures(dtype=np.float32)
    got = np.asarray(augment.cutout(KEY, images, 40, fill=np.array([1.0, 2.0, 3.0])))
    np.testing.assert_array_equal(got, np.broadcast_to([1.0, 2.0, 3.0], images.shape))


def test_cutout_centres_are_uniform_over_the_pixels():
    images = np.ones((HEIGHT * WIDTH * 100, HEIGHT, WIDTH, 1), np.uint8)
    got = np.asarray(augment.cutout(KEY, images, 1))
    counts = (got == 0).sum((0, 3))
    assert counts.sum() == len(images)
    # 79 degrees of freedom, 123.6 has probability 0.001
    assert ((counts - 100) ** 2 / 100).sum() < 123.6


def test_mixup_is_the_stated_combination():
    images = pictures()
    mixed, order, lam = jax.jit(augment.mixup)(KEY, images, 0.4)
    assert (mixed.dtype, order.dtype, lam.shape) == (jnp.float32, jnp.int32, ())
    assert sorted(order.tolist()) == list(range(BATCH))
    x = images.astype(np.float64)
    want = float(lam) * x + (1 - float(lam)) * x[np.asarray(order)]
    np.testing.assert_allclose(mixed, want, rtol=1e-5)
    half = jax.eval_shape(augment.mixup, KEY, jnp.zeros((4, 2), jnp.bfloat16), 0.4)
    assert (half[0].dtype, half[2].dtype) == (jnp.bfloat16, jnp.float32)


def test_mixup_lambda_has_the_moments_of_the_beta_distribution():
    images = jnp.zeros((2, 1, 1, 1))
    draw = jax.jit(jax.vmap(lambda key, alpha: augment.mixup(key, images, alpha)[2], (0, None)))
    keys = jax.random.split(KEY, 4000)
    for alpha in (0.2, 1.0, 4.0):
        lam = np.asarray(draw(keys, jnp.float32(alpha)))
        assert ((lam >= 0) & (lam <= 1)).all()
        variance = 1 / (4 * (2 * alpha + 1))
        assert abs(lam.mean() - 0.5) < 4 * np.sqrt(variance / len(lam))
        assert abs(lam.var() - variance) < 0.1 * variance


OPTIONS = {"crop_padding": 2, "flip": True, "cutout_size": 4, "cutout_fill": 7}
everything = jax.jit(functools.partial(augment.augment, **OPTIONS))


def test_augment_applies_what_is_on_with_keys_of_their_own():
    @jax.jit
    def by_hand(key, x):
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        cropped = augment.random_crop(crop_key, x, 2)
        both = augment.cutout(cutout_key, augment.random_flip(flip_key, cropped), 4, fill=7)
        return both, augment.random_flip(flip_key, x)

    images = pictures()
    both, flipped = by_hand(KEY, images)
    np.testing.assert_array_equal(everything(KEY, images), both)
    only_flip = jax.jit(functools.partial(augment.augment, flip=True))
    np.testing.assert_array_equal(only_flip(KEY, images), flipped)
    np.testing.assert_array_equal(augment.augment(KEY, images), images)


def test_images_of_a_batch_are_changed_independently():
    images = np.broadcast_to(pictures(1), (BATCH, HEIGHT, WIDTH, 3))
    got = np.asarray(everything(KEY, images))
    assert len({image.tobytes() for image in got}) > BATCH - 3
    np.testing.assert_array_equal(got, everything(KEY, images))
    other = np.asarray(everything(jax.random.key(6), images))
    assert (got != other).any((1, 2, 3)).mean() > 0.8


def test_vmap_over_replicas_is_each_replica_alone():
    images, keys = np.stack([pictures(), pictures()[::-1]]), jax.random.split(KEY, 2)
    for got, key, batch in zip(jax.vmap(everything)(keys, images), keys, images, strict=True):
        np.testing.assert_array_equal(got, everything(key, batch))


ALL = {
    "random_crop": lambda key, x: augment.random_crop(key, x, 2),
    "random_flip": augment.random_flip,
    "cutout": lambda key, x: augment.cutout(key, x, 4),
    "mixup": lambda key, x: augment.mixup(key, x, 1.0),
    "augment": lambda key, x: augment.augment(key, x, **OPTIONS),
    "color_jitter": lambda key, x: augment.augment(key, x, color_jitter=0.4),
    "normalize": lambda key, x: augment.normalize(x, [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]),
}


@pytest.mark.parametrize("name", ALL)
def test_eight_devices_give_what_one_gives(name):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    images = pictures()
    spread = jax.device_put(images, NamedSharding(mesh, P("data")))
    alone = jax.device_put(images, jax.devices()[0])
    compiled = jax.jit(ALL[name])
    results = [jax.tree.leaves(compiled(KEY, x)) for x in (spread, alone)]
    for many, one in zip(*results, strict=True):
        np.testing.assert_array_equal(np.asarray(many), np.asarray(one))
    if name in ("random_crop", "augment", "color_jitter"):  # nothing moves between devices
        hlo = compiled.lower(KEY, spread).compile().as_text()
        assert not any(word in hlo for word in ("all-gather(", "all-reduce(", "all-to-all("))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: augment.random_crop(KEY, x, -1), "crop padding is -1; expected 0 or more"),
        (lambda x: augment.cutout(KEY, x, -2), "cutout size is -2; expected 0 or more"),
        (lambda x: augment.mixup(KEY, x, 0.0), r"alpha is 0.0; expected a number in \(0, inf\)"),
        (
            lambda x: augment.mixup(KEY, x, jnp.array(0.0)),
            r"alpha is Array\(0.*; expected",
        ),
        (lambda x: augment.mixup(KEY, x, np.inf), "alpha is inf; expected a number"),
        (lambda x: augment.random_flip(KEY, x[0]), r"shape \(8, 10, 3\); expected \[B, H, W, C\]"),
        (lambda x: augment.augment(KEY, x[0]), r"shape \(8, 10, 3\); expected \[B, H, W, C\]"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call(pictures())
