"""The training pass of a CIFAR ResNet in kernels of `convolutions`.

The same network as `ResNetCIFAR`'s own layers, up to rounding; gradients are written out here, so
that each layer's are two kernels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lt_jax.models.conv import relu
from lt_jax.models.convolution import conv2d
from lt_jax.models.fused.convolutions import (
    Running,
    Weights,
    forward,
    gradients,
    kernel_gradient,
)
from lt_jax.models.fused.programs import backward_norm
from lt_jax.models.fused.tiles import Conv

Array = jax.Array
Shortcut = Callable[..., Array]  # (images, stride=, num_channels=) -> images

_NARROWEST = 16  # channels that the kernels take
_WIDE = 64  # channels from which on kernels are cast once for all programs


class Trunk(NamedTuple):
    """What is known before anything runs.

    Attributes:
      strides: of the blocks' first convolutions.
      shortcut: around a block.
      interpret: whether to run on a CPU, for tests.
    """

    strides: tuple[int, ...]
    shortcut: Shortcut
    interpret: bool


class Layer(NamedTuple):
    """Weights of a convolution, float32 ``[3, 3, Ci, Co]``, and of batch norm ``[Co]``."""

    kernel: Array
    scale: Array
    bias: Array


class _Saved(NamedTuple):
    """Of a layer, for its gradient: what went in, what came out, flat, and the coefficients."""

    inputs: Array
    outputs: Array
    coefficients: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def train_features(
    trunk: Trunk, images: Array, layers: Sequence[Layer], running: Sequence[Running]
) -> tuple[Array, list[Running]]:
    """Features of a batch in training mode: a stem, blocks of two convolutions, the pixels' mean.

    Args:
      trunk: the network.
      images: ``[B, H, W, C]`` with C at most 16, of the compute dtype.
      layers: of the stem, then of each block's two convolutions.
      running: statistics of each layer.

    Returns:
      Features float32 ``[B, Co]`` and the statistics after this batch, through which no gradient
      flows.
    """
    return _forward(trunk, images, layers, running)[0]


def _sizes(trunk: Trunk, images: Array, layers: Sequence[Layer]) -> list[Conv]:
    """Of every convolution."""
    batch, height, width, _ = images.shape
    strides = [1, *(s for stride in trunk.strides for s in (stride, 1))]
    sizes = []
    for layer, stride in zip(layers, strides, strict=True):
        channels = max(layer.kernel.shape[2], _NARROWEST), layer.kernel.shape[3]
        sizes.append(Conv(batch, height, width, *channels, stride))
        height, width = sizes[-1].out_height, sizes[-1].out_width
    return sizes


def _weights(layers: Sequence[Layer], dtype: Any) -> list[Weights]:
    """Of every layer, as the kernels take them.

    What is put together or cast is so for all layers at once: a kernel takes longer to start than
    to do that.
    """
    norms, begins = _norms(layers)
    # With a third number, for XLA computes what could be a sequence, in a kernel for each.
    return [
        Weights(kernels.reshape(-1), norms, jnp.array([number, begin, -1], jnp.int32))
        for (kernels, number), begin in zip(_kernels(layers, dtype), begins, strict=True)
    ]


def _norms(layers: Sequence[Layer]) -> tuple[Array, list[int]]:
    """Biases and scales as one array, and where each layer begins in it.

    In the order in which training packs them, see `lt_jax.packing`: then little is moved.
    """
    first, *others = layers
    in_order = [*others, first]
    norms = jnp.concatenate([x for layer in in_order for x in (layer.bias, layer.scale)])
    ends = list(itertools.accumulate(2 * layer.bias.size for layer in in_order))
    return norms, [ends[-2], 0, *ends[:-2]]


def _kernels(layers: Sequence[Layer], dtype: Any) -> list[tuple[Array, int]]:
    """Kernels ``[n, 3, 3, Ci, Co]`` that hold a layer's, and which of the n is its own.

    Wide ones are cast once, all that are alike; narrow ones by the programs that read them.
    """
    alike: dict[tuple[int, ...], list[Array]] = {}
    places = []
    for layer in layers:
        same = alike.setdefault(layer.kernel.shape, [])
        places.append(len(same))
        same.append(layer.kernel)
    wide = {
        shape: jnp.stack(same).astype(dtype) for shape, same in alike.items() if shape[2] >= _WIDE
    }

    def alone(kernel: Array) -> Array:
        missing = max(_NARROWEST - kernel.shape[2], 0)
        return jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))[None]

    return [
        (wide[layer.kernel.shape], place)
        if layer.kernel.shape in wide
        else (alone(layer.kernel), 0)
        for layer, place in zip(layers, places, strict=True)
    ]


def _images(flat: Array, conv: Conv) -> Array:
    """Inputs of a convolution as images."""
    return flat.reshape(conv.batch, conv.height, conv.width, -1)


def _around(trunk: Trunk, conv: Conv) -> Callable[[Array], Array]:
    """The shortcut around the block that begins with a convolution, of flat images."""

    def around(flat: Array) -> Array:
        images = _images(flat, conv)
        passed = trunk.shortcut(images, stride=conv.stride, num_channels=conv.num_outputs)
        return passed.reshape(-1)

    return around


def _activated(outputs: Array, coefficients: Array, around: Array | None = None) -> Array:
    """The relu of normalised outputs, and of a shortcut."""
    pixels = outputs.reshape(-1, coefficients.shape[1])
    normal = pixels.astype(jnp.float32) * coefficients[0] + coefficients[1]
    total = normal if around is None else normal + around.reshape(pixels.shape).astype(jnp.float32)
    return relu(total).astype(outputs.dtype).reshape(-1)


def _forward(
    trunk: Trunk, images: Array, layers: Sequence[Layer], running: Sequence[Running]
) -> tuple[tuple[Array, list[Running]], tuple]:
    """Results, and what the gradient needs."""
    sizes = _sizes(trunk, images, layers)
    weights = _weights(layers, images.dtype)
    saved: list[_Saved] = []
    new: list[Running] = []
    counter = jnp.zeros((1,), jnp.int32)

    def convolve(hidden: Array) -> tuple[Array, Array]:
        nonlocal counter
        i = len(saved)
        outputs, coefficients, statistics, counter = forward(
            hidden, weights[i], running[i], counter, conv=sizes[i], interpret=trunk.interpret
        )
        saved.append(_Saved(hidden, outputs, coefficients))
        new.append(statistics)
        return outputs, coefficients

    missing = sizes[0].num_inputs - images.shape[-1]
    pixels = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, missing)))
    hidden = _activated(*convolve(pixels.reshape(-1)))
    for first in sizes[1::2]:
        inner = _activated(*convolve(hidden))
        hidden = _activated(*convolve(inner), _around(trunk, first)(hidden))
    shape = (len(images), -1, sizes[-1].num_outputs)
    features = jnp.mean(hidden.reshape(shape), 1, dtype=jnp.float32)
    return (features, new), (saved, hidden, weights, images, layers, running, counter)


def _backward(trunk: Trunk, residuals: tuple, cotangents: tuple) -> tuple:
    """Gradients of images and layers; the cotangents of the statistics are dropped."""
    saved, hidden, weights, images, layers, running, counter = residuals
    sizes = _sizes(trunk, images, layers)
    of_layers: list[Layer] = []  # from the last on

    def of_outputs(i: int, grads: Array, back: Array) -> Array:
        """Gradients of a convolution's outputs, from those of their normalised values."""
        outputs, wide = (
            x.reshape(-1, back.shape[1]).astype(jnp.float32) for x in (saved[i].outputs, grads)
        )
        return (back[0] * wide + back[1] * outputs + back[2]).astype(grads.dtype).reshape(-1)

    def keep(i: int, of_kernel: Array, back: Array) -> None:
        real = of_kernel[:, : layers[i].kernel.shape[2]].reshape(layers[i].kernel.shape)
        of_layers.append(Layer(real, back[3], back[4]))

    def through(i: int, grads: Array, back: Array, *past: Array) -> tuple[Array, Array]:
        """From one layer to the one before; `past` are gradients that come by the shortcut."""
        nonlocal counter
        before = (saved[i - 1].outputs, saved[i - 1].coefficients, *past)
        grads, back_of_before, of_kernel, counter = gradients(
            saved[i].inputs, of_outputs(i, grads, back), weights[i], before, counter,
            conv=sizes[i], interpret=trunk.interpret,
        )  # fmt: skip
        keep(i, of_kernel, back)
        return grads, back_of_before

    grads, back = _of_mean(hidden, cotangents[0], saved[-1])
    for first in range(len(sizes) - 2, 0, -2):
        shortcut = jax.linear_transpose(_around(trunk, sizes[first]), saved[first].inputs)
        past = shortcut(grads)
        grads, back = through(first + 1, grads, back)
        grads, back = through(first, grads, back, *past)
    grads = of_outputs(0, grads, back)
    of_kernel = kernel_gradient(saved[0].inputs, grads, conv=sizes[0], interpret=trunk.interpret)
    keep(0, of_kernel, back)
    stem = layers[0].kernel.astype(images.dtype)
    _, of_images = jax.vjp(lambda pixels: conv2d(pixels, stem), images)  # dropped if not used
    nothing = jax.tree.map(jnp.zeros_like, running)
    return *of_images(grads.reshape(*images.shape[:3], -1)), of_layers[::-1], nothing


def _of_mean(hidden: Array, of_features: Array, last: _Saved) -> tuple[Array, Array]:
    """Gradients of the last relu's argument, flat, and `backward_norm` of the last layer.

    All pixels of an image that pass the relu have the same gradient. So the sums over the batch are
    made of sums over each image, which XLA has many programs for.
    """
    shape = (len(of_features), -1, of_features.shape[1])
    passed = hidden.reshape(shape) > 0
    shares = (of_features / passed.shape[1]).astype(hidden.dtype)
    grads = jnp.where(passed, shares[:, None], 0)
    outputs = last.outputs.reshape(shape).astype(jnp.float32)
    wide = shares.astype(jnp.float32)
    total = (wide * jnp.sum(passed, 1, dtype=jnp.float32)).sum(0)
    product = (wide * jnp.sum(jnp.where(passed, outputs, 0), 1)).sum(0)
    count = passed.shape[0] * passed.shape[1]
    back = jnp.stack(backward_norm(total, product, tuple(last.coefficients), count))
    return grads.reshape(-1), back


train_features.defvjp(_forward, _backward)
