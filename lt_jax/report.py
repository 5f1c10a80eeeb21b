"""What runs leave behind for people: the summary of one, tables of several."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_jax import environment, metrics
from lt_jax.configuration import plain
from lt_jax.reported import reported_for
from lt_jax.writers import say

Scores = dict[str, Any]
HEADLINE = ("balanced_accuracy", "top1", "many", "medium", "few", "ece")


def _over_replicas(values: Sequence[Any], reduce: Any) -> Any:
    """Mean or deviation over replicas, entry by entry; None where there is nothing to take."""
    array = np.array(values, dtype=np.float64)  # None becomes NaN
    with np.errstate(invalid="ignore", divide="ignore"):
        result = reduce(array)
    if result.ndim:
        return [None if np.isnan(v) else float(v) for v in result]
    return None if np.isnan(result) else float(result)


def aggregate(replicas: Sequence[Scores]) -> dict[str, Any]:
    """Mean and sample standard deviation over replicas of every score but the confusion.

    Args:
      replicas: one dictionary of scores for each seed.

    Returns:
      ``{"replicas", "mean", "std"}``; a deviation of one replica is None.
    """
    names = [name for name in replicas[0] if name != "confusion"]

    def over(reduce: Any) -> Scores:
        return {name: _over_replicas([r[name] for r in replicas], reduce) for name in names}

    def deviation(array: np.ndarray) -> np.ndarray:
        if len(array) < 2:
            return np.full(array.shape[1:], np.nan)
        return array.std(axis=0, ddof=1)

    return {
        "replicas": list(replicas),
        "mean": over(lambda array: array.mean(axis=0)),
        "std": over(deviation),
    }


def summarize(
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    seeds: Sequence[int],
    counts: Mapping[str, metrics.Counts],
    selection: Mapping[str, Mapping[str, Any]],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """The summary of a run: what it was, what it was made with, what came out.

    Args:
      config: of the run.
      data: what is known about the images, with their class counts.
      seeds: one for each replica.
      counts: of the test split by selection (``last``, ``best_on_validation``), leading axis R.
      selection: facts about each selection, such as its steps.
      training: facts about the training.

    Returns:
      A dictionary that JSON can hold.
    """
    results = {}
    for name, stacked in counts.items():
        each = [
            metrics.scores(
                metrics.Counts(*(np.asarray(leaf)[r] for leaf in stacked)), data["class_counts"]
            )
            for r in range(len(seeds))
        ]
        results[name] = {**selection[name], **aggregate(each)}
    return {
        "name": config["name"],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **environment.stamp(training["devices"]),
        "seeds": list(seeds),
        "data": dict(data),
        "training": dict(training),
        "test": results,
        "config": plain(config),
    }


def with_deviation(mean: float | None, std: float | None, *, percent: bool = True) -> str:
    """``81.2 ± 0.7``, without the deviation of a single run, ``-`` for nothing.

    Example:
      >>> with_deviation(0.8125, 0.0071)
      '81.2 ± 0.7'
    """
    if mean is None:
        return "-"
    factor, digits = (100.0, 1) if percent else (1.0, 3)
    text = f"{factor * mean:.{digits}f}"
    return text if std is None else f"{text} ± {factor * std:.{digits}f}"


def table_rows(
    summaries: Sequence[Scores], which: str = "last", names: Sequence[str] = HEADLINE
) -> list[list[str]]:
    """A header and a row for each run: headline scores in %, mean ± deviation over seeds.

    Args:
      summaries: of finished runs.
      which: ``"last"`` or ``"best_on_validation"``.
      names: of the scores.

    Returns:
      Rows of text.
    """
    rows = [["method", "seeds", *(name.replace("_", " ") for name in names)]]
    for summary in summaries:
        test = summary["test"][which]
        cells = [with_deviation(test["mean"][name], test["std"][name]) for name in names]
        rows.append([row_name(summary), str(len(summary["seeds"])), *cells])
    return rows


def paired_difference(a: Scores, b: Scores, score: str = "balanced_accuracy") -> Scores:
    """How much better run a is than run b, paired over their seeds.

    Args:
      a: summary of a run.
      b: summary of a run with the same seeds and data.
      score: which score.

    Returns:
      ``mean``, its ``standard_error``, and ``low`` and ``high`` of the 95 % paired t interval; the
      latter three None for a single seed.

    Raises:
      ValueError: if seeds or training images differ.
    """
    if a["seeds"] != b["seeds"] or a["data"]["index_hash"] != b["data"]["index_hash"]:
        raise ValueError("only runs with the same seeds and training images can be paired")
    values = [[r[score] for r in s["test"]["last"]["replicas"]] for s in (a, b)]
    difference = np.subtract(values[0], values[1])
    mean, n = float(difference.mean()), len(difference)
    if n < 2:
        return {"mean": mean, "standard_error": None, "low": None, "high": None}
    from scipy import stats

    error = float(difference.std(ddof=1) / np.sqrt(n))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return {"mean": mean, "standard_error": error, "low": mean - half, "high": mean + half}


def print_table(summaries: Sequence[Scores]) -> None:
    """Prints the headline scores and each run's paired difference to the first one."""
    from rich.console import Console
    from rich.table import Table

    shown = ("balanced_accuracy", "many", "medium", "few")
    header, *rows = table_rows(summaries, names=shown)
    seeds = len(summaries[0]["seeds"])
    table = Table(
        *(name.replace("balanced ", "balanced\n") for name in header if name != "seeds"),
        "balanced accuracy\nagainst the first",
        title=f"test scores in %, mean ± deviation over {seeds} seeds",
    )
    for row, summary in zip(rows, summaries, strict=True):
        against = "" if summary is summaries[0] else difference_text(summary, summaries[0])
        table.add_row(row[0], *row[2:], against)
    console = Console()
    # A log file has no width of its own; 80 columns would cut the names.
    Console(width=console.width if console.is_terminal else 110).print(table)


