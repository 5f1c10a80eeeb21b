"""DLSA as a second stage: the features of a first are divided, and the parts classified.

Read from the top: the blocks are trained one after another (`lt_jax.dividing_blocks`), then the
classifiers of the parts and, for comparison, the same classifier of the whole set
(`lt_jax.dividing_heads`). What there is to say about them is put together in
`lt_jax.dividing_report`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import dlsa, metrics, processes, sharding, workdir
from lt_jax.assembly import seeds_of
from lt_jax.checkpoint import Checkpoints
from lt_jax.dividing_blocks import BlockTraining
from lt_jax.dividing_heads import Evaluated, classified
from lt_jax.dividing_pictures import latent_map, save_division
from lt_jax.dividing_report import division_facts
from lt_jax.errors import InputError
from lt_jax.features import standardised_splits
from lt_jax.files import write_whole
from lt_jax.finish import scores_of, write_summary
from lt_jax.longtail import log_prior
from lt_jax.pictures import dispensable
from lt_jax.prepare import put_splits
from lt_jax.stage1 import SecondStage
from lt_jax.stopping import Stop
from lt_jax.writers import say

Array = jax.Array
T = TypeVar("T")
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
    return Options(
        _checked("cascade", dlsa.CascadeOptions(**groups["cascade"]), dlsa.check_cascade_options),
        _checked("flow", dlsa.FlowOptions(**groups["flow"]), dlsa.check_flow_options),
        _checked("heads", dlsa.HeadOptions(**groups["heads"]), dlsa.check_head_options),
    )


def _checked(group: str, options: T, check: Callable[[T], None]) -> T:
    """The options, or a sentence that names their group in the config."""
    try:
        check(options)
    except InputError as error:
        raise InputError(f"config.retrain.{group}.{error}") from error
    return options


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
    return stage.claim() or run.go()


class _Run:
    """One second stage of this kind, on features that are on the device."""

    def __init__(self, stage: SecondStage, splits: dict[str, Any], options: Options) -> None:
        self.stage, self.options = stage, options
        self.features = {name: split.images for name, split in splits.items()}
        self.labels = {name: np.asarray(split.labels, np.int64) for name, split in splits.items()}
        self.standard = {"mean": splits["train"].mean, "std": splits["train"].std}
        self.classes = stage.dataset.num_classes
        self.seeds = seeds_of(stage.config)
        per_seed = jax.vmap(jax.random.key)(np.asarray(self.seeds, np.uint32))
        # As in every second stage; one key for each block, and one for the classifiers.
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(per_seed)
        depth = options.cascade.depth
        fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        self.keys = jax.vmap(fold, in_axes=(None, 0))(keys, jnp.arange(depth + 1))
        train = self.features["train"]
        self.whole = dlsa.Task(
            train,
            self.labels["train"],
            np.ones(train.shape[:2], bool),
            self.features.get("validation", train[:, :0]),
            np.ones((len(train), len(self.labels.get("validation", []))), bool),
            self.classes,
        )

    def go(self) -> dict[str, Any] | None:
        """Everything; None if a signal stopped it."""
        config = self.stage.config
        training = BlockTraining(
            self.stage.folder,
            config["name"],
            config["train"],
            self.options.cascade,
            self.options.flow,
            self.seeds,
            self.keys,
            self.whole,
        )
        with Stop() as stop:
            found = training.blocks(stop)
            return None if found is None else self._finish(*found, stop)

    def _finish(
        self, blocks: list[dlsa.Block], seconds: float, stop: Stop
    ) -> dict[str, Any] | None:
        """Trains the classifiers, evaluates them, and writes what was found."""
        if _stopped(stop):
            return None
        started = time.monotonic()
        bound, counts = self.options.flow.bound, self.stage.dataset.class_counts
        divided = {name: dlsa.divide(blocks, x, bound) for name, x in self.features.items()}
        inputs = {
            name: dlsa.inputs_of(divided[name], x, self._own_labels(name))
            for name, x in self.features.items()
        }
        tables = dlsa.tables_of(blocks, len(self.seeds), self.classes)
        say(f"training the classifiers of {len(blocks) + 1} parts.")
        classify = partial(
            classified,
            self.keys[-1],
            labels=self.labels,
            class_counts=counts,
            options=self.options.heads,
            batch_size=self.stage.config["train"]["eval_batch_size"],
        )
        heads, evaluated = classify(tables, inputs)
        if _stopped(stop):
            return None
        say("training the same classifier of the whole set, for comparison.")
        # All in one part and one empty cluster: the same shapes, so that nothing is compiled anew.
        whole = {
            name: i._replace(part=jnp.zeros_like(i.part), cluster=jnp.zeros_like(i.cluster))
            for name, i in inputs.items()
        }
        _, without = classify(jnp.zeros_like(tables), whole)
        self._save(heads, tables, blocks)
        scoring = metrics.scoring_for(False, counts)
        facts = division_facts(blocks, divided, self.labels, evaluated, without, scoring, counts)
        points = latent_map(blocks, divided["test"], self.features, self.labels["test"], bound)
        write_whole(
            self.stage.folder / LATENTS,
            lambda file: np.savez(file, allow_pickle=False, **points),
        )
        summary = self._summary(scoring, evaluated, facts, seconds + time.monotonic() - started)
        if self.stage.config["train"]["picture"] and processes.is_writer():
            with dispensable():
                save_division(summary, points, self.stage.folder / PICTURE)
        return summary

    def _own_labels(self, split: str) -> np.ndarray | None:
        """Of training samples, which count in the tables of their own clusters."""
        return self.labels[split] if split == "train" else None

    def _summary(
        self,
        scoring: metrics.Scoring,
        evaluated: dict[str, Evaluated],
        facts: dict[str, Any],
        seconds: float,
    ) -> dict[str, Any]:
        per_epoch = dlsa.steps_per_epoch(self.whole, self.options.flow)
        steps = self.options.cascade.depth * self.options.flow.epochs * per_epoch
        selection: dict[str, Any] = {"steps": [steps] * len(self.seeds)}
        if "validation" in evaluated:
            score = metrics.balanced_accuracy(evaluated["validation"].counts)
            selection["validation_balanced_accuracy"] = score.tolist()
        return write_summary(
            self.stage.config,
            self.stage.dataset,
            scoring,
            self.stage.folder,
            seeds=self.seeds,
            scores={"last": scores_of(scoring, evaluated["test"].counts)},
            selection={"last": selection},
            training={
                "steps": steps,
                "steps_per_epoch": per_epoch,
                "seconds": round(seconds, 3),
                "devices": 1,
            },
            extra={**self.stage.facts, "division": facts},
        )

    def _save(self, heads: Any, tables: Array, blocks: list[dlsa.Block]) -> None:
        """Saves the classifiers, and what sends samples to them beside the flows.

        With mean and deviation of the features on train it is all that a sample needs.
        """
        thresholds = np.stack([one.threshold for one in blocks])
        saved = Checkpoints(self.stage.folder / workdir.CHECKPOINTS / "heads", 2)
        arrays = {"heads": heads, "tables": tables, "thresholds": thresholds}
        saved.save(0, {**arrays, "features": self.standard}, {})
        saved.close()


def _stopped(stop: Stop) -> bool:
    """Whether a signal came while the classifiers, which take seconds, were not yet done."""
    if not stop.asked:
        return False
    stop.unheeded = None
    say("stopped; the blocks are saved. Start it again to train the classifiers.")
    return True


def check_division(config: Mapping[str, Any], dataset: Any) -> None:
    """Refuses a division that could not run, so that it is known before stage 1 is trained.

    Args:
      config: of both stages.
      dataset: it is for.

    Raises:
      InputError: naming the field or the class.
    """
    processes.check_alone("a division (config.retrain.method 'dlsa')")
    options = options_of(config["retrain"])
    if dataset.multi_label:
        raise InputError(
            "config.retrain.method is 'dlsa', which is for one label an example, but"
            f" {dataset.source} has several"
        )
    shape = dataset.train_images.shape[1:]
    if config["model"]["name"] == "linear" and shape == (1,):
        raise InputError(f"{dataset.source} has 1 feature; expected at least 2, which a flow needs")
    dlsa.check_validation(options.cascade, len(dataset.validation_labels) > 0)
    log_prior(dataset.class_counts)  # refuses a class without samples
    examples, clusters = len(dataset.train_labels), options.flow.num_clusters
    if examples < clusters:
        raise InputError(
            f"config.retrain.flow.num_clusters is {clusters}; expected at most {examples}, the"
            " number of training examples"
        )
    cascade = options.cascade
    left = int(examples * (1 - cascade.take) ** (cascade.depth - 1))
    if not cascade.thresholds and left < clusters:
        raise InputError(
            f"config.retrain.flow.num_clusters is {clusters}, but about {left} of {examples}"
            f" training examples come to the last of {cascade.depth} blocks; expected fewer"
            " clusters, or a smaller depth or take"
        )
