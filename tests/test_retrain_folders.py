"""Folders and images that a second stage cannot start from, or cannot write to: they stay."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from second_stages import (  # noqa: F401 (fixtures)
    _no_training,
    assert_refused,
    ce,
    digits_as_arrays,
    done,
    gcl,
    second,
)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import ROOT, snapshot, tiny

from lt_jax.data.sources import load_source
from lt_jax.retrain import retrain
from lt_jax.train import train


@pytest.fixture(scope="module")
def crt(done):
    """A finished second stage, for tests in which nothing may be trained."""
    return done("crt")


def missing(ce, crt, folder):
    return folder / "none", r"stage-1 workdir .*none does not exist; train stage 1 there first"


def empty(ce, crt, folder):
    (folder / "empty").mkdir()
    return folder / "empty", r"stage-1 workdir .*empty holds no config.json"


def unreadable(ce, crt, folder):
    (folder / "broken").mkdir()
    (folder / "broken/config.json").write_text('{"name": ')
    return folder / "broken", r"config.json cannot be read as the config of a run"


def unfinished(ce, crt, folder):
    copied = Path(shutil.copytree(ce.folder, folder / "unfinished"))
    (copied / "summary.json").unlink()
    return copied, r"stage 1 in .*unfinished has not finished: there is no summary.json"


def second_stage(ce, crt, folder):
    sentence = rf"second stage; expected the folder of a first one, such as {ce.folder}, from which"
    return crt.folder, sentence


def tuning(ce, crt, folder):
    (folder / "tuned").mkdir()
    (folder / "tuned/config.json").write_text('{"tune": {"objective.x.beta": [0.9, 0.99]}}')
    return folder / "tuned", r"tuned compared values on validation; expected the folder of a run"


def no_checkpoint(ce, crt, folder):
    copied = Path(shutil.copytree(ce.folder, folder / "gone"))
    shutil.rmtree(copied / "checkpoints/6")
    return copied, r"gone/checkpoints has no checkpoint of step 6, the last of its run"


def truncated_checkpoint(ce, crt, folder):
    copied = Path(shutil.copytree(ce.folder, folder / "cut"))
    files = [p for p in (copied / "checkpoints/6").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    return copied, r"the checkpoint of step 6 in .*cut/checkpoints cannot be read"


def emptied_checkpoint(ce, crt, folder):
    copied = Path(shutil.copytree(ce.folder, folder / "emptied"))
    for path in (copied / "checkpoints/6").rglob("*"):
        if path.is_file():
            path.unlink()
    return copied, r"the checkpoint of step 6 in .*emptied/checkpoints cannot be read"


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    "make",
    [
        missing,
        empty,
        unreadable,
        unfinished,
        second_stage,
        tuning,
        no_checkpoint,
        truncated_checkpoint,
        emptied_checkpoint,
    ],
    ids=lambda make: make.__name__,
)
def test_folder_of_stage_1_is_refused(make, ce, crt, tmp_path):
    """And stays as it is; no folder is made for the second stage."""
    first, sentence = make(ce, crt, tmp_path)
    call = functools.partial(retrain, second("crt"), tmp_path / "run", first)
    assert_refused(call, sentence, tmp_path / "run", first)


@pytest.mark.usefixtures("_no_training")
def test_folder_of_the_second_stage_is_refused(ce, gcl, crt, tmp_path):
    """That of stage 1, of the run of both stages, of another run, of nobody knows whom."""
    sentence = r"workdir .* is that of stage 1; choose another for stage 2"
    call = functools.partial(retrain, second("crt"), ce.folder, ce.folder)
    assert_refused(call, sentence, ce.folder)
    for given in (gcl.folder, gcl.folder / "stage1"):
        call = functools.partial(retrain, gcl.config, gcl.folder, given)
        assert_refused(call, sentence, gcl.folder)
    other = crt.folder
    call = functools.partial(retrain, second("lws"), other, ce.folder)
    assert_refused(call, r"belongs to a run with name = 'cross_entropy_crt'", other, ce.folder)
    call = functools.partial(retrain, second("crt", retrain__epochs=3), other, ce.folder)
    assert_refused(call, r"belongs to a run with retrain.epochs = 2, and this", other, ce.folder)
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n')
    call = functools.partial(retrain, second("crt"), tmp_path, ce.folder)
    assert_refused(call, r"holds metrics.jsonl but no config.json", tmp_path, ce.folder)


def test_other_images_or_classes_under_the_same_name_are_refused(tmp_path):
    """The file was replaced after stage 1: the weights would be evaluated on other images."""
    path, first, workdir = tmp_path / "my.npz", tmp_path / "stage1", tmp_path / "run"
    source = digits_as_arrays(path)
    train(tiny(replicas=2, data__source=source), first)
    found = load_source("digits")
    call = functools.partial(retrain, second("crt", data__source=source), workdir, first)
    digits_as_arrays(path, x_train=255 - found.train_images)
    sentence = r"was trained on other images than those now in arrays:.*: train_hash was"
    assert_refused(call, sentence, workdir, first)
    digits_as_arrays(path, y_train=found.train_labels[::-1])
    sentence = r"was trained on other images than those now in arrays:.*: index_hash was"
    assert_refused(call, sentence, workdir, first)
    keep = found.train_labels < 9, found.test_labels < 9
    digits_as_arrays(
        path,
        x_train=found.train_images[keep[0]],
        y_train=found.train_labels[keep[0]],
        x_test=found.test_images[keep[1]],
        y_test=found.test_labels[keep[1]],
    )
    assert_refused(call, r"has 10 classes, and arrays:.* now has 9", workdir, first)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--from_workdir={none}"], "does not exist; train stage 1 there first"),
        (["--from_workdir={ce}", "--stage=crt", "--seeds=3"], "has seeds [0, 1], and config.seed"),
        (
            ["--from_workdir={ce}", "--stage=crt", "--config=configs/digits.py:crt"],
            "--stage=crt and --config are given; expected one of them",
        ),
        (
            ["--from_workdir={ce}", "--config=configs/digits.py:gcl_stage1"],
            "the config 'gcl_stage1' has no second stage; expected such as --config=configs/dig",
        ),
        (
            ["--from_workdir={ce}", "--config.retrain.flow.epochs=3", "--config.train.epochs=3"],
            "config.train.epochs is 3, but all but config.retrain is that of the run",
        ),
    ],
    ids=["missing", "seeds", "both", "one stage", "ignored"],
)
def test_command_line_ends_with_one_sentence_and_status_2(given, sentence, ce, tmp_path):
    """A real process: exit status 2, one line, no traceback, no folder."""
    before = snapshot(ce.folder)
    arguments = [a.format(none=tmp_path / "none", ce=ce.folder) for a in given]
    launch = "dlsa" if "--config.train.epochs=3" in given else "retrain_classifier"
    script = [f"launch/{launch}.py", *arguments, f"--workdir={tmp_path / 'run'}"]
    ended = subprocess.run(
        [sys.executable, *script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()
    assert snapshot(ce.folder) == before
