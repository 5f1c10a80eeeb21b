"""DLSA as a second stage: the features of a first are divided, and the parts classified.

Read from the top: `divide_and_classify` trains the blocks one after another, each with checkpoints
of its own, then the classifiers of the parts and, for comparison, the same classifier of the whole
set. What there is to say about them is put together in `lt_jax.dividing_report`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import dlsa, metrics, sharding, workdir
from lt_jax.checkpoint import Checkpoints
from lt_jax.data import shared_order
from lt_jax.dividing_pictures import save_division
from lt_jax.dividing_report import Evaluated, division_facts, latent_map
from lt_jax.errors import InputError
from lt_jax.features import standardised_splits
from lt_jax.finish import scores_of, write_summary
from lt_jax.longtail import log_prior
from lt_jax.loop import NonFiniteError, Stop
from lt_jax.prepare import put_splits, seeds_of
from lt_jax.stage1 import SecondStage
from lt_jax.writers import MetricsFile, ProgressBar, TensorBoard, say

Array = jax.Array
PICTURE, LATENTS = "division.png", "latents.npz"


class Options(NamedTuple):
    """The fields of a second stage of this kind."""

    cascade: dlsa.CascadeOptions
    flow: dlsa.FlowOptions
    heads: dlsa.HeadOptions


def options_of(fields: Mapping[str, Any]) -> Options:
    """The options of ``config.retrain``, checked.

    Raises:
      InputError: naming the field.
    """
    groups = {name: dict(fields[name]) for name in Options._fields}
    groups["cascade"]["thresholds"] = tuple(groups["cascade"]["thresholds"])
    made = Options(
        dlsa.CascadeOptions(**groups["cascade"]),
        dlsa.FlowOptions(**groups["flow"]),
        dlsa.HeadOptions(**groups["heads"]),
    )
    checks = (dlsa.check_cascade_options, dlsa.check_flow_options, dlsa.check_head_options)
    for name, options, check in zip(Options._fields, made, checks, strict=True):
        try:
            check(options)  # type: ignore[operator]
        except InputError as error:
            raise InputError(f"config.retrain.{name}.{error}") from error
    return made


def divide_and_classify(stage: SecondStage) -> dict[str, Any] | None:
    """Trains what the config describes, or what is missing of it, and reads test, once.

    Args:
      stage: what it starts from.

    Returns:
      The summary; None if a signal stopped it.

    Raises:
      InputError: for features that cannot be used.
      NonFiniteError: if the loss of a flow stops being finite.
    """
    mesh = sharding.make_mesh(stage.config["train"]["num_devices"])
    splits = standardised_splits(
        stage.frozen, put_splits(stage.dataset, mesh), mesh, stage.config["train"]
    )
    run = _Run(stage, splits, options_of(stage.fields))
    stage.claim()
    with Stop() as stop:
        blocks = run.blocks(stop)
        return None if blocks is None else run.finish(blocks)


class _Run:
    """One second stage of this kind, on features that are on the device."""

    def __init__(self, stage: SecondStage, splits: dict[str, Any], options: Options) -> None:
        self.stage, self.options = stage, options
        self.features = {name: split.images for name, split in splits.items()}
        self.labels = {name: np.asarray(split.labels, np.int64) for name, split in splits.items()}
        self.classes = stage.dataset.num_classes
        self.seeds = seeds_of(stage.config)
        per_seed = jax.vmap(jax.random.key)(np.asarray(self.seeds, np.uint32))
        # Another stage, other draws.
        self.keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(per_seed)
        self.seconds = 0.0
        self.epochs = options.cascade.depth * options.flow.epochs
        train = self.features["train"]
        self.whole = dlsa.Task(
            train,
            self.labels["train"],
            np.ones(train.shape[:2], bool),
            self.features.get("validation", train[:, :0]),
            np.ones((len(train), len(self.labels.get("validation", []))), bool),
            self.classes,
        )

    def _key(self, number: int) -> Array:
        return jax.vmap(lambda key: jax.random.fold_in(key, number))(self.keys)

    @property
    def checkpoints(self) -> Path:
        """Folder of those of all blocks and of the classifiers."""
        return self.stage.folder / workdir.CHECKPOINTS

    # The blocks

    def blocks(self, stop: Stop) -> list[dlsa.Block] | None:
        """The blocks in order; None if a signal stopped their training."""
        made: list[dlsa.Block] = []
        options = self.stage.config["train"]
        name = self.stage.config["name"]
        with ProgressBar(name, self.epochs, enabled=options["progress"], unit="pairs") as bar:
            for number in range(self.options.cascade.depth):
                task = dlsa.rest_of(made, self.whole, self.options.flow.bound)
                fit = self._fitted(number, task, stop, bar)
                if fit is None:
                    return None
                made.append(dlsa.closed(fit, task, number, self.options.flow, self.options.cascade))
        return made

    def _fitted(
        self, number: int, task: dlsa.Task, stop: Stop, bar: ProgressBar
    ) -> dlsa.Fit | None:
        """The trained flow of a block, from where an earlier call stopped."""
        before = number * self.options.flow.epochs
        folder = self.checkpoints / f"block_{number}"
        saved = Checkpoints(folder, self.stage.config["train"]["keep_checkpoints"])
        fit = dlsa.start_fit(self._key(number), task, self.options.flow)
        found = saved.restore(_arrays(fit))
        if found is not None:
            fit = fit._replace(**found.state, epoch=found.step)
            fit = fit._replace(score=np.asarray(fit.score))
            say(f"block {number + 1}: going on from epoch {fit.epoch}.")
        rows = MetricsFile(self.stage.folder / workdir.METRICS, before + fit.epoch)
        board = TensorBoard(
            self.stage.folder / workdir.TENSORBOARD,
            before + fit.epoch,
            enabled=self.stage.config["train"]["tensorboard"],
        )
        pairs = dlsa.steps_per_epoch(task, self.options.flow) * self.options.flow.batch_size
        watch = _Watch(time.monotonic(), fit.epoch)

        def after_epoch(fit: dlsa.Fit, facts: Mapping[str, Any]) -> bool:
            row = self._row(number, before + fit.epoch, facts)
            if "score" in facts:  # else the steps would pile up on the device
                rows.write(row)
                board.write(row)
                rate, left = watch.look(fit.epoch, self.options.flow.epochs, pairs)
                bar.report(before + fit.epoch, float(np.mean(row["loss"])), rate, left)
            bar.advance(before + fit.epoch)
            if "score" in facts or stop.asked:
                # A copy, as the next epoch overwrites the arrays.
                saved.save(fit.epoch, jax.tree.map(np.array, _arrays(fit)), {})
            if stop.asked and fit.epoch < self.options.flow.epochs:
                stop.unheeded = None
                say(f"saved epoch {fit.epoch} of block {number + 1}; start it again to go on.")
                return False
            return True

        try:
            return dlsa.fit_block(
                self._key(number),
                task,
                self.options.flow,
                self.options.cascade,
                fit=fit,
                after_epoch=after_epoch,
            )
        finally:
            self.seconds += time.monotonic() - watch.started
            for thing in (rows, board, saved):
                thing.close()

    def _row(self, number: int, epoch: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the metrics file: the terms, their sum, and the score that chooses the epoch."""
        flow = self.options.flow
        terms = np.asarray(facts["terms"], np.float64)  # [R, 3]
        loss = terms @ np.array([flow.likelihood, flow.balance, flow.purity])
        if not np.isfinite(loss).all():
            seed = self.seeds[int(np.argmin(np.isfinite(loss)))]
            raise NonFiniteError(
                f"the loss of block {number + 1} is not finite in epoch {epoch}, seed {seed};"
                " expected config.retrain.flow with a smaller learning_rate, or a bound"
            )
        row: dict[str, Any] = {"step": epoch, "split": "train", "block": number}
        row |= {"loss": loss.tolist()}
        row |= dict(zip(("likelihood", "balance", "purity"), terms.T.tolist(), strict=True))
        if "score" in facts:
            row["score"] = np.asarray(facts["score"]).tolist()
        return row

    # The classifiers

    def finish(self, blocks: list[dlsa.Block]) -> dict[str, Any]:
        """Trains the classifiers, evaluates them, and writes what was found."""
        started = time.monotonic()
        divided = {
            name: dlsa.divide(blocks, x, self.options.flow.bound)
            for name, x in self.features.items()
        }
        heads, evaluated = self._classified(blocks, divided)
        _, without = self._classified([], {n: _undivided(d) for n, d in divided.items()})
        self._save(heads, blocks)
        self.seconds += time.monotonic() - started
        scoring = metrics.scoring_for(False, self.stage.dataset.class_counts)
        selection: dict[str, Any] = {"steps": [self.epochs] * len(self.seeds)}
        if "validation" in evaluated:
            confusion = evaluated["validation"].counts.confusion
            score = metrics.balanced_accuracy(confusion)
            selection["validation_balanced_accuracy"] = score.tolist()
        facts = division_facts(
            blocks,
            divided,
            self.labels,
            evaluated,
            without,
            scoring,
            self.stage.dataset.class_counts,
        )
        points = latent_map(
            blocks, divided["test"], self.features, self.labels["test"], self.options.flow.bound
        )
        np.savez(self.stage.folder / LATENTS, allow_pickle=False, **points)
        summary = write_summary(
            self.stage.config,
            self.stage.dataset,
            scoring,
            self.stage.folder,
            seeds=self.seeds,
            scores={"last": scores_of(scoring, evaluated["test"].counts)},
            selection={"last": selection},
            training={
                "steps": self.epochs,
                "steps_per_epoch": 1,
                "seconds": round(self.seconds, 3),
                "devices": 1,
            },
            extra={**self.stage.facts, "division": facts},
        )
        if self.stage.config["train"]["picture"]:
            save_division(summary, points, self.stage.folder / PICTURE)
        return summary

    def _classified(
        self, blocks: list[dlsa.Block], divided: dict[str, dlsa.Divided]
    ) -> tuple[Any, dict[str, Evaluated]]:
        """Classifiers of the parts, and what they say of validation and test."""
        options = self.options.heads
        labels = jnp.asarray(self.labels["train"], jnp.int32)
        prior = jnp.asarray(log_prior(self.stage.dataset.class_counts), jnp.float32)
        members = dlsa.members_of(self.labels["train"], self.classes)
        tables = dlsa.tables_of(blocks, len(self.seeds), self.classes)
        inputs = {
            name: dlsa.inputs_of(
                divided[name], x, self.labels["train"] if name == "train" else None
            )
            for name, x in self.features.items()
        }

        def fit(key: Array, inputs: dlsa.Inputs, tables: Array) -> Any:
            return dlsa.fit_heads(key, inputs, labels, members, prior, tables, options)

        what = f"{len(blocks) + 1} parts" if blocks else "the whole set, for comparison"
        say(f"training the classifiers of {what}.")
        key = self._key(self.options.cascade.depth)
        heads = jax.jit(jax.vmap(fit))(key, inputs["train"], tables)
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(heads)):
            raise NonFiniteError(
                "the weights of the classifiers are not finite; expected a smaller"
                " config.retrain.heads.learning_rate"
            )
        return heads, {
            name: self._evaluated(heads, tables, inputs[name], self.labels[name])
            for name in inputs
            if name != "train"
        }

    def _evaluated(
        self, heads: Any, tables: Array, inputs: dlsa.Inputs, labels: np.ndarray
    ) -> Evaluated:
        """Counts and predictions, in batches."""
        count = _count_program(self.options.heads)
        size = self.stage.config["train"]["eval_batch_size"]
        batches, where = shared_order(len(labels), size, 1)
        total, predicted = None, []
        for rows, kept in zip(batches, where, strict=True):
            part, chosen = count(heads, tables, inputs, jnp.asarray(labels, jnp.int32), rows, kept)
            total = part if total is None else metrics.add(total, part)
            predicted.append(np.asarray(chosen)[:, np.asarray(kept)])
        return Evaluated(jax.tree.map(np.asarray, total), np.concatenate(predicted, axis=1))

    def _save(self, heads: Any, blocks: list[dlsa.Block]) -> None:
        """Saves the classifiers, and what sends samples to them beside the flows."""
        state = {
            "heads": heads,
            "tables": np.asarray(dlsa.tables_of(blocks, len(self.seeds), self.classes)),
            "thresholds": np.stack([one.threshold for one in blocks]),
        }
        saved = Checkpoints(self.checkpoints / "heads", 2)
        saved.save(0, state, {})
        saved.close()


