"""How the photographs of a set become arrays: all at once, or while they are used."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.data.decoding import Decoding
from lt_jax.data.streamed import SKIPPING, Named, StreamedImages, why
from lt_jax.data.workers import Workers
from lt_jax.errors import InputError

Images = npt.NDArray[np.uint8]
Split = tuple[Images | StreamedImages, npt.NDArray[Any]]


class Lists(NamedTuple):
    """Files that list what is in each split; empty for none."""

    train: str = ""
    test: str = ""
    validation: str = ""


NO_LISTS = Lists()


class Reading(NamedTuple):
    """What is asked for; see ``data.image_size``, ``resize``, ``stream``, ``on_corrupt``.

    Attributes:
      image_size: S; 0 for images as they are, which then must have one size.
      resize: ``"stretch"`` or ``"crop"``.
      stream: whether images are read when they are used.
      skip: whether an image that cannot be decoded is replaced, not refused.
      workers: processes that decode, if any.
    """

    image_size: int = 0
    resize: str = "stretch"
    stream: bool = False
    skip: bool = False
    workers: Workers | None = None

    def check(self) -> None:
        """Refuses what would need a size of images, if there is none."""
        asked = {
            "data.stream is True": self.stream,
            "data.resize is 'crop'": self.resize == "crop",
            "data.on_corrupt is 'skip'": self.skip,
        }
        for what, wanted in asked.items():
            if wanted and not self.image_size:
                raise InputError(
                    f"{what} and data.image_size 0; expected a size to make all images of, such as"
                    " --config.data.image_size=224"
                )

        if self.workers and not self.stream:
            raise InputError(
                f"data.workers is {self.workers.count} and data.stream False; expected 0 workers,"
                " or --config.data.stream=True"
            )

    def images(
        self,
        load: Callable[[int], Any],
        count: int,
        what: Named,
        labels: npt.NDArray[Any],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> Images | StreamedImages:
        """The images of a split, of the size asked for.

        Args:
          load: the file of an index below `count`.
          count: how many there are.
          what: names them in sentences, see `StreamedImages`.
          labels: of those taken.
          rows: which are taken, in which order; all if None.

        Returns:
          uint8 ``[N, S, S, 3]``, or `StreamedImages` of that shape: also if images that cannot be
          decoded are replaced, which waits until validation is cut off.
        """
        streamed = StreamedImages(
            load,
            count,
            (self.image_size, self.image_size, 3),
            what=what,
            decoding=Decoding(self.image_size, self.resize),
            workers=self.workers,
        )
        if rows is not None:
            streamed = streamed[rows]
        if self.skip:
            streamed = streamed.substituting(labels)
        return streamed if self.stream or self.skip else streamed.read_all()


AS_THEY_ARE = Reading()
# Of images that are read as they are, which have no size for the grey that stands for the last one.
SKIPPING_WITH_SIZE = SKIPPING.replace("=skip", "=skip with --config.data.image_size=SIZE")


def stacked(images: Iterator[Images], count: int, what: str) -> Images:
    """Images that should have one size in one array, which is allocated once.

    Args:
      images: each ``[H, W, C]``.
      count: how many.
      what: what to call them in a sentence.

    Returns:
      ``[count, H, W, C]``.

    Raises:
      InputError: if their sizes differ.

    Example:
      >>> stacked(iter([np.zeros((2, 3, 1), np.uint8)] * 2), 2, "these").shape
      (2, 2, 3, 1)
    """
    # A set of photographs shows within a few images that their sizes differ, before terabytes
    # are asked for.
    head = list(itertools.islice(images, 100))
    shape, dtype = (head[0].shape, head[0].dtype) if head else ((0, 0, 0), np.uint8)
    for image in head:
        _check_size(what, image, shape)
    result = np.empty((count, *shape), dtype)
    for i, image in enumerate(itertools.chain(head, images)):
        _check_size(what, image, shape)
        result[i] = image
    return result


def decoded(image: Callable[[], Images], name: str, way_out: str = "") -> Images:
    """What a function gives, or one sentence of whatever it raises.

    Args:
      image: reads an image.
      name: of it, in the sentence.
      way_out: ends the sentence: what to do about it.

    Returns:
      The image.

    Raises:
      InputError: with the name.
    """
    try:
        return image()
    except Exception as error:  # damaged files raise all kinds
        sentence = f"{name} cannot be read: {why(error)}"
        raise InputError(f"{sentence}; {way_out}" if way_out else sentence) from error


def _check_size(what: str, image: np.ndarray, shape: tuple[int, ...]) -> None:
    if image.shape != shape:
        raise InputError(
            f"{what} has images of more than one size, such as {shape} and {image.shape}; "
            "expected one size, or the size to make all of them, such as "
            "--config.data.image_size=224"
        )
