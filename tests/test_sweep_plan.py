"""First stages in the folder of a table: found whoever began them, refused where they are gone."""

import json
import shutil

import jax
import numpy as np
import pytest
from second_stages import digits_as_arrays
from swept_tables import swept
from tiny_runs import Killed, PixelNet, dying, snapshot, tiny

from lt_jax import models, sweep
from lt_jax.data import load_source
from lt_jax.errors import InputError
from lt_jax.sweep_seeds import run_table
from lt_jax.train import train
from lt_jax.trained import load_trained


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


@pytest.fixture
def trained(monkeypatch):
    """Names of the folders in which a sweep trains a run of one stage."""
    names = []

    def noting(config, folder, **options):
        names.append(folder.name)
        return train(config, folder, **options)

    monkeypatch.setattr(sweep, "train", noting)
    return names


def first_of(folder):
    """Name and scores of the first stage that a row tells."""
    summary = json.loads((folder / "summary.json").read_text())
    return summary["stage1"]["name"], summary["stage1"]["test"]["last"]["mean"]


# Found.


def test_a_row_of_an_earlier_command_is_the_first_stage(tmp_path, trained, capsys):
    """Not trained again for each command: for ImageNet that would be days."""
    swept(tmp_path, "cross_entropy", "crt")
    before = snapshot(tmp_path / "cross_entropy")
    swept(tmp_path, "lws")
    assert swept(tmp_path, "ncm") == ["cross_entropy", "crt", "lws", "ncm"]
    assert trained == ["cross_entropy"]
    assert not list(tmp_path.glob("*_stage1"))
    assert "lws starts from cross_entropy, which has finished." in capsys.readouterr().err
    own = json.loads((tmp_path / "cross_entropy" / "summary.json").read_text())["test"]["last"]
    assert first_of(tmp_path / "ncm") == ("cross_entropy", own["mean"])
    assert snapshot(tmp_path / "cross_entropy") == before


def test_the_first_stage_of_another_row_is_one_too_and_a_row_if_it_is_asked_for(tmp_path, trained):
    swept(tmp_path, "crt")
    swept(tmp_path, "lws", "focal")
    assert swept(tmp_path, "cross_entropy", "tau_norm")[-2:] == ["cross_entropy", "tau_norm"]
    assert trained == ["crt_stage1", "focal"]
    assert [first_of(tmp_path / name)[0] for name in ("lws", "tau_norm")] == ["crt_stage1"] * 2
    one, other = (load_trained(tmp_path / name) for name in ("crt_stage1", "cross_entropy"))
    jax.tree.map(np.testing.assert_array_equal, one.weights, other.weights)
    assert not (tmp_path / "cross_entropy" / "checkpoints").exists()


def test_a_run_of_another_recipe_is_none(tmp_path, trained):
    swept(tmp_path, "cross_entropy")
    swept(tmp_path, "crt", train__epochs=2)
    swept(tmp_path, "lws", optimizer__learning_rate=0.2)
    assert trained == ["cross_entropy", "crt_stage1", "lws_stage1"]


def test_an_unfinished_first_stage_of_another_row_is_gone_on_with(tmp_path, trained, capsys):
    """With the settings it has, whichever the command has that change nothing of its weights."""
    with dying(2), pytest.raises(Killed):
        swept(tmp_path, "crt", train__epochs=3)
    swept(tmp_path, "lws", train__epochs=3, train__log_every_steps=2, train__keep_checkpoints=3)
    assert "going on from step" in capsys.readouterr().err
    assert trained == ["crt_stage1", "crt_stage1"]
    assert first_of(tmp_path / "lws")[0] == "crt_stage1"
    assert not (tmp_path / "lws_stage1").exists()
    undisturbed = train(tiny("cross_entropy", train__epochs=3), tmp_path / "undisturbed")
    assert first_of(tmp_path / "lws")[1] == undisturbed["test"]["last"]["mean"]


def test_a_finished_one_is_taken_before_an_unfinished_one(tmp_path, trained):
    with dying(1), pytest.raises(Killed):
        train(tiny(name="a_stage1", train__epochs=2), tmp_path / "a_stage1")
    train(tiny(name="b_stage1", train__epochs=2), tmp_path / "b_stage1")
    swept(tmp_path, "ncm", train__epochs=2)
    assert first_of(tmp_path / "ncm")[0] == "b_stage1"
    assert trained == []


def test_an_unfinished_copy_is_left_alone(tmp_path, trained):
    with dying(2), pytest.raises(Killed):
        swept(tmp_path, "crt", train__epochs=3)
    (tmp_path / "crt_stage1").rename(tmp_path / "saved")
    before = snapshot(tmp_path / "saved")
    swept(tmp_path, "lws", train__epochs=3)
    assert trained == ["crt_stage1", "lws_stage1"]  # which has not finished there
    assert snapshot(tmp_path / "saved") == before


def stage_1_beside_its_row(folder):
    """Both `cross_entropy` and `crt_stage1`, as earlier versions trained them."""
    for name in ("cross_entropy", "crt_stage1"):
        train(tiny(name=name, train__epochs=1), folder / name)


def test_a_row_with_a_first_stage_of_its_own_keeps_it(tmp_path, trained):
    stage_1_beside_its_row(tmp_path)
    swept(tmp_path, "cross_entropy", "crt", "lws")
    assert [first_of(tmp_path / n)[0] for n in ("crt", "lws")] == ["crt_stage1", "cross_entropy"]


