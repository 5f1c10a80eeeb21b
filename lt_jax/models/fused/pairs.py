"""Products of a 3x3 convolution of stride 1, line by line; a row of a tile is two neighbours.

Two outputs side by side see four pixels of each line. So a tile of four pixels a row, times a
matrix in which a line of the kernel stands twice, one pixel apart, makes two outputs at once: six
pixels are read for an output instead of nine, in three steps. Where channels are few this is
quicker, though a third of the products is with 0.
"""

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import triton

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
)


def convolve(images_ref: Ref, kernel_ref: Ref, layer: Array, pairs: Array, conv: Conv) -> Array:
    """Outputs float32 ``[N, 2 Co]`` at pairs of pixels; kernels as for `taps`."""
    total = jnp.zeros((len(pairs), 2 * conv.num_outputs), jnp.float32)
    for line in range(3):
        images = _seen(images_ref, pairs, conv, conv.num_inputs, line)
        total += dot(images, _weights(kernel_ref, layer, conv, line).astype(images.dtype))
    return total


def pull_back(grads_ref: Ref, kernel_ref: Ref, layer: Array, pairs: Array, conv: Conv) -> Array:
    """Gradients float32 ``[N, 2 Ci]`` of pairs of inputs, from those of the outputs.

    That is the convolution with the kernel turned upside down, from outputs to inputs.
    """
    total = jnp.zeros((len(pairs), 2 * conv.num_inputs), jnp.float32)
    for line in range(3):
        grads = _seen(grads_ref, pairs, conv, conv.num_outputs, line)
        total += dot(grads, _weights_back(kernel_ref, layer, conv, line).astype(grads.dtype))
    return total


def at_once(_: Conv) -> int:
    """Pairs whose gradients of the kernel are summed at a time, as measured on an H200."""
    return 64


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

    The product of four inputs and two outputs holds it twice, once for each output. Both are
    stored, and then the second is added to the first.
    """
    num_inputs, num_outputs = conv.num_inputs, conv.num_outputs
    shape = (4 * num_inputs, 2 * num_outputs)

    many = at_once(conv)

    def add(step: Array, total: Array) -> Array:
        pairs = (part * steps + step) * many + jnp.arange(many)
        images = _seen(images_ref, pairs, conv, num_inputs, line)
        exist = pairs < conv.pixels // 2
        return total + dot(images, rows(grads_ref, pairs, exist, shape[1]), contract=(0, 0))

    total = lax.fori_loop(jnp.int32(0), steps, add, jnp.zeros(shape, jnp.float32))
    row, column = row_of(*shape), column_of(*shape)
    second = div(column, num_outputs)
    row -= second * num_inputs  # the second output sees its pixels one further to the right
    real = (row >= 0) & (row < 3 * num_inputs)
    begin = (part * 3 + line) * (3 * num_inputs)
    half = out_ref.shape[0] // 2
    where = second * half + (begin + row) * num_outputs + rem(column, num_outputs)
    triton.store(out_ref.at[where], total, mask=real)
    if not interpret:
        triton.debug_barrier()  # until all threads have stored
    row = row_of(shape[0], num_outputs)
    where = (begin + row) * num_outputs + column_of(shape[0], num_outputs)
    of_each = [
        triton.load(out_ref.at[at], mask=row < 3 * num_inputs, other=0, volatile=True)
        for at in (where, half + where)
    ]
    triton.store(out_ref.at[where], of_each[0] + of_each[1], mask=row < 3 * num_inputs)


def _seen(ref: Ref, pairs: Array, conv: Conv, channels: int, line: Array | int) -> Array:
    """The pixels ``[N, 4 channels]`` under a line of the kernel, at each pair."""
    width = 4 * channels
    _, y, x = coordinates(pairs, conv.height, conv.width // 2)
    y, x = y + line - 1, 2 * x - 1
    inside = (pairs < conv.pixels // 2) & (y >= 0) & (y < conv.height)
    begin = jnp.where(inside, 2 * pairs - 1 + (line - 1) * conv.width, 0) * channels
    column = column_of(len(pairs), width)
    at = spread(x, width) + div(column, channels)
    on = spread(inside, width) & (at >= 0) & (at < conv.width)
    return load(ref, spread(begin, width) + column, on)


def _weights(kernel_ref: Ref, layer: Array, conv: Conv, line: int) -> Array:
    """``[4 Ci, 2 Co]``: what takes four pixels of a line to two outputs."""
    shape = (4 * conv.num_inputs, 2 * conv.num_outputs)
    row, column = row_of(*shape), column_of(*shape)
    x = div(row, conv.num_inputs) - div(column, conv.num_outputs)
    tap = layer * 9 + line * 3 + x
    row = tap * conv.num_inputs + rem(row, conv.num_inputs)
    where = row * conv.num_outputs + rem(column, conv.num_outputs)
    return load(kernel_ref, where, (x >= 0) & (x < 3))


def _weights_back(kernel_ref: Ref, layer: Array, conv: Conv, line: int) -> Array:
    """``[4 Co, 2 Ci]``: what takes gradients of four outputs of a line to two inputs."""
    shape = (4 * conv.num_outputs, 2 * conv.num_inputs)
    row, column = row_of(*shape), column_of(*shape)
    x = div(row, conv.num_outputs) - div(column, conv.num_inputs)
    tap = layer * 9 + (2 - line) * 3 + 2 - x
    where = (tap * conv.num_inputs + rem(column, conv.num_inputs)) * conv.num_outputs
    return load(kernel_ref, where + rem(row, conv.num_outputs), (x >= 0) & (x < 3))
