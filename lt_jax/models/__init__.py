"""Networks by name.

Every network maps float images ``[B, H, W, C]`` (the MLP: feature vectors ``[B, D]``) to float32
logits by ``model(images, train=...)``, to the float32 features before its head by
``model.features(images, train=...)``, and keeps the head as ``model.head``. How many features
there are is ``num_features`` of its class.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lt_jax.errors import InputError
from lt_jax.models.heads import CosineHead, LinearHead, sigmoid_prior_bias
from lt_jax.models.mlp import MLP, Linear
from lt_jax.models.pretrained import load_pretrained
from lt_jax.models.resnet import BottleneckResNet, ResNet
from lt_jax.models.resnet_cifar import ResNetCIFAR
from lt_jax.models.small import Conv4, SmallNet

__all__ = [
    "MLP",
    "MODELS",
    "BottleneckResNet",
    "Conv4",
    "CosineHead",
    "Linear",
    "LinearHead",
    "ResNet",
    "ResNetCIFAR",
    "SmallNet",
    "create_model",
    "load_pretrained",
    "sigmoid_prior_bias",
]

# One line per network: name -> constructor taking (num_channels, *, head, dtype, rngs).
MODELS: dict[str, Callable[..., Any]] = {
    # of He et al. for 32x32 images
    "resnet20": partial(ResNetCIFAR, 20),
    "resnet32": partial(ResNetCIFAR, 32),
    "resnet44": partial(ResNetCIFAR, 44),
    "resnet56": partial(ResNetCIFAR, 56),
    "resnet110": partial(ResNetCIFAR, 110),
    # of He et al. for photographs
    "resnet10": partial(ResNet, (1, 1, 1, 1)),
    "resnet18": partial(ResNet, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, (3, 4, 6, 3)),
    "resnet50": partial(BottleneckResNet, (3, 4, 6, 3)),
    "resnet101": partial(BottleneckResNet, (3, 4, 23, 3)),
    "resnet152": partial(BottleneckResNet, (3, 8, 36, 3)),
    "small": SmallNet,
    "conv4": Conv4,
    "mlp": MLP,
    "linear": Linear,
}
_OF_VECTORS = {"mlp", "linear"}
_SMALLEST_SIDE = 8


def _check_image_shape(name: str, image_shape: Sequence[int]) -> None:
    """Refuses what the network does not take, images or feature vectors, and unusable sizes."""
    *sides, channels = image_shape or (0,)
    if name in _OF_VECTORS:
        fits, expected = not sides, "feature vectors, (D,) with D at least 1"
    else:
        fits = len(sides) == 2 and min(sides) >= _SMALLEST_SIDE
        expected = (
            f"images, (height, width, channels) with height and width at least {_SMALLEST_SIDE} "
            "and channels at least 1"
        )
    if not fits or channels < 1:
        raise InputError(f"image_shape={tuple(image_shape)!r}: model {name!r} takes {expected}.")


def _num_features(constructor: Callable[..., Any]) -> int | None:
    """Width of the features of what the constructor makes; None for that of its inputs."""
    network: Any = constructor.func if isinstance(constructor, partial) else constructor
    return network.num_features


def _create_head(
    name: str, num_features: int, num_classes: int, head_bias: float, rngs: nnx.Rngs
) -> nnx.Module:
    """The head of that name."""
    if name == "linear":
        return LinearHead(num_features, num_classes, bias=head_bias, rngs=rngs)
    if name != "cosine":
        raise InputError(f"head={name!r}: expected 'linear' or 'cosine'.")
    if head_bias != 0:
        raise InputError(f"head_bias={head_bias!r}: a cosine head has no bias, expected 0.")
    return CosineHead(num_features, num_classes, rngs=rngs)


def create_model(
    name: str,
    *,
    image_shape: Sequence[int],
    num_classes: int,
    head: str = "linear",
    head_bias: float = 0.0,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> Any:
    """A network of ``MODELS`` with fresh weights.

    Args:
      name: one of ``MODELS``: "resnet20" to "resnet110" for images of about 32x32, "resnet10" to
        "resnet152" for photographs, "small" for 8x8 to 28x28, "conv4" for 28x28 to 64x64, "mlp"
        for feature vectors, "linear" for those of a trained backbone.
      image_shape: ``(height, width, channels)`` of one image, or ``(D,)`` of one feature vector.
      num_classes: number of classes C.
      head: "linear", or "cosine" for logits that are cosines in [-1, 1].
      head_bias: initial value of the linear head's biases; see ``sigmoid_prior_bias``.
      dtype: compute dtype of the convolutions, ``jnp.bfloat16`` on accelerators; parameters,
        batch statistics, features and logits are float32 regardless.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      The module; ``model(images, train=...)`` is ``[B, C]`` float32.

    Raises:
      InputError: if a name is unknown or a shape or number cannot be used.

    Example:
      >>> model = create_model("small", image_shape=(8, 8, 1), num_classes=10, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 1)), train=False).shape
      (2, 10)
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown: expected one of {', '.join(MODELS)}.")
    _check_image_shape(name, image_shape)
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes!r}: expected at least 2.")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"dtype={dtype!r}: expected a floating dtype such as jnp.bfloat16.")
    width = _num_features(MODELS[name]) or image_shape[-1]
    classifier = _create_head(head, width, num_classes, head_bias, rngs)
    return MODELS[name](image_shape[-1], head=classifier, dtype=dtype, rngs=rngs)
