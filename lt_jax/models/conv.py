"""Convolution and batch normalisation."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def materialize(x):
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


def _conv(images, kernel, stride):
    pads = [((size - 1) // 2, size // 2) for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT
    )


def _place(x, block, num_blocks, axis, shift):
    """X moved by shift along axis, zeros entering, as channel block `block` of `num_blocks`."""
    pads = [(0, 0, 0)] * 4
    pads[axis] = (shift, -shift, 0)
    size = x.shape[3]
    pads[3] = (block * size, (num_blocks - 1 - block) * size, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _row_windows(images, size):
    """[B, H, W, C] -> [B, H, W, size * C]"""
    b, h, w, c = images.shape
    before = (size - 1) // 2
    rows = jnp.pad(images.reshape(b * h, w * c), ((0, 0), (before * c, (size - 1 - before) * c)))
    window = partial(lax.dynamic_slice_in_dim, rows, slice_size=size * c, axis=1)
    return jax.vmap(window, out_axes=1)(jnp.arange(w) * c).reshape(b, h, w, size * c)


def _kernel_gradient_unit(images, grads, shape):
    kh, kw, c, o = shape
    columns = _row_windows(images, kw)
    rows = sum(_place(grads, i, kh, 1, i - (kh - 1) // 2) for i in range(kh))
    out = _contract(columns, rows)
    return out.reshape(kw, c, kh, o).transpose(2, 0, 1, 3)


def _contract(a, b):
    a, b = lax.optimization_barrier((a, b))
    groups = math.gcd(a.shape[0], 8)
    a, b = (x.reshape(groups, -1, x.shape[3]) for x in (a, b))
    return jnp.einsum("gnk,gno->gko", a, b, preferred_element_type=jnp.float32).sum(0)


def _kernel_gradient_strided(images, grads, shape, stride):
    kh, kw, c, o = shape
    h, w = grads.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [
        padded[:, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]
        for i in range(kh)
        for j in range(kw)
    ]
    return _contract(jnp.concatenate(taps, -1), grads).reshape(shape)


def _gradients_cpu(stride, images, kernel, grads):
    images, grads = lax.optimization_barrier((images, grads))
    _, vjp = jax.vjp(lambda images: _conv(images, kernel, stride), images)
    if stride == 1:
        dk = _kernel_gradient_unit(images, grads, kernel.shape)
    else:
        dk = _kernel_gradient_strided(images, grads, kernel.shape, stride)
    return vjp(grads)[0], dk.astype(kernel.dtype)


def _gradients_plain(stride, images, kernel, grads):
    return jax.vjp(partial(_conv, stride=stride), images, kernel)[1](grads)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d(images, kernel, stride):
    return _conv(images, kernel, stride)


def _forward(images, kernel, stride):
    return _conv(images, kernel, stride), (images, kernel)


def _backward(stride, residuals, grads):
    return lax.platform_dependent(
        *residuals,
        grads,
        cpu=partial(_gradients_cpu, stride),
        default=partial(_gradients_plain, stride),
    )


_conv2d.defvjp(_forward, _backward)


def conv2d(images, kernel, *, stride=1):
    return _conv2d(images, kernel, stride)


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
    y = (x32 - mean) * (inverse * scale) + bias
    return (y.astype(x.dtype), mean, var), (x, mean, inverse, scale)


def _normalise_backward(residuals, cotangents):
    x, mean, inverse, scale = residuals
    grads = cotangents[0].astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    centred = x.astype(jnp.float32) - mean
    dbias = jnp.sum(grads, axes)
    dscale = jnp.sum(grads * centred, axes) * inverse
    a = inverse * scale
    dx = grads * a + (centred * (-a * inverse * dscale / count) - a * dbias / count)
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
