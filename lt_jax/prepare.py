"""What a run consists of, built from its config before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import augment, sharding, workdir
from lt_jax.assembly import Task, assemble, make_training
from lt_jax.build import check_fused, initial_weights, make_model
from lt_jax.data import Dataset, StreamedImages, load_dataset
from lt_jax.data.identity import OF_IMAGES, check_can_move, data_fingerprint, different
from lt_jax.errors import InputError
from lt_jax.feeding import is_streamed
from lt_jax.processes import agreed, are_several, check_same
from lt_jax.replicas import use_vmap
from lt_jax.run import Config, Run
from lt_jax.steps import NOT_ON_PIXELS, Split
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
      candidates: see `lt_jax.assembly.make_training`.

    Returns:
      A `Run`.

    Raises:
      InputError: for data or numbers that cannot be used.
    """
    options = config["train"]
    mesh = sharding.make_mesh(options["num_devices"])
    sharding.check_batch_size("config.train.batch_size", options["batch_size"], mesh)
    check_fused(config, mesh)
    check_pretrained(config)
    dataset = load(config, dataset)
    check_fits("config.train.batch_size", options["batch_size"], dataset)
    check_augmentation("config.augment", config["augment"], dataset)
    for note in dataset.notes:
        say_once(note)
    training = make_training(config, options, dataset, candidates)
    network = make_model(config, dataset, training.objective)
    return assemble(
        Task(config, config, options, folder, dataset, mesh),
        training,
        network,
        initial_weights(config, network),
        put_splits(dataset, mesh),
        vmapped=use_vmap(config["replica_mode"], training.copies * config["replicas"]),
    )


def load(config: Config, dataset: Dataset | None = None) -> Dataset:
    """The data of a run, which have to be the same in all of its processes.

    Args:
      config: of the run.
      dataset: of ``config.data``, if it has been loaded already.

    Returns:
      The data set.

    Raises:
      InputError: in all processes, if one cannot load it, or has loaded other images.
    """
    with agreed("load the data"):
        found = load_dataset(config["data"]) if dataset is None else dataset
    if are_several():  # to ask the images takes a moment
        facts = data_fingerprint(found.info())
        del facts["pixel_mean"]  # its last bits depend on the processor, and hashes tell as much
        check_same({f"the data's {name}": value for name, value in facts.items()})
    return found


def told_finished(
    config: Config, folder: Path, dataset: Dataset | None = None
) -> dict[str, Any] | None:
    """As `lt_jax.workdir.told_finished`, with the check of `check_moved`."""
    done = workdir.finished_summary(folder)
    if done is not None:
        check_moved(config, folder, done["data"], dataset)
    return workdir.told_finished(folder)


def check_moved(
    config: Config, folder: Path, before: Config, dataset: Dataset | None = None
) -> None:
    """Refuses the config of a finished run if its data are said to lie where others do.

    Args:
      config: that matches the folder's.
      folder: of the run.
      before: what the run noted about its data.
      dataset: of ``config.data``, if it has been loaded already; only data that have moved are.

    Raises:
      InputError: naming what differs.
    """
    elsewhere = workdir.moved_from(config, folder)
    if not elsewhere:
        return
    check_can_move(before, elsewhere, f"the run in {folder}")
    dataset = load(config, dataset)
    name = different(before, dataset.info())
    if name:
        raise InputError(
            f"the run in {folder} has finished with other {OF_IMAGES[name]} than those now in"
            f" {dataset.source}; choose another workdir"
        )


def check_pretrained(config: Config) -> None:
    """Refuses weights to start from that are not there, as to load the data may take long.

    Args:
      config: of the run.

    Raises:
      InputError: in all processes, if one of them has no such file.
    """
    path = config["model"]["pretrained"]
    with agreed("find the weights to start from"):
        if path and not os.path.isfile(os.path.expanduser(path)):
            raise InputError(
                f"config.model.pretrained is {path!r}, and there is no such file; expected weights"
                f" of {config['model']['name']} in .safetensors or .npz, or '' to start from random"
                " ones (--config.model.pretrained=, in a table --set=model.pretrained=)"
            )


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
    """The splits that are not empty, each as `put_split` gives it."""
    names = ("train", "validation", "test")
    found = [name for name in names if len(getattr(dataset, f"{name}_labels"))]
    return {name: put_split(dataset, name, mesh) for name in found}


def put_split(dataset: Dataset, name: str, mesh: jax.sharding.Mesh) -> Split:
    """A split whole on every device, or streamed from where it is.

    Args:
      dataset: it is of.
      name: ``"train"``, ``"validation"`` or ``"test"``.
      mesh: the devices.

    Returns:
      A `Split`.
    """
    labels = getattr(dataset, f"{name}_labels")
    split = Split(
        getattr(dataset, f"{name}_images"),
        labels if dataset.multi_label else labels.astype(np.int32),
        dataset.mean.astype(np.float32),
        dataset.std.astype(np.float32),
    )
    return split if is_streamed(split) else sharding.to_devices(split, sharding.replicated(mesh))
