"""A run that trains the classifier of a second stage on the frozen features of a first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import sharding
from lt_jax.assembly import Task, assemble, make_training
from lt_jax.build import make_model, make_objective
from lt_jax.classifiers import frozen_network, scaled_logits
from lt_jax.data import Dataset
from lt_jax.features import feature_splits
from lt_jax.feeding import is_streamed
from lt_jax.objectives import Objective
from lt_jax.prepare import put_splits
from lt_jax.programs import Program, are_kept
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
    mesh = sharding.make_mesh(stage.config["train"]["num_devices"])
    splits = put_splits(stage.dataset, mesh)
    return _prepared(stage.config, stage.folder, stage.dataset, stage.frozen, splits, candidates)


def _prepared(
    config: Config,
    folder: Path,
    dataset: Dataset,
    frozen: Frozen,
    splits: dict[str, Split],
    candidates: Sequence[Config] = (),
) -> Run:
    """The same from its parts; the splits are of images."""
    fields, mesh = config["retrain"], sharding.make_mesh(config["train"]["num_devices"])
    options = {**config["train"], "epochs": fields["epochs"], "batch_size": fields["batch_size"]}
    training, cached = make_training(fields, options, dataset, candidates), is_cached(fields)
    if cached:  # a step takes microseconds: an epoch is one call
        steps = training.steps_per_epoch
        options |= {"steps_per_call": steps, "log_every_steps": steps}
        splits = _copied(feature_splits(frozen, splits, mesh, options), training.copies)
    network, start = trained_classifier(
        config, dataset, frozen.network, training.objective, on_features=cached
    )

    def weights(key: Array, replica: int) -> tuple[Tree, Tree]:
        of_seed = replica % config["replicas"]
        own = jax.tree.map(lambda leaf: leaf[of_seed], (frozen.params, frozen.stats))
        stats = dict(zip(("params", "stats"), own, strict=True))
        return start(key, own[0]["head"]), stats

    return assemble(
        Task(config, fields, options, folder, dataset, mesh, stage=2),
        training,
        network,
        weights,
        splits,
        # Without convolutions side by side is faster everywhere.
        vmapped=cached or use_vmap(config["replica_mode"], training.copies * config["replicas"]),
        split_axes=Split(0, None, None, None) if cached else None,
    )


def programs_ahead(
    config: Config, folder: Path, dataset: Dataset, splits: dict[str, Split]
) -> Iterator[Program]:
    """The programs of a second stage before there is a first, to be compiled with those of that.

    The weights that the first will have do not matter to them. The run of the second finds them
    where compiled programs are kept; without such a place there are none here. Nor are there where
    features are computed once, as training on them is quick to compile, or images are streamed.

    Args:
      config: of both stages, checked.
      folder: of the second.
      dataset: of both.
      splits: of images, as they lie on the devices.

    Yields:
      What `lt_jax.programs.compile_together` takes.
    """
    fields = config["retrain"]
    quick = fields["method"] not in TRAINED or is_cached(fields)
    if quick or is_streamed(splits["train"]) or not are_kept():
        return
    objective = make_objective(config["objective"], dataset)
    network = make_model(config, dataset, objective)
    params, stats = jax.tree.map(
        lambda leaf: np.zeros((config["replicas"], *leaf.shape), leaf.dtype),
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    run = _prepared(config, folder, dataset, Frozen(network, objective, params, stats), splits)
    epoch = run.steps_per_epoch
    many = min(run.replicas.steps_per_call, epoch)
    rows = np.zeros((len(run.seeds), many, fields["batch_size"]), np.int32)
    weights, _, steps = start_keys(np.asarray(run.seeds, np.uint32), run.stage)
    states = run.replicas.init(weights)
    yield from programs_of(run, states, steps, run.splits["train"], rows, epoch % many)


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
