"""Whether the values of a config can be used: their names, types and ranges."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from lt_jax.errors import InputError
from lt_jax.longtail import SCHEMES
from lt_jax.longtail.vectors import check_beta
from lt_jax.two_stage import DIVIDED, NCM_FEATURES

_AUGMENT_LOW = {
    "augment.random_resized_crop": 0,
    "augment.crop_padding": 0,
    "augment.color_jitter": 0,
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
    "data.image_size": 0,
    "data.workers": 0,
    **_AUGMENT_LOW,
}
_RETRAIN_LOW = {"epochs": 1, "batch_size": 1, **_AUGMENT_LOW}
_HIGH = {"augment.random_resized_crop": 1}
_CHOICES = {
    "data.resize": ("stretch", "crop"),
    "data.on_corrupt": ("refuse", "skip"),
    "replica_mode": ("auto", "vmap", "sequential"),
    "model.head": ("auto", "linear", "cosine"),
    "model.dtype": ("float32", "bfloat16"),
    "metrics.groups": ("thirds", "counts"),
    "sampling.scheme": SCHEMES,
}
_RETRAIN_CHOICES = {"weights": ("last", "best_on_validation"), "sampling.scheme": SCHEMES}


def check_fields(given: Mapping[str, Any], known: Mapping[str, Any], path: str = "") -> None:
    """Refuses unknown, missing and mistyped fields.

    Args:
      given: a config, or a group of its fields.
      known: the same with the defaults.
      path: of the group, such as ``"train."``.

    Raises:
      InputError: with the name of the first such field.
    """
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
                check_fields(value, expected, f"{full}.")
        elif not _fits(value, expected):
            raise InputError(
                f"config.{full} is {value!r}; expected {type(expected).__name__},"
                f" such as {expected!r}"
            )
    missing = [name for name in known if name not in given]
    if missing:
        stage = ", with the stage in its name, as 'cross_entropy/crt'" if path == "retrain." else ""
        raise InputError(
            f"config lacks the field {path}{missing[0]!r}; start from base_config(){stage}"
        )


def _fits(value: Any, expected: Any) -> bool:
    if isinstance(expected, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(expected, bool)
    if isinstance(expected, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(expected))


def check_values(config: Mapping[str, Any]) -> None:
    """Refuses numbers outside their range, and names that are none of the allowed ones.

    Args:
      config: of a run, with all its fields.

    Raises:
      InputError: with the name of the first such field.
    """
    _check_finite(config)
    _check_lows(config, _LOW)
    last = config["seed"] + config["replicas"] - 1
    if last >= 1 << 32:
        raise InputError(
            f"config.seed is {config['seed']} for {config['replicas']} replicas; expected seeds"
            " below 4294967296, which fit into a key"
        )
    _check_highs(config, _HIGH)
    _check_choices(config, _CHOICES)
    _check_betas(config, "sampling")


def check_second_stage_values(config: Mapping[str, Any]) -> None:
    """The same for the fields of a second stage.

    Args:
      config: of a run of two stages, with all its fields.

    Raises:
      InputError: with the name of the first such field.
    """
    retrain = config["retrain"]
    if retrain["method"] in DIVIDED:
        _check_choices(config, {"retrain.weights": _RETRAIN_CHOICES["weights"]})
        return
    trained = "epochs" in retrain
    _check_lows(config, {f"retrain.{k}": v for k, v in _RETRAIN_LOW.items() if trained})
    _check_highs(config, {f"retrain.{k}": v for k, v in _HIGH.items() if trained})
    choices = {k: v for k, v in _RETRAIN_CHOICES.items() if trained or k == "weights"}
    _check_choices(config, {f"retrain.{k}": v for k, v in choices.items()})
    if trained:
        _check_betas(config, "retrain.sampling")
    _check_candidates(retrain)


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """The value of a field, such as ``"train.epochs"``."""
    value: Any = config
    for name in path.split("."):
        value = value[name]
    return value


def _check_finite(fields: Mapping[str, Any], path: str = "") -> None:
    """JSON has no infinite numbers, so that no run could write its config down."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _check_finite(value, f"{path}{name}.")
        several = isinstance(value, (tuple, list))
        for number in value if several else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                what = f"holds {number}; expected finite numbers"
                one = f"is {number}; expected a finite number"
                raise InputError(f"config.{path}{name} {what if several else one}")


def _check_lows(config: Mapping[str, Any], lows: Mapping[str, int]) -> None:
    for path, low in lows.items():
        value = value_at(config, path)
        if not value >= low:
            raise InputError(f"config.{path} is {value!r}; expected at least {low}")


def _check_highs(config: Mapping[str, Any], highs: Mapping[str, int]) -> None:
    for path, high in highs.items():
        value = value_at(config, path)
        if not value <= high:
            raise InputError(f"config.{path} is {value!r}; expected at most {high}")


def _check_choices(config: Mapping[str, Any], choices: Mapping[str, tuple[str, ...]]) -> None:
    for path, allowed in choices.items():
        value = value_at(config, path)
        if value not in allowed:
            raise InputError(f"config.{path} is {value!r}; expected one of {', '.join(allowed)}")


def _check_betas(config: Mapping[str, Any], path: str) -> None:
    """Also where the scheme takes none: what a config says should mean something."""
    check_beta(value_at(config, f"{path}.beta"), f"config.{path}.beta")
    spread = value_at(config, f"{path}.beta_spread")
    if not 0 <= spread < 1:
        raise InputError(f"config.{path}.beta_spread is {spread!r}; expected a number in [0, 1)")


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
