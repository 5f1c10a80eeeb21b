"""Which image stands for one that cannot be decoded."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

MOST = 100  # images in a row that cannot be read: then the files are not just damaged


class Substitutes:
    """The others of a part that have the same labels, in a fixed order."""

    def __init__(self, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.integer]) -> None:
        """Takes a part of a set.

        Args:
          rows: numbers of its images in the whole set, ``[N]``.
          labels: theirs, ``[N]`` or multi-hot ``[N, C]``.
        """
        self._rows, self._labels = rows, labels
        self._told: set[int] = set()
        self._lock = threading.Lock()

    def of(self, row: int) -> Iterator[int]:
        """Those with the labels of an image: first those after it, then those before.

        Args:
          row: number of the image in the whole set.

        Yields:
          Numbers of others, at most 100.

        Example:
          >>> list(Substitutes(np.array([4, 5, 6, 9]), np.array([0, 1, 0, 0])).of(6))
          [9, 4]
        """
        place = int(np.flatnonzero(self._rows == row)[0])
        same = self._labels == self._labels[place]
        same = same.reshape(len(same), -1).all(axis=1)
        others = np.flatnonzero(same)
        others = np.concatenate([others[others > place], others[others < place]])
        yield from self._rows[others[:MOST]].tolist()

    @property
    def told(self) -> int:
        """How many images were warned about."""
        return len(self._told)

    def tell(self, row: int, sentence: str) -> None:
        """Warns about an image, once."""
        with self._lock:
            first = row not in self._told
            self._told.add(row)
        if first:
            warnings.warn(sentence, RuntimeWarning, stacklevel=2)
