"""Features of a finished run in files, part by part, each computed once."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from lt_jax import processes, sharding, workdir
from lt_jax.assembly import seeds_of
from lt_jax.build import check_features
from lt_jax.data import load_dataset
from lt_jax.data.feature_files import shard_name
from lt_jax.data.identity import OF_IMAGES, data_fingerprint, different
from lt_jax.errors import InputError
from lt_jax.features import feature_program, feature_splits
from lt_jax.files import folder_of, make_folder, why_no_folder, write_whole
from lt_jax.prepare import put_splits
from lt_jax.stage1 import Frozen, check_same_images, config_of, find_stage1, load_frozen
from lt_jax.steps import Split
from lt_jax.writers import say

FACTS = "features.json"


def extract_features(
    from_workdir: str | Path,
    out: str | Path,
    *,
    weights: str = "last",
    shard_size: int = 10_000,
    settings: dict[str, Any] | None = None,
) -> list[Path]:
    """Writes the features of all splits of a run, those of each seed into a folder of its own.

    ``OUT/seed_S/SPLIT-00000-of-00003.npz`` has ``features`` float32 ``[n, D]`` and ``labels``
    ``[n]``, and ``features:OUT/seed_S`` is a data source. Batches are shared by the devices.
    Start it again to go on where it was stopped.

    Args:
      from_workdir: of a finished run of one stage, or of two, whose first is taken.
      out: where to; made if need be.
      weights: ``"last"`` or ``"best_on_validation"``.
      shard_size: examples in a file.
      settings: fields of ``config.data`` that differ here, such as ``data_dir``.

    Returns:
      The folders, one for each seed.

    Raises:
      InputError: if the run cannot be read, or `out` has features of another one.
      StorageError: if there is no room for a file; those written before stay.
    """
    processes.check_alone("the extraction of features")
    if shard_size < 1:
        raise InputError(f"shard_size is {shard_size!r}; expected at least 1")
    if weights not in ("last", "best_on_validation"):
        raise InputError(f"weights is {weights!r}; expected 'last' or 'best_on_validation'")
    config = config_of(from_workdir, settings or {})
    stage1 = find_stage1(config, from_workdir)
    dataset = load_dataset(config["data"])
    check_same_images(stage1, dataset)
    if weights == "best_on_validation" and not len(dataset.validation_labels):
        raise InputError("weights is 'best_on_validation', but the run has no validation split")
    facts = {
        "weights": stage1.identity(),
        "which": weights,
        "seeds": list(seeds_of(config)),
        "shard_size": shard_size,
        **data_fingerprint(dataset.info()),
    }
    facts = json.loads(json.dumps(facts))
    frozen = load_frozen(stage1, dataset, weights)
    check_features(config, frozen.network, dataset)
    path = folder_of(out)
    _claim(path, facts)
    mesh = sharding.make_mesh(config["train"]["num_devices"])
    folders = [path / f"seed_{seed}" for seed in seeds_of(config)]
    for folder in folders:
        make_folder(folder)
    for name, split in put_splits(dataset, mesh).items():
        _write_split(frozen, name, split, folders, shard_size, mesh, config["train"])
    return folders


def _claim(path: Path, facts: dict[str, Any]) -> None:
    """Makes the folder, or refuses one with the features of another run."""
    file = path / FACTS
    if file.exists():
        try:
            there = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error}); choose another folder") from error
        # What an earlier version did not note cannot be compared.
        others = (k for k in facts if k in there and k not in OF_IMAGES)
        name = next((k for k in others if there[k] != facts[k]), "") or different(there, facts)
        if name:
            raise InputError(
                f"{path} has features with {name} = {there[name]!r}, and these would have"
                f" {facts[name]!r}; choose another folder"
            )
        return
    try:
        make_folder(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written to ({why_no_folder(path, error)})") from error
    workdir.write_json(file, facts)


def _write_split(
    frozen: Frozen,
    name: str,
    split: Split,
    folders: list[Path],
    shard_size: int,
    mesh: Mesh,
    options: Any,
) -> None:
    """The parts of a split that are missing."""
    program = feature_program(frozen, mesh)
    count = len(split.labels)
    shards = math.ceil(count / shard_size)
    done = 0
    for shard in range(shards):
        paths = [folder / shard_name(name, shard, shards) for folder in folders]
        if all(path.exists() for path in paths):
            done += 1
            continue
        rows = np.arange(shard * shard_size, min((shard + 1) * shard_size, count))
        part = split._replace(images=split.images[rows], labels=split.labels[rows])
        found = feature_splits(frozen, {name: part}, mesh, options, program)[name]
        features, labels = np.asarray(found.images), np.asarray(found.labels)
        for path, values in zip(paths, features, strict=True):
            write_whole(path, partial(np.savez, features=values, labels=labels))
        say(f"{name}: part {shard + 1} of {shards} ({rows[-1] + 1} of {count} examples).")
    if done:
        say(f"{name}: {done} of {shards} parts were there already.")
