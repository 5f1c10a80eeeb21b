"""The fields of a run, with their defaults: every config starts here."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from lt_jax.data import DEFAULTS
from lt_jax.errors import InputError
from lt_jax.longtail import SCHEMES
from lt_jax.objectives import method_spec
from lt_jax.two_stage import (
    NCM_FEATURES,
    augment_fields,
    default_fields,
    optimizer_fields,
    split_name,
    stage_fields,
)


def _typed(value: Any) -> Any:
    """Nested dictionaries as a `ConfigDict`, in which None may become a number later."""
    if isinstance(value, dict):
        return ConfigDict({k: _typed(v) for k, v in value.items()})
    return config_dict.placeholder(float) if value is None else value


def base_config(method: str = "cross_entropy") -> ConfigDict:
    """A complete config: long-tailed digits with the small network.

    Args:
      method: one of `lt_jax.objectives.METHODS`, or several names joined by ``+``; after a ``/``
        a second stage (``cross_entropy/crt``, see `lt_jax.two_stage`); or an alias such as ``crt``
        or ``gcl``, which is both stages of GCL. It fills ``config.objective``, ``config.retrain``
        and ``config.name``.

    Returns:
      A locked `ConfigDict`; assigning to a field that does not exist fails.

    Raises:
      InputError: for an unknown method.
    """
    objective, stage, second_objective = split_name(method)
    config = ConfigDict(
        {
            "name": method.replace("/", "_"),  # names are used for folders too
            "seed": 0,
            "replicas": 1,
            "replica_mode": "auto",
            "data": {**_thawed(DEFAULTS), "imbalance": 50.0, "validation_size": 150},
            "sampling": {"scheme": "instance", "beta": 0.9999, "beta_spread": 1e-5},
            "augment": augment_fields(),
            "model": {
                "name": "small",
                "head": "auto",
                "sigmoid_prior": True,
                "dtype": "float32",
                "pretrained": "",
            },
            "metrics": {"threshold": 0.5, "groups": "thirds"},
            "optimizer": optimizer_fields(),
            "train": {
                "epochs": 20,
                "batch_size": 64,
                "eval_batch_size": 500,
                "eval_every_epochs": 1,
                "checkpoint_every_epochs": 10,
                "keep_checkpoints": 2,
                "log_every_steps": 50,
                "steps_per_call": 0,
                "num_devices": 0,
                "tensorboard": True,
                "progress": True,
                "picture": True,
            },
        }
    )
    config.objective = _typed(method_spec(objective))
    config.retrain = _typed(stage_fields(stage, second_objective))
    return config.lock()


def first_stage(config: Mapping[str, Any]) -> ConfigDict:
    """The config without its second stage.

    Args:
      config: of a run of one or two stages.

    Returns:
      A new, locked `ConfigDict`.
    """
    fields = {**_thawed(config), "retrain": default_fields("")}
    if fields["retrain"] != _thawed(config)["retrain"]:
        fields["name"] = f"{fields['name']}_stage1"
    return _typed(fields).lock()


def with_stage(config: Mapping[str, Any], stage: str) -> ConfigDict:
    """The config with another second stage.

    Args:
      config: of a run.
      stage: one of `lt_jax.two_stage.STAGES`, and after a ``/`` another objective:
        ``"crt/balanced_softmax"``; or ``""`` for none.

    Returns:
      A new, locked `ConfigDict`, whose name ends with that of the stage.

    Raises:
      InputError: for an unknown name.

    Example:
      >>> with_stage(base_config("gcl_stage1"), "ncm").name
      'gcl_stage1_ncm'
    """
    _, name, objective = split_name(f"cross_entropy/{stage}")
    fields = {**_thawed(config), "retrain": stage_fields(name, objective)}
    fields["name"] = f"{fields['name']}_{stage.replace('/', '_')}"
    return _typed(fields).lock()


def read_config(path: Path) -> ConfigDict:
    """The config of a run from its ``config.json``, for starting another one from it.

    Args:
      path: of the file.

    Returns:
      A locked `ConfigDict`; fields that the file lacks, as it was written by an earlier version,
      have their defaults.

    Raises:
      InputError: if the file cannot be read as a config.
    """
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as the config of a run ({error})") from error
    default = _thawed(base_config())
    if not isinstance(given, Mapping) or not all(
        isinstance(given.get(name, {}), Mapping)
        for name, group in default.items()
        if isinstance(group, Mapping)
    ):
        raise InputError(f"{path} is not the config of a run")
    config = _typed(_completed(given, default)).lock()
    check_config(config)
    return config


def _completed(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(default)
    for name, value in given.items():
        known = default.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping) and name != "objective":
            result[name] = _completed(value, known)
        else:
            result[name] = tuple(value) if isinstance(value, list) else value
    return result


def _thawed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, tuples as they are."""
    fields = config.to_dict() if isinstance(config, ConfigDict) else config
    return {k: _thawed(v) if isinstance(v, Mapping) else v for k, v in fields.items()}


