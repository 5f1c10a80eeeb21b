"""What stands under a table: what its numbers are of, and how its rows were made where they differ.

Rows of one command are of one recipe; those that other commands added need not be.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lt_jax import environment
from lt_jax.configuration import all_defaults, plain
from lt_jax.data.identity import without_place
from lt_jax.joining import called
from lt_jax.matching import INDIFFERENT, flatten
from lt_jax.summaries import Scores, headline, row_name

# Fields of the recipe; those of the objective and of the kind of second stage make the method.
_RECIPE = ("data", "model", "sampling", "augment", "optimizer", "metrics")
_LENGTH = ("epochs", "batch_size")
_SECOND = ("weights", "augment", "optimizer", *_LENGTH)


def notes(summaries: Sequence[Scores], failed: Mapping[str, str]) -> list[str]:
    """Lines of Markdown under a table.

    Args:
      summaries: of its rows.
      failed: reasons by row that has no scores.
    """
    named = [(row_name(summary), summary) for summary in summaries]
    lines = [*_explanation(summaries[0]), *_made_on(named), ""]
    if found := differing_fields(summaries):
        lines += ["Fields in which the recipes of the rows differ:", "", *found, ""]
    for name, reason in failed.items():
        row = row_name({"name": name, "data": summaries[0]["data"]})
        lines.append(f"- {row} has no scores: {reason.partition(';')[0]}.")
    if failed:
        lines.append("")
    return lines + _commands(named)


def differing_fields(summaries: Sequence[Scores]) -> list[str]:
    """Fields of recipes in which rows differ, each with the value of most and the others.

    Args:
      summaries: of runs.

    Returns:
      Lines of a Markdown list; none if there is one recipe.

    Example:
      >>> runs = [
      ...     {"name": name, "data": {"source": "digits"}, "config": {"train": {"epochs": epochs}}}
      ...     for name, epochs in (("cross_entropy", 6), ("ldam", 6), ("focal", 3))
      ... ]
      >>> differing_fields(runs)
      ['- `train.epochs`: 6, but 3 of focal']
    """
    rows = [(row_name(s), _recipe(s)) for s in summaries if "config" in s]
    fields = dict.fromkeys(field for _, recipe in rows for field in recipe)
    lines = []
    for field in fields:
        values = [(recipe[field], name) for name, recipe in rows if field in recipe]
        usual = Counter(value for value, _ in values).most_common(1)[0][0]
        others = _grouped((name, value) for value, name in values if value != usual)
        if others:
            but = "; ".join(f"{value} of {', '.join(names)}" for value, names in others.items())
            lines.append(f"- `{field}`: {usual}, but {but}")
    return lines


def _grouped(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names by text, of pairs of both."""
    groups: dict[str, list[str]] = {}
    for name, text in named:
        groups.setdefault(text, []).append(name)
    return groups


def _recipe(summary: Scores) -> dict[str, str]:
    """Values as text by field; fields that came later had their defaults."""
    config, default = summary["config"], plain(all_defaults(summary["config"]))
    chosen: dict[str, Any] = {name: {**default[name], **config.get(name, {})} for name in _RECIPE}
    lengths = {**default["train"], **config.get("train", {})}
    chosen["train"] = {name: lengths[name] for name in _LENGTH}
    second = {**default["retrain"], **config.get("retrain", {})}
    chosen["retrain"] = {name: second[name] for name in _SECOND if name in second}
    if "seeds" in summary:
        chosen["seeds"] = summary["seeds"]
    fields = {
        name: without_place(name, value)  # the images of rows of a table are the same
        for name, value in flatten(chosen)
        if name not in INDIFFERENT
    }
    return {k: v if isinstance(v, str) and v else json.dumps(v) for k, v in fields.items()}


def _explanation(first: Scores) -> list[str]:
    """What the numbers are, and of what."""
    kind = "training images by class"
    if first["data"].get("multi_label"):
        kind = f"{first['data']['total_train']} training examples, positives by class"
    compared_scores = {"balanced_accuracy": "balanced accuracies"}.get(
        headline(first), "the scores named"
    )
    return [
        f"Test scores in %, last step, mean ± standard deviation over seeds {first['seeds']};"
        f" differences are those of {compared_scores}, paired over the seeds that both have,"
        " with their 95 % t interval.",
        f"Data: {first['data']['source']}, {kind}"
        f" {first['data']['class_counts']}, split seed {first['data']['split_seed']}, index hash"
        f" {first['data']['index_hash']}.",
    ]


Named = Iterable[tuple[str, Scores]]


def _grouped_runs(named: Named, made: Callable[[Scores], str]) -> dict[str, list[str]]:
    """Names by what made the rows; with their seeds where it differs within a row.

    The runs that a row of further seeds consists of are in it: see `lt_jax.sweep_seeds`.
    """
    pairs = []
    for name, summary in named:
        runs = summary.get("made", [summary])
        if len({made(run) for run in runs}) == 1:
            pairs.append((name, made(runs[0])))
        else:
            pairs += [(f"{name} ({called(run['seeds'])})", made(run)) for run in runs]
    return _grouped(pairs)


def _made_on(named: Named) -> list[str]:
    """Hardware, version and commit, of each that rows were made with."""
    groups = _grouped_runs(
        named,
        lambda run: (
            f"{run['hardware']['cpu']}, {run['hardware']['device']}; jax"
            f" {run['versions']['jax']}; commit {run['commit']}"
        ),
    )
    if len(groups) == 1:
        return [f"Hardware: {next(iter(groups))}."]
    return [f"Hardware of {', '.join(names)}: {made}." for made, names in groups.items()]


def _commands(named: Named) -> list[str]:
    """The command that wrote the table, and those of its rows where they are others."""
    now = environment.command_line()
    groups = _grouped_runs(named, lambda run: run.get("command", ""))
    groups.pop("", None)  # of runs that do not tell it
    if set(groups) <= {now}:
        return [f"    {now}"]
    lines = []
    for command, names in groups.items():
        lines += [f"Made {', '.join(names)}:", "", f"    {command}", ""]
    if now not in groups:
        lines += ["Wrote the table:", "", f"    {now}"]
    return lines
