"""The fields of ``config.data``: their defaults, and what those of made sets mean."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lt_jax.data.canvas import NUM_DIGITS, Canvas, Composition
from lt_jax.data.tails import has_tail
from lt_jax.errors import InputError
from lt_jax.longtail import long_tailed_profile
from lt_jax.longtail.counts import check_whole

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "source": "digits",
        "data_dir": "",
        "download": False,
        "num_classes": 0,
        "train_split": "train",
        "test_split": "test",
        "validation_split": "",
        "train_list": "",
        "test_list": "",
        "validation_list": "",
        "image_size": 0,
        "resize": "stretch",
        "stream": False,
        "workers": 0,
        "on_corrupt": "refuse",
        "normalization": "data",
        "imbalance": 0.0,
        "imbalance_kind": "exponential",
        "pareto_power": 6.0,
        "max_count": 0,
        "class_counts": (),
        "drop_unlabelled": False,
        "split_seed": 0,
        "validation_size": 0,
        "canvas": Canvas()._asdict(),
    }
)
# Handed to `lt_jax.data.load_source` as they are.
PASSED = (
    "train_split",
    "test_split",
    "validation_split",
    "download",
    "image_size",
    "resize",
    "stream",
    "workers",
    "on_corrupt",
)


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config and the defaults of those it lacks.

    Args:
      config: see `lt_jax.data.load_dataset`.

    Returns:
      Every field of `DEFAULTS`.

    Raises:
      InputError: for an unknown field of ``canvas``, or a seed, size or number that is not one.
    """
    options = {**DEFAULTS, **dict(config)}
    canvas = {**DEFAULTS["canvas"], **dict(options["canvas"])}
    unknown = sorted(set(canvas) - set(DEFAULTS["canvas"]))
    if unknown:
        raise InputError(
            f"data.canvas has no field {unknown[0]!r}; expected some of {', '.join(Canvas._fields)}"
        )
    for name in ("split_seed", "validation_size", "image_size", "workers"):
        check_whole(name, options[name], 0)
    return {**options, "canvas": canvas}


def composition_of(options: Mapping[str, Any]) -> Composition:
    """How a composed set is made; its digits are long-tailed, so that no subset need be drawn.

    Args:
      options: from `options_of`.

    Returns:
      For `lt_jax.data.canvas.compose`.

    Raises:
      InputError: for a subset that is asked for in another way.
    """
    for name in ("class_counts", "max_count"):
        if options[name]:
            raise InputError(
                f"data.{name} is {options[name]!r}, but {options['source']} has as many images as"
                f" data.canvas.images says; expected {DEFAULTS[name]!r}, and data.imbalance for how"
                " frequent its digits are"
            )
    imbalance = options["imbalance"] if has_tail(options) else 1.0
    return Composition(
        Canvas(**options["canvas"]),
        options["validation_size"],
        long_tailed_profile(
            NUM_DIGITS, imbalance, options["imbalance_kind"], options["pareto_power"]
        ),
        int(options["split_seed"]),
    )


def made_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """How made features are, which are long-tailed already.

    Args:
      options: from `options_of`.

    Returns:
      Arguments of `lt_jax.data.made.made_features`.
    """
    classes = options["num_classes"] or 10
    return {
        "seed": int(options["split_seed"]),
        "num_classes": classes,
        "max_count": options["max_count"] or 2000,
        "imbalance": options["imbalance"] if has_tail(options) else 1.0,
        "held_out": max(int(options["validation_size"]) // classes, 1),
    }
