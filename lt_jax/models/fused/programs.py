"""What each program of the fused kernels does, see `convolutions`."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lt_jax.models.conv import EPSILON, MOMENTUM
from lt_jax.models.fused import pairs, taps
from lt_jax.models.fused.tiles import (
    Array,
    Conv,
    Ref,
    column_of,
    div,
    rem,
    row_of,
    rows,
    store,
    wait,
)

_TOTAL_TILE = 8192  # partial sums that one program reads at a time


def products(side: int) -> Any:
    """The module that has a convolution's products for rows of one pixel or of two."""
    return pairs if side == 2 else taps


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


def forward_block(
    *refs: Ref, conv: Conv, side: int, block: int, parts: int, interpret: bool
) -> None:
    """A block of outputs; the last program to be done makes the coefficients of all."""
    images_ref, kernel_ref, norms_ref, place_ref, mean_ref, var_ref, _, *results = refs
    outputs_ref, sums_ref, coefficients_ref, new_mean_ref, new_var_ref, counter_ref = results
    program = pl.program_id(0)
    places = program * block + jnp.arange(block)
    exist = places < conv.out_pixels // side
    total = products(side).convolve(images_ref, kernel_ref, place_ref[0], places, conv)
    outputs = total.astype(outputs_ref.dtype)
    store(outputs_ref, places, outputs, exist)
    outputs = jnp.where(exist[:, None], outputs.astype(jnp.float32), 0)
    _store_sums(sums_ref, program, parts, outputs, outputs * outputs)

    @pl.when(_is_last(counter_ref, parts, interpret))
    def _finish() -> None:
        channels = conv.num_outputs
        sums = _totals(sums_ref, parts * side, channels)
        mean, square = (total / conv.out_pixels for total in sums)
        var = jnp.maximum(square - mean * mean, 0)
        inverse = lax.rsqrt(var + EPSILON)
        bias, scale = (
            triton.load(norms_ref.at[place_ref[1] + begin + jnp.arange(channels)])
            for begin in (0, channels)
        )
        slope = inverse * scale
        for row, values in enumerate((slope, bias - mean * slope, mean, inverse)):
            coefficients_ref[row, :] = values
        new_mean_ref[:] = MOMENTUM * mean_ref[:] + (1 - MOMENTUM) * mean
        new_var_ref[:] = MOMENTUM * var_ref[:] + (1 - MOMENTUM) * var
        counter_ref[0] = 0


def gradients_block(
    *refs: Ref, conv: Conv, side: int, block: int, parts: int, lines: int, steps: int,
    interpret: bool,
) -> None:  # fmt: skip
    """Some programs make gradients of the inputs, the others, `lines` of them, of the kernel.

    The longer ones come first, or they would be waited for at the end: those of the kernel, but for
    a stride of 2.
    """
    images_ref, grads_ref, kernel_ref, place_ref, *before, _ = refs[:-5]
    outputs_ref, sums_ref, back_ref, of_kernel_ref, counter_ref = refs[-5:]
    program = pl.program_id(0)
    is_kernel_first = conv.stride == 1
    of_inputs = program - lines if is_kernel_first else program
    of_kernel = program if is_kernel_first else program - parts
    is_of_inputs = (of_inputs >= 0) & (of_inputs < parts)

    @pl.when(is_of_inputs)
    def _of_inputs() -> None:
        arguments = (images_ref, grads_ref, kernel_ref, place_ref[0], before, outputs_ref, sums_ref)
        _input_gradient_block(of_inputs, parts, *arguments, conv=conv, side=side, block=block)

        @pl.when(_is_last(counter_ref, parts, interpret))
        def _finish() -> None:
            of_before = [before[1][row, :] for row in range(4)]
            total, product = _totals(sums_ref, parts * side, conv.num_inputs)
            found = backward_norm(total, product, of_before, conv.pixels)
            for row, values in enumerate(found):
                back_ref[row, :] = values
            counter_ref[0] = 0

    @pl.when(jnp.logical_not(is_of_inputs))
    def _of_kernel() -> None:
        kernel_gradient_part(
            of_kernel, images_ref, grads_ref, of_kernel_ref,
            conv=conv, side=side, steps=steps, interpret=interpret,
        )  # fmt: skip


def kernel_gradient_part(
    number: Array, images_ref: Ref, grads_ref: Ref, out_ref: Ref, *, conv: Conv, side: int,
    steps: int, interpret: bool,
) -> None:  # fmt: skip
    """The gradient of one line of the kernel over one part of the batch."""
    products(side).kernel_gradient(
        div(number, 3), rem(number, 3), images_ref, grads_ref, out_ref, conv, steps, interpret
    )


def _input_gradient_block(
    program: Array,
    parts: int,
    images_ref: Ref,
    grads_ref: Ref,
    kernel_ref: Ref,
    layer: Array,
    before: Sequence[Ref],
    outputs_ref: Ref,
    sums_ref: Ref,
    *,
    conv: Conv,
    side: int,
    block: int,
) -> None:
    """A block of gradients of the inputs, and its share of the sums."""
    places = program * block + jnp.arange(block)
    exist = places < conv.pixels // side
    width = side * conv.num_inputs

    def here(ref: Ref) -> Array:
        return rows(ref, places, exist, width).astype(jnp.float32)

    total = products(side).pull_back(grads_ref, kernel_ref, layer, places, conv)
    if len(before) > 2:  # the shortcut's share
        total += here(before[2])
    outputs = jnp.where(here(images_ref) > 0, total, 0).astype(outputs_ref.dtype)
    store(outputs_ref, places, outputs, exist)
    outputs = outputs.astype(jnp.float32)
    _store_sums(sums_ref, program, parts, outputs, outputs * here(before[0]))


def _store_sums(sums_ref: Ref, program: Array, parts: int, *tiles: Array) -> None:
    """A program's sums over the rows of tiles, in ``[tiles, parts, width]``, flat."""
    for number, tile in enumerate(tiles):
        width = tile.shape[1]
        where = (number * parts + program) * width + jnp.arange(width)
        triton.store(sums_ref.at[where], jnp.sum(tile, 0))


def _totals(sums_ref: Ref, parts: int, channels: int) -> list[Array]:
    """Both sums ``[C]`` of what the programs stored, some at a time."""
    many = min(pl.next_power_of_2(parts), _TOTAL_TILE // channels)
    shape = (many, channels)

    def total_of(number: int) -> Array:
        def add(step: Array, total: Array) -> Array:
            part = step * many + row_of(*shape)
            where = (number * parts + part) * channels + column_of(*shape)
            # Not from a cache that may hold what was there before.
            found = triton.load(sums_ref.at[where], mask=part < parts, other=0, volatile=True)
            return total + found

        steps = jnp.int32(pl.cdiv(parts, many))
        return jnp.sum(lax.fori_loop(jnp.int32(0), steps, add, jnp.zeros(shape, jnp.float32)), 0)

    return [total_of(number) for number in range(2)]


def _is_last(counter_ref: Ref, programs: int, interpret: bool) -> Array:
    """Whether all other programs have stored their parts."""
    wait(interpret)  # all threads of this program have
    return triton.atomic_add(counter_ref, (jnp.int32(0),), jnp.int32(1)) == programs - 1
