"""Figures of how runs went: curves with their band, PLM's ratios, what a division did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from lt_jax import workdir
from lt_jax.comparison.runs import Finished, Group
from lt_jax.comparison.svg import panel, style_of
from lt_jax.dividing import LATENTS
from lt_jax.dividing_pictures import division_panels
from lt_jax.files import is_remote
from lt_jax.joining import joined_rows
from lt_jax.masking_pictures import draw_scale, history, history_panels
from lt_jax.npz import read_npz
from lt_jax.picture_axes import legend_above
from lt_jax.summaries import headline, label
from lt_jax.writers import read_metrics

Vector = npt.NDArray[np.float64]
Rows = Sequence[dict[str, Any]]
POINTS = 200  # of a curve; of more, means of neighbours are drawn


class Curve(NamedTuple):
    """A number over the epochs, or steps.

    Attributes:
      place: epoch or step, ``[T]``.
      mean: over seeds, ``[T]``.
      deviation: over seeds, ``[T]``; zeros of a single one.
    """

    place: Vector
    mean: Vector
    deviation: Vector


def curve(rows: Rows, split: str, name: str, by: str = "epoch") -> Curve | None:
    """A number of a metrics file over the epochs.

    Args:
      rows: of the file.
      split: such as ``"train"``.
      name: of the number.
      by: ``"epoch"`` or ``"step"``.

    Returns:
      The curve; None if no row has it.
    """
    chosen = [r for r in rows if r["split"] == split and name in r and by in r]
    if not chosen:
        return None
    values = np.array([np.atleast_1d(r[name]) for r in chosen], float)
    place = np.array([r[by] for r in chosen], float)
    parts = np.array_split(np.arange(len(place)), min(POINTS, len(place)))
    values = np.array([values[part].mean(axis=0) for part in parts])
    deviation = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
    return Curve(np.array([place[p].mean() for p in parts]), values.mean(axis=1), deviation)


def _metrics_files(run: Finished) -> dict[int, list[Path]]:
    """Those that there are by stage, of each part of a run."""
    found: dict[int, list[Path]] = {}
    for part in run.parts or (run,):
        folders = part.stages
        first = 2 if len(folders) == 1 and "stage1" in run.summary else 1
        for stage, folder in enumerate(folders, first):
            if (folder / workdir.METRICS).exists():
                found.setdefault(stage, []).append(folder / workdir.METRICS)
    return found


def stage_rows(run: Finished) -> dict[int, Rows]:
    """Rows of the metrics files of a run by stage; those of a stage that has none are left out."""
    found = {
        stage: joined_rows([read_metrics(file) for file in files])
        for stage, files in _metrics_files(run).items()
    }
    return {stage: rows for stage, rows in found.items() if any("epoch" in row for row in rows)}


def curve_panels(group: Group, rows: Sequence[Rows]) -> list[Markup]:
    """Loss, validation score and learning rate over the epochs of a stage.

    Args:
      group: of runs.
      rows: of the metrics files of the stage, for each run; none of a run that has no such stage.

    Returns:
      Panels of what at least one run has.
    """
    score = headline(group.baseline.summary)
    shown = (
        ("train", "loss", "training loss", 1.0, "log"),
        ("validation", score, f"validation {label(score)}, %", 100.0, "linear"),
        ("train", "learning_rate", "learning rate", 1.0, "linear"),
    )
    panels = []
    for split, name, title, factor, scale in shown:
        curves = {i: c for i, r in enumerate(rows) if (c := curve(r, split, name)) is not None}
        if curves:
            draw = _drawing(curves, title, factor, scale)
            panels.append(panel(draw, f"{title} by epoch: mean over seeds, with its deviation"))
    return panels


def _drawing(
    curves: dict[int, Curve], title: str, factor: float, scale: str
) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for number, c in curves.items():
            style = style_of(number)
            if len(c.place) > 1:  # a single point needs its marker
                style["marker"] = ""
            mean, deviation = factor * c.mean, factor * c.deviation
            low = mean - deviation
            if scale == "log":  # a deviation larger than the mean has no lower end there
                low = np.maximum(low, mean / 10)
            axes.fill_between(c.place, low, mean + deviation, color=style["color"], alpha=0.2, lw=0)
            axes.plot(c.place, mean, lw=1.5, **style)
        axes.set(xlabel="epoch", ylabel=title, yscale=scale)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return draw


def mask_panels(run: Finished) -> list[Markup]:
    """Ideal ratios and divergences of partial label masking; none if a run has no masks."""
    past = next((p for files in _metrics_files(run).values() if (p := history(*files))), None)
    if past is None:
        return []
    counts = run.summary["data"]["class_counts"]

    def with_scale(draw: Callable[[Any], None]) -> Callable[[Any, Any], None]:
        def both(figure: Any, axes: Any) -> None:
            draw(axes)
            draw_scale(figure, axes, counts)

        return both

    return [
        panel(with_scale(draw), f"{run.name}: {title} of every class by epoch", figure=True)
        for title, draw in history_panels(past, counts).items()
    ]


def division_markup(run: Finished) -> list[Markup]:
    """What a division did: the panels of its picture, and the loss of its flows by block."""
    if "division" not in run.summary:
        return []
    folder = run.stages[-1]
    drawn = dict(division_panels(run.summary, _latents(folder)))
    if (folder / workdir.METRICS).exists():
        drawn["loss of the flows by block"] = _flow_losses(read_metrics(folder / workdir.METRICS))
    return [panel(draw, f"{run.name}: {title}") for title, draw in drawn.items()]


def _flow_losses(rows: Rows) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for block in sorted({row["block"] for row in rows if "block" in row}):
            own = [row for row in rows if row.get("block") == block]
            found = curve(own, "train", "loss", by="step")
            if found is not None:
                style = style_of(block) | {"marker": ""}
                axes.plot(found.place, found.mean, lw=1.5, label=f"block {block + 1}", **style)
        axes.set(title="loss of the flow, mean over seeds", xlabel="step", ylabel="training loss")
        legend_above(axes)

    return draw


def _latents(folder: Path) -> dict[str, npt.NDArray[Any]] | None:
    path = folder / LATENTS  # NumPy reads none in a bucket
    return None if is_remote(path) or not path.exists() else read_npz(path)
