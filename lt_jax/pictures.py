"""Pictures of runs; drawn without a screen, and only if matplotlib is installed."""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.errors import StorageError
from lt_jax.files import write_whole
from lt_jax.picture_axes import legend_above, log_scale, whole_numbers
from lt_jax.summaries import (
    Scores,
    first_row,
    headline,
    label,
    main_columns,
    score_text,
)
from lt_jax.writers import read_metrics, say

MISSING_GLYPH = r"Glyph \d+ .*missing from"  # what matplotlib then says


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> Any:
    """Figure and axes drawn without a screen, or None if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        say("no picture was drawn; pip install matplotlib makes it possible.")
        return None
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def literal(name: str) -> str:
    r"""A name that matplotlib writes as it is: what is between two dollars would be mathematics.

    Example:
      >>> print(literal("loss_$1_vs_$2"))
      loss_\$1_vs_\$2
    """
    return name.replace("$", r"\$")


def write_figure(figure: Any, path: Path) -> None:
    """Writes a figure as a PNG file, whole or not at all."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", MISSING_GLYPH)
        write_whole(path, lambda file: figure.savefig(file, dpi=110, format="png"))
    lacking = [w for w in caught if re.match(MISSING_GLYPH, str(w.message))]
    for other in (w for w in caught if w not in lacking):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if lacking:
        _tell_missing_glyphs()


@functools.cache
def _tell_missing_glyphs() -> None:
    """Once: matplotlib warns of every character in every picture."""
    say("the font of pictures lacks characters of some names: empty boxes stand for them.")


@contextlib.contextmanager
def dispensable() -> Iterator[None]:
    """Around the pictures of what has finished: one that cannot be drawn is told, not raised."""
    try:
        yield
    except Exception as error:  # matplotlib raises all kinds
        why = str(error) if isinstance(error, StorageError) else f"{error!r}"
        say(f"the run has finished, but a picture is missing: {why}")


def subject(found: Scores) -> str:
    """What a picture is of: a run or a tuning, and its data."""
    return f"{found['name']} on {found['data']['source']}"


def save_picture(summary: Scores, metrics_path: Path, path: Path) -> None:
    """Draws a run: class counts, scores by class, curves, and the confusion or calibration.

    Args:
      summary: of the run.
      metrics_path: its metrics file.
      path: of the PNG to write.
    """
    made = new_figure(2, 2, (11, 8))
    if made is None:
        return
    figure, ((bars, by_class), (curves, last)) = made
    test, counts = summary["test"]["last"], np.array(summary["data"]["class_counts"])
    name = headline(summary)
    figure.suptitle(
        f"{literal(subject(summary))}: {label(name)} {score_text(summary)} %"
        f" (test, last step, {len(summary['seeds'])} seed(s))"
    )
    # One shape: thousands of bars take matplotlib minutes.
    bars.stairs(counts, np.arange(len(counts) + 1) - 0.5, fill=True)
    bars.set(title="training examples of each class", xlabel="class")
    bars.set_xlim(-0.5, len(counts) - 0.5)
    if counts.any():  # the rarest class has a bar too, on an axis that has no zero
        bars.set_ylim(0.7 * counts[counts > 0].min(), 1.3 * counts.max())
    log_scale(bars, "y")
    whole_numbers(bars.xaxis)
    knob = summary.get("retrain", {}).get("knob")
    if knob is None:
        _draw_curves(curves, read_metrics(metrics_path), name)
    else:
        draw_knob(curves, knob)
    if summary["data"].get("multi_label"):
        _draw_operating_points(by_class, summary)
        _draw_calibration(last, test["replicas"])
    else:
        _draw_accuracy(by_class, summary)
        _draw_confusion(figure, last, test["replicas"])
    write_figure(figure, path)


