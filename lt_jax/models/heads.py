"""Classifier heads: what turns features ``[B, D]`` into logits ``[B, C]``.

Both compute in float32 whatever the backbone's dtype: a head costs nothing beside the
convolutions, and losses with large scales or margins need the digits.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from lt_jax.errors import InputError
from lt_jax.models.initial import constant, normal

# Squared norm below which a vector counts as zero; its square root is far below any real feature.
_ZERO_SQUARED_NORM = 1e-24


def sigmoid_prior_bias(num_classes: int) -> float:
    """The bias ``-log(C - 1)`` at which every sigmoid starts at probability ``1 / C``.

    Without it a one-vs-rest loss over many classes begins dominated by its ``C - 1`` negatives.

    Args:
      num_classes: the number of classes C, at least 2.

    Returns:
      The bias, a Python float.

    Raises:
      InputError: if ``num_classes`` is below 2.

    Example:
      >>> round(sigmoid_prior_bias(10), 4)
      -2.1972

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes!r}: a sigmoid prior needs at least 2 classes.")
    return -math.log(num_classes - 1)


def _unit(vectors: jax.Array, axis: int) -> jax.Array:
    """Vectors of length one along ``axis``; a zero vector stays zero and gets gradient zero."""
    squared = jnp.sum(jnp.square(vectors), axis=axis, keepdims=True)
    is_zero = squared < _ZERO_SQUARED_NORM
    # The inner `where` keeps the infinite slope of rsqrt at 0 out of the gradient.
    return jnp.where(is_zero, 0.0, vectors * lax.rsqrt(jnp.where(is_zero, 1.0, squared)))


class LinearHead(nnx.Module):
    """``features @ kernel + bias``.

    Without ``bias`` the weights start like the other layers of CIFAR networks (He normal), and
    biases at 0. With one, a prior for sigmoid losses, weights start at zero mean and deviation
    0.01, so that the prior is what the network predicts at first.

    Args:
      num_features: width D of the features.
      num_classes: number of classes C.
      bias: initial value of all C biases if it is a prior, also of 0; None for no prior.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) logits ``[B, C]`` float32 for features ``[B, D]`` of any float dtype.

    Raises:
      InputError: if ``bias`` is not finite.

    Example:
      >>> head = LinearHead(4, 3, bias=-2.0, rngs=nnx.Rngs(0))
      >>> head(jnp.zeros((1, 4))).tolist()
      [[-2.0, -2.0, -2.0]]

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (the prior).
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        bias: float | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Draws the weights."""
        if bias is not None and not math.isfinite(bias):
            raise InputError(f"head_bias={bias!r}: expected a finite number.")
        init = nnx.initializers.he_normal() if bias is None else nnx.initializers.normal(0.01)
        self.kernel = nnx.Param(init(rngs.params(), (num_features, num_classes), jnp.float32))
        self.bias = nnx.Param(constant(bias or 0.0, num_classes))

    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits ``[B, C]`` of features ``[B, D]``."""
        kernel, bias = self.kernel[...], self.bias[...]
        return jnp.dot(features.astype(jnp.float32), kernel, precision="highest") + bias


class CosineHead(nnx.Module):
    """Cosines between the features and one weight vector per class; no bias, no scale.

    The scale (30 in most papers) belongs to the objective, which may also perturb the cosines.

    Args:
      num_features: width D of the features.
      num_classes: number of classes C.
      rngs: source of the initial weights (stream ``params``).

    Returns:
      (of a call) cosines ``[B, C]`` float32 in [-1, 1] for features ``[B, D]`` of any float
      dtype. A zero feature vector has cosine 0 to everything, and gradient 0.

    Example:
      >>> head = CosineHead(4, 3, rngs=nnx.Rngs(0))
      >>> float(head(100.0 * head.kernel[...].T)[1, 1])
      1.0

    Source: Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018.
    """

    def __init__(self, num_features: int, num_classes: int, *, rngs: nnx.Rngs) -> None:
        """Draws the weights: uniform directions, lengths about one."""
        shape = (num_features, num_classes)
        self.kernel = nnx.Param(normal(rngs.params(), shape, num_features**-0.5))

    def __call__(self, features: jax.Array) -> jax.Array:
        """Cosines ``[B, C]`` of features ``[B, D]``."""
        directions = _unit(features.astype(jnp.float32), axis=-1)
        cosines = jnp.dot(directions, _unit(self.kernel[...], axis=0), precision="highest")
        return jnp.clip(cosines, -1.0, 1.0)  # rounding can leave the interval by an ulp
