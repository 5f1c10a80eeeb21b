"""Brightness, contrast and saturation of a batch of images, as Pillow computes them.

Pixels are computed in integers, or in floats where no compiler can fuse two roundings into one, so
the values do not depend on ``jit``, ``vmap``, the program around it or how many devices hold the
batch.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lt_jax.errors import InputError
from lt_jax.sharding import automatic

LARGEST_SIDE = 2048  # up to here sums over an image and 16.16 coordinates fit in int32
_BRIGHTNESS, _CONTRAST = 0, 1  # and 2, saturation


def color_jitter(
    key: jax.Array, images: ArrayLike, *, brightness: float, contrast: float, saturation: float
) -> jax.Array:
    r"""Changes brightness, contrast and saturation of each image, in an order drawn for it.

    .. math:: base + f (x - base), \quad f \sim U(\max(0, 1 - s), 1 + s)

    The base is black for brightness, the mean grey of the image for contrast, the grey of each
    pixel for saturation; s is the strength of each. This is torchvision's ``ColorJitter`` without
    hue, on Pillow's images and bit for bit.

    Args:
      key: PRNG key.
      images: uint8 ``[B, H, W, 3]``, RGB, before any normalisation; sides of 1 to 2048 pixels.
      brightness: strength, at least 0, which is off; above 1 images may turn black.
      contrast: strength, likewise.
      saturation: strength, likewise.

    Returns:
      uint8 ``[B, H, W, 3]``.

    Raises:
      InputError: for images of another shape or dtype, or a strength that cannot be used.

    Example:
      >>> images = jnp.full((2, 8, 8, 3), 100, jnp.uint8)
      >>> changed = color_jitter(
      ...     jax.random.key(0), images, brightness=0.4, contrast=0.4, saturation=0.4
      ... )
      >>> changed.shape, changed.dtype, int(changed.min()) >= 60, int(changed.max()) <= 140
      ((2, 8, 8, 3), dtype('uint8'), True, True)

    Source: Howard, "Some Improvements on Deep Convolutional Neural Network Based Image
    Classification", 2013.
    """
    images = jnp.asarray(images)
    batch = check_pixels(images)
    strengths = (brightness, contrast, saturation)
    for strength in strengths:
        if not 0 <= strength < math.inf:
            raise InputError(f"color jitter is {strength!r}; expected a number of at least 0")
    factor_key, order_key = jax.random.split(key)
    # float32 by name: in float64 mode the default would draw other numbers.
    low = jnp.array([max(0.0, 1.0 - strength) for strength in strengths], jnp.float32)
    high = jnp.array([1.0 + strength for strength in strengths], jnp.float32)
    factors = jax.random.uniform(factor_key, (batch, 3), jnp.float32, low, high)
    order = jnp.argsort(jax.random.uniform(order_key, (batch, 3), jnp.float32), axis=1)
    for step in range(3):
        kind = order[:, step]
        factor = jnp.take_along_axis(factors, kind[:, None], axis=1)[:, 0]
        images = automatic(_enhance, images)(images, kind, factor)
    return images


def check_pixels(images: jax.Array) -> int:
    """Refuses what are no colour images.

    Args:
      images: uint8 ``[B, H, W, 3]``.

    Returns:
      How many there are, B.

    Raises:
      InputError: for another shape or dtype, or sides above 2048 pixels.
    """
    shape = images.shape
    usable = len(shape) == 4 and shape[3] == 3 and images.dtype == jnp.uint8
    if not usable or not all(1 <= side <= LARGEST_SIDE for side in shape[1:3]):
        raise InputError(
            f"images have shape {shape} and dtype {images.dtype}; expected uint8 [B, H, W, 3] "
            f"with sides of 1 to {LARGEST_SIDE} pixels"
        )
    return shape[0]


def _enhance(images: jax.Array, kind: jax.Array, factor: jax.Array) -> jax.Array:
    """One change for each image: what (int32) and by which factor (float32), both ``[B]``."""
    pixels, kind = images.astype(jnp.int32), kind[:, None, None, None]
    grey = luma(pixels)
    base = jnp.where(kind == _CONTRAST, mean_of(grey), grey)
    base = jnp.where(kind == _BRIGHTNESS, 0, base)
    mantissa, exponent = jnp.frexp(factor)
    whole = jnp.ldexp(mantissa, 24).astype(jnp.uint32)
    return blend(base, pixels, whole, jnp.ldexp(jnp.ones_like(factor), exponent - 24))


def luma(pixels: jax.Array) -> jax.Array:
    """The grey of each pixel, ITU-R 601-2 in Pillow's fixed point.

    Args:
      pixels: int32 ``[B, H, W, 3]``.

    Returns:
      int32 ``[B, H, W, 1]``.

    Example:
      >>> luma(jnp.array([[[[255, 0, 0], [255, 255, 255]]]], jnp.int32)).ravel().tolist()
      [76, 255]
    """
    red, green, blue = (pixels[..., channel, None] for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def mean_of(grey: jax.Array) -> jax.Array:
    """The mean of each image, rounded.

    Args:
      grey: int32 ``[B, H, W, 1]``, from 0 to 255.

    Returns:
      int32 ``[B, 1, 1, 1]``.
    """
    count = grey.shape[1] * grey.shape[2]
    return (grey.sum(axis=(1, 2, 3), keepdims=True, dtype=jnp.int32) + count // 2) // count


def blend(base: jax.Array, pixels: jax.Array, mantissa: jax.Array, scale: jax.Array) -> jax.Array:
    """``base + factor * (pixels - base)``, rounded down as Pillow's blend is.

    Args:
      base: int32, of a shape that broadcasts to that of the pixels.
      pixels: int32 ``[B, H, W, C]``, from 0 to 255.
      mantissa: the factors are ``mantissa * scale``; uint32 ``[B]``, below 2^24.
      scale: powers of two, float32 ``[B]``.

    Returns:
      uint8 ``[B, H, W, C]``.
    """
    # Pillow rounds the product to float32 and then the sum. Where a compiler fused the two, some
    # values would fall below an integer or not. The product of integers is exact, its conversion
    # rounds, and scaling by a power of two is exact, so there is nothing left to fuse.
    difference = pixels - base
    product = jnp.abs(difference).astype(jnp.uint32) * mantissa[:, None, None, None]
    change = product.astype(jnp.float32) * scale[:, None, None, None]
    blended = base.astype(jnp.float32) + jnp.where(difference < 0, -change, change)
    return jnp.clip(blended, 0, 255).astype(jnp.uint8)
