"""Edges of second stages and sweeps: what a review found, so that it stays mended."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from second_stages import (  # noqa: F401 (fixtures)
    _no_training,
    assert_refused,
    ce,
    digits_as_arrays,
    second,
)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import ROOT, Killed, checkpoint, snapshot, tiny

from lt_jax import workdir
from lt_jax.configuration import base_config, plain, read_config, with_stage
from lt_jax.data.sources import load_source
from lt_jax.errors import InputError
from lt_jax.objectives import TRANSFORMS
from lt_jax.objectives.core import stateless
from lt_jax.retrain import retrain
from lt_jax.settings import load_configs, override
from lt_jax.sweep import plan, run_sweep
from lt_jax.train import train
from lt_jax.two_stage import gcl_objective

COUNTS = (60, 40, 30, 20, 10, 10, 10, 10, 10, 0)
LATE = {
    "best weights": lambda: second(
        "crt", data__validation_size=0, retrain__weights="best_on_validation"
    ),
    "explicit head": lambda: tiny(
        "cross_entropy/crt/gcl", model__head="linear", retrain__batch_size=64
    ),
    "empty class": lambda: second("posthoc_logit_adjustment", data__class_counts=COUNTS),
}


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", LATE)
def test_refused_before_the_first_stage_is_trained(name, tmp_path):
    assert_refused(lambda: train(LATE[name](), tmp_path / "run"), ".", tmp_path / "run")


def test_a_run_of_two_stages_from_before_a_field_goes_on(tmp_path):
    """A field of either stage that came later had its default, and nothing else."""
    config = second("crt")
    older = plain(config)
    del older["retrain"]["augment"]["color_jitter"]
    del older["sampling"]["power"], older["retrain"]["sampling"]["power"]
    workdir.write_json(tmp_path / workdir.CONFIG, older)
    workdir.check_config_matches(config, tmp_path)
    assert read_config(tmp_path / workdir.CONFIG).retrain.augment.color_jitter == 0.0
    assert plain(read_config(tmp_path / workdir.CONFIG)) == plain(config)
    with pytest.raises(InputError, match=r"retrain.augment.color_jitter = 0.0, and this config"):
        workdir.check_config_matches(second("crt", retrain__augment__color_jitter=0.4), tmp_path)


@pytest.mark.parametrize("method", ["cb_focal", "cross_entropy/crt/cb_softmax"])
def test_a_run_from_before_an_option_of_its_loss_goes_on(method, tmp_path):
    """The option had its default; a loss that the run did not have is another run's."""
    config = base_config(method)
    older = plain(config)
    for spec in (older["objective"], older["retrain"].get("objective", {})):
        spec.get("transforms", {}).get("class_balanced", {}).pop("normalize", None)
    workdir.write_json(tmp_path / workdir.CONFIG, older)
    workdir.check_config_matches(config, tmp_path)
    assert plain(read_config(tmp_path / workdir.CONFIG)) == plain(config)
    group = config.retrain if config.retrain.method else config
    group.objective.transforms.class_balanced.normalize = True
    with pytest.raises(InputError, match=r"class_balanced.normalize = False, and this config has"):
        workdir.check_config_matches(config, tmp_path)
    with pytest.raises(InputError, match="and this config has"):
        workdir.check_config_matches(base_config(f"{method}+focal"), tmp_path)


def test_empty_class_leaves_no_folder(tmp_path):
    config = second("posthoc_logit_adjustment", data__class_counts=COUNTS)
    train(tiny(replicas=2, data__class_counts=COUNTS), tmp_path / "a")
    assert_refused(lambda: retrain(config, tmp_path / "b", tmp_path / "a"), "count", tmp_path / "b")


def test_stage_1_trained_apart_in_its_place(tmp_path, ce):
    shutil.copytree(ce.folder, tmp_path / "stage1")
    summary = train(second("crt"), tmp_path)
    assert train(second("crt"), tmp_path) == summary


def test_sentence_of_a_misspelt_setting():
    with pytest.raises(InputError) as error:
        override(base_config("crt"), ["train.epoch=3"])
    assert len(str(error.value)) < 200
    assert "\\" not in str(error.value)


def test_true_is_no_number():
    config = base_config("crt")
    with pytest.raises(InputError):
        override(config, ["optimizer.learning_rate=true"])


def test_rows_on_different_images_make_no_table(tmp_path):
    a, b = tiny(train__epochs=1), tiny(train__epochs=1, data__imbalance=20.0)
    with pytest.raises(InputError, match="rows 'a' and 'b' are on different data"):
        run_sweep({"a": a, "b": b}, tmp_path / "s", lambda s: None)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("change", [{"seed": 1}, {"replicas": 2}])
