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
    coordinates,
    div,
    dot,
    input_pixels,
    output_pixels,
    rem,
    rows,
    spread,
    store,
)

TAPS = 9
STEP = 64  # pixels whose gradients of the kernel are summed at a time
_TOTAL_TILE = 8192  # partial sums that one program reads at a time


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
    outputs_ref, partial_ref, coefficients_ref, new_mean_ref, new_var_ref, counter_ref = results
    program = pl.program_id(0)
    pixels = program * block + jnp.arange(block)
    exist = pixels < conv.out_pixels

    def add(tap: Array, total: Array) -> Array:
        images = rows(inputs_ref, *input_pixels(pixels, conv, tap))
        return total + dot(images, kernel_ref[tap].astype(inputs_ref.dtype))

    total = _over_taps(add, jnp.zeros((block, conv.num_outputs), jnp.float32))
    outputs = total.astype(outputs_ref.dtype)
    store(outputs_ref, pixels, outputs, exist)
    outputs = jnp.where(exist[:, None], outputs.astype(jnp.float32), 0)
    partial_ref[program, 0, :] = jnp.sum(outputs, 0)
    partial_ref[program, 1, :] = jnp.sum(outputs * outputs, 0)

    @pl.when(_is_last(counter_ref, parts, interpret))
    def _finish() -> None:
        mean = _total(partial_ref, 0, parts) / conv.out_pixels
        square = _total(partial_ref, 1, parts) / conv.out_pixels
        var = jnp.maximum(square - mean * mean, 0)
        inverse = lax.rsqrt(var + EPSILON)
        slope = inverse * scale_ref[:]
        for row, values in enumerate((slope, bias_ref[:] - mean * slope, mean, inverse)):
            coefficients_ref[row, :] = values
        new_mean_ref[:] = MOMENTUM * mean_ref[:] + (1 - MOMENTUM) * mean
        new_var_ref[:] = MOMENTUM * var_ref[:] + (1 - MOMENTUM) * var
        counter_ref[0] = 0


def gradients_block(
    *refs: Ref, conv: Conv, block: int, parts: int, steps: int, interpret: bool
) -> None:
    """The first programs make gradients of the inputs, the others of the kernel."""
    flat_ref, inputs_ref, grads_ref, kernel_ref, *before, _ = refs[:-5]
    outputs_ref, partial_ref, back_ref, of_kernel_ref, counter_ref = refs[-5:]
    program = pl.program_id(0)

    @pl.when(program < parts)
    def _of_inputs() -> None:
        arguments = (inputs_ref, grads_ref, kernel_ref, before, outputs_ref, partial_ref)
        _input_gradient_block(program, *arguments, conv=conv, block=block)

        @pl.when(_is_last(counter_ref, parts, interpret))
        def _finish() -> None:
            of_before = [before[1][row, :] for row in range(4)]
            total, product = _total(partial_ref, 0, parts), _total(partial_ref, 1, parts)
            found = backward_norm(total, product, of_before, conv.pixels)
            for row, values in enumerate(found):
                back_ref[row, :] = values
            counter_ref[0] = 0

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
    partial_ref: Ref,
    *,
    conv: Conv,
    block: int,
) -> None:
    """A block of gradients of the inputs, and its share of the sums."""
    pixels = program * block + jnp.arange(block)
    exist = pixels < conv.pixels

    def add(tap: Array, total: Array) -> Array:
        grads = rows(grads_ref, *output_pixels(pixels, conv, tap))
        return total + dot(grads, kernel_ref[tap].astype(grads_ref.dtype), contract=(1, 1))

    outputs_of_before = rows(before[0], pixels, exist).astype(jnp.float32)
    total = _over_taps(add, jnp.zeros((block, conv.num_inputs), jnp.float32))
    if len(before) > 2:  # the shortcut's share
        total += rows(before[2], pixels, exist).astype(jnp.float32)
    passed = rows(inputs_ref, pixels, exist).astype(jnp.float32) > 0
    outputs = jnp.where(passed, total, 0).astype(outputs_ref.dtype)
    store(outputs_ref, pixels, outputs, exist)
    outputs = outputs.astype(jnp.float32)
    partial_ref[program, 0, :] = jnp.sum(outputs, 0)
    partial_ref[program, 1, :] = jnp.sum(outputs * outputs_of_before, 0)


def kernel_gradient_part(
    program: Array, flat_ref: Ref, grads_ref: Ref, out_ref: Ref, conv: Conv, steps: int
) -> None:
    """The gradient of one row of the kernel over one part of the batch.

    The three pixels under a row lie side by side in memory, so that they are read as one row.
    """
    channels = conv.num_inputs
    part, kernel_row = div(program, 3), rem(program, 3)
    height, width = 4 * channels, conv.num_outputs  # 4: sizes are powers of 2
    column = column_of(STEP, height)

    def add(step: Array, total: Array) -> Array:
        pixels = (part * steps + step) * STEP + jnp.arange(STEP)
        exist = pixels < conv.out_pixels
        image, y, x = coordinates(pixels, conv.out_height, conv.out_width)
        y, x = y * conv.stride + kernel_row - 1, x * conv.stride - 1
        inside = exist & (y >= 0) & (y < conv.height)
        # The factor comes last: so the compiler knows that rows begin at multiples of 16.
        begin = jnp.where(inside, (image * conv.height + y) * conv.width + x, 0) * channels
        at = spread(x, height) + div(column, channels)
        on = spread(inside, height) & (at >= 0) & (at < conv.width) & (column < 3 * channels)
        images = triton.load(flat_ref.at[spread(begin, height) + column], mask=on, other=0)
        return total + dot(images, rows(grads_ref, pixels, exist), contract=(0, 0))

    total = lax.fori_loop(jnp.int32(0), steps, add, jnp.zeros((height, width), jnp.float32))
    row = spread(jnp.arange(height), width)
    where = (jnp.full_like(row, part), kernel_row * (3 * channels) + row, column_of(height, width))
    triton.store(out_ref.at[where], total, mask=row < 3 * channels)


def _is_last(counter_ref: Ref, programs: int, interpret: bool) -> Array:
    """Whether all other programs have stored their parts."""
    if not interpret:
        triton.debug_barrier()  # all threads of this program have
    return triton.atomic_add(counter_ref, (jnp.int32(0),), jnp.int32(1)) == programs - 1


def _total(partial_ref: Ref, row: int, parts: int) -> Array:
    """The sum ``[C]`` of what the programs stored in a row, some at a time."""
    channels = partial_ref.shape[2]
    many = min(pl.next_power_of_2(parts), _TOTAL_TILE // channels)
    shape = (many, channels)

    def add(step: Array, total: Array) -> Array:
        part = spread(step * many + jnp.arange(many), channels)
        where = (part, jnp.full_like(part, row), column_of(*shape))
        # Not from a cache that may hold what was there before.
        return total + triton.load(partial_ref.at[where], mask=part < parts, other=0, volatile=True)

    steps = jnp.int32(pl.cdiv(parts, many))
    return jnp.sum(lax.fori_loop(jnp.int32(0), steps, add, jnp.zeros(shape, jnp.float32)), 0)


def _over_taps(add: Callable[[Array, Array], Array], total: Array) -> Array:
    """Sum over the taps, whose loads overlap with the products before."""
    return lax.fori_loop(jnp.int32(0), jnp.int32(TAPS), add, total)
