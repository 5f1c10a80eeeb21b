"""Masked autoregressive flow with invertible batch normalisation, as pure functions.

A block maps x to u, one coordinate after another: the shift and the log-scale of coordinate i
depend on those before it alone, so that the Jacobian is triangular and its determinant the product
of the scales. The order of the coordinates is reversed from block to block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lt_jax.errors import InputError

Array = jax.Array
Tree = Any
EPSILON = 1e-5  # added to variances
MOMENTUM = 0.9  # of the running mean and variance


class Flow(NamedTuple):
    """What a flow knows.

    Attributes:
      params: a list with a dictionary for each block, trained by gradients.
      stats: likewise, running mean and variance of its batch normalisation.
    """

    params: Tree
    stats: Tree


def init_flow(key: Array, dim: int, *, num_blocks: int = 2, hidden: int = 0) -> Flow:
    """A flow with fresh weights, near the identity but for its batch normalisation.

    Args:
      key: PRNG key.
      dim: D, dimension of the features, at least 2.
      num_blocks: how many blocks.
      hidden: width of each block's hidden layer; 0 for D.

    Returns:
      A `Flow`, float32.

    Raises:
      InputError: for numbers that cannot be used.

    Example:
      >>> flow = init_flow(jax.random.key(0), 4)
      >>> flow.params[0]["hidden"].shape, flow.params[0]["output"].shape
      ((4, 4), (4, 8))
    """
    for name, value, least in (
        ("dim", dim, 2),
        ("num_blocks", num_blocks, 1),
        ("hidden", hidden, 0),
    ):
        if value < least:
            raise InputError(f"{name} is {value!r}; expected at least {least}")
    width = hidden or dim
    first = jax.nn.initializers.he_normal()
    last = jax.nn.initializers.variance_scaling(0.01, "fan_in", "normal")

    def block(key: Array) -> Tree:
        # float32 by name: in float64 mode the default would draw other numbers.
        one, two = jax.random.split(key)
        return {
            "hidden": first(one, (dim, width), jnp.float32),
            "hidden_bias": jnp.zeros(width, jnp.float32),
            "output": last(two, (width, 2 * dim), jnp.float32),
            "output_bias": jnp.zeros(2 * dim, jnp.float32),
            "log_gamma": jnp.zeros(dim, jnp.float32),
            "beta": jnp.zeros(dim, jnp.float32),
        }

    def running() -> Tree:
        return {"mean": jnp.zeros(dim, jnp.float32), "var": jnp.ones(dim, jnp.float32)}

    stats = [running() for _ in range(num_blocks)]
    return Flow([block(k) for k in jax.random.split(key, num_blocks)], stats)


def autoregressive_masks(dim: int, hidden: int, *, reverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which weights of a block there are, so that no output sees its own or a later coordinate.

    Args:
      dim: D.
      hidden: width of the hidden layer.
      reverse: whether the last coordinate comes first.

    Returns:
      Bool ``[D, hidden]`` and ``[hidden, 2 D]``: the shifts' and the log-scales' weights.

    Example:
      >>> first, last = autoregressive_masks(3, 2, reverse=False)
      >>> (first.astype(int) @ last.astype(int))[:, :3].tolist()
      [[0, 1, 2], [0, 0, 1], [0, 0, 0]]

    Source: Germain et al., MADE, ICML 2015.
    """
    place = np.arange(1, dim + 1)[:: -1 if reverse else 1]
    degree = 1 + np.arange(hidden) % (dim - 1)
    seen = degree[:, None] < place
    return place[:, None] <= degree, np.concatenate([seen, seen], axis=1)


def _shift_and_log_scale(block: Tree, x: Array, index: int, bound: float) -> tuple[Array, Array]:
    first, last = autoregressive_masks(
        x.shape[-1], block["hidden"].shape[1], reverse=index % 2 == 1
    )
    hidden = jax.nn.relu(x @ (block["hidden"] * first) + block["hidden_bias"])
    output = hidden @ (block["output"] * last) + block["output_bias"]
    shift, log_scale = jnp.split(output, 2, axis=-1)
    return shift, bound * jnp.tanh(log_scale / bound) if bound else log_scale


def forward(flow: Flow, x: Array, *, train: bool, bound: float = 3.0) -> tuple[Array, Array, Tree]:
    r"""Features to latents.

    .. math:: u = (x - m(x)) \exp(-a(x)), \quad
              a = c \tanh(a_0 / c)

    for each block, followed by

    .. math:: y = (u - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \exp(\log\gamma) + \beta.

    Args:
      flow: see `Flow`.
      x: features, float ``[B, D]``.
      train: whether mean and variance are the batch's, which join the running ones, or the running
        ones.
      bound: c, the largest log-scale; 0 for none, with which features far from those of training
        overflow.

    Returns:
      Latents ``[B, D]``, log-determinants of the Jacobian ``[B]`` (exact where `train` is False;
      else the batch's mean and variance count as constants), and the new running statistics.

    Source: Papamakarios et al., Masked Autoregressive Flow, NeurIPS 2017; Xu et al., ECCV 2022.
    """
    log_det = jnp.zeros(x.shape[0], x.dtype)
    stats = []
    for index, (block, running) in enumerate(zip(flow.params, flow.stats, strict=True)):
        shift, log_scale = _shift_and_log_scale(block, x, index, bound)
        x = (x - shift) * jnp.exp(-log_scale)
        log_det -= log_scale.sum(axis=-1)
        mean, var = (x.mean(0), x.var(0)) if train else (running["mean"], running["var"])
        inverse_scale = block["log_gamma"] - 0.5 * jnp.log(var + EPSILON)
        x = (x - mean) * jnp.exp(inverse_scale) + block["beta"]
        log_det += inverse_scale.sum()
        now = {"mean": lax.stop_gradient(mean), "var": lax.stop_gradient(var)}
        mixed = jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, running, now)
        stats.append(mixed if train else running)
    return x, log_det, stats


def inverse(flow: Flow, u: Array, *, bound: float = 3.0) -> Array:
    """Latents to features, by the running statistics; one pass over a block for each coordinate.

    Args:
      flow: see `Flow`.
      u: latents, float ``[B, D]``.
      bound: as in `forward`.

    Returns:
      Features ``[B, D]``.
    """
    dim = u.shape[-1]
    for index in reversed(range(len(flow.params))):
        block, running = flow.params[index], flow.stats[index]
        scale = jnp.exp(0.5 * jnp.log(running["var"] + EPSILON) - block["log_gamma"])
        y = (u - block["beta"]) * scale + running["mean"]

        def place(step: int, x: Array, index: int = index, y: Array = y) -> Array:
            at = dim - 1 - step if index % 2 == 1 else step
            shift, log_scale = _shift_and_log_scale(flow.params[index], x, index, bound)
            return x.at[:, at].set((y * jnp.exp(log_scale) + shift)[:, at])

        u = lax.fori_loop(0, dim, place, jnp.zeros_like(y))
    return u
