"""Runs that differ in their seeds alone, as one run of all seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lt_jax.data.identity import different, only_moved
from lt_jax.matching import INDIFFERENT, default_fields, flatten
from lt_jax.summaries import Scores, aggregate

# What may differ, beside what changes nothing: which seeds, and how they are called and run.
_FREE = INDIFFERENT | {"name", "replica_mode", "replicas", "seed"}

_SEEDS = re.compile(r"seeds_(\d+)(?:-(\d+))?")


def seed_folder(folder: Path, seeds: range) -> Path:
    """Where in the folder of a table further seeds of its rows are."""
    last = f"-{seeds[-1]}" if len(seeds) > 1 else ""
    return folder / f"seeds_{seeds.start}{last}"


def seed_folders(folder: Path) -> list[tuple[Path, range]]:
    """Such folders that there are, with their seeds, in the order of these."""
    found = ((path, _SEEDS.fullmatch(path.name)) for path in folder.iterdir() if path.is_dir())
    named = [
        (path, range(int(match[1]), int(match[2] or match[1]) + 1))
        for path, match in found
        if match
    ]
    return sorted(named, key=lambda block: block[1].start)


def called(seeds: Sequence[int]) -> str:
    """Seeds that follow each other, for people.

    Example:
      >>> called([3, 4, 5]), called(range(7, 8))
      ('seeds 3 to 5', 'seed 7')
    """
    return f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"


def can_join(a: Scores, b: Scores) -> bool:
    """Whether two runs are the same but for their seeds, of which they have none in common.

    Args:
      a: summary of a run.
      b: summary of another one.
    """
    if set(a["seeds"]) & set(b["seeds"]) or different(a["data"], b["data"]):
        return False
    one, other = (dict(flatten(summary["config"])) for summary in (a, b))
    if one.keys() != other.keys():
        defaults = default_fields(a["config"])
        one, other = ({**defaults, **fields} for fields in (one, other))
    differing = {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)} - _FREE
    # Hashes have told that these are the same.
    moved = {k for k in differing if only_moved(k, one.get(k), other.get(k))}
    known = all("train_hash" in summary["data"] for summary in (a, b))
    return differing <= (moved if known else set()) and a["test"].keys() == b["test"].keys()


def joined(summaries: Sequence[Scores]) -> Scores:
    """The summary that one run of all their seeds would have ended with.

    Args:
      summaries: of runs of which each can be joined with each other one.

    Returns:
      A summary with the seeds in the order given; what it tells of code, machine and time is of
      the first run.
    """
    if len(summaries) == 1:
        return dict(summaries[0])
    first = summaries[0]
    seeds = [seed for summary in summaries for seed in summary["seeds"]]
    result = {
        **first,
        "seeds": seeds,
        "test": _tests([s["test"] for s in summaries]),
        "config": {**first["config"], "replicas": len(seeds)},
    }
    if "stage1" in first:
        tests = _tests([s["stage1"]["test"] for s in summaries])
        result["stage1"] = {**first["stage1"], "test": tests}
    if "division" in first:
        result["division"] = _division([s["division"] for s in summaries])
    return result


def _tests(tests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By weights: scores of all replicas, and the lists of what was chosen for each of them."""
    names = [name for name in tests[0] if all(name in test for test in tests)]
    return {name: _scores([test[name] for test in tests]) for name in names}


def _scores(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    lists = {
        name: [value for part in parts for value in part[name]]
        for name, values in parts[0].items()
        if isinstance(values, list) and all(name in part for part in parts)
    }
    return {**lists, **aggregate(lists["replicas"])}


def _division(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    result = {
        "without": _scores([part["without"] for part in parts]),
        "replicas": [replica for part in parts for replica in part["replicas"]],
    }
    if all("validation" in part for part in parts):
        result["validation"] = {
            name: [value for part in parts for value in part["validation"][name]]
            for name in parts[0]["validation"]
        }
    return result


def joined_rows(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of several metrics files as one of all seeds; those that not all have are left out.

    Args:
      parts: rows of each file.

    Example:
      >>> a, b = ([{"split": "train", "step": 5, "loss": [loss]}] for loss in (0.5, 0.7))
      >>> joined_rows([a, b])
      [{'split': 'train', 'step': 5, 'loss': [0.5, 0.7]}]
    """
    if len(parts) == 1:
        return [dict(row) for row in parts[0]]
    by_place = [{(row["split"], row["step"]): row for row in rows} for rows in parts]
    return [
        _joined_row([rows[place] for rows in by_place])
        for place in by_place[0]
        if all(place in rows for rows in by_place)
    ]


def _joined_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def of_all(name: str, value: Any) -> Any:
        if not isinstance(value, list) or not all(name in row for row in rows):
            return value
        return [x for row in rows for x in row[name]]

    return {name: of_all(name, value) for name, value in rows[0].items()}
