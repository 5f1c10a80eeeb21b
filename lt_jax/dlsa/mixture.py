"""Gaussian mixture with fixed centres, unit covariance and equal weights, in the latent space."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from lt_jax.errors import InputError

Array = jax.Array


def draw_centres(key: Array, num_clusters: int, dim: int, *, spread: float = 0.05) -> Array:
    """Centres, drawn once.

    Args:
      key: PRNG key.
      num_clusters: K, at least 2.
      dim: D.
      spread: standard deviation of every coordinate.

    Returns:
      ``[K, D]``, float32.

    Raises:
      InputError: for fewer than two clusters or a spread that is not positive.

    Example:
      >>> draw_centres(jax.random.key(0), 500, 64).shape
      (500, 64)
    """
    if num_clusters < 2:
        raise InputError(f"num_clusters is {num_clusters!r}; expected at least 2")
    if not spread > 0:
        raise InputError(f"spread is {spread!r}; expected a positive number")
    return spread * jax.random.normal(key, (num_clusters, dim), jnp.float32)


def log_densities(latents: Array, log_det: Array, centres: Array) -> Array:
    r"""Log-density of each example under each Gaussian.

    .. math:: \log p_k(x) = -\tfrac D2 \log 2\pi - \tfrac12 |u - \mu_k|^2 + \log|\det|

    The square is taken apart, so that the largest array is ``[B, K]`` and never ``[B, K, D]``.

    Args:
      latents: u, float ``[B, D]``.
      log_det: log-determinant of the flow, ``[B]``.
      centres: ``[K, D]``.

    Returns:
      ``[B, K]``.

    Example:
      >>> centres = jnp.array([[0.0, 0.0], [1.0, 1.0]])
      >>> log_densities(jnp.zeros((1, 2)), jnp.zeros(1), centres).round(3)
      Array([[-1.838, -2.838]], dtype=float32)

    Source: Xu et al., ECCV 2022.
    """
    # At the full precision of the type: accelerators would round the products to bfloat16 or TF32,
    # and differences between centres are a small part of them.
    product = jnp.matmul(latents, centres.T, precision=lax.Precision.HIGHEST)
    squares = (latents**2).sum(-1)[:, None] - 2 * product + (centres**2).sum(-1)
    constant = 0.5 * latents.shape[-1] * math.log(2 * math.pi)
    return log_det[:, None] - constant - 0.5 * squares


def log_likelihood(log_density: Array) -> Array:
    r"""Log-likelihood of each example under the mixture.

    .. math:: \log p(x) = \log \sum_k p_k(x) - \log K

    Args:
      log_density: from `log_densities`, ``[B, K]``.

    Returns:
      ``[B]``.

    Example:
      >>> log_likelihood(jnp.zeros((1, 4)))
      Array([0.], dtype=float32)
    """
    return jax.nn.logsumexp(log_density, axis=-1) - math.log(log_density.shape[-1])
