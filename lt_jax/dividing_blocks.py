"""The flows of a division, trained block by block, with checkpoints, rows and progress."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lt_jax import dlsa, workdir
from lt_jax.checkpoint import Checkpoints
from lt_jax.errors import NonFiniteError
from lt_jax.run import Config
from lt_jax.stopping import Stop
from lt_jax.writers import MetricsFile, ProgressBar, TensorBoard, say

Array = jax.Array


class BlockTraining(NamedTuple):
    """What the flows of all blocks are trained with.

    Attributes:
      folder: of the second stage.
      name: of the run.
      options: ``config.train``, for checkpoints, TensorBoard and progress.
      cascade: see `lt_jax.dlsa.CascadeOptions`.
      flow: see `lt_jax.dlsa.FlowOptions`.
      seeds: of the replicas.
      keys: PRNG keys ``[depth, R]``.
      whole: all samples.
    """

    folder: Path
    name: str
    options: Config
    cascade: dlsa.CascadeOptions
    flow: dlsa.FlowOptions
    seeds: tuple[int, ...]
    keys: Array
    whole: dlsa.Task

    def blocks(self, stop: Stop) -> tuple[list[dlsa.Block], float] | None:
        """Trains all blocks, or what is missing of them.

        Args:
          stop: notices signals.

        Returns:
          The blocks in order, and the seconds that their training took, with those before it was
          resumed; None if a signal stopped it.

        Raises:
          InputError: if fewer samples come to a block than it has clusters.
          NonFiniteError: if a loss stops being finite.
        """
        made: list[dlsa.Block] = []
        seconds = 0.0
        total = self.cascade.depth * self.flow.epochs
        enabled = self.options["progress"]
        with ProgressBar(self.name, total, enabled=enabled, unit="pairs") as bar:
            for number in range(self.cascade.depth):
                task = dlsa.rest_of(made, self.whole, self.flow.bound)
                found = self._fitted(number, task, stop, bar)
                if found is None:
                    return None
                fit, took = found
                seconds += took
                made.append(dlsa.closed(fit, task, number, self.flow, self.cascade))
        return made, seconds

    def _fitted(
        self, number: int, task: dlsa.Task, stop: Stop, bar: ProgressBar
    ) -> tuple[dlsa.Fit, float] | None:
        """The trained flow of a block, from where an earlier call stopped, and its seconds."""
        keys, before = self.keys[number], number * self.flow.epochs
        saved = Checkpoints(
            self.folder / workdir.CHECKPOINTS / f"block_{number}", self.options["keep_checkpoints"]
        )
        fit, seconds = _restored(saved, dlsa.start_fit(keys, task, self.flow))
        if fit.epoch == self.flow.epochs:  # its rows, and those of later blocks, stay
            saved.close()
            return fit, seconds
        if fit.epoch:
            say(f"block {number + 1}: going on from epoch {fit.epoch}.")
        pairs = dlsa.steps_per_epoch(task, self.flow) * self.flow.batch_size
        watch = _Watch(fit.epoch, self.flow.epochs, pairs, seconds)

        def after_epoch(fit: dlsa.Fit, facts: Mapping[str, Any]) -> bool:
            step = before + fit.epoch
            looked = "score" in facts
            row = self._row(number, step, facts)
            if looked:
                files.write(row)
                bar.report(step, float(np.mean(row["loss"])), *watch.look(fit.epoch))
            bar.advance(step)
            if looked or stop.asked:
                files.save(fit, watch.seconds())
            if stop.asked and fit.epoch < self.flow.epochs:
                stop.unheeded = None
                say(f"saved epoch {fit.epoch} of block {number + 1}; start it again to go on.")
                return False
            return True

        with _Files(saved, self.folder, before + fit.epoch, self.options) as files:
            done = dlsa.fit_block(
                keys, task, self.flow, self.cascade, fit=fit, after_epoch=after_epoch
            )
            return None if done is None else (done, watch.seconds())

    def _row(self, number: int, epoch: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the metrics file: the terms, their sum, and the score that chooses the epoch."""
        flow = self.flow
        terms = np.asarray(facts["terms"], np.float64)  # [R, 3]
        loss = terms @ np.array([flow.likelihood, flow.balance, flow.purity])
        if not np.isfinite(loss).all():
            seed = self.seeds[int(np.argmin(np.isfinite(loss)))]
            raise NonFiniteError(
                f"the loss of block {number + 1} is not finite in epoch {epoch}, seed {seed};"
                " expected config.retrain.flow with a smaller learning_rate, or a bound"
            )
        row: dict[str, Any] = {"step": epoch, "split": "train", "block": number}
        row["loss"] = loss.tolist()
        row |= dict(zip(("likelihood", "balance", "purity"), terms.T.tolist(), strict=True))
        if "score" in facts:
            row["score"] = np.asarray(facts["score"]).tolist()
        return row


class _Watch:
    """How long it took, and how fast it goes.

    Args:
      epoch: it begins after.
      epochs: of the block.
      pairs: in an epoch.
      before: seconds that the block took before it was resumed.
    """

    def __init__(self, epoch: int, epochs: int, pairs: int, before: float) -> None:
        self.started, self.epoch = time.monotonic(), epoch
        self.epochs, self.pairs, self.before = epochs, pairs, before

    def seconds(self) -> float:
        """That the block took so far."""
        return self.before + time.monotonic() - self.started

    def look(self, epoch: int) -> tuple[float, float]:
        """Pairs in a second, and seconds left of the block."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        per_epoch = seconds / max(epoch - self.epoch, 1)
        return self.pairs / per_epoch, math.ceil((self.epochs - epoch) * per_epoch)


class _Files(contextlib.ExitStack):
    """What a block writes; all of it is closed at the end, whatever one of it raises."""

    def __init__(self, saved: Checkpoints, folder: Path, step: int, options: Config) -> None:
        super().__init__()
        self.saved = saved
        self.rows = MetricsFile(folder / workdir.METRICS, step)
        self.board = TensorBoard(folder / workdir.TENSORBOARD, step, enabled=options["tensorboard"])
        for thing in (self.saved, self.board, self.rows):
            self.callback(thing.close)

    def write(self, row: dict[str, Any]) -> None:
        """A row of the metrics."""
        self.rows.write(row)
        self.board.write(row)

    def save(self, fit: dlsa.Fit, seconds: float) -> None:
        """A checkpoint, which must not be there without the rows before it."""
        self.rows.sync()
        self.board.sync()
        # A copy, as the next epoch overwrites the arrays.
        self.saved.save(fit.epoch, jax.tree.map(np.array, _arrays(fit)), {"seconds": seconds})


def _restored(saved: Checkpoints, fit: dlsa.Fit) -> tuple[dlsa.Fit, float]:
    """A fit as it was saved, and the seconds it had taken; as it is if nothing was saved."""
    found = saved.restore(_arrays(fit))
    if found is None:
        return fit, 0.0
    fit = fit._replace(**found.state, epoch=found.step)
    return fit._replace(score=np.asarray(fit.score)), found.notes["seconds"]


def _arrays(fit: dlsa.Fit) -> dict[str, Any]:
    """What a checkpoint has of a fit, whose step is the epoch."""
    fields = fit._asdict()
    del fields["epoch"]
    return fields
