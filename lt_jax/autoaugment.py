"""AutoAugment's policy for CIFAR-10, for a batch at once: pure, on the device.

Randomness comes in by ``key`` and is drawn for the whole (global) batch at once. Pixels are
computed in integers, or in floats where no compiler can fuse two roundings into one, so the values
do not depend on ``jit``, ``vmap``, the program around it or how many devices hold the batch.

Under ``vmap`` a switch over 14 operations would compute all of them for each image. They are
three families instead, and an image passes through a family that it does not need unchanged:
geometry is one gather of pixels, what depends on a channel's value alone is one table lookup, and
the enhancements are one blend.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from lt_jax.color import blend, check_pixels, luma, mean_of
from lt_jax.sharding import automatic

# The paper's appendix: 25 times two operations, each with a probability and a magnitude 0 to 9.
_POLICY = (
    (("Invert", 0.1, 7), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 8), ("Equalize", 0.9, 2)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 5), ("Equalize", 0.5, 1)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 7), ("AutoContrast", 0.4, 8)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 3)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 8), ("Equalize", 0.6, 4)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 6)),
    (("AutoContrast", 0.8, 4), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 3)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 2), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 8), ("Invert", 0.1, 3)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 1)),
)
_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_LOOKUP = ("Invert", "Solarize", "Posterize", "AutoContrast", "Equalize")
_ENHANCE = ("Brightness", "Contrast", "Color", "Sharpness")
_NAMES = ("Identity", *_GEOMETRIC, *_LOOKUP, *_ENHANCE)
_CODE = {name: code for code, name in enumerate(_NAMES)}

_OPERATION = np.array([[_CODE[name] for name, _, _ in pair] for pair in _POLICY], np.int32)
_PROBABILITY = np.array([[chance for _, chance, _ in pair] for pair in _POLICY], np.float32)
_MAGNITUDE = np.array([[magnitude for _, _, magnitude in pair] for pair in _POLICY], np.int32)

_THRESHOLD = np.array([math.ceil(256 * (9 - m) / 9) for m in range(10)], np.int32)
_KEPT_BITS = np.array([256 - 2 ** (8 - round(8 - 4 * m / 9)) for m in range(10)], np.int32)
_FILL = 128


def autoaugment(key: jax.Array, images: ArrayLike) -> jax.Array:
    r"""Changes each image by one of the 25 sub-policies that AutoAugment found for CIFAR-10.

    .. math:: o_2^{b_2}(o_1^{b_1}(x)), \quad (o_1, p_1, o_2, p_2) \sim U(25), \quad
       b_i \sim Bernoulli(p_i)

    From the paper: the sub-policies, each of two operations with a probability and a magnitude m of
    0 to 9, and the operations, which are Pillow's. From the implementation that most others follow
    (DeepVoltaire/AutoAugment; torchvision's is much the same): what a magnitude means,

    - shear by 0.3 m / 9 about the upper left corner, translate by 150/331 m / 9 of the side, rotate
      by 30 m / 9 degrees about the centre, with (128, 128, 128) where the image has no pixel;
    - posterize to 8 - 4 m / 9 bits, rounded; solarize from 256 (9 - m) / 9 upwards;
    - colour, contrast, brightness and sharpness by the factor 1 + 0.1 m or 1 - 0.1 m, where the
      paper has 0.1 to 1.9 growing with m;

    and a sign that is drawn for every geometric operation and every factor. That implementation
    shears bicubically; here as in torchvision every pixel is its nearest neighbour's, and rotation
    goes both ways.

    All is Pillow's bit for bit except AutoContrast, which computes in integers: Pillow rounds
    floats down, and so is one level lower at a few values, the lightest sometimes 254.

    Args:
      key: PRNG key.
      images: uint8 ``[B, H, W, 3]``, RGB, before any normalisation; sides of 1 to 2048 pixels.

    Returns:
      uint8 ``[B, H, W, 3]``.

    Raises:
      InputError: for images of another shape or dtype.

    Example:
      >>> changed = jax.jit(autoaugment)(jax.random.key(0), jnp.zeros((2, 8, 8, 3), jnp.uint8))
      >>> changed.shape, changed.dtype
      ((2, 8, 8, 3), dtype('uint8'))

    Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019.
    """
    images = jnp.asarray(images)
    sub_policy, applied, negative = _draw(key, check_pixels(images))
    for step in range(2):
        operation = jnp.asarray(_OPERATION)[sub_policy, step]
        operation = jnp.where(applied[:, step], operation, _CODE["Identity"])
        magnitude = jnp.asarray(_MAGNITUDE)[sub_policy, step]
        images = automatic(_apply, images)(images, operation, magnitude, negative[:, step])
    return images


def _draw(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sub-policies, int32 ``[B]``; which operations are applied, and which negated, ``[B, 2]``."""
    policy_key, apply_key, sign_key = jax.random.split(key, 3)
    sub_policy = jax.random.randint(policy_key, (batch,), 0, len(_POLICY), jnp.int32)
    # float32 by name: in float64 mode the default would draw other numbers.
    chance, coin = (
        jax.random.uniform(part, (batch, 2), jnp.float32) for part in (apply_key, sign_key)
    )
    return sub_policy, chance < jnp.asarray(_PROBABILITY)[sub_policy], coin < 0.5


def _apply(
    images: jax.Array, operation: jax.Array, magnitude: jax.Array, negative: jax.Array
) -> jax.Array:
    """One operation for each image: codes, magnitudes (int32) and signs (bool), all ``[B]``."""
    sign = negative.astype(jnp.int32)
    images = _warp(images, operation, magnitude, sign)
    images = _look_up(images, operation, magnitude)
    return _enhance(images, operation, magnitude, sign)


def _warp(
    images: jax.Array, operation: jax.Array, magnitude: jax.Array, sign: jax.Array
) -> jax.Array:
    """Each pixel from where the image's matrix sends it, or the fill colour."""
    batch, height, width, _ = images.shape
    matrix = jnp.asarray(_matrices(height, width))[operation, magnitude, sign][:, None, None, :]
    y = jnp.arange(height, dtype=jnp.int32)[:, None]
    x = jnp.arange(width, dtype=jnp.int32)
    column = (matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2]) >> 16
    row = (matrix[..., 3] * x + matrix[..., 4] * y + matrix[..., 5]) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = jnp.where(inside, row * width + column, 0).reshape(batch, height * width, 1)
    pixels = images.reshape(batch, height * width, 3)
    moved = jnp.take_along_axis(pixels, source, axis=1, mode="promise_in_bounds")
    return jnp.where(inside[..., None], moved.reshape(images.shape), jnp.uint8(_FILL))


