"""Base losses of a chain."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy.typing as npt

from lt_jax import losses
from lt_jax.losses._inputs import Array, check_number, proportional
from lt_jax.losses.reweighted import (
    check_clip,
    negative_tolerant_cross_entropy,
    tolerant_bias,
)
from lt_jax.objectives.core import Base

softmax_cross_entropy = Base("softmax", competing=True, loss=losses.softmax_cross_entropy)
sigmoid_cross_entropy = Base("sigmoid", competing=False, loss=losses.sigmoid_cross_entropy)


def asymmetric(
    *, gamma_positive: float = 1.0, gamma_negative: float = 4.0, clip: float = 0.05
) -> Base:
    """The asymmetric loss (ASL) as a base.

    Args:
      gamma_positive: focus of the positives, at least 0.
      gamma_negative: focus of the negatives, at least 0.
      clip: negatives below this probability cost nothing, in [0, 1).

    Returns:
      A base loss of independent classes.

    Raises:
      InputError: for a number outside its range.

    Source: Ridnik et al., ICCV 2021; see `lt_jax.losses.asymmetric_loss`.
    """
    check_number("gamma_positive", gamma_positive, 0.0)
    check_number("gamma_negative", gamma_negative, 0.0)
    check_clip(clip)
    loss = partial(
        losses.asymmetric_loss,
        gamma_positive=gamma_positive,
        gamma_negative=gamma_negative,
        clip=clip,
    )
    return Base("asymmetric", competing=False, loss=loss)


def negative_tolerant(
    class_counts: npt.ArrayLike,
    *,
    num_examples: int | None = None,
    kappa: float = 0.05,
    negative_scale: float = 2.0,
) -> Base:
    """The negative-tolerant sigmoid loss as a base.

    Args:
      class_counts: positives of each class, ``[C]``, each at least 1; with `num_examples` a class
        may also have none or all, its bias is then 0.
      num_examples: training examples; the sum of the counts if None (single-label data).
      kappa: strength of the class-specific bias, at least 0.
      negative_scale: lambda, positive.

    Returns:
      A base loss of independent classes.

    Raises:
      InputError: for bad counts or a number outside its range.

    Source: Wu et al., Distribution-Balanced Loss, ECCV 2020.
    """
    bias_of = partial(tolerant_bias, class_counts, num_examples)
    bias_of(1.0)  # bad counts are told now
    check_number("kappa", kappa, 0.0)
    check_number("negative_scale", negative_scale, 0.0, open_low=True)

    def loss(logits: Array, targets: Array, **entries: Array) -> Array:
        bias = proportional(kappa, bias_of, jnp.asarray(logits))
        return negative_tolerant_cross_entropy(
            logits, targets, bias, negative_scale=negative_scale, **entries
        )

    return Base("negative_tolerant", competing=False, loss=loss)
