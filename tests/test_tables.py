"""Tables and paired differences against SciPy, pictures by their pixels, configs by their rows."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lt_jax import environment, summaries, tables
from lt_jax.errors import InputError
from lt_jax.table_notes import differing_fields

ROOT = Path(__file__).parent.parent


def summary(name, accuracies, index_hash="a"):
    """A summary with just what tables and pictures read."""
    replicas = [
        {
            "top1": a,
            "balanced_accuracy": a,
            "many": 1.0,
            "medium": a,
            "few": None,
            "ece": 0.1,
            "per_class": [1.0, a],
            "confusion": [[5, 0], [1, 4]],
        }
        for a in accuracies
    ]
    return {
        "name": name,
        "seeds": list(range(len(accuracies))),
        "test": {"last": summaries.aggregate(replicas)},
        "data": {
            "source": "digits",
            "class_counts": [50, 5],
            "index_hash": index_hash,
            "split_seed": 0,
        },
        "hardware": {"cpu": "a processor", "device": "cpu"},
        "versions": {"jax": "0"},
        "commit": None,
        "command": "python x.py",
    }


def test_mean_and_sample_deviation():
    test = summary("a", [0.5, 0.7, 0.9])["test"]["last"]
    assert test["mean"]["top1"] == pytest.approx(0.7)
    assert test["std"]["top1"] == pytest.approx(0.2)
    assert test["mean"]["few"] is None
    assert test["mean"]["per_class"] == pytest.approx([1.0, 0.7])
    assert summary("a", [0.5])["test"]["last"]["std"]["top1"] is None


def test_paired_difference_is_that_of_scipy():
    a, b = [0.80, 0.83, 0.79, 0.85], [0.78, 0.80, 0.80, 0.81]
    found = summaries.paired_difference(summary("a", a), summary("b", b))
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(interval))
    assert found["standard_error"] == pytest.approx(stats.sem(np.subtract(a, b)))
    with pytest.raises(ValueError, match="can be paired"):
        summaries.paired_difference(summary("a", a), summary("b", b, index_hash="other"))


def test_tables_hold_what_was_measured(tmp_path):
    runs = [summary("ce", [0.5, 0.6]), summary("cb", [0.7, 0.9])]
    tables.write_tables(runs, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| cb | 2 | 80.0 ± 14.1 |" in text
    assert "+25.0 [" in text
    assert environment.command_line() in text  # that made the table
    assert (tmp_path / "table.csv").read_text().splitlines()[2].startswith("cb,2,80.0 ± 14.1")


def test_rows_without_a_common_seed_have_a_dash_for_their_difference(tmp_path, capsys):
    """In the terminal and in files; on other images they are still no table."""
    one, other = summary("ce", [0.5, 0.6]), {**summary("cb", [0.7, 0.9]), "seeds": [2, 3]}
    assert tables.difference_text(other, one) == "-"
    tables.print_table([one, other])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " cb " in line]
    assert line.split("│")[-2].strip() == "-"
    tables.write_tables([one, other], tmp_path)
    assert (tmp_path / "table.csv").read_text().splitlines()[2].endswith(",-")
    with pytest.raises(ValueError, match="the same images"):
        tables.difference_text(summary("cb", [0.7], index_hash="other"), one)


def test_how_rows_were_made_is_told_where_they_differ(tmp_path):
    """One command and machine is a line; several are told with the rows of each."""
    ce, cb, ldam = (summary(name, [0.5, 0.6]) for name in ("ce", "cb", "ldam"))
    tables.write_tables([ce, cb], tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "Hardware: a processor, cpu; jax 0; commit None." in text
    assert "Made ce, cb:\n\n    python x.py\n" in text
    assert f"Wrote the table:\n\n    {environment.command_line()}\n" in text
    ldam |= {"command": environment.command_line(), "commit": "abc"}
    tables.write_tables([ce, ldam, cb], tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "Hardware of ce, cb: a processor, cpu; jax 0; commit None." in text
    assert "Hardware of ldam: a processor, cpu; jax 0; commit abc." in text
    assert f"Made ldam:\n\n    {environment.command_line()}\n" in text
    assert "Wrote the table" not in text
    for run in (ce, cb, ldam):
        run["command"] = environment.command_line()
    tables.write_tables([ce, cb, ldam], tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert text.count(environment.command_line()) == 1
    assert "Made" not in text


def recipe(name, **fields):
    """A run with some fields of its config, by dotted name with ``__`` for the dots."""
    config = {}
    for path, value in fields.items():
        group = config
        *groups, last = path.split("__")
        for part in groups:
            group = group.setdefault(part, {})
        group[last] = value
    return {**summary(name, [0.5]), "config": config}


def test_fields_in_which_recipes_differ():
    """Those of most rows and the others; what makes a method, or changes nothing, is none."""
    quiet = {"train__num_devices": 4, "train__log_every_steps": 1, "data__data_dir": "x"}
    runs = [
        recipe("a", train__epochs=3),
        recipe("b", train__epochs=6, objective__base="sigmoid", sampling__scheme="class"),
        recipe("c", train__epochs=6, sampling__scheme="instance", **quiet),
        recipe("d", train__epochs=9, optimizer__milestones=[5]),
        recipe("e", train__epochs=6, retrain__method="crt", retrain__epochs=3),
        recipe("f", train__epochs=6, retrain__method="crt", retrain__epochs=3),
        recipe("g", train__epochs=6, retrain__method="lws"),
    ]
    assert differing_fields(runs) == [
        "- `sampling.scheme`: instance, but class of b",
        "- `optimizer.milestones`: [], but [5] of d",
        "- `train.epochs`: 6, but 3 of a; 9 of d",
        "- `retrain.epochs`: 3, but 10 of g",
    ]
    assert differing_fields(runs[4:6]) == []


NAMES = ("sigmoid", "distribution_balanced", "sigmoid_over_rate=0.05_and_a_bias_of_the_start=2")


def several_labels():
    """Committed summaries, renamed; of ten columns."""
    files = [ROOT / f"results/multi_digits/multi_digits_{name}.json" for name in NAMES[:2]]
    found = [json.loads(file.read_text()) for file in files]
    return [*found, {**found[0], "name": NAMES[2]}]


def test_a_printed_table_of_several_labels_can_be_read(capsys):
    """Each row is a line, with its name and whole numbers."""
    runs = several_labels()
    tables.print_table(runs)
    lines = capsys.readouterr().out.splitlines()
    for name, run in zip(NAMES, runs, strict=True):
        (line,) = [line for line in lines if f" {name} " in line]
        assert f" {summaries.score_text(run, 'map')} " in line
        assert f" {summaries.score_text(run, 'of1')} " in line
    assert len({len(line) for line in lines[1:]}) == 1
    tables.print_table(runs[:2])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


def test_a_narrow_terminal_folds_long_names(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    tables.print_table(several_labels())
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    cells = [line.split("│") for line in shown.splitlines() if line.startswith("│")]
    assert "".join(row[1].strip() for row in cells) == "".join(NAMES)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "±" in "".join(row[2] for row in cells)


def test_a_bar_in_a_name_is_no_column():
    header, _, row = tables.markdown([["method", "mAP"], ["a|b", "0.3"]])
    assert len(re.findall(r"(?<!\\)\|", row)) == header.count("|") == 3


def configs(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAPER_ROWS = [
    *("softmax", "sigmoid", "focal_0.5", "focal_1", "focal_2"),
    *("cb_softmax", "cb_sigmoid", "cb_focal_0.5", "cb_focal_1", "cb_focal_2"),
]


@pytest.mark.parametrize("row", PAPER_ROWS)
@pytest.mark.parametrize("imbalance", [200, 100, 50, 20, 10, 1])
def test_every_row_of_the_class_balanced_table_has_a_config(row, imbalance):
    config = configs("cifar_lt").get_config(f"cifar100,{imbalance},{row}")
    assert config.data.imbalance == imbalance
    assert config.data.source == "tfds:cifar100"
    transforms = config.objective.transforms
    assert ("class_balanced" in transforms) == row.startswith("cb_")
    assert ("focal" in transforms) == ("focal" in row)
    if "focal" in row:
        assert transforms.focal.gamma == float(row.rsplit("_", 1)[1])
    assert config.objective.base == ("softmax" if "softmax" in row else "sigmoid")
    assert (config.train.epochs, config.train.batch_size) == (200, 128)


def test_gcl_row_follows_its_own_recipe():
    config = configs("cifar_lt").get_config("cifar10,100,gcl")
    assert config.augment.mixup_alpha == 1.0
    assert config.train.batch_size == 64
    assert config.optimizer.factors == (0.1, 0.1)
    assert config.objective.transforms.gaussian_cloud.scale == 30.0


@pytest.mark.parametrize("row", ["cifar10,100", "svhn,100,cb_focal", "cifar10,many,cb_focal"])
def test_rows_of_another_form_are_refused(row):
    with pytest.raises(InputError):
        configs("cifar_lt").get_config(row)
