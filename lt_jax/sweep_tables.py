"""A table in its folder: which rows stay in it, in which order, all of one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.data.identity import OF_IMAGES, different
from lt_jax.errors import InputError
from lt_jax.summaries import Scores as Summary
from lt_jax.tables import place_of, table_names
from lt_jax.writers import say_once


def check_one_set(finished: Mapping[str, Summary], now: Mapping[str, Any] | None = None) -> None:
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
        key = different(there, same)
        if key:
            other = f"{there['source']} has now" if now else f"row {first!r}"
            raise InputError(
                f"row {name!r} has finished with other {OF_IMAGES[key]} than {other}; expected one"
                " table for each: choose another workdir"
            )


def kept_rows(folder: Path, configs: Mapping[str, ConfigDict]) -> dict[str, Summary]:
    """Finished rows of the table in a folder that are none of these.

    Args:
      folder: of a sweep.
      configs: by row.

    Returns:
      Their summaries by folder, in the order of the table.
    """
    names = table_names(folder)
    found: dict[str, Summary] = {}
    for path in sorted(folder.iterdir(), key=str) if names else ():
        summary = _summary_of_row(path) if path.name not in configs else None
        if summary is not None and place_of(summary, names) < len(names):
            found[path.name] = summary
    return dict(sorted(found.items(), key=lambda row: place_of(row[1], names)))


def _summary_of_row(path: Path) -> Summary | None:
    """The summary in a folder that a sweep has made for a row; a copy has another name."""
    try:
        summary = workdir.finished_summary(path) or {}
    except InputError as error:
        say_once(f"left out of the table: {error}")
        return None
    whole = {"name", "data", "seeds", "test", "config"} <= set(summary)
    return summary if whole and summary["name"] == path.name else None


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
    return sorted([*done.values(), *kept.values()], key=lambda summary: place_of(summary, before))
