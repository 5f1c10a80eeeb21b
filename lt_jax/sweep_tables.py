"""A table in its folder: which rows stay in it, in which order, all of one data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.data.identity import OF_IMAGES, different
from lt_jax.errors import InputError
from lt_jax.joining import called, seed_folders
from lt_jax.summaries import Scores as Summary
from lt_jax.tables import place_of, table_names
from lt_jax.writers import say_once

FAILED = "failed.json"  # rows without scores


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
    if not {"name", "data", "seeds", "test", "config"} <= set(summary):
        return None
    if summary["name"] != path.name:
        say_once(
            f"left out of the table: the folder {path} holds the run {summary['name']!r}, and that"
            f" of a row is called as its run; rename it to {summary['name']} if it is the row"
        )
        return None
    return summary


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


def note_failure(folder: Path, name: str, failed_in: str, reason: str) -> None:
    """Notes in the folder of a table that a row failed, for tables to come.

    Args:
      folder: of the table.
      name: of the row.
      failed_in: folder of the run that failed: of the row, or of its first stage.
      reason: a sentence.
    """
    noted = {n: note for n, note in _noted(folder).items() if _still_fails(folder, n, note)}
    noted[name] = {"folder": failed_in, "reason": reason}
    workdir.write_json(folder / FAILED, noted)


def failed_rows(folder: Path) -> dict[str, str]:
    """Rows of a table that failed, also those of which only further seeds did.

    Once the row has finished, or the folder of what failed was removed, it is none of them.

    Args:
      folder: of the table.

    Returns:
      The reason by row, with the seeds if they are further ones.
    """
    found = _failed_in(folder)
    for block, seeds in seed_folders(folder):
        own = _failed_in(block).items()
        found |= {f"{name} of {called(seeds)}": reason for name, reason in own}
    return found


def _failed_in(folder: Path) -> dict[str, str]:
    notes = _noted(folder).items()
    return {name: note["reason"] for name, note in notes if _still_fails(folder, name, note)}


def _noted(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / FAILED
    try:
        return dict(json.loads(path.read_text())) if path.exists() else {}
    except ValueError:  # nothing depends on it
        return {}


def _still_fails(folder: Path, name: str, note: Mapping[str, str]) -> bool:
    there = (folder / note["folder"] / workdir.CONFIG).exists()
    return there and not (folder / name / workdir.SUMMARY).exists()
