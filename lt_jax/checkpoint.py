"""Checkpoints; Orbax is known here only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from lt_jax import processes
from lt_jax.errors import InputError, StorageError, first_line
from lt_jax.files import folder_of, is_remote, refusal
from lt_jax.workdir import CHECKPOINTS
from lt_jax.writers import say

_CHECKSUM = "checksum"  # among the notes
_CHANGED = "its arrays are not those that were saved"
# How TensorStore tells that storage refused something, and why, in exceptions of general kinds.
_STATUS = re.compile(r"[A-Z]+(_[A-Z]+)*: ")
_CAUSE = re.compile(r"\[os_error_code='(\d+)'\]")  # of TensorStore, wherever it says it


class Restored(NamedTuple):
    """A checkpoint that was read: its step, its arrays, and what was saved beside them."""

    step: int
    state: Any
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, newest kept, each written whole or not at all.

    Args:
      folder: where they are; made if it does not exist.
      keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Opens the folder."""
        self.folder = folder_of(folder)
        self._keep = keep
        self._refused: StorageError | None = None
        self._drop_partial()
        with self._saving():
            self._manager = self._open()

    def _drop_partial(self) -> None:
        """Removes what a kill or a full disk left of a checkpoint that was being written.

        In a bucket, where nothing tells it from one that was copied without its last file, it
        stays, and is passed over.
        """
        if processes.is_writer() and not is_remote(self.folder):
            for path in self.folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
                for _ in range(20):  # other arrays than the one that failed may still come
                    shutil.rmtree(path, ignore_errors=True)
                    if not path.exists():
                        break
                    time.sleep(0.05)

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Turns what Orbax raises when it cannot write into a `StorageError`, and makes room."""
        try:
            yield
        except Exception as error:
            # What the processes could not tell each other is no fault of the folder.
            apart = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
            from_storage = isinstance(error, OSError) or _STATUS.match(str(error))
            if apart or not (from_storage or is_remote(self.folder)):
                raise  # a defect, which keeps its traceback
            self._drop_partial()
            cause = _CAUSE.search(str(error))
            steps: list[int] = []
            with contextlib.suppress(OSError):  # or this would be told in place of the cause
                steps = self.steps()
            kept = f"the checkpoint of step {max(steps)} is kept" if steps else ""
            # What fails after it, such as writing into what has been removed, comes of the first.
            self._refused = self._refused or refusal(
                self.folder, os.strerror(int(cause[1])) if cause else error, kept
            )
            raise self._refused from error

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, create=True)
        return ocp.CheckpointManager(self.folder, options=options, item_names=("state", "notes"))

    def save(self, step: int, state: Any, notes: dict[str, Any]) -> None:
        """Saves the arrays of a step, and a few JSON values, in the background.

        A step that is there already is left alone.

        Raises:
          StorageError: if it, or the one before, cannot be written; older ones are kept.
        """
        if self._manager.latest_step() == step:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            notes=ocp.args.JsonSave({**notes, _CHECKSUM: checksum(state)}),
        )
        with self._saving():  # also what could not be written of the one before comes to light here
            self._manager.save(step, args=items, force=True)

    def restore(self, template: Any) -> Restored | None:
        """The newest checkpoint that can be read.

        One that cannot (a disk ran full, a copy broke off) is set aside under another name once an
        older one has been read in its place; nothing is deleted.

        Args:
          template: a state like the one saved, whose shapes, dtypes and shardings are taken.

        Returns:
          What was restored, or None if there is no checkpoint.

        Raises:
          InputError: if there are checkpoints and none can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore()
        )
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            found, reason = None, ""
            try:
                found = self._manager.restore(step, args=items)
                reason = "" if _is_intact(found.state, found.notes) else _CHANGED
            except Exception as error:  # Orbax raises many kinds for damaged files
                reason = first_line(error)[:200]
            intact = processes.all_agree(not reason)  # all go on from the same one
            if found is None or not intact:
                damaged[step] = reason or "another process cannot read it"
                continue
            self._set_aside(damaged, step)
            return Restored(step, found.state, found.notes)
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise InputError(
                f"none of the checkpoints in {self.folder} (steps {sorted(damaged)}) can be read"
                f" (step {step}: {reason}); choose another workdir to start over"
            )
        return None

    def _set_aside(self, damaged: dict[int, str], read: int) -> None:
        if not damaged:
            return
        self._manager.close()
        for step, reason in damaged.items():
            aside = self.folder.parent / f"damaged_checkpoint_{step}_{time.time_ns()}"
            if processes.is_writer():
                (self.folder / str(step)).rename(aside)
            say(
                f"the checkpoint of step {step} cannot be read ({reason}); it was renamed to"
                f" {aside.name}, and the run goes on from the one before, of step {read}."
            )
        processes.meet("damaged checkpoints are set aside")
        self._manager = self._open()

    def steps(self) -> list[int]:
        """The steps whose checkpoints are whole, in order."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(ocp.utils.checkpoint_steps(self.folder))
        return []

    def latest_step(self) -> int | None:
        """The newest step saved."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          StorageError: if it could not be; older checkpoints are kept.
        """
        with self._saving():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the folder; raises like `wait`."""
        try:
            self.wait()
        finally:
            with self._saving():
                self._manager.close()
            self._drop_partial()  # also what came after one had failed


def checksum(state: Any) -> str | None:
    """CRC-32 of all arrays in 8 hex digits, as a changed bit of a file is not always noticed.

    None if this process does not have all of them.

    Example:
      >>> import numpy as np
      >>> checksum({"a": np.arange(3)}) == checksum({"a": np.arange(3) + 1})
      False
    """
    result = 0
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return None
        result = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, result)
    return f"{result:08x}"


def _is_intact(state: Any, notes: dict[str, Any]) -> bool:
    """Whether the arrays are those saved, as far as an earlier version or this process can tell."""
    before, now = notes.get(_CHECKSUM), checksum(state)
    return before is None or now is None or before == now


def read_step(folder: Path, step: int, template: Any) -> Any:
    """The arrays of one checkpoint of a finished run; changes nothing in the folder.

    Args:
      folder: of the checkpoints.
      step: which.
      template: a state like the one saved.

    Returns:
      The state.

    Raises:
      InputError: if it is not there, cannot be read, or is of another network.
    """
    if not (folder / str(step)).is_dir():
        raise InputError(f"{folder} has no checkpoint of step {step}, the last of its run")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            state = checkpointer.restore(folder / str(step) / "state", abstract)
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            notes = checkpointer.restore(folder / str(step) / "notes")
        if not _is_intact(state, notes):
            raise ValueError(_CHANGED)
        return state
    except Exception as error:  # Orbax raises many kinds for damaged files
        raise InputError(
            f"the checkpoint of step {step} in {folder} cannot be read ({first_line(error)[:200]})"
        ) from error


def read_states(folder: Path, summary: Mapping[str, Any], init: Callable[[jax.Array], Any]) -> Any:
    """The last checkpoint of a finished run.

    Args:
      folder: of the run, or of one of its stages.
      summary: it ended with.
      init: ``key -> the state of one replica``, of which only shapes and types are looked at.

    Returns:
      Its states, leading axis R.

    Raises:
      InputError: if the checkpoint is gone, damaged or of another network.
    """
    one = jax.eval_shape(init, jax.random.key(0))
    replicas = len(summary["seeds"])
    # Zero-stride arrays, which take no room.
    template = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (replicas, *leaf.shape)), one
    )
    return read_step(folder / CHECKPOINTS, summary["training"]["steps"], template)
