"""What the report says of scores: tables of them, differences, what second stages bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lt_jax import metrics
from lt_jax.comparison import figures
from lt_jax.comparison.parts import Figure, Part, Table
from lt_jax.comparison.runs import Group
from lt_jax.comparison.significance import ALPHA, Paired, holm, p_text, paired_test, paired_text
from lt_jax.comparison.svg import panel
from lt_jax.pictures import draw_knob
from lt_jax.summaries import BEFORE, Scores, columns, compared, headline, label, score_text
from lt_jax.tables import difference_text, table_rows


def score_parts(group: Group) -> list[Part]:
    """Scores of all runs, their differences to the baseline, and both as figures."""
    score = headline(group.baseline.summary)
    shown = _in_all(group, columns(group.baseline.summary))
    about = f"Test scores in %, last step, mean ± standard deviation over seeds. {_columns(group)}"
    parts: list[Part] = [_score_table(group, about, shown)]
    tuned = _in_all(group, [f"{name}_tuned" for name in shown])
    if tuned:
        about = "With the threshold of each class chosen on validation, in %"
        parts.append(_score_table(group, about, tuned))
    if len(group.runs) == 1:
        return parts
    parts.append(_differences(group))
    panels = figures.scores_panels(group, compare(group, score))
    caption = f"First: {label(score)} of every seed (circles) and the mean (bar)."
    if len(panels) > 1:
        caption += f" Second: paired differences to {group.baseline.name}, with 95 % t intervals."
    return [*parts, Figure(caption, panels)] if panels else parts


def _in_all(group: Group, names: Sequence[str]) -> list[str]:
    """Scores that all runs have; earlier versions had fewer."""
    return [n for n in names if all(n in s["test"]["last"]["mean"] for s in group.summaries)]


def _score_table(group: Group, about: str, names: Sequence[str]) -> Table:
    header, *rows = table_rows(group.summaries, names=names)
    named = [[run.name, *row[1:]] for run, row in zip(group.runs, rows, strict=True)]
    return Table(about, header, named)


def compare(group: Group, score: str) -> dict[str, Paired]:
    """Paired differences of a score to the baseline, by name of the run."""
    others = [run for run in group.runs if run is not group.baseline]
    return {run.name: paired_test(run.summary, group.baseline.summary, score) for run in others}


def _differences(group: Group) -> Table:
    names = _in_all(group, compared(group.baseline.summary))
    rows = [row for name in names for row in difference_rows(compare(group, name), name)]
    count = len(group.runs) - 1
    corrected = ", corrected by Holm for the runs tested," if count > 1 else ""
    caption = (
        f"Differences to {group.baseline.name} in points, paired over the seeds that both have,"
        " with 95 % t intervals and p values of the two-sided paired t test. * marks those whose p"
        f" value{corrected} is below {ALPHA}."
    )
    header = ["method", "score", "difference", "seeds paired", "p", *_holm_column(count)]
    return Table(caption, header, rows)


def _holm_column(count: int) -> list[str]:
    return ["p, Holm"] if count > 1 else []


def difference_rows(paired: Mapping[str, Paired], score: str) -> list[list[str]]:
    """Name, score, difference, paired seeds, p and, of several, corrected p of every run.

    Args:
      paired: from `compare`.
      score: that was compared.

    Returns:
      Rows of text; bold where significant.
    """
    corrected = holm([d.p for d in paired.values()])
    rows = []
    for (name, d), p in zip(paired.items(), corrected, strict=True):
        text = paired_text(d)
        if p is not None and p < ALPHA:
            text = Markup("<strong>{} *</strong>").format(text)
        values = [p_text(d.p), p_text(p)][: 1 + (len(paired) > 1)]
        rows.append([name, label(score), text, str(d.seeds), *values])
    return rows


def _columns(group: Group) -> str:
    if group.multi_label:
        return "Head, medium and tail are classes by their number of training positives."
    return (
        f"Many, medium and few: classes with more than {metrics.MANY}, {metrics.FEW} to"
        f" {metrics.MANY} and fewer than {metrics.FEW} training images."
    )


def second_stage_parts(group: Group) -> list[Part]:
    """What second stages and divisions bring, and how knobs were chosen."""
    score, rows = headline(group.baseline.summary), []
    for run in group.runs:
        for name, before_of in (named for key, named in BEFORE.items() if key in run.summary):
            before = before_of(run.summary)
            cells = [score_text(s, score) for s in (before, run.summary)]
            rows.append([run.name, name, *cells, difference_text(run.summary, before, score)])
    if not rows:
        return []
    header = ["method", "against", "before", "after", "difference"]
    about = f"Test scores in %: {label(score)}, and its paired difference with the 95 % t interval."
    knobs = {run.name: run.summary.get("retrain", {}).get("knob") for run in group.runs}
    drawn = [
        panel(_drawing_knob(name, knob), f"{name}: validation scores by {knob['name']}")
        for name, knob in knobs.items()
        if knob
    ]
    named = ", ".join(name for name, knob in knobs.items() if knob)
    caption = f"Validation scores by which {named} chose; thick: mean over seeds."
    return [Table(about, header, rows), *([Figure(caption, drawn)] if drawn else [])]


def _drawing_knob(name: str, knob: Scores) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        draw_knob(axes, knob)
        axes.set_title(f"{name}: choice of {knob['name']}", parse_math=False)

    return draw
