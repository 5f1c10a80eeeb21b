"""Convolution and batch normalisation."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _conv(images, kernel, stride):
    pads = [((size - 1) // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT
    )


def conv2d(images, kernel, *, stride=1):
    return _conv(images, kernel, stride)


def relu(x):
    """Select has two operands of full size: XLA:CPU then keeps the result instead of recomputing."""
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


_EPSILON = 1e-5


@jax.custom_vjp
def normalise(x, scale, bias):
    return _normalise_forward(x, scale, bias)[0]


def _normalise_forward(x, scale, bias):
    x32 = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x32, axes)
    var = jnp.mean(jnp.square(x32), axes) - jnp.square(mean)
    var = jnp.maximum(var, 0.0)
    inverse = lax.rsqrt(var + _EPSILON)
    slope = inverse * scale
    y = x32 * slope + (bias - mean * slope)
    return (y.astype(x.dtype), mean, var), (x, mean, inverse, scale)


def _normalise_backward(residuals, cotangents):
    x, mean, inverse, scale = residuals
    grads = cotangents[0].astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    standard = x.astype(jnp.float32) * inverse - mean * inverse
    dbias = jnp.sum(grads, axes)
    dscale = jnp.sum(grads * standard, axes)
    slope = inverse * scale
    dx = grads * slope - (standard * (slope * dscale / count) + slope * dbias / count)
    return dx.astype(x.dtype), dscale, dbias


normalise.defvjp(_normalise_forward, _normalise_backward)


class ConvBatchNorm(nnx.Module):
    """A 3x3 convolution without bias, then batch normalisation.

    Args:
      num_inputs: channels of the images.
      num_outputs: channels of the result.
      stride: 1 or 2.
      dtype: compute dtype; parameters and batch statistics stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) ``[B, ceil(H / stride), ceil(W / stride), num_outputs]`` of ``dtype``.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        stride: int = 1,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the weights: He normal with fan-in, not truncated."""
        shape = (3, 3, num_inputs, num_outputs)
        init = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.scale = nnx.Param(jnp.ones((num_outputs,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_outputs,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((num_outputs,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((num_outputs,), jnp.float32))
        self.stride, self.dtype = stride, dtype

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Normalises with the batch's statistics and updates the running ones if ``train``."""
        kernel = self.kernel[...].astype(self.dtype)
        hidden = conv2d(images.astype(self.dtype), kernel, stride=self.stride)
        if train:
            y, mean, var = normalise(hidden, self.scale[...], self.bias[...])
            mean, var = lax.stop_gradient((mean, var))
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
            self.var[...] = 0.9 * self.var[...] + 0.1 * var
            return y
        mul = lax.rsqrt(self.var[...] + _EPSILON) * self.scale[...]
        return ((hidden - self.mean[...]) * mul + self.bias[...]).astype(self.dtype)
