"""The folder of one run: what lies there, and who may write to it."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from lt_jax.configuration import plain, read_fields
from lt_jax.data.identity import PLACES
from lt_jax.errors import InputError
from lt_jax.files import is_remote, make_folder, why_no_folder, write_text
from lt_jax.matching import first_difference, flatten, moved_fields, refusal, stored_and_given
from lt_jax.processes import agreed, all_agree, check_same, is_writer
from lt_jax.writers import say

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
TUNING = "tuning.json"  # what comes of comparing values, in place of a summary
# Fields that each process of a run may have to itself.
_OWN = {"data.data_dir", "data.download", "data.workers", "train.progress"}
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
PICTURE, MASKS = "picture.png", "masks.png"
STAGE1, STAGE2 = "stage1", "stage2"  # folders of a run of two stages
LOCK = ".lock"  # held by the process that writes
_PATIENCE, _SLICE = 60, 5  # seconds: one that was told to stop should have saved
_SIGHT = 120  # seconds until what one machine wrote is seen by others
FROM = "stage1.json"  # which weights a second stage was started from


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all; see `lt_jax.files.write_whole`."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def check_config_matches(config: Mapping[str, Any], workdir: Path) -> None:
    """Refuses a workdir in which a run with another config was started.

    Args:
      config: of the run that is to start.
      workdir: its folder, which need not exist.

    Raises:
      InputError: naming the first field that differs and both values.
    """
    path = workdir / CONFIG
    if not path.exists():
        for name in (SUMMARY, METRICS, CHECKPOINTS):
            if (workdir / name).exists():
                raise InputError(
                    f"workdir {workdir} holds {name} but no {CONFIG}, so that nobody knows whose it"
                    " is; choose another workdir"
                )
        return
    there, here = stored_and_given(path, config)
    name = first_difference(there, here)
    if name:
        raise InputError(refusal(name, there, here, workdir))


def moved_from(config: Mapping[str, Any], workdir: Path) -> str:
    """Where the data of the run in a folder were, if its config says another place than this one.

    Args:
      config: that matches the folder's.
      workdir: of the run.

    Returns:
      Fields and their values; empty if the data are where they were, or there is no run.
    """
    if not (workdir / CONFIG).exists():
        return ""
    there, here = stored_and_given(workdir / CONFIG, config)
    return ", ".join(f"config.{name} = {there.get(name)!r}" for name in moved_fields(there, here))


def note_place(config: Mapping[str, Any], workdir: Path) -> None:
    """Notes in the folder of a run where its data lie now, once they are known to be the same."""
    if moved_from(config, workdir):
        fields = read_fields(workdir / CONFIG)
        fields["data"] |= {name: config["data"][name] for name in PLACES}
        write_json(workdir / CONFIG, fields)


def check_alike(config: Mapping[str, Any]) -> None:
    """Refuses a config that differs between the processes of a run: they would train as one.

    Args:
      config: of the run; it need not have been checked.

    Raises:
      InputError: in all of them, naming the first field that differs where one does.
    """
    fields = flatten(plain(config))
    check_same({f"config.{name}": value for name, value in fields if name not in _OWN})


def finished_summary(workdir: Path, name: str = SUMMARY) -> dict[str, Any] | None:
    """The summary of a run that has finished, or None.

    Args:
      workdir: folder of the run.
      name: of the file.

    Raises:
      InputError: if there is a file that cannot be read as one.
    """
    path = workdir / name
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as the summary of a run ({error})") from error
    if not isinstance(summary, dict) or not summary:
        raise InputError(f"{path} is not the summary of a finished run")
    return summary


def told_finished(workdir: Path) -> dict[str, Any] | None:
    """As `finished_summary`, and says so if the run has finished: it is left as it is."""
    done = finished_summary(workdir)
    if done is not None:
        say(f"the run in {workdir} has finished already; nothing was changed.")
    return done


def trained_in(workdir: Path) -> Path:
    """The folder in which a run was trained: a row of a table may be the run of another row.

    Args:
      workdir: folder of a run.
    """
    same_as = (finished_summary(workdir) or {}).get("same_as")
    return workdir.parent / same_as if same_as else workdir


def required_summary(workdir: Path, what: str = "the run") -> dict[str, Any]:
    """The summary of a run that must have finished.

    Args:
      workdir: folder of the run.
      what: to call it in a sentence.

    Returns:
      The summary, with the test scores.

    Raises:
      InputError: if it has not finished, or compared values on validation and has no test scores.
    """
    summary = finished_summary(workdir)
    if summary is None and (workdir / TUNING).exists():
        raise InputError(
            f"{what} in {workdir} compared values on validation and has no test scores; expected a"
            " run that was tested"
        )
    if summary is None:
        raise InputError(
            f"{what} in {workdir} has not finished: there is no {SUMMARY}; start it again to go on"
        )
    if not {"seeds", "data", "training", "test", "name"} <= set(summary):
        raise InputError(f"{workdir / SUMMARY} is not the summary of a finished run")
    return summary


def await_file(path: Path) -> None:
    """Waits until all processes see a file that the first one wrote, as NFS may take a while.

    Raises:
      InputError: in all of them, if one does not see it within two minutes.
    """
    for waited in range(0, _SIGHT + 1, _SLICE):  # see `hold`
        if waited and not path.exists():
            time.sleep(_SLICE)
        if all_agree(is_writer() or path.exists()):
            return
    raise InputError(f"{path} is not seen by all processes; expected a folder that all share")


def claim(config: Mapping[str, Any], workdir: Path, result: str = SUMMARY) -> dict[str, Any] | None:
    """Makes the folder, if need be, writes the config into it, and keeps other processes out.

    Until the `until_done` around it ends; folders in a bucket cannot be locked.

    Args:
      config: of the run.
      workdir: its folder.
      result: name of the file that says that the run has finished.

    Returns:
      What is in that file, if another process has written it since this run was checked.

    Raises:
      InputError: if the folder cannot be written to, another process is writing to it, it has
        become that of another run, or the processes of this one have other configs or folders.
      StorageError: if there is no room for the config, or no such bucket.
    """
    check_alike(config)
    hold(workdir)
    with agreed(f"use {workdir}"):
        # It may have been claimed by another one since it was checked.
        check_config_matches(config, workdir)
        if not (workdir / CONFIG).exists():
            write_json(workdir / CONFIG, plain(config))
    await_file(workdir / CONFIG)
    done = finished_summary(workdir, result)
    if not all_agree(done is not None):
        return None
    say(f"another process has finished {workdir} in the meantime; nothing was changed.")
    return done


def hold(workdir: Path) -> None:
    """Makes a folder, if need be, and keeps other processes out, as `claim` does.

    Raises:
      InputError: if the folder cannot be written to, or another process is writing to it.
    """
    with agreed(f"use {workdir}"):
        _make(workdir)
    # In slices, after which all processes of a run meet: none may wait for long for the others.
    for waited in range(0, _PATIENCE + 1, _SLICE):
        held = not is_writer() or _lock(workdir, _SLICE if waited else 0)
        if all_agree(held):
            return
        if not waited:
            say(f"waiting for another process, which writes to {workdir}.")
    raise InputError(
        f"workdir {workdir} is being written to by another process; wait for it to end, or choose"
        " another workdir"
    )


def _make(workdir: Path) -> None:
    if not is_writer():
        return
    try:
        make_folder(workdir)
        if not is_remote(workdir):
            with tempfile.TemporaryFile(dir=workdir):
                pass
    except OSError as error:
        raise InputError(
            f"workdir {workdir} cannot be written to ({why_no_folder(workdir, error)}); expected a"
            " folder to which this user may write"
        ) from error


class _Held(NamedTuple):
    lock: FileLock
    thread: int


_held: dict[Path, _Held] = {}


def _lock(workdir: Path, patience: float) -> bool:
    """Keeps others out of a folder, until this process ends at the latest; False if one is in."""
    if is_remote(workdir):
        return True
    own = threading.get_ident()
    if workdir in _held:
        if _held[workdir].thread != own:
            time.sleep(patience)
        return workdir not in _held or _held[workdir].thread == own
    lock = FileLock(workdir / LOCK, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        return False
    except (OSError, NotImplementedError):
        return True  # a file system without locks
    _held[workdir] = _Held(lock, own)
    return True


@contextlib.contextmanager
def until_done() -> Iterator[None]:
    """Folders that are claimed inside are given up at the end; decorates what writes to them."""
    before, own = set(_held), threading.get_ident()
    try:
        yield
    finally:
        for folder in set(_held) - before:
            if _held[folder].thread == own:
                _held.pop(folder).lock.release()
