"""Networks by name.

Every network maps float images ``[B, H, W, C]`` (the MLP: feature vectors ``[B, D]``) to float32
logits by ``model(images, train=...)``, to the float32 features before its head by
``model.features(images, train=...)``, and keeps the head as ``model.head``. How many features
there are is ``num_features`` of its class, None for as many as the inputs have channels.
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
from lt_jax.models.requirements import (
    check_constructor,
    check_module,
    network_of,
    num_features_of,
)
from lt_jax.models.resnet import BottleneckResNet, ResNet, ResNeXt
from lt_jax.models.resnet_cifar import ResNetCIFAR
from lt_jax.models.small import Conv4, SmallNet
from lt_jax.models.vit import VisionTransformer, ViTSmall, ViTTiny

__all__ = [
    "MLP",
    "MODELS",
    "BottleneckResNet",
    "Conv4",
    "CosineHead",
    "Linear",
    "LinearHead",
    "ResNeXt",
    "ResNet",
    "ResNetCIFAR",
    "SmallNet",
    "ViTSmall",
    "ViTTiny",
    "VisionTransformer",
    "create_model",
    "load_pretrained",
    "sigmoid_prior_bias",
]

# One line per network: name -> constructor taking (num_channels, *, head, dtype, rngs); one with a
# `patch_size` takes the image shape instead, since its weights are for one size of images.
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
    # of Xie et al., "32x4d"
    "resnext50": partial(ResNeXt, (3, 4, 6, 3)),
    "resnext101": partial(ResNeXt, (3, 4, 23, 3)),
    # of Dosovitskiy et al. and Touvron et al.
    "vit_tiny16": ViTTiny,
    "vit_small16": ViTSmall,
    "vit_b16": VisionTransformer,
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
    patch = _patch_size(name)
    if name in _OF_VECTORS:
        fits, expected = not sides, "feature vectors, (D,) with D at least 1"
    else:
        smallest = patch or _SMALLEST_SIDE
        fits = len(sides) == 2 and min(sides) >= smallest
        expected = (
            f"images, (height, width, channels) with height and width at least {smallest} "
            "and channels at least 1"
        )
    if not fits or channels < 1:
        raise InputError(f"image_shape={tuple(image_shape)!r}: model {name!r} takes {expected}.")
    if patch and any(side % patch for side in sides):
        raise InputError(
            f"image_shape={tuple(image_shape)!r}: model {name!r} cuts images into patches of "
            f"{patch}x{patch} pixels, expected a height and a width divisible by {patch}."
        )


def _patch_size(name: str) -> int | None:
    """Side of the patches that a network cuts images into; None for one that takes any size."""
    return getattr(network_of(MODELS[name]), "patch_size", None)


def _create_head(
    name: str, num_features: int, num_classes: int, head_bias: float | None, rngs: nnx.Rngs
) -> nnx.Module:
    """The head of that name."""
    if name == "linear":
        return LinearHead(num_features, num_classes, bias=head_bias, rngs=rngs)
    if name != "cosine":
        raise InputError(f"head={name!r}: expected 'linear' or 'cosine'.")
    if head_bias:
        raise InputError(f"head_bias={head_bias!r}: a cosine head has no bias, expected None.")
    return CosineHead(num_features, num_classes, rngs=rngs)


def create_model(
    name: str,
    *,
    image_shape: Sequence[int],
    num_classes: int,
    head: str = "linear",
    head_bias: float | None = None,
    dtype: DTypeLike = jnp.float32,
    fused: bool = False,
    rngs: nnx.Rngs,
) -> Any:
    """A network of ``MODELS`` with fresh weights.

    Args:
      name: one of ``MODELS``: "resnet20" to "resnet110" for images of about 32x32, "resnet10" to
        "resnet152", "resnext50", "resnext101", "vit_tiny16", "vit_small16" and "vit_b16" for
        photographs, "small" for 8x8 to 28x28, "conv4" for 28x28 to 64x64, "mlp" for feature
        vectors, "linear" for those of a trained backbone.
      image_shape: ``(height, width, channels)`` of one image, or ``(D,)`` of one feature vector;
        for a Vision Transformer height and width are divisible by 16.
      num_classes: number of classes C.
      head: "linear", or "cosine" for logits that are cosines in [-1, 1].
      head_bias: a prior for sigmoid losses, at which the linear head's biases start; see
        `LinearHead` and `sigmoid_prior_bias`. None for no prior.
      dtype: compute dtype of convolutions and blocks, ``jnp.bfloat16`` on accelerators; parameters,
        batch statistics, features and logits are float32 regardless.
      fused: whether "resnet20" to "resnet110" train in kernels made for them on one NVIDIA GPU, in
        bfloat16; see `ResNetCIFAR`.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      The module; ``model(images, train=...)`` is ``[B, C]`` float32.

    Raises:
      InputError: if a name is unknown, a shape or number cannot be used, or a network that was
        added to ``MODELS`` lacks what is needed of it.

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
    if fused and network_of(MODELS[name]) is not ResNetCIFAR:
        raise InputError(
            f"fused=True: model {name!r} has no fused kernels; only CIFAR ResNets have."
        )
    if fused and image_shape[-1] > 16:
        raise InputError(
            f"image_shape={tuple(image_shape)!r}: fused kernels take at most 16 channels."
        )
    width = num_features_of(name, MODELS[name], image_shape[-1])
    classifier = _create_head(head, width, num_classes, head_bias, rngs)
    inputs = image_shape if _patch_size(name) else image_shape[-1]
    options: dict[str, Any] = {"head": classifier, "dtype": dtype, "rngs": rngs}
    if fused:
        options["fused"] = True
    check_constructor(name, MODELS[name], options)
    model = MODELS[name](inputs, **options)
    check_module(name, model)
    return model
