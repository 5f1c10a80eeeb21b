"""What a run consists of, built from its config before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lt_jax import augment, sharding
from lt_jax.build import check_fused, initial_weights, make_model, make_objective
from lt_jax.data import Dataset, StreamedImages, load_dataset, make_order
from lt_jax.errors import InputError
from lt_jax.feeding import is_streamed
from lt_jax.loop import Config, Run
from lt_jax.metrics import scoring_for
from lt_jax.objectives import Objective, alternatives
from lt_jax.optimizers import make_optimizer, make_schedule
from lt_jax.replicas import make_replicas, updates_per_call, use_vmap
from lt_jax.state import Network, init_state
from lt_jax.steps import NOT_ON_PIXELS, Split, make_eval_step, make_train_step
from lt_jax.writers import say_once


def prepare(
    config: Config,
    folder: Path,
    dataset: Dataset | None = None,
    candidates: Sequence[Config] = (),
) -> Run:
    """Loads the data and builds every function of a run; writes nothing.

    Args:
      config: of the run, checked.
      folder: where it will write.
      dataset: of ``config.data``, if it has been loaded already.
      candidates: see `make_training`.

    Returns:
      A `Run`.

    Raises:
      InputError: for data or numbers that cannot be used.
    """
    options = config["train"]
    mesh = sharding.make_mesh(options["num_devices"])
    sharding.check_batch_size("config.train.batch_size", options["batch_size"], mesh)
    check_fused(config, mesh)
    dataset = load_dataset(config["data"]) if dataset is None else dataset
    check_fits("config.train.batch_size", options["batch_size"], dataset)
    check_augmentation("config.augment", config["augment"], dataset)
    for note in dataset.notes:
        say_once(note)
    training = make_training(config, options, dataset, candidates)
    network = make_model(config, dataset, training.objective)
    return assemble(
        config,
        config,
        options,
        folder,
        dataset,
        mesh,
        training,
        network,
        initial_weights(config, network),
        put_splits(dataset, mesh),
        vmapped=use_vmap(config["replica_mode"], training.copies * config["replicas"]),
    )


class Training(NamedTuple):
    """What the steps of a stage minimise, how, and how many they are.

    Every seed is trained once with each of `starts`, what the objective remembers at first.
    """

    objective: Objective
    starts: tuple[Callable[[], Any], ...]
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
      candidates: specs of objectives that are compared, in place of that of `fields`.

    Returns:
      `Training`.

    Raises:
      InputError: for a name or a number that cannot be used.
    """
    steps = len(dataset.train_labels) // options["batch_size"]
    total = steps * options["epochs"]
    objectives = [
        make_objective(spec, dataset, steps_per_epoch=steps)
        for spec in candidates or (fields["objective"],)
    ]
    objective, starts = objectives[0], (objectives[0].init,)
    if candidates:
        objective, starts = alternatives(objectives)
    schedule = make_schedule(fields["optimizer"], steps, total)
    optimizer = make_optimizer(fields["optimizer"], schedule)
    return Training(objective, starts, schedule, optimizer, steps, total)


