"""Pairs of samples of two different classes, drawn on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy.typing as npt

from lt_jax import data
from lt_jax.data import Members, one_of_each
from lt_jax.errors import InputError

Array = jax.Array


def members_of(
    labels: npt.ArrayLike, num_classes: int, where: npt.ArrayLike | None = None
) -> Members:
    """Sorts samples by class, for drawing pairs of two classes.

    Args:
      labels: ``[N]``, integers.
      num_classes: C.
      where: which samples take part, bool ``[N]``; all if None.

    Returns:
      `lt_jax.data.Members`.

    Raises:
      InputError: if fewer than two classes have samples.

    Example:
      >>> members_of([2, 0, 2], 3).indices.tolist()
      [1, 0, 2]
    """
    members = data.members_of(labels, num_classes, where)
    there = int((members.counts > 0).sum())
    if there < 2:
        raise InputError(f"{there} classes have samples; expected at least 2, to draw pairs")
    return members


def draw_pairs(key: Array, members: Members, batch_size: int) -> tuple[Array, Array]:
    """Draws pairs: two different classes, each equally likely, then a sample of each.

    Args:
      key: PRNG key.
      members: from `members_of`.
      batch_size: B.

    Returns:
      Indices of positives and of negatives, int32 ``[B]`` each.
    """
    first, second, of_first, of_second = jax.random.split(key, 4)
    there = members.counts > 0
    num = there.sum()
    (classes,) = jnp.nonzero(there, size=there.size, fill_value=0)
    a = jax.random.randint(first, (batch_size,), 0, num)
    b = (a + jax.random.randint(second, (batch_size,), 1, num)) % num
    return one_of_each(of_first, members, classes[a]), one_of_each(of_second, members, classes[b])
