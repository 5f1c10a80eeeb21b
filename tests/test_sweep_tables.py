"""The folder of a table: rows of earlier commands stay, and all are of the same images."""

import json
import shutil

import jax
import numpy as np
import pytest
from second_stages import digits_as_arrays
from swept_tables import swept
from tiny_runs import PixelNet, tiny

from lt_jax import models, sweep
from lt_jax.comparison.runs import read_runs
from lt_jax.data import load_source
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.sweep import run_sweep
from lt_jax.tables import table_names
from lt_jax.train import train as train_row
from lt_jax.trained import load_trained


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


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


def test_a_row_in_a_folder_of_another_name_is_told_once(tmp_path, capsys):
    """Renamed, or copied from another machine: it would be gone from the table without a word."""
    swept(tmp_path, "cross_entropy", "focal")
    swept(tmp_path / "elsewhere", "ldam")
    (tmp_path / "focal").rename(tmp_path / "focal_old")
    shutil.copytree(tmp_path / "elsewhere" / "ldam", tmp_path / "ldam_of_b")
    capsys.readouterr()
    assert swept(tmp_path, "cross_entropy") == ["cross_entropy"]
    told = capsys.readouterr().err
    for folder, name in (("focal_old", "focal"), ("ldam_of_b", "ldam")):
        left_out = f"left out of the table: the folder {tmp_path / folder} holds the run '{name}'"
        assert told.count(left_out) == 1
        assert f"rename it to {name} " in told
    (tmp_path / "focal_old").rename(tmp_path / "focal")
    swept(tmp_path, "cross_entropy", "focal")
    assert "focal_old" not in capsys.readouterr().err


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


# What the table tells beside scores.


def told(folder):
    """Lines under the table."""
    return [x for x in (folder / "table.md").read_text().splitlines() if not x.startswith("|")]


def test_rows_that_diverged_are_under_the_table_until_they_finish_or_are_removed(tmp_path):
    """Also in tables of later commands, and those whose first stage they share."""
    crt = "- crt has no scores: the loss of seed 0 was not finite at step "
    swept(tmp_path, "cross_entropy", "crt", retrain__learning_rate=1e38)
    assert [line.partition("step ")[0] + "step " for line in told(tmp_path) if crt in line] == [crt]
    swept(tmp_path, "tau_norm")
    assert any(crt in line for line in told(tmp_path))
    rows = table_names(tmp_path)
    assert rows == ["cross_entropy", "tau_norm"]
    swept(tmp_path, "gcl", "gcl/ncm", optimizer__learning_rate=1e38)
    for name in ("crt", "gcl", "gcl_ncm"):
        assert len([line for line in told(tmp_path) if line.startswith(f"- {name} has no")]) == 1
    assert table_names(tmp_path) == rows
    shutil.rmtree(tmp_path / "gcl_stage1")
    shutil.rmtree(tmp_path / "crt")
    swept(tmp_path, "cross_entropy", "crt")
    assert not any("no scores" in line for line in told(tmp_path))
    assert table_names(tmp_path) == ["cross_entropy", "tau_norm", "crt"]


def test_rows_of_other_recipes_and_commands_are_told(tmp_path):
    swept(tmp_path, "cross_entropy", "focal", "crt")
    assert not any("recipes" in line or line.startswith("Made") for line in told(tmp_path))
    swept(tmp_path, "ldam", train__epochs=2, optimizer__learning_rate=0.05)
    found = told(tmp_path)
    place = found.index("Fields in which the recipes of the rows differ:")
    assert found[place + 2 : place + 5] == [
        "- `optimizer.learning_rate`: 0.1, but 0.05 of ldam",
        "- `train.epochs`: 1, but 2 of ldam",
        "",
    ]
