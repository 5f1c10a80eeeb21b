"""Vision Transformers: patches as tokens, blocks of attention and MLP, the class token as features.

The layout and the weights at the start are those of timm's ``vit_base_patch16_224`` (and, but for
the weights at the start, of torchvision's ``vit_b_16``), so that their weights fit.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

_EPSILON = 1e-6  # of the layer norms
_MLP_RATIO = 4  # hidden units of a block's MLP for each of its inputs

# timm's "truncated" normal is cut at -2 and 2, a hundred deviations away, so it is not truncated.
_normal, _nearly_zero = nnx.initializers.normal(0.02), nnx.initializers.normal(1e-6)
# PyTorch's default for convolutions, which timm leaves: uniform within 1 / sqrt(fan-in).
_patches_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Block(nnx.Module):
    r"""Attention between the tokens, then an MLP of each; both normalise first and add to tokens.

    .. math:: x' = x + A(LN(x)), \quad y = x' + M(LN(x'))

    Args:
      width: of the tokens.
      num_heads: of the attention; divides the width.
      dtype: compute dtype; parameters, and the sums that a block adds to, stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) tokens ``[B, N, width]`` float32 for such tokens.

    Example:
      >>> def mixed(tokens):
      ...     return Block(8, num_heads=2, dtype=jnp.float32, rngs=nnx.Rngs(0))(tokens)
      >>> jax.eval_shape(mixed, jnp.ones((2, 5, 8))).shape
      (2, 5, 8)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, equations 2 and 3.
    """

    def __init__(self, width: int, *, num_heads: int, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        """Draws the weights."""
        norm = partial(_layer_norm, width, dtype=dtype, rngs=rngs)
        linear = partial(nnx.Linear, kernel_init=_normal, dtype=dtype, rngs=rngs)
        self.norm1, self.norm2 = norm(), norm()
        self.qkv, self.projection = linear(width, 3 * width), linear(width, width)
        self.fc1, self.fc2 = linear(width, _MLP_RATIO * width), linear(_MLP_RATIO * width, width)
        self.num_heads = num_heads

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """``[B, N, width]`` to ``[B, N, width]``."""
        tokens = tokens + self._attend(self.norm1(tokens))
        hidden = jax.nn.gelu(self.fc1(self.norm2(tokens)), approximate=False)
        return tokens + self.fc2(hidden)

    def _attend(self, tokens: jax.Array) -> jax.Array:
        batch, number, width = tokens.shape
        heads = (batch, number, 3, self.num_heads, width // self.num_heads)
        query, key, value = jnp.moveaxis(self.qkv(tokens).reshape(heads), 2, 0)
        mixed = jax.nn.dot_product_attention(query, key, value)
        return self.projection(mixed.reshape(batch, number, width))


class VisionTransformer(nnx.Module):
    """The Vision Transformer ViT-B/16 for images of one size.

    The patches of 16x16 pixels and a class token are tokens; each place has a learned position
    embedding. There is no dropout, and nothing that training and evaluation do differently.

    Args:
      image_shape: ``(height, width, channels)`` of an image; the sides are multiples of 16.
      head: a module from features ``[B, num_features]`` to logits.
      dtype: compute dtype of the blocks' layers; parameters, tokens and features stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) logits ``[B, C]`` float32 for images ``[B, *image_shape]``.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, table 1.
    """

    num_features, num_heads, depth = 768, 12, 12
    patch_size = 16

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        head: nnx.Module,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the weights."""
        width, patch = self.num_features, (self.patch_size, self.patch_size)
        *sides, num_channels = image_shape
        self.patches = nnx.Conv(
            num_channels,
            width,
            patch,
            strides=patch,
            padding="VALID",
            kernel_init=_patches_init,
            bias_init=partial(_uniform_bias, fan_in=num_channels * self.patch_size**2),
            dtype=dtype,
            rngs=rngs,
        )
        # The class token's own position is apart: those of the patches change with the image size.
        grid = tuple(side // self.patch_size for side in sides)
        self.class_token = nnx.Param(_nearly_zero(rngs.params(), (1, 1, width), jnp.float32))
        self.class_position = nnx.Param(_normal(rngs.params(), (width,), jnp.float32))
        self.positions = nnx.Param(_normal(rngs.params(), (*grid, width), jnp.float32))
        block = partial(Block, width, num_heads=self.num_heads, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([block() for _ in range(self.depth)])
        self.norm = _layer_norm(width, dtype=jnp.float32, rngs=rngs)
        self.head = head

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Features ``[B, num_features]`` float32 of images ``[B, H, W, C]``."""
        patches = self.patches(images).astype(jnp.float32) + self.positions[...]
        first = self.class_token[...] + self.class_position[...]
        batch, width = images.shape[0], self.num_features
        first = jnp.broadcast_to(first, (batch, 1, width))
        rows, columns = patches.shape[1:3]
        tokens = jnp.concatenate([first, patches.reshape(batch, rows * columns, width)], axis=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits ``[B, C]`` float32 of images ``[B, H, W, C]``."""
        return self.head(self.features(images, train=train))


class ViTSmall(VisionTransformer):
    """ViT-S/16: half the width and the heads of ViT-B/16, for the rest a `VisionTransformer`.

    Source: Touvron et al., "Training data-efficient image transformers", ICML 2021, table 1.
    """

    num_features, num_heads = 384, 6


class ViTTiny(VisionTransformer):
    """ViT-Ti/16: a quarter of the width and the heads of ViT-B/16, else a `VisionTransformer`.

    Source: Touvron et al., "Training data-efficient image transformers", ICML 2021, table 1.
    """

    num_features, num_heads = 192, 3


def _layer_norm(width: int, *, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # Not the fast variance: the mean square less the squared mean loses digits of large tokens.
    return nnx.LayerNorm(width, epsilon=_EPSILON, use_fast_variance=False, dtype=dtype, rngs=rngs)


def _uniform_bias(
    key: jax.Array, shape: Sequence[int], dtype: DTypeLike, *, fan_in: int
) -> jax.Array:
    """PyTorch's default for the bias of a convolution."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)
