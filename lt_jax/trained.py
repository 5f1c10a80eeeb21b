"""A finished run as one function of its inputs: its weights are read, its data are not.

Read from the top: `load_trained` finds the run and takes one of its replicas. What gives logits
depends on the last stage: a network, a network with another head, a computed classifier, or the
parts of a division.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import workdir
from lt_jax.assembly import make_training
from lt_jax.build import make_model, make_objective
from lt_jax.checkpoint import read_states
from lt_jax.classifiers import adjusted, class_mean_logits, tau_normalised
from lt_jax.configuration import plain, read_config
from lt_jax.data import Dataset, load_dataset
from lt_jax.divided import division_logits, read_division
from lt_jax.dividing import options_of
from lt_jax.errors import InputError
from lt_jax.files import folder_of
from lt_jax.second_run import trained_classifier
from lt_jax.stage1 import (
    Stage1,
    check_same_start,
    find_stage1,
    load_frozen,
    started_from,
)
from lt_jax.state import TrainState, init_state
from lt_jax.two_stage import DIVIDED, NCM_FEATURES, POST_HOC

Array = jax.Array
Tree = Any


class Chosen(NamedTuple):
    """A finished run, and which of its networks is meant.

    Attributes:
      folder: of it, or of its second stage.
      config: it was trained with.
      summary: it ended with.
      dataset: see `remembered`.
      row: of the replica.
      which: ``"last"`` or ``"best_on_validation"``.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    dataset: Dataset
    row: int
    which: str

    @property
    def test(self) -> dict[str, Any]:
        """What the test set said of it."""
        return self.summary["test"][self.which]["replicas"][self.row]


class Trained(NamedTuple):
    """What a run has trained, for inputs as its network sees them: normalised.

    Attributes:
      run: it is of.
      weights: nested arrays, on the host.
      logits: ``(weights, inputs [B, ...]) -> [B, C]``, float32; scaled, so that their softmax or
        sigmoid is the probability.
      competing: whether it is the softmax.
      scale: what the logits that thresholds were chosen on are multiplied by in these.
    """

    run: Chosen
    weights: Tree
    logits: Callable[[Tree, Array], Array]
    competing: bool
    scale: float


def load_trained(folder: str | Path, *, seed: int | None = None, weights: str = "last") -> Trained:
    """Reads what a finished run has trained.

    Args:
      folder: of a run of one stage or of two, whose second is then taken, or of one of its stages.
      seed: of the replica; None for the first.
      weights: ``"last"`` or ``"best_on_validation"``.

    Returns:
      `Trained`.

    Raises:
      InputError: if there is no finished run, no such seed or weights, or a checkpoint that cannot
        be read.
    """
    run = _find(folder, seed, weights)
    method = run.config["retrain"]["method"]
    if not method:
        return _first_stage(run)
    if method in DIVIDED:
        return _divided(run)
    return _computed(run) if method in POST_HOC else _retrained(run)


def _find(folder: str | Path, seed: int | None, weights: str) -> Chosen:
    path = workdir.trained_in(folder_of(folder))
    if not (path / workdir.CONFIG).exists():
        raise InputError(f"{path} holds no {workdir.CONFIG}; expected the folder of a run")
    summary = workdir.required_summary(path)
    config = plain(read_config(path / workdir.CONFIG))
    if seed is not None and seed not in summary["seeds"]:
        raise InputError(f"seed is {seed}, but the run in {path} has seeds {summary['seeds']}")
    if weights not in summary["test"]:
        known = " or ".join(map(repr, summary["test"]))
        raise InputError(f"weights is {weights!r}, but the run in {path} has {known}")
    row = 0 if seed is None else summary["seeds"].index(seed)
    if config["retrain"]["method"] and (path / workdir.STAGE2).is_dir():
        path = path / workdir.STAGE2
    return Chosen(path, config, summary, remembered(config, summary), row, weights)


def remembered(config: Mapping[str, Any], summary: Mapping[str, Any]) -> Dataset:
    """The data set of a run as its summary tells it: shapes and counts are right, values all 0.

    Args:
      config: of the run.
      summary: it ended with.

    Returns:
      A `Dataset` from which networks and objectives are made as from the true one.

    Raises:
      InputError: if the summary, of an earlier version, does not tell the shape of the inputs, and
        the data that do are not there.
    """
    data = summary["data"]
    shape = data.get("image_shape") or load_dataset(config["data"]).train_images.shape[1:]
    kind = np.uint8 if len(shape) == 3 else np.float32
    arrays: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        count = data[f"total_{name}"]
        targets = (count, data["num_classes"]) if data["multi_label"] else (count,)
        # Zero-stride arrays, which take no room.
        arrays[f"{name}_images"] = np.broadcast_to(np.zeros((), kind), (count, *shape))
        label = np.zeros((), np.uint8 if data["multi_label"] else np.int32)
        arrays[f"{name}_labels"] = np.broadcast_to(label, targets)
    same = ("num_classes", "index_hash", "test_hash", "source", "split_seed", "imbalance", "kind")
    return Dataset(
        **arrays,
        **{name: data[name] for name in same},
        class_counts=np.asarray(data["class_counts"], np.int64),
        class_names=tuple(data["class_names"]),
        mean=np.asarray(data["pixel_mean"], np.float64),
        std=np.asarray(data["pixel_std"], np.float64),
    )


