"""Files of runs, on a disk or in a bucket: written whole or not at all, and by one process."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from lt_jax.errors import InputError, StorageError, first_line
from lt_jax.processes import is_writer

_BUCKETS = "gs://"
_NOT_FOR_ROOM = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
PARTIAL = ".partial"  # ends the names of files that are being written


def folder_of(name: str | os.PathLike[str]) -> Path:
    """The folder of a run, a table or features, by its name.

    Args:
      name: of a local folder, in which ``~`` is expanded, or ``gs://BUCKET/FOLDER``.

    Returns:
      An absolute `Path`; for a bucket an `etils.epath.Path`, which has the same methods.

    Raises:
      InputError: if it is remote and cannot be reached with what is installed.

    Example:
      >>> folder_of("/runs/../runs/a").name, str(folder_of("~")) == os.path.expanduser("~")
      ('a', True)
    """
    text = os.fspath(name)
    if text.startswith("gs:/") and not text.startswith(_BUCKETS):
        raise InputError(f"folder {text!r} lacks a slash, as pathlib drops one; give it as text")
    if "://" not in text:
        return Path(text).expanduser().absolute()
    if not text.startswith(_BUCKETS) or text == _BUCKETS:
        raise InputError(
            f"folder {text!r} is of no known kind; expected a path, or gs://BUCKET/..."
        )
    if not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
        raise InputError(f"{text} needs a client of Google Cloud: pip install 'lt_jax[gcs]'")
    import fsspec.config
    from etils import epath

    # TensorStore writes into the same bucket, which lists that are remembered would not show.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return cast(Path, epath.Path(text))


def path_between(folder: Path, other: Path) -> str:
    """How to come from one folder to another; empty if one of them is in a bucket, one on a disk.

    Example:
      >>> path_between(Path("/runs/tables/a"), Path("/runs/ce"))
      '../../ce'
    """
    return os.path.relpath(other, folder) if is_remote(folder) == is_remote(other) else ""


def path_from(folder: Path, relative: str) -> Path:
    """Where a path of `path_between` leads.

    Example:
      >>> path_from(Path("/moved/tables/a"), "../../ce").as_posix()
      '/moved/ce'
    """
    start, text = (_BUCKETS if is_remote(folder) else ""), os.fspath(folder)
    return folder_of(start + os.path.normpath(os.path.join(text.removeprefix(start), relative)))


def located(name: str, folder: str = "") -> Path:
    """Where a file or folder of data is, as a sentence about it should say.

    Args:
      name: of it; ``~`` is expanded.
      folder: what a relative name is relative to; the working directory if there is none.

    Returns:
      An absolute path.

    Example:
      >>> located("set.npz", "/data").as_posix(), located("/b/set.npz", "/data").as_posix()
      ('/data/set.npz', '/b/set.npz')
    """
    return Path(os.path.expanduser(folder or ""), os.path.expanduser(name)).absolute()


def output_file(name: str | os.PathLike[str]) -> Path:
    """A file that is to be written, by its name, see `folder_of`.

    Raises:
      InputError: if it is a folder, or in one that does not exist.
    """
    path = folder_of(name)
    if path.is_dir() or not (is_remote(path) or path.parent.is_dir()):
        raise InputError(f"out is {path}; expected a file in a folder that exists")
    return path


def cache_folder() -> Path:
    """Where what can be made again is kept from one run to the next; it need not exist.

    ``$XDG_CACHE_HOME/lt_jax``, or ``~/.cache/lt_jax``.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lt_jax"


def is_remote(path: Path) -> bool:
    """Whether a path is one in a bucket."""
    return os.fspath(path).startswith(_BUCKETS)


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; a bucket has none, and is not made."""
    if is_writer() and not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def why_no_folder(path: Path, error: OSError) -> str:
    """Why a folder cannot be made or written to.

    Args:
      path: of the folder.
      error: that was raised.

    Returns:
      What the system says; of a link that leads nowhere, which it calls a file that exists, where
      to.
    """
    for link in () if is_remote(path) else (path, *path.parents):
        if link.is_symlink() and not link.exists():
            return f"the link {link} leads to {os.readlink(link)}, and there is no such folder"
    return str(error.strerror)


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and those in it, sorted by path; none if it does not exist."""
    if not is_remote(folder):
        return sorted(path for path in folder.rglob("*") if path.is_file())
    from etils import epath

    return sorted(
        cast(Path, epath.Path(_BUCKETS + os.fspath(root).removeprefix(_BUCKETS).lstrip("/")) / name)
        for root, _, names in epath.Path(folder).walk()
        for name in names
    )


def refusal(folder: Path, error: BaseException | str, kept: str = "") -> StorageError:
    """The sentence for what could not be written, with the space that is left.

    Args:
      folder: where to.
      error: what was raised, or why.
      kept: what of the run is safe.

    Returns:
      The exception to raise.
    """
    reason = error if isinstance(error, str) else _reason(error)
    free = ""
    if not is_remote(folder):
        with contextlib.suppress(OSError):
            there = next(p for p in (folder, *folder.parents) if p.exists())
            free = f", {shutil.disk_usage(there).free / 1e6:,.1f} MB are free there"
    # Where a file or a permission is missing, room would not help.
    room = not any(os.strerror(code) in reason for code in _NOT_FOR_ROOM)
    return StorageError(
        f"{folder} could not be written to ({reason[:300]}){free if room else ''};"
        f" {kept or 'what was saved before is kept'};"
        f" {'make room and ' if room else ''}start again to go on"
    )


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or first_line(error))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what a disk or a bucket refuses into a `StorageError`."""
    try:
        yield
    except (InputError, StorageError):
        raise
    except Exception as error:
        if is_remote(folder):  # its client raises many kinds
            _let_go(error)
        elif not isinstance(error, OSError):
            raise
        raise refusal(folder, error) from error


def _let_go(error: BaseException | None) -> None:
    """Frees what the frames of an exception hold, and of those before it.

    What gcsfs could not write is held by a buffer and by a view of it. Together the garbage
    collection finds them; there CPython 3.12.1 ends with a segmentation fault.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file whole or not at all; on other hosts than the first, not at all.

    Args:
      path: of the file, on a disk or in a bucket.
      write: called with the open file.

    Raises:
      StorageError: if there is no room, or it cannot be written for another reason; a file that
        was there before is then as it was.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "a.txt"
      >>> write_whole(path, lambda file: file.write(b"all of it"))
      >>> path.read_text()
      'all of it'
    """
    if not is_writer():
        return
    with writing(path.parent):
        if is_remote(path):  # an object appears when all of it has arrived
            content = io.BytesIO()
            write(content)
            path.write_bytes(content.getvalue())
            return
        temporary = path.with_name(path.name + PARTIAL)
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())  # or a power cut leaves an empty file with the final name
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # what is left of it would only take room
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; see `write_whole`."""
    write_whole(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all; see `write_whole`."""
    write_bytes(path, printable(text).encode())


def printable(text: str) -> str:
    r"""Text that can be written and drawn: names of files need not be UTF-8.

    Example:
      >>> printable("caf\udce9")
      'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()
