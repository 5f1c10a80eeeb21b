"""Pairs of samples of two different classes, drawn on the device."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail import count_classes

Array = jax.Array


class Members(NamedTuple):
    """Which samples the classes have; only classes that have any.

    Attributes:
      classes: their numbers, int32 ``[G]``.
      order: samples sorted by class, int32 ``[N]``.
      start: where in it each class begins, int32 ``[G]``.
      size: samples of each class, int32 ``[G]``.
    """

    classes: Array
    order: Array
    start: Array
    size: Array


def members_of(labels: npt.ArrayLike, num_classes: int) -> Members:
    """Sorts samples by class.

    Args:
      labels: ``[N]``, integers.
      num_classes: C.

    Returns:
      `Members`.

    Raises:
      InputError: if fewer than two classes have samples.

    Example:
      >>> members_of([2, 0, 2], 3).order.tolist()
      [1, 0, 2]
    """
    labels = np.asarray(labels)
    counts = count_classes(labels, num_classes)
    there = np.flatnonzero(counts)
    if len(there) < 2:
        raise InputError(f"{len(there)} classes have samples; expected at least 2, to draw pairs")
    starts = np.cumsum(counts) - counts
    order = np.argsort(labels, kind="stable")
    return Members(
        *(jnp.asarray(v, jnp.int32) for v in (there, order, starts[there], counts[there]))
    )


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
    num = len(members.classes)
    a = jax.random.randint(first, (batch_size,), 0, num)
    b = (a + jax.random.randint(second, (batch_size,), 1, num)) % num

    def sample(key: Array, group: Array) -> Array:
        within = jax.random.randint(key, (batch_size,), 0, members.size[group])
        return members.order[members.start[group] + within]

    return sample(of_first, a), sample(of_second, b)
