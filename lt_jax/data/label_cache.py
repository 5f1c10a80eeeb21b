"""Labels of large sets, remembered from one start to the next.

In prepared TFDS sets labels lie between the images, so that finding them reads everything:
more than a hundred gigabytes of ImageNet, at each start and each resumption.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from lt_jax.files import cache_folder

_PATIENCE = 1800  # seconds, in which another process should have read a million labels
LARGE = 1_000_000_000  # bytes: what is smaller is read within seconds

Arrays = dict[str, npt.NDArray[Any]]


def remembered(files: Sequence[str], what: str, read: Callable[[], Arrays]) -> Arrays:
    """What was read from files, or is known from an earlier start.

    It is kept in the user's cache, see `lt_jax.files.cache_folder`, under a name that changes when
    a file does. Where that cannot be written, everything is read each time.

    Args:
      files: that are read; in all at least a gigabyte, or nothing is kept.
      what: of them is read.
      read: reads it.

    Returns:
      Arrays by name.
    """
    try:
        stats = [os.stat(file) for file in files]
    except OSError:  # somewhere else than on this machine
        return read()
    if sum(stat.st_size for stat in stats) < LARGE:
        return read()
    facts = [what, [[f, s.st_size, s.st_mtime_ns] for f, s in zip(files, stats, strict=True)]]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    path = cache_folder() / f"labels-{name}.npz"
    damaged = (OSError, ValueError, EOFError, zipfile.BadZipFile)
    with _alone(path):  # the other processes of this machine wait, and find it
        with contextlib.suppress(*damaged), np.load(path) as file:
            return dict(file)
        arrays = read()
        with contextlib.suppress(OSError):
            _write(path, arrays)
    return arrays


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of a machine at a time, where the folder can be written to."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError, Timeout):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"), timeout=_PATIENCE, fallback_to_soft=False)
            stack.enter_context(lock)
        yield


def _write(path: Path, arrays: Arrays) -> None:
    """Writes a file whole or not at all, also if several processes do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(number, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
