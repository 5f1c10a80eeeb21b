"""Arrays of NumPy's .npz files, never pickled ones."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError, first_line


def read_npz(
    path: Path, names: Sequence[str] | None = None, *, expected: str = "named arrays"
) -> dict[str, npt.NDArray[Any]]:
    """Reads arrays of a file.

    Args:
      path: of the file.
      names: which to read; those that the file lacks are left out. None reads all.
      expected: what the file should hold, for the error.

    Returns:
      Arrays by name.

    Raises:
      InputError: if there is no such file, it is damaged, not an .npz file, or holds pickled
        objects, which loading would run as code.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.npz"
      >>> np.savez(path, x=[1, 2], y=[3])
      >>> read_npz(path, ["y", "z"])
      {'y': array([3])}
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected an .npz file with {expected}")
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InputError(f"{path} holds a single array; expected an .npz file with {expected}")
        with file:
            return {name: file[name] for name in (file if names is None else names) if name in file}
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        pickled = "allow_pickle" in str(error) and zipfile.is_zipfile(path)
        raise InputError(
            f"{path} holds pickled objects; expected plain arrays of numbers"
            if pickled
            else f"{path} is damaged or not an .npz file ({first_line(error)})"
        ) from error
