"""Many rows of a table in one go: finished ones are skipped, common first stages trained once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.configuration import check_config, first_stage, plain
from lt_jax.data import Dataset, load_dataset
from lt_jax.errors import InputError
from lt_jax.loop import NonFiniteError
from lt_jax.prepare import prepare
from lt_jax.retrain import check_second_stage, retrain
from lt_jax.stage1 import decisive
from lt_jax.train import train
from lt_jax.writers import say

Summary = dict[str, Any]


class Row(NamedTuple):
    """One row of a table.

    Attributes:
      name: of the row, a name for its folder too.
      config: of the run.
      stage1: folder of its first stage; empty for a run of one stage.
      same_as: an earlier row of one stage that is the same run; empty if there is none.
    """

    name: str
    config: ConfigDict
    stage1: str = ""
    same_as: str = ""


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
        value = tuple(value) if isinstance(value, list) else value
        if not _has(config, setting):
            known = [path for path, _ in workdir.flatten(plain(config))]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"config has no field {name!r}{hint}")
        if isinstance(_value(config, name), ConfigDict):
            raise InputError(
                f"setting is {setting!r}, but {name} is a group; expected {name}.FIELD"
            )
        number = isinstance(_value(config, name), float) and isinstance(value, bool)
        try:
            config.update_from_flattened_dict({name: value if not number else text})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"setting is {setting!r}; expected a value such as {_value(config, name)!r}"
            ) from error


def _value(config: ConfigDict, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return value


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
    if "get_config" not in module:
        raise InputError("the config file has no get_config")
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
            first = folders.setdefault(_identity(config), name)
            single.append(Row(name, config, same_as="" if first == name else first))
    rows = single
    for name, config in double:
        own = f"{name}_stage1"
        while own in configs:
            own += "_"
        rows.append(Row(name, config, folders.setdefault(_identity(first_stage(config)), own)))
    return rows


def check(rows: Sequence[Row], folder: Path) -> Dataset:
    """Refuses rows that could not run, before the first of them does.

    Args:
      rows: from `plan`.
      folder: of the sweep.

    Returns:
      The data set of all rows.

    Raises:
      InputError: naming the row, or two that are on different data and so make no table.
    """
    data = plain(rows[0].config)["data"]
    for row in rows:
        if plain(row.config)["data"] != data:
            raise InputError(
                f"rows {rows[0].name!r} and {row.name!r} are on different data; expected one table"
                " for each"
            )
    dataset = load_dataset(data)
    for row in rows:
        try:
            prepare(first_stage(row.config), folder, dataset)
            if row.stage1:
                check_second_stage(row.config, dataset)
        except InputError as error:
            raise InputError(f"row {row.name!r}: {error}") from error
        if not row.same_as:
            workdir.check_config_matches(row.config, folder / row.name)
    return dataset


def _identity(config: ConfigDict) -> str:
    """What two runs have in common that end with the same weights."""
    fields = plain(config)
    return json.dumps([decisive(fields), fields["seed"], fields["replicas"]])


def run_row(row: Row, folder: Path, dataset: Dataset) -> Summary | None:
    """Runs a row, or what is missing of it.

    Args:
      row: from `plan`.
      folder: of the sweep.
      dataset: of the row.

    Returns:
      Its summary; None if a signal stopped it.
    """
    path = folder / row.name
    if not row.stage1:
        return train(row.config, path, dataset=dataset)
    before = folder / row.stage1
    if workdir.finished_summary(before) is None:
        first = first_stage(row.config)
        first.name = row.stage1
        if train(first, before, dataset=dataset) is None:
            return None
    return retrain(row.config, path, before, dataset=dataset)


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
    failed: dict[str, str] = {}
    folder, rows = folder.expanduser(), plan(configs)
    dataset = check(rows, folder)
    for number, row in enumerate(rows, 1):
        say(f"row {number} of {len(rows)}: {row.name}")
        reason = failed.get(row.same_as) or failed.get(row.stage1)
        if reason is None:
            try:
                if row.same_as:
                    summary: Summary | None = {**done[row.same_as], "name": row.name}
                else:
                    summary = run_row(row, folder, dataset)
            except NonFiniteError as error:
                reason = str(error)
                if row.stage1 and workdir.finished_summary(folder / row.stage1) is None:
                    failed[row.stage1] = reason  # rows that share it fail with it
        if reason is not None:
            say(reason)
            failed[row.name] = reason
            continue
        if summary is None:
            raise InterruptedError
        done[row.name] = summary
        after_each([done[name] for name in configs if name in done])
    return {row.name: failed[row.name] for row in rows if row.name in failed}
