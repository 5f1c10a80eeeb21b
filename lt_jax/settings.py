"""Fields of configs set from text, and the configs of a table."""

from __future__ import annotations

import difflib
import inspect
import itertools
import json
import re
import runpy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lt_jax.config_checks import value_at
from lt_jax.configuration import base_config, plain
from lt_jax.errors import InputError
from lt_jax.matching import flatten
from lt_jax.two_stage import lacking_transform


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
        if not has_field(config, name):
            raise InputError(
                lacking(config, name) or f"config has no field {name!r}{_hint(name, [config])}"
            )
        before = value_at(config, name)
        if isinstance(before, ConfigDict):
            raise InputError(
                f"setting is {setting!r}, but {name} is a group; expected {name}.FIELD"
            )
        number = isinstance(before, float) and isinstance(value, bool)
        try:
            config.update_from_flattened_dict({name: value if not number else text})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"setting is {setting!r}; expected a value such as {before!r}"
            ) from error


def _hint(name: str, configs: Iterable[ConfigDict]) -> str:
    """The field of some configs that may have been meant."""
    known = [path for config in configs for path, _ in flatten(plain(config))]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def lacking(config: ConfigDict, field: str, method: str = "cross_entropy") -> str:
    """What to say of an option of a transform, or of a second stage, that is not in the config.

    Args:
      config: the config.
      field: dotted name of the option.
      method: see `lt_jax.two_stage.lacking_transform`.

    Returns:
      A sentence; empty if the transform is there, or the field is of anything else.
    """
    if field.startswith("retrain.") and not config.retrain.method:
        return f"config.{field} is of a second stage, and the method has none; expected such as gcl"
    return "" if has_field(config, field.rpartition(".")[0]) else lacking_transform(field, method)


# Of the optimizer; what else it has changes the program.
TUNED_OF_OPTIMIZER = ("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.momentum")


class Grid(NamedTuple):
    """Values to be compared, of one field or two.

    Attributes:
      fields: dotted names, of the objective of one stage.
      axes: the values of each field.
      configs: one for each combination of values, the last field varying fastest.
    """

    fields: tuple[str, ...]
    axes: tuple[tuple[float, ...], ...]
    configs: tuple[ConfigDict, ...]

    @property
    def points(self) -> list[tuple[float, ...]]:
        """The values of each config."""
        return list(itertools.product(*self.axes))

    @property
    def second_stage(self) -> bool:
        """Whether they are fields of the second stage."""
        return self.fields[0].startswith("retrain.")


def candidates_of(config: ConfigDict, over: Sequence[str]) -> Grid:
    """Copies of a config for every combination of values of options.

    Args:
      config: of a run.
      over: one or two of such as ``"objective.transforms.focal.gamma=0,1,2"``, numbers of an
        objective or `TUNED_OF_OPTIMIZER`.

    Returns:
      A `Grid`.

    Raises:
      InputError: for another number of them, a text of another form, a field that is none of these
        or not there, values that are not two or more different numbers.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> grid = candidates_of(base_config("focal"), ["objective.transforms.focal.gamma=0,2"])
      >>> [c.objective.transforms.focal.gamma for c in grid.configs], grid.points
      ([0.0, 2.0], [(0,), (2,)])
    """
    if not 1 <= len(over) <= 2:
        raise InputError(f"tune was given {len(over)} fields; expected one or two")
    axes = dict(_axis(config, text) for text in over)
    stages = {field.startswith("retrain.") for field in axes}
    if len(axes) < len(over) or len(stages) > 1:
        raise InputError(f"tune is {list(over)!r}; expected two fields of the same stage")
    configs = []
    for values in itertools.product(*axes.values()):
        copy = config.copy_and_resolve_references()
        override(copy, [f"{f}={json.dumps(v)}" for f, v in zip(axes, values, strict=True)])
        configs.append(copy)
    return Grid(tuple(axes), tuple(axes.values()), tuple(configs))


def _axis(config: ConfigDict, text: str) -> tuple[str, tuple[float, ...]]:
    """A field and the values it is to have."""
    field, _, listed = text.partition("=")
    of_stage = field.removeprefix("retrain.")
    if not of_stage.startswith("objective.") and of_stage not in TUNED_OF_OPTIMIZER:
        raise InputError(
            f"tune is {text!r}; expected numbers of an objective, such as"
            " 'objective.transforms.focal.gamma=0,1,2', or one of"
            f" {', '.join(TUNED_OF_OPTIMIZER)}; other fields are compared by"
            " launch/sweep.py --over"
        )
    if not has_field(config, field):
        raise InputError(f"config has no field {field!r}")
    try:
        values = json.loads(f"[{listed}]")
    except ValueError:
        values = []
    numbers = [isinstance(v, (int, float)) and not isinstance(v, bool) for v in values]
    if not all(numbers) or len({float(v) for v in values}) < max(len(values), 2):
        raise InputError(f"tune is {text!r}; expected two or more different numbers after the =")
    return field, tuple(values)


