"""A small network for 8x8 to 28x28 images, for tests, examples and quick studies on a CPU."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lt_jax.models.conv import ConvBatchNorm, relu


class SmallNet(nnx.Module):
    """Three 3x3 convolutions of 16, 32 and 64 filters, the last two with stride 2; pixel mean.

    Args:
      num_channels: channels of the images; any height and width from 8 will do.
      head: a module from features ``[B, 64]`` to logits.
      dtype: compute dtype of the convolutions; parameters and statistics stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) logits ``[B, C]`` float32 for images ``[B, H, W, num_channels]``.
    """

    num_features = 64

    def __init__(
        self, num_channels: int, *, head: nnx.Module, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        """Draws the weights."""
        self.layers = nnx.List(
            [
                ConvBatchNorm(num_channels, 16, dtype=dtype, rngs=rngs),
                ConvBatchNorm(16, 32, stride=2, dtype=dtype, rngs=rngs),
                ConvBatchNorm(32, 64, stride=2, dtype=dtype, rngs=rngs),
            ]
        )
        self.head = head

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Features ``[B, 64]`` float32 of images ``[B, H, W, C]``."""
        hidden = images
        for layer in self.layers:
            hidden = relu(layer(hidden, train=train))
        return jnp.mean(hidden, axis=(1, 2), dtype=jnp.float32)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits ``[B, C]`` float32 of images ``[B, H, W, C]``."""
        return self.head(self.features(images, train=train))
