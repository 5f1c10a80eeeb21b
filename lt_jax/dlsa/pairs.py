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
    """Which samples the classes have.

    Arrays have the same shapes whichever samples take part, so that those of several replicas can
    be stacked.

    Attributes:
      order: samples sorted by class, int32 ``[N]``, those that take no part last.
      classes: classes that have samples, int32 ``[C]``, then 0.
      start: where in the order each of these begins, int32 ``[C]``.
      size: samples of each, int32 ``[C]``.
      num_classes: how many classes have samples, int32 scalar.
    """

    order: Array
    classes: Array
    start: Array
    size: Array
    num_classes: Array


def members_of(
    labels: npt.ArrayLike, num_classes: int, where: npt.ArrayLike | None = None
) -> Members:
    """Sorts samples by class.

    Args:
      labels: ``[N]``, integers.
      num_classes: C.
      where: which samples take part, bool ``[N]``; all if None.

    Returns:
      `Members`.

    Raises:
      InputError: if fewer than two classes have samples.

    Example:
      >>> members_of([2, 0, 2], 3).order.tolist()
      [1, 0, 2]
    """
    labels = np.asarray(labels)
    taking_part = np.ones(len(labels), bool) if where is None else np.asarray(where)
    counts = count_classes(labels[taking_part], num_classes)
    there = np.flatnonzero(counts)
    if len(there) < 2:
        raise InputError(f"{len(there)} classes have samples; expected at least 2, to draw pairs")
    order = np.argsort(np.where(taking_part, labels, num_classes), kind="stable")
    starts = np.cumsum(counts) - counts
    padded = np.zeros((3, num_classes), np.int32)
    padded[:, : len(there)] = there, starts[there], counts[there]
    classes, start, size = (jnp.asarray(row) for row in padded)
    num = jnp.asarray(len(there), jnp.int32)
    return Members(jnp.asarray(order, jnp.int32), classes, start, size, num)


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
    num = members.num_classes
    a = jax.random.randint(first, (batch_size,), 0, num)
    b = (a + jax.random.randint(second, (batch_size,), 1, num)) % num

    def sample(key: Array, group: Array) -> Array:
        within = jax.random.randint(key, (batch_size,), 0, members.size[group])
        return members.order[members.start[group] + within]

    return sample(of_first, a), sample(of_second, b)