def _of_row(run: Chosen, tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[run.row], tree)


def _weights_of(run: Chosen, states: TrainState) -> Any:
    """What has the weights that are meant."""
    return states.best if run.which == "best_on_validation" else states


def _first_stage(run: Chosen) -> Trained:
    stage = Stage1(run.folder, run.config, run.summary, (run.row,))
    frozen = load_frozen(stage, run.dataset, run.which)
    scale, apply = frozen.objective.scale, frozen.network.apply

    def logits(weights: Tree, inputs: Array) -> Array:
        return scale * apply(weights["params"], weights["stats"], inputs, False)[0]

    weights = jax.tree.map(lambda leaf: leaf[0], {"params": frozen.params, "stats": frozen.stats})
    return Trained(run, weights, logits, frozen.objective.competing, scale)


def _retrained(run: Chosen) -> Trained:
    """A trained classifier, whose checkpoint has the first stage too."""
    config, fields, dataset = run.config, run.config["retrain"], run.dataset
    first = make_model(config, dataset, make_objective(config["objective"], dataset))
    options = {name: fields[name] for name in ("epochs", "batch_size")}
    training = make_training(fields, options, dataset)
    network, start = trained_classifier(
        config, dataset, first, training.objective, on_features=False
    )

    def init(key: Array) -> TrainState:
        params, stats = first.init(key)
        return init_state(
            (start(key, params["head"]), {"params": params, "stats": stats}),
            training.optimizer,
            training.objective,
            keep_best=len(dataset.validation_labels) > 0,
        )

    chosen = _weights_of(run, read_states(run.folder, run.summary, init))
    scale = training.objective.scale

    def logits(weights: Tree, inputs: Array) -> Array:
        return scale * network.apply(weights["params"], weights["stats"], inputs, False)[0]

    weights = _of_row(run, {"params": chosen.params, "stats": chosen.stats})
    return Trained(run, weights, logits, training.objective.competing, scale)


def _computed(run: Chosen) -> Trained:
    """A computed classifier, with the value of its knob that validation chose."""
    config, dataset = run.config, run.dataset
    method, objective = config["retrain"]["method"], make_objective(config["objective"], dataset)
    network = make_model(config, dataset, objective)
    distances = method == "ncm"

    def init(key: Array) -> TrainState:
        params, stats = network.init(key)
        memory = params["head"]
        if distances:
            dim, kinds = params["head"]["kernel"].shape[0], len(NCM_FEATURES)
            means = jnp.zeros((kinds, dataset.num_classes, dim))
            memory = {"centre": jnp.zeros(dim), "means": means, "origins": means[:, 0]}
        step, number = jnp.zeros((), jnp.int32), jnp.zeros(())
        head = {"head": {"memory": memory, "number": number}}
        return TrainState(step, head, {"params": params, "stats": stats}, (), (), ())

    states = read_states(run.folder, run.summary, init)
    weights = _of_row(run, {"head": states.params["head"], "frozen": states.stats})
    if distances:
        classify = class_mean_logits(dataset.class_counts)
    elif method == "tau_norm":
        classify = tau_normalised({}, ()).logits
    else:
        classify = adjusted({}, network.classify, objective.scale, dataset.class_counts, ()).logits

    def logits(weights: Tree, inputs: Array) -> Array:
        frozen, head = weights["frozen"], weights["head"]
        features = network.features(frozen["params"], frozen["stats"], inputs)
        return classify(head["number"], head["memory"], features)

    return Trained(run, weights, logits, distances or objective.competing, 1.0)


def _divided(run: Chosen) -> Trained:
    """The parts of a division, whose first stage lies where it did then, as seen from it."""
    config, folder = run.config, run.folder
    options = options_of(config["retrain"])
    stage1 = find_stage1(config, started_from(folder, run.summary["stage1"]["workdir"]))
    check_same_start(folder, stage1)
    frozen = load_frozen(stage1, run.dataset, config["retrain"]["weights"])
    division = read_division(
        folder,
        options,
        replicas=len(run.summary["seeds"]),
        dim=frozen.params["head"]["kernel"].shape[1],
        num_classes=run.dataset.num_classes,
    )

    def logits(weights: Tree, inputs: Array) -> Array:
        own = weights["frozen"]
        features = frozen.network.features(own["params"], own["stats"], inputs)
        return division_logits(weights["division"], features, options)

    parts = {"frozen": {"params": frozen.params, "stats": frozen.stats}, "division": division}
    return Trained(run, _of_row(run, parts), logits, True, 1.0)
