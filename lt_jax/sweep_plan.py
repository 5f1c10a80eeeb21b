"""What the rows of a table are trained from: which share a run, and which runs are there already.

A run of one stage that lies in the folder of a table, a row or a first stage, is used by every row
that needs the same one, whichever command began it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.config_checks import value_at
from lt_jax.configuration import check_config, first_stage, plain, read_config
from lt_jax.data.identity import PLACES, without_place
from lt_jax.errors import InputError
from lt_jax.matching import INDIFFERENT
from lt_jax.stage1 import check_same_start, decisive, find_stage1, started_from
from lt_jax.writers import say_once

Summary = dict[str, Any]


class Row(NamedTuple):
    """One row of a table.

    Attributes:
      name: of the row, a name for its folder too.
      config: of the run.
      stage1: folder of its first stage; empty for a run of one stage.
      same_as: folder of a run of one stage that is the same run, an earlier row's or one that was
        there before; empty if there is none.
    """

    name: str
    config: ConfigDict
    stage1: str = ""
    same_as: str = ""


class Begun(NamedTuple):
    """A run of one stage in the folder of a table.

    Attributes:
      identity: from `identity`.
      finished: whether it has.
      usable: whether its weights are there or can be: it can be gone on with.
    """

    identity: str
    finished: bool
    usable: bool


def identity(config: ConfigDict) -> str:
    """What two runs have in common that end with the same weights and scores.

    Where data lie is left out: whether they are the same, hashes tell.

    Args:
      config: of a run of one stage.
    """
    fields = plain(config)
    scored = [fields["metrics"], fields["train"]["eval_every_epochs"]]
    chosen = {name: without_place(name, value) for name, value in decisive(fields).items()}
    return json.dumps([chosen, scored, fields["seed"], fields["replicas"]])


def plan(configs: Mapping[str, ConfigDict], folder: Path | None = None) -> list[Row]:
    """Rows in the order in which they can be run, and where their first stages are.

    A first stage that is a row itself, or lies in the folder, is that run; the others get a folder
    of their own, once for all rows that share it.

    Args:
      configs: by row.
      folder: of the table, with the runs that there are; None if there are none.

    Returns:
      Rows of one stage, then those of two.

    Raises:
      InputError: for a config that cannot be run.
    """
    there = begun_runs(folder) if folder else {}
    places: dict[str, str] = {}  # by identity
    gone: dict[str, str] = {}  # finished ones without their weights

    def note(which: str, place: str) -> None:
        useless = place in there and not there[place].usable
        (gone if useless else places).setdefault(which, place)

    rows, double = [], []
    for name, config in configs.items():
        check_config(config)
        if config.retrain.method:
            double.append((name, config))
            continue
        which = identity(config)
        own = name if name in there else ""
        place = own or places.get(which) or _found(there, which) or name
        note(which, place)
        rows.append(Row(name, config, same_as="" if place == name else place))
    for name, config in double:
        which = identity(first_stage(config))
        own = f"{name}_stage1"
        while own in configs:
            own += "_"
        place = _begun_from(folder / name, own, there, which) if folder else ""
        place = place or places.get(which) or _found(there, which) or gone.get(which) or own
        note(which, place)
        rows.append(Row(name, config, place))
        if place == own and own not in there and folder and not _finished(folder / name):
            _tell_useless(name, own, there, which)
    return rows


def _tell_useless(name: str, own: str, there: Mapping[str, Begun], which: str) -> None:
    same = [other for other, run in there.items() if run.finished and run.identity == which]
    if same:
        say_once(
            f"the weights of {', '.join(same)} are gone, from which {name} could start: its first"
            f" stage is trained anew, in {own}."
        )


def begun_runs(folder: Path) -> dict[str, Begun]:
    """Runs of one stage in the folder of a table, the finished ones first.

    Args:
      folder: of the table, which need not exist.

    Returns:
      By folder.
    """
    paths = sorted(folder.iterdir(), key=str) if folder.is_dir() else []
    found = {path.name: run for path in paths if (run := _begun(path)) is not None}
    return dict(sorted(found.items(), key=lambda item: not item[1].finished))


def _begun(path: Path) -> Begun | None:
    signs = (workdir.SUMMARY, workdir.METRICS, workdir.CHECKPOINTS)
    if not (path / workdir.CONFIG).exists() or not any((path / sign).exists() for sign in signs):
        return None
    try:
        config, finished = read_config(path / workdir.CONFIG), _finished(path)
    except InputError:  # of something else, such as values that were compared
        return None
    if config.retrain.method:
        return None
    # A copy under another name is somebody's own: it is read at most.
    usable = _has_weights(path) if finished else config.name == path.name
    return Begun(identity(config), finished, usable)


def _finished(path: Path) -> bool:
    return workdir.finished_summary(path) is not None


def _has_weights(path: Path) -> bool:
    """Whether the last checkpoint of a finished run is there."""
    trained = workdir.trained_in(path)
    steps = (workdir.finished_summary(trained) or {}).get("training", {}).get("steps")
    return (trained / workdir.CHECKPOINTS / str(steps)).is_dir()


def _found(there: Mapping[str, Begun], which: str) -> str:
    names = (name for name, run in there.items() if run.identity == which and run.usable)
    return next(names, "")


def _begun_from(path: Path, own: str, there: Mapping[str, Begun], which: str) -> str:
    """The first stage with which a row has begun: of its second, or a folder of its own."""
    start = started_from(path, "")
    begun = [start.name] if not isinstance(start, str) and start.parent == path.parent else []
    usable = [own] if own in there and there[own].usable else []
    same = (name for name in begun + usable if name in there and there[name].identity == which)
    return next(same, "")


def config_of_stage(config: ConfigDict, path: Path) -> ConfigDict:
    """The config of a run of one stage that a row needs: that with which it was begun, if it was.

    Args:
      config: of the row.
      path: folder of the run, which need not exist.

    Returns:
      With the fields of the row that change nothing, such as where the data are.
    """
    first = first_stage(config)
    first.name = path.name
    if not (path / workdir.CONFIG).exists():
        return first
    there = read_config(path / workdir.CONFIG)
    if identity(there) != identity(first):
        return first  # which is refused there
    own = {*INDIFFERENT, *(f"data.{place}" for place in PLACES)}
    there.update_from_flattened_dict({k: value_at(first, k) for k in own})
    return there


def check_first_stages(rows: Iterable[Row], folder: Path) -> dict[str, Summary]:
    """Refuses first stages from which rows could not start, before anything is trained.

    Args:
      rows: from `plan`.
      folder: of the table.

    Returns:
      Summaries of those runs of one stage that have finished and are needed, by folder.

    Raises:
      InputError: naming the row, and the folder to be removed where weights are gone.
    """
    found: dict[str, Summary] = {}
    for row in rows:
        place = row.stage1 or row.same_as
        if not place or _finished(folder / row.name):
            continue
        summary = workdir.finished_summary(folder / place)
        if summary is not None:
            found[place] = summary
        if row.stage1:
            _check_start(row, folder)
    return found


def _check_start(row: Row, folder: Path) -> None:
    path, before = folder / row.name, folder / row.stage1
    begun = (path / workdir.FROM).exists()
    both = f" and {path} to train both anew" if begun else " to train it anew"
    if not _finished(before):
        if begun:
            raise InputError(
                f"row {row.name!r} was begun from a first stage that is no more in {folder};"
                f" remove the folder {path} to begin its second stage anew"
            )
        workdir.check_config_matches(config_of_stage(row.config, before), before)
        return
    stage1 = find_stage1(row.config, before)
    if not _has_weights(before):
        raise InputError(
            f"row {row.name!r} starts from the weights in {stage1.folder}, whose last checkpoint"
            f" is gone; remove the folder {stage1.folder}{both}"
        )
    check_same_start(path, stage1)
