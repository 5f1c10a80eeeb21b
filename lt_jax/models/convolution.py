"""The convolution of all networks, one for each replica under `vmap`.

By itself `vmap` makes one convolution of R times as many groups of R replicas' convolutions.
cuDNN has slow kernels for those: four replicas of a ResNet-32 side by side trained 2.2 times as
fast with their convolutions apart (`results/benchmarks/gpu.json`). All else is still one operation.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Product = Callable[[Array, Array], Array]


def conv2d(images: Array, kernel: Array, *, stride: int = 1, groups: int = 1) -> Array:
    """Cross-correlation with zero padding that keeps the size at stride 1 (PyTorch's alignment).

    It has gradients in reverse mode only.

    Args:
      images: ``[B, H, W, Cin]``, any float dtype.
      kernel: ``[k, k, Cin / groups, Cout]`` of the same dtype, k odd.
      stride: step in both directions; at 2 and an even size XLA's "SAME" would sit one pixel off.
      groups: each g-th part of the outputs sees the g-th part of the inputs alone; divides both.

    Returns:
      ``[B, ceil(H / stride), ceil(W / stride), Cout]`` of the same dtype.

    Example:
      >>> conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), stride=2)[0, ..., 0].tolist()
      [[4.0, 6.0], [6.0, 9.0]]
    """
    return _convolution(stride, groups)(images, kernel)


@functools.cache
def _convolution(stride: int, groups: int) -> Product:
    """The convolution and its two gradients, each of which `vmap` keeps apart."""

    def plain(images: Array, kernel: Array) -> Array:
        pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
        return lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
        images, kernel = saved

        def of_images(kernel: Array, cotangent: Array) -> Array:
            return jax.linear_transpose(lambda x: plain(x, kernel), images)(cotangent)[0]

        def of_kernel(images: Array, cotangent: Array) -> Array:
            return jax.linear_transpose(lambda k: plain(images, k), kernel)(cotangent)[0]

        return _apart(of_images)(kernel, cotangent), _apart(of_kernel)(images, cotangent)

    convolve = jax.custom_vjp(_apart(plain))
    convolve.defvjp(lambda x, k: (convolve(x, k), (x, k)), backward)
    return convolve


def _apart(product: Product) -> Product:
    """The product of two arrays, made R times by `vmap` if both have an axis of R replicas."""
    called = jax.custom_batching.custom_vmap(product)

    @called.def_vmap
    def _(size: int, batched: list[bool], one: Array, other: Array) -> tuple[Array, bool]:
        if not all(batched):  # a larger batch, or more channels: as fast as it gets
            axes = [0 if is_batched else None for is_batched in batched]
            return jax.vmap(product, in_axes=axes)(one, other), True
        return jnp.stack([called(one[r], other[r]) for r in range(size)]), True

    return called
