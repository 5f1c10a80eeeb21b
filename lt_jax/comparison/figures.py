"""Figures that compare runs by their summaries: scores, classes, calibration, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from lt_jax.comparison.runs import Finished, Group
from lt_jax.comparison.significance import Paired
from lt_jax.comparison.svg import SIZE, panel, style_of
from lt_jax.files import printable
from lt_jax.picture_axes import log_scale, whole_numbers
from lt_jax.pictures import confusion_colours, confusion_shares
from lt_jax.summaries import Scores, headline, label

Vector = npt.NDArray[np.float64]
SINGLE_CLASSES = 30  # of more classes means of about equally frequent ones are drawn
FREQUENCIES = 12  # so many of those
WRITTEN = 12  # classes up to which the numbers stand in a heat map
FEW_RUNS = 7  # of more, deviations would hide each other
LARGE = (7.0, 4.8)  # inches
PER_CLASS = {"per_class": "accuracy"}
PER_CLASS_MULTI = {"per_class_recall": "recall", "per_class_ap": "average precision"}


def per_class_scores(group: Group) -> dict[str, str]:
    """Scores that every class has, with their names."""
    return PER_CLASS_MULTI if group.multi_label else PER_CLASS


def scores_panels(group: Group, paired: Mapping[str, Paired]) -> list[Markup]:
    """The headline score with each seed, and differences to the baseline with their intervals.

    Args:
      group: of runs.
      paired: by name of the run.

    Returns:
      One panel, or two if there is a difference with an interval; none where no run has the score,
      as mAP on a test split without positive labels.
    """
    runs, name = group.runs, headline(group.baseline.summary)
    size = (SIZE[0], 1.0 + 0.36 * len(runs))
    scored = {
        y: r for y, r in enumerate(runs) if r.summary["test"]["last"]["mean"][name] is not None
    }
    if not scored:
        return []
    shown: dict[int, Any] = {
        y: paired[run.name]
        for y, run in enumerate(runs)
        if run.name in paired and paired[run.name].p is not None
    }

    def seeds(axes: Any) -> None:
        for y, run in scored.items():
            test, colour = run.summary["test"]["last"], style_of(y)["color"]
            values = [100 * replica[name] for replica in test["replicas"]]
            axes.plot(values, [y] * len(values), "o", ms=4, mfc="none", color=colour)
            axes.plot([100 * test["mean"][name]], [y], "|", ms=16, mew=2.5, color=colour)
        _name_rows(axes, runs, f"{label(name)} on test, %")

    def differences(axes: Any) -> None:
        axes.axvline(0, color="black", lw=1, ls=":")
        for y, d in shown.items():
            style = style_of(y)
            axes.plot([100 * d.low, 100 * d.high], [y, y], color=style["color"], lw=2)
            axes.plot([100 * d.mean], [y], style["marker"], ms=6, color=style["color"])
        _name_rows(axes, runs, "difference in points")

    found = [panel(seeds, f"{label(name)} of every run: each seed, and the mean", size=size)]
    if shown:
        alt = f"Differences in {label(name)} to {group.baseline.name}, with 95 % intervals"
        found.append(panel(differences, alt, size=size))
    return found


def _name_rows(axes: Any, runs: Sequence[Finished], xlabel: str) -> None:
    # A name may have dollars, which would be taken for mathematics.
    axes.set_yticks(range(len(runs)), [run.name for run in runs], parse_math=False)
    axes.set(xlabel=xlabel, ylim=(len(runs) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)


def class_panels(group: Group) -> list[Markup]:
    """Scores of every class against its frequency in training, of all runs."""
    few, scores = len(group.runs) <= FEW_RUNS, per_class_scores(group)

    def draw(axes: Any, score: str, name: str) -> None:
        for number, run in enumerate(group.runs):
            x, y, deviation = by_frequency(run.summary, score)
            bars = deviation if few else None
            axes.errorbar(x, y, yerr=bars, lw=1.3, ms=4.5, elinewidth=0.7, **style_of(number))
        axes.set(xlabel=f"training {_examples(group)} of the class")
        log_scale(axes, "x")
        axes.set(ylabel=f"test {name}, %", ylim=(-2, 102))

    return [
        panel(
            lambda axes, s=score, n=name: draw(axes, s, n),
            f"Test {name} of each class against its number of training {_examples(group)}",
            size=SIZE if few and len(scores) > 1 else LARGE,  # one by itself has the whole width
        )
        for score, name in scores.items()
        if any(len(by_frequency(run.summary, score)[0]) for run in group.runs)
    ]


def _examples(group: Group) -> str:
    return "positives" if group.multi_label else "images"


def by_frequency(summary: Scores, score: str) -> tuple[Vector, Vector, Vector | None]:
    """A score of the classes in % by their frequency; of many classes, means of neighbours.

    Args:
      summary: of a run.
      score: such as ``"per_class"``.

    Returns:
      Frequencies, scores and deviations over seeds; the latter None where means are taken.
    """
    test = summary["test"]["last"]
    # A class may be absent from training, which a logarithm does not show.
    counts = np.maximum(np.array(summary["data"]["class_counts"], float), 0.5)
    mean = 100 * np.array(test["mean"][score], float)
    order = np.argsort(counts, kind="stable")
    order = order[~np.isnan(mean[order])]
    if len(counts) <= SINGLE_CLASSES:
        deviation = 100 * np.nan_to_num(np.array(test["std"][score], float))
        return counts[order], mean[order], deviation[order]
    parts = [part for part in np.array_split(order, FREQUENCIES) if len(part)]
    x = [np.exp(np.log(counts[part]).mean()) for part in parts]
    return np.array(x), np.array([mean[part].mean() for part in parts]), None


def has_calibration(run: Finished) -> bool:
    """Whether a run kept what a reliability diagram needs; earlier versions did not."""
    return "calibration" in run.summary["test"]["last"]["replicas"][0]


def calibration_panels(group: Group) -> list[Markup]:
    """A reliability diagram, and how many predictions are in each bin, of runs that have them."""
    found = {
        i: reliability(run.summary) for i, run in enumerate(group.runs) if has_calibration(run)
    }
    if not found:
        return []
    what = (
        ("probability", "share of positives") if group.multi_label else ("confidence", "accuracy")
    )

    def diagram(axes: Any) -> None:
        axes.plot([0, 100], [0, 100], color="black", lw=0.8, ls=":")
        for number, (predicted, observed, _) in found.items():
            axes.plot(predicted, observed, ms=4.5, lw=1.3, **style_of(number))
        axes.set(xlabel=f"mean {what[0]} of the bin, %", ylabel=f"{what[1]}, %")
        axes.set(xlim=(0, 100), ylim=(-2, 102))

    def sizes(axes: Any) -> None:
        for number, (predicted, _, share) in found.items():
            axes.plot(predicted, share, ms=4.5, lw=1.3, **style_of(number))
        axes.set(xlabel=f"mean {what[0]} of the bin, %", ylabel="predictions in the bin, %")
        axes.set(xlim=(0, 100), ylim=(0, None))

    return [
        panel(diagram, f"Reliability diagram: {what[1]} against {what[0]}"),
        panel(sizes, f"Share of the predictions in each bin of {what[0]}"),
    ]


def reliability(summary: Scores) -> tuple[Vector, Vector, Vector]:
    """Bins of all seeds together that hold predictions.

    Args:
      summary: of a run.

    Returns:
      Mean prediction, share that came true, share of all predictions, in %.
    """
    bins = [replica["calibration"] for replica in summary["test"]["last"]["replicas"]]
    count, observed, predicted = (
        np.sum([b[name] for b in bins], axis=0, dtype=float)
        for name in ("count", "observed", "predicted")
    )
    used = count > 0
    n = count[used]
    return 100 * predicted[used] / n, 100 * observed[used] / n, 100 * n / count.sum()


def confusion_panels(group: Group) -> list[Markup]:
    """Row-normalised confusions over all seeds, of runs that kept them."""
    return [
        _confusion_panel(run)
        for run in group.runs
        if "confusion" in run.summary["test"]["last"]["replicas"][0]
    ]


def _confusion_panel(run: Finished) -> Markup:
    share = 100 * confusion_shares(run.summary["test"]["last"]["replicas"])

    def draw(figure: Any, axes: Any) -> None:
        image = axes.imshow(share, vmin=0, vmax=100, cmap=confusion_colours())
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted class", ylabel="class")
        axes.set_title(run.name, parse_math=False)
        if len(share) > WRITTEN:
            figure.colorbar(image, ax=axes, label="% of the class's test images")
            whole_numbers(axes.xaxis, axes.yaxis)
            return
        names = [_short(name) for name in _class_names(run.summary)]
        rotation = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(len(share)), names, rotation=rotation, parse_math=False)
        axes.set_yticks(range(len(share)), names, parse_math=False)
        for (row, column), value in np.ndenumerate(share):
            # Not black and white, which would turn with the scheme of the page.
            ink = "#101010" if value > 60 else "#f8f8f8"
            text = f"{value:.0f}" if value >= 0.5 else ""
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8)

    alt = f"Confusion of {run.name}: of each class's test images, how many per cent went where"
    if np.isnan(share).any():
        alt += "; a class without is grey"
    return panel(draw, alt, size=(4.6, 4.2), figure=True)


def _class_names(summary: Scores) -> list[str]:
    data = summary["data"]
    return [printable(str(n)) for n in data.get("class_names") or range(len(data["class_counts"]))]


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"
