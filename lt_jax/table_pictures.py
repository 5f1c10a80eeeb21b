"""The picture of a table: its rows with their seeds, first stages and reported numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_jax.pictures import literal, new_figure, write_figure
from lt_jax.reported import reported_for
from lt_jax.summaries import Scores, compared, first_row, headline, label, row_name


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
    for name, mark in _MARKS.items():
        if any(name in u for u in used):
            panels[-1].plot([], [], mark["marker"], color=mark["color"], label=name, ls="")
    # Beside the panel: inside it would hide some.
    panels[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_figure(figure, path)


# No bars: they would have to start at 0, where methods are hard to tell apart.
_MARKS: dict[str, dict[str, Any]] = {
    "mean": {"marker": "s", "color": "lightsteelblue", "ms": 10},
    "seed": {"marker": "o", "color": "tab:blue", "ms": 3},
    "its stage 1": {"marker": "d", "color": "tab:orange", "ms": 6},
    "reported": {"marker": "|", "color": "black", "ms": 16, "mew": 2},
}


def _draw_rows(
    axes: Any, summaries: Sequence[Scores], score: str, reported: Sequence[Mapping[str, str]]
) -> set[str]:
    """Draws one score of all rows; which marks were used."""
    used = set()
    for y, summary in enumerate(summaries):
        test = summary["test"]["last"]
        values = {
            "mean": [100 * test["mean"][score]],
            "seed": [100 * replica[score] for replica in test["replicas"]],
        }
        if "stage1" in summary:
            values["its stage 1"] = [100 * first_row(summary)["test"]["last"]["mean"][score]]
        if reported and score == headline(summary):
            known = reported_for(reported, summary["config"], row_name(summary))
            values["reported"] = [number.value for number in known]
        for name, x in values.items():
            axes.plot(x, [y] * len(x), ls="", **_MARKS[name])
        used |= {name for name, x in values.items() if x}
    axes.set(xlabel=f"{label(score)} on test, %", ylim=(len(summaries) - 0.5, -0.5))
    axes.grid(alpha=0.3)
    return used
