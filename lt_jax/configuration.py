"""The fields of a run, with their defaults: every config starts here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

from lt_jax.config_checks import check_fields, check_second_stage_values, check_values
from lt_jax.data import DEFAULTS
from lt_jax.errors import InputError
from lt_jax.objectives import method_spec
from lt_jax.objectives.registry import completed_spec
from lt_jax.two_stage import (
    augment_fields,
    default_fields,
    optimizer_fields,
    sampling_fields,
    split_name,
    stage_fields,
    suit,
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
            "sampling": sampling_fields("instance"),
            "augment": augment_fields(),
            "model": {
                "name": "small",
                "head": "auto",
                "sigmoid_prior": True,
                "dtype": "float32",
                "fused": False,
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
                "fsdp": False,
                "tensorboard": True,
                "progress": True,
                "picture": True,
            },
        }
    )
    config.objective = _typed(method_spec(objective))
    config.retrain = _typed(stage_fields(stage, second_objective, first=plain(config.objective)))
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
    """The config with another second stage, whose defaults suit it: see `lt_jax.two_stage.suit`.

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
    fields = _thawed(config)
    fields["retrain"] = stage_fields(name, objective, first=fields["objective"])
    fields["name"] = f"{fields['name']}_{stage.replace('/', '_')}"
    suit(fields["retrain"], fields)
    return _typed(fields).lock()


def with_stage_of(config: Mapping[str, Any], other: Mapping[str, Any], name: str) -> ConfigDict:
    """The config with the second stage of another one.

    Args:
      config: of a run.
      other: with a second stage, such as that of a config file, whose recipe suits the data.
      name: of the second stage, at the end of that of the run.

    Returns:
      A new, locked `ConfigDict`.

    Example:
      >>> with_stage_of(base_config("cb_focal"), base_config("crt"), "crt").name
      'cb_focal_crt'
    """
    fields = {**_thawed(config), "retrain": _thawed(other)["retrain"]}
    fields["name"] = f"{fields['name']}_{name}"
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
    given = read_fields(path)
    if "tune" in given:
        raise InputError(
            f"{path.parent} compared values on validation; expected the folder of a run, such as"
            " one with the values chosen there"
        )
    default = all_defaults(given)
    if not all(
        isinstance(given.get(name, {}), Mapping)
        for name, group in default.items()
        if isinstance(group, Mapping)
    ):
        raise InputError(f"{path} is not the config of a run")
    config = _typed(_completed(given, default)).lock()
    check_config(config)
    return config


def read_fields(path: Path) -> dict[str, Any]:
    """The fields in a ``config.json``, those of losses complete: see `with_later_options`.

    Args:
      path: of the file.

    Returns:
      Nested dictionaries.

    Raises:
      InputError: if the file cannot be read as a config.
    """
    try:
        return with_later_options(json.loads(path.read_text()))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read as the config of a run ({error})") from error


def all_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """All fields with their defaults, also those of the second stage that a config has.

    Args:
      config: of a run; only ``retrain.method`` matters.

    Returns:
      New nested dictionaries.

    Raises:
      InputError: for an unknown second stage.
    """
    retrain = _thawed(config).get("retrain", {})
    method = retrain.get("method", "") if isinstance(retrain, Mapping) else ""
    return {**_thawed(base_config()), "retrain": default_fields(method)}


def with_later_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an earlier version, with options that came later at their defaults.

    Args:
      config: as it is in a file.

    Returns:
      A new dictionary.

    Example:
      >>> old = {"objective": {"base": "softmax", "transforms": {"scale_logits": {"scale": 9.0}}}}
      >>> with_later_options(old)["objective"]["transforms"]
      {'scale_logits': {'scale': 9.0, 'start_epoch': 0.0}}
    """
    result = {**config}
    if isinstance(config.get("objective"), Mapping):
        result["objective"] = completed_spec(config["objective"])
    if isinstance(config.get("retrain"), Mapping):
        result["retrain"] = with_later_options(config["retrain"])
    return result


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


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses a config with unknown, missing or mistyped fields, or numbers out of range.

    Args:
      config: of a run.

    Raises:
      InputError: with the name of the first such field.
    """
    config = plain(config)
    known = plain(all_defaults(config))
    check_fields(config, known)
    check_values(config)
    if known["retrain"]["method"]:
        check_second_stage_values(config)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as nested dictionaries of JSON values."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: convert(v) for k, v in value.items()}
        return [convert(v) for v in value] if isinstance(value, (tuple, list)) else value

    return convert(config.to_dict() if isinstance(config, ConfigDict) else dict(config))
