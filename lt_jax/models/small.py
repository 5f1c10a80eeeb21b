"""Small networks for images of 8 to 64 px, for tests, examples and quick studies on a CPU."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lt_jax.models.conv import ConvBatchNorm, relu


class SmallNet(nnx.Module):
    """Three 3x3 convolutions of 16, 32 and 64 filters, the last two with stride 2; pixel mean.

    A feature sees 9x9 pixels: enough for a digit of 8x8, not for one of 28x28 (see `Conv4`).

    Args:
      num_channels: channels of the images; any height and width from 8 will do.
      head: a module from features ``[B, 64]`` to logits.
      dtype: compute dtype of the convolutions; parameters and statistics stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) logits ``[B, C]`` float32 for images ``[B, H, W, num_channels]``.
    """

    num_features = 64
    layout: tuple[tuple[int, int], ...] = ((16, 1), (32, 2), (64, 2))  # filters and stride

    def __init__(
        self, num_channels: int, *, head: nnx.Module, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        """Draws the weights."""
        inputs = [num_channels, *(filters for filters, _ in self.layout)]
        self.layers = nnx.List(
            [
                ConvBatchNorm(before, filters, stride=stride, dtype=dtype, rngs=rngs)
                for before, (filters, stride) in zip(inputs, self.layout, strict=False)
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


class Conv4(SmallNet):
    """Four 3x3 convolutions of 16, 32, 64 and 64 filters, the first three with stride 2.

    A feature sees 31x31 pixels, and at 56x56 a step costs a fifth of `SmallNet`'s. Arguments and
    returns as there.
    """

    layout = ((16, 2), (32, 2), (64, 2), (64, 1))
