"""Pictures of partial label masking: its ratios over time, and what they do to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_jax.joining import joined_rows, seed_folders
from lt_jax.picture_axes import log_scale
from lt_jax.pictures import literal, new_figure, subject, write_figure
from lt_jax.summaries import Scores, row_name
from lt_jax.workdir import METRICS
from lt_jax.writers import OBJECTIVE, read_metrics

_POSITIVE, _NEGATIVE = "tab:orange", "tab:blue"


def history(*metrics_paths: Path) -> dict[str, np.ndarray]:
    """What partial label masking remembered after each epoch, mean over seeds.

    Args:
      *metrics_paths: file of a run, or those of runs that differ in their seeds alone.

    Returns:
      ``epoch [T]`` and, ``[T, C]`` each, ``ratio``, ``ideal_ratio``, ``divergence_positives`` and
      ``divergence_negatives``; empty if the run has no masks.
    """
    parts = [read_metrics(path) for path in metrics_paths if path.exists()]
    if not parts:  # of a classifier that was computed
        return {}
    rows = [row for row in joined_rows(parts) if row["split"] == OBJECTIVE]
    names = ("ratio", "ideal_ratio", "divergence_positives", "divergence_negatives")
    if not rows or any(name not in rows[0] for name in names):
        return {}
    found = {name: np.array([row[name] for row in rows], float).mean(axis=1) for name in names}
    return {"epoch": np.array([row["epoch"] for row in rows]), **found}


def save_history(summary: Scores, metrics_path: Path, path: Path) -> None:
    """Draws ideal ratios and divergences of every class over the epochs of a run with masks.

    Does nothing for a run without.

    Args:
      summary: of the run.
      metrics_path: its metrics file.
      path: of the PNG to write.
    """
    past = history(metrics_path)
    made = new_figure(1, 3, (14, 4.5)) if past else None
    if made is None:
        return
    figure, panels = made
    figure.suptitle(f"{literal(subject(summary))}: mean over seeds")
    counts = summary["data"]["class_counts"]
    for axes, draw in zip(panels, history_panels(past, counts).values(), strict=True):
        draw(axes)
    draw_scale(figure, panels, counts)
    write_figure(figure, path)


def history_panels(
    past: dict[str, np.ndarray], counts: Sequence[int]
) -> dict[str, Callable[[Any], None]]:
    """What draws the ideal ratios and both divergences of every class.

    Args:
      past: from `history`.
      counts: training positives of each class.

    Returns:
      Functions of the axes to draw on, by title.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = past["ideal_ratio"] / past["ratio"]

    def drawing(title: str, values: np.ndarray, unit: str) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            _draw_classes(axes, past["epoch"], values, counts)
            axes.set(title=title, xlabel="epoch", ylabel=unit)
            if values is factor:
                axes.axhline(1.0, color="black", lw=0.8, ls=":")
                log_scale(axes, "y")

        return draw

    shown = {
        "ideal ratio / ratio of the labels": (factor, "above 1: negatives are masked"),
        "divergence of the positives": (past["divergence_positives"], "KL, nats"),
        "divergence of the negatives": (past["divergence_negatives"], "KL, nats"),
    }
    return {title: drawing(title, *values) for title, values in shown.items()}