class _Watch:
    """How fast it goes."""

    def __init__(self, started: float, epoch: int) -> None:
        self.started, self.epoch = started, epoch

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


def _undivided(divided: dlsa.Divided) -> dlsa.Divided:
    """All samples in one part."""
    return dlsa.Divided(
        np.zeros_like(divided.part), divided.cluster[:0], divided.log_likelihood[:0]
    )


def _count_program(options: dlsa.HeadOptions) -> Any:
    """``(heads, tables, inputs, labels, rows, where) -> counts, predictions`` of all replicas."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0, None, None, None))
    def count(
        heads: Any, tables: Array, inputs: Any, labels: Array, rows: Array, where: Array
    ) -> tuple[metrics.Counts, Array]:
        chosen = jax.tree.map(lambda leaf: leaf[rows], inputs)
        logits = dlsa.part_logits(heads, tables, chosen, options)
        counts = metrics.count(logits, jax.nn.softmax(logits), labels[rows], where)
        return counts, logits.argmax(axis=-1)

    return count


def check_division(config: Mapping[str, Any], dataset: Any) -> None:
    """Refuses a division that could not run, so that it is known before stage 1 is trained.

    Args:
      config: of both stages.
      dataset: it is for.

    Raises:
      InputError: naming the field or the class.
    """
    options = options_of(config["retrain"])
    if dataset.multi_label:
        raise InputError(
            "config.retrain.method is 'dlsa', which is for one label an example, but"
            f" {dataset.source} has several"
        )
    dlsa.check_validation(options.cascade, len(dataset.validation_labels) > 0)
    log_prior(dataset.class_counts)  # refuses a class without samples
    examples = len(dataset.train_labels)
    if examples < options.flow.num_clusters:
        raise InputError(
            f"config.retrain.flow.num_clusters is {options.flow.num_clusters}; expected at most"
            f" {examples}, the number of training examples"
        )
