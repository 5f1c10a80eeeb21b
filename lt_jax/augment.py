"""Random changes to a batch of images: pure, batched, on the device.

Images are ``[B, H, W, C]``, uint8 or float; the dtype stays. Randomness comes in by ``key`` and is
drawn for the whole (global) batch at once, so the values do not depend on how many devices the
batch is spread over. Everything works under ``jit`` and ``vmap``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from lt_jax import color
from lt_jax.autoaugment import autoaugment as autoaugment_images
from lt_jax.errors import InputError
from lt_jax.losses._inputs import check_number
from lt_jax.sharding import automatic


def normalize(images: ArrayLike, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    r"""Pixels to numbers around 0.

    .. math:: (x / 255 - mean) / std

    Args:
      images: pixels from 0 to 255, uint8 ``[..., C]`` (or float, after `mixup`).
      mean: of pixels / 255, ``[C]``.
      std: likewise, ``[C]``, not 0.

    Returns:
      float32 ``[..., C]``.

    Example:
      >>> normalize(jnp.array([[0], [255]], jnp.uint8), [0.5], [0.25]).tolist()
      [[-2.0], [2.0]]
    """
    scaled = jnp.asarray(images).astype(jnp.float32) / 255
    return (scaled - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def random_crop(key: jax.Array, images: ArrayLike, padding: int) -> jax.Array:
    """Pads with zeros on every side and cuts each image out again at a random place.

    Args:
      key: PRNG key.
      images: ``[B, H, W, C]``.
      padding: pixels on every side, at least 0.

    Returns:
      ``[B, H, W, C]``: each image shifted by -padding to padding, every shift equally likely.

    Raises:
      InputError: for a negative padding or images of another rank.

    Example:
      >>> random_crop(jax.random.key(0), jnp.ones((2, 8, 8, 3)), 1).shape
      (2, 8, 8, 3)
    """
    images = jnp.asarray(images)
    batch, height, width, channels = _shape(images)
    if padding < 0:
        raise InputError(f"crop padding is {padding!r}; expected 0 or more pixels")
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def cut(image: jax.Array, offset: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    return automatic(jax.vmap(cut), padded)(padded, offsets)


def random_flip(key: jax.Array, images: ArrayLike) -> jax.Array:
    """Mirrors each image left to right with probability 1/2.

    Args:
      key: PRNG key.
      images: ``[B, H, W, C]``.

    Returns:
      ``[B, H, W, C]``.

    Raises:
      InputError: for images of another rank.
    """
    images = jnp.asarray(images)
    flip = jax.random.bernoulli(key, 0.5, (_shape(images)[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def cutout(key: jax.Array, images: ArrayLike, size: int, *, fill: ArrayLike = 0) -> jax.Array:
    """Blanks a square around a random pixel of each image; what sticks out is clipped.

    Args:
      key: PRNG key.
      images: ``[B, H, W, C]``.
      size: side of the square, at least 0. Rows y - size // 2 up to, without, y - size // 2 + size.
      fill: what to put there, a number or ``[C]``. The paper fills normalised images with 0, that
        is with the mean colour; for pixels give ``255 * mean``, or 0 for black.

    Returns:
      ``[B, H, W, C]``.

    Raises:
      InputError: for a negative size or images of another rank.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017.
    """
    images = jnp.asarray(images)
    batch, height, width, _ = _shape(images)
    if size < 0:
        raise InputError(f"cutout size is {size!r}; expected 0 or more pixels")
    centre = jax.random.randint(key, (batch, 2), 0, jnp.array([height, width]))
    first = centre - size // 2
    row = jnp.arange(height) - first[:, :1]
    column = jnp.arange(width) - first[:, 1:]
    inside = [(place >= 0) & (place < size) for place in (row, column)]
    blank = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(blank, jnp.asarray(fill).astype(images.dtype), images)


def mixup(
    key: jax.Array, images: ArrayLike, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""Mixes each image with another one of the batch, all with the same weight.

    .. math:: \lambda x_i + (1 - \lambda) x_{\pi(i)}, \quad \lambda \sim Beta(\alpha, \alpha)

    The labels are mixed by the caller: ``lam * loss(labels) + (1 - lam) * loss(labels[pi])``, or
    the one-hot labels likewise.

    Args:
      key: PRNG key.
      images: ``[B, ...]``, uint8 or float.
      alpha: above 0; the smaller, the closer lambda is to 0 or 1.

    Returns:
      Mixed images (float32 for uint8, else the dtype of the images), the permutation pi, int32
      ``[B]``, and lambda, a float32 scalar.

    Raises:
      InputError: for an alpha of 0 or below.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    check_number("mixup alpha", alpha, 0.0, open_low=True)
    images = jnp.asarray(images)
    lam_key, order_key = jax.random.split(key)
    lam = jax.random.beta(lam_key, alpha, alpha, dtype=jnp.float32)
    order = jax.random.permutation(order_key, images.shape[0]).astype(jnp.int32)
    dtype = images.dtype if jnp.issubdtype(images.dtype, jnp.floating) else jnp.float32
    weight = lam.astype(dtype)
    # Partners are gathered first: between devices uint8 is a quarter of the traffic.
    second = automatic(lambda all_images, of: all_images[of], images)(images, order)
    first, second = images.astype(dtype), second.astype(dtype)
    return weight * first + (1 - weight) * second, order, lam


def augment(
    key: jax.Array,
    images: ArrayLike,
    *,
    crop_padding: int = 0,
    flip: bool = False,
    color_jitter: float = 0.0,
    autoaugment: bool = False,
    cutout_size: int = 0,
    cutout_fill: ArrayLike = 0,
) -> jax.Array:
    """Random crop, then flip, colour jitter, AutoAugment and cutout: those that are on.

    Each has its own key, so that switching one off does not change what the others draw.

    Args:
      key: PRNG key.
      images: ``[B, H, W, C]``, uint8 or float.
      crop_padding: see `random_crop`; 0 for off.
      flip: whether to `random_flip`.
      color_jitter: strength in brightness, contrast and saturation, see `lt_jax.color`; 0 for off.
      autoaugment: whether to change colours and shapes, see `lt_jax.autoaugment`.
      cutout_size: see `cutout`; 0 for off.
      cutout_fill: see `cutout`.

    Returns:
      ``[B, H, W, C]``, the dtype of the images.

    Raises:
      InputError: for negative sizes or images of another rank.

    Example:
      >>> images = jnp.zeros((2, 8, 8, 3), jnp.uint8)
      >>> augment(jax.random.key(0), images, crop_padding=1, flip=True).dtype
      dtype('uint8')
    """
    crop_key, flip_key, cutout_key = jax.random.split(key, 3)
    images = jnp.asarray(images)
    _shape(images)
    if crop_padding:
        images = random_crop(crop_key, images, crop_padding)
    if flip:
        images = random_flip(flip_key, images)
    # Folded in, not split off: the draws of the others stay what they were without these two.
    if color_jitter:
        strengths = dict.fromkeys(("brightness", "contrast", "saturation"), color_jitter)
        images = color.color_jitter(jax.random.fold_in(key, 4), images, **strengths)
    if autoaugment:
        images = autoaugment_images(jax.random.fold_in(key, 3), images)
    if cutout_size:
        images = cutout(cutout_key, images, cutout_size, fill=cutout_fill)
    return images


def _shape(images: jax.Array) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise InputError(f"images have shape {images.shape}; expected [B, H, W, C]")
    batch, height, width, channels = images.shape
    return batch, height, width, channels