def _colours(counts: Sequence[int]) -> Any:
    """A colour for each class: the more positives, the brighter."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    seen = np.maximum(np.asarray(counts, float), 1)
    return ScalarMappable(
        LogNorm(seen.min(), max(seen.max(), seen.min() + 1)), colormaps["viridis"]
    )


def _draw_classes(axes: Any, x: np.ndarray, values: np.ndarray, counts: Sequence[int]) -> None:
    colours = _colours(counts)
    for c, line in enumerate(values.T):
        axes.plot(x, line, color=colours.to_rgba(max(counts[c], 1)), lw=1.2)


def draw_scale(figure: Any, axes: Any, counts: Sequence[int]) -> None:
    """Draws which colour is that of how frequent a class, beside axes of `history_panels`."""
    figure.colorbar(_colours(counts), ax=axes, label="positives of the class in training")


def save_masking(
    before: Scores, after: Scores, metrics_path: Path, path: Path, *further: Path
) -> None:
    """Draws what masking does: probabilities of three classes without it and with it, and why.

    A row for the most frequent class, one in the middle and the rarest; predicted probabilities of
    test positives and negatives, of both runs; the ratio that the loss of the second one sees.

    Args:
      before: summary of a run without masks.
      after: summary of a run with them, on the same data.
      metrics_path: metrics file of the latter.
      path: of the PNG to write.
      *further: metrics files of the other runs, with other seeds, that it was joined of.
    """
    past = history(metrics_path, *further)
    counts = np.array(after["data"]["class_counts"])
    order = [c for c in np.argsort(-counts, kind="stable") if _has_both(after, c)]
    made = new_figure(3, 3, (13, 9.5)) if past and len(order) >= 3 else None
    if made is None:
        return
    figure, grid = made
    figure.suptitle(
        f"{literal(after['data']['source'])}: probabilities on test without and with partial label"
        " masking"
    )
    for row, c in zip(grid, (order[0], order[len(order) // 2], order[-1]), strict=True):
        total, name = after["data"]["total_train"], literal(_class_name(after, c))
        row[0].set_ylabel(f"class {name}: {counts[c]} of {total}\nshare of the examples")
        _draw_histograms(row[0], before, c)
        _draw_histograms(row[1], after, c)
        _draw_ratio(row[2], past, c)
    grid[0][0].legend(fontsize=8)
    write_figure(figure, path)


def save_masking_of_table(summaries: Sequence[Scores], folder: Path, path: Path) -> None:
    """Draws what masking does, if a table has a run with it and the same one without.

    Args:
      summaries: of finished runs.
      folder: in which each has a folder of its own, by row.
      path: of the PNG to write.
    """
    multi = [s for s in summaries if s["data"].get("multi_label")]
    masked = [s for s in multi if _transforms(s) == {"partial_label_mask"}]
    plain = [s for s in multi if not _transforms(s)]
    for after in masked[:1]:
        for before in plain:
            if before["config"]["objective"]["base"] == after["config"]["objective"]["base"]:
                own = Path(after["name"]) / METRICS
                further = [block / own for block, _ in seed_folders(folder)]
                save_masking(before, after, folder / own, path, *further)


def _transforms(summary: Scores) -> set[str]:
    return set(summary["config"]["objective"]["transforms"])


def _class_name(summary: Scores, c: int) -> str:
    names = summary["data"].get("class_names")
    return str(names[c]) if names else str(c)


def _histograms(summary: Scores, c: int) -> np.ndarray:
    """Counts of positives and negatives of a class by probability, ``[2, bins]``, of all seeds."""
    each = [r["histograms"] for r in summary["test"]["last"]["replicas"]]
    return np.sum([[h["positives"][c], h["negatives"][c]] for h in each], axis=0)


def _has_both(summary: Scores, c: int) -> bool:
    return bool((_histograms(summary, c).sum(axis=1) > 0).all())


def _draw_histograms(axes: Any, summary: Scores, c: int) -> None:
    found = _histograms(summary, c)
    share = found / found.sum(axis=1, keepdims=True)
    edges = np.linspace(0, 1, share.shape[1] + 1)
    for values, name, colour in (
        (share[1], "negatives", _NEGATIVE),
        (share[0], "positives", _POSITIVE),
    ):
        axes.stairs(values, edges, fill=True, alpha=0.45, color=colour, label=name)
    axes.axvline(0.5, color="black", lw=0.8, ls=":")
    test = summary["test"]["last"]["mean"]
    recall, precision = test["per_class_recall"][c], test["per_class_precision"][c]
    axes.set_title(
        f"{literal(row_name(summary))}: recall {100 * recall:.0f} %,"
        f" precision {100 * precision:.0f} %",
        fontsize=10,
    )
    axes.set(xlabel="predicted probability", ylim=(0, 1))


def _draw_ratio(axes: Any, past: dict[str, np.ndarray], c: int) -> None:
    axes.plot(past["epoch"], past["ratio"][:, c], color="black", ls=":")
    axes.plot(past["epoch"], past["ideal_ratio"][:, c], color="tab:green")
    axes.set(xlabel="epoch")
    log_scale(axes, "y")
    axes.set_title("positives / negatives: of the labels (dotted), ideal (green)", fontsize=9)
    twin = axes.twinx()
    for name, colour in (("positives", _POSITIVE), ("negatives", _NEGATIVE)):
        twin.plot(past["epoch"], past[f"divergence_{name}"][:, c], color=colour, lw=1, alpha=0.7)
    twin.set_ylabel("divergence of positives, negatives", fontsize=8)
    twin.set_ylim(0, None)
