"""The folder of a table: rows of earlier commands stay, and all are of the same images."""

import jax
import numpy as np
import pytest
from second_stages import digits_as_arrays
from tiny_runs import PixelNet, tiny

from lt_jax import models
from lt_jax.comparison.runs import read_runs
from lt_jax.data import load_source
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.sweep import run_sweep, write_table
from lt_jax.tables import table_names
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
