"""Where numbers go while a run goes on: a JSONL file, TensorBoard, a progress bar."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

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

from lt_jax.errors import InputError

OBJECTIVE = "objective"  # split of the rows about what the objective remembers


def say(message: str) -> None:
    """Tells the person at the terminal or in the notebook one thing."""
    print(f"lt_jax: {message}", file=sys.stderr, flush=True)


say_once = functools.cache(say)


class MetricsFile:
    """One JSON object a line, in the order of the steps, each row once.

    Args:
      path: the file.
      step: the step from which the run goes on; rows after it are of a run that was killed before
        it saved, and will be written again.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Drops the rows after `step` and opens the file for appending."""
        if path.exists():
            rows = [row for row in read_metrics(path) if row["step"] <= step]
            temporary = path.with_name(path.name + ".partial")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
            os.replace(temporary, path)
        self._file = path.open("a")

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row and hands it to the operating system."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that a kill cut short is left out.

    Raises:
      InputError: if another line cannot be read.
    """
    rows, lines = [], path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise InputError(f"line {number} of {path} is not JSON: {line[:60]!r}") from error
    return rows


class TensorBoard:
    """Scalars for TensorBoard: the mean over replicas.

    Args:
      folder: of the event files.
      step: the step from which the run goes on; later events there are hidden.
      enabled: False writes nothing.
    """

    def __init__(self, folder: Path, step: int, *, enabled: bool) -> None:
        """Opens the event file, if tensorboardX is installed."""
        self._writer: Any = None
        if not enabled:
            return
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            say_once("TensorBoard is off; pip install 'lt_jax[tensorboard]' turns it on.")
            return
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Writes the numbers of a row of the metrics file."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name not in ("step", "split", "epoch"):
                mean = np.mean(np.asarray(value, float))  # None, for nothing to score, becomes NaN
                self._writer.add_scalar(f"{row['split']}/{name}", mean, row["step"])

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._writer.close()


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
            )
