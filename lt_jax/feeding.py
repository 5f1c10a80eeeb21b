"""What steps are handed: arrays that lie on the device, or images that are read as they go.

Either way a step gets a `Split` and rows of indices into it. Of images in memory that is the whole
split and the indices of the epoch; of streamed ones it is a split of the batch's images alone and
0, 1, 2 ..., so that steps need not know which it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lt_jax.data import StreamedImages, shared_order
from lt_jax.sharding import replicated
from lt_jax.steps import Split

Array = jax.Array


class Rest(Protocol):
    """The steps of an epoch that are still to be made."""

    def take(self, many: int) -> tuple[Split, Array | np.ndarray]:
        """The next steps: a split, and rows of indices into it, ``[R, many, B]``."""
        ...

    def close(self) -> None:
        """Stops what reads ahead."""
        ...


class _Resident:
    """Of a split that lies on the device."""

    def __init__(self, split: Split, order: np.ndarray) -> None:
        self._split, self._order, self._at = split, order, 0

    def take(self, many: int) -> tuple[Split, Array | np.ndarray]:
        rows = self._order[:, self._at : self._at + many]
        self._at += many
        return self._split, rows  # on the host, where taking those of a replica costs nothing

    def close(self) -> None:
        pass


class _Streamed:
    """Of a split whose images are read ahead, those of all replicas of a step together."""

    def __init__(self, split: Split, order: np.ndarray, mesh: Mesh) -> None:
        replicas, steps, size = order.shape
        rows = order.swapaxes(0, 1).reshape(steps, replicas * size)
        self._batches = _read(split, rows, mesh)
        self._local = jnp.arange(replicas * size, dtype=jnp.int32).reshape(replicas, 1, size)

    def take(self, many: int) -> tuple[Split, Array | np.ndarray]:
        assert many == 1, "streamed images come one step at a time"
        return next(self._batches), self._local

    def close(self) -> None:
        self._batches.close()


def _read(split: Split, rows: np.ndarray, mesh: Mesh) -> Generator[Split]:
    """Splits of one batch each, on the device, for rows of indices ``[M, B]``."""
    everywhere = replicated(mesh)
    with contextlib.closing(split.images.batches(rows)) as images:
        for indices, batch in zip(rows, images, strict=True):
            part = split._replace(images=batch, labels=split.labels[indices])
            yield jax.device_put(part, everywhere)


def is_streamed(split: Split) -> bool:
    """Whether the images of a split are read while it is used."""
    return isinstance(split.images, StreamedImages)


def training_steps(split: Split, order: np.ndarray, mesh: Mesh) -> Rest:
    """The steps of what is left of an epoch.

    Args:
      split: to train on.
      order: indices of each replica's batches, int32 ``[R, steps, B]``, from the next step on.
      mesh: devices that share each batch.

    Returns:
      A `Rest`, to be closed.
    """
    return _Streamed(split, order, mesh) if is_streamed(split) else _Resident(split, order)


def evaluation_batches(
    split: Split, batch_size: int, mesh: Mesh
) -> Iterator[tuple[Split, Array, Array]]:
    """A whole split in batches of one size, which the devices share evenly.

    Args:
      split: to evaluate on.
      batch_size: the most wanted in a batch, before rounding up.
      mesh: devices that share each batch.

    Yields:
      A split, indices into it, int32 ``[B]``, and which of them count, bool ``[B]``.
    """
    rows, where = shared_order(len(split.labels), batch_size, mesh.size)
    if not is_streamed(split):
        for indices, counts in zip(rows, where, strict=True):
            yield split, indices, counts
        return
    local = jnp.arange(rows.shape[1], dtype=jnp.int32)
    with contextlib.closing(_read(split, np.asarray(rows), mesh)) as parts:
        for part, counts in zip(parts, where, strict=True):
            yield part, local, counts
