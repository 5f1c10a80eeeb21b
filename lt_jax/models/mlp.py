"""Networks for feature vectors instead of images."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lt_jax.models.conv import relu

_WIDTH = 128


class MLP(nnx.Module):
    """One hidden layer of 128 units with a relu, He normal and without normalisation.

    Args:
      num_inputs: width D of the feature vectors.
      head: a module from the hidden layer ``[B, 128]`` to logits.
      dtype: compute dtype of the hidden layer; parameters stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) logits ``[B, C]`` float32 for feature vectors ``[B, D]``.
    """

    num_features = _WIDTH

    def __init__(
        self, num_inputs: int, *, head: nnx.Module, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        """Draws the weights."""
        init = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        self.hidden = nnx.Linear(num_inputs, _WIDTH, kernel_init=init, dtype=dtype, rngs=rngs)
        self.head = head

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """The hidden layer ``[B, 128]`` float32 of feature vectors ``[B, D]``."""
        return relu(self.hidden(images)).astype(jnp.float32)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits ``[B, C]`` float32 of feature vectors ``[B, D]``."""
        return self.head(self.features(images, train=train))


class Linear(nnx.Module):
    """A head alone: its features are the feature vectors, such as those of a trained backbone.

    Args:
      num_inputs: width D of the feature vectors.
      head: a module from them to logits.
      dtype: not used, there is nothing to compute.
      rngs: not used, nothing is drawn.

    Returns:
      (of a call) logits ``[B, C]`` float32 for feature vectors ``[B, D]``.
    """

    num_features = None  # that of the inputs

    def __init__(
        self, num_inputs: int, *, head: nnx.Module, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        """Keeps the head."""
        self.head = head

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """The feature vectors ``[B, D]`` themselves, float32."""
        return images.astype(jnp.float32)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits ``[B, C]`` float32 of feature vectors ``[B, D]``."""
        return self.head(self.features(images, train=train))
