"""The folder of a table: rows of earlier commands stay, and all are of the same images."""

import json
import shutil

import jax
import numpy as np
import pytest
from second_stages import digits_as_arrays
from tiny_runs import PixelNet, tiny

from lt_jax import models, sweep
from lt_jax.comparison.runs import read_runs
from lt_jax.data import load_source
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.sweep import run_sweep, write_table
from lt_jax.tables import table_names
from lt_jax.train import train as train_row
from lt_jax.trained import load_trained


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


def swept(folder, *methods, **fields):
    """The names in the table after a sweep over rows of one epoch."""
    configs = {name: tiny(name, train__epochs=1, **fields) for name in methods}
    for name, config in configs.items():
        config.name = name
    run_sweep(configs, folder, lambda summaries: write_table(summaries, folder))
    return table_names(folder)


def test_rows_of_earlier_commands_stay_in_their_places(tmp_path, capsys):
    assert swept(tmp_path, "cross_entropy", "focal") == ["cross_entropy", "focal"]
    assert "keeps" not in capsys.readouterr().err
    assert swept(tmp_path, "gcl_stage1") == ["cross_entropy", "focal", "gcl_stage1"]
    assert "the table keeps the finished rows cross_entropy, focal." in capsys.readouterr().err
    # Whoever names all of them has them in that order.
    named = ["gcl_stage1", "focal", "cross_entropy"]
    assert swept(tmp_path, *named) == named
    with pytest.raises(InputError, match=r"has the row 'gcl_stage1' of seeds \[0\], and row 'ldam"):
        swept(tmp_path, "ldam", replicas=2)


def test_finished_rows_of_the_command_are_in_the_table_from_its_start(tmp_path, monkeypatch):
    """Rows of one stage come first: a signal during a new one leaves those of two in it."""
    swept(tmp_path, "crt", "cross_entropy")
    monkeypatch.setattr(sweep, "train", stopping_at("focal"))
    with pytest.raises(InterruptedError):
        swept(tmp_path, "crt", "cross_entropy", "focal")
    assert table_names(tmp_path) == ["crt", "cross_entropy"]


def stopping_at(name):
    """Training, but for a row that a signal stops."""

    def train(config, folder, **options):
        return None if folder.name == name else train_row(config, folder, **options)

    return train


def test_a_finished_row_needs_no_first_stage(tmp_path):
    assert swept(tmp_path, "crt") == ["crt"]
    shutil.rmtree(tmp_path / "crt_stage1")
    assert swept(tmp_path, "crt", "focal") == ["crt", "focal"]
    assert not (tmp_path / "crt_stage1").exists()


def test_only_folders_that_a_sweep_made_are_rows(tmp_path, capsys):
    swept(tmp_path, "cross_entropy", "focal")
    shutil.copytree(tmp_path / "focal", tmp_path / "focal_old")
    for name, text in (("notes", '{"a": 1}'), ("cut", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    assert swept(tmp_path, "cross_entropy") == ["cross_entropy", "focal"]
    assert f"left out of the table: {tmp_path / 'cut'}" in capsys.readouterr().err


def test_tables_of_earlier_versions_go_on(tmp_path):
    """Their summaries lack hashes, their names had that of the data, means other last bits."""
    swept(tmp_path, "cross_entropy", "focal")
    for path in tmp_path.glob("*/summary.json"):
        summary = json.loads(path.read_text())
        for name in ("train_hash", "validation_hash"):
            del summary["data"][name]
        summary["data"]["pixel_mean"] = [x * (1 + 1e-12) for x in summary["data"]["pixel_mean"]]
        path.write_text(json.dumps(summary))
    table = tmp_path / "table.csv"
    table.write_text(table.read_text().replace("focal", "multi_digits_focal"))
    (tmp_path / "focal").rename(tmp_path / "multi_digits_focal")
    path = tmp_path / "multi_digits_focal" / "summary.json"
    path.write_text(path.read_text().replace('"name": "focal"', '"name": "multi_digits_focal"'))
    assert swept(tmp_path, "cross_entropy", "ldam") == ["cross_entropy", "focal", "ldam"]


@pytest.mark.parametrize(
    ("part", "what"), [("y_test", "test images"), ("x_train", "training images")]
)
def test_rows_of_other_images_are_refused_before_anything_is_trained(part, what, tmp_path):
    """Paired, their differences would be those of the images."""
    path = tmp_path / "my.npz"
    own = {"data__source": digits_as_arrays(path), "data__imbalance": 0}
    swept(tmp_path / "t", "cross_entropy", "focal", **own)
    before = (tmp_path / "t" / "table.md").read_text()
    source = load_source("digits")
    values = {"y_test": source.test_labels[::-1], "x_train": 16 * (source.train_images // 32)}
    digits_as_arrays(path, **{part: np.asarray(values[part])})
    with pytest.raises(InputError, match=f"row 'cross_entropy' has finished with other {what}"):
        swept(tmp_path / "t", "cross_entropy", "gcl_stage1", **own)
    assert not (tmp_path / "t" / "gcl_stage1").exists()
    assert (tmp_path / "t" / "table.md").read_text() == before


def test_a_row_that_is_the_run_of_another_can_be_used_like_it(tmp_path, capsys):
    """Balanced softmax is logit adjustment with a tau of 1."""
    rows = ["balanced_softmax", "logit_adjustment"]
    assert swept(tmp_path, *rows) == rows
    assert "logit_adjustment is the same run as balanced_softmax" in capsys.readouterr().err
    assert not (tmp_path / "logit_adjustment" / "checkpoints").exists()
    assert [run.name for run in read_runs([tmp_path])] == rows
    one, other = (load_trained(tmp_path / name) for name in rows)
    jax.tree.map(np.testing.assert_array_equal, one.weights, other.weights)
    second = tiny("balanced_softmax/tau_norm", train__epochs=1)
    found = retrain(second, tmp_path / "second", tmp_path / "logit_adjustment")
    assert found["stage1"]["name"] == "balanced_softmax"
    assert swept(tmp_path, *rows[::-1]) == rows[::-1]
    # A third that is the second's run is the first's.
    config = tiny("logit_adjustment", train__epochs=1, name="third")
    both = {"logit_adjustment": tiny(rows[1], train__epochs=1, name=rows[1]), "third": config}
    run_sweep(both, tmp_path, lambda _: None)
    third = load_trained(tmp_path / "third")
    jax.tree.map(np.testing.assert_array_equal, one.weights, third.weights)
