"""What steps are handed: arrays that lie on the device, or images that are read as they go.

Either way a step gets a `Split` and says by an index what it wants of it. Of images in memory that
is the whole split and the indices of a batch. Of streamed ones the split is what one step needs:
the batch of each replica, ``[R, B, H, W, C]``, and the index is the number of the replica. Each
device holds its share of each batch, and each process reads only the shares of its own devices.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lt_jax.data import StreamedImages, shared_order
from lt_jax.sharding import replicated, split_columns, to_devices
from lt_jax.steps import Split

Array = jax.Array
T = TypeVar("T")

AHEAD = 2  # batches that are on their way to the devices while a step runs


class Place(NamedTuple):
    """Where in a run an epoch goes on; what is random in reading depends on this alone.

    Attributes:
      seeds: of the replicas.
      stage: 1 or 2.
      epoch: from 0.
      step: of the epoch, from 0.
    """

    seeds: tuple[int, ...]
    stage: int
    epoch: int
    step: int

    def draws(self, steps: int, columns: np.ndarray, batch_size: int) -> np.ndarray:
        """Numbers for the random crop of each image: seed, stage, epoch and place in the epoch.

        Args:
          steps: of the epoch that are left, M.
          columns: of each batch, ``[D]``.
          batch_size: B, of all columns.

        Returns:
          int64 ``[M, R, D, 4]``.

        Example:
          >>> Place((7,), 1, 3, 10).draws(1, np.array([0, 5]), 8).tolist()
          [[[[7, 1, 3, 80], [7, 1, 3, 85]]]]
        """
        place = (self.step + np.arange(steps))[:, None, None] * batch_size + columns
        seed = np.asarray(self.seeds)[:, None]
        return np.stack(np.broadcast_arrays(seed, self.stage, self.epoch, place), axis=-1)


class Rest(Protocol):
    """The steps of an epoch that are still to be made."""

    def take(self, many: int) -> tuple[Split, Array | np.ndarray]:
        """The next steps: a split, and rows of indices into it, ``[R, many, B]`` or ``[R, 1]``."""
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

    def __init__(self, split: Split, order: np.ndarray, mesh: Mesh, place: Place) -> None:
        self._batches = _read(split, order.swapaxes(0, 1), mesh, place)
        self._numbers = jnp.arange(len(order), dtype=jnp.int32)[:, None]

    def take(self, many: int) -> tuple[Split, Array | np.ndarray]:
        assert many == 1, "streamed images come one step at a time"
        return next(self._batches), self._numbers

    def close(self) -> None:
        self._batches.close()


def _read(
    split: Split, rows: np.ndarray, mesh: Mesh, place: Place | None = None
) -> Generator[Split]:
    """Splits of the batches of one step each, on the devices, for indices ``[M, R, B]``."""
    steps, replicas, size = rows.shape
    sharding = split_columns(mesh)
    columns = own_columns(sharding, replicas, size)
    own = rows[:, :, columns]
    put = partial(_put, columns=columns, size=size, sharding=sharding)
    draws = None
    if place is not None:
        draws = place.draws(steps, columns, size).reshape(steps, own[0].size, -1)
    mean, std = to_devices((split.mean, split.std), replicated(mesh))

    def batches() -> Iterator[Split]:
        with contextlib.closing(split.images.batches(own.reshape(steps, -1), draws)) as read:
            for indices, batch in zip(own, read, strict=True):
                images = batch.reshape(*indices.shape, *batch.shape[1:])
                yield Split(put(images), put(split.labels[indices]), mean, std)

    with contextlib.closing(_ahead(batches())) as found:
        yield from found


def own_columns(sharding: NamedSharding, replicas: int, size: int) -> np.ndarray:
    """Which columns of batches ``[R, B]`` the devices of this process hold, sorted."""
    held = sharding.addressable_devices_indices_map((replicas, size)).values()
    return np.unique(np.concatenate([np.arange(size)[index[1]] for index in held if index]))


def _put(part: np.ndarray, columns: np.ndarray, size: int, sharding: NamedSharding) -> Array:
    """The columns ``[R, D, ...]`` of this process as its part of the array of all, ``[R, B, ...]``.

    The copies to the devices go on after this has returned.
    """
    whole = (part.shape[0], size, *part.shape[2:])

    def of_device(index: Any) -> np.ndarray:
        start, stop, _ = index[1].indices(size)
        first, last = np.searchsorted(columns, (start, stop))
        return part[:, first:last]

    return jax.make_array_from_callback(whole, sharding, of_device)


def _ahead(items: Iterator[T]) -> Generator[T]:
    """The items, of which some are made in a thread while the last one is in use."""
    end: Any = object()
    with ThreadPoolExecutor(1, "feeding") as thread:
        pending = deque(thread.submit(next, items, end) for _ in range(AHEAD))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(thread.submit(next, items, end))
                yield item
        finally:
            for future in pending:
                future.cancel()
            thread.submit(getattr(items, "close", lambda: None)).result()


def is_streamed(split: Split) -> bool:
    """Whether the images of a split are read while it is used."""
    return isinstance(split.images, StreamedImages)


def training_steps(split: Split, order: np.ndarray, mesh: Mesh, place: Place) -> Rest:
    """The steps of what is left of an epoch.

    Args:
      split: to train on.
      order: indices of each replica's batches, int32 ``[R, steps, B]``, from the next step on.
      mesh: devices that share each batch.
      place: of the next step.

    Returns:
      A `Rest`, to be closed.
    """
    if is_streamed(split):
        return _Streamed(split, order, mesh, place)
    return _Resident(split, order)


def evaluation_batches(
    split: Split, batch_size: int, mesh: Mesh
) -> Iterator[tuple[Split, Array, Array]]:
    """A whole split in batches of one size, which the devices share evenly.

    Args:
      split: to evaluate on.
      batch_size: the most wanted in a batch, before rounding up.
      mesh: devices that share each batch.

    Yields:
      A split, indices into it, int32 ``[B]``, and which of them count, bool ``[B]``; of streamed
      images the batch, and 0 for the index.
    """
    rows, where = shared_order(len(split.labels), batch_size, mesh.size)
    if not is_streamed(split):
        for indices, counts in zip(rows, where, strict=True):
            yield split, indices, counts
        return
    first = jnp.zeros((), jnp.int32)
    with contextlib.closing(_read(split, rows[:, None], mesh)) as parts:
        for part, counts in zip(parts, where, strict=True):
            yield part, first, counts


def evaluation_shapes(split: Split, batch_size: int, mesh: Mesh) -> tuple[Split, Array, Array]:
    """The first of `evaluation_batches`, to compile for; of streamed images only what it is like.

    Args:
      split: to evaluate on.
      batch_size: as there.
      mesh: as there.

    Returns:
      What they yield, with a `jax.ShapeDtypeStruct` for what would have to be read.
    """
    if not is_streamed(split):
        return next(evaluation_batches(split, batch_size, mesh))
    rows, where = shared_order(len(split.labels), batch_size, mesh.size)
    sharding = split_columns(mesh)

    def like(whole: Any) -> Any:
        shape = (1, rows.shape[1], *whole.shape[1:])
        return jax.ShapeDtypeStruct(shape, whole.dtype, sharding=sharding)

    moments = to_devices((split.mean, split.std), replicated(mesh))
    return (
        Split(like(split.images), like(split.labels), *moments),
        jnp.zeros((), jnp.int32),
        where[0],
    )
