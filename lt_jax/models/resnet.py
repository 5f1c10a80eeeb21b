"""ResNets and ResNeXts for photographs: a 7x7 stem, 4 stages of blocks, the pixel mean.

The layout is the one that published ImageNet weights have (torchvision, timm): where a bottleneck
block halves the size, its 3x3 convolution does it and not the 1x1 before.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lt_jax.models.conv import ConvBatchNorm, relu

_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4  # outputs of a bottleneck block per channel of its 3x3 convolution


class Block(nnx.Module):
    """Convolutions with a relu between them, and the shortcut around them.

    The shortcut is a 1x1 convolution where the size or the number of channels changes. The last
    batch norm starts at scale 0, so that every block starts as its shortcut.

    Args:
      num_inputs: channels of the images.
      width: channels of the 3x3 convolutions; a bottleneck block gives 4 times as many outputs.
      bottleneck: one 3x3 convolution between two 1x1, instead of two 3x3.
      stride: 1 or 2.
      groups: of the 3x3 convolution of a bottleneck block, each of which sees its own channels.
      group_width: channels of a group where ``width`` is 64, so that this convolution has
        ``groups * group_width * width / 64`` of them.
      dtype: compute dtype; parameters and statistics stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) ``[B, ceil(H / stride), ceil(W / stride), width or 4 width]`` of ``dtype``.

    Example:
      >>> block = Block(8, 4, bottleneck=True, stride=2, dtype=jnp.float32, rngs=nnx.Rngs(0))
      >>> block(jnp.ones((2, 8, 8, 8)), train=False).shape
      (2, 4, 4, 16)

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017 (the scale of 0).
    """

    def __init__(
        self,
        num_inputs: int,
        width: int,
        *,
        bottleneck: bool,
        stride: int,
        groups: int = 1,
        group_width: int = _WIDTHS[0],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the weights."""
        layer = partial(ConvBatchNorm, dtype=dtype, rngs=rngs)
        num_outputs = width * _EXPANSION if bottleneck else width
        if bottleneck:
            inner = groups * group_width * width // _WIDTHS[0]
            layers = [
                layer(num_inputs, inner, size=1),
                layer(inner, inner, stride=stride, groups=groups),
                layer(inner, num_outputs, size=1, scale=0.0),
            ]
        else:
            layers = [layer(num_inputs, width, stride=stride), layer(width, width, scale=0.0)]
        self.layers = nnx.List(layers)
        changes = stride != 1 or num_inputs != num_outputs
        self.shortcut = layer(num_inputs, num_outputs, size=1, stride=stride) if changes else None

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """``[B, H, W, num_inputs]`` to ``[B, H / stride, W / stride, outputs]``."""
        hidden = images
        for layer in self.layers[:-1]:
            hidden = relu(layer(hidden, train=train))
        hidden = self.layers[-1](hidden, train=train)
        around = images if self.shortcut is None else self.shortcut(images, train=train)
        return relu(hidden + around)


class ResNet(nnx.Module):
    """The ImageNet ResNet of basic blocks: ResNet-18 and its like.

    Convolutions have no bias and start He normal with fan-in, batch norm has momentum 0.9 and
    epsilon 1e-5. The stem and the pooling after it divide the size by 4, the stages by 8.

    Args:
      num_blocks: blocks of each stage; the first block of every stage but the first has stride 2.
      num_channels: channels of the images; any height and width will do.
      head: a module from features ``[B, num_features]`` to logits.
      dtype: compute dtype of the convolutions; parameters and statistics stay float32.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) logits ``[B, C]`` float32 for images ``[B, H, W, num_channels]``.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.
    """

    num_features = _WIDTHS[-1]
    block: Callable[..., Block] = partial(Block, bottleneck=False)

    def __init__(
        self,
        num_blocks: Sequence[int],
        num_channels: int,
        *,
        head: nnx.Module,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the weights."""
        self.stem = ConvBatchNorm(
            num_channels, _WIDTHS[0], size=7, stride=2, dtype=dtype, rngs=rngs
        )
        block = partial(type(self).block, dtype=dtype, rngs=rngs)
        stages, num_inputs = [], _WIDTHS[0]
        for width, number in zip(_WIDTHS, num_blocks, strict=True):
            stride = 1 if width == _WIDTHS[0] else 2
            num_outputs = width * self.num_features // _WIDTHS[-1]
            blocks = [block(num_inputs, width, stride=stride)]
            blocks += [block(num_outputs, width, stride=1) for _ in range(number - 1)]
            stages.append(nnx.List(blocks))
            num_inputs = num_outputs
        self.stages = nnx.List(stages)
        self.head = head

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Features ``[B, num_features]`` float32 of images ``[B, H, W, C]``."""
        hidden = relu(self.stem(images, train=train))
        hidden = nnx.max_pool(hidden, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage in self.stages:
            for block in stage:
                hidden = block(hidden, train=train)
        return jnp.mean(hidden, axis=(1, 2), dtype=jnp.float32)

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Logits ``[B, C]`` float32 of images ``[B, H, W, C]``."""
        return self.head(self.features(images, train=train))


class BottleneckResNet(ResNet):
    """The ImageNet ResNet of bottleneck blocks: ResNet-50 and deeper, for the rest a `ResNet`."""

    num_features = _WIDTHS[-1] * _EXPANSION
    block = partial(Block, bottleneck=True)


class ResNeXt(BottleneckResNet):
    """A bottleneck ResNet whose 3x3 convolutions have 32 groups of 4 channels and more (32x4d).

    Source: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017,
    table 1.
    """

    block = partial(Block, bottleneck=True, groups=32, group_width=4)
