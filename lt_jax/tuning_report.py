"""What comes of comparing values on validation: a summary, a table, a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_jax import environment
from lt_jax.configuration import plain
from lt_jax.files import write_text
from lt_jax.pictures import dispensable, literal, new_figure, subject, write_figure
from lt_jax.processes import is_writer
from lt_jax.run import Run
from lt_jax.settings import Grid
from lt_jax.summaries import EQUAL, label, paired_interval, with_deviation, with_interval
from lt_jax.tables import markdown
from lt_jax.workdir import TUNING, write_json
from lt_jax.writers import say

TABLE, PICTURE = "tuning.md", "tuning.png"
_GROUPS = ("many", "medium", "few", "map_head", "map_medium", "map_tail")
Found = dict[str, Any]


def point_name(fields: Sequence[str], values: Sequence[float]) -> str:
    """Values with the last part of their fields' names.

    Example:
      >>> point_name(["objective.transforms.focal.gamma"], [2])
      'gamma 2'
    """
    return ", ".join(f"{f.rpartition('.')[2]} {v}" for f, v in zip(fields, values, strict=True))


def summarize_tuning(
    config: Mapping[str, Any],
    grid: Grid,
    run: Run,
    scores: Sequence[Mapping[str, Any]],
    seconds: float,
) -> Found:
    """What was compared, and what validation says of it.

    The value with the highest mean over seeds is chosen; of those that are equal the first.

    Args:
      config: of the run.
      grid: what was compared, P points.
      run: of all points and S seeds.
      scores: on validation after the last step, of P * S replicas, those of a point together.
      seconds: spent training.

    Returns:
      A dictionary that JSON can hold.
    """
    seeds = run.seeds[: len(run.seeds) // len(grid.points)]
    columns = [name for name in run.scoring.columns if scores[0].get(name) is not None]
    found = {c: np.array([s[c] for s in scores]).reshape(-1, len(seeds)) for c in columns}
    headline = found[run.scoring.headline]
    means = headline.mean(axis=1)
    chosen = int(np.argmax(means > means.max() - EQUAL))  # the first, whatever rounding says
    values = grid.points[chosen]
    return {
        "name": config["name"],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **environment.stamp(run.mesh.size),
        "fields": list(grid.fields),
        "points": [list(point) for point in grid.points],
        "seeds": list(seeds),
        "headline": run.scoring.headline,
        "validation": {name: array.tolist() for name, array in found.items()},
        "differences": [_difference(row, headline[chosen]) for row in headline],
        "chosen": dict(zip(grid.fields, values, strict=True)),
        "at_the_end": _at_the_end(grid, values),
        "training": {"steps": run.total_steps, "seconds": round(seconds, 3)},
        "data": run.dataset.info(),
        "config": plain(config),
    }


def _at_the_end(grid: Grid, values: Sequence[float]) -> list[str]:
    """Fields whose chosen value is the smallest or largest tried, so that more may be better.

    But for 0 as the smallest, below which few options have a meaning.
    """
    ends: list[set[float]] = [{min(axis)} - {0} | {max(axis)} for axis in grid.axes]
    return [f for f, v, end in zip(grid.fields, values, ends, strict=True) if v in end]


def _difference(values: np.ndarray, best: np.ndarray) -> dict[str, float | None]:
    """Mean difference to the chosen point, paired over seeds; its interval if it has any width."""
    d = paired_interval(values, best)
    mean = 0.0 if abs(d["mean"]) < EQUAL else d["mean"]
    return {"mean": mean, "low": d["low"], "high": d["high"]}


def write_tuning(found: Found, folder: Path) -> None:
    """Writes ``tuning.json``, ``tuning.md`` and ``tuning.png``, and says what was chosen.

    Args:
      found: from `summarize_tuning`.
      folder: where to.
    """
    if is_writer():
        write_text(folder / TABLE, "\n".join(_table(found)) + "\n")
        with dispensable():
            save_tuning(found, folder / PICTURE)
        write_json(folder / TUNING, found)  # last: its presence says that the rest is there
    for sentence in conclusions(found):
        say(sentence)


def conclusions(found: Found) -> list[str]:
    """What was chosen, how to take it, and what one should not believe of it.

    Args:
      found: from `summarize_tuning`.

    Returns:
      Sentences.
    """
    fields, points = found["fields"], found["points"]
    chosen = [found["chosen"][field] for field in fields]
    score = np.array(found["validation"][found["headline"]])[points.index(chosen)]
    flags = " ".join(f"--config.{f}={json.dumps(v)}" for f, v in found["chosen"].items())
    said = [
        f"{point_name(fields, chosen)} is best on validation: {label(found['headline'])}"
        f" {_score(score)} %, {flags}"
    ]
    level = [
        point_name(fields, point)
        for point, d in zip(points, found["differences"], strict=True)
        if point != chosen and (d["mean"] == 0 or (d["high"] is not None and d["high"] >= 0))
    ]
    if level:
        said.append(f"level with it, as their differences may be 0: {'; '.join(level)}.")
    if len(found["seeds"]) < 2:
        said.append("one seed cannot tell which differences are chance; --seeds=3 or more can.")
    said += [
        f"{field.rpartition('.')[2]} {found['chosen'][field]} is at the end of what was tried;"
        " values beyond it may be better."
        for field in found["at_the_end"]
    ]
    return said


def _score(values: np.ndarray) -> str:
    """Mean and deviation over seeds."""
    return with_deviation(values.mean(), values.std(ddof=1) if len(values) > 1 else None)


def _table(found: Found) -> list[str]:
    names, columns = [f.rpartition(".")[2] for f in found["fields"]], found["validation"]
    rows = [[*names, *map(label, columns), "against the chosen"]]
    for i, point in enumerate(found["points"]):
        cells = [_score(np.array(values[i])) for values in columns.values()]
        chosen = point == list(found["chosen"].values())
        against = "chosen" if chosen else with_interval(**found["differences"][i])
        rows.append([*map(str, point), *cells, against])
    return [
        *markdown(rows),
        "",
        f"Validation scores in %, last step, mean ± standard deviation over seeds {found['seeds']};"
        f" differences of {label(found['headline'])} are paired over seeds, with their 95 % t"
        f" interval. {_reading(found)}",
        "",
        *(f"- {sentence}" for sentence in conclusions(found)),
        "",
        f"Data: {found['data']['source']}, class counts {found['data']['class_counts']}, split seed"
        f" {found['data']['split_seed']}, index hash {found['data']['index_hash']}; hardware:"
        f" {found['hardware']['cpu']}, {found['hardware']['device']}; jax"
        f" {found['versions']['jax']}; commit {found['commit']}.",
        "",
        f"    {found['command']}",
    ]


def _reading(found: Found) -> str:
    """What was read of test: a first stage is an ordinary run."""
    if found["fields"][0].startswith("retrain."):
        return "Test was read by the first stage alone, whose score chooses nothing."
    return "Test was not read."


def save_tuning(found: Found, path: Path) -> None:
    """Draws validation scores against the values: lines for one field, a map for two.

    Args:
      found: from `summarize_tuning`.
      path: of the PNG to write.
    """
    made = new_figure(1, 1, (7, 4.5))
    if made is None:
        return
    figure, axes = made
    (_draw_line if len(found["fields"]) == 1 else _draw_map)(figure, axes, found)
    axes.set_title(f"{literal(subject(found))}, {len(found['seeds'])} seed(s)")
    write_figure(figure, path)


def _draw_line(figure: Any, axes: Any, found: Found) -> None:
    values = [point[0] for point in found["points"]]
    # Evenly spaced: 0.9, 0.99, 0.999 lie apart on no scale that suits other fields too.
    places = np.arange(len(values))
    chosen = values.index(found["chosen"][found["fields"][0]])
    groups = [n for n in found["validation"] if n in _GROUPS]
    for name, style in zip(groups, ("--", "-.", ":"), strict=False):
        mean = 100 * np.mean(found["validation"][name], axis=1)
        axes.plot(places, mean, style, color="tab:gray", lw=1.2, label=label(name))
    scores = 100 * np.array(found["validation"][found["headline"]])
    axes.plot(places, scores, "o", color="tab:blue", ms=3, alpha=0.5)
    axes.plot(places, scores.mean(axis=1), color="tab:blue", lw=2, label=label(found["headline"]))
    axes.plot(
        chosen, scores[chosen].mean(), "*", color="tab:orange", ms=15, zorder=3, label="chosen"
    )
    axes.set_xticks(places, [str(value) for value in values])
    axes.set(xlabel=found["fields"][0], ylabel="validation score, %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_map(figure: Any, axes: Any, found: Found) -> None:
    first, second = (list(dict.fromkeys(axis)) for axis in zip(*found["points"], strict=True))
    scores = 100 * np.mean(found["validation"][found["headline"]], axis=1)
    table = scores.reshape(len(first), len(second))
    image = axes.imshow(table, cmap="viridis", aspect="auto")
    middle = (table.min() + table.max()) / 2
    for (y, x), score in np.ndenumerate(table):
        star = "★ " if [first[y], second[x]] == list(found["chosen"].values()) else ""
        colour = "black" if score > middle else "white"
        axes.text(x, y, f"{star}{score:.1f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(second)), [str(v) for v in second])
    axes.set_yticks(range(len(first)), [str(v) for v in first])
    axes.set(ylabel=found["fields"][0], xlabel=found["fields"][1])
    figure.colorbar(image, ax=axes, label=f"validation {label(found['headline'])}, %")
