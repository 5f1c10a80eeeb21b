"""Second stages that are computed: a classifier for each value of a knob, chosen on validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lt_jax import metrics, sharding, workdir
from lt_jax.assembly import seeds_of
from lt_jax.checkpoint import Checkpoints
from lt_jax.classifiers import PostHoc, adjusted, nearest_class_mean, tau_normalised
from lt_jax.data import shared_order
from lt_jax.data.identity import data_fingerprint
from lt_jax.features import feature_splits
from lt_jax.finish import scores_of, write_summary
from lt_jax.prepare import put_splits
from lt_jax.stage1 import SecondStage
from lt_jax.state import TrainState
from lt_jax.steps import Split

Array = jax.Array
Count = Callable[[np.ndarray, Split], metrics.Counts]


def compute(stage: SecondStage) -> dict[str, Any]:
    """Computes a classifier for every value of its knob and tests the one best on validation.

    Args:
      stage: what it starts from.

    Returns:
      The summary.
    """
    config, replicas = stage.config, len(stage.stage1.rows)
    done = stage.claim()
    if done is not None:
        return done
    mesh = sharding.make_mesh(config["train"]["num_devices"])
    images = put_splits(stage.dataset, mesh)
    if stage.fields["method"] != "ncm":  # of the others only the weights of the head are changed
        del images["train"]
    splits = feature_splits(stage.frozen, images, mesh, config["train"])
    made = _classifier(stage, splits.get("train"))
    count = _counter(stage, made, mesh)
    numbers = np.broadcast_to(made.numbers, (replicas, len(made.numbers)))
    scores, chosen = None, np.zeros(replicas, int)
    if "validation" in splits:
        scores = metrics.balanced_accuracy(count(numbers, splits["validation"]))
        chosen = scores.argmax(axis=1)  # the first of equals
    own = np.take_along_axis(numbers, chosen[:, None], axis=1)
    counts = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], count(own, splits["test"]))
    scoring = metrics.scoring_for(False, stage.dataset.class_counts)
    _save(stage, made, own[:, 0])
    selection: dict[str, Any] = {"steps": [0] * replicas}
    if scores is not None:
        best = np.take_along_axis(scores, chosen[:, None], axis=1)[:, 0]
        selection["validation_balanced_accuracy"] = best.tolist()
    knob = {
        "name": made.knob,
        "values": list(made.values),
        "validation_balanced_accuracy": None if scores is None else scores.tolist(),
        "chosen": [made.values[c] for c in chosen],
    }
    return write_summary(
        config,
        stage.dataset,
        scoring,
        stage.folder,
        seeds=seeds_of(config),
        scores={"last": scores_of(scoring, counts)},
        selection={"last": selection},
        training={"steps": 0, "steps_per_epoch": 0, "seconds": 0.0, "devices": mesh.size},
        extra={**stage.facts, "retrain": {"cached_features": True, "knob": knob}},
    )


def _classifier(stage: SecondStage, train: Split | None) -> PostHoc:
    fields, frozen, dataset = stage.fields, stage.frozen, stage.dataset
    head = frozen.params["head"]
    if train is not None:
        return nearest_class_mean(
            train.images, dataset.train_labels, dataset.num_classes, fields["features"]
        )
    if fields["method"] == "tau_norm":
        return tau_normalised(head, fields["tau"])
    return adjusted(
        head,
        frozen.network.classify,
        frozen.objective.scale,
        dataset.class_counts,
        fields["tau"],
    )


def _counter(stage: SecondStage, made: PostHoc, mesh: Mesh) -> Count:
    """``(numbers [R, K], split of features) -> Counts [R, K, ...]``, all in one call a batch."""
    # Distances compete; the other logits mean what those of stage 1 did.
    competing = made.knob == "features" or stage.frozen.objective.competing
    squash = jax.nn.softmax if competing else jax.nn.sigmoid

    def one(number: Array, memory: Any, split: Split, rows: Array, where: Array) -> Any:
        logits = made.logits(number, memory, split.images[rows])
        return metrics.count(logits, squash(logits), split.labels[rows], where)

    over_values = jax.vmap(one, in_axes=(0, None, None, None, None))
    axes = Split(0, None, None, None)
    over_replicas = sharding.awaited(
        jax.jit(jax.vmap(over_values, in_axes=(0, 0, axes, None, None))), mesh
    )
    memory = sharding.to_devices(made.memory, sharding.replicated(mesh))

    def count(numbers: np.ndarray, split: Split) -> metrics.Counts:
        size = stage.config["train"]["eval_batch_size"]
        batches, where = shared_order(len(split.labels), size, mesh.size)
        total = None
        for rows, kept in zip(batches, where, strict=True):
            part = over_replicas(numbers, memory, split, rows, kept)
            total = part if total is None else metrics.add(total, part)
        return jax.tree.map(np.asarray, total)

    return count


def _save(stage: SecondStage, made: PostHoc, numbers: np.ndarray) -> None:
    """Saves the classifiers with the networks they are for."""
    frozen = stage.frozen
    state = TrainState(
        step=jnp.zeros(len(numbers), jnp.int32),
        params={"head": {"memory": made.memory, "number": numbers}},
        stats={"params": frozen.params, "stats": frozen.stats},
        optimizer=(),
        objective=(),
        best=(),
    )
    checkpoints = Checkpoints(stage.folder / workdir.CHECKPOINTS, 2)
    checkpoints.save(0, state, {"data": data_fingerprint(stage.dataset.info())})
    checkpoints.close()
