"""What each program of the fused kernels does, see `convolutions`."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lt_jax.models.conv import EPSILON, MOMENTUM
from lt_jax.models.fused.tiles import (
    Array,
    Conv,
    Ref,
    column_of,
    div,
    dot,
    over,
    place,
    rem,
    rows,
    spread,
    store,
    under,
)

TAPS = 9
STEP = 64  # pixels whose gradients of the kernel are summed at a time


def backward_norm(
    total: Array, product: Array, coefficients: Sequence[Array], count: int
) -> tuple[Array, ...]:
    """What batch norm's gradient is made of, from sums over the batch.

    ``a * grads + b * outputs + c`` is the gradient of the convolution's outputs.

    Args:
      total: sum of the gradients, float32 ``[C]``.
      product: sum of gradients times the convolution's outputs, float32 ``[C]``.
      coefficients: slope, shift, mean and 1 / deviation, float32 ``[C]`` each.
      count: how many were summed.

    Returns:
      a, b, c, and the gradients of scale and bias, float32 ``[C]`` each.
    """
    slope, _, mean, inverse = coefficients
    of_scale = inverse * (product - mean * total)
    through_variance = slope * inverse * of_scale / count
    shift = mean * through_variance - slope * total / count
    return slope, -through_variance, shift, of_scale, total


def forward_block(*refs: Ref, conv: Conv, block: int, parts: int, interpret: bool) -> None:
    """A block of outputs; the last program to be done makes the coefficients of all."""
    inputs_ref, kernel_ref, scale_ref, bias_ref, mean_ref, var_ref, _, *results = refs
    outputs_ref, parts_ref, coefficients_ref, new_mean_ref, new_var_ref, turn_ref = results
    program = pl.program_id(0)
    pixels = program * block + jnp.arange(block)
    exist = pixels < conv.out_pixels

    def add(tap: Array, total: Array) -> Array:
        images = rows(inputs_ref, *under(pixels, conv, tap))
        return total + dot(images, kernel_ref[tap].astype(inputs_ref.dtype))

    total = _over_taps(add, jnp.zeros((block, conv.num_outputs), jnp.float32))
    outputs = total.astype(outputs_ref.dtype)
    store(outputs_ref, pixels, outputs, exist)
    outputs = jnp.where(exist[:, None], outputs.astype(jnp.float32), 0)
    parts_ref[program, 0, :] = jnp.sum(outputs, 0)
    parts_ref[program, 1, :] = jnp.sum(outputs * outputs, 0)

    @pl.when(_is_last(turn_ref, parts, interpret))
    def _finish() -> None:
        mean = _total(parts_ref, 0, parts) / conv.out_pixels
        square = _total(parts_ref, 1, parts) / conv.out_pixels
        var = jnp.maximum(square - mean * mean, 0)
        inverse = lax.rsqrt(var + EPSILON)
        slope = inverse * scale_ref[:]
        for row, values in enumerate((slope, bias_ref[:] - mean * slope, mean, inverse)):
            coefficients_ref[row, :] = values
        new_mean_ref[:] = MOMENTUM * mean_ref[:] + (1 - MOMENTUM) * mean
        new_var_ref[:] = MOMENTUM * var_ref[:] + (1 - MOMENTUM) * var
        turn_ref[0] = 0


def gradients_block(
    *refs: Ref, conv: Conv, block: int, parts: int, steps: int, interpret: bool
) -> None:
    """The first programs make gradients of the inputs, the others of the kernel."""
    flat_ref, inputs_ref, grads_ref, kernel_ref, *before, _ = refs[:-5]
    outputs_ref, parts_ref, coefficients_ref, of_kernel_ref, turn_ref = refs[-5:]
    program = pl.program_id(0)

    @pl.when(program < parts)
    def _of_inputs() -> None:
        arguments = (inputs_ref, grads_ref, kernel_ref, before, outputs_ref, parts_ref)
        _input_gradient_block(program, *arguments, conv=conv, block=block)

        @pl.when(_is_last(turn_ref, parts, interpret))
        def _finish() -> None:
            of_before = [before[1][row, :] for row in range(4)]
            total, product = _total(parts_ref, 0, parts), _total(parts_ref, 1, parts)
            found = backward_norm(total, product, of_before, conv.pixels)
            for row, values in enumerate(found):
                coefficients_ref[row, :] = values
            turn_ref[0] = 0

    @pl.when(program >= parts)
    def _of_kernel() -> None:
        kernel_gradient_part(program - parts, flat_ref, grads_ref, of_kernel_ref, conv, steps)


def _input_gradient_block(
    program: Array,
    inputs_ref: Ref,
    grads_ref: Ref,
    kernel_ref: Ref,
    before: Sequence[Ref],
    outputs_ref: Ref,
    parts_ref: Ref,
    *,
    conv: Conv,
    block: int,
) -> None:
    """A block of gradients of the inputs, and its share of the sums."""
    pixels = program * block + jnp.arange(block)
    exist = pixels < conv.pixels

    def add(tap: Array, total: Array) -> Array:
        grads = rows(grads_ref, *over(pixels, conv, tap))
        return total + dot(grads, kernel_ref[tap].astype(grads_ref.dtype), over=(1, 1))

    outputs_of_before = rows(before[0], pixels, exist).astype(jnp.float32)
    total = _over_taps(add, jnp.zeros((block, conv.num_inputs), jnp.float32))
    if len(before) > 2:  # the shortcut's share
        total += rows(before[2], pixels, exist).astype(jnp.float32)
    passed = rows(inputs_ref, pixels, exist).astype(jnp.float32) > 0
    outputs = jnp.where(passed, total, 0).astype(outputs_ref.dtype)
    store(outputs_ref, pixels, outputs, exist)
    outputs = outputs.astype(jnp.float32)
    parts_ref[program, 0, :] = jnp.sum(outputs, 0)
    parts_ref[program, 1, :] = jnp.sum(outputs * outputs_of_before, 0)


def kernel_gradient_part(
    program: Array, flat_ref: Ref, grads_ref: Ref, out_ref: Ref, conv: Conv, steps: int
) -> None:
    """The gradient of one line of the kernel over one part of the batch.

    The three pixels under a line lie side by side in memory, so that they are read as one row.
    """
    channels = conv.num_inputs
    part, line = div(program, 3), rem(program, 3)
    height, width = 4 * channels, conv.num_outputs  # 4: sizes are powers of 2
    column = column_of(STEP, height)

    def add(step: Array, total: Array) -> Array:
        pixels = (part * steps + step) * STEP + jnp.arange(STEP)
        exist = pixels < conv.out_pixels
        image, y, x = place(pixels, conv.out_height, conv.out_width)
        y, x = y * conv.stride + line - 1, x * conv.stride - 1
        inside = exist & (y >= 0) & (y < conv.height)
        # The factor comes last: so the compiler knows that rows begin at multiples of 16.
        begin = jnp.where(inside, (image * conv.height + y) * conv.width + x, 0) * channels
        at = spread(x, height) + div(column, channels)
        on = spread(inside, height) & (at >= 0) & (at < conv.width) & (column < 3 * channels)
        images = triton.load(flat_ref.at[spread(begin, height) + column], mask=on, other=0)
        return total + dot(images, rows(grads_ref, pixels, exist), over=(0, 0))

    total = lax.fori_loop(jnp.int32(0), steps, add, jnp.zeros((height, width), jnp.float32))
    row = spread(jnp.arange(height), width)
    where = (jnp.full_like(row, part), line * (3 * channels) + row, column_of(height, width))
    triton.store(out_ref.at[where], total, mask=row < 3 * channels)


def _is_last(turn_ref: Ref, programs: int, interpret: bool) -> Array:
    """Whether all other programs have stored their parts."""
    if not interpret:
        triton.debug_barrier()  # all threads of this program have
    return triton.atomic_add(turn_ref, (jnp.int32(0),), jnp.int32(1)) == programs - 1


def _total(parts_ref: Ref, row: int, parts: int) -> Array:
    """The sum ``[C]`` of what the programs stored in a row."""
    shape = (pl.next_power_of_2(parts), parts_ref.shape[2])
    part = spread(jnp.arange(shape[0]), shape[1])
    where = (part, jnp.full_like(part, row), column_of(*shape))
    values = triton.load(parts_ref.at[where], mask=part < parts, other=0, volatile=True)
    return jnp.sum(values, 0)


def _over_taps(add: Callable[[Array, Array], Array], total: Array) -> Array:
    """Sum over the taps, whose loads overlap with the products before."""
    return lax.fori_loop(jnp.int32(0), jnp.int32(TAPS), add, total)
