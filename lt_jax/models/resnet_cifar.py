"""ResNets for 32x32 images: 6n + 2 layers of 16, 32 and 64 filters, shortcuts without weights."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lt_jax.models.conv import ConvBatchNorm, relu

_WIDTHS = (16, 32, 64)


def shortcut(images: jax.Array, *, stride: int, num_channels: int) -> jax.Array:
    """Option A: every ``stride``-th pixel, with zero channels added on both sides.

    Args:
      images: ``[B, H, W, C]``, any dtype.
      stride: 1 or 2.
      num_channels: channels of the result, at least C.

    Returns:
      ``[B, ceil(H / stride), ceil(W / stride), num_channels]``, same dtype.

    Example:
      >>> shortcut(jnp.ones((1, 4, 4, 2)), stride=2, num_channels=4)[0, 0, 0].tolist()
      [0.0, 1.0, 1.0, 0.0]

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """
    missing = num_channels - images.shape[-1]
    low = missing // 2
    return jnp.pad(images[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (low, missing - low)))


class Block(nnx.Module):
    """Two 3x3 convolutions and the shortcut around them."""

    def __init__(
        self, num_inputs: int, num_outputs: int, *, stride: int, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        """Draws the weights."""
        self.first = ConvBatchNorm(num_inputs, num_outputs, stride=stride, dtype=dtype, rngs=rngs)
        self.second = ConvBatchNorm(num_outputs, num_outputs, dtype=dtype, rngs=rngs)
        self.stride, self.num_outputs = stride, num_outputs

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """``[B, H, W, C]`` to ``[B, H / stride, W / stride, num_outputs]``."""
        hidden = self.second(relu(self.first(images, train=train)), train=train)
        around = shortcut(images, stride=self.stride, num_channels=self.num_outputs)
        return relu(hidden + around)


class ResNetCIFAR(nnx.Module):
    """The CIFAR ResNet of He et al.: a 3x3 stem, 3 stages of n blocks, the mean over pixels.

    Convolutions have no bias and start He normal with fan-in, batch norm has momentum 0.9 and
    epsilon 1e-5: what the long-tailed CIFAR literature uses.

    Args:
      depth: number of layers, 6n + 2.
      num_channels: channels of the images.
      head: a module from features ``[B, 64]`` to logits.
      dtype: compute dtype of the convolutions; parameters and statistics stay float32.
      fused: whether training runs in kernels made for it on one NVIDIA GPU, in bfloat16 (float32
        products would be rounded to TF32), see `lt_jax.models.fused`: the same function, up to
        rounding. On a CPU they are only simulated, for tests.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) logits ``[B, C]`` float32 for images ``[B, H, W, num_channels]``.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """

    num_features = _WIDTHS[-1]

    def __init__(
        self,
        depth: int,
        num_channels: int,
        *,
        head: nnx.Module,
        dtype: DTypeLike,
        fused: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the weights."""
        self.fused, self.dtype = fused, dtype
        self.stem = ConvBatchNorm(num_channels, _WIDTHS[0], dtype=dtype, rngs=rngs)
        blocks, num_inputs = [], _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS):
            for index in range((depth - 2) // 6):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Block(num_inputs, width, stride=stride, dtype=dtype, rngs=rngs))
                num_inputs = width
        self.blocks = nnx.List(blocks)
        self.head = head

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Features ``[B, 64]`` float32 of images ``[B, H, W, C]``."""
        if train and self.fused:
            return self._fused_features(images)
        hidden = relu(self.stem(images, train=train))
        for block in self.blocks:
            hidden = block(hidden, train=train)
        return jnp.mean(hidden, axis=(1, 2), dtype=jnp.float32)

    def _fused_features(self, images: jax.Array) -> jax.Array:
        """The same in training mode, in fused kernels."""
        from lt_jax.models.fused import trunk  # as Pallas takes long to import

        layers = [self.stem, *(layer for b in self.blocks for layer in (b.first, b.second))]
        features, running = trunk.train_features(
            trunk.Trunk(
                strides=tuple(block.stride for block in self.blocks),
                shortcut=shortcut,
                interpret=jax.default_backend() == "cpu",
            ),
            images.astype(self.dtype),
            [trunk.Layer(x.kernel[...], x.scale[...], x.bias[...]) for x in layers],
            [trunk.Running(x.mean[...], x.var[...]) for x in layers],
        )
        for layer, (mean, var) in zip(layers, running, strict=True):
            layer.mean[...], layer.var[...] = mean, var
        return features

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits ``[B, C]`` float32 of images ``[B, H, W, C]``."""
        return self.head(self.features(images, train=train))
