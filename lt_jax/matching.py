"""Whether two configs are those of one run: what has to be the same, and what may differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lt_jax.configuration import all_defaults, plain, read_fields
from lt_jax.data.identity import PLACES, only_moved

Fields = dict[str, Any]

# Fields that change nothing of what a run computes, but for the order and rounding of sums; they
# may differ when it goes on.
INDIFFERENT = {
    "data.data_dir",
    "data.download",
    "model.fused",
    "train.checkpoint_every_epochs",
    "train.fsdp",
    "data.workers",  # what is read does not depend on who reads it
    "train.keep_checkpoints",
    "train.log_every_steps",
    "train.num_devices",
    "train.picture",
    "train.progress",
    "train.tensorboard",
}
_TUNE = "tune."  # before the fields of which a run compares values


def flatten(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by dotted name; an empty group is a field."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}{name}.")
        else:
            yield path + name, value


def _flat(tree: Mapping[str, Any]) -> Fields:
    return dict(flatten(json.loads(json.dumps(tree))))  # as files have it: no tuples


def default_fields(config: Mapping[str, Any]) -> Fields:
    """Defaults of all fields of a config, by dotted names: those that came later had them."""
    return _flat(plain(all_defaults(config)))


def stored_and_given(path: Path, config: Mapping[str, Any]) -> tuple[Fields, Fields]:
    """The fields of a run and of a config, by dotted names.

    Args:
      path: of the ``config.json`` of the run.
      config: the other one.

    Returns:
      Fields there, those that came later with their defaults, and fields of `config`.
    """
    there = dict(flatten(read_fields(path)))
    here = _flat(plain(config))
    defaults = default_fields(config)
    for name in here.keys() & defaults.keys():
        there.setdefault(name, defaults[name])
    return there, here


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first field of which two runs may not have different values; empty if there is none.

    Args:
      there: fields by dotted names.
      here: those of the other one.

    Example:
      >>> first_difference({"seed": 0, "train.picture": True}, {"seed": 1})
      'seed'
      >>> first_difference({"data.source": "folder:/a"}, {"data.source": "folder:/b"})
      ''
    """
    names = sorted({*there, *here} - INDIFFERENT)
    pairs = ((name, there.get(name), here.get(name)) for name in names)
    return next((n for n, a, b in pairs if a != b and not only_moved(n, a, b)), "")


def moved_fields(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Fields that say where data lie, and say so differently."""
    names = [f"data.{place}" for place in PLACES]
    return [name for name in names if there.get(name) != here.get(name)]


def refusal(name: str, there: Mapping[str, Any], here: Mapping[str, Any], folder: Path) -> str:
    """What to say of a folder of another run.

    Args:
      name: from `first_difference`.
      there: fields of the run in the folder.
      here: those that were given.
      folder: of the run.
    """
    if not name.startswith(_TUNE):
        return (
            f"workdir {folder} belongs to a run with {name} = {there.get(name)!r}, and this config"
            f" has {here.get(name)!r}; choose another workdir, or set config.{name} as there to go"
            " on with it"
        )
    before, now = _compared(there), _compared(here)
    if before and now:
        return (
            f"workdir {folder} compares {before}, and this is to compare {now}; a comparison gets"
            " no further values: choose another workdir for them"
        )
    kinds = [f"compares {before}" if before else "is that of a run, which compares no values"]
    kinds += ["is to compare " + now if now else "is to be a run"]
    return f"workdir {folder} {kinds[0]}, and this {kinds[1]}; choose another workdir"


def _compared(fields: Mapping[str, Any]) -> str:
    axes = {k.removeprefix(_TUNE): v for k, v in fields.items() if k.startswith(_TUNE)}
    return " and ".join(f"{k} = {', '.join(map(str, v))}" for k, v in axes.items())
