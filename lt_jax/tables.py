"""What runs leave behind for people: a line about one, tables of several."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from lt_jax.files import write_text
from lt_jax.processes import is_writer
from lt_jax.reported import reported_for
from lt_jax.summaries import (
    BEFORE,
    Scores,
    columns,
    compared,
    first_row,
    headline,
    label,
    main_columns,
    paired_difference,
    row_name,
    score_text,
    with_deviation,
    with_interval,
)
from lt_jax.table_files import write_table_files
from lt_jax.table_notes import notes
from lt_jax.writers import say

TABLE = "table.csv"


def table_rows(
    summaries: Sequence[Scores], which: str = "last", names: Sequence[str] = ()
) -> list[list[str]]:
    """A header and a row for each run: headline scores in %, mean ± deviation over seeds.

    Args:
      summaries: of finished runs.
      which: ``"last"`` or ``"best_on_validation"``.
      names: of the scores; none for the usual ones.

    Returns:
      Rows of text.
    """
    names = names or columns(summaries[0])
    rows = [["method", "seeds", *map(label, names)]]
    for summary in summaries:
        test = summary["test"][which]
        cells = [with_deviation(test["mean"][name], test["std"][name]) for name in names]
        rows.append([row_name(summary), str(len(summary["seeds"])), *cells])
    return rows


def print_table(summaries: Sequence[Scores]) -> None:
    """Prints the headline scores and each run's paired difference to the first one."""
    from rich.console import Console
    from rich.table import Column, Table

    if not is_writer():
        return
    names = main_columns(summaries[0])
    header, *rows = table_rows(summaries, names=names)
    counts, longest = {len(s["seeds"]) for s in summaries}, max(len(row[0]) for row in rows)
    seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
    table = Table(
        Column(header[0], min_width=min(longest, 30), overflow="fold"),  # none is cut
        *(name.replace(" ", "\n", 1) for name in header[2:]),
        f"{label(headline(summaries[0]))}\nagainst the first",
        title=f"test scores in %, mean ± deviation over {seeds} seeds",
    )
    for row, summary in zip(rows, summaries, strict=True):
        against = "" if summary is summaries[0] else difference_text(summary, summaries[0])
        table.add_row(row[0], *row[2:], against)
    console = Console()
    if not console.is_terminal:  # a log file has no width of its own
        unbounded = console.options.update(width=1000)
        console = Console(width=max(110, console.measure(table, options=unbounded).maximum))
    console.print(table)


def difference_text(a: Scores, b: Scores, score: str = "") -> str:
    """Paired difference of a score in points, with its 95 % interval; see `paired_difference`.

    A dash where a run lacks the score, or they have no seed in common.
    """
    name = score or headline(a)
    if not set(a["seeds"]) & set(b["seeds"]):
        return "-"
    if None in (s["test"]["last"]["mean"][name] for s in (a, b)):
        return "-"
    d = paired_difference(a, b, score)
    return with_interval(d["mean"], d["low"], d["high"])


def tell(summary: Scores | None) -> None:
    """Tells the headline scores of a finished run, of both stages if it has two."""
    if summary is None:
        return
    header, *rows = table_rows([summary])
    if "stage1" in summary:
        rows.insert(0, table_rows([first_row(summary)])[1])
    for row in rows:
        say(", ".join(f"{name} {value}" for name, value in zip(header, row, strict=True)))


def write_tables(
    summaries: Sequence[Scores],
    folder: Path,
    *,
    reported: Sequence[Mapping[str, str]] = (),
    failed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes ``table.md`` and ``table.csv`` of several runs, with the commands that made them.

    Args:
      summaries: of finished runs.
      folder: where to.
      reported: from `lt_jax.reported.read_reported`, to stand beside what was measured.
      failed: reasons by row without scores, which ``table.md`` tells.
    """
    header, *rows = table_rows(summaries)
    known = [
        reported_for(reported, s["config"], row_name(s)) if reported else [] for s in summaries
    ]
    more = _further_columns(summaries)
    if any(known):
        more["reported"] = ["; ".join(f"{r.value:.1f} ({r.source})" for r in k) for k in known]
    header += more
    for i, row in enumerate(rows):
        row += [cells[i] for cells in more.values()]
    lines = markdown([header, *rows])
    tuned = [n for n in summaries[0]["test"]["last"]["mean"] if n.endswith("_tuned")]
    shown = [n for n in tuned if n.removesuffix("_tuned") in columns(summaries[0])]
    if shown:
        lines += ["", "With the threshold of each class chosen on validation:", ""]
        lines += markdown(table_rows(summaries, names=shown))
    sources = [f"{row_name(s)}: {r.note}" for s, k in zip(summaries, known, strict=True) for r in k]
    lines += ["", *notes(summaries, failed), "", *(f"- Reported, {text}." for text in sources)]
    write_text(folder / "table.md", "\n".join(lines).rstrip() + "\n")
    table = io.StringIO()
    csv.writer(table).writerows([header, *rows])
    write_text(folder / TABLE, table.getvalue())
    write_table_files(summaries, folder)


def table_names(folder: Path) -> list[str]:
    """Names of the rows of the table in a folder; none if there is no table."""
    path = folder / TABLE
    if not path.exists():
        return []
    return [row[0] for row in csv.reader(path.read_text().splitlines()) if row][1:]


def place_of(summary: Scores, names: Sequence[str]) -> int:
    """Where a run is in a table, from 0; the number of rows if it is none of them.

    Args:
      summary: of the run.
      names: from `table_names`; those of earlier versions may be whole.
    """
    own = {row_name(summary), summary["name"]}
    return next((place for place, name in enumerate(names) if name in own), len(names))


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Lines of a Markdown table, of a header and rows.

    Example:
      >>> print(markdown([["method", "mAP"], ["a|b", "0.3"]])[2])
      | a\|b | 0.3 |
    """
    header, *body = ["| " + " | ".join(c.replace("|", r"\|") for c in row) + " |" for row in rows]
    return [header, "|---" * len(rows[0]) + "|", *body]


def _further_columns(summaries: Sequence[Scores]) -> dict[str, list[str]]:
    """Differences, validation and first stages, where there are any."""
    first, result = summaries[0], {}
    scores = compared(first)
    for score in scores:
        by_headline = scores == (headline(first),)  # which need not be said
        name = "against the first" if by_headline else f"{label(score)} against the first"
        result[name] = ["" if s is first else difference_text(s, first, score) for s in summaries]
    on_validation = [_validation_score(summary) for summary in summaries]
    if any(on_validation):
        result["on validation"] = on_validation
    for key, (name, before) in BEFORE.items():
        if any(key in summary for summary in summaries):
            result[name] = [score_text(before(s)) if key in s else "" for s in summaries]
            result[f"against {name}"] = [
                difference_text(s, before(s)) if key in s else "" for s in summaries
            ]
    return result


def _validation_score(summary: Scores) -> str:
    scores = summary["test"]["last"].get(f"validation_{headline(summary)}")
    if not scores:
        return ""
    deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return with_deviation(float(np.mean(scores)), deviation)
