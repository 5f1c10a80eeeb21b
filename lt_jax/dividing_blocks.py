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
from lt_jax.loop import Config
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
        fit = dlsa.start_fit(keys, task, self.flow)
        found, before_it = saved.restore(_arrays(fit)), 0.0
        if found is not None:
            fit = fit._replace(**found.state, epoch=found.step)
            fit = fit._replace(score=np.asarray(fit.score))
            before_it = found.notes["seconds"]
            if fit.epoch == self.flow.epochs:  # its rows, and those of later blocks, stay
                saved.close()
                return fit, before_it
            say(f"block {number + 1}: going on from epoch {fit.epoch}.")
        rows = MetricsFile(self.folder / workdir.METRICS, before + fit.epoch)
        board = TensorBoard(
            self.folder / workdir.TENSORBOARD,
            before + fit.epoch,
            enabled=self.options["tensorboard"],
        )
        pairs = dlsa.steps_per_epoch(task, self.flow) * self.flow.batch_size
        watch = _Watch(fit.epoch)

        def notes() -> dict[str, float]:
            return {"seconds": before_it + time.monotonic() - watch.started}

        def after_epoch(fit: dlsa.Fit, facts: Mapping[str, Any]) -> bool:
            row = self._row(number, before + fit.epoch, facts)
            looked = "score" in facts
            if looked:
                rows.write(row)
                board.write(row)
                rate, left = watch.look(fit.epoch, self.flow.epochs, pairs)
                bar.report(before + fit.epoch, float(np.mean(row["loss"])), rate, left)
            bar.advance(before + fit.epoch)
            if looked or stop.asked:
                rows.sync()  # no checkpoint without the rows before it
                board.sync()
                # A copy, as the next epoch overwrites the arrays.
                saved.save(fit.epoch, jax.tree.map(np.array, _arrays(fit)), notes())
            if stop.asked and fit.epoch < self.flow.epochs:
                stop.unheeded = None
                say(f"saved epoch {fit.epoch} of block {number + 1}; start it again to go on.")
                return False
            return True

        try:
            done = dlsa.fit_block(
                keys, task, self.flow, self.cascade, fit=fit, after_epoch=after_epoch
            )
            return None if done is None else (done, notes()["seconds"])
        finally:
            with contextlib.ExitStack() as stack:  # each is closed, whatever another one raises
                for thing in (saved, board, rows):
                    stack.callback(thing.close)

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
    """How fast it goes."""

    def __init__(self, epoch: int) -> None:
        self.started, self.epoch = time.monotonic(), epoch

    def look(self, epoch: int, epochs: int, pairs: int) -> tuple[float, float]:
        """Pairs in a second, and seconds left of the block."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        per_epoch = seconds / max(epoch - self.epoch, 1)
        return pairs / per_epoch, math.ceil((epochs - epoch) * per_epoch)


def _arrays(fit: dlsa.Fit) -> dict[str, Any]:
    """What a checkpoint has of a fit, whose step is the epoch."""
    fields = fit._asdict()
    del fields["epoch"]
    return fields
