"""Second stages that are interrupted, repeated or spread over devices and seeds end the same."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from second_stages import (  # noqa: F401 (fixtures)
    assert_same,
    ce,
    done,
    gcl,
    losses,
    second,
)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import Killed, StopAfter, checkpoint, dying, leaves, rows, scores, snapshot

from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.stopping import Stop
from lt_jax.train import train


def assert_same_run(folder: Path, other: Path):
    """Scores, rows and every array of the newest checkpoint."""
    one, two = (json.loads((f / "summary.json").read_text()) for f in (folder, other))
    assert scores(one) == scores(two)
    assert rows(folder) == rows(other)
    found = leaves(folder)
    assert len(found) > 10
    for a, b in zip(found, leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


# Interrupted and repeated.


@pytest.mark.parametrize(("stage", "calls"), [(1, 4), (2, 6)])
def test_stopped_in_either_stage_and_resumed_is_bit_exact(stage, calls, gcl, tmp_path, monkeypatch):
    """A signal in the middle of an epoch of stage 1, or of stage 2."""
    with monkeypatch.context() as patch:
        stops = iter([Stop] * (stage - 1) + [StopAfter])
        patch.setattr("lt_jax.finish.Stop", lambda: next(stops)())
        StopAfter.step = calls
        assert train(gcl.config, tmp_path) is None
    assert (tmp_path / "stage1/summary.json").exists() == (stage == 2)
    assert (tmp_path / "stage2").exists() == (stage == 2)
    assert not (tmp_path / "summary.json").exists()
    assert not (tmp_path / "stage2/summary.json").exists()
    stage1 = snapshot(tmp_path / "stage1")
    summary = train(gcl.config, tmp_path)
    assert summary["stage1"]["test"] == gcl.summary["stage1"]["test"]
    assert scores(summary) == scores(gcl.summary)
    for name in ("stage1", "stage2"):
        assert_same_run(tmp_path / name, gcl.folder / name)
    if stage == 2:
        assert snapshot(tmp_path / "stage1") == stage1


def test_dropping_dead_in_the_second_stage_loses_nothing(gcl, tmp_path):
    """Rows after the last checkpoint are not doubled, and a line that was cut short is mended."""
    with pytest.raises(Killed), dying(1, stage=2):
        train(gcl.config, tmp_path)
    with (tmp_path / "stage2/metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')
    train(gcl.config, tmp_path)
    for stage in ("stage1", "stage2"):
        assert_same_run(tmp_path / stage, gcl.folder / stage)


def test_stopped_on_computed_features_and_resumed_is_bit_exact(done, ce, tmp_path, monkeypatch):
    """There an epoch is one call; the fresh head and the drawn images come from keys alone."""
    run = done("crt")
    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.finish.Stop", StopAfter)
        StopAfter.step = 2
        assert retrain(run.config, tmp_path, ce.folder) is None
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]
    retrain(run.config, tmp_path, ce.folder)
    assert_same_run(tmp_path, run.folder)


def test_started_second_stage_does_not_go_on_from_another_stage_1(done, ce, tmp_path):
    """Half of the steps from one backbone, half from another would be nobody's result."""
    config = second("crt")
    with pytest.raises(Killed), dying(1, stage=2):
        retrain(config, tmp_path / "run", ce.folder)
    # The same config and seeds, other weights: those of the epoch before.
    other = Path(shutil.copytree(ce.folder, tmp_path / "other"))
    shutil.rmtree(other / "checkpoints/6")
    (other / "checkpoints/3").rename(other / "checkpoints/6")
    call = functools.partial(retrain, config, tmp_path / "run", other)
    with pytest.raises(InputError, match="was started from other weights"):
        call()
    retrain(config, tmp_path / "run", ce.folder)
    assert_same_run(tmp_path / "run", done("crt").folder)


def test_second_call_on_a_finished_folder_changes_nothing(done, ce, gcl, capsys):
    """Neither for both stages at once, nor for a second stage of either kind alone."""
    before = snapshot(gcl.folder)
    assert train(gcl.config, gcl.folder) == gcl.summary
    assert snapshot(gcl.folder) == before
    for run in (done("crt"), done("ncm")):
        before = snapshot(run.folder)
        assert retrain(run.config, run.folder, ce.folder) == run.summary
        assert snapshot(run.folder) == before
    assert capsys.readouterr().err.count("finished already; nothing was changed") == 3


# Spread.


def test_seeds_together_equal_each_seed_alone(gcl, tmp_path):
    """In both stages; seed 0 comes first anywhere, seed 1 shows it."""
    config = gcl.config.copy_and_resolve_references()
    config.seed, config.replicas = 1, 1
    alone = train(config, tmp_path)
    for one, both in ((alone, gcl.summary), (alone["stage1"], gcl.summary["stage1"])):
        for which, test in scores(one).items():
            assert test["replicas"] == scores(both)[which]["replicas"][1:]
    for stage in ("stage1", "stage2"):
        together = losses(gcl.folder / stage)
        assert losses(tmp_path / stage).tolist() == together[:, 1:].tolist()


@pytest.mark.parametrize("stage", ["crt", "gcl", "ncm"])
def test_one_and_eight_devices_give_the_same_second_stage(stage, done, ce, gcl, tmp_path):
    """With computed features, with the network in the step, and computed altogether."""
    one = done(stage, "gcl" if stage == "gcl" else "cross_entropy")
    config = one.config.copy_and_resolve_references()
    config.train.num_devices = 8
    summary = retrain(config, tmp_path, gcl.folder if stage == "gcl" else ce.folder)
    assert summary["training"]["devices"] == 8
    if stage != "ncm":
        np.testing.assert_allclose(losses(tmp_path), losses(one.folder), rtol=2e-3)
    for a, b in zip(
        scores(summary)["last"]["replicas"], scores(one.summary)["last"]["replicas"], strict=True
    ):
        assert a["nll"] == pytest.approx(b["nll"], rel=2e-3)


def test_some_of_the_seeds_of_stage_1(done, ce, tmp_path):
    """Seed 1 alone starts from the weights of seed 1, and stands beside its score."""
    both = done("crt")
    summary = retrain(second("crt", seed=1, replicas=1), tmp_path, ce.folder)
    assert summary["seeds"] == [1]
    first = ce.summary["test"]["last"]
    assert summary["stage1"]["test"]["last"]["replicas"] == first["replicas"][1:]
    mean = first["replicas"][1]["balanced_accuracy"]
    assert summary["stage1"]["test"]["last"]["mean"]["balanced_accuracy"] == mean
    assert summary["stage1"]["test"]["last"]["std"]["balanced_accuracy"] is None
    own = checkpoint(tmp_path)["stats"]
    assert_same(own, jax.tree.map(lambda leaf: leaf[1:], checkpoint(both.folder)["stats"]))
    alone, together = scores(summary)["last"], scores(both.summary)["last"]
    assert alone["replicas"][0]["nll"] == pytest.approx(together["replicas"][1]["nll"], rel=1e-5)
    np.testing.assert_allclose(losses(tmp_path)[:, 0], losses(both.folder)[:, 1], rtol=1e-5)
