"""3x3 convolutions of a training step on a GPU, each with its share of batch norm in one kernel.

The convolutions of a CIFAR ResNet are so narrow that a step is bound by how many kernels it starts
and by how long each waits for memory. Here a layer takes four: the convolution with the statistics
of its outputs; both its gradients with the sums that batch norm's gradient needs; and before each
an elementwise one, which XLA makes. Written for Pallas's Triton backend; ``interpret`` runs the
same code on a CPU, for tests. Sums do not depend on the order in which programs run.

Images are flat here: pixels and their channels in the order of ``[B, H, W, C]``. Numbers of
channels are powers of 2, at least 16.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from lt_jax.models.fused import programs
from lt_jax.models.fused.tiles import Array, Conv, Ref

# XLA fuses sums of fewer than 32 parts into the update of the weights: they take no kernel then.
_PARTS = 30
# The rest as measured on an H200.
_TILE = 4096  # pixels times channels that a program makes; twice as many in pairs
_WIDEST_PAIR_FORWARD = 16  # channels up to which pixels go in pairs, see `pairs`
_WIDEST_PAIR = 32
_STAGES_FORWARD, _STAGES = 5, 3  # of loading ahead


class Weights(NamedTuple):
    """Of a layer, where they lie among those of others.

    Attributes:
      kernels: flat, of layers with the same sizes, ``[layers, 9, Ci, Co]``; any float dtype, they
        are computed in that of the images.
      norms: float32, flat, of every layer batch norm's bias ``[Co]`` and scale ``[Co]``.
      place: int32: which of the kernels, and where in `norms` the layer begins.
    """

    kernels: Array
    norms: Array
    place: Array


class Running(NamedTuple):
    """Running statistics of a layer, float32 ``[Co]``."""

    mean: Array
    var: Array


@functools.partial(jax.jit, static_argnames=("conv", "interpret"))  # traced once for all layers
def forward(
    images: Array,
    weights: Weights,
    running: Running,
    counter: Array,
    *,
    conv: Conv,
    interpret: bool,
) -> tuple[Array, Array, Running, Array]:
    """A convolution, and what normalises its outputs by the statistics of the batch.

    Args:
      images: flat, ``[pixels, Ci]``.
      weights: of the layer.
      running: statistics before this batch.
      counter: int32 ``[1]``, zero. Programs count in it which of them is the last.
      conv: the sizes.
      interpret: whether to run on a CPU.

    Returns:
      Outputs, flat, ``[out_pixels, Co]``; float32 ``[4, Co]``: slope and shift of the
      normalisation, mean and 1 / deviation; the running statistics; and `counter`, zero again.
    """
    channels = conv.num_outputs
    side = _side(conv, _WIDEST_PAIR_FORWARD)
    block, parts = _blocks(conv.out_pixels, channels, side)
    body = functools.partial(
        programs.forward_block, conv=conv, side=side, block=block, parts=parts, interpret=interpret
    )
    outputs, _, coefficients, mean, var, counter = _call(
        body,
        parts,
        [images, *weights, *running, counter],
        [
            _shape((conv.out_pixels * channels,), images.dtype),
            _shape((2 * parts * side * channels,)),
            _shape((4, channels)),
            _shape((channels,)),
            _shape((channels,)),
            _shape((1,), jnp.int32),
        ],
        aliases={4: 3, 5: 4, 6: 5},
        stages=_STAGES_FORWARD,
        interpret=interpret,
    )
    return outputs, coefficients, Running(mean, var), counter


@functools.partial(jax.jit, static_argnames=("conv", "interpret"))
def gradients(
    images: Array,
    grads: Array,
    weights: Weights,
    before: Sequence[Array],
    counter: Array,
    *,
    conv: Conv,
    interpret: bool,
) -> tuple[Array, Array, Array, Array]:
    """Both gradients of a convolution, that of its inputs through the relu they come from.

    Args:
      images: inputs of the convolution, flat, ``[pixels, Ci]``, at least 0.
      grads: of its outputs, flat, ``[out_pixels, Co]``.
      weights: of the layer.
      before: of the layer that the inputs come from: outputs of its convolution, flat,
        ``[pixels, Ci]``, and their coefficients, from `forward`; and the gradients, flat,
        ``[pixels, Ci]``, that pass this convolution by on a shortcut, if there is one.
      counter: as in `forward`.
      conv: the sizes.
      interpret: whether to run on a CPU.

    Returns:
      Gradients, flat, ``[pixels, Ci]`` of what batch norm gave that layer's relu; of them,
      `backward_norm` float32 ``[5, Ci]``; gradients of the kernel, float32 ``[9, Ci, Co]``; and
      `counter`.
    """
    channels = conv.num_inputs
    side = _side(conv, _WIDEST_PAIR)
    block, parts = _blocks(conv.pixels, channels, side)
    steps, kernel_parts = _kernel_parts(conv, side)
    body = functools.partial(
        programs.gradients_block, conv=conv, side=side, block=block, parts=parts,
        lines=3 * kernel_parts, steps=steps, interpret=interpret,
    )  # fmt: skip
    outputs, _, back, of_kernel, counter = _call(
        body,
        parts + 3 * kernel_parts,
        [images, grads, weights.kernels, weights.place, *before, counter],
        [
            _shape((conv.pixels * channels,), grads.dtype),
            _shape((2 * parts * side * channels,)),
            _shape((5, channels)),
            _of_kernel(conv, side, kernel_parts),
            _shape((1,), jnp.int32),
        ],
        aliases={4 + len(before): 4},
        stages=_STAGES,
        interpret=interpret,
    )
    return outputs, back, _summed(of_kernel, conv, kernel_parts), counter


def kernel_gradient(images: Array, grads: Array, *, conv: Conv, interpret: bool) -> Array:
    """The gradient of the kernel alone, float32 ``[9, Ci, Co]``; arguments as in `gradients`."""
    side = _side(conv, _WIDEST_PAIR)
    steps, parts = _kernel_parts(conv, side)

    def kernel_gradient_program(images_ref: Ref, grads_ref: Ref, out_ref: Ref) -> None:
        programs.kernel_gradient_part(
            pl.program_id(0), images_ref, grads_ref, out_ref,
            conv=conv, side=side, steps=steps, interpret=interpret,
        )  # fmt: skip

    [of_kernel] = _call(
        kernel_gradient_program,
        3 * parts,
        [images, grads],
        [_of_kernel(conv, side, parts)],
        aliases={},
        stages=_STAGES,
        interpret=interpret,
    )
    return _summed(of_kernel, conv, parts)


def _side(conv: Conv, widest: int) -> int:
    """Pixels in a row of a tile: pairs up to some channels, where lines are made of pairs."""
    is_narrow = max(conv.num_inputs, conv.num_outputs) <= widest
    return 2 if is_narrow and conv.stride == 1 and conv.width % 2 == 0 else 1


def _blocks(pixels: int, channels: int, side: int) -> tuple[int, int]:
    """Rows that a program makes, and how many programs there are."""
    block = _TILE // channels
    return block, pl.cdiv(pixels // side, block)


def _kernel_parts(conv: Conv, side: int) -> tuple[int, int]:
    """Steps of a program for the kernel's gradient, and in how many parts its sums come."""
    count, at_once = conv.out_pixels // side, programs.products(side).at_once(conv)
    steps = pl.cdiv(count, at_once * _PARTS)
    return steps, pl.cdiv(count, at_once * steps)


