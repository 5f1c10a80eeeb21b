"""Numbers of tables for programs and papers: what is in the summaries, no digit less.

Of committed summaries, of one label and of several, of earlier versions too.
"""

import csv
import json
import re
from collections import defaultdict

import numpy as np
import pytest
from tiny_runs import ROOT

from lt_jax.summaries import aggregate
from lt_jax.table_files import escaped, write_table_files
from lt_jax.tables import write_tables

FOLDERS = ("digits", "multi_digits", "dlsa_fashion", "yeast")


def committed(folder):
    """The summaries of a folder of results, by what the names of their rows must be."""
    paths = sorted((ROOT / "results" / folder).glob("*.json"))
    found = [json.loads(path.read_text()) for path in paths]
    return [s for s in found if isinstance(s, dict) and "test" in s and "seeds" in s]


@pytest.fixture(scope="module", params=FOLDERS)
def table(request, tmp_path_factory):
    """Summaries, the folder of their table, and the rows of ``scores.csv``."""
    folder, summaries = tmp_path_factory.mktemp("table"), committed(request.param)
    assert len(summaries) > 1
    write_tables(summaries, folder)
    with (folder / "scores.csv").open(newline="") as file:
        return summaries, folder, list(csv.DictReader(file))


def chosen(rows, **fields):
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def test_the_numbers_are_those_of_the_summaries(table):
    """As they are there, bit for bit; nothing is there twice."""
    summaries, _, rows = table
    keys = [tuple(row.values())[:-1] for row in rows]
    assert len(set(keys)) == len(keys)
    found = dict(zip(keys, (float(row["value"]) for row in rows), strict=True))
    names = list(dict.fromkeys(row["row"] for row in rows if ": " not in row["row"]))
    assert len(names) == len(summaries)
    for name, summary in zip(names, summaries, strict=True):
        for weights, tested in summary["test"].items():
            for seed, replica in zip(summary["seeds"], tested["replicas"], strict=True):
                key = (name, str(seed), weights, "test")
                plain = {s: v for s, v in replica.items() if isinstance(v, float)}
                assert {s: found[*key, s, ""] for s in plain} == plain
                assert not any((*key, s, "") in found for s, v in replica.items() if v is None)


def test_accuracies_of_classes_have_their_names(table):
    summaries, _, rows = table
    kinds = {"per_class": "class_accuracy", "per_class_ap": "class_ap"}
    for summary in summaries:
        rows_of = [row for row in rows if row["row"] == own_name(summary)]
        tested = summary["test"]["last"]
        for seed, replica in zip(summary["seeds"], tested["replicas"], strict=True):
            own = chosen(rows_of, seed=str(seed), weights="last", split="test")
            for kind in kinds.keys() & replica.keys():
                found = {r["class"]: float(r["value"]) for r in chosen(own, score=kinds[kind])}
                numbers = map(str, range(len(replica[kind])))
                names = summary["data"].get("class_names") or list(numbers)
                expected = dict(zip(names, replica[kind], strict=True))
                assert found == {c: v for c, v in expected.items() if v is not None}
                assert list(found) == [c for c in names if c in found]
    assert not chosen(rows, score="class_threshold")
    assert {"confusion", "calibration", "histograms"}.isdisjoint(row["score"] for row in rows)


def own_name(summary):
    """The last words of a run's name, of those committed."""
    for data in ("fashion_mnist_lt100_", "multi_digits_", "yeast_"):
        if summary["name"].startswith(data):
            return summary["name"].removeprefix(data)
    return summary["name"]


def test_validation_and_what_was_before_are_told_apart(table):
    summaries, _, rows = table
    for summary in summaries:
        name = own_name(summary)
        for weights, tested in summary["test"].items():
            own = chosen(rows, row=name, weights=weights, split="validation")
            given = {key: v for key, v in tested.items() if key.startswith("validation_")}
            assert given
            for key, values in given.items():
                of_score = chosen(own, score=key.removeprefix("validation_"))
                assert [float(row["value"]) for row in of_score] == values
        before = {
            "its stage 1": summary.get("stage1", {}).get("test", {}),
            "undivided": {"last": summary["division"]["without"]} if "division" in summary else {},
        }
        for what, tests in before.items():
            found = chosen(rows, row=f"{name}: {what}", score="top1")
            expected = [r["top1"] for t in tests.values() for r in t["replicas"] if "top1" in r]
            values = [float(row["value"]) for row in found if row["split"] == "test"]
            assert values == expected