def _check_fields(given: Mapping[str, Any], known: Mapping[str, Any], path: str) -> None:
    for name, value in given.items():
        full = f"{path}{name}"
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {path}{close[0]}?" if close else ""
            raise InputError(f"config has no field {full!r}{hint}")
        expected = known[name]
        if isinstance(expected, Mapping):
            if not isinstance(value, Mapping):
                raise InputError(f"config.{full} is {value!r}; expected a group of fields")
            if name != "objective":  # has its own check, in the registry
                _check_fields(value, expected, f"{full}.")
        elif not _fits(value, expected):
            raise InputError(
                f"config.{full} is {value!r}; expected {type(expected).__name__},"
                f" such as {expected!r}"
            )
    missing = [name for name in known if name not in given]
    if missing:
        raise InputError(f"config lacks the field {path}{missing[0]!r}; start from base_config()")


def _fits(value: Any, expected: Any) -> bool:
    if isinstance(expected, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(expected, bool)
    if isinstance(expected, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(expected))


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses a config with unknown, missing or mistyped fields, or numbers out of range.

    Args:
      config: of a run.

    Raises:
      InputError: with the name of the first such field.
    """
    config = plain(config)
    retrain = config.get("retrain", {})
    method = retrain.get("method", "") if isinstance(retrain, Mapping) else ""
    known = {**plain(base_config()), "retrain": plain(default_fields(method))}
    _check_fields(config, known, "")
    _check_lows(config, _LOW)
    _check_choices(config, _CHOICES)
    if method:
        trained = "epochs" in retrain
        _check_lows(config, {f"retrain.{k}": v for k, v in _RETRAIN_LOW.items() if trained})
        _check_choices(
            config,
            {f"retrain.{k}": v for k, v in _RETRAIN_CHOICES.items() if trained or k == "weights"},
        )
        _check_candidates(retrain)


_AUGMENT_LOW = {
    "augment.crop_padding": 0,
    "augment.cutout_size": 0,
    "augment.mixup_alpha": 0,
}
_LOW = {
    "seed": 0,
    "replicas": 1,
    "train.epochs": 1,
    "train.eval_every_epochs": 1,
    "train.checkpoint_every_epochs": 1,
    "train.eval_batch_size": 1,
    "train.keep_checkpoints": 2,  # one alone leaves nothing to fall back to
    "train.log_every_steps": 1,
    "train.steps_per_call": 0,
    "data.validation_size": 0,
    **_AUGMENT_LOW,
}
_RETRAIN_LOW = {"epochs": 1, "batch_size": 1, **_AUGMENT_LOW}
_CHOICES = {
    "replica_mode": ("auto", "vmap", "sequential"),
    "model.head": ("auto", "linear", "cosine"),
    "model.dtype": ("float32", "bfloat16"),
    "metrics.groups": ("thirds", "counts"),
    "sampling.scheme": SCHEMES,
}
_RETRAIN_CHOICES = {"weights": ("last", "best_on_validation"), "sampling.scheme": SCHEMES}


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = value[name]
    return value


def _check_lows(config: Mapping[str, Any], lows: Mapping[str, int]) -> None:
    for path, low in lows.items():
        value = _at(config, path)
        if not value >= low:
            raise InputError(f"config.{path} is {value!r}; expected at least {low}")


def _check_choices(config: Mapping[str, Any], choices: Mapping[str, tuple[str, ...]]) -> None:
    for path, allowed in choices.items():
        value = _at(config, path)
        if value not in allowed:
            raise InputError(f"config.{path} is {value!r}; expected one of {', '.join(allowed)}")


def _check_candidates(retrain: Mapping[str, Any]) -> None:
    """The values among which validation chooses."""
    for name in ("tau", "features"):
        values = retrain.get(name, [None])
        if not values:
            raise InputError(f"config.retrain.{name} is empty; expected at least one value")
        for value in values:
            if name == "features" and value is not None and value not in NCM_FEATURES:
                raise InputError(
                    f"config.retrain.features holds {value!r}; expected some of"
                    f" {', '.join(NCM_FEATURES)}"
                )
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name == "tau" and value is not None and not (number and 0 <= value <= 10):
                raise InputError(f"config.retrain.tau holds {value!r}; expected numbers in [0, 10]")


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as nested dictionaries of JSON values."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: convert(v) for k, v in value.items()}
        return [convert(v) for v in value] if isinstance(value, (tuple, list)) else value

    return convert(config.to_dict() if isinstance(config, ConfigDict) else dict(config))