def _draw_accuracy(axes: Any, summary: Scores) -> None:
    counts = np.array(summary["data"]["class_counts"])
    shown = dict(summary["test"])
    if "stage1" in summary:
        shown["stage 1"] = first_row(summary)["test"]["last"]
    for name, test in shown.items():
        mean = np.array(test["mean"]["per_class"], float)
        std = np.nan_to_num(np.array(test["std"]["per_class"], float))
        axes.errorbar(counts, mean, yerr=std, fmt="o", ms=4, lw=1, label=name.replace("_", " "))
    axes.set(title="accuracy of each class", xlabel="training images of the class")
    log_scale(axes, "x")
    axes.set(ylabel="test accuracy", ylim=(-0.02, 1.02))
    legend_above(axes)


def _draw_operating_points(axes: Any, summary: Scores) -> None:
    """Precision, recall and average precision of each class against its frequency."""
    counts, test = np.array(summary["data"]["class_counts"]), summary["test"]["last"]
    for score, name, marker in (
        ("precision", "precision", "^"),
        ("recall", "recall", "v"),
        ("ap", "average precision", "o"),
    ):
        mean = np.array(test["mean"][f"per_class_{score}"], float)
        std = np.nan_to_num(np.array(test["std"][f"per_class_{score}"], float))
        axes.errorbar(counts, mean, yerr=std, fmt=marker, ms=4, lw=1, label=name)
    axes.set(title="scores of each class", xlabel="training positives of the class")
    log_scale(axes, "x")
    axes.set(ylabel="test score", ylim=(-0.02, 1.02))
    legend_above(axes)


def _draw_calibration(axes: Any, replicas: Sequence[Scores]) -> None:
    """How many of the entries with a predicted probability are positive, over all classes."""
    found = np.sum(
        [[r["histograms"][kind] for kind in ("positives", "negatives")] for r in replicas],
        axis=(0, 2),
    )
    total = found.sum(axis=0)
    middle = (np.arange(len(total)) + 0.5) / len(total)
    axes.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    axes.plot(middle[total > 0], (found[0] / np.maximum(total, 1))[total > 0], "o-", ms=4)
    axes.set(title="calibration over all classes", xlabel="predicted probability (middle of bin)")
    axes.set(ylabel="share of positives", ylim=(-0.02, 1.02), xlim=(0, 1))


_BLOCKS = ("-", "--", ":", "-.")


def _draw_curves(axes: Any, rows: Sequence[Scores], score: str) -> None:
    for split, name, colour in (("train", "loss", "tab:blue"), ("validation", score, "tab:orange")):
        chosen = [row for row in rows if row["split"] == split]
        if not chosen:
            continue
        twin = axes if split == "train" else axes.twinx()
        twin.set_ylabel(f"{split} {label(name)}", color=colour)
        for block in sorted({row.get("block", 0) for row in chosen}):  # of a division, each anew
            own = [row for row in chosen if row.get("block", 0) == block]
            steps, values = [r["step"] for r in own], np.array([r[name] for r in own])
            # A single point is no line.
            style = _BLOCKS[block % len(_BLOCKS)] + ("" if len(own) > 1 else "o")
            twin.plot(steps, values, style, color=colour, lw=0.5, alpha=0.4)
            twin.plot(steps, values.mean(axis=1), style, color=colour, lw=1.5)
    title = "curves (thick: mean over seeds)"
    if any("block" in row for row in rows):
        title += ", a line style a block"
    axes.set(title=title, xlabel="step")


def draw_knob(axes: Any, knob: Scores) -> None:
    """Draws the validation scores of every value of a knob, and their mean over seeds."""
    axes.set(title=f"choice of {knob['name']} (thick: mean over seeds)", xlabel=knob["name"])
    axes.set_ylabel("validation balanced accuracy")
    scores = knob["validation_balanced_accuracy"]
    if scores is None:
        chosen = knob["values"][0]
        axes.text(0.5, 0.5, f"no validation split: {chosen}", ha="center", transform=axes.transAxes)
        return
    numbers = all(isinstance(value, (int, float)) for value in knob["values"])
    places = knob["values"] if numbers else [str(value) for value in knob["values"]]
    axes.plot(places, np.transpose(scores), "o-", color="tab:orange", ms=2, lw=0.5, alpha=0.4)
    axes.plot(places, np.mean(scores, axis=0), "o-", color="tab:orange", lw=1.5)


