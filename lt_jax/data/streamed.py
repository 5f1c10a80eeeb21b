"""Images that are read while they are used, a little ahead of whoever uses them.

For sets of photographs that do not fit in memory. What is read is always a sequence of indices,
so any sampler can be streamed, and a run that goes on in the middle of an epoch reads on from
there.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError, first_line

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[Any] | Sequence[int]

READ_AHEAD = 64  # images at least


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
        load: Callable[[int], Images],
        count: int,
        image_shape: tuple[int, ...],
        *,
        what: str = "the images",
    ) -> None:
        """Takes a way to read one image, and reads none.

        Args:
          load: the image of an index below `count`, uint8 ``[H, W, C]``; several threads call it.
          count: how many there are, N.
          image_shape: ``(H, W, C)``.
          what: what to call them in the sentence about one that cannot be read.
        """
        self._load, self._what = load, what
        self._rows = np.arange(count)
        self._image_shape = tuple(image_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        return (len(self._rows), *self._image_shape)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._rows)

    def __getitem__(self, indices: Indices) -> StreamedImages:
        """Those images, in that order, unread."""
        part = StreamedImages(self._load, 0, self._image_shape, what=self._what)
        part._rows = self._rows[np.asarray(indices, np.int64)]
        return part

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
        with contextlib.closing(self._stream(indices, READ_AHEAD)) as images:
            return self._together(images, len(indices))

    def batches(self, rows: npt.NDArray[Any]) -> Iterator[Images]:
        """Reads batches, one or two ahead of the one in use.

        Args:
          rows: the indices of each batch, integers ``[M, B]``, such as what is left of an epoch.

        Yields:
          The images of the next row, uint8 ``[B, H, W, C]``. Closing the iterator stops its
          threads.

        Raises:
          InputError: if an image cannot be read.
        """
        rows = np.asarray(rows, np.int64)
        ahead = max(2 * rows.shape[1], READ_AHEAD)
        with contextlib.closing(self._stream(rows.ravel(), ahead)) as images:
            for row in rows:
                yield self._together(images, len(row))

    def _together(self, images: Iterator[Images], count: int) -> Images:
        batch = np.empty((count, *self._image_shape), np.uint8)
        for i in range(count):
            batch[i] = next(images)
        return batch

    def _stream(self, indices: npt.NDArray[Any], ahead: int) -> Any:
        """An iterator over single images, in that order, to be closed.

        Decoding and resizing leave Python's lock, so threads are enough.
        """
        import grain

        options = grain.ReadOptions(num_threads=_num_threads(), prefetch_buffer_size=ahead)
        dataset = grain.MapDataset.source(self._rows[indices]).map(self._one)
        return iter(dataset.to_iter_dataset(options))

    def _one(self, row: int) -> Images:
        with naming_image(int(row), self._what):
            return self._load(int(row))


def _num_threads() -> int:
    """Two for each core that this process may use, as some of them wait for files."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return 2 * (len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)


@contextlib.contextmanager
def naming_image(index: int, what: str) -> Iterator[None]:
    """Makes one sentence, with the index, of whatever is raised for an image."""
    try:
        yield
    except Exception as error:  # damaged files raise all kinds
        reason = re.sub(r" <[\w.]+ object at 0x\w+>", "", first_line(error))
        raise InputError(f"image {index} of {what} cannot be read: {reason}") from error


def decode_image(image: bytes | Images, image_size: int) -> Images:
    """An image as RGB of a given size, whatever its own proportions.

    Bilinear with antialiasing, as is usual in multi-label recognition: no object is cut off.

    Args:
      image: an encoded file (JPEG, PNG, ...), or pixels, uint8 ``[H, W, 3]`` or grey
        ``[H, W, 1]``.
      image_size: S, in pixels.

    Returns:
      uint8 ``[S, S, 3]``; grey images have three equal channels.

    Example:
      >>> decode_image(np.full((4, 6, 1), 9, np.uint8), 2).tolist()
      [[[9, 9, 9], [9, 9, 9]], [[9, 9, 9], [9, 9, 9]]]
    """
    from PIL import Image

    if isinstance(image, bytes):
        opened: Image.Image = Image.open(io.BytesIO(image))
    else:
        opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    size = (image_size, image_size)
    return np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BILINEAR))
