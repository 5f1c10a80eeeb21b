"""Networks by name.

Every network maps float images ``[B, H, W, C]`` to float32 logits by ``model(images, train=...)``,
to the float32 features before its head by ``model.features(images, train=...)``, and keeps the
head as ``model.head``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from lt_jax.errors import InputError
from lt_jax.models.heads import CosineHead, LinearHead, sigmoid_prior_bias
from lt_jax.models.resnet_cifar import ResNetCIFAR
from lt_jax.models.small import SmallNet

__all__ = [
    "MODELS",
    "CosineHead",
    "LinearHead",
    "ResNetCIFAR",
    "SmallNet",
    "create_model",
    "sigmoid_prior_bias",
]

# One line per network: name -> constructor taking (num_channels, *, head, dtype, rngs).
MODELS: dict[str, Callable[..., Any]] = {
    "resnet20": partial(ResNetCIFAR, 20),
    "resnet32": partial(ResNetCIFAR, 32),
    "resnet44": partial(ResNetCIFAR, 44),
    "resnet56": partial(ResNetCIFAR, 56),
    "resnet110": partial(ResNetCIFAR, 110),
    "small": SmallNet,
}
_NUM_FEATURES = 64  # of every network so far
_SMALLEST_SIDE = 8


def _check_image_shape(image_shape: Sequence[int]) -> None:
    """Refuses anything but ``(height, width, channels)`` of a usable size."""
    if len(image_shape) != 3 or min(image_shape[:2]) < _SMALLEST_SIDE or image_shape[2] < 1:
        raise InputError(
            f"image_shape={tuple(image_shape)!r}: expected (height, width, channels) with height "
            f"and width at least {_SMALLEST_SIDE} and channels at least 1."
        )


def _create_head(name: str, num_classes: int, head_bias: float, rngs: nnx.Rngs) -> nnx.Module:
    """The head of that name."""
    if name == "linear":
        return LinearHead(_NUM_FEATURES, num_classes, bias=head_bias, rngs=rngs)
    if name != "cosine":
        raise InputError(f"head={name!r}: expected 'linear' or 'cosine'.")
    if head_bias != 0:
        raise InputError(f"head_bias={head_bias!r}: a cosine head has no bias, expected 0.")
    return CosineHead(_NUM_FEATURES, num_classes, rngs=rngs)


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
      name: "resnet20", "resnet32", "resnet44", "resnet56", "resnet110" or "small".
      image_shape: ``(height, width, channels)`` of one image.
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
    _check_image_shape(image_shape)
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes!r}: expected at least 2.")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"dtype={dtype!r}: expected a floating dtype such as jnp.bfloat16.")
    classifier = _create_head(head, num_classes, head_bias, rngs)
    return MODELS[name](image_shape[2], head=classifier, dtype=dtype, rngs=rngs)
