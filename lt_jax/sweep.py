"""Many rows of a table in one go: finished ones are skipped, common first stages trained once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.configuration import check_config, first_stage, plain
from lt_jax.data import Dataset, load_dataset
from lt_jax.errors import InputError
from lt_jax.loop import NonFiniteError
from lt_jax.retrain import retrain
from lt_jax.stage1 import decisive
from lt_jax.train import train
from lt_jax.writers import say

Summary = dict[str, Any]


class Row(NamedTuple):
    """One row of a table.

    Attributes:
      name: of the row, a name for its folder too.
      config: of the run.
      stage1: folder name of its first stage; empty for a run of one stage.
    """

    name: str
    config: ConfigDict
    stage1: str


def override(config: ConfigDict, settings: Sequence[str]) -> None:
    """Sets fields of a config from text.

    Args:
      config: changed in place.
      settings: such as ``"train.epochs=2"``; the value is read as JSON, else taken as text.

    Raises:
      InputError: for a setting of another form, an unknown field or a value of another type.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> config = base_config()
      >>> override(config, ["train.epochs=2", "model.name=resnet20"])
      >>> config.train.epochs, config.model.name
      (2, 'resnet20')
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"setting is {setting!r}; expected such as 'train.epochs=2'")
        try:
            value = json.loads(text)
        except ValueError:
            value = {"True": True, "False": False}.get(text, text)
        try:
            value = tuple(value) if isinstance(value, list) else value
            config.update_from_flattened_dict({name: value})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"setting {setting!r} does not fit the config ({error})") from error


def load_configs(
    module: Mapping[str, Any],
    sweep: str | None,
    rows: Sequence[str],
    settings: Sequence[str],
    seeds: int,
) -> dict[str, ConfigDict]:
    """The configs of a table.

    Args:
      module: names of a config file: ``get_config``, and ``get_sweep`` if `sweep` is given.
      sweep: argument for ``get_sweep``, which gives the rows.
      rows: arguments for ``get_config`` instead.
      settings: for `override`, for every row; ``retrain...`` for those that have the field.
      seeds: replicas of each row.

    Returns:
      Configs by name, in order.

    Raises:
      InputError: if there are no rows, two of one name, or something cannot be used.
    """
    if bool(sweep) == bool(rows):
        raise InputError("expected either --sweep or --row, such as --row=cross_entropy --row=gcl")
    if sweep and "get_sweep" not in module:
        raise InputError("the config file has no get_sweep; name the rows by --row")
    configs: dict[str, ConfigDict] = {}
    unused = set(settings)
    for row in module["get_sweep"](sweep) if sweep else rows:
        config = module["get_config"](row)
        fitting = [s for s in settings if not s.startswith("retrain.") or _has(config, s)]
        override(config, fitting)
        unused -= set(fitting)
        config.replicas = seeds
        if config.name in configs:
            raise InputError(f"two rows are called {config.name!r}; expected different names")
        configs[config.name] = config
    if unused:
        raise InputError(f"setting {min(unused)!r} is of a field that none of the rows has")
    return configs


def _has(config: ConfigDict, setting: str) -> bool:
    """Whether a config has the field of a setting; second stages differ in theirs."""
    fields: Any = config
    for name in setting.partition("=")[0].split("."):
        if not isinstance(fields, ConfigDict) or name not in fields:
            return False
        fields = fields[name]
    return True


def plan(configs: Mapping[str, ConfigDict]) -> list[Row]:
    """Rows in the order in which they can be run, and where their first stages are.

    A first stage that is a row itself is that row's run; the others get a folder of their own,
    once for all rows that share it.

    Args:
      configs: by row.

    Returns:
      Rows of one stage, then those of two.

    Raises:
      InputError: for a config that cannot be run.
    """
    folders: dict[str, str] = {}
    single, double = [], []
    for name, config in configs.items():
        check_config(config)
        if config.retrain.method:
            double.append((name, config))
        else:
            folders.setdefault(_identity(config), name)
            single.append(Row(name, config, ""))
    rows = single
    for name, config in double:
        stage1 = folders.setdefault(_identity(first_stage(config)), f"{name}_stage1")
        rows.append(Row(name, config, stage1))
    return rows


def _identity(config: ConfigDict) -> str:
    """What two runs have in common that end with the same weights."""
    fields = plain(config)
    return json.dumps([decisive(fields), fields["seed"], fields["replicas"]])


def run_row(row: Row, folder: Path, load: Callable[[ConfigDict], Dataset]) -> Summary | None:
    """Runs a row, or what is missing of it.

    Args:
      row: from `plan`.
      folder: of the sweep.
      load: gives the data set of a config.

    Returns:
      Its summary; None if a signal stopped it.
    """
    path = folder / row.name
    if not row.stage1:
        done = workdir.finished_summary(path) is not None
        return train(row.config, path, dataset=None if done else load(row.config))
    before = folder / row.stage1
    if workdir.finished_summary(before) is None:
        first = first_stage(row.config)
        first.name = row.stage1
        if train(first, before, dataset=load(row.config)) is None:
            return None
    done = workdir.finished_summary(path) is not None
    return retrain(row.config, path, before, dataset=None if done else load(row.config))


class _Loader:
    """Keeps the last data set: the rows of a table mostly share one, and decoding takes time."""

    def __init__(self) -> None:
        self._key = ""
        self._dataset: Dataset | None = None

    def __call__(self, config: ConfigDict) -> Dataset:
        key = json.dumps(plain(config)["data"])
        if self._dataset is None or key != self._key:
            self._key, self._dataset = key, load_dataset(config["data"])
        return self._dataset


def run_sweep(configs: Mapping[str, ConfigDict], folder: Path, after_each: Any) -> dict[str, str]:
    """Runs all rows.

    Args:
      configs: by row, in the order of the table.
      folder: one folder for each row is made in it.
      after_each: called with the summaries so far, by row in the order of the table.

    Returns:
      Rows that failed, with the reason: their loss was not finite.

    Raises:
      InputError: for configs or folders that cannot be used.
      InterruptedError: if a signal stopped a run; it goes on when called again.
    """
    done: dict[str, Any] = {}
    failed = {}
    rows, load = plan(configs), _Loader()
    for number, row in enumerate(rows, 1):
        say(f"row {number} of {len(rows)}: {row.name}")
        try:
            summary = run_row(row, folder, load)
        except NonFiniteError as error:
            say(str(error))
            failed[row.name] = str(error)
            continue
        if summary is None:
            raise InterruptedError
        done[row.name] = summary
        after_each([done[name] for name in configs if name in done])
    return failed