def _matrices(height: int, width: int) -> np.ndarray:
    """Of every operation, magnitude and sign: output to source pixel, int32 ``[15, 10, 2, 6]``.

    In 16.16 fixed point as in Pillow, with pixel centres at one half, so that ties fall alike.
    """
    table = np.empty((len(_NAMES), 10, 2, 6), np.int32)
    for code, magnitude, sign in np.ndindex(table.shape[:3]):
        share = (1 - 2 * sign) * magnitude / 9
        a, b, c, d, e, f = _matrix(_NAMES[code], share, height, width)
        exact = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2])
        table[code, magnitude, sign] = np.floor(exact * 65536 + 0.5)
    return table


def _matrix(name: str, share: float, height: int, width: int) -> tuple[float, ...]:
    if name == "ShearX":
        return 1, 0.3 * share, 0, 0, 1, 0
    if name == "ShearY":
        return 1, 0, 0, 0.3 * share, 1, 0
    if name == "TranslateX":
        return 1, 0, 150 / 331 * share * width, 0, 1, 0
    if name == "TranslateY":
        return 1, 0, 0, 0, 1, 150 / 331 * share * height
    if name == "Rotate":
        cos, sin = math.cos(math.radians(30 * share)), math.sin(math.radians(30 * share))
        x, y = width / 2, height / 2
        return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y
    return 1, 0, 0, 0, 1, 0


