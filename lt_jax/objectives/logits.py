"""Transforms of the logits: clouds, margins, priors, the seesaw, a plain scale."""

from __future__ import annotations

from functools import partial

import numpy.typing as npt

from lt_jax import longtail
from lt_jax.losses import margins, priors
from lt_jax.losses._inputs import Array, check_number, constant, proportional
from lt_jax.objectives.core import Terms, Transform, stateless

_EXCLUSIVE = (
    "its log priors are shares of classes that exclude each other, not odds of each class; use"
    " positive_weight"
)
_INDEPENDENT = "its factors compare classes under one normaliser, which sigmoids do not have"


def scale_logits(*, scale: float = 30.0) -> Transform:
    """Multiplies cosine logits by an inverse temperature.

    Args:
      scale: s, positive.

    Returns:
      A transform of the logits.

    Raises:
      InputError: if the scale is not positive.
    """
    check_number("scale", scale, 0.0, open_low=True)
    return stateless(
        lambda key, terms: terms._replace(logits=scale * terms.logits),
        name="scale_logits",
        stage="logits",
        scale=scale,
        wants_cosines=True,
    )


def gaussian_cloud(
    class_counts: npt.ArrayLike,
    *,
    noise: float = 0.5,
    margin: float = 0.0,
    scale: float = 30.0,
    angular: bool = False,
) -> Transform:
    """Perturbs cosine logits, more for rarer classes, and scales them (GCL).

    Args:
      class_counts: training images of each class, ``[C]``, each at least 1.
      noise: k, amplitude of the rarest class's cloud.
      margin: m, taken from the label.
      scale: s, inverse temperature; smaller for few classes or little data.
      angular: add cloud and margin to the angle instead of to the cosine.

    Returns:
      A transform of the logits, for cosine heads.

    Raises:
      InputError: for bad counts or a number outside its range.

    Source: Li, Cheung and Lu, CVPR 2022; see `lt_jax.losses.gaussian_clouded_cross_entropy`.
    """
    sizes = longtail.cloud_sizes(class_counts)
    margins.check_cloud(noise, margin, scale)
    adjust = margins.angular_clouded_logits if angular else margins.clouded_logits

    def apply(key: Array, terms: Terms) -> Terms:
        z = terms.logits
        cloud = margins.draw_cloud(key, z.shape, z.dtype)
        own_sizes = constant(sizes, z)
        return terms._replace(
            logits=adjust(
                z, terms.targets, own_sizes, cloud, noise=noise, margin=margin, scale=scale
            )
        )

    return stateless(apply, name="gaussian_cloud", stage="logits", scale=scale, wants_cosines=True)


def label_distribution_margin(
    class_counts: npt.ArrayLike, *, max_margin: float = 0.5, scale: float = 30.0
) -> Transform:
    """Takes a margin, larger for rarer classes, from the label's cosine and scales (LDAM).

    Args:
      class_counts: training images of each class, ``[C]``, each at least 1.
      max_margin: margin of the rarest class.
      scale: s, inverse temperature.

    Returns:
      A transform of the logits, for cosine heads.

    Raises:
      InputError: for bad counts or a number outside its range.

    Source: Cao et al., NeurIPS 2019; see `lt_jax.losses.ldam_loss`.
    """
    margins = partial(longtail.label_distribution_margins, class_counts)
    margins(1.0)  # bad counts are told now
    check_number("max_margin", max_margin, 0.0)
    check_number("scale", scale, 0.0, open_low=True)

    def apply(key: Array, terms: Terms) -> Terms:
        margin = proportional(max_margin, margins, terms.logits) * terms.targets
        return terms._replace(logits=scale * (terms.logits - margin))

    return stateless(
        apply, name="label_distribution_margin", stage="logits", scale=scale, wants_cosines=True
    )


def logit_adjustment(class_counts: npt.ArrayLike, *, tau: float = 1.0) -> Transform:
    """Adds tau times the log prior of each class to the logits.

    Args:
      class_counts: training images of each class, ``[C]``, each at least 1.
      tau: 1 is the balanced softmax, 0 changes nothing.

    Returns:
      A transform of the logits.

    Raises:
      InputError: for bad counts or a tau that is not finite.

    Source: Menon et al., ICLR 2021; see `lt_jax.losses.logit_adjusted_cross_entropy`.
    """
    prior = longtail.log_prior(class_counts)
    check_number("tau", tau)
    return stateless(
        lambda key, terms: terms._replace(
            logits=terms.logits + tau * constant(prior, terms.logits)
        ),
        name="logit_adjustment",
        stage="logits",
        balances=True,
        only_single_label=_EXCLUSIVE,
    )


def seesaw(
    class_counts: npt.ArrayLike, *, mitigation: float = 0.8, compensation: float = 2.0
) -> Transform:
    """Adds the seesaw's mitigation and compensation factors to the other classes' logits.

    Args:
      class_counts: training images of each class, ``[C]``, each at least 1.
      mitigation: p, at least 0.
      compensation: q, at least 0.

    Returns:
      A transform of the logits, for a softmax.

    Raises:
      InputError: for bad counts or a negative exponent.

    Source: Wang et al., CVPR 2021; see `lt_jax.losses.seesaw_loss`.
    """
    log_counts = longtail.log_prior(class_counts)
    check_number("mitigation", mitigation, 0.0)
    check_number("compensation", compensation, 0.0)

    def apply(key: Array, terms: Terms) -> Terms:
        adjusted = priors.seesaw_logits(
            terms.logits,
            terms.targets,
            constant(log_counts, terms.logits),
            mitigation=mitigation,
            compensation=compensation,
        )
        return terms._replace(logits=adjusted)

    return stateless(
        apply,
        name="seesaw",
        stage="logits",
        refuses=tuple(
            (base, _INDEPENDENT) for base in ("sigmoid", "asymmetric", "negative_tolerant")
        ),
    )
