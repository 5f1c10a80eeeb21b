"""The numbers of a table for programs and papers: ``scores.csv`` and ``table.tex``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lt_jax.files import write_text
from lt_jax.metrics import TABLES
from lt_jax.summaries import BEFORE, Scores, columns, label, row_name, undivided, with_deviation

SCORES, LATEX = "scores.csv", "table.tex"
COLUMNS = ("row", "seed", "weights", "split", "score", "class", "value")
_VALIDATION, _PER_CLASS = "validation_", "per_class"
_THRESHOLD = "per_class_threshold"  # chosen, and no score
_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def write_table_files(summaries: Sequence[Scores], folder: Path) -> None:
    """Writes ``scores.csv``, every score of every seed, and ``table.tex``, what tables show.

    Args:
      summaries: of finished runs.
      folder: where to.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for summary in summaries:
        table.writerows(score_rows(summary))
    write_text(folder / SCORES, text.getvalue())
    write_text(folder / LATEX, "\n".join(latex_lines(summaries)) + "\n")


def score_rows(summary: Scores) -> Iterator[tuple[Any, ...]]:
    """Every score of a run, and of what it started from, in full precision.

    What is known of a run before its last step, such as its stage 1, has rows of its own name.

    Args:
      summary: of the run.

    Yields:
      Values of `COLUMNS`: the class is empty for scores of all; scores that there are not, such as
      those of a group without classes, are left out.
    """
    name = row_name(summary)
    yield from _rows_of(name, summary)
    before = {"stage1": lambda s: {**s, **s["stage1"]}, "division": undivided}
    for key, of_before in before.items():
        if key in summary:
            yield from _rows_of(f"{name}: {BEFORE[key][0]}", of_before(summary))


def _rows_of(name: str, summary: Scores) -> Iterator[tuple[Any, ...]]:
    data = summary["data"]
    count = len(data["class_counts"])
    classes = data.get("class_names") or list(map(str, range(count)))  # earlier versions had none
    for weights, tested in summary["test"].items():
        for r, seed in enumerate(summary["seeds"]):
            for score, values in tested.items():
                if score.startswith(_VALIDATION):
                    own = score.removeprefix(_VALIDATION)
                    yield name, seed, weights, "validation", own, "", values[r]
            for score, of, value in _scores(tested["replicas"][r], classes):
                yield name, seed, weights, "test", score, of, value


def _scores(replica: Mapping[str, Any], classes: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Score, class and value of all scores that there are."""
    for score, found in replica.items():
        if score in (*TABLES, _THRESHOLD):
            continue
        if not isinstance(found, list):
            each = [(score, "", found)]
        else:
            own = "class" + (score.removeprefix(_PER_CLASS) or "_accuracy")
            each = [(own, c, value) for c, value in zip(classes, found, strict=True)]
        yield from (row for row in each if row[2] is not None)


def latex_lines(summaries: Sequence[Scores]) -> list[str]:
    """Lines of a LaTeX table for the package booktabs: scores in %, mean ± deviation over seeds.

    None is set in bold: the largest mean of a few seeds is often not larger than the next by more
    than chance.

    Args:
      summaries: of finished runs.

    Returns:
      Lines, the first ones comments.
    """
    names, data = columns(summaries[0]), summaries[0]["data"]
    rows = [["method", "seeds", *map(label, names)]]
    for summary in summaries:
        test = summary["test"]["last"]
        cells = [with_deviation(test["mean"][name], test["std"][name]) for name in names]
        rows.append([row_name(summary), str(len(summary["seeds"])), *cells])
    header, *body = [" & ".join(map(escaped, row)) + r" \\" for row in rows]
    return [
        "% Test scores in %, last step, mean and standard deviation over seeds.",
        f"% Data: {data['source']}, split seed {data['split_seed']},"
        f" index hash {data['index_hash']}.",
        r"% Needs \usepackage{booktabs}.",
        rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
        r"\toprule",
        header,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def escaped(text: str) -> str:
    r"""Text as LaTeX prints it, a cell of a table with its sign of deviation.

    Example:
      >>> print(escaped("cb_focal at 50 %"), escaped("61.7 ± 3.3"), escaped("-"))
      cb\_focal at 50 \% 61.7 $\pm$ 3.3 --
    """
    if text == "-":
        return "--"
    whole = "".join(_ESCAPED.get(character, character) for character in text)
    return whole.replace("±", r"$\pm$")
