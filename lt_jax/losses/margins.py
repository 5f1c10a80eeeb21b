"""Losses with clouds and margins on cosine logits: GCL, its angular variant, LDAM."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike, DTypeLike

from lt_jax import longtail
from lt_jax.losses._inputs import Array, check_number, constant, prepare
from lt_jax.losses.cross_entropy import softmax_cross_entropy


def draw_cloud(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Noise of GCL: N(0, 1/3) (standard deviation one third) clipped to [-1, 1].

    Args:
      key: PRNG key.
      shape: of the logits.
      dtype: floating type of the result.

    Returns:
      Noise of that shape, independent for every entry.
    """
    cloud = jnp.clip(jax.random.normal(key, shape, dtype) / 3.0, -1.0, 1.0)
    # Drawn once, not again in each kernel that reads it: weighing that up takes XLA seconds.
    return jax.lax.optimization_barrier(cloud)


def clouded_logits(
    cosines: Array,
    targets: Array,
    sizes: Array,
    cloud: Array,
    *,
    noise: float = 0.5,
    margin: float = 0.0,
    scale: float = 30.0,
) -> Array:
    r"""Gaussian-clouded logits.

    .. math:: z_{ij} = s (f_{ij} - k |e_{ij}| \delta_j - m t_{ij})

    Args:
      cosines: f, ``[B, C]``, of feature and class vectors, in [-1, 1].
      targets: t, ``[B, C]``; one-hot, or soft, which takes its share of the margin.
      sizes: delta, relative cloud size of each class ``[C]`` (`longtail.cloud_sizes`).
      cloud: e, noise ``[B, C]`` (`draw_cloud`).
      noise: k, amplitude of the rarest class's cloud, at least 0.
      margin: m, taken from the label's cosine, at least 0.
      scale: s, inverse temperature, positive.

    Returns:
      Logits, ``[B, C]``.

    Source: Li, Cheung and Lu, Gaussian Clouded Logit Adjustment, CVPR 2022.
    """
    check_cloud(noise, margin, scale)
    return scale * (cosines - noise * jnp.abs(cloud) * sizes - margin * targets)


def angular_clouded_logits(
    cosines: Array,
    targets: Array,
    sizes: Array,
    cloud: Array,
    *,
    noise: float = 0.5,
    margin: float = 0.0,
    scale: float = 30.0,
) -> Array:
    r"""Gaussian-clouded logits whose cloud and margin are added to the angle.

    .. math:: z_{ij} = s \cos(\min(\theta_{ij} + \tfrac{\pi}{2} k |e_{ij}| \delta_j + m t_{ij},
              \pi)), \quad \theta = \arccos f

    The angle stops at pi: past it the cosine would rise again and the cloud would help the class.

    Args:
      cosines: f, ``[B, C]``, in [-1, 1] (values outside are clipped).
      targets: t, ``[B, C]``.
      sizes: delta, relative cloud size of each class ``[C]``.
      cloud: e, noise ``[B, C]``.
      noise: k, as a share of a right angle, at least 0.
      margin: m, in radians, at least 0.
      scale: s, inverse temperature, positive.

    Returns:
      Logits, ``[B, C]``.

    Source: Li et al., Adjusting Logit in Gaussian Form for Long-Tailed Visual Recognition,
    arXiv 2305.10648.
    """
    check_cloud(noise, margin, scale)
    added = np.pi / 2 * noise * jnp.abs(cloud) * sizes + margin * targets
    f = jnp.clip(cosines, -1.0, 1.0)
    # cos(theta + a) without arccos, whose gradient is infinite at -1 and 1; sin(theta) is bounded
    # away from 0 for the same reason, only where something is added.
    sine = jnp.sqrt(jnp.maximum(1.0 - f * f, 1e-12))
    turned = jnp.where(added > 0, f * jnp.cos(added) - sine * jnp.sin(added), f)
    beyond_pi = (added >= np.pi) | (f < -jnp.cos(jnp.minimum(added, np.pi)))
    return scale * jnp.where((added > 0) & beyond_pi, -1.0, turned)