def _of_kernel(conv: Conv, side: int, parts: int) -> jax.ShapeDtypeStruct:
    """The parts, flat; of pairs each output's, of which the first are the parts."""
    return _shape((side * parts * 9 * conv.num_inputs * conv.num_outputs,))


def _summed(of_kernel: Array, conv: Conv, parts: int) -> Array:
    """The parts' sum ``[9, Ci, Co]``."""
    shape = (9, conv.num_inputs, conv.num_outputs)
    return of_kernel.reshape(-1, *shape)[:parts].sum(0)


def _shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _call(
    body: Callable[..., None],
    count: int,
    arguments: Sequence[Array],
    results: Sequence[jax.ShapeDtypeStruct],
    *,
    aliases: dict[int, int],
    stages: int,
    interpret: bool,
) -> list[Array]:
    """Runs the kernel, whose programs see all arrays whole."""

    def whole(array: Any) -> pl.BlockSpec:
        return pl.BlockSpec(array.shape, lambda *_: (0,) * array.ndim)

    call = pl.pallas_call(
        body,
        grid=(count,),
        in_specs=[whole(array) for array in arguments],
        out_specs=[whole(array) for array in results],
        out_shape=list(results),
        input_output_aliases=aliases,
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=stages),
        interpret=interpret,
    )
    return call(*arguments)
