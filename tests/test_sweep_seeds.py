"""A table that is asked for more seeds trains those alone; runs of other seeds are one run."""

import csv
import json
import shutil

import numpy as np
import pytest
from second_stages import digits_as_arrays
from tiny_runs import Killed, PixelNet, dying, tiny

from lt_jax import models
from lt_jax.comparison import curves, grouped, read_runs, write_report
from lt_jax.data import load_source
from lt_jax.environment import command_line
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.joining import can_join, joined_rows
from lt_jax.sweep import write_table
from lt_jax.sweep_seeds import run_table
from lt_jax.train import train
from lt_jax.workdir import claim
from lt_jax.writers import read_metrics

ROWS = ("cross_entropy", "crt")


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


def table(folder, seeds, rows=ROWS, **fields):
    """A table of one epoch a row, and what is in it."""
    configs = {name: tiny(name, replicas=seeds, train__epochs=1, **fields) for name in rows}
    for name, config in configs.items():
        config.name = name
        if name == "crt":
            config.retrain.update(epochs=1, batch_size=64)
    run_table(configs, folder, write_table)
    return list(csv.reader((folder / "table.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """A table of four seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "pixels", PixelNet)
        folder = tmp_path_factory.mktemp("at_once")
        return folder, table(folder, 4)


def test_seeds_that_came_later_make_the_same_table(tmp_path, at_once):
    """In two steps, the last with one seed, and with a first stage that two rows share."""
    first = table(tmp_path, 1)
    assert {row[1] for row in first[1:]} == {"1"}
    own = (tmp_path / "crt" / "summary.json").read_text()
    table(tmp_path, 3)
    whole, expected = table(tmp_path, 4), at_once[1]
    assert whole == expected
    assert sorted(p.name for p in tmp_path.glob("seeds_*")) == ["seeds_1-2", "seeds_3"]
    assert (tmp_path / "crt" / "summary.json").read_text() == own
    seeds = [json.loads(p.read_text())["seeds"] for p in tmp_path.glob("seeds_*/crt/summary.json")]
    assert sorted(seeds) == [[1, 2], [3]]
    assert table(tmp_path, 4) == expected  # when all have finished


def test_the_report_of_such_a_table_has_all_seeds(tmp_path, at_once):
    table(tmp_path, 2)
    table(tmp_path, 4)
    (group,), (expected,) = (grouped(read_runs([folder])) for folder in (tmp_path, at_once[0]))
    assert [run.name for run in group.runs] == list(ROWS)
    for run, other in zip(group.runs, expected.runs, strict=True):
        assert run.summary["seeds"] == other.summary["seeds"] == [0, 1, 2, 3]
        assert run.summary["test"] == other.summary["test"]
        assert curves.stage_rows(run).keys() == curves.stage_rows(other).keys()
        for stage, rows in curves.stage_rows(run).items():
            losses, at_a_time = (
                np.array([row["loss"] for row in of if "loss" in row])
                for of in (rows, curves.stage_rows(other)[stage])
            )
            np.testing.assert_array_equal(losses, at_a_time)
            assert losses.shape[1] == 4
    page = write_report([tmp_path], tmp_path / "r.html", baseline=str(tmp_path / "seeds_2-3/crt"))
    assert str(tmp_path / "seeds_2-3" / "cross_entropy") in page.read_text()
    assert "Differences to crt" in page.read_text()


def test_a_row_that_comes_later_gets_all_seeds(tmp_path, at_once):
    table(tmp_path, 2, rows=ROWS[:1])
    table(tmp_path, 4, rows=ROWS[:1])
    header, *rows = table(tmp_path, 4, rows=ROWS[1:])
    assert [header, *rows] == at_once[1]
    assert not list(tmp_path.rglob("crt_stage1"))  # its first stage is the row, in both folders


def test_a_row_of_a_table_that_is_called_after_its_data_gets_all_seeds(tmp_path):
    """As those of configs/cifar_lt.py, which tables call by their method alone."""

    def row(method, seeds):
        config = tiny(method, replicas=seeds, train__epochs=1, name=f"digits_{method}")
        run_table({config.name: config}, tmp_path, write_table)
        return list(csv.reader((tmp_path / "table.csv").read_text().splitlines()))[1:]

    row("cross_entropy", 1)
    row("cross_entropy", 3)
    found = [cells[:2] for cells in row("tau_norm", 3)]
    assert found == [["cross_entropy", "3"], ["tau_norm", "3"]]
    assert not list(tmp_path.rglob("*_stage1"))


def test_fewer_rows_with_more_seeds_are_paired_over_common_ones(tmp_path):
    """A row of the table that the command does not name keeps the seeds it has."""
    table(tmp_path, 2)
    header, *rows = table(tmp_path, 3, rows=ROWS[1:])
    assert [row[:2] for row in rows] == [["cross_entropy", "2"], ["crt", "3"]]
    assert "paired over the seeds that both have" in (tmp_path / "table.md").read_text()
    one, other = (
        [run.summary["test"]["last"]["replicas"][r]["balanced_accuracy"] for r in range(2)]
        for run in read_runs([tmp_path])
    )
    difference = 100 * np.mean(np.subtract(other, one))
    assert rows[1][header.index("against the first")].startswith(f"{difference:+.1f} [")


def test_fewer_seeds_than_the_table_has_are_refused(tmp_path):
    """Or the table would lose them."""
    table(tmp_path, 1)
    before = table(tmp_path, 3)
    for few in (1, 2):
        with pytest.raises(InputError, match=r"has the seeds 0 to 2.* expected --seeds=3 or more"):
            table(tmp_path, few)
    assert list(csv.reader((tmp_path / "table.csv").read_text().splitlines())) == before


def test_further_seeds_of_other_images_are_refused(tmp_path):
    own = {"data__source": digits_as_arrays(tmp_path / "my.npz"), "data__imbalance": 0}
    table(tmp_path / "t", 1, rows=ROWS[:1], **own)
    images = 16 * (load_source("digits").train_images // 32)
    digits_as_arrays(tmp_path / "my.npz", x_train=images)
    with pytest.raises(InputError, match="'cross_entropy of the first seeds' has finished with ot"):
        table(tmp_path / "t", 2, rows=ROWS[:1], **own)
    assert not (tmp_path / "t" / "seeds_1").exists()


def test_another_config_is_refused_whatever_the_seeds(tmp_path):
    table(tmp_path, 1, rows=ROWS[:1])
    with pytest.raises(InputError, match=r"belongs to a run with optimizer\.learning_rate"):
        table(tmp_path, 2, rows=ROWS[:1], optimizer__learning_rate=0.2)
    assert not (tmp_path / "seeds_1").exists()


def test_further_seeds_that_diverge_are_told(tmp_path, monkeypatch):
    """The row keeps those it has; also where no row of the further seeds has finished."""
    table(tmp_path, 1, rows=ROWS[:1])

    def diverging(config, folder, **_):
        claim(config, folder)
        raise NonFiniteError("the loss of seed 2 was not finite at step 3; none is kept")

    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.sweep.train", diverging)
        found = table(tmp_path, 3, rows=ROWS[:1])
    assert [row[:2] for row in found[1:]] == [["cross_entropy", "1"]]
    line = "- cross_entropy of seeds 1 to 2 has no scores: the loss of seed 2 was not finite at"
    assert line in (tmp_path / "table.md").read_text()
    table(tmp_path, 3, rows=ROWS[:1])
    assert "no scores" not in (tmp_path / "table.md").read_text()


def test_the_commands_and_machines_of_all_seeds_are_told(tmp_path):
    table(tmp_path, 1, rows=ROWS[:1])
    path = tmp_path / "cross_entropy" / "summary.json"
    summary = {**json.loads(path.read_text()), "command": "python first.py", "commit": "abc"}
    path.write_text(json.dumps(summary))
    table(tmp_path, 3, rows=ROWS[:1])
    text = (tmp_path / "table.md").read_text()
    assert "Made cross_entropy (seed 0):\n\n    python first.py\n" in text
    assert f"Made cross_entropy (seeds 1 to 2):\n\n    {command_line()}\n" in text
    assert "Hardware of cross_entropy (seed 0): " in text
    assert "commit abc.\nHardware of cross_entropy (seeds 1 to 2): " in text
    for path in tmp_path.rglob("summary.json"):
        summary = {**json.loads(path.read_text()), "command": "python first.py", "commit": "abc"}
        path.write_text(json.dumps(summary))
    table(tmp_path, 3, rows=ROWS[:1])
    text = (tmp_path / "table.md").read_text()
    assert "Made cross_entropy:\n\n    python first.py\n" in text
    assert text.count("Hardware: ") == text.count("Hardware") == 1


def test_a_stopped_extension_goes_on(tmp_path, at_once, monkeypatch):
    table(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.sweep.retrain", lambda *_, **__: None)  # as after a signal
        with pytest.raises(InterruptedError):
            table(tmp_path, 4)
    rows = list(csv.reader((tmp_path / "table.csv").read_text().splitlines()))[1:]
    assert [row[:2] for row in rows] == [["cross_entropy", "4"], ["crt", "2"]]
    assert table(tmp_path, 4) == at_once[1]


def test_a_table_stopped_in_a_first_stage_can_get_more_seeds(tmp_path, at_once):
    """Of its row there is no folder yet."""
    with dying(0), pytest.raises(Killed):
        table(tmp_path, 2, rows=ROWS[1:])
    assert [path.name for path in tmp_path.glob("crt*")] == ["crt_stage1"]
    row = table(tmp_path, 4, rows=ROWS[1:])[1]
    assert row[:3] == at_once[1][2][:3]
    assert sorted(path.name for path in tmp_path.glob("seeds_*")) == ["seeds_2-3"]


def test_further_seeds_stay_when_the_rows_before_them_are_removed(tmp_path, at_once):
    """As is done with a row that diverged: it is trained again, and no seed twice."""
    table(tmp_path, 2, rows=ROWS[:1])
    table(tmp_path, 4, rows=ROWS[:1])
    shutil.rmtree(tmp_path / "cross_entropy")
    assert table(tmp_path, 4, rows=ROWS[:1])[1][:3] == at_once[1][1][:3]
    assert json.loads((tmp_path / "cross_entropy/summary.json").read_text())["seeds"] == [0, 1]


# Runs of one seed each, as array jobs make them.


def test_runs_of_other_seeds_are_one_in_a_report(tmp_path):
    """Whatever they are called; the same seed again, or another config, is a run of its own."""
    for seed in (3, 5):
        train(tiny(seed=seed, name=f"seed_{seed}"), tmp_path / str(seed))
    train(tiny(seed=5), tmp_path / "again")
    train(tiny(seed=7, train__epochs=1), tmp_path / "shorter")
    train(tiny(seed=9, train__picture=True), tmp_path / "9")
    names = ("3", "5", "again", "shorter", "9")
    (group,) = grouped(read_runs(tmp_path / name for name in names))
    assert [run.summary["seeds"] for run in group.runs] == [[3, 5, 9], [5], [7]]
    assert [path.name for path in group.runs[0].paths] == ["3", "5", "9"]


def test_runs_of_earlier_versions_lack_fields(tmp_path):
    """Which had their defaults."""
    a, b = (train(tiny(seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    del a["config"]["model"]["fused"], a["config"]["data"]["train_split"]
    assert can_join(a, b)
    assert can_join(b, a)
    b["config"]["data"]["train_split"] = "trainval"
    assert not can_join(a, b)


def test_rows_of_metrics_are_joined(tmp_path):
    """By step; what not all have is left out."""
    train(tiny(replicas=2), tmp_path / "whole")
    for seed in (0, 1):
        train(tiny(seed=seed), tmp_path / str(seed))
    parts = [read_metrics(tmp_path / str(seed) / "metrics.jsonl") for seed in (0, 1)]
    found = joined_rows([parts[0], parts[1][:-1]])
    expected = read_metrics(tmp_path / "whole" / "metrics.jsonl")[:-1]
    for rows in (found, expected):
        for row in rows:
            row.pop("images_per_second", None)
    assert found == expected
