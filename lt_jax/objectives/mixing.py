"""Losses of mixed images: those of both label sets, not of mixed labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lt_jax.errors import InputError
from lt_jax.objectives.core import Objective, State

Array = jax.Array


def mixed_loss(
    objective: Objective,
    state: State,
    key: Array,
    logits: ArrayLike,
    labels: ArrayLike,
    lam: ArrayLike,
    where: ArrayLike | None = None,
) -> tuple[Array, State]:
    r"""Loss of images that were mixed (mixup, CutMix): of both label sets, each as if by itself.

    .. math:: \ell_i = \lambda\, \ell(z_i, y_i) + (1 - \lambda)\, \ell(z_i, y_{\pi(i)})

    For cross-entropy that is the loss of mixed labels. For losses that treat the label's entry
    apart (margins, clouds, focal factors, weights by class) only this means anything, and each set
    has noise and masks of its own. It is one call of the objective: its state counts one step, and
    what is taken over the batch (`normalize`, the histograms of partial label masking) is of both.

    Args:
      objective: from `chain` or `build_objective`.
      state: of it.
      key: PRNG key.
      logits: of the mixed images, ``[B, C]``.
      labels: those of the images, and after them those of the images that they were mixed with,
        integers ``[2B]`` or multi-hot ``[2B, C]``.
      lam: share of an image's own label, in [0, 1]; a scalar, or ``[B]``.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each image, ``[B]``, and the new state.

    Raises:
      InputError: for a share of another shape.

    Example:
      >>> from lt_jax.objectives import chain, softmax_cross_entropy
      >>> objective = chain(base=softmax_cross_entropy)
      >>> labels = jnp.array([0, 1])
      >>> both = jnp.concatenate([labels, labels[::-1]])
      >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
      >>> loss, _ = mixed_loss(objective, (), jax.random.key(0), logits, both, 0.75)
      >>> [round(float(each), 3) for each in loss]
      [0.627, 0.627]

    Source: Zhang et al., mixup, ICLR 2018; as GCL's released code takes it (Li et al., CVPR 2022).
    """
    logits, lam = jnp.asarray(logits), jnp.asarray(lam)
    if lam.shape not in ((), logits.shape[:1]):
        raise InputError(
            f"lam has shape {lam.shape}; expected a scalar, or one for each of the"
            f" {logits.shape[0]} images"
        )
    both = None if where is None else jnp.tile(jnp.asarray(where), 2)
    loss, new = objective.apply(state, key, jnp.concatenate([logits, logits]), labels, both)
    first, second = jnp.split(loss, 2)
    return lam * first + (1.0 - lam) * second, new
