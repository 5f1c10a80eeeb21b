"""The fields of a run, with their defaults: every config starts here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from lt_jax.errors import InputError
from lt_jax.objectives import method_spec


def _objective(method: str) -> ConfigDict:
    def typed(value: Any) -> Any:
        if isinstance(value, dict):
            return ConfigDict({k: typed(v) for k, v in value.items()})
        # None may become a number on the command line.
        return config_dict.placeholder(float) if value is None else value

    return typed(method_spec(method))


def base_config(method: str = "cross_entropy") -> ConfigDict:
    """A complete config: long-tailed digits with the small network.

    Args:
      method: one of `lt_jax.objectives.METHODS`, or several names joined by ``+``; it fills
        ``config.objective`` and ``config.name``.

    Returns:
      A locked `ConfigDict`; assigning to a field that does not exist fails.

    Raises:
      InputError: for an unknown method.
    """
    config = ConfigDict(
        {
            "name": method,
            "seed": 0,
            "replicas": 1,
            "replica_mode": "auto",
            "data": {
                "source": "digits",
                "data_dir": "",
                "download": False,
                "num_classes": 0,
                "test_split": "test",
                "imbalance": 50.0,
                "imbalance_kind": "exponential",
                "max_count": 0,
                "class_counts": (),
                "split_seed": 0,
                "validation_size": 150,
            },
            "augment": {"crop_padding": 0, "flip": False, "cutout_size": 0, "mixup_alpha": 0.0},
            "model": {
                "name": "small",
                "head": "auto",
                "sigmoid_prior": True,
                "dtype": "float32",
            },
            "optimizer": {
                "name": "sgd",
                "learning_rate": 0.1,
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 2e-4,
                "decay": "all_but_head_bias",
                "schedule": "cosine",
                "warmup_epochs": 0.0,
                "milestones": (),
                "factors": (),
            },
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
    config.objective = _objective(method)
    return config.lock()


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
            if full != "objective":  # has its own check, in the registry
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
    _check_fields(config, plain(base_config()), "")
    for path, low in (
        ("seed", 0),
        ("replicas", 1),
        ("train.epochs", 1),
        ("train.eval_every_epochs", 1),
        ("train.checkpoint_every_epochs", 1),
        ("train.eval_batch_size", 1),
        ("train.keep_checkpoints", 2),  # one alone leaves nothing to fall back to
        ("train.log_every_steps", 1),
        ("train.steps_per_call", 0),
        ("data.validation_size", 0),
        ("augment.crop_padding", 0),
        ("augment.cutout_size", 0),
        ("augment.mixup_alpha", 0),
    ):
        value: Any = config
        for name in path.split("."):
            value = value[name]
        if not value >= low:
            raise InputError(f"config.{path} is {value!r}; expected at least {low}")
    for path, value, allowed in (
        ("replica_mode", config["replica_mode"], ("auto", "vmap", "sequential")),
        ("model.head", config["model"]["head"], ("auto", "linear", "cosine")),
        ("model.dtype", config["model"]["dtype"], ("float32", "bfloat16")),
    ):
        if value not in allowed:
            raise InputError(f"config.{path} is {value!r}; expected one of {', '.join(allowed)}")


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as nested dictionaries of JSON values."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: convert(v) for k, v in value.items()}
        return [convert(v) for v in value] if isinstance(value, (tuple, list)) else value

    return convert(config.to_dict() if isinstance(config, ConfigDict) else dict(config))
