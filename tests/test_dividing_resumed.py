"""DLSA that is stopped, killed, moved or spread over devices ends the same; or is refused."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import shutil

import numpy as np
import pytest
from divisions import division, done  # noqa: F401 (a fixture)
from exported import assert_scores, exported
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import Killed, StopAfter, snapshot

from lt_jax import dividing_blocks, dlsa
from lt_jax.data import load_dataset
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.retrain import retrain
from lt_jax.train import train


def second_stage(summary):
    """What must not depend on stops and kills."""
    return {name: summary[name] for name in ("test", "division", "data", "seeds")}


def start_from(done, folder, **fields):
    """The stage-1 run copied, and the config to go on with."""
    config, source, _ = done
    shutil.copytree(source / "stage1", folder / "stage1")
    with config.unlocked():
        given = config.copy_and_resolve_references()
    given.train.picture = False
    for name, value in fields.items():
        given.train[name] = value
    return given


# Stopped, killed, resumed


def test_killed_anywhere_and_resumed_ends_the_same(done, tmp_path, monkeypatch):
    """In the first block, between the blocks and in the second; and after a stop by a signal."""
    config = start_from(done, tmp_path)
    original = dividing_blocks.BlockTraining._row
    for epoch in (3, 5, 8):

        def dying(self, number, at, facts, epoch=epoch):
            if at == epoch:
                raise Killed
            return original(self, number, at, facts)

        monkeypatch.setattr(dividing_blocks.BlockTraining, "_row", dying)
        with pytest.raises(Killed):
            train(config, tmp_path)
    monkeypatch.undo()
    summary = train(config, tmp_path)
    expected = done[2]
    assert second_stage(summary) == second_stage(expected)
    rows = (tmp_path / "stage2" / "metrics.jsonl").read_text()
    assert rows == (done[1] / "stage2" / "metrics.jsonl").read_text()


def test_stopped_by_a_signal_it_saves_and_goes_on(done, tmp_path, monkeypatch):
    config = start_from(done, tmp_path)
    monkeypatch.setattr("lt_jax.dividing.Stop", StopAfter)
    monkeypatch.setattr(StopAfter, "step", 0)
    assert train(config, tmp_path) is None
    saved = tmp_path / "stage2" / "checkpoints" / "block_0"
    assert [p.name for p in saved.iterdir() if p.name.isdigit()] == ["1"]
    monkeypatch.undo()
    assert second_stage(train(config, tmp_path)) == second_stage(done[2])


def test_a_finished_run_is_left_alone_and_another_config_refused(done, tmp_path):
    config, folder, summary = done
    before = snapshot(folder)
    assert second_stage(train(config, folder)) == second_stage(summary)
    other = division(retrain__flow__purity=0.5)
    with pytest.raises(InputError, match=r"retrain\.flow\.purity"):
        train(other, folder)
    assert snapshot(folder) == before


def test_on_eight_devices_it_is_the_same_and_both_stages_can_be_moved(done, tmp_path, monkeypatch):
    """Stage 1 of one device, features computed by eight; it is found again where both lie now."""
    here = tmp_path / "here"
    config = start_from(done, here, num_devices=8)
    monkeypatch.chdir(here)
    summary = retrain(config, "tables/second", "stage1")
    found, expected = (s["test"]["last"]["mean"]["top1"] for s in (summary, done[2]))
    assert found == pytest.approx(expected, abs=0.02)
    monkeypatch.chdir(tmp_path)
    here.rename("moved")
    model = exported(tmp_path / "moved/tables/second", tmp_path / "out", seed=1)
    assert_scores(model, load_dataset(config.data), summary["test"]["last"]["replicas"][1])


def test_a_loss_that_is_not_finite_stops_it(done, tmp_path):
    config = start_from(done, tmp_path)
    config.retrain.flow.update(learning_rate=1e30, clip=0.0)
    with pytest.raises(NonFiniteError, match=r"the loss of block 1 is not finite in epoch"):
        retrain(config, tmp_path / "second", tmp_path / "stage1")


# Refused, before anything is trained


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"retrain__flow__num_clusters": 5000},
            r"config\.retrain\.flow\.num_clusters is 5000; expected at most \d+",
        ),
        (
            {"retrain__flow__num_clusters": 150, "retrain__cascade__depth": 3},
            r"num_clusters is 150, but about \d+ of \d+ training examples come to the last of 3",
        ),
        ({"retrain__cascade__thresholds": (1.0, np.nan)}, r"thresholds holds nan; expected finite"),
        ({"retrain__flow__weight_power": np.inf}, r"flow\.weight_power is inf; expected a finite"),
        ({"retrain__heads__sampling": "class"}, r"make up for the frequency of classes twice"),
        ({"data__validation_size": 0}, r"there are no validation features"),
        ({"retrain__cascade__take": 1.5}, r"config\.retrain\.cascade\.take is 1\.5; expected a nu"),
        ({"retrain__cascade__thresholds": (1.0,)}, r"thresholds is \(1\.0,\); expected one for"),
        ({"retrain__flow__optimizer": "lamb"}, r"config\.retrain\.flow\.optimizer is 'lamb'; exp"),
        ({"retrain__flow__momentum": 1.0}, r"config\.retrain\.flow\.momentum is 1\.0; expected"),
        ({"retrain__flow__separation": 0.0}, r"flow\.separation is 0\.0; expected a positive"),
        ({"retrain__flow__epochs": 0}, r"config\.retrain\.flow\.epochs is 0; expected at least 1"),
        ({"retrain__heads__own": -1.0}, r"config\.retrain\.heads\.own is -1\.0; expected at leas"),
        ({"retrain__weights": "first"}, r"config\.retrain\.weights is 'first'; expected one of"),
        (
            {"data__class_counts": (60, 9, 9, 9, 9, 9, 9, 9, 9, 0)},
            r"class_counts\[9\] is 0; expected at least 1",
        ),
    ],
)
def test_bad_configs_are_refused(fields, sentence, tmp_path):
    config = division()
    for name, value in fields.items():
        target = config
        *groups, last = name.split("__")
        for group in groups:
            target = target[group]
        target[last] = value
    with pytest.raises(InputError, match=sentence):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_feature_is_refused_before_the_first_stage(tmp_path):
    """A flow turns pairs of them."""
    config = division()
    labels = np.arange(60) % 2
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", features=labels[:, None] + 0.5, labels=labels)
    config.data.update(source=f"features:{tmp_path}", imbalance=0.0, max_count=0)
    config.data.validation_size = 10
    config.model.name = "linear"
    config.retrain.flow.num_clusters = 3
    with pytest.raises(InputError, match=r"has 1 feature; expected at least 2, which a flow needs"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_flow_options_of_the_paper_are_accepted():
    """The released settings, which presets use."""
    dlsa.check_flow_options(
        dlsa.FlowOptions(optimizer="sgd", learning_rate=0.2, purity=0.02, weight_power=2.0)
    )