def assemble(
    config: Config,
    fields: Config,
    options: Config,
    folder: Path,
    dataset: Dataset,
    mesh: jax.sharding.Mesh,
    training: Training,
    network: Network,
    weights: Callable[[jax.Array, int], tuple[Any, Any]],
    splits: dict[str, Split],
    *,
    vmapped: bool,
    split_axes: Any = None,
    stage: int = 1,
) -> Run:
    """A run of a stage from its parts.

    Args:
      config: of all stages.
      fields: of this one: ``sampling`` and ``augment``.
      options: of this one, see `Run`.
      folder: where it will write.
      dataset: it is trained on.
      mesh: devices that share each batch.
      training: from `make_training`.
      network: what is trained.
      weights: ``(key, number of the replica) -> (params, stats)`` at the start.
      splits: on the device.
      vmapped: whether replicas run side by side.
      split_axes: see `make_replicas`.
      stage: 1 or 2.

    Returns:
      A `Run`.

    Raises:
      InputError: for a sampling that cannot be used.
    """
    keep_best = "validation" in splits
    if is_streamed(splits["train"]):
        images = splits["train"].images.cropping(fields["augment"]["random_resized_crop"])
        splits = {**splits, "train": splits["train"]._replace(images=images)}
    objective, optimizer = training.objective, training.optimizer
    own = seeds_of(config)
    seeds = own * training.copies
    fsdp = config["train"]["fsdp"] and mesh.size > 1
    if fsdp and len(seeds) > 1:
        raise InputError(
            f"config.train.fsdp is True and config.replicas {len(seeds)}; expected one replica, and"
            " nothing to tune, as memory is short"
        )
    starts = [start for start in training.starts for _ in own]
    scoring = scoring_for(dataset.multi_label, dataset.class_counts, **config["metrics"])
    replicas = make_replicas(
        lambda key, replica: init_state(
            weights(key, replica),
            optimizer,
            objective._replace(init=starts[replica]),
            keep_best=keep_best,
        ),
        make_order(
            fields["sampling"],
            dataset.train_labels,
            dataset.num_classes,
            options["batch_size"],
            options["epochs"],
        ),
        make_train_step(network, objective, optimizer, fields["augment"], mesh),
        make_eval_step(network, objective, scoring, mesh),
        scoring,
        objective,
        vmapped=vmapped or fsdp,
        num_replicas=len(seeds),
        steps_per_call=1
        if is_streamed(splits["train"])
        else updates_per_call(options["steps_per_call"], training.steps_per_epoch),
        mesh=mesh,
        split_axes=split_axes,
        fsdp=fsdp,
    )
    return Run(
        config=config,
        options=options,
        folder=folder,
        dataset=dataset,
        mesh=mesh,
        replicas=replicas,
        scoring=scoring,
        schedule=training.schedule,
        splits=splits,
        seeds=seeds,
        steps_per_epoch=training.steps_per_epoch,
        total_steps=training.total_steps,
        fingerprint=data_fingerprint(dataset.info()),
        stage=stage,
    )


def seeds_of(config: Config) -> tuple[int, ...]:
    """The seeds of a run's replicas."""
    return tuple(range(config["seed"], config["seed"] + config["replicas"]))


def data_fingerprint(info: Config) -> dict[str, Any]:
    """What tells the images of a run from others under the same name.

    Args:
      info: from `Dataset.info`, or ``summary["data"]``.

    Returns:
      A dictionary that JSON can hold.
    """
    names = ("index_hash", "class_counts", "pixel_mean", "total_test", "test_hash")
    return {name: info[name] for name in names if name in info}


def check_augmentation(name: str, augmentation: Config, dataset: Dataset) -> None:
    """Refuses changes that the images of a data set do not allow, before anything is written.

    Feature vectors can be mixed, not cropped or mirrored.

    Args:
      name: of the group of fields.
      augmentation: its fields.
      dataset: whose images are meant.

    Raises:
      InputError: naming the group.
    """
    if augmentation["random_resized_crop"] and not isinstance(dataset.train_images, StreamedImages):
        raise InputError(
            f"{name}.random_resized_crop is {augmentation['random_resized_crop']!r}, but the images"
            f" of {dataset.source} are in memory, all of one size; expected 0, or"
            " config.data.stream=True"
        )
    fields = {k: v for k, v in augmentation.items() if k not in NOT_ON_PIXELS}
    if len(dataset.train_images.shape) == 2:
        changed = next((k for k, v in fields.items() if v), None)
        if changed:
            raise InputError(
                f"{name}.{changed} is {fields[changed]!r}, but {dataset.source} has feature vectors"
                " and no images; expected it off"
            )
        return
    one = jax.ShapeDtypeStruct((1, *dataset.train_images.shape[1:]), jnp.uint8)
    try:
        jax.eval_shape(lambda key, x: augment.augment(key, x, **fields), jax.random.key(0), one)
    except InputError as error:
        raise InputError(f"{name} does not fit {dataset.source}: {error}") from error


def check_fits(name: str, batch_size: int, dataset: Dataset) -> None:
    """Refuses a batch that is larger than the data."""
    num_examples = len(dataset.train_labels)
    if batch_size > num_examples:
        raise InputError(
            f"{name} is {batch_size}; expected at most {num_examples}, the number of training"
            " images"
        )


def put_splits(dataset: Dataset, mesh: jax.sharding.Mesh) -> dict[str, Split]:
    """The splits that are not empty: whole on every device, or streamed from where they are."""
    splits = {}
    for name in ("train", "validation", "test"):
        labels = getattr(dataset, f"{name}_labels")
        if len(labels):
            split = Split(
                getattr(dataset, f"{name}_images"),
                labels if dataset.multi_label else labels.astype(np.int32),
                dataset.mean.astype(np.float32),
                dataset.std.astype(np.float32),
            )
            whole = sharding.replicated(mesh)
            splits[name] = split if is_streamed(split) else sharding.to_devices(split, whole)
    return splits
