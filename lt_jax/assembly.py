"""A run of a stage, built of its parts: what is minimised, on what, and every compiled function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lt_jax.build import make_objective
from lt_jax.data import Dataset, make_order
from lt_jax.data.identity import data_fingerprint
from lt_jax.errors import InputError
from lt_jax.feeding import is_streamed
from lt_jax.metrics import scoring_for
from lt_jax.objectives import Objective, alternatives
from lt_jax.optimizers import (
    OptimizerChoice,
    alternative_optimizers,
    make_optimizer,
    make_schedule,
)
from lt_jax.replicas import make_replicas
from lt_jax.run import Config, Run
from lt_jax.state import Network, TrainState, init_state
from lt_jax.steps import Split, make_eval_step, make_train_step
from lt_jax.writers import say_once


class Task(NamedTuple):
    """A stage of training: what it is told, what it trains on, and where.

    Attributes:
      config: of all stages.
      fields: of this one: ``sampling`` and ``augment``.
      options: of this one, see `Run`.
      folder: where it will write.
      dataset: it is trained on.
      mesh: devices that share each batch.
      stage: 1 or 2.
    """

    config: Config
    fields: Config
    options: Config
    folder: Path
    dataset: Dataset
    mesh: jax.sharding.Mesh
    stage: int = 1


class Start(NamedTuple):
    """What tells apart replicas of one seed, of which options are compared.

    Attributes:
      objective: what it remembers at first.
      optimizer: number of the one that is meant, where there are several.
    """

    objective: Callable[[], Any]
    optimizer: int = 0


class Training(NamedTuple):
    """What the steps of a stage minimise, how, and how many they are.

    Every seed is trained once with each of `starts`.
    """

    objective: Objective
    starts: tuple[Start, ...]
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    steps_per_epoch: int
    total_steps: int

    @property
    def copies(self) -> int:
        """How often each seed is trained."""
        return len(self.starts)


def make_training(
    fields: Config, options: Config, dataset: Dataset, candidates: Sequence[Config] = ()
) -> Training:
    """The objective and the optimizer of a stage.

    Args:
      fields: of the stage: ``objective`` and ``optimizer``.
      options: ``epochs`` and ``batch_size``, at most the number of images.
      dataset: it is trained on.
      candidates: fields of the stage that are compared, in place of `fields`; they differ in
        numbers of the objective or of the optimizer.

    Returns:
      `Training`.

    Raises:
      InputError: for a name or a number that cannot be used.
    """
    steps = len(dataset.train_labels) // options["batch_size"]
    total = steps * options["epochs"]
    compared = candidates or (fields,)
    length = {"steps_per_epoch": steps, "epochs": options["epochs"]}
    objectives = [make_objective(own["objective"], dataset, **length) for own in compared]
    for own in compared:
        _tell_never_starting(own["objective"], options["epochs"])
        _tell_never_reached(own["optimizer"], options["epochs"])
    objective, inits = objectives[0], (objectives[0].init,) * len(compared)
    if _differ(compared, "objective"):
        objective, inits = alternatives(objectives)
    schedules = [make_schedule(own["optimizer"], steps, total) for own in compared]
    optimizers = [
        make_optimizer(own["optimizer"], rate)
        for own, rate in zip(compared, schedules, strict=True)
    ]
    schedule, optimizer = schedules[0], optimizers[0]
    if _differ(compared, "optimizer"):
        optimizer = alternative_optimizers(optimizers)

        def schedule(step: Any) -> Any:
            return jnp.stack([jnp.asarray(rate(step)) for rate in schedules])

    starts = tuple(Start(init, number) for number, init in enumerate(inits))
    return Training(objective, starts, schedule, optimizer, steps, total)


def _differ(compared: Sequence[Config], group: str) -> bool:
    return any(own[group] != compared[0][group] for own in compared)


def _tell_never_starting(spec: Config, epochs: int) -> None:
    """A transform that starts after the last epoch is hardly what one wants; it is no error."""
    for name, options in spec["transforms"].items():
        start = options.get("start_epoch", 0)
        if start >= epochs:
            say_once(
                f"{name} starts with epoch {start:g} of {epochs}, so never; a start_epoch of 0.8"
                " has it act in the last fifth."
            )


def _tell_never_reached(optimizer: Config, epochs: int) -> None:
    """A recipe for more epochs than there are is hardly what one wants; it is no error."""
    warmup, milestones = optimizer["warmup_epochs"], optimizer["milestones"]
    if warmup >= epochs:
        say_once(
            f"the learning rate rises to the end: optimizer.warmup_epochs is {warmup:g} of"
            f" {epochs} epochs."
        )
    late = [f"{epoch:g}" for epoch in milestones if epoch >= epochs]
    if optimizer["schedule"] == "step" and late:
        say_once(
            f"the learning rate is not lowered at epoch {' and '.join(late)}: there are {epochs};"
            " optimizer.milestones are epochs."
        )


def assemble(
    task: Task,
    training: Training,
    network: Network,
    weights: Callable[[jax.Array, int], tuple[Any, Any]],
    splits: dict[str, Split],
    *,
    vmapped: bool,
    split_axes: Any = None,
) -> Run:
    """A run of a stage from its parts.

    Args:
      task: the stage.
      training: from `make_training`.
      network: what is trained.
      weights: ``(key, number of the replica) -> (params, stats)`` at the start.
      splits: on the device.
      vmapped: whether replicas run side by side.
      split_axes: see `make_replicas`.

    Returns:
      A `Run`.

    Raises:
      InputError: for a sampling that cannot be used.
    """
    config, options, dataset = task.config, task.options, task.dataset
    splits = _cropping(splits, task.fields["augment"]["random_resized_crop"])
    scoring = scoring_for(dataset.multi_label, dataset.class_counts, **config["metrics"])
    seeds = seeds_of(config) * training.copies
    fsdp = _uses_fsdp(config, task.mesh, len(seeds))
    replicas = make_replicas(
        _initial_state(training, weights, config["replicas"], keep_best="validation" in splits),
        make_order(
            task.fields["sampling"],
            dataset.train_labels,
            dataset.num_classes,
            options["batch_size"],
            options["epochs"],
        ),
        make_train_step(
            network, training.objective, training.optimizer, task.fields["augment"], task.mesh
        ),
        make_eval_step(network, training.objective, scoring, task.mesh),
        scoring,
        training.objective,
        vmapped=vmapped or fsdp,
        num_replicas=len(seeds),
        steps_per_call=1
        if is_streamed(splits["train"])
        else updates_per_call(options["steps_per_call"], training.steps_per_epoch),
        mesh=task.mesh,
        split_axes=split_axes,
        fsdp=fsdp,
    )
    return Run(
        config=config,
        options=options,
        folder=task.folder,
        dataset=dataset,
        mesh=task.mesh,
        replicas=replicas,
        scoring=scoring,
        schedule=training.schedule,
        splits=splits,
        seeds=seeds,
        steps_per_epoch=training.steps_per_epoch,
        total_steps=training.total_steps,
        fingerprint=data_fingerprint(dataset.info()),
        stage=task.stage,
    )


def updates_per_call(asked: int, steps_per_epoch: int) -> int:
    """How many updates one program makes: as many as were asked for, or what suits the backend.

    That is 1 on CPU, where XLA runs convolutions inside loops many times slower. Elsewhere it is
    the divisor of the epoch from 10 to 200 that is nearest to 20, as what is left of an epoch would
    be a second program to compile; 20 if there is none.

    Args:
      asked: 0 to choose.
      steps_per_epoch: which calls make up together.

    Example:
      >>> updates_per_call(8, 96)
      8
    """
    if asked:
        return asked
    if jax.default_backend() == "cpu":
        return 1
    whole = [many for many in range(10, 201) if steps_per_epoch % many == 0]
    return min(whole, key=lambda many: abs(math.log(many / 20)), default=20)


def _cropping(splits: dict[str, Split], smallest: float) -> dict[str, Split]:
    """Splits of which streamed training images are cropped as they are read."""
    train = splits["train"]
    if not is_streamed(train):
        return splits
    return {**splits, "train": train._replace(images=train.images.cropping(smallest))}


def _uses_fsdp(config: Config, mesh: jax.sharding.Mesh, num_replicas: int) -> bool:
    """Whether the devices share one replica's weights; refuses several replicas."""
    fsdp = config["train"]["fsdp"] and mesh.size > 1
    if fsdp and num_replicas > 1:
        raise InputError(
            f"config.train.fsdp is True and config.replicas {num_replicas}; expected one replica,"
            " and nothing to tune, as memory is short"
        )
    return fsdp


def _initial_state(
    training: Training,
    weights: Callable[[jax.Array, int], tuple[Any, Any]],
    num_seeds: int,
    *,
    keep_best: bool,
) -> Callable[[jax.Array, int], TrainState]:
    """``(key, number of the replica) -> state``; every start has all seeds, one after another."""

    def init(key: jax.Array, replica: int) -> TrainState:
        start = training.starts[replica // num_seeds]
        objective = training.objective._replace(init=start.objective)
        state = init_state(
            weights(key, replica), training.optimizer, objective, keep_best=keep_best
        )
        if not isinstance(state.optimizer, OptimizerChoice):
            return state
        number = jnp.asarray(start.optimizer, jnp.int32)
        return state._replace(optimizer=state.optimizer._replace(number=number))

    return init


def seeds_of(config: Config) -> tuple[int, ...]:
    """The seeds of a run's replicas."""
    return tuple(range(config["seed"], config["seed"] + config["replicas"]))
