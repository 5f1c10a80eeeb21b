"""Runs of whole trainings: summary, resumption, interruption, damage, replicas, devices."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_runs import (
    ROOT,
    Killed,
    PixelNet,
    StopAfter,
    dying,
    leaves,
    rows,
    scores,
    tiny,
)

from lt_jax import models, objectives, replicas, steps
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.train import train


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


def test_summary_says_everything_and_a_second_run_changes_nothing(tmp_path, capsys):
    config = tiny(replicas=2, train__tensorboard=True, train__picture=True, train__progress=True)
    summary = train(config, tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == summary
    assert sum(summary["data"]["class_counts"]) == summary["data"]["total_train"]
    assert summary["seeds"] == [0, 1]
    for which in ("last", "best_on_validation"):
        test = summary["test"][which]
        assert len(test["replicas"]) == 2
        for replica in test["replicas"]:
            confusion = np.array(replica["confusion"])
            assert confusion.sum() == 500  # every test image once, the last partial batch too
            assert replica["top1"] == pytest.approx(np.trace(confusion) / 500)
            assert replica["per_class"] == pytest.approx(np.diag(confusion) / confusion.sum(1))
        mean = [r["balanced_accuracy"] for r in test["replicas"]]
        assert test["mean"]["balanced_accuracy"] == pytest.approx(np.mean(mean))
        assert test["std"]["balanced_accuracy"] == pytest.approx(np.std(mean, ddof=1))
        assert {"many", "medium", "few", "ece"} <= set(test["mean"])
    for field in ("commit", "versions", "hardware", "config", "command"):
        assert field in summary
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert list((tmp_path / "tensorboard").iterdir())
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    capsys.readouterr()
    assert train(config, tmp_path) == written
    assert "finished already; nothing was changed" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("method", sorted(objectives.METHODS))
def test_every_method_of_the_registry_trains(method, tmp_path):
    # As a name of both stages it has a test of its own.
    name = "gcl_stage1" if method == "gcl" else method
    summary = train(tiny(name, train__epochs=1), tmp_path)
    losses = [row["loss"] for row in rows(tmp_path) if row["split"] == "train"]
    assert np.isfinite(losses).all()
    assert summary["training"]["steps"] == summary["training"]["steps_per_epoch"]


@pytest.mark.parametrize(
    ("calls", "mode", "per_call"), [(3, "sequential", 1), (6, "sequential", 1), (4, "vmap", 2)]
)
def test_stopped_and_resumed_is_bit_exact(tmp_path, monkeypatch, calls, mode, per_call):
    # Everything that has a state: PLM's ratios, deferral, momentum, batch norm, mixup's draws.
    config = tiny(
        "plm+class_balanced",
        replicas=2,
        replica_mode=mode,
        train__steps_per_call=per_call,
        augment__mixup_alpha=0.4,
        augment__crop_padding=1,
        train__checkpoint_every_epochs=5,
    )
    config.objective.transforms.partial_label_mask.update_every = 2
    config.objective.transforms.class_balanced.start_epoch = 1.0
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.finish.Stop", StopAfter)
        StopAfter.step = calls
        assert train(config, tmp_path / "parts") is None
    assert not (tmp_path / "parts" / "summary.json").exists()
    parts = train(config, tmp_path / "parts")
    assert scores(parts) == scores(whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    found = leaves(tmp_path / "parts")
    assert len(found) > 20
    for one, other in zip(found, leaves(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_killed_run_goes_on_from_its_checkpoint(tmp_path):
    """Death in the middle: rows written after the last checkpoint are not doubled."""
    config = tiny(train__epochs=3)
    whole = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        _train_until(config, tmp_path / "parts")
    # What a kill in the middle of a line leaves behind.
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "spl')
    parts = train(config, tmp_path / "parts")
    assert scores(parts) == scores(whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def _train_until(config, workdir, last=2):
    """Trains and drops dead before an epoch, without any chance to save."""
    with dying(last):
        train(config, workdir)


def test_sigterm_saves_and_exits_cleanly(tmp_path):
    """A real process and a real signal."""
    command = [
        sys.executable, "launch/train.py", "--config=configs/digits.py:plm",
        "--config.train.epochs=100000", "--config.train.log_every_steps=5",
        "--config.train.tensorboard=False", f"--workdir={tmp_path / 'run'}",
        "--config.data.source=made_features:1", "--config.model.name=linear",
        "--config.augment.crop_padding=0",
    ]  # fmt: skip
    env = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1")}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=env)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "and saved; start again to go on" in errors
    assert "Traceback" not in errors
    saved = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()]
    assert max(saved) >= 5


def test_replicas_side_by_side_equal_one_after_another(tmp_path):
    """The same seeds by vmap, in turn, and as a run of their own."""
    turns = train(tiny("gcl_stage1", replicas=2, replica_mode="sequential"), tmp_path / "turns")
    vmapped = train(tiny("gcl_stage1", replicas=2, replica_mode="vmap"), tmp_path / "vmap")
    alone = train(tiny("gcl_stage1", seed=1), tmp_path / "alone")
    first = [r["loss"] for r in rows(tmp_path / "turns") if r["split"] == "train"]
    second = [r["loss"] for r in rows(tmp_path / "vmap") if r["split"] == "train"]
    # The sums of a grouped convolution are added in another order.
    np.testing.assert_allclose(first, second, rtol=2e-3)
    own = [r["loss"] for r in rows(tmp_path / "alone") if r["split"] == "train"]
    assert [loss[1] for loss in first] == [loss[0] for loss in own]
    assert turns["test"]["last"]["replicas"][1] == alone["test"]["last"]["replicas"][0]
    assert vmapped["seeds"] == turns["seeds"]


def test_one_and_eight_devices_give_the_same_run(tmp_path):
    losses = []
    for devices in (1, 8):
        config = tiny("plm", train__num_devices=devices, augment__crop_padding=1)
        train(config, tmp_path / str(devices))
        losses.append([r["loss"] for r in rows(tmp_path / str(devices)) if r["split"] == "train"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)


def test_several_steps_in_one_call_are_the_same_run(tmp_path, monkeypatch):
    """With the same draws, whether a call makes them all before its steps or one at a time.

    Also if the steps pass on their small weights together, as they do on a GPU.
    """
    random = {"augment__mixup_alpha": 0.4, "augment__crop_padding": 1, "augment__flip": True}
    train(tiny(**random), tmp_path / "one")
    train(tiny(train__steps_per_call=3, **random), tmp_path / "at_once")
    monkeypatch.setattr(steps, "_BYTES_AT_ONCE", 0)
    train(tiny(train__steps_per_call=3, **random), tmp_path / "in_turn")
    monkeypatch.setattr(
        replicas, "several", lambda step, copies, packed: steps.several(step, copies, packed=True)
    )
    train(tiny(train__steps_per_call=3, **random), tmp_path / "packed")
    one, *others = (
        [r["loss"] for r in rows(tmp_path / name) if r["split"] == "train"]
        for name in ("one", "at_once", "in_turn", "packed")
    )
    for losses in others:
        np.testing.assert_allclose(one, losses, rtol=2e-5)


def test_bfloat16_computes_and_float32_stays(tmp_path):
    summary = train(tiny(model__dtype="bfloat16"), tmp_path)
    losses = [r["loss"] for r in rows(tmp_path) if r["split"] == "train"]
    assert np.isfinite(losses).all()
    assert summary["config"]["model"]["dtype"] == "bfloat16"


def test_without_validation_only_the_last_weights_are_tested(tmp_path):
    summary = train(tiny(data__validation_size=0), tmp_path)
    assert list(summary["test"]) == ["last"]
    assert {row["split"] for row in rows(tmp_path)} == {"train"}


def test_best_on_validation_is_the_step_with_the_highest_score(tmp_path):
    summary = train(tiny(train__epochs=4, optimizer__learning_rate=0.3), tmp_path)
    validation = [r for r in rows(tmp_path) if r["split"] == "validation"]
    best = max(validation, key=lambda r: r["balanced_accuracy"][0])  # the first, if equal
    chosen = summary["test"]["best_on_validation"]
    assert chosen["steps"] == [best["step"]]
    assert chosen["validation_balanced_accuracy"] == pytest.approx(best["balanced_accuracy"])


def test_nonfinite_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config = tiny(
        train__epochs=30,
        optimizer__learning_rate=1e9,
        optimizer__schedule="step",
        optimizer__milestones=(0.1, 1.0),
        optimizer__factors=(1e-12, 1e30),
    )
    with pytest.raises(NonFiniteError, match=r"not finite at step (\d+); the last good") as error:
        train(config, tmp_path)
    step = int(str(error.value).split("at step ")[1].split(";")[0])
    saved = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    assert saved
    assert max(saved) < step
    assert f"of step {max(saved)}, is kept" in str(error.value)
    assert not (tmp_path / "summary.json").exists()
    with pytest.raises(NonFiniteError, match=f"at step {step}"):  # and again from there
        train(config, tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "empty", "metadata"])
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys, damage):
    config = tiny(train__epochs=3)
    whole = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        _train_until(config, tmp_path / "run")
    steps = sorted(int(p.name) for p in (tmp_path / "run/checkpoints").iterdir())
    newest = tmp_path / "run/checkpoints" / str(steps[-1])
    files = [p for p in newest.rglob("*") if p.is_file()]
    if damage == "truncate":
        largest = max(files, key=lambda p: p.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)
    elif damage == "metadata":
        for path in files:
            if path.name.startswith("manifest") or path.name == "_METADATA":
                os.truncate(path, 1)
    else:
        for path in files:
            path.unlink()
    capsys.readouterr()
    parts = train(config, tmp_path / "run")
    errors = capsys.readouterr().err
    assert f"the checkpoint of step {steps[-1]} cannot be read" in errors
    assert f"the one before, of step {steps[-2]}" in errors
    assert list((tmp_path / "run").glob(f"damaged_checkpoint_{steps[-1]}_*"))  # nothing is lost
    assert scores(parts) == scores(whole)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_other_images_under_the_same_name_are_noticed(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)

    def write():
        images = rng.integers(0, 256, (120, 8, 8, 1), dtype=np.uint8)
        content = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
        np.savez(tmp_path / "my.npz", **content)

    config = tiny(data__source=f"arrays:{tmp_path / 'my.npz'}", data__validation_size=0)
    config.data.max_count = 40
    config.train.batch_size = 16
    write()
    with pytest.raises(Killed):
        _train_until(config, tmp_path / "run", last=1)
    write()
    with pytest.raises(InputError, match="trained on other images"):
        train(config, tmp_path / "run")


def test_eval_batch_need_not_divide_over_devices(tmp_path):
    summary = train(tiny(train__num_devices=8, train__eval_batch_size=99), tmp_path)
    assert np.sum(summary["test"]["last"]["replicas"][0]["confusion"]) == 500
