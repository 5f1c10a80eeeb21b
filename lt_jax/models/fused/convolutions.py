"""3x3 convolutions of a training step on a GPU, each with its share of batch norm in one kernel.

The convolutions of a CIFAR ResNet are so narrow that a step is bound by how many kernels it starts
and by how long each waits for memory. Here a layer takes four: the convolution with the statistics
of its outputs; both its gradients with the sums that batch norm's gradient needs; and before each
an elementwise one, which XLA makes. Written for Pallas's Triton backend; ``interpret`` runs the
same code on a CPU, for tests. Sums do not depend on the order in which programs run.

Images are flat here: ``[pixels, channels]``, pixels in the order of ``[B, H, W]``. Numbers of
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
from lt_jax.models.fused.programs import STEP, TAPS
from lt_jax.models.fused.tiles import Array, Conv, Ref

_TILE = 4096  # pixels times channels that a program makes
# XLA fuses sums of fewer than 32 parts into the update of the weights: they take no kernel then.
_PARTS = 30


class Norm(NamedTuple):
    """Batch norm of a layer: parameters and running statistics, float32 ``[C]`` each."""

    scale: Array
    bias: Array
    mean: Array
    var: Array


@functools.partial(jax.jit, static_argnames=("conv", "interpret"))  # traced once for all layers
def forward(
    inputs: Array, kernel: Array, norm: Norm, counter: Array, *, conv: Conv, interpret: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """A convolution, and what normalises its outputs by the statistics of the batch.

    Args:
      inputs: ``[pixels, Ci]``.
      kernel: ``[9, Ci, Co]``, any float dtype; it is computed in that of `inputs`.
      norm: of the outputs.
      counter: int32 ``[1]``, zero. Programs count in it which of them is the last.
      conv: the sizes.
      interpret: whether to run on a CPU.

    Returns:
      Outputs ``[out_pixels, Co]``; float32 ``[4, Co]``: slope and shift of the normalisation, mean
      and 1 / deviation; the running mean and variance; and `counter`, zero again.
    """
    block = _TILE // conv.num_outputs
    parts = pl.cdiv(conv.out_pixels, block)
    channel = (conv.num_outputs,)
    outputs, _, coefficients, mean, var, counter = _call(
        functools.partial(
            programs.forward_block, conv=conv, block=block, parts=parts, interpret=interpret
        ),
        parts,
        [inputs, kernel, *norm, counter],
        [
            _shape((conv.out_pixels, *channel), inputs.dtype),
            _shape((parts, 2, *channel)),
            _shape((4, *channel)),
            _shape(channel),
            _shape(channel),
            _shape((1,), jnp.int32),
        ],
        aliases={4: 3, 5: 4, 6: 5},
        interpret=interpret,
    )
    return outputs, coefficients, mean, var, counter


@functools.partial(jax.jit, static_argnames=("conv", "interpret"))
def gradients(
    inputs: Array,
    grads: Array,
    kernel: Array,
    before: Sequence[Array],
    counter: Array,
    *,
    conv: Conv,
    interpret: bool,
) -> tuple[Array, Array, Array, Array]:
    """Both gradients of a convolution, that of the inputs through the relu they come from.

    Args:
      inputs: of the convolution, ``[pixels, Ci]``, at least 0.
      grads: of its outputs, ``[out_pixels, Co]``.
      kernel: as in `forward`.
      before: of the layer that the inputs come from: outputs ``[pixels, Ci]`` of its convolution
        and their coefficients, from `forward`; and the gradients ``[pixels, Ci]`` that pass this
        convolution by on a shortcut, if there is one.
      counter: as in `forward`.
      conv: the sizes.
      interpret: whether to run on a CPU.

    Returns:
      Gradients ``[pixels, Ci]`` of what batch norm gave that layer's relu; of them, `backward_norm`
      float32 ``[5, Ci]``; gradients of the kernel, float32 ``[9, Ci, Co]``; and `counter`.
    """
    block = _TILE // conv.num_inputs
    parts = pl.cdiv(conv.pixels, block)
    steps, kernel_parts = _kernel_parts(conv)
    body = functools.partial(
        programs.gradients_block,
        conv=conv,
        block=block,
        parts=parts,
        steps=steps,
        interpret=interpret,
    )
    outputs, _, back, of_kernel, counter = _call(
        body,
        parts + 3 * kernel_parts,
        [inputs.reshape(-1), inputs, grads, kernel, *before, counter],
        [
            _shape((conv.pixels, conv.num_inputs), grads.dtype),
            _shape((parts, 2, conv.num_inputs)),
            _shape((5, conv.num_inputs)),
            _shape((kernel_parts, TAPS * conv.num_inputs, conv.num_outputs)),
            _shape((1,), jnp.int32),
        ],
        aliases={4 + len(before): 4},
        interpret=interpret,
    )
    return outputs, back, _summed(of_kernel, conv), counter


def kernel_gradient(inputs: Array, grads: Array, *, conv: Conv, interpret: bool) -> Array:
    """The gradient of the kernel alone, float32 ``[9, Ci, Co]``; arguments as in `gradients`."""
    steps, parts = _kernel_parts(conv)

    def kernel_gradient_program(inputs_ref: Ref, grads_ref: Ref, out_ref: Ref) -> None:
        programs.kernel_gradient_part(pl.program_id(0), inputs_ref, grads_ref, out_ref, conv, steps)

    shape = _shape((parts, TAPS * conv.num_inputs, conv.num_outputs))
    arguments = [inputs.reshape(-1), grads]
    [of_kernel] = _call(
        kernel_gradient_program, 3 * parts, arguments, [shape], aliases={}, interpret=interpret
    )
    return _summed(of_kernel, conv)


def _kernel_parts(conv: Conv) -> tuple[int, int]:
    """Steps of a program for the kernel's gradient, and in how many parts its sums come."""
    steps = pl.cdiv(conv.out_pixels, STEP * _PARTS)
    return steps, pl.cdiv(conv.out_pixels, STEP * steps)


def _summed(of_kernel: Array, conv: Conv) -> Array:
    """The parts' sum ``[9, Ci, Co]``."""
    return of_kernel.sum(0).reshape(TAPS, conv.num_inputs, conv.num_outputs)


def _shape(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _call(
    body: Callable[..., None],
    count: int,
    arguments: Sequence[Array],
    results: Sequence[jax.ShapeDtypeStruct],
    *,
    aliases: dict[int, int],
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
        # As measured on an H200.
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
    )
    return call(*arguments)