def test_means_are_those_of_the_table(table):
    """A user who groups by row finds what table.csv says."""
    _, folder, rows = table
    with (folder / "table.csv").open(newline="") as file:
        shown = list(csv.DictReader(file))
    names = {"balanced accuracy": "balanced_accuracy", "mAP": "map", "few": "few", "OF1": "of1"}
    checked = 0
    for row in shown:
        for title, score in names.items():
            if title not in row:
                continue
            last = chosen(rows, row=row["method"], weights="last", split="test", score=score)
            values = [100 * float(r["value"]) for r in last]
            shown_numbers = [float(number) for number in row[title].split(" ± ")]
            expected = [np.mean(values), np.std(values, ddof=1)]
            assert shown_numbers == pytest.approx(expected, abs=0.05 + 1e-9)
            checked += 1
    assert checked >= 2 * len(shown)


def test_latex_has_the_cells_of_the_table(table):
    """Read back as LaTeX prints it."""
    _, folder, _ = table
    lines = (folder / "table.tex").read_text().splitlines()
    assert lines[0].startswith("% ")
    body = [line for line in lines if not line.startswith("%")]
    assert body[0].startswith(r"\begin{tabular}{l")
    assert [body[1], body[3], *body[-2:]] == [
        *(r"\toprule", r"\midrule", r"\bottomrule"),
        r"\end{tabular}",
    ]
    rows = [body[2], *body[4:-2]]
    assert not any(re.search(r"±|(?<!\\)[_%]", row) for row in rows)
    assert all(row.endswith(r" \\") for row in rows)
    cells = [[c.strip() for c in row.removesuffix(r" \\").split(" & ")] for row in rows]
    width = len(body[0].removeprefix(r"\begin{tabular}{").removesuffix("}"))
    assert {len(row) for row in cells} == {width}
    plain = [
        [c.replace(r"$\pm$", "±").replace(r"\_", "_").replace("--", "-") for c in row]
        for row in cells
    ]
    with (folder / "table.csv").open(newline="") as file:
        expected = [row[:width] for row in csv.reader(file)]
    assert plain == expected


def test_what_latex_would_read_is_escaped():
    r"""Each special character once; a backslash that was put there is not escaped again."""
    special = {
        **{c: rf"\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
    for character, expected in special.items():
        assert escaped(f"a{character}b") == f"a{expected}b"
    assert escaped("".join(special)) == "".join(special.values())
    assert escaped("plm_rate=0.05") == r"plm\_rate=0.05"


def test_what_is_no_score_or_is_not_there_is_left_out(tmp_path):
    """A group without classes, a class without test images, thresholds that validation chose."""
    replica = {
        **{"map": 0.25, "few": None, "confusion": [[1]]},
        **{"per_class_ap": [0.25, None], "per_class_threshold": [0.5, None]},
    }
    summary = {
        "name": "plm_a",
        "seeds": [7],
        "columns": ["map", "few"],
        "headline": "map",
        "data": {
            **{"source": "digits", "class_counts": [9, 1], "class_names": ["cat", "dog"]},
            **{"split_seed": 0, "index_hash": "a"},
        },
        "test": {"last": {"steps": [3], **aggregate([replica])}},
    }
    write_table_files([summary], tmp_path)
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "row,seed,weights,split,score,class,value",
        "plm_a,7,last,test,map,,0.25",
        "plm_a,7,last,test,class_ap,cat,0.25",
    ]
    assert r"plm\_a & 1 & 25.0 & -- \\" in (tmp_path / "table.tex").read_text().splitlines()


def test_every_seed_of_every_row_is_there(table):
    summaries, _, rows = table
    seeds = defaultdict(set)
    for row in rows:
        seeds[row["row"]].add(int(row["seed"]))
    for summary in summaries:
        assert seeds[own_name(summary)] == set(summary["seeds"])
