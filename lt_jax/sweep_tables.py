"""A table in its folder: which rows stay in it, in which order, all of one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.errors import InputError
from lt_jax.summaries import Scores as Summary
from lt_jax.summaries import row_name
from lt_jax.tables import table_names

_OF_IMAGES = {
    "class_counts": "class counts",
    "index_hash": "training images",
    "pixel_mean": "training images",
    "test_hash": "test images",
    "train_hash": "training images",
    "validation_hash": "validation images",
    "test_files_hash": "test images",
}


def check_same_images(
    finished: Mapping[str, Summary], now: Mapping[str, Any] | None = None
) -> None:
    """Refuses finished rows of which the images were not those of the others, or of today.

    Args:
      finished: summaries by row.
      now: what `Dataset.info` tells of the images as they are now; None if nobody looked.

    Raises:
      InputError: naming the row, and what is other.
    """
    first = next(iter(finished), "")
    same = now or (finished[first]["data"] if finished else {})
    for name, summary in finished.items():
        there = summary["data"]
        for key, what in _OF_IMAGES.items():
            if key in there and key in same and there[key] != same[key]:
                other = f"{there['source']} has now" if now else f"row {first!r}"
                raise InputError(
                    f"row {name!r} has finished with other {what} than {other}; expected one table"
                    " for each: choose another workdir"
                )


def kept_rows(folder: Path, configs: Mapping[str, ConfigDict]) -> dict[str, Summary]:
    """Finished rows of the table in a folder that are none of these, by their names in it.

    Args:
      folder: of a sweep.
      configs: by row.

    Returns:
      Their summaries, in the order of the table.
    """
    names = table_names(folder)
    found: dict[str, Summary] = {}
    for path in sorted(folder.iterdir(), key=str) if names else ():
        summary = workdir.finished_summary(path) if path.name not in configs else None
        if summary is not None and row_name(summary) in names:
            found[row_name(summary)] = summary
    return {name: found[name] for name in names if name in found}


def in_order(
    done: Mapping[str, Summary], kept: Mapping[str, Summary], before: Sequence[str]
) -> list[Summary]:
    """Rows as the command has them; with rows that are kept, those first that the table had.

    Args:
      done: summaries by row, in the order of the command.
      kept: from `kept_rows`.
      before: names in the table so far.

    Returns:
      All summaries, in the order of the table to be.
    """
    if not kept:
        return list(done.values())
    together = [*done.values(), *kept.values()]
    place = {name: number for number, name in enumerate(before)}
    return sorted(together, key=lambda summary: place.get(row_name(summary), len(place)))
