"""What the programs of fused kernels read and write: tiles, by row, of flat arrays.

Images are flat, pixels in the order of ``[B, H, W, C]``; a row of a tile is one pixel, or two
neighbours. Indices are formed so that Triton sees how they are aligned, and reads 16 bytes at a
time: a row begins at a product, whose last factor is the number of channels.
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


def row_of(height: int, width: int) -> Array:
    """``[height, width]``, the number of each element's row."""
    return spread(jnp.arange(height), width)


def column_of(height: int, width: int) -> Array:
    """``[height, width]``, the number of each element's column."""
    return jnp.broadcast_to(jnp.arange(width)[None], (height, width))


def load(ref: Ref, where: Array, exist: Array) -> Array:
    """Elements of a flat array; 0 for those that do not exist."""
    return triton.load(ref.at[where], mask=exist, other=0)


def rows(ref: Ref, numbers: Array, exist: Array, width: int) -> Array:
    """Rows ``[N, width]`` of a flat array; 0 for those that do not exist."""
    begin = jnp.where(exist, numbers, 0) * width
    return load(ref, spread(begin, width) + column_of(len(numbers), width), spread(exist, width))


def store(ref: Ref, numbers: Array, values: Array, exist: Array) -> None:
    """The rows that exist, of a flat array."""
    width = values.shape[1]
    where = spread(numbers * width, width) + column_of(len(numbers), width)
    triton.store(ref.at[where], values, mask=spread(exist, width))


def wait(interpret: bool) -> None:
    """For all threads of a program, and what they have stored; simulated ones are one."""
    if not interpret:
        triton.debug_barrier()


def dot(left: Array, right: Array, contract: tuple[int, int] = (1, 0)) -> Array:
    """Product of matrices in float32, summed over one axis of each."""
    axes = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)
