"""A run that trains the classifier of a second stage on the frozen features of a first.

`prepare_classifier` makes it of a first stage that has finished, `Ahead` before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import sharding
from lt_jax.assembly import Task, Training, assemble, make_training
from lt_jax.build import make_model, make_objective
from lt_jax.classifiers import frozen_network, scaled_logits
from lt_jax.data import Dataset
from lt_jax.features import feature_splits
from lt_jax.feeding import is_streamed
from lt_jax.objectives import Objective
from lt_jax.prepare import put_splits
from lt_jax.programs import Program
from lt_jax.replicas import use_vmap
from lt_jax.run import Config, Run, programs_of, start_keys
from lt_jax.stage1 import Frozen, SecondStage
from lt_jax.state import Network
from lt_jax.steps import Split
from lt_jax.two_stage import TRAINED

Array = jax.Array
Tree = Any


def is_cached(fields: Config) -> bool:
    """Whether every epoch sees the same images, so that features can be computed once."""
    return not any(fields["augment"].values())


def prepare_classifier(stage: SecondStage, candidates: Sequence[Config] = ()) -> Run:
    """A run that trains the classifier only; writes nothing.

    Args:
      stage: of one of `lt_jax.two_stage.TRAINED`.
      candidates: see `lt_jax.assembly.make_training`.

    Returns:
      A `Run`.

    Raises:
      InputError: for objectives or a sampling that cannot be used.
    """
    task, frozen = _task(stage.config, stage.folder, stage.dataset), stage.frozen
    training = make_training(task.fields, task.options, task.dataset, candidates)
    splits = put_splits(task.dataset, task.mesh)
    if is_cached(task.fields):  # a step takes microseconds: an epoch is one call
        steps = training.steps_per_epoch
        options = {**task.options, "steps_per_call": steps, "log_every_steps": steps}
        task = task._replace(options=options)
        splits = _copied(feature_splits(frozen, splits, task.mesh, options), training.copies)
    return _assembled(task, training, splits, lambda: frozen)


def _task(config: Config, folder: Path, dataset: Dataset) -> Task:
    """The second stage of a config."""
    fields = config["retrain"]
    own = {name: fields[name] for name in ("epochs", "batch_size")}
    mesh = sharding.make_mesh(config["train"]["num_devices"])
    return Task(config, fields, {**config["train"], **own}, folder, dataset, mesh, stage=2)


def _assembled(
    task: Task, training: Training, splits: dict[str, Split], frozen: Callable[[], Frozen]
) -> Run:
    """The run from its parts; the weights of the first stage are asked for when it starts."""
    config, cached = task.config, is_cached(task.fields)
    network, start = trained_classifier(
        config, task.dataset, frozen().network, training.objective, on_features=cached
    )

    def weights(key: Array, replica: int) -> tuple[Tree, Tree]:
        of_seed, known = replica % config["replicas"], frozen()
        both = {"params": known.params, "stats": known.stats}
        own = jax.tree.map(lambda leaf: leaf[of_seed], both)
        return start(key, own["params"]["head"]), own

    return assemble(
        task,
        training,
        network,
        weights,
        splits,
        # Without convolutions side by side is faster everywhere.
        vmapped=cached or use_vmap(config["replica_mode"], training.copies * config["replicas"]),
        split_axes=Split(0, None, None, None) if cached else None,
    )


class Ahead:
    """The run of a second stage, made before the first has been trained.

    What weights the first will have does not matter to its programs, which so can be compiled with
    those of the first.

    Attributes:
      run: None where features are computed once, as training on them is quick to compile, and
        where images are streamed.
    """

    def __init__(
        self, config: Config, folder: Path, dataset: Dataset, splits: dict[str, Split]
    ) -> None:
        """Makes the run; writes nothing.

        Args:
          config: of both stages, checked.
          folder: of the second.
          dataset: of both.
          splits: of images, as they lie on the devices.
        """
        self.run: Run | None = None
        fields = config["retrain"]
        computed = fields["method"] not in TRAINED or is_cached(fields)
        if computed or is_streamed(splits["train"]):
            return
        objective = make_objective(config["objective"], dataset)
        network = make_model(config, dataset, objective)
        self._frozen = Frozen(network, objective, *_like_weights(network, config["replicas"]))
        task = _task(config, folder, dataset)
        training = make_training(fields, task.options, dataset)
        self.run = _assembled(task, training, splits, lambda: self._frozen)

    def programs(self) -> Iterator[Program]:
        """Those of the run, for `lt_jax.programs.compile_together`.

        Under FSDP there are none, as a state to compile them for takes memory, which is short.
        """
        run = self.run
        if run is None or run.config["train"]["fsdp"]:
            return
        many = min(run.replicas.steps_per_call, run.steps_per_epoch)
        rows = np.zeros((len(run.seeds), many, run.options["batch_size"]), np.int32)
        weights, _, steps = start_keys(np.asarray(run.seeds, np.uint32), run.stage)
        states = run.replicas.init(weights)
        left = run.steps_per_epoch % many
        yield from programs_of(run, states, steps, run.splits["train"], rows, left)

    def run_from(self, stage: SecondStage) -> Run | None:
        """The run, which starts from the weights of a first stage that has been trained.

        Args:
          stage: what it starts from.

        Returns:
          The run; None if there is none, or the stage is of another config or folder.
        """
        run = self.run
        if run is None or (stage.config, stage.folder) != (run.config, run.folder):
            return None
        self._frozen = stage.frozen
        return run


def _like_weights(network: Network, replicas: int) -> Tree:
    """Weights and statistics of a network for each replica, all zero."""
    return jax.tree.map(
        lambda leaf: np.zeros((replicas, *leaf.shape), leaf.dtype),
        jax.eval_shape(network.init, jax.random.key(0)),
    )


def _copied(splits: dict[str, Split], copies: int) -> dict[str, Split]:
    """Features ``[R, N, D]`` once more for every further copy of the R seeds."""
    if copies == 1:
        return splits
    return {
        name: split._replace(images=jnp.tile(split.images, (copies, 1, 1)))
        for name, split in splits.items()
    }


def trained_classifier(
    config: Config, dataset: Dataset, first: Network, objective: Objective, *, on_features: bool
) -> tuple[Network, Callable[[Array, Tree], Tree]]:
    """What a second stage trains.

    Args:
      config: of both stages.
      dataset: it is trained on.
      first: the network of stage 1.
      objective: of the second stage.
      on_features: whether inputs are features computed before, or images.

    Returns:
      The network, and ``(key, head of stage 1) -> its weights at the start``.
    """
    method = config["retrain"]["method"]
    if method == "lws":
        classes = dataset.num_classes
        return (
            frozen_network(first, scaled_logits(first.classify), on_features=on_features),
            lambda key, head: {"head": {"scale": jnp.ones(classes)}},
        )
    fresh = make_model(config, dataset, objective) if method == "crt" else first
    network = frozen_network(
        first, lambda params, _, x: fresh.classify(params["head"], x), on_features=on_features
    )
    if method == "finetune":
        return network, lambda key, head: {"head": head}
    # Compiled, so that only the head is drawn.
    draw = jax.jit(lambda key: fresh.init(key)[0]["head"])
    return network, lambda key, head: {"head": draw(key)}
