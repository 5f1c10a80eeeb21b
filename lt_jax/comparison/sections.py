"""Sections of the report of runs that can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence

from markupsafe import Markup

from lt_jax.comparison import curves, figures
from lt_jax.comparison.differing import ABSENT, facts_of, fields_of, separated
from lt_jax.comparison.parts import Figure, Folded, Note, Part, Section, Table, Text
from lt_jax.comparison.runs import Group
from lt_jax.comparison.scores import score_parts, second_stage_parts
from lt_jax.dividing_report import part_rows
from lt_jax.summaries import score_text, with_deviation

MOST_CLASSES = 1000  # of a table


def sections_of(group: Group) -> list[Section]:
    """All sections of a group that have something to show, in order.

    Args:
      group: of runs on the same data.

    Returns:
      Sections.
    """
    made = {
        "Scores": score_parts(group),
        "Second stages": second_stage_parts(group),
        "Scores by class": _by_class(group),
        "Calibration": _calibration(group),
        "Confusion": _confusion(group),
        "Training": _training(group),
        "Partial label masking": _masks(group),
        "Divided features": _divisions(group),
        "Configs": _configs(group),
        "How the runs were made": _made(group),
    }
    return [Section(title, parts) for title, parts in made.items() if parts]


def _names(group: Group) -> list[str]:
    return [run.name for run in group.runs]


def _legend(group: Group, shown: Sequence[bool] = ()) -> list[tuple[int, str]]:
    """Numbers and names of the runs that a figure shows, all if it is not said."""
    numbered = enumerate(_names(group))
    return [(i, name) for i, name in numbered if not shown or shown[i]]


def _by_class(group: Group) -> list[Part]:
    what = "positives" if group.multi_label else "images"
    counts = group.baseline.summary["data"]["class_counts"]
    few = len(group.runs) <= figures.FEW_RUNS
    shown = "mean and standard deviation over seeds" if few else "means over seeds"
    if len(counts) > figures.SINGLE_CLASSES:
        shown = f"means over {figures.FREQUENCIES} groups of about equally frequent classes"
    caption = f"Test scores of the classes by their number of training {what}; {shown}."
    panels = figures.class_panels(group)
    parts: list[Part] = [Figure(caption, panels, _legend(group))] if panels else []
    if len(counts) > MOST_CLASSES:
        return [*parts, Note(f"The scores of all {len(counts)} classes are in the summaries.")]
    tables = [_class_table(group, s, n) for s, n in figures.per_class_scores(group).items()]
    return parts + [Folded(table.caption, [table]) for table in tables]


def _class_table(group: Group, score: str, name: str) -> Table:
    data = group.baseline.summary["data"]
    counts = data["class_counts"]
    names = data.get("class_names") or range(len(counts))
    rows = []
    for c, (own, count) in enumerate(zip(names, counts, strict=True)):
        tests = [summary["test"]["last"] for summary in group.summaries]
        cells = [with_deviation(t["mean"][score][c], t["std"][score][c]) for t in tests]
        rows.append([str(own), str(count), *cells])
    header = ["class", "in training", *_names(group)]
    return Table(f"Test {name} of each class in %", header, rows, sortable=True)


def _calibration(group: Group) -> list[Part]:
    panels = figures.calibration_panels(group)
    kept = [run.name for run in group.runs if figures.has_calibration(run)]
    lacking = [run.name for run in group.runs if run.name not in kept]
    parts: list[Part] = []
    if lacking:
        which = f"{', '.join(lacking)}:" if kept else "any run here:"
        parts.append(
            Note(
                f"No bins of confidence were kept of {which} they are of an earlier version, which"
                " has only the expected calibration error, in the table of scores."
            )
        )
    if not panels:
        return parts
    rows = [[run.name, score_text(run.summary, "ece")] for run in group.runs]
    caption = (
        "First: how often predictions come true, by bins of their"
        f" {'probability, over all classes' if group.multi_label else 'confidence'}; on the dotted"
        " line they are calibrated. Second: how the predictions are spread over the bins. All seeds"
        " together."
    )
    kind = "of the classes' probabilities, mean over classes, " if group.multi_label else ""
    table = Table(f"Expected calibration error {kind}in %", ["method", "ECE"], rows)
    shown = [run.name in kept for run in group.runs]
    return [Figure(caption, panels, _legend(group, shown)), table, *parts]


def _confusion(group: Group) -> list[Part]:
    panels = figures.confusion_panels(group)
    caption = (
        "Per cent of the test images of each class (row), over all seeds; grey where it has none."
    )
    return [Figure(caption, panels)] if panels else []


def _training(group: Group) -> list[Part]:
    parts: list[Part] = []
    rows = [curves.stage_rows(run) for run in group.runs]
    for stage in (1, 2):
        panels = curves.curve_panels(group, [of_run.get(stage, []) for of_run in rows])
        if panels:
            caption = (
                f"Stage {stage}: mean over seeds, with a band of one standard deviation. Losses of"
                " different objectives have different scales."
            )
            parts.append(Figure(caption, panels, _legend(group, [stage in r for r in rows])))
    last = [2 if "stage1" in summary else 1 for summary in group.summaries]
    without = [n for n, r, stage in zip(_names(group), rows, last, strict=True) if stage not in r]
    if without:
        parts.append(Note(f"No curves by epoch of the last stage of {', '.join(without)}."))
    return parts


def _masks(group: Group) -> list[Part]:
    made = {run.name: curves.mask_panels(run) for run in group.runs}
    caption = "mean over seeds; the more positives a class has in training, the brighter its line."
    return [
        Figure(f"{name}: {caption}", panels, paper=True) for name, panels in made.items() if panels
    ]


def _divisions(group: Group) -> list[Part]:
    parts: list[Part] = []
    for run in group.runs:
        panels = curves.division_markup(run)
        if not panels:
            continue
        header, *rows = part_rows(run.summary["division"]["replicas"])
        about = f"{run.name}: what each part takes and who is right there, mean over seeds"
        parts += [
            Table(about, header, rows),
            Figure(f"{run.name}: what the division does", panels, paper=True),
        ]
    return parts


def _configs(group: Group) -> list[Part]:
    _, different = separated([fields_of(summary["config"]) for summary in group.summaries])
    different.pop("name", None)
    parts: list[Part] = []
    rows = [[name, *values] for name, values in different.items()]
    in_all = [row for row in rows if ABSENT not in row]
    in_some = [row for row in rows if ABSENT in row]
    header = ["field", *_names(group)]
    if len(group.runs) > 1 and not rows:
        parts.append(Note("The configs are the same but for their names."))
    if in_all:
        parts.append(Table("Fields that differ", header, in_all))
    if in_some:
        about = "Fields that only some of the runs have"
        parts.append(Folded(about, [Table(about, header, in_some)]))
    return parts + [
        Folded(f"Whole config of {run.name}", [Text(json.dumps(run.summary["config"], indent=2))])
        for run in group.runs
    ]


def _made(group: Group) -> list[Part]:
    rows = [
        [run.name, _code(part.path), _code(part.summary.get("command"))]
        for run in group.runs
        for part in run.parts or (run,)
    ]
    header = ["method", "folder", "command"]
    parts: list[Part] = [Table("Where the runs are, and their commands", header, rows)]
    same, different = separated([facts_of(run) for run in group.runs])
    if different:
        rows = [[name, *values] for name, values in different.items()]
        parts.append(Table("Facts that differ", ["fact", *_names(group)], rows))
    about = "Facts" if len(group.runs) == 1 else "Facts that all runs share"
    table = Table(about, ["fact", "value"], [[*item] for item in same.items()])
    return [*parts, Folded(about, [table])]


def _code(value: object) -> str:
    return Markup("<code>{}</code>").format("-" if value is None else value)