def check_cloud(noise: float, margin: float, scale: float) -> None:
    """Refuses numbers outside their range."""
    check_number("noise", noise, 0.0)
    check_number("margin", margin, 0.0)
    check_number("scale", scale, 0.0, open_low=True)


def gaussian_clouded_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    key: Array,
    noise: float = 0.5,
    margin: float = 0.0,
    scale: float = 30.0,
    angular: bool = False,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy of Gaussian-clouded cosine logits (GCL, stage 1).

    .. math:: \ell_i = \mathrm{CE}(s (f_i - k |e_i| \delta - m [\cdot = y])), \quad
              e_{ij} \sim N(0, 1/3) \text{ clipped to } [-1, 1]

    At test time there is neither cloud nor margin: take the argmax of the cosines. The scale bounds
    how sure the network can be: with C classes the label's probability is at most
    ``1 / (1 + (C - 1) exp(-2 s))``. 30 suits 10 to 1000 classes; for two classes or a few hundred
    images use 5 to 15, since a large scale saturates the softmax and training may diverge.

    Args:
      logits: cosines of feature and class vectors, ``[B, C]``, in [-1, 1].
      labels: integers ``[B]``, or a distribution ``[B, C]``.
      class_counts: training images of each class, ``[C]``, each at least 1.
      key: PRNG key of this call.
      noise: k, amplitude of the rarest class's cloud; the most frequent class has none.
      margin: m, taken from the label's cosine (0.1 in stage 2); with `angular`, in radians.
      scale: s, inverse temperature.
      angular: add cloud and margin to the angle instead of to the cosine.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``. Balanced counts give the scaled cosine cross-entropy exactly.

    Raises:
      InputError: if shapes do not fit, for bad counts or a number outside its range.

    Example:
      >>> cosines, labels = jnp.array([[0.9, 0.1]]), jnp.array([0])
      >>> gaussian_clouded_cross_entropy(
      ...     cosines, labels, [5, 5], key=jax.random.key(0), scale=10.0).round(6)
      Array([0.000335], dtype=float32)

    Source: Li, Cheung and Lu, CVPR 2022 (arXiv 2305.11733); angular: arXiv 2305.10648.
    """
    cosines, targets = prepare(logits, labels, where)
    sizes = constant(longtail.cloud_sizes(class_counts), cosines)
    cloud = draw_cloud(key, cosines.shape, cosines.dtype)
    adjust = angular_clouded_logits if angular else clouded_logits
    clouded = adjust(cosines, targets, sizes, cloud, noise=noise, margin=margin, scale=scale)
    return softmax_cross_entropy(clouded, targets, where=where)


def ldam_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: npt.ArrayLike,
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
    where: ArrayLike | None = None,
) -> Array:
    r"""Softmax cross-entropy with a margin that is larger for rarer classes.

    .. math:: \ell_i = \mathrm{CE}(s (f_i - m_y [\cdot = y])), \quad m_c \propto n_c^{-1/4}

    Args:
      logits: cosines of feature and class vectors, ``[B, C]``, in [-1, 1].
      labels: integers ``[B]``, or a distribution ``[B, C]``.
      class_counts: training images of each class, ``[C]``, each at least 1.
      max_margin: margin of the rarest class, at least 0.
      scale: s, inverse temperature, positive.
      where: which rows count, bool ``[B]``.

    Returns:
      Loss of each example, ``[B]``.

    Raises:
      InputError: if shapes do not fit, for bad counts or a number outside its range.

    Example:
      >>> ldam_loss(jnp.array([[0.5, 0.5]]), jnp.array([1]), [160, 10], scale=2.0).round(4)
      Array([1.3133], dtype=float32)

    Source: Cao et al., Learning Imbalanced Datasets with LDAM Loss, NeurIPS 2019.
    """
    cosines, targets = prepare(logits, labels, where)
    check_number("max_margin", max_margin, 0.0)
    unit = constant(longtail.label_distribution_margins(class_counts, 1.0), cosines)
    margins = max_margin * unit
    check_number("scale", scale, 0.0, open_low=True)
    return softmax_cross_entropy(scale * (cosines - margins * targets), targets, where=where)
