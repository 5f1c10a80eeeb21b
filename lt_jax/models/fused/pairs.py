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
    wait,
)


def convolve(images_ref: Ref, kernel_ref: Ref, layer: Array, pairs: Array, conv: Conv) -> Array:
    """Outputs float32 ``[N, 2 Co]`` at pairs of pixels; kernels as for `taps`."""
    return _product(images_ref, kernel_ref, layer, pairs, conv, back=False)


def pull_back(grads_ref: Ref, kernel_ref: Ref, layer: Array, pairs: Array, conv: Conv) -> Array:
    """Gradients float32 ``[N, 2 Ci]`` of pairs of inputs, from those of the outputs.

    That is the convolution with the kernel turned upside down, from outputs to inputs.
    """
    return _product(grads_ref, kernel_ref, layer, pairs, conv, back=True)


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
    shape, many = (4 * num_inputs, 2 * num_outputs), at_once(conv)

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
    wait(interpret)  # until all threads have stored
    row = row_of(shape[0], num_outputs)
    where = (begin + row) * num_outputs + column_of(shape[0], num_outputs)
    of_each = [
        triton.load(out_ref.at[at], mask=row < 3 * num_inputs, other=0, volatile=True)
        for at in (where, half + where)
    ]
    triton.store(out_ref.at[where], of_each[0] + of_each[1], mask=row < 3 * num_inputs)


def _product(
    seen_ref: Ref, kernel_ref: Ref, layer: Array, pairs: Array, conv: Conv, *, back: bool
) -> Array:
    """The convolution, or what takes gradients back, at pairs."""
    seen, made = _channels(conv, back)
    total = jnp.zeros((len(pairs), 2 * made), jnp.float32)
    for line in range(3):
        tile = _seen(seen_ref, pairs, conv, seen, line)
        total += dot(tile, _weights(kernel_ref, layer, conv, line, back).astype(tile.dtype))
    return total


def _channels(conv: Conv, back: bool) -> tuple[int, int]:
    """Of what is seen, and of what is made."""
    channels = conv.num_inputs, conv.num_outputs
    return channels[::-1] if back else channels


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


def _weights(kernel_ref: Ref, layer: Array, conv: Conv, line: int, back: bool) -> Array:
    """``[4 seen, 2 made]``: what takes four pixels of a line to the two that are made."""
    seen, made = _channels(conv, back)
    row, column = row_of(4 * seen, 2 * made), column_of(4 * seen, 2 * made)
    x = div(row, seen) - div(column, made)
    tap = 8 - line * 3 - x if back else line * 3 + x
    own, other = rem(row, seen), rem(column, made)
    of_input, of_output = (other, own) if back else (own, other)
    where = ((layer * 9 + tap) * conv.num_inputs + of_input) * conv.num_outputs + of_output
    return load(kernel_ref, where, (x >= 0) & (x < 3))
