"""What the programs of fused kernels read and write: tiles ``[pixels, channels]`` by pixel.

Indices are formed so that Triton sees how they are aligned, and reads 16 bytes at a time: a row of
channels begins at a product, whose last factor is the number of channels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import triton

Array = jax.Array
Ref = Any  # an array in the device's memory


class Conv(NamedTuple):
    """Sizes of a convolution: of the batch and the images, channels in and out, stride 1 or 2."""

    batch: int
    height: int
    width: int
    num_inputs: int
    num_outputs: int
    stride: int

    @property
    def out_height(self) -> int:
        """Of the outputs."""
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        """Of the outputs."""
        return -(-self.width // self.stride)

    @property
    def pixels(self) -> int:
        """Of all inputs."""
        return self.batch * self.height * self.width

    @property
    def out_pixels(self) -> int:
        """Of all outputs."""
        return self.batch * self.out_height * self.out_width


def input_pixels(pixels: Array, conv: Conv, tap: Array) -> tuple[Array, Array]:
    """Input pixels under a tap of the kernel at output pixels, and which of them exist."""
    image, y, x = coordinates(pixels, conv.out_height, conv.out_width)
    y, x = y * conv.stride + div(tap, 3) - 1, x * conv.stride + rem(tap, 3) - 1
    inside = (y >= 0) & (y < conv.height) & (x >= 0) & (x < conv.width)
    return (image * conv.height + y) * conv.width + x, inside & (pixels < conv.out_pixels)


def output_pixels(pixels: Array, conv: Conv, tap: Array) -> tuple[Array, Array]:
    """Output pixels that see input pixels by a tap of the kernel, and which of them exist."""
    image, y, x = coordinates(pixels, conv.height, conv.width)
    y, x = y + 1 - div(tap, 3), x + 1 - rem(tap, 3)
    exist = (y >= 0) & (x >= 0) & (pixels < conv.pixels)
    if conv.stride == 2:
        exist &= (rem(y, 2) == 0) & (rem(x, 2) == 0)
        y, x = div(y, 2), div(x, 2)
    exist &= (y < conv.out_height) & (x < conv.out_width)
    return (image * conv.out_height + y) * conv.out_width + x, exist


def coordinates(pixels: Array, height: int, width: int) -> tuple[Array, Array, Array]:
    """Image, y and x of pixels."""
    line = div(pixels, width)
    return div(line, height), rem(line, height), rem(pixels, width)


def div(numbers: Array, by: int) -> Array:
    """Rounded towards 0: one instruction, unlike ``//``."""
    return lax.div(numbers, jnp.full_like(numbers, by))


def rem(numbers: Array, by: int) -> Array:
    """What `div` leaves."""
    return lax.rem(numbers, jnp.full_like(numbers, by))


def spread(column: Array, width: int) -> Array:
    """``[N]`` to ``[N, width]``."""
    return jnp.broadcast_to(column[:, None], (len(column), width))


def column_of(height: int, width: int) -> Array:
    """``[height, width]``, the number of each element's column."""
    return jnp.broadcast_to(jnp.arange(width)[None], (height, width))


def rows(ref: Ref, pixels: Array, exist: Array) -> Array:
    """Channels ``[N, C]`` of pixels; 0 of those that do not exist."""
    channels = ref.shape[1]
    where = (spread(jnp.where(exist, pixels, 0), channels), column_of(len(pixels), channels))
    return triton.load(ref.at[where], mask=spread(exist, channels), other=0)


def store(ref: Ref, pixels: Array, values: Array, exist: Array) -> None:
    """Channels of the pixels that exist."""
    channels = ref.shape[1]
    where = (spread(pixels, channels), column_of(len(pixels), channels))
    triton.store(ref.at[where], values, mask=spread(exist, channels))


def dot(left: Array, right: Array, contract: tuple[int, int] = (1, 0)) -> Array:
    """Product of matrices in float32, summed over one axis of each."""
    axes = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)
