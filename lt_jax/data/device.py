"""Which examples make up each batch, for data that lies on the device as one array.

Pure functions of shapes and a key, to be called inside the jitted step or around it; the images
of a batch are then ``images[indices]``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax.errors import InputError


def epoch_order(key: jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """A random order of all examples, in whole batches; the incomplete last one is dropped.

    Args:
      key: PRNG key; another one for each epoch.
      num_examples: N.
      batch_size: B, at most N.

    Returns:
      Indices, int32 ``[N // B, B]``, no index twice.

    Raises:
      InputError: if B is below 1 or above N.

    Example:
      >>> epoch_order(jax.random.key(0), 10, 4).shape
      (2, 4)
    """
    check_batch_size(batch_size, num_examples)
    steps = num_examples // batch_size
    order = jax.random.permutation(key, num_examples)[: steps * batch_size]
    return order.reshape(steps, batch_size).astype(jnp.int32)


def check_batch_size(batch_size: int, num_examples: int) -> None:
    """Refuses a batch below 1 or above the number of examples."""
    if not 1 <= batch_size <= num_examples:
        raise InputError(
            f"batch size is {batch_size}; expected 1 to {num_examples}, the number of examples"
        )


def eval_order(num_examples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All examples in order, in batches of one size; padding is marked, nothing is dropped.

    Args:
      num_examples: N; 0 gives no batches.
      batch_size: B; may be larger than N.

    Returns:
      NumPy arrays: indices, int32 ``[M, B]`` with M = ceil(N / B), 0 where padded; and ``where``,
      bool ``[M, B]``, false where padded.

    Raises:
      InputError: if B is below 1 or N is negative.

    Example:
      >>> indices, where = eval_order(3, 2)
      >>> indices.tolist(), where.tolist()
      ([[0, 1], [2, 0]], [[True, True], [True, False]])
    """
    if batch_size < 1 or num_examples < 0:
        raise InputError(
            f"batch size is {batch_size} for {num_examples} examples; expected at least 1, and "
            "at least 0 examples"
        )
    batches = -(-num_examples // batch_size)
    # On the host: nothing is compiled for so little.
    indices = np.arange(batches * batch_size, dtype=np.int32).reshape(batches, batch_size)
    where = indices < num_examples
    return np.where(where, indices, 0), where


def shared_order(
    num_examples: int, batch_size: int, num_devices: int
) -> tuple[np.ndarray, np.ndarray]:
    """`eval_order` in batches that devices share evenly.

    A set smaller than a batch would be mostly padding; what pads is masked, so that any size can be
    rounded up to a multiple of the devices.

    Args:
      num_examples: N, at least 1.
      batch_size: the most wanted in a batch, before rounding up.
      num_devices: D.

    Returns:
      As `eval_order`, for a B that D divides.

    Example:
      >>> shared_order(5, 3, 2)[0].shape
      (2, 4)
    """
    size = min(batch_size, num_examples)
    return eval_order(num_examples, -(-size // num_devices) * num_devices)
