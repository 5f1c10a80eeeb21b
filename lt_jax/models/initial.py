"""Initial weights, drawn by few programs: compiling one a shape takes longer than drawing."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

_FEWEST = 4096


@functools.partial(jax.jit, static_argnums=1)
def _normal(key: jax.Array, size: int) -> jax.Array:
    return jax.random.normal(key, (size,), jnp.float32)


def he_normal(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    r"""He normal weights with fan-in, not truncated.

    .. math:: w \sim N(0, 2 / (k^2 C_{in}))

    The n-th number that JAX draws does not depend on how many are drawn, so that these are those of
    ``variance_scaling(2, "fan_in", "normal")``, up to rounding.

    Args:
      key: PRNG key.
      shape: of the weights, ``[..., Cin, Cout]``.

    Returns:
      float32 of that shape.

    Example:
      >>> he_normal(jax.random.key(0), (3, 3, 16, 32)).shape
      (3, 3, 16, 32)

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    count = math.prod(shape)
    size = _FEWEST
    while size < count:
        size *= 4
    return _normal(key, size)[:count].reshape(shape) * jnp.sqrt(2 / math.prod(shape[:-1]))