def test_a_second_stage_goes_on_from_what_it_was_begun_with(tmp_path):
    """Or it would be refused, as its weights are of another one."""
    with dying(1, stage=2), pytest.raises(Killed):
        swept(tmp_path, "cross_entropy", "crt", augment__flip=True)
    train(tiny(name="crt_stage1", train__epochs=1, augment__flip=True), tmp_path / "crt_stage1")
    swept(tmp_path, "crt", augment__flip=True)
    assert first_of(tmp_path / "crt")[0] == "cross_entropy"


# Refused.


def test_a_first_stage_of_other_images_is_refused(tmp_path):
    own = {"data__source": digits_as_arrays(tmp_path / "my.npz"), "data__imbalance": 0}
    swept(tmp_path / "t", "crt", **own)
    shutil.rmtree(tmp_path / "t" / "crt")
    images = 16 * (load_source("digits").train_images // 32)
    digits_as_arrays(tmp_path / "my.npz", x_train=images)
    with pytest.raises(InputError, match="row 'crt_stage1' has finished with other training ima"):
        swept(tmp_path / "t", "focal", "lws", **own)
    assert sorted(p.name for p in (tmp_path / "t").glob("*/")) == ["crt_stage1"]


@pytest.mark.parametrize("first", ["cross_entropy", "crt_stage1"])
def test_weights_that_are_gone_are_missed_before_anything_is_trained(tmp_path, trained, first):
    """Of a row and of a first stage alike; without the folder it is trained anew."""
    rows = [first] if first == "cross_entropy" else []
    train(tiny(name=first, train__epochs=1), tmp_path / first)
    shutil.rmtree(tmp_path / first / "checkpoints")
    with pytest.raises(InputError) as told:
        swept(tmp_path, *rows, "focal", "crt")
    assert str(told.value) == (
        f"row 'crt' starts from the weights in {tmp_path / first}, whose last checkpoint is gone;"
        f" remove the folder {tmp_path / first} to train it anew"
    )
    assert trained == []
    shutil.rmtree(tmp_path / first)
    assert swept(tmp_path, *rows, "focal", "crt") == [*rows, "focal", "crt"]


def test_weights_that_no_row_needs_may_be_gone(tmp_path, trained):
    swept(tmp_path, "cross_entropy", "crt")
    shutil.rmtree(tmp_path / "cross_entropy" / "checkpoints")
    swept(tmp_path, "cross_entropy", "crt", "focal")
    assert trained[-1] == "focal"


def test_weights_that_are_gone_are_not_taken_where_there_are_others(tmp_path, trained):
    """Also for a row that comes after one which was made from those that are gone."""
    swept(tmp_path, "crt")
    train(tiny(name="cross_entropy", train__epochs=1), tmp_path / "cross_entropy")
    shutil.rmtree(tmp_path / "crt_stage1" / "checkpoints")
    swept(tmp_path, "crt", "lws")
    assert trained == ["crt_stage1"]
    assert first_of(tmp_path / "lws")[0] == "cross_entropy"


def test_of_a_row_that_the_command_does_not_name_they_are_told(tmp_path, trained, capsys):
    """To remove it would take it from the table."""
    swept(tmp_path, "cross_entropy")
    shutil.rmtree(tmp_path / "cross_entropy" / "checkpoints")
    assert swept(tmp_path, "crt") == ["cross_entropy", "crt"]
    assert trained == ["cross_entropy", "crt_stage1"]
    assert "the weights of cross_entropy are gone, from which crt could" in capsys.readouterr().err


def test_a_second_stage_whose_first_is_gone_cannot_go_on(tmp_path, trained):
    with dying(1, stage=2), pytest.raises(Killed):
        swept(tmp_path, "crt", augment__flip=True)
    trained.clear()
    first, second = tmp_path / "crt_stage1", tmp_path / "crt"
    shutil.rmtree(first / "checkpoints")
    with pytest.raises(InputError, match=f"remove the folder {first} and {second} to train both"):
        swept(tmp_path, "focal", "crt", augment__flip=True)
    shutil.rmtree(first)
    with pytest.raises(InputError, match=f"is no more in {tmp_path}; remove the folder {second} "):
        swept(tmp_path, "focal", "crt", augment__flip=True)
    assert trained == []


def test_weights_of_further_seeds_are_missed_before_the_first_are_trained(tmp_path, trained):
    def table(seeds, *methods):
        configs = {m: tiny(m, replicas=seeds, train__epochs=1) for m in methods}
        run_table(configs, tmp_path, lambda *_: None)

    table(1, "cross_entropy")
    table(2, "cross_entropy")
    trained.clear()
    shutil.rmtree(tmp_path / "seeds_1" / "cross_entropy" / "checkpoints")
    with pytest.raises(InputError, match=r"row 'ncm' starts from .*seeds_1.* is gone; remove the"):
        table(2, "cross_entropy", "focal", "ncm")
    assert trained == []


def test_a_first_stage_of_another_recipe_in_its_place_is_refused_at_once(tmp_path, trained):
    train(tiny(name="crt_stage1", train__epochs=1), tmp_path / "crt_stage1")
    with pytest.raises(InputError, match=r"train\.epochs = 1, and this config has 2"):
        swept(tmp_path, "focal", "crt", train__epochs=2)
    assert trained == []
