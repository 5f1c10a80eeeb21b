"""Where numbers go while a run goes on: a JSONL file, TensorBoard, a progress bar."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lt_jax.errors import InputError, StorageError, first_line
from lt_jax.files import is_remote, write_bytes, write_text, writing
from lt_jax.processes import is_writer

OBJECTIVE = "objective"  # split of the rows about what the objective remembers


def say(message: str) -> None:
    """Tells the person at the terminal or in the notebook one thing; of several processes once."""
    if not is_writer():
        return
    print(f"lt_jax: {message}", file=sys.stderr, flush=True)


say_once = functools.cache(say)


class MetricsFile:
    """One JSON object a line, in the order of the steps, each row once.

    On a disk every row is in the file at once. Nothing can be appended to an object in a bucket, so
    there the file is written anew by `sync`, which runs call before each checkpoint: rows after
    the last one would be dropped anyway when a run goes on.

    Args:
      path: the file.
      step: the step from which the run goes on; rows after it are of a run that was killed before
        it saved, and will be written again.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Drops the rows after `step` and opens the file for appending."""
        self._path, self._text = path, ""
        self._file: IO[str] | None = None
        if path.exists():
            rows = [row for row in read_metrics(path) if row["step"] <= step]
            self._text = "".join(json.dumps(row) + "\n" for row in rows)
            write_text(path, self._text)
        if is_writer() and not is_remote(path):
            with writing(path.parent):
                self._file = path.open("a")

    def write(self, row: dict[str, Any]) -> None:
        """Adds a row; on a disk it is handed to the operating system.

        Raises:
          StorageError: if there is no room for it.
        """
        line = json.dumps(row, allow_nan=False) + "\n"
        if is_remote(self._path):
            self._text += line
        elif self._file is not None:
            with writing(self._path.parent):
                self._file.write(line)
                self._file.flush()

    def sync(self) -> None:
        """Makes sure that the rows so far outlast the machine.

        Raises:
          StorageError: if they cannot be written.
        """
        if is_remote(self._path):
            write_text(self._path, self._text)
        elif self._file is not None:
            with writing(self._path.parent):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes what is left and closes the file."""
        if is_remote(self._path):
            self.sync()
        elif self._file is not None:
            with writing(self._path.parent):
                self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that a kill cut short is left out.

    Raises:
      InputError: if another line is not a row.
    """
    rows, lines = [], path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        # What is JSON need not be a row.
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif number < len(lines):
            raise InputError(f"line {number} of {path} is not a row of it: {line[:60]!r}")
    return rows


class TensorBoard:
    """Scalars for TensorBoard: the mean over replicas.

    They repeat the metrics file, so a disk that refuses them turns them off and stops nothing. Of
    a run in a bucket they are written here first, and copied there by `sync`.

    Args:
      folder: of the event files.
      step: the step from which the run goes on; later events there are hidden.
      enabled: False writes nothing.
    """

    def __init__(self, folder: Path, step: int, *, enabled: bool) -> None:
        """Opens the event file, if tensorboardX is installed."""
        self._writer: Any = None
        if not enabled or not is_writer():
            return
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import SessionLog
        except ImportError:
            say_once("TensorBoard is off; pip install 'lt_jax[tensorboard]' turns it on.")
            return
        self._folder = folder
        self._here = Path(tempfile.mkdtemp()) if is_remote(folder) else folder
        with self._off_if_refused():
            self._here.mkdir(parents=True, exist_ok=True)
            # Not its SummaryWriter: a thread would write, and when the disk is full, die and leave
            # the run waiting for it. Two starts within a second are told apart by their process.
            self._writer = EventsWriter(str(self._here / "events"), f".{os.getpid()}")
            self._event(step + 1, session_log=SessionLog(status=SessionLog.START))
            self._writer.flush()

    @contextlib.contextmanager
    def _off_if_refused(self) -> Iterator[None]:
        try:
            yield
        except (OSError, StorageError) as error:
            self._writer = None
            say(f"TensorBoard is off from here ({first_line(error)}).")

    def _event(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))

    def write(self, row: dict[str, Any]) -> None:
        """Writes the numbers of a row of the metrics file."""
        if self._writer is None:
            return
        from tensorboardX.summary import scalar

        with self._off_if_refused():
            for name, value in row.items():
                if name not in ("step", "split", "epoch"):
                    mean = np.mean(np.asarray(value, float))  # None, for nothing, becomes NaN
                    self._event(row["step"], summary=scalar(f"{row['split']}/{name}", mean))
            self._writer.flush()

    def sync(self) -> None:
        """Copies the events into the bucket, if the run is in one."""
        if self._writer is None or self._here == self._folder:
            return
        with self._off_if_refused():
            for path in self._here.iterdir():
                write_bytes(self._folder / path.name, path.read_bytes())

    def close(self) -> None:
        """Writes what is left."""
        self.sync()
        if self._writer is not None:
            with self._off_if_refused():
                self._writer.close()
            if self._here != self._folder:
                shutil.rmtree(self._here, ignore_errors=True)


class ProgressBar:
    """Steps, images/s, time left and loss; a plain line now and then where there is no terminal.

    Args:
      name: of the run.
      total: steps.
      enabled: False shows nothing.
      unit: what is counted by the second.
    """

    def __init__(self, name: str, total: int, *, enabled: bool, unit: str = "images") -> None:
        """Prepares the bar; it is shown by ``with``."""
        self._unit = unit
        enabled = enabled and is_writer()
        self._total, self._enabled, self._name = total, enabled, name
        self._console = Console()
        live = enabled and self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{{task.fields[rate]}} {unit}/s  loss {{task.fields[loss]}}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not live,
        )
        self._live = live
        self._task = self._bar.add_task(name, total=total, rate="-", loss="-")

    def __enter__(self) -> ProgressBar:
        """Shows the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the bar as it stands."""
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def report(self, step: int, loss: float, rate: float, seconds_left: float) -> None:
        """Shows a loss and a rate."""
        self._bar.update(self._task, completed=step, rate=f"{rate:,.0f}", loss=f"{loss:.4f}")
        if self._enabled and not self._live:
            self._console.print(
                f"{self._name}: step {step}/{self._total}  loss {loss:.4f}"
                f"  {rate:,.0f} {self._unit}/s  {seconds_left:,.0f} s left",
                highlight=False,
                soft_wrap=True,  # a log file has no width
            )