def test_rows_of_other_seeds_make_no_table(change, tmp_path):
    """They would be trained, and then could not be compared seed by seed."""
    a, b = tiny(train__epochs=1), tiny(train__epochs=1, **change)
    with pytest.raises(InputError, match=r"rows 'a' and 'b' have the seeds \[0\] and \["):
        run_sweep({"a": a, "b": b}, tmp_path / "s", lambda s: None)
    assert not (tmp_path / "s").exists()


def test_other_test_images_are_noticed(tmp_path):
    source = digits_as_arrays(tmp_path / "my.npz")
    train(tiny(replicas=2, data__source=source), tmp_path / "a")
    digits_as_arrays(tmp_path / "my.npz", y_test=load_source("digits").test_labels[::-1])
    with pytest.raises(InputError):
        retrain(second("tau_norm", data__source=source), tmp_path / "b", tmp_path / "a")


def other_weights(ce, folder):
    other = Path(shutil.copytree(ce.folder, folder))
    shutil.rmtree(other / "checkpoints/6")
    (other / "checkpoints/3").rename(other / "checkpoints/6")
    return other


def test_computed_classifier_is_saved_anew(tmp_path, ce, monkeypatch):
    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.posthoc.write_summary", die)
        with pytest.raises(Killed):
            retrain(second("tau_norm"), tmp_path / "run", ce.folder)
    with pytest.raises(InputError, match="started from other weights"):
        retrain(second("tau_norm"), tmp_path / "run", other_weights(ce, tmp_path / "other"))


def test_finished_second_stage_of_another_stage_1(tmp_path, ce):
    retrain(second("tau_norm"), tmp_path / "run", ce.folder)
    with pytest.raises(InputError):
        retrain(second("tau_norm"), tmp_path / "run", other_weights(ce, tmp_path / "other"))


def test_folder_inside_stage_1(tmp_path, ce):
    first = Path(shutil.copytree(ce.folder, tmp_path / "ce"))
    before = snapshot(first)
    with pytest.raises(InputError, match="is that of stage 1"):
        retrain(second("tau_norm"), first / "tau", first)
    assert snapshot(first) == before


def test_folder_is_the_checkpoints_folder(tmp_path, ce):
    first = Path(shutil.copytree(ce.folder, tmp_path / "ce"))
    before = snapshot(first)
    with pytest.raises(InputError, match="is that of stage 1"):
        retrain(second("tau_norm"), first / "checkpoints", first)
    assert snapshot(first) == before


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_summary_of_stage_1_that_is_damaged(tmp_path, ce, text):
    first = Path(shutil.copytree(ce.folder, tmp_path / "ce"))
    (first / "summary.json").write_text(text)
    with pytest.raises(InputError):
        retrain(second("crt"), tmp_path / "run", first)


def test_config_of_stage_1_that_is_damaged(tmp_path, ce):
    first = Path(shutil.copytree(ce.folder, tmp_path / "ce"))
    for text in ("[]", '{"retrain": 3}', '{"data": {"imbalance": "x"}}'):
        (first / "config.json").write_text(text)
        with pytest.raises(InputError):
            retrain(second("crt"), tmp_path / "run", first)


def sweep(home, *flags):
    one_device = os.environ["XLA_FLAGS"].replace("count=8", "count=1")
    env = {**os.environ, "XLA_FLAGS": one_device, "HOME": str(home)}
    return subprocess.run(
        [sys.executable, *flags], cwd=ROOT, env=env, capture_output=True, text=True
    )


SMALL = [
    "--set=data.source=made_features:1",  # with a network that compiles in no time
    "--set=model.name=linear",
    "--set=augment.crop_padding=0",
    "--set=train.epochs=1",
    "--set=data.max_count=60",
    "--set=data.imbalance=10",
    "--set=train.picture=false",
    "--set=train.progress=false",
    "--set=train.tensorboard=false",
    "--seeds=1",
]


def test_workdir_with_a_tilde(tmp_path):
    done = sweep(tmp_path, "launch/sweep.py", "--row=cross_entropy", *SMALL, "--workdir=~/x")
    assert done.returncode == 0, done.stderr[-1500:]
    assert (tmp_path / "x/table.md").exists()


def test_all_rows_failed(tmp_path):
    done = sweep(
        tmp_path,
        "launch/sweep.py",
        "--row=cross_entropy",
        *SMALL,
        "--set=optimizer.learning_rate=1e38",
        "--set=train.epochs=3",
        f"--workdir={tmp_path / 's'}",
    )
    assert done.returncode == 3, done.stderr[-1500:]
    assert ("the table is in" in done.stderr) == (tmp_path / "s/table.md").exists(), done.stderr


def test_row_config_errors_before_training(tmp_path):
    configs = {"a": tiny(), "b": tiny("crt", retrain__batch_size=4096)}
    with pytest.raises(InputError):
        run_sweep(configs, tmp_path / "s", lambda s: None)
    assert not (tmp_path / "s").exists()


