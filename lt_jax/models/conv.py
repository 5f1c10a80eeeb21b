"""Batch normalisation and relu after a convolution, that XLA also trains fast on a CPU.

XLA:CPU's loop fusion copies a cheap producer into every consumer when it has one full-size
operand, as ``max(x, 0)`` has. In a residual network that makes each kernel gradient recompute the
whole stage before it, element by element and with strided reads. The relu and the batch norm
below therefore end in operations with two full-size operands, which XLA computes once and keeps.
Values and gradients are the usual ones on every platform.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from lt_jax.models.convolution import conv2d
from lt_jax.models.initial import constant, he_normal

# For `jax.jit(step, compiler_options=...)` on a CPU: by default XLA hands convolutions to YNNPACK,
# whose kernel gradients take up to 2.5 times as long as Eigen's; its reductions are good.
CPU_COMPILER_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
# On a GPU: XLA records what it launches as CUDA graphs, by default without convolutions, which so
# cut the step of a small network into a hundred pieces. With them it is an eighth faster
# (`results/benchmarks/gpu.json`).
_IN_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,CONVOLUTION"
GPU_COMPILER_OPTIONS = {"xla_gpu_enable_command_buffer": _IN_GRAPHS}

MOMENTUM = 0.9
EPSILON = 1e-5


def relu(x: jax.Array) -> jax.Array:
    """``max(x, 0)`` with gradient 0 at 0; NaN stays NaN. Any shape, same dtype.

    A select instead of a maximum, so that XLA:CPU keeps the result (see the top of this file).

    Example:
      >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
      [0.0, 0.0, 2.0]
    """
    return jnp.where(x <= 0, 0, x)


@jax.custom_vjp
def batch_normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each channel with the mean and the variance of the batch.

    Under ``jax.jit`` with a sharded batch these are the statistics of the global batch.

    Args:
      x: ``[..., C]``, any float dtype.
      scale: ``[C]`` float32.
      bias: ``[C]`` float32.

    Returns:
      ``(x - mean) / sqrt(var + 1e-5) * scale + bias`` in the dtype of ``x``, and the float32
      ``mean`` and (biased) ``var`` of shape ``[C]``, through which no gradient flows.

    Example:
      >>> y, mean, var = batch_normalise(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1))
      >>> y.round(3).tolist(), mean.tolist(), var.tolist()
      ([[-1.0], [1.0]], [2.0], [1.0])

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """
    return _normalise_forward(x, scale, bias)[0]


def _at_least_float32(x: jax.Array) -> jax.Array:
    """Half precision becomes float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _normalise_forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple:
    """Results, and what the gradient needs: the input itself, never a normalised copy of it."""
    wide, axes = _at_least_float32(x), tuple(range(x.ndim - 1))
    mean = jnp.mean(wide, axes)
    var = jnp.maximum(jnp.mean(jnp.square(wide), axes) - jnp.square(mean), 0.0)
    inverse = lax.rsqrt(var + EPSILON)
    slope = inverse * scale
    y = wide * slope + (bias - mean * slope)
    return (y.astype(x.dtype), mean, var), (x, mean, inverse, scale)


def _normalise_backward(residuals: tuple, cotangents: tuple) -> tuple:
    """Gradients of x, scale and bias; the cotangents of the statistics are dropped."""
    x, mean, inverse, scale = residuals
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    grads = _at_least_float32(cotangents[0])
    standard = _at_least_float32(x) * inverse - mean * inverse
    of_bias = jnp.sum(grads, axes)
    of_scale = jnp.sum(grads * standard, axes)
    slope = inverse * scale
    through_statistics = standard * (slope * of_scale / count) + slope * of_bias / count
    of_x = grads * slope - through_statistics
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


batch_normalise.defvjp(_normalise_forward, _normalise_backward)


class ConvBatchNorm(nnx.Module):
    """A convolution without bias, then batch normalisation.

    Args:
      num_inputs: channels of the images.
      num_outputs: channels of the result.
      size: height and width of the kernel, odd.
      stride: 1 or 2.
      groups: of the convolution, see `conv2d`.
      scale: initial value of the normalisation's scales.
      dtype: compute dtype; parameters and batch statistics stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) ``[B, ceil(H / stride), ceil(W / stride), num_outputs]`` of ``dtype``.

    Example:
      >>> layer = ConvBatchNorm(3, 16, stride=2, dtype=jnp.float32, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 8, 8, 3)), train=False).shape
      (2, 4, 4, 16)

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        size: int = 3,
        stride: int = 1,
        groups: int = 1,
        scale: float = 1.0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the weights: He normal with fan-in, not truncated."""
        shape = (size, size, num_inputs // groups, num_outputs)
        self.kernel = nnx.Param(he_normal(rngs.params(), shape))
        self.scale = nnx.Param(constant(scale, num_outputs))
        self.bias = nnx.Param(constant(0, num_outputs))
        self.mean = nnx.BatchStat(constant(0, num_outputs))
        self.var = nnx.BatchStat(constant(1, num_outputs))
        self.stride, self.groups, self.dtype = stride, groups, dtype

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Normalises with the batch's statistics and updates the running ones if ``train``."""
        kernel = self.kernel[...].astype(self.dtype)
        hidden = conv2d(images.astype(self.dtype), kernel, stride=self.stride, groups=self.groups)
        scale, bias = self.scale[...], self.bias[...]
        if not train:
            slope = lax.rsqrt(self.var[...] + EPSILON) * scale
            return (hidden * slope + (bias - self.mean[...] * slope)).astype(self.dtype)
        hidden, mean, var = batch_normalise(hidden, scale, bias)
        self.mean[...] = MOMENTUM * self.mean[...] + (1 - MOMENTUM) * mean
        self.var[...] = MOMENTUM * self.var[...] + (1 - MOMENTUM) * var
        return hidden