def _look_up(images: jax.Array, operation: jax.Array, magnitude: jax.Array) -> jax.Array:
    """Each value replaced by its entry in the table of its image and channel."""
    batch, height, width, _ = images.shape
    pixels = images.reshape(batch, height * width, 3).astype(jnp.int32)
    code, magnitude = operation[:, None, None], magnitude[:, None, None]
    value = jnp.arange(256, dtype=jnp.int32)
    tables = {
        "Invert": 255 - value,
        "Solarize": jnp.where(value < jnp.asarray(_THRESHOLD)[magnitude], value, 255 - value),
        "Posterize": value & jnp.asarray(_KEPT_BITS)[magnitude],
    }
    table = _spread(pixels, code == _CODE["AutoContrast"], code == _CODE["Equalize"])
    for name, entries in tables.items():
        table = jnp.where(code == _CODE[name], entries, table)
    # One row of 3 x 256 entries for each image makes it a gather within the image.
    place = (pixels + 256 * jnp.arange(3, dtype=jnp.int32)).reshape(batch, height * width * 3)
    rows = table.astype(jnp.uint8).reshape(batch, 3 * 256)
    return jnp.take_along_axis(rows, place, axis=1, mode="promise_in_bounds").reshape(images.shape)


def _spread(pixels: jax.Array, stretch: jax.Array, equalize: jax.Array) -> jax.Array:
    """Tables of AutoContrast and Equalize, ``[B, 3, 256]``; of other images, the identity.

    Both are quotients, so they share the one division, which costs most after the counting.
    """

    # Counted by scattering: on a CPU, comparing each pixel with 256 values took 300 times as long.
    def histogram(channel: jax.Array) -> jax.Array:
        empty = jnp.zeros(256, jnp.int32)
        return empty.at[channel].add(1, mode="promise_in_bounds")

    count = jax.vmap(jax.vmap(histogram, in_axes=1))(pixels)
    value = jnp.arange(256, dtype=jnp.int32)
    low = jnp.where(count > 0, value, 255).min(axis=2, keepdims=True)
    high = jnp.where(count > 0, value, 0).max(axis=2, keepdims=True)
    lightest = jnp.where(value == high, count, 0).sum(axis=2, keepdims=True, dtype=jnp.int32)
    step = (pixels.shape[1] - lightest) // 255
    below = jnp.cumsum(count, axis=2, dtype=jnp.int32) - count
    divisor = jnp.where(equalize, step, jnp.where(stretch, high - low, 0))
    # A divisor of 0: one value only, or too few pixels for a step. Pillow leaves such a channel.
    dividend = jnp.where(equalize, step // 2 + below, jnp.clip(value - low, 0, high - low) * 255)
    quotient = lax.div(dividend, jnp.maximum(divisor, 1))
    return jnp.where(divisor > 0, jnp.minimum(quotient, 255), value)


def _enhance(
    images: jax.Array, operation: jax.Array, magnitude: jax.Array, sign: jax.Array
) -> jax.Array:
    """Each image blended with its black, grey, colourless or smooth version, or left as it is."""
    pixels = images.astype(jnp.int32)
    grey = luma(pixels)
    plain: dict[str, ArrayLike] = {
        "Brightness": 0,
        "Contrast": mean_of(grey),
        "Color": grey,
        "Sharpness": _smoothed(pixels),
    }
    base = pixels
    for name in _ENHANCE:
        base = jnp.where((operation == _CODE[name])[:, None, None, None], plain[name], base)
    mantissa, scale = (jnp.asarray(part)[magnitude, sign] for part in _factors())
    return blend(base, pixels, mantissa, scale)


def _factors() -> tuple[np.ndarray, np.ndarray]:
    """The factors 1 + 0.1 m and 1 - 0.1 m as 24-bit integers times powers of two, ``[10, 2]``."""
    factor = 1 + 0.1 * np.arange(10)[:, None] * np.array([1, -1])
    mantissa, exponent = np.frexp(factor.astype(np.float32))
    return np.ldexp(mantissa, 24).astype(np.uint32), np.ldexp(np.float32(1), exponent - 24)


def _smoothed(pixels: jax.Array) -> jax.Array:
    """The mean of 3 x 3 pixels with the middle counted five times, rounded; borders as they are."""
    height, width = pixels.shape[1:3]
    padded = jnp.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * pixels
    y, x = np.arange(height)[:, None], np.arange(width)
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return jnp.where(jnp.asarray(inner)[..., None], (2 * total + 13) // 26, pixels)
