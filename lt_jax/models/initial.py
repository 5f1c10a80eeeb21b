"""Initial weights, drawn by few programs: compiling one a shape takes longer than drawing."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_FEWEST = 65_536  # drawn in a millisecond, and most weights of small networks are fewer


@functools.partial(jax.jit, static_argnums=1)
def _normal(key: jax.Array, size: int) -> jax.Array:
    return jax.random.normal(key, (size,), jnp.float32)


def normal(key: jax.Array, shape: Sequence[int], deviation: float) -> jax.Array:
    r"""Normal weights.

    .. math:: w \sim N(0, \sigma^2)

    The n-th number that JAX draws does not depend on how many are drawn, so that these are those of
    ``nnx.initializers.normal(deviation)``, up to rounding.

    Args:
      key: PRNG key.
      shape: of the weights.
      deviation: of each, sigma.

    Returns:
      float32 of that shape.

    Example:
      >>> normal(jax.random.key(0), (64, 10), 0.125).shape
      (64, 10)
    """
    count = math.prod(shape)
    size = _FEWEST
    while size < count:
        size *= 4
    drawn = _normal(key, size)
    if isinstance(drawn, jax.core.Tracer):
        return drawn[:count].reshape(shape) * jnp.float32(deviation)
    # On the host, for the device would compile each of these operations for every shape.
    return jax.device_put(np.asarray(drawn)[:count].reshape(shape) * np.float32(deviation))


def he_normal(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    r"""He normal weights with fan-in, not truncated.

    .. math:: w \sim N(0, 2 / (k^2 C_{in}))

    Args:
      key: PRNG key.
      shape: of the weights, ``[..., Cin, Cout]``.

    Returns:
      float32 of that shape; those of ``variance_scaling(2, "fan_in", "normal")``, see `normal`.

    Example:
      >>> he_normal(jax.random.key(0), (3, 3, 16, 32)).shape
      (3, 3, 16, 32)

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    return normal(key, shape, math.sqrt(2 / math.prod(shape[:-1])))


def constant(value: float, size: int) -> jax.Array:
    """float32 ``[size]``, without a program for each.

    Example:
      >>> constant(1.0, 2).tolist()
      [1.0, 1.0]
    """
    return jax.device_put(np.full(size, value, np.float32))