def variations(config: ConfigDict, over: Sequence[str]) -> list[ConfigDict]:
    """Copies of a config for every combination of the values of some fields.

    Args:
      config: of a row.
      over: such as ``"optimizer.learning_rate=0.1,0.2"``; the values are read as JSON, else taken
        as texts. A field that the config does not have is passed over.

    Returns:
      Configs whose names tell the values; the config itself if it has none of the fields.

    Raises:
      InputError: for a text of another form, or a value of another type.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> [c.name for c in variations(base_config("plm"), ["train.epochs=10,20", "no.field=1,2"])]
      ['plm_epochs_10', 'plm_epochs_20']
    """
    if not over:
        return [config]
    name, _, text = over[0].partition("=")
    if not name or not text:
        raise InputError(f"--over is {over[0]!r}; expected such as 'train.epochs=10,20'")
    if not has_field(config, name):
        return variations(config, over[1:])
    varied = []
    for value in _values(text):
        copy = config.copy_and_resolve_references()
        override(copy, [f"{name}={value}"])
        copy.name += "_" + _as_name(f"{name.rpartition('.')[2]}_{value}")
        varied += variations(copy, over[1:])
    return varied


def _as_name(text: str) -> str:
    """The text as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_")


def _values(text: str) -> list[str]:
    """Values between commas; commas within brackets are part of a value."""
    try:
        return [json.dumps(value) for value in json.loads(f"[{text}]")]
    except ValueError:
        return text.split(",")


def load_configs(
    module: Mapping[str, Any],
    sweep: str | None,
    rows: Sequence[str],
    settings: Sequence[str],
    seeds: int,
    over: Sequence[str] = (),
) -> dict[str, ConfigDict]:
    """The configs of a table.

    Args:
      module: names of a config file: ``get_config``, and ``get_sweep`` if `sweep` is given.
      sweep: argument for ``get_sweep``, which gives the rows.
      rows: arguments for ``get_config`` instead.
      settings: for `override`, for every row; of ``retrain`` and of transforms for those that have
        the field.
      seeds: replicas of each row.
      over: for `variations`, for every row that has the field.

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
    for text in (*settings, *over):
        if text.partition("=")[0] == "replicas":
            raise InputError(f"setting {text!r} is how many seeds each row has; expected --seeds")
    configs: dict[str, ConfigDict] = {}
    unused = {*settings, *over}
    for row in module["get_sweep"](sweep) if sweep else rows:
        config = module["get_config"](row)
        fitting = [
            s
            for s in settings
            if not s.startswith(("retrain.", "objective.transforms."))
            or has_field(config, s.partition("=")[0])
        ]
        override(config, fitting)
        varying = [text for text in over if has_field(config, text.partition("=")[0])]
        unused -= {*fitting, *varying}
        config.replicas = seeds
        for varied in variations(config, over):
            if varied.name in configs:
                raise InputError(f"two rows are called {varied.name!r}; expected different names")
            configs[varied.name] = varied
    if unused:
        name = min(unused)
        hint = _hint(name.partition("=")[0], configs.values())
        raise InputError(f"setting {name!r} is of a field that none of the rows has{hint}")
    return configs


def with_string(name: str) -> str:
    """A config's name with its string: where none is given the default, if that ends with a method.

    Args:
      name: ``FILE`` or ``FILE:STRING``.

    Returns:
      ``FILE:STRING``; ``FILE`` where the string is no method, such as a folder of features.

    Example:
      >>> with_string("configs/any.py:cifar10,100,gcl")
      'configs/any.py:cifar10,100,gcl'
    """
    if ":" in name:
        return name
    (string, *_) = inspect.signature(runpy.run_path(name)["get_config"]).parameters.values()
    try:
        base_config(string.default.rpartition(",")[2])
    except InputError:
        return name
    return f"{name}:{string.default}"


def has_field(config: ConfigDict, name: str) -> bool:
    """Whether a config has the field; methods and second stages differ in theirs."""
    fields: Any = config
    for part in name.split("."):
        if not isinstance(fields, ConfigDict) or part not in fields:
            return False
        fields = fields[part]
    return True