def difference_text(a: Scores, b: Scores) -> str:
    """Paired difference of the balanced accuracies in points, with its 95 % interval."""
    d = paired_difference(a, b)
    text = f"{100 * d['mean']:+.1f}"
    return text if d["low"] is None else f"{text} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"


def tell(summary: Scores | None) -> None:
    """Tells the headline scores of a finished run, of both stages if it has two."""
    if summary is None:
        return
    header, *rows = table_rows([summary])
    if "stage1" in summary:
        rows.insert(0, table_rows([first_row(summary)])[1])
    for row in rows:
        say(", ".join(f"{name} {value}" for name, value in zip(header, row, strict=True)))


def first_row(summary: Scores) -> Scores:
    """What a summary of two stages says about the first, as a summary of one."""
    return {**summary, **summary["stage1"]}


def write_tables(
    summaries: Sequence[Scores], folder: Path, *, reported: Sequence[Mapping[str, str]] = ()
) -> None:
    """Writes ``table.md`` and ``table.csv`` of several runs, with the command that made them.

    Args:
      summaries: of finished runs.
      folder: where to.
      reported: from `lt_jax.reported.read_reported`, to stand beside what was measured.
    """
    header, *rows = table_rows(summaries)
    first = summaries[0]
    columns: dict[str, list[str]] = {
        "against the first": [
            "" if summary is first else difference_text(summary, first) for summary in summaries
        ]
    }
    on_validation = [_validation_score(summary) for summary in summaries]
    if any(on_validation):
        columns["on validation"] = on_validation
    if any("stage1" in summary for summary in summaries):
        columns["its stage 1"] = [_stage1_score(summary) for summary in summaries]
        columns["against its stage 1"] = [
            difference_text(s, first_row(s)) if "stage1" in s else "" for s in summaries
        ]
    known = [
        reported_for(reported, s["config"], row_name(s)) if reported else [] for s in summaries
    ]
    if any(known):
        columns["reported"] = ["; ".join(f"{r.value:.1f} ({r.source})" for r in k) for k in known]
    header += columns
    for i, row in enumerate(rows):
        row += [cells[i] for cells in columns.values()]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"{row_name(s)}: {r.note}" for s, k in zip(summaries, known, strict=True) for r in k]
    lines += ["", *_explanation(first), "", *(f"- Reported, {note}." for note in notes)]
    (folder / "table.md").write_text("\n".join(lines).rstrip() + "\n")
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def row_name(summary: Scores) -> str:
    """The method of a run: its name without that of the data, as in ``cifar10_lt100_gcl``."""
    name = str(summary["name"])
    return re.sub(r"^\w+_lt[\d.]+_", "", name)


def _validation_score(summary: Scores) -> str:
    scores = summary["test"]["last"].get("validation_balanced_accuracy")
    if not scores:
        return ""
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return with_deviation(float(np.mean(scores)), deviation)


def _stage1_score(summary: Scores) -> str:
    if "stage1" not in summary:
        return ""
    test = summary["stage1"]["test"]["last"]
    return with_deviation(test["mean"]["balanced_accuracy"], test["std"]["balanced_accuracy"])


def _explanation(first: Scores) -> list[str]:
    """What the numbers are, and of what."""
    return [
        f"Test scores in %, last step, mean ± standard deviation over seeds {first['seeds']};"
        " differences are those of balanced accuracies, paired over seeds, with their 95 % t"
        " interval.",
        f"Data: {first['data']['source']}, training images by class"
        f" {first['data']['class_counts']}, split seed {first['data']['split_seed']}, index hash"
        f" {first['data']['index_hash']}.",
        f"Hardware: {first['hardware']['cpu']}, {first['hardware']['device']}; jax"
        f" {first['versions']['jax']}; commit {first['commit']}.",
        "",
        f"    {environment.command_line()}",
    ]
