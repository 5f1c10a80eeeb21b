"""The loop of a run: steps, rows, validation, checkpoints, and what interrupts them."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from lt_jax import processes, workdir
from lt_jax.checkpoint import Checkpoints
from lt_jax.data.identity import check_can_move, different
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.feeding import Place, Rest, training_steps
from lt_jax.programs import compile_together
from lt_jax.replicas import Rows, finite
from lt_jax.run import Run, evaluate, programs_of, start_keys
from lt_jax.steps import Split
from lt_jax.stopping import Stop
from lt_jax.writers import OBJECTIVE, MetricsFile, ProgressBar, TensorBoard, say


class Loop:
    """The steps of a run, with what has to be remembered between them."""

    def __init__(self, run: Run, stop: Stop) -> None:
        self.run, self.stop = run, stop
        self.options = run.options
        # In one program: by itself each of its operations would be compiled.
        self.learning_rate = jax.jit(run.schedule)
        weights, self.order_keys, self.step_keys = start_keys(
            np.asarray(run.seeds, np.uint32), run.stage
        )
        self.states = run.replicas.init(weights)
        self.checkpoints = Checkpoints(
            run.folder / workdir.CHECKPOINTS, self.options["keep_checkpoints"]
        )
        self.step, self.seconds = 0, 0.0
        self.pending: list[Any] = []  # losses [R] of each step since the last row
        self.unread: list[Any] = []  # losses [R, K] still on the device
        self.compiled = False  # nothing yet
        self.ahead: tuple[int, Any] = (-1, None)  # an epoch, and its order on the device
        self._restore()
        self.metrics = MetricsFile(run.folder / workdir.METRICS, self.step)
        self.tensorboard = TensorBoard(
            run.folder / workdir.TENSORBOARD, self.step, enabled=self.options["tensorboard"]
        )
        self.started, self.counted = time.monotonic(), 0

    def _restore(self) -> None:
        found = self.checkpoints.restore(self.run.replicas.stack(self.states))
        if found is not None:
            self._check_same_data(found.notes["data"])
        workdir.note_place(self.run.config, self.run.folder)
        if found is None:
            return
        self.step, self.seconds = found.step, found.notes["seconds"]
        self.pending = [np.asarray(losses) for losses in found.notes["pending"]]
        self.states = self.run.replicas.unstack(found.state)
        say(f"going on from step {self.step} of {self.run.total_steps}.")

    def _check_same_data(self, before: dict[str, Any]) -> None:
        elsewhere = workdir.moved_from(self.run.config, self.run.folder)
        if elsewhere:
            check_can_move(before, elsewhere, f"the run in {self.run.folder}")
        if different(before, self.run.fingerprint):
            raise InputError(
                f"the run in {self.run.folder} was trained on other images than those now in"
                f" {self.run.config['data']['source']}; choose another workdir"
            )

    def go(self) -> bool:
        """Trains to the end; False if a signal came first."""
        run = self.run
        with ProgressBar(
            run.config["name"], run.total_steps, enabled=self.options["progress"]
        ) as bar:
            self.bar = bar
            while self.step < run.total_steps and not self.stop.asked:
                self._epoch(self.step // run.steps_per_epoch)
        if self.step < run.total_steps:
            self._save()
            self.checkpoints.wait()
            self.stop.unheeded = None
            say(
                f"stopped by a signal at step {self.step} of {run.total_steps} and saved;"
                " start again to go on."
            )
            return False
        # Only a run whose last checkpoint is on the disk may be called finished.
        self.checkpoints.wait()
        return True

    def _epoch(self, epoch: int) -> None:
        """What is left of an epoch."""
        run = self.run
        order = self._order(epoch)
        end = (epoch + 1) * run.steps_per_epoch
        place = Place(run.seeds, run.stage, epoch, self.step % run.steps_per_epoch)
        left = order[:, place.step :]
        with contextlib.closing(training_steps(run.splits["train"], left, run.mesh, place)) as rest:
            while self.step < end and not self.stop.asked:
                self._advance(rest, end)
        if self.step < end:
            return
        with self._untimed():
            self._end_epoch(epoch)

    def _end_epoch(self, epoch: int) -> None:
        """Reports, validates and saves, where that is due."""
        run, last = self.run, self.step == self.run.total_steps
        if (epoch + 1) % self.options["eval_every_epochs"] == 0 or last:
            self._report(with_histograms=epoch == 0 or last)
            if "validation" in run.splits:
                self._validate()
        if (epoch + 1) % self.options["checkpoint_every_epochs"] == 0 or last:
            self._save()

    @contextlib.contextmanager
    def _untimed(self) -> Iterator[None]:
        """Leaves out what is done inside: rates are those of training alone."""
        begun = time.monotonic()
        yield
        self.started += time.monotonic() - begun

    def _order(self, epoch: int) -> np.ndarray:
        """Indices of an epoch.

        Those of the next one are dispatched before this one's steps: queued after them, fetching
        them would drain the queue and leave the device idle.
        """
        run = self.run
        known, order = self.ahead
        if known != epoch:
            order = run.replicas.order(self.order_keys, epoch)
        if (epoch + 1) * run.steps_per_epoch < run.total_steps:
            self.ahead = epoch + 1, run.replicas.order(self.order_keys, epoch + 1)
        return np.asarray(order)

    def _advance(self, rest: Rest, end: int) -> None:
        """The next steps, as many as one program makes; an epoch ends with what is left.

        That way only two programs are compiled. A row is written where a call ends that reached a
        multiple of `log_every_steps`.
        """
        run, every = self.run, self.options["log_every_steps"]
        many = min(run.replicas.steps_per_call, end - self.step)
        before = self.step
        split, rows = rest.take(many)
        if not self.compiled:
            with self._untimed():
                self._compile(split, rows, (end - self.step) % many)
        self.states, losses = run.replicas.advance(self.states, self.step_keys, split, rows)
        self.unread.append(losses)
        self.step += many
        self.counted += many
        self.bar.advance(self.step)
        self.stop.agree(range(before + 1, self.step + 1))
        if self.step // every > before // every or self.step == run.total_steps:
            self._log()

    def _compile(self, split: Split, rows: Rows, left: int) -> None:
        """The programs of the run, and of what follows, at once instead of each when needed."""
        self.compiled = True
        if processes.are_several():  # which may try out kernels together, program by program
            return
        own = programs_of(self.run, self.states, self.step_keys, split, rows, left)
        # The later ones are traced while the first are compiled.
        compile_together(itertools.chain(own, self.run.later()))

    def _read(self) -> None:
        """Fetches the losses of the steps done and checks that they are finite."""
        first = self.step - sum(losses.shape[1] for losses in self.unread)
        fetched = [column for losses in self.unread for column in np.asarray(losses).T]
        self.unread = []
        for i, losses in enumerate(fetched):
            if not np.isfinite(losses).all():
                self._fail("loss", first + i + 1, int(np.argmin(np.isfinite(losses))))
        self.pending += fetched

    def _fail(self, what: str, step: int, replica: int) -> None:
        self.checkpoints.close()
        kept = self._kept("last good checkpoint, of step {}, is")
        variant = self.run.variants[replica] if self.run.variants else ""
        raise NonFiniteError(
            f"the {what} of seed {self.run.seeds[replica]}{variant} was not finite at step {step};"
            f" {kept}; a lower learning rate, a warm-up or a smaller logit scale may help"
        )

    def _kept(self, what: str) -> str:
        saved = self.checkpoints.latest_step()
        if saved is None:
            return "no checkpoint had been saved yet"
        return f"the {what.format(saved)} kept"

    def left(self) -> str:
        """What to say of a run that was ended without saving."""
        return (
            f"a second Ctrl-C ended the run at step {self.step} of {self.run.total_steps} without"
            f" saving; {self._kept('checkpoint of step {} is')}, start again to go on"
        )

    def _log(self) -> None:
        self._read()
        now = time.monotonic()
        elapsed = now - self.started
        self.seconds += elapsed
        rate = self.counted * self.options["batch_size"] * len(self.run.seeds) / elapsed
        loss = np.mean(np.asarray(self.pending, np.float64), axis=0)
        left = (self.run.total_steps - self.step) * elapsed / max(self.counted, 1)
        self._write(
            "train",
            loss=loss.tolist(),
            learning_rate=np.asarray(self.learning_rate(self.step - 1), float).tolist(),
            images_per_second=rate,
        )
        self.bar.report(self.step, float(loss.mean()), rate, left)
        self.pending, self.counted, self.started = [], 0, now

    def _write(self, split: str, **values: Any) -> None:
        epoch = self.step / self.run.steps_per_epoch
        row = {"step": self.step, "epoch": epoch, "split": split, **values}
        self.metrics.write(row)
        if split != OBJECTIVE:  # a mean over classes would say nothing
            self.tensorboard.write(row)

    def _validate(self) -> None:
        self._read()
        scoring = self.run.scoring
        row = scoring.validation_row(evaluate(self.run, self.states, "validation"))
        score = np.asarray(row[scoring.headline], np.float32)
        self.states = self.run.replicas.offer(self.states, score)
        self._write("validation", **row)

    def _report(self, *, with_histograms: bool) -> None:
        """Writes what the objectives remember; histograms would fill the file if always written."""
        found = self.run.replicas.report(self.states)
        chosen = {k: v for k, v in found.items() if with_histograms or "histogram" not in k}
        if chosen:
            self._write(OBJECTIVE, **{name: value.tolist() for name, value in chosen.items()})

    def _save(self) -> None:
        """Saves the states, unless they are not finite."""
        self._read()
        stacked = self.run.replicas.stack(self.states)
        held = (stacked.params, stacked.stats, stacked.optimizer, stacked.objective)
        good = np.all([finite(leaf, self.run.mesh) for leaf in jax.tree.leaves(held)], axis=0)
        if not good.all():
            self._fail("network", self.step, int(np.argmin(good)))
        notes = {
            "seconds": self.seconds,
            "pending": [losses.astype(float).tolist() for losses in self.pending],
            "data": self.run.fingerprint,
        }
        self.metrics.sync()  # no checkpoint without the rows before it
        self.tensorboard.sync()
        self.checkpoints.save(self.step, stacked, notes)

    def close(self) -> None:
        """Waits for the last checkpoint and closes the files."""
        with contextlib.ExitStack() as stack:  # each is closed, whatever another one raises
            for thing in (self.checkpoints, self.tensorboard, self.metrics):
                stack.callback(thing.close)