def test_stage1_folder_name_is_taken(tmp_path):
    a = tiny()
    b = tiny("crt", optimizer__learning_rate=0.3)
    rows = plan({"crt_stage1": a, "crt": b})
    assert rows[1].stage1 != "crt_stage1"


def test_equal_rows_are_trained_once(tmp_path):
    configs = runpy.run_path(str(ROOT / "configs/cifar_lt.py"))
    rows = plan(load_configs(configs, "both_tables,cifar10,100", [], [], 5))
    same = {r.name: r.same_as for r in rows if r.same_as}
    assert same == {"cifar10_lt100_cb_best": "cifar10_lt100_cb_focal_1"}
    seen = []
    small = {"a": tiny(train__epochs=1), "b": tiny(train__epochs=1)}
    small["b"].name = "b"
    run_sweep(small, tmp_path, seen.append)
    assert [s["name"] for s in seen[-1]] == ["cross_entropy", "b"]
    assert seen[-1][0]["test"] == seen[-1][1]["test"]
    assert not (tmp_path / "b" / "checkpoints").exists()


def test_config_file_without_get_config(tmp_path):
    (tmp_path / "c.py").write_text("x = 1\n")
    done = sweep(
        tmp_path,
        "launch/sweep.py",
        f"--config={tmp_path / 'c.py'}",
        "--row=a",
        f"--workdir={tmp_path / 's'}",
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_retrain_flag_sentence(tmp_path, ce):
    done = sweep(
        tmp_path,
        "launch/retrain_classifier.py",
        f"--from_workdir={ce.folder}",
        "--set=epoch=3",
        f"--workdir={tmp_path / 's'}",
    )
    assert done.returncode == 2
    assert "\\n" not in done.stderr
    assert len(done.stderr) < 300


def test_workdir_nested_name(tmp_path, ce):
    c = tiny("gcl/crt")
    assert "/" not in c.name
    configs = load_configs({"get_config": lambda m: tiny(m)}, None, ["gcl/crt"], [], 1)
    assert list(configs) == ["gcl_crt"]


def test_best_weights_are_used(tmp_path, ce):
    c = second("tau_norm", retrain__weights="best_on_validation", retrain__tau=(0.0,))
    retrain(c, tmp_path / "r", ce.folder)
    b = checkpoint(ce.folder)["best"]
    np.testing.assert_array_equal(
        checkpoint(tmp_path / "r")["stats"]["params"]["head"]["kernel"],
        b["params"]["head"]["kernel"],
    )


def test_a_computed_classifier_is_drawn_too(tmp_path, ce):
    """It has no metrics file, whose absence must not stop the run after its summary."""
    config = second("tau_norm", train__picture=True)
    retrain(config, tmp_path, ce.folder)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_second_stage_of_a_run_suits_its_batches_and_its_scale():
    """Else 312 images were seen in 20 updates, and a scale of 20 followed one of 15."""
    first = base_config("gcl_stage1")
    first.train.batch_size, first.objective.transforms.gaussian_cloud.scale = 32, 15.0
    second = with_stage(first, "gcl").retrain
    assert second.batch_size == with_stage(first, "crt").retrain.batch_size == 32
    assert second.objective.transforms.gaussian_cloud.scale == 10.0
    first.train.batch_size = 1024
    assert with_stage(first, "crt").retrain.batch_size == 128
    usual = with_stage(base_config("cosine"), "gcl").retrain.objective
    assert usual.to_dict() == gcl_objective()
    first.objective.transforms.gaussian_cloud.scale = 9.0
    for stage in ("lws", "finetune/ldam"):  # which keep the head, and so its scale
        (transform,) = with_stage(first, stage).retrain.objective.transforms.values()
        assert transform.scale == 9.0
    assert (
        base_config("cross_entropy/crt/gcl_stage1").retrain.objective
        == base_config("gcl").objective
    )


def test_an_option_called_scale_is_none_of_cosines(monkeypatch):
    """A transform says by itself whether it takes cosines, and what it scales them by."""
    monkeypatch.setitem(TRANSFORMS, "tempered", lambda *, scale=2.0: stateless(
        lambda key, terms: terms._replace(logits=terms.logits / scale), name="tempered",
        stage="logits",
    ))  # fmt: skip
    first = base_config("cross_entropy+tempered")
    assert dict(with_stage(first, "lws").retrain.objective.transforms) == {}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("crs", "crt"),
        ("tau_nrm", "tau_norm"),
        ("gcl_stag1", "gcl_stage1"),
        ("cb_focl+focal/crt", "cb_focal"),
        ("focal/cr", "crt"),
    ],
)
def test_unknown_methods_are_told_of_those_with_two_stages(name, hint):
    """Aliases of two stages were in no list and no hint."""
    with pytest.raises(InputError, match=rf"expected one of .*; did you mean {hint}\?$") as error:
        base_config(name)
    assert {"crt", "lws", "tau_norm", "ncm"} <= set(re.findall(r"\w+", str(error.value)))
