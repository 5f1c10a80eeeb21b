"""Pictures of runs; drawn without a screen, and only if matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_jax.report import Scores, row_name, with_deviation
from lt_jax.reported import reported_for
from lt_jax.writers import read_metrics, say


def _new_figure(rows: int, columns: int, size: tuple[float, float]) -> Any:
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


def save_picture(summary: Scores, metrics_path: Path, path: Path) -> None:
    """Draws a run: class counts, accuracy by class, curves and the confusion matrix.

    Args:
      summary: of the run.
      metrics_path: its metrics file.
      path: of the PNG to write.
    """
    made = _new_figure(2, 2, (11, 8))
    if made is None:
        return
    figure, ((bars, accuracy), (curves, confusion)) = made
    test, counts = summary["test"]["last"], np.array(summary["data"]["class_counts"])
    score = with_deviation(test["mean"]["balanced_accuracy"], test["std"]["balanced_accuracy"])
    figure.suptitle(
        f"{summary['name']} on {summary['data']['source']}: balanced accuracy {score} %"
        f" (test, last step, {len(summary['seeds'])} seed(s))"
    )
    bars.bar(np.arange(len(counts)), counts, width=0.9)
    bars.set(title="training images", xlabel="class", ylabel="images", yscale="log")
    _draw_accuracy(accuracy, summary)
    knob = summary.get("retrain", {}).get("knob")
    if knob is None:
        _draw_curves(curves, read_metrics(metrics_path))
    else:
        _draw_knob(curves, knob)
    _draw_confusion(figure, confusion, test["replicas"])
    figure.savefig(path, dpi=110)


def _draw_accuracy(axes: Any, summary: Scores) -> None:
    counts = np.array(summary["data"]["class_counts"])
    shown = dict(summary["test"])
    if "stage1" in summary:
        shown["stage 1, last"] = summary["stage1"]["test"]["last"]
    for name, test in shown.items():
        mean = np.array(test["mean"]["per_class"], float)
        std = np.nan_to_num(np.array(test["std"]["per_class"], float))
        axes.errorbar(counts, mean, yerr=std, fmt="o", ms=4, lw=1, label=name.replace("_", " "))
    axes.set(title="accuracy of each class", xlabel="training images of the class", xscale="log")
    axes.set(ylabel="test accuracy", ylim=(-0.02, 1.02))
    axes.legend()


def _draw_curves(axes: Any, rows: Sequence[Scores]) -> None:
    for split, name, colour, twin in (
        ("train", "loss", "tab:blue", axes),
        ("validation", "balanced_accuracy", "tab:orange", axes.twinx()),
    ):
        chosen = [row for row in rows if row["split"] == split]
        twin.set_ylabel(f"{split} {name.replace('_', ' ')}", color=colour)
        if not chosen:
            continue
        steps, values = [r["step"] for r in chosen], np.array([r[name] for r in chosen])
        twin.plot(steps, values, color=colour, lw=0.5, alpha=0.4)
        twin.plot(steps, values.mean(axis=1), color=colour, lw=1.5)
    axes.set(title="curves (thick: mean over seeds)", xlabel="step")


def _draw_knob(axes: Any, knob: Scores) -> None:
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
    total = np.sum([r["confusion"] for r in replicas], axis=0)
    share = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(image, ax=axes)
    axes.set(title="confusion (rows sum to 1)", xlabel="predicted class", ylabel="class")


def save_comparison(summaries: Sequence[Scores], path: Path) -> None:
    """Draws several runs side by side: headline scores, and accuracy by class.

    Args:
      summaries: of finished runs on the same data.
      path: of the PNG to write.
    """
    made = _new_figure(1, 2, (13, 5))
    if made is None:
        return
    figure, (bars, lines) = made
    names = ("balanced_accuracy", "many", "medium", "few")
    width = 0.8 / len(summaries)
    for i, summary in enumerate(summaries):
        test = summary["test"]["last"]
        mean = [test["mean"][n] if test["mean"][n] is not None else np.nan for n in names]
        std = [test["std"][n] or 0.0 for n in names]
        place = np.arange(len(names)) + (i - (len(summaries) - 1) / 2) * width
        bars.bar(place, mean, width, yerr=std, capsize=2, label=summary["name"])
        per_class = np.array(test["mean"]["per_class"], float)
        lines.plot(per_class, "o-", ms=3, lw=1, label=summary["name"])
    bars.set_xticks(range(len(names)), [n.replace("_", " ") for n in names])
    bars.set(
        ylabel="test accuracy", title=f"mean and deviation, {len(summaries[0]['seeds'])} seeds"
    )
    counts = summaries[0]["data"]["class_counts"]
    ticks = range(0, len(counts), max(1, len(counts) // 10))
    lines.set_xticks(list(ticks), [f"{c}\n({counts[c]})" for c in ticks], fontsize=7)
    lines.set(title="accuracy of each class", xlabel="class (training images)", ylim=(0, 1.02))
    lines.set_ylabel("test accuracy")
    lines.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)


def save_ranking(
    summaries: Sequence[Scores], path: Path, *, reported: Sequence[Mapping[str, str]] = ()
) -> None:
    """Draws the rows of a table: balanced accuracy with each seed, first stages, reported numbers.

    Args:
      summaries: of finished runs on the same data.
      path: of the PNG to write.
      reported: from `lt_jax.reported.read_reported`.
    """
    made = _new_figure(1, 1, (9, 1.2 + 0.42 * len(summaries)))
    if made is None:
        return
    figure, axes = made
    used = {"seed"}
    for y, summary in enumerate(summaries):
        test = summary["test"]["last"]
        score = 100 * test["mean"]["balanced_accuracy"]
        axes.barh(y, score, height=0.6, color="tab:blue", alpha=0.35)
        seeds = [100 * replica["balanced_accuracy"] for replica in test["replicas"]]
        axes.plot(seeds, [y] * len(seeds), "o", color="tab:blue", ms=3)
        if "stage1" in summary:
            mean = summary["stage1"]["test"]["last"]["mean"]["balanced_accuracy"]
            axes.plot(100 * mean, y, "d", color="tab:orange", ms=6)
            used.add("its stage 1")
        known = reported_for(reported, summary["config"], row_name(summary)) if reported else []
        for number in known:
            axes.plot(number.value, y, "|", color="black", ms=16, mew=2)
            used.add("reported")
    for name, marker, colour in (
        ("seed", "o", "tab:blue"),
        ("its stage 1", "d", "tab:orange"),
        ("reported", "|", "black"),
    ):
        if name in used:
            axes.plot([], [], marker, color=colour, label=name, ls="")
    axes.set_yticks(range(len(summaries)), [row_name(s) for s in summaries])
    axes.invert_yaxis()
    low = min(r["balanced_accuracy"] for s in summaries for r in s["test"]["last"]["replicas"])
    axes.set(xlabel="balanced accuracy on test, %", xlim=(max(0.0, 100 * low - 10), None))
    axes.grid(axis="x", alpha=0.3)
    # Beside the bars: inside it would hide some.
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=110)
