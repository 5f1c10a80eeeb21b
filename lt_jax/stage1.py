"""A finished run as the start of a second stage: found, checked, read; never changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.assembly import make_training, seeds_of
from lt_jax.build import make_model
from lt_jax.checkpoint import read_states
from lt_jax.configuration import first_stage, plain, read_config
from lt_jax.data import Dataset
from lt_jax.data.identity import check_can_move, data_fingerprint, different, only_moved
from lt_jax.errors import InputError
from lt_jax.files import files_in, folder_of, path_between, path_from
from lt_jax.matching import INDIFFERENT, flatten
from lt_jax.objectives import Objective
from lt_jax.run import Config
from lt_jax.state import Network, init_state
from lt_jax.summaries import aggregate


class Stage1(NamedTuple):
    """A finished run.

    Attributes:
      folder: where it is.
      config: it was trained with.
      summary: it ended with.
      rows: which of its replicas have the seeds asked for.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rows: tuple[int, ...]

    def identity(self) -> str:
        """Which weights these are, as 16 hex digits: a hash of the files of the last checkpoint."""
        step = self.folder / workdir.CHECKPOINTS / str(self.summary["training"]["steps"])
        digest = hashlib.sha256()
        for path in files_in(step / "state"):
            digest.update(str(path.relative_to(step)).encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


class Frozen(NamedTuple):
    """The network of stage 1 with its weights, one set for each replica.

    Attributes:
      network: pure functions of the model.
      objective: it was trained with.
      params: its weights, leading axis R, on the host.
      stats: its batch-norm statistics, likewise.
    """

    network: Network
    objective: Objective
    params: Any
    stats: Any


class SecondStage(NamedTuple):
    """What a second stage starts from."""

    config: Config
    folder: Path
    dataset: Dataset
    stage1: Stage1
    frozen: Frozen
    facts: dict[str, Any]

    @property
    def fields(self) -> Config:
        """Those of the second stage."""
        return self.config["retrain"]

    def claim(self) -> dict[str, Any] | None:
        """Makes the folder, and notes in it what is started from; see `workdir.claim`."""
        done = workdir.claim(self.config, self.folder)
        if not (self.folder / workdir.FROM).exists():
            start = {
                "weights": self.stage1.identity(),
                "folder": path_between(self.folder, self.stage1.folder),
            }
            workdir.write_json(self.folder / workdir.FROM, start)
        return done


_DECISIVE = ("data", "model", "objective", "sampling", "augment", "optimizer")


def config_of(folder: str | Path, data: Mapping[str, Any] = MappingProxyType({})) -> ConfigDict:
    """The config with which stage 1 in a folder was trained.

    Args:
      folder: of a run of one stage, or of two stages, whose first is then taken.
      data: fields of ``config.data`` that differ now: ``source`` and ``data_dir``, where its data
        have moved.

    Returns:
      A locked `ConfigDict`, to which `lt_jax.configuration.with_stage` adds a second stage.

    Raises:
      InputError: if there is no run in it.
    """
    config = read_config(_run_folder(folder) / workdir.CONFIG)
    with config.unlocked():  # what is no field, whoever loads the data tells
        config.data.update(data)
    return config


def _run_folder(folder: str | Path) -> Path:
    path = workdir.trained_in(folder_of(folder))
    if not path.is_dir():
        raise InputError(f"stage-1 workdir {path} does not exist; train stage 1 there first")
    if (path / workdir.STAGE1 / workdir.CONFIG).exists():
        path = path / workdir.STAGE1
    if not (path / workdir.CONFIG).exists():
        raise InputError(
            f"stage-1 workdir {path} holds no {workdir.CONFIG}; expected the folder of a run"
        )
    return path


def find_stage1(config: Config, folder: str | Path) -> Stage1:
    """The finished run in a folder, checked against the config of the second stage.

    Args:
      config: whose fields beside ``retrain`` say what stage 1 must have been.
      folder: of a run of one stage, or of two stages, whose first is then taken.

    Returns:
      What was found.

    Raises:
      InputError: if there is no run, it has not finished, or it is another one than the config
        says: other data, classes, network or training.
    """
    path = _run_folder(folder)
    there = plain(read_config(path / workdir.CONFIG))
    if there["retrain"]["method"]:
        first = started_from(path, "")
        found = f", such as {first}, from which it was made" if first else ""
        raise InputError(
            f"stage-1 workdir {path} holds a second stage; expected the folder of a first"
            f" one{found}"
        )
    summary = workdir.required_summary(path, "stage 1")
    _check_same_stage(plain(first_stage(config)), there, path)
    missing = [seed for seed in seeds_of(config) if seed not in summary["seeds"]]
    if missing:
        raise InputError(
            f"stage 1 in {path} has seeds {summary['seeds']}, and config.seed and config.replicas"
            f" ask for {list(seeds_of(config))}; expected some of those trained"
        )
    rows = tuple(summary["seeds"].index(seed) for seed in seeds_of(config))
    return Stage1(path, there, summary, rows)


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields on which the weights of stage 1 depend, in the order of interest."""
    chosen = {name: config.get(name, {}) for name in _DECISIVE}
    chosen["train"] = {k: config.get("train", {}).get(k) for k in ("epochs", "batch_size")}
    flat = dict(flatten(json.loads(json.dumps(chosen))))
    return {k: v for k, v in flat.items() if k not in INDIFFERENT}


def _check_same_stage(here: Config, there: Config, path: Path) -> None:
    own, other = decisive(here), decisive(there)
    for name in [*own, *(k for k in other if k not in own)]:
        before, now = other.get(name), own.get(name)
        if before != now and not only_moved(name, before, now):  # hashes tell what lies there
            what = {"data": "on other data", "model": "with another network"}.get(
                name.split(".")[0], "in another way"
            )
            raise InputError(
                f"stage 1 in {path} was trained {what}: {name} = {before!r}, and this"
                f" config has {now!r}"
            )


def started_from(folder: Path, given: str) -> str | Path:
    """Where the first stage of a second one is, also if both were moved together.

    Args:
      folder: of the second stage.
      given: the folder of the first, as it was named when the second was started.

    Returns:
      What lies where it did as seen from `folder`; else what was given.
    """
    if folder.name == workdir.STAGE2:  # of a run of both
        return folder.parent / workdir.STAGE1
    path = folder / workdir.FROM
    relative = json.loads(path.read_text()).get("folder") if path.exists() else None
    there = path_from(folder, relative) if relative else None
    return there if there and there.is_dir() else given


def check_same_start(folder: Path, stage1: Stage1) -> None:
    """Refuses the folder of a second stage that was started from other weights.

    Raises:
      InputError: naming the folder.
    """
    path = folder / workdir.FROM
    if path.exists() and json.loads(path.read_text())["weights"] != stage1.identity():
        raise InputError(
            f"workdir {folder} belongs to a second stage that was started from other weights than"
            f" those in {stage1.folder}; choose another workdir"
        )


def check_same_images(stage1: Stage1, dataset: Dataset) -> None:
    """Refuses data that are not those of stage 1, though their name and fields are.

    Raises:
      InputError: naming what differs.
    """
    before = data_fingerprint(stage1.summary["data"])
    if stage1.summary["data"]["source"] != dataset.source:
        check_can_move(before, stage1.summary["data"]["source"], f"stage 1 in {stage1.folder}")
    now = data_fingerprint(dataset.info())
    if len(before["class_counts"]) != len(now["class_counts"]):
        raise InputError(
            f"stage 1 in {stage1.folder} has {len(before['class_counts'])} classes, and"
            f" {dataset.source} now has {len(now['class_counts'])}"
        )
    name = different(before, now)
    if name:
        raise InputError(
            f"stage 1 in {stage1.folder} was trained on other images than those now in"
            f" {dataset.source}: {name} was {before[name]} and is {now[name]}"
        )


def load_frozen(stage1: Stage1, dataset: Dataset, which: str) -> Frozen:
    """Reads the weights of stage 1.

    Args:
      stage1: from `find_stage1`.
      dataset: it was trained on.
      which: ``"last"`` or ``"best_on_validation"``.

    Returns:
      `Frozen`.

    Raises:
      InputError: if the checkpoint is gone, damaged or of another network.
    """
    config, summary = stage1.config, stage1.summary
    training = make_training(config, config["train"], dataset)
    objective, optimizer = training.objective, training.optimizer
    network = make_model(config, dataset, objective)
    has_validation = len(dataset.validation_labels) > 0
    state = read_states(
        stage1.folder,
        summary,
        lambda key: init_state(network.init(key), optimizer, objective, keep_best=has_validation),
    )
    weights = state.best if which == "best_on_validation" else state
    rows = np.asarray(stage1.rows)
    params, stats = jax.tree.map(
        lambda leaf: np.asarray(leaf)[rows], (weights.params, weights.stats)
    )
    return Frozen(network, objective, params, stats)


def describe(stage1: Stage1, given: str | Path) -> dict[str, Any]:
    """What the summary of a second stage says about the first.

    Args:
      stage1: from `find_stage1`.
      given: its folder, as it was named.

    Returns:
      Name, folder, objective, training and test scores of the replicas in use.
    """
    summary = stage1.summary
    test = {}
    for which, result in summary["test"].items():
        facts = {
            name: [values[r] for r in stage1.rows]
            for name, values in result.items()
            if isinstance(values, list) and name != "replicas"
        }
        test[which] = {**facts, **aggregate([result["replicas"][r] for r in stage1.rows])}
    return {
        "name": summary["name"],
        "workdir": str(given),
        "training": summary["training"],
        "objective": stage1.config["objective"],
        "test": test,
    }
