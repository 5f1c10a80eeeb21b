"""Products of a 3x3 convolution, tap by tap; a row of a tile is one pixel.

Kernels are flat here, of one layer or of several with the same sizes: ``[layers, 9, Ci, Co]``.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from lt_jax.models.fused.tiles import (
    Array,
    Conv,
    Ref,
    column_of,
    coordinates,
    div,
    dot,
    load,
    rem,
    row_of,
    rows,
    spread,
    store,
)

_TAPS = 9


def convolve(images_ref: Ref, kernel_ref: Ref, layer: Array, pixels: Array, conv: Conv) -> Array:
    """Outputs float32 ``[N, Co]`` at output pixels."""

    def add(tap: Array, total: Array) -> Array:
        images = rows(images_ref, *_inputs_under(pixels, conv, tap), conv.num_inputs)
        return total + dot(images, _weights(kernel_ref, layer, tap, conv).astype(images.dtype))

    return _over_taps(add, jnp.zeros((len(pixels), conv.num_outputs), jnp.float32))


def pull_back(grads_ref: Ref, kernel_ref: Ref, layer: Array, pixels: Array, conv: Conv) -> Array:
    """Gradients float32 ``[N, Ci]`` of input pixels, from those of the outputs."""

    def add(tap: Array, total: Array) -> Array:
        grads = rows(grads_ref, *_outputs_over(pixels, conv, tap), conv.num_outputs)
        weights = _weights(kernel_ref, layer, tap, conv).astype(grads.dtype)
        return total + dot(grads, weights, contract=(1, 1))

    return _over_taps(add, jnp.zeros((len(pixels), conv.num_inputs), jnp.float32))


def at_once(conv: Conv) -> int:
    """Pixels whose gradients of the kernel are summed at a time, as measured on an H200."""
    return 16 if conv.num_inputs >= 64 else 64


def kernel_gradient(
    part: Array,
    line: Array,
    images_ref: Ref,
    grads_ref: Ref,
    out_ref: Ref,
    conv: Conv,
    steps: int,
    interpret: bool,
) -> None:
    """The gradient of one line of the kernel over one part of the batch.

    The three pixels under a line lie side by side in memory, so that they are read as one row.
    """
    del interpret  # as for pairs
    channels, many = conv.num_inputs, at_once(conv)
    height, width = 4 * channels, conv.num_outputs  # 4: sizes are powers of 2
    column = column_of(many, height)

    def add(step: Array, total: Array) -> Array:
        pixels = (part * steps + step) * many + jnp.arange(many)
        exist = pixels < conv.out_pixels
        image, y, x = coordinates(pixels, conv.out_height, conv.out_width)
        y, x = y * conv.stride + line - 1, x * conv.stride - 1
        inside = exist & (y >= 0) & (y < conv.height)
        begin = jnp.where(inside, (image * conv.height + y) * conv.width + x, 0) * channels
        at = spread(x, height) + div(column, channels)
        on = spread(inside, height) & (at >= 0) & (at < conv.width) & (column < 3 * channels)
        images = load(images_ref, spread(begin, height) + column, on)
        return total + dot(images, rows(grads_ref, pixels, exist, width), contract=(0, 0))

    total = lax.fori_loop(jnp.int32(0), steps, add, jnp.zeros((height, width), jnp.float32))
    row = jnp.arange(height)
    store(out_ref, (part * 3 + line) * (3 * channels) + row, total, row < 3 * channels)


def _weights(kernel_ref: Ref, layer: Array, tap: Array, conv: Conv) -> Array:
    """``[Ci, Co]`` of one tap."""
    shape = (conv.num_inputs, conv.num_outputs)
    row = (layer * _TAPS + tap) * conv.num_inputs + row_of(*shape)
    return load(kernel_ref, row * conv.num_outputs + column_of(*shape), jnp.full(shape, True))


def _inputs_under(pixels: Array, conv: Conv, tap: Array) -> tuple[Array, Array]:
    """Input pixels under a tap of the kernel at output pixels, and which of them exist."""
    image, y, x = coordinates(pixels, conv.out_height, conv.out_width)
    y, x = y * conv.stride + div(tap, 3) - 1, x * conv.stride + rem(tap, 3) - 1
    inside = (y >= 0) & (y < conv.height) & (x >= 0) & (x < conv.width)
    return (image * conv.height + y) * conv.width + x, inside & (pixels < conv.out_pixels)


def _outputs_over(pixels: Array, conv: Conv, tap: Array) -> tuple[Array, Array]:
    """Output pixels that see input pixels by a tap of the kernel, and which of them exist."""
    image, y, x = coordinates(pixels, conv.height, conv.width)
    y, x = y + 1 - div(tap, 3), x + 1 - rem(tap, 3)
    exist = (y >= 0) & (x >= 0) & (pixels < conv.pixels)
    if conv.stride == 2:
        exist &= (rem(y, 2) == 0) & (rem(x, 2) == 0)
        y, x = div(y, 2), div(x, 2)
    exist &= (y < conv.out_height) & (x < conv.out_width)
    return (image * conv.out_height + y) * conv.out_width + x, exist


def _over_taps(add: Callable[[Array, Array], Array], total: Array) -> Array:
    """Sum over the taps, whose loads overlap with the products before."""
    return lax.fori_loop(jnp.int32(0), jnp.int32(_TAPS), add, total)