def _draw_confusion(figure: Any, axes: Any, replicas: Sequence[Scores]) -> None:
    if "confusion" not in replicas[0]:  # it is not kept of so many classes
        axes.axis("off")
        return
    share = confusion_shares(replicas)
    image = axes.imshow(share, vmin=0, vmax=1, cmap=confusion_colours())
    figure.colorbar(image, ax=axes)
    grey = "; grey: no test images" if np.isnan(share).any() else ""
    axes.set(title=f"confusion (rows sum to 1{grey})", xlabel="predicted class", ylabel="class")
    whole_numbers(axes.xaxis, axes.yaxis)


def confusion_shares(replicas: Sequence[Scores]) -> npt.NDArray[np.float64]:
    """Where the test images of each class (row) went, over all seeds; NaN of one without any."""
    total = np.sum([r["confusion"] for r in replicas], axis=0, dtype=float)
    images = total.sum(axis=1, keepdims=True)
    return np.where(images > 0, total / np.maximum(images, 1), np.nan)


def confusion_colours() -> Any:
    """Those of a confusion: grey, on light and dark ground, where there is nothing."""
    from matplotlib import colormaps

    return colormaps["viridis"].with_extremes(bad="#80808066")


def save_comparison(summaries: Sequence[Scores], path: Path) -> None:
    """Draws several runs side by side: headline scores, and accuracy by class.

    Args:
      summaries: of finished runs on the same data.
      path: of the PNG to write.
    """
    made = new_figure(1, 2, (13, 5))
    if made is None:
        return
    figure, (means, lines) = made
    names = [n for n in main_columns(summaries[0]) if _mean_of(summaries[0], n) is not None]
    counts = np.array(summaries[0]["data"]["class_counts"])
    order = np.argsort(-counts, kind="stable")  # or the tail of a set by name is not at the end
    width = 0.8 / len(summaries)
    for i, summary in enumerate(summaries):
        test, style = summary["test"]["last"], _style(i)
        mean = np.array([_mean_of(summary, n) for n in names], float)
        std = [test["std"][n] or 0.0 for n in names]
        place = np.arange(len(names)) + (i - (len(summaries) - 1) / 2) * width
        means.errorbar(place, mean, std, ms=5, lw=1.5, capsize=2, **style | {"linestyle": ""})
        per_class = np.array(test["mean"][_by_class(summary)], float)
        lines.plot(per_class[order], ms=3, lw=1, label=literal(summary["name"]), **style)
    for edge in range(1, len(names)):
        means.axvline(edge - 0.5, color="0.85", lw=0.8)
    means.set_xticks(range(len(names)), [label(n).replace(" ", "\n") for n in names], fontsize=8)
    means.set(ylabel="test score", title=f"mean and deviation, {len(summaries[0]['seeds'])} seeds")
    ticks = range(0, len(counts), max(1, len(counts) // 10))
    lines.set_xticks(ticks, [f"{order[t]}\n({counts[order[t]]})" for t in ticks], fontsize=7)
    kind = "AP" if summaries[0]["data"].get("multi_label") else "accuracy"
    lines.set(title=f"{kind} of each class", ylabel=f"test {kind}")
    lines.set_xlabel("class, from the most frequent (training examples)")
    for axes in (means, lines):
        axes.grid(axis="y", alpha=0.3)
    # Beside the panel: inside it would hide some.
    lines.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_figure(figure, path)


def _style(number: int) -> dict[str, Any]:
    """Colour, marker and line of the run of that number: the ten colours come again, not the rest.

    Example:
      >>> [_style(n)["color"] + _style(n)["marker"] for n in (0, 9, 10)]
      ['C0o', 'C9o', 'C0s']
    """
    turn = number // 10
    return {
        "color": f"C{number % 10}",
        "marker": "os^Dv"[turn % 5],
        "linestyle": _BLOCKS[turn % len(_BLOCKS)],
    }


def _mean_of(summary: Scores, name: str) -> Any:
    return summary["test"]["last"]["mean"][name]


def _by_class(summary: Scores) -> str:
    return "per_class_ap" if summary["data"].get("multi_label") else "per_class"
