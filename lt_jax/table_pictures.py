"""The picture of a table: its rows with their seeds, first stages and reported numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_jax.pictures import literal, new_figure, write_figure
from lt_jax.reported import reported_for
from lt_jax.summaries import Scores, compared, headline, label, row_name


def save_ranking(
    summaries: Sequence[Scores], path: Path, *, reported: Sequence[Mapping[str, str]] = ()
) -> None:
    """Draws the rows of a table: the compared scores with each seed, first stages, reported ones.

    Args:
      summaries: of finished runs on the same data.
      path: of the PNG to write.
      reported: from `lt_jax.reported.read_reported`.
    """
    scores = compared(summaries[0])
    size = (5 + 4 * len(scores), 1.2 + 0.42 * len(summaries))
    made = new_figure(1, len(scores), size) if scores else None
    if made is None:
        return
    figure, panels = made
    panels = np.atleast_1d(panels)
    used = [
        _draw_rows(axes, summaries, s, reported) for axes, s in zip(panels, scores, strict=True)
    ]
    names = [literal(row_name(s)) for s in summaries]
    for axes in panels:
        axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
    for name, (marker, colour) in _MARKS.items():
        if any(name in u for u in used):
            panels[-1].plot([], [], marker, color=colour, label=name, ls="")
    # Beside the panel: inside it would hide some.
    panels[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_figure(figure, path)


# No bars: they would have to start at 0, where methods are hard to tell apart.
_MARKS = {
    "mean": ("s", "lightsteelblue"),
    "seed": ("o", "tab:blue"),
    "its stage 1": ("d", "tab:orange"),
    "reported": ("|", "black"),
}


def _draw_rows(
    axes: Any, summaries: Sequence[Scores], score: str, reported: Sequence[Mapping[str, str]]
) -> set[str]:
    """Draws one score of all rows; which marks were used."""
    used = {"mean", "seed"}
    for y, summary in enumerate(summaries):
        test = summary["test"]["last"]
        axes.plot(100 * test["mean"][score], y, "s", color="lightsteelblue", ms=10)
        seeds = [100 * replica[score] for replica in test["replicas"]]
        axes.plot(seeds, [y] * len(seeds), "o", color="tab:blue", ms=3)
        if "stage1" in summary:
            mean = summary["stage1"]["test"]["last"]["mean"][score]
            axes.plot(100 * mean, y, "d", color="tab:orange", ms=6)
            used.add("its stage 1")
        known = reported_for(reported, summary["config"], row_name(summary)) if reported else []
        for number in known if score == headline(summary) else ():
            axes.plot(number.value, y, "|", color="black", ms=16, mew=2)
            used.add("reported")
    axes.set(xlabel=f"{label(score)} on test, %", ylim=(len(summaries) - 0.5, -0.5))
    axes.grid(alpha=0.3)
    return used
