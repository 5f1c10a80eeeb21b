"""Images that are read while they are used, a little ahead of whoever uses them.

For sets of photographs that do not fit in memory. What is read is always a sequence of indices,
so any sampler can be streamed, and a run that goes on in the middle of an epoch reads on from
there.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.data.decoding import Decoding
from lt_jax.data.substitutes import Substitutes
from lt_jax.data.workers import Workers
from lt_jax.errors import InputError, first_line

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[Any] | Sequence[int]
Named = str | Callable[[int], str]

READ_AHEAD = 64  # images at least
SKIPPING = "--config.data.on_corrupt=skip replaces such images"
CHUNK = 16  # images at most that a thread or process reads at once: one by one costs a tenth more


class StreamedImages:
    """Images of one size that are read when they are needed.

    Stands where an array ``[N, H, W, C]`` stands: it has a length, a ``shape`` and a ``dtype``, and
    ``images[indices]`` is a part of them, of which nothing has been read either.

    Attributes:
      shape: ``(N, H, W, C)``.
      dtype: uint8.

    Example:
      >>> images = StreamedImages(lambda i: np.full((2, 2, 3), i, np.uint8), 10, (2, 2, 3))
      >>> part = images[[7, 3, 5]]
      >>> part.shape, part.read([2, 0])[:, 0, 0, 0]
      ((3, 2, 2, 3), array([5, 7], dtype=uint8))
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        load: Callable[[int], Any],
        count: int,
        image_shape: tuple[int, ...],
        *,
        what: Named = "the images",
        decoding: Decoding | None = None,
        workers: Workers | None = None,
    ) -> None:
        """Takes a way to read one image, and reads none.

        Args:
          load: what there is of an index below `count`: an encoded file, or pixels; several threads
            call it. For worker processes it must be possible to pickle it.
          count: how many there are, N.
          image_shape: ``(H, W, C)``.
          what: what to call them in the sentence about one that cannot be read; or a function that
            names the one of an index.
          decoding: makes pixels of what `load` gives; None if it gives images of that shape.
          workers: processes that load and decode; threads of this one if None.
        """
        self._load, self._what, self._decoding = load, what, decoding
        self._workers = workers
        self._number = workers.register(load) if workers else 0
        self._substitutes: Substitutes | None = None
        self._rows = np.arange(count)
        self._image_shape = tuple(image_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        return (len(self._rows), *self._image_shape)

    @property
    def replaced(self) -> int:
        """How many images could not be decoded so far, so that others stand for them."""
        return self._substitutes.told if self._substitutes else 0

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._rows)

    def __getitem__(self, indices: Indices) -> StreamedImages:
        """Those images, in that order, unread."""
        part = copy.copy(self)
        part._rows = self._rows[np.asarray(indices, np.int64)]
        return part

    def told_apart_by(self) -> tuple[npt.NDArray[Any], ...]:
        """What tells these images from others without reading one: of what they are loaded.

        Returns:
          Arrays: what the ``told_apart_by(numbers)`` of `load` gives, or the numbers alone.
        """
        known = getattr(self._load, "told_apart_by", None)
        return known(self._rows) if known else (self._rows,)

    def sample(self, most: int) -> list[bytes]:
        """What is encoded in up to `most` of these images, evenly spaced; nothing is decoded.

        Args:
          most: how many.

        Returns:
          The bytes of each; none of one that cannot be read, as whoever decodes it tells.
        """
        count = len(self)
        rows = self._rows[np.linspace(0, count - 1, min(count, most)).round().astype(int)]
        return [self._bytes(row) for row in rows.tolist()]

    def _bytes(self, row: int) -> bytes:
        try:
            found = self._load(row)
        except Exception:  # damaged files raise all kinds
            return b""
        return found if isinstance(found, bytes) else np.asarray(found).tobytes()

    def cropping(self, smallest_area: float) -> StreamedImages:
        """The same images, of which `batches` with draws gives random crops.

        Args:
          smallest_area: see `lt_jax.data.decoding.Decoding`; 0 for none.

        Returns:
          A new object.

        Raises:
          InputError: for crops of images that are loaded at their final size.
        """
        same = copy.copy(self)
        if self._decoding is not None:
            same._decoding = self._decoding._replace(smallest_area=smallest_area)
        elif smallest_area:
            raise InputError(
                f"augment.random_resized_crop is {smallest_area!r}, but {self._named(0)} is loaded"
                f" as {self._image_shape}; expected 0, or images that are decoded while they are"
                " read"
            )
        return same

    def substituting(self, labels: npt.NDArray[Any]) -> StreamedImages:
        """The same images, of which one that cannot be decoded is replaced instead of refused.

        By the next one of these images that has the same labels, after the last comes the first;
        if there is none, by grey. So it depends on nothing but the images. Each is named once.

        Args:
          labels: of the images, ``[N]`` or ``[N, C]``.

        Returns:
          A new object; parts of it take their substitutes from all of it.
        """
        same = copy.copy(self)
        same._substitutes = Substitutes(self._rows, labels)
        return same

    def read(self, indices: Indices) -> Images:
        """Reads some images.

        Args:
          indices: which, integers ``[B]``.

        Returns:
          The images, uint8 ``[B, H, W, C]``.

        Raises:
          InputError: if one cannot be read.
        """
        indices = np.asarray(indices, np.int64)
        if not len(indices):
            return np.empty((0, *self._image_shape), np.uint8)
        with contextlib.closing(self._stream(self._items(indices[None], None))) as chunks:
            return self._together(chunks, len(indices))

    def read_all(self) -> Images:
        """All of them, uint8 ``[N, H, W, C]``; see `read`."""
        return self.read(np.arange(len(self)))

    def batches(
        self, rows: npt.NDArray[Any], draws: npt.NDArray[Any] | None = None
    ) -> Iterator[Images]:
        """Reads batches, one or two ahead of the one in use.

        Args:
          rows: the indices of each batch, integers ``[M, B]``, such as what is left of an epoch.
          draws: what the random crop of each depends on, ``[M, B, K]`` numbers of at least 0;
            without them, or if `cropping` was not asked for, nothing is random.

        Yields:
          The images of the next row, uint8 ``[B, H, W, C]``. Closing the iterator stops its
          threads.

        Raises:
          InputError: if an image cannot be read.
        """
        rows = np.asarray(rows, np.int64)
        with contextlib.closing(self._stream(self._items(rows, draws))) as chunks:
            for row in rows:
                yield self._together(chunks, len(row))

    def _items(self, rows: npt.NDArray[Any], draws: npt.NDArray[Any] | None) -> _Chunks:
        """What is to be read: the number of each image, and the numbers that it is cropped by."""
        items = self._rows[rows][..., None]
        if draws is not None:
            items = np.concatenate([items, draws], axis=-1)
        return _Chunks(items, min(max(items.shape[1] // CHUNK, 1), CHUNK))

    def _together(self, chunks: Iterator[list[Images] | InputError], count: int) -> Images:
        batch = np.empty((count, *self._image_shape), np.uint8)
        done = 0
        while done < count:
            chunk = next(chunks)
            if isinstance(chunk, InputError):
                raise chunk
            for image in chunk:
                batch[done] = image
                done += 1
        return batch

    def _stream(self, chunks: _Chunks) -> Any:
        """An iterator over the images of each chunk, in that order, to be closed.

        Decoding and resizing leave Python's lock, so threads are enough for some cores; with
        processes the threads only wait for them.
        """
        import grain

        ahead = max(2 * chunks.per_row, -(-READ_AHEAD // chunks.size))
        threads = 2 * self._workers.count if self._workers else _num_threads()
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
        return iter(grain.MapDataset.source(chunks).map(self._told).to_iter_dataset(options))

    def _told(self, items: npt.NDArray[Any]) -> list[Images] | InputError:
        """Images of a chunk, or the error: Grain adds lines to what is raised in its threads."""
        try:
            return self._chunk(items)
        except InputError as error:
            return error

    def _chunk(self, items: npt.NDArray[Any]) -> list[Images]:
        if self._workers:
            found = self._workers.run(_read, self._number, self._decoding, items)
        else:
            found = _read(self._load, self._decoding, items)
        return [
            self._instead(item, image) if isinstance(image, str) else image
            for item, image in zip(items, found, strict=True)
        ]

    def _instead(self, item: npt.NDArray[Any], reason: str) -> Images:
        """What stands for an image that cannot be read."""
        row = int(item[0])
        sentence = f"{self._named(row)} cannot be read: {reason}"
        if self._substitutes is None:
            way_out = f"; {SKIPPING}" if self._decoding else ""
            raise InputError(sentence + way_out)
        for other in self._substitutes.of(row):
            (image,) = _read(self._load, self._decoding, np.array([[other, *item[1:]]]))
            if not isinstance(image, str):
                self._substitutes.tell(row, f"{sentence}; {self._named(other)} stands for it")
                return image
        self._substitutes.tell(row, f"{sentence}; grey stands for it")
        return np.full(self._image_shape, 128, np.uint8)

    def _named(self, row: int) -> str:
        return self._what(row) if callable(self._what) else f"image {row} of {self._what}"


class _Chunks:
    """Batches of items ``[M, B, K]`` in pieces of a size, of which none is of two batches."""

    def __init__(self, items: npt.NDArray[Any], size: int) -> None:
        self._items, self.size = items, size
        self.per_row = -(-items.shape[1] // size)

    def __len__(self) -> int:
        return len(self._items) * self.per_row

    def __getitem__(self, index: int) -> npt.NDArray[Any]:
        row, piece = divmod(index, self.per_row)
        return self._items[row, piece * self.size : (piece + 1) * self.size]


def _read(
    load: Callable[[int], Any], decoding: Decoding | None, items: npt.NDArray[Any]
) -> list[Images | str]:
    """The image of each item ``(index, *draw)``, or the reason why it cannot be read."""
    return [_read_one(load, decoding, item.tolist()) for item in items]


def _read_one(
    load: Callable[[int], Any], decoding: Decoding | None, item: list[int]
) -> Images | str:
    index, *draw = item
    try:
        image = load(index)
        return decoding(image, draw or None) if decoding else image
    except Exception as error:  # damaged files raise all kinds
        return why(error)


def why(error: BaseException) -> str:
    """What an exception says of an image, without what differs from one time to the next."""
    return re.sub(r" <[\w.]+ object at 0x\w+>", "", first_line(error))


def _num_threads() -> int:
    """Two for each core that this process may use, as some of them wait for files."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return 2 * (len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)
