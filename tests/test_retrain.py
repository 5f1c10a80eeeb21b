"""Second stages on whole runs: what they may touch, what they compute, resumption, bad input."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from exported import assert_scores, exported
from flax import nnx
from ml_collections import ConfigDict
from tiny_runs import (
    ROOT,
    Killed,
    PixelNet,
    StopAfter,
    checkpoint,
    dying,
    leaves,
    rows,
    scores,
    snapshot,
    tiny,
)

from lt_jax import models
from lt_jax import retrain as retrain_module
from lt_jax.configuration import base_config, first_stage
from lt_jax.data import load_dataset, make_order
from lt_jax.data.sources import load_source
from lt_jax.errors import InputError
from lt_jax.longtail import SCHEMES
from lt_jax.retrain import retrain
from lt_jax.stopping import Stop
from lt_jax.train import train
from lt_jax.two_stage import DIVIDED, NCM_FEATURES, STAGES, TRAINED

TAUS = (0.0, 0.5, 1.0, 2.0)
# DLSA, which makes several, has tests of its own.
ONE_CLASSIFIER = sorted(name for name, stage in STAGES.items() if stage.kind not in DIVIDED)


@pytest.fixture(scope="module", autouse=True)
def _tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "pixels", PixelNet)
        yield


class Finished(NamedTuple):
    """A run that has finished."""

    config: ConfigDict
    folder: Path
    summary: dict[str, Any]


def second(stage: str, method: str = "cross_entropy", **fields) -> ConfigDict:
    """A tiny run of two stages, two seeds."""
    short = {"retrain__epochs": 2, "retrain__batch_size": 64}
    given = short if STAGES[stage].kind in TRAINED else {}
    if stage == "ncm":
        given = {"retrain__features": NCM_FEATURES}
    elif not given:
        given = {"retrain__tau": TAUS}
    return tiny(f"{method}/{stage}", **{"replicas": 2, **given, **fields})


@pytest.fixture(scope="module")
def ce(tmp_path_factory):
    """A finished first stage; whatever the tests do with it, it stays as it is."""
    folder = tmp_path_factory.mktemp("ce")
    config = tiny(replicas=2)
    found = Finished(config, folder, train(config, folder))
    before = snapshot(folder)
    yield found
    assert snapshot(folder) == before


@pytest.fixture(scope="module")
def gcl(tmp_path_factory):
    """Both stages of GCL in one go, undisturbed."""
    folder = tmp_path_factory.mktemp("gcl")
    config = second("gcl", "gcl", retrain__optimizer__warmup_epochs=1.0)
    found = Finished(config, folder, train(config, folder))
    before = snapshot(folder)
    yield found
    assert snapshot(folder) == before


@pytest.fixture(scope="module")
def done(tmp_path_factory, ce, gcl):
    """``stage -> Finished``: every second stage, run once, without a change to the first."""

    @functools.cache
    def run(stage, method="cross_entropy"):
        first = ce.folder if method == "cross_entropy" else gcl.folder
        config = gcl.config if stage == "gcl" else second(stage, method)
        folder = tmp_path_factory.mktemp(stage) / "run"
        before = snapshot(first)
        summary = retrain(config, folder, first)
        assert snapshot(first) == before
        return Finished(config, folder, summary)

    return run


@pytest.fixture(scope="module")
def crt(done):
    """A finished second stage, for tests in which nothing may be trained."""
    return done("crt")


def assert_same(one, other):
    """Two trees of arrays are equal bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def losses(folder: Path) -> np.ndarray:
    """Training losses ``[rows, R]``."""
    return np.array([row["loss"] for row in rows(folder) if row["split"] == "train"])


# What a second stage may touch, and what it says.


@pytest.mark.parametrize("stage", ONE_CLASSIFIER)
def test_only_the_classifier_is_new(stage, done, ce, gcl):
    """Weights and batch-norm statistics of the backbone are those of stage 1, bit for bit."""
    run = done(stage, "gcl" if stage == "gcl" else "cross_entropy")
    first = gcl.folder / "stage1" if stage == "gcl" else ce.folder
    own, before = checkpoint(run.folder), checkpoint(first)
    network = {"params": before["params"], "stats": before["stats"]}
    assert np.ptp(before["stats"]["norm"]["var"]) > 0  # there are statistics to lose
    assert_same(own["stats"], network)
    head = own["params"]["head"]
    if STAGES[stage].kind in TRAINED:
        assert_same(own["best"]["stats"], network)
        start = before["params"]["head"]
        for name, leaf in head.items():
            assert not np.isclose(leaf, start.get(name, 1.0)).all()
    elif stage == "ncm":
        assert head["memory"]["means"].shape == (2, 3, 10, 64)
    else:
        assert_same(head["memory"], before["params"]["head"])


@pytest.mark.parametrize("stage", ONE_CLASSIFIER)
def test_summary_has_the_scores_of_both_stages(stage, done, ce, gcl):
    run = done(stage, "gcl" if stage == "gcl" else "cross_entropy")
    first = json.loads((gcl.folder / "stage1/summary.json").read_text())
    first = first if stage == "gcl" else ce.summary
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary == run.summary
    assert summary["stage1"]["test"] == first["test"]
    assert summary["stage1"]["training"] == first["training"]
    assert summary["seeds"] == first["seeds"] == [0, 1]
    assert summary["data"] == first["data"]
    trained = STAGES[stage].kind in TRAINED
    assert sorted(summary["test"]) == (["best_on_validation", "last"] if trained else ["last"])
    for test in summary["test"].values():
        for replica in test["replicas"]:
            assert np.sum(replica["confusion"]) == 500
    assert summary["test"]["last"]["replicas"] != first["test"]["last"]["replicas"]
    assert summary["retrain"]["cached_features"] == (stage != "gcl")
    assert summary["training"]["steps"] == (6 if trained else 0)


def test_folder_of_two_stages_gives_its_first(done, gcl):
    """Named by its top folder or by ``stage1``; run apart or in one go: the same numbers."""
    apart = done("gcl", "gcl")
    assert scores(apart.summary) == scores(gcl.summary)
    assert_same(checkpoint(apart.folder), checkpoint(gcl.folder / "stage2"))
    assert rows(apart.folder) == rows(gcl.folder / "stage2")
    assert gcl.summary["stage1"]["test"] == apart.summary["stage1"]["test"]
    for folder in (gcl.folder, gcl.folder / "stage2"):
        assert json.loads((folder / "summary.json").read_text()) == gcl.summary


# The same by hand.


def own_features(run: Finished, replica: int) -> tuple[dict, dict, dict]:
    """Features of every split by the module itself, labels, and the head of stage 1."""
    folder = run.folder / "stage1" if (run.folder / "stage1").exists() else run.folder
    found, data = checkpoint(folder), load_dataset(run.config.data)
    params, stats = jax.tree.map(lambda leaf: leaf[replica], (found["params"], found["stats"]))
    module = models.create_model(
        "pixels",
        image_shape=(8, 8, 1),
        num_classes=10,
        head="linear" if "bias" in params["head"] else "cosine",
        rngs=nnx.Rngs(99),
    )
    for kind, values in ((nnx.Param, params), (nnx.BatchStat, stats)):
        state = nnx.state(module, kind)
        nnx.replace_by_pure_dict(state, values)
        nnx.update(module, state)
    features, labels = {}, {}
    for split in ("train", "validation", "test"):
        pixels = (getattr(data, f"{split}_images") / 255.0 - data.mean) / data.std
        images = jax.numpy.asarray(pixels, jax.numpy.float32)
        features[split] = np.asarray(module.features(images, train=False), np.float64)
        labels[split] = getattr(data, f"{split}_labels")
    return features, labels, params["head"]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sgd(config: ConfigDict, seed: int, x: np.ndarray, y: np.ndarray, head: dict | None):
    """SGD on cross-entropy in NumPy, float64; a fresh head for None."""
    key = jax.random.fold_in(jax.random.key(seed), 2)  # of the second stage
    weights_key, order_key, _ = jax.random.split(key, 3)
    if head is None:
        shape = {"image_shape": (8, 8, 1), "num_classes": 10}
        fresh = models.create_model("pixels", **shape, rngs=nnx.Rngs(weights_key)).head
        head = {"kernel": fresh.kernel[...], "bias": fresh.bias[...]}
    w, b = (np.asarray(head[name], np.float64) for name in ("kernel", "bias"))
    fields = config.retrain
    size, epochs = fields.batch_size, fields.epochs
    order = make_order(fields.sampling, y, 10, size, epochs)
    batches = np.concatenate([order(order_key, epoch) for epoch in range(epochs)])
    assert batches.shape == (epochs * (len(y) // size), size)
    v_w, v_b, loss = 0.0, 0.0, []
    for step, chosen in enumerate(batches):
        rate = 0.1 * 0.5 * (1 + np.cos(np.pi * step / len(batches)))
        p = softmax(x[chosen] @ w + b)
        loss.append(-np.log(p[np.arange(size), y[chosen]]).mean())
        slope = (p - np.eye(10)[y[chosen]]) / size
        v_w = 0.9 * v_w + x[chosen].T @ slope + 2e-4 * w
        v_b = 0.9 * v_b + slope.sum(axis=0)
        w, b = w - rate * v_w, b - rate * v_b
    return {"kernel": w, "bias": b}, np.reshape(loss, (epochs, -1)).mean(axis=1)


@pytest.mark.parametrize("stage", ["crt", "finetune"])
def test_trained_classifier_equals_a_loop_in_numpy(stage, done, ce):
    """Features, batches, start, gradient, momentum, decay and schedule, all by hand."""
    run = done(stage)
    found = checkpoint(run.folder)["params"]["head"]
    for replica, seed in enumerate((0, 1)):
        features, labels, head = own_features(ce, replica)
        start = None if stage == "crt" else head
        wanted, loss = sgd(run.config, seed, features["train"], labels["train"], start)
        for name, leaf in wanted.items():
            np.testing.assert_allclose(found[name][replica], leaf, atol=2e-5)
        np.testing.assert_allclose(losses(run.folder)[:, replica], loss, rtol=1e-5)
        p = softmax(features["test"] @ wanted["kernel"] + wanted["bias"])
        test = run.summary["test"]["last"]["replicas"][replica]
        nll = -np.log(p[np.arange(500), labels["test"]]).mean()
        assert test["nll"] == pytest.approx(nll, rel=1e-4)
        assert test["top1"] == pytest.approx((p.argmax(1) == labels["test"]).mean(), abs=0.004)


def tau_logits(tau, x, features, labels, head):
    kernel = np.asarray(head["kernel"], np.float64)
    return x @ (kernel / np.linalg.norm(kernel, axis=0) ** tau)


def adjusted_logits(tau, x, features, labels, head):
    kernel = np.asarray(head["kernel"], np.float64)
    if "bias" in head:
        logits = x @ kernel + head["bias"]
    else:  # GCL: cosines times its scale
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        logits = 30.0 * unit @ (kernel / np.linalg.norm(kernel, axis=0))
    return logits - tau * np.log(np.bincount(labels) / len(labels))


def ncm_logits(kind, x, features, labels, head):
    def change(values):
        if kind == "centred_unit":
            values = values - features.mean(axis=0)
        return values if kind == "plain" else values / np.linalg.norm(values, axis=1)[:, None]

    means = np.stack([change(features)[labels == c].mean(axis=0) for c in range(10)])
    return -((change(x)[:, None] - means) ** 2).sum(axis=-1)


@pytest.mark.parametrize(
    ("stage", "method", "logits"),
    [
        ("tau_norm", "cross_entropy", tau_logits),
        ("posthoc_logit_adjustment", "cross_entropy", adjusted_logits),
        ("posthoc_logit_adjustment", "gcl", adjusted_logits),
        ("ncm", "cross_entropy", ncm_logits),
    ],
    ids=["tau_norm", "logit_adjustment", "logit_adjustment on cosines", "ncm"],
)
def test_computed_classifier_equals_numpy(stage, method, logits, done, ce, gcl):
    """Validation scores of all candidates, the choice, and test scores from restored arrays."""
    run, first = done(stage, method), ce if method == "cross_entropy" else gcl
    knob = run.summary["retrain"]["knob"]
    assert tuple(knob["values"]) == (NCM_FEATURES if stage == "ncm" else TAUS)
    for replica in (0, 1):
        features, labels, head = own_features(first, replica)

        def of(value, split, features=features, labels=labels, head=head):
            return logits(value, features[split], features["train"], labels["train"], head)

        wanted = []
        for value in knob["values"]:
            right = of(value, "validation").argmax(axis=1) == labels["validation"]
            wanted.append(np.mean([right[labels["validation"] == c].mean() for c in range(10)]))
        np.testing.assert_allclose(knob["validation_balanced_accuracy"][replica], wanted)
        best = knob["values"][int(np.argmax(wanted))]
        assert knob["chosen"][replica] == best
        z, y = of(best, "test"), labels["test"]
        confusion = np.zeros((10, 10), int)
        np.add.at(confusion, (y, z.argmax(axis=1)), 1)
        test = run.summary["test"]["last"]["replicas"][replica]
        assert test["confusion"] == confusion.tolist()
        nll = -np.log(np.maximum(softmax(z)[np.arange(500), y], 1e-12)).mean()
        assert test["nll"] == pytest.approx(nll, rel=1e-4)


def test_computed_features_and_the_network_in_the_step_give_the_same(
    done, ce, tmp_path, monkeypatch
):
    """Caching is for speed alone: images through the frozen network at every step, the same."""
    cached = done("crt")
    monkeypatch.setattr("lt_jax.retrain._is_cached", lambda fields: False)
    summary = retrain(cached.config, tmp_path, ce.folder)
    assert cached.summary["retrain"]["cached_features"]
    assert not summary["retrain"]["cached_features"]
    # Both log once an epoch: 3 steps.
    np.testing.assert_allclose(losses(tmp_path), losses(cached.folder), rtol=1e-5)
    one, other = checkpoint(tmp_path)["params"], checkpoint(cached.folder)["params"]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for which, test in scores(summary).items():
        for a, b in zip(test["replicas"], scores(cached.summary)[which]["replicas"], strict=True):
            assert a["nll"] == pytest.approx(b["nll"], rel=1e-5)
            assert a["balanced_accuracy"] == pytest.approx(b["balanced_accuracy"], abs=0.005)


# Interrupted, repeated, spread.


def assert_same_run(folder: Path, other: Path):
    """Scores, rows and every array of the newest checkpoint."""
    one, two = (json.loads((f / "summary.json").read_text()) for f in (folder, other))
    assert scores(one) == scores(two)
    assert rows(folder) == rows(other)
    found = leaves(folder)
    assert len(found) > 10
    for a, b in zip(found, leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


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


# The choice on validation.


def test_tau_is_the_best_on_validation(done, ce, tmp_path):
    """And with that tau alone, each seed has the same test scores."""
    run = done("tau_norm")
    knob = run.summary["retrain"]["knob"]
    for seed in (0, 1):
        of_all = knob["validation_balanced_accuracy"][seed]
        chosen = knob["chosen"][seed]
        assert chosen == TAUS[int(np.argmax(of_all))]
        config = second("tau_norm", retrain__tau=(chosen,), seed=seed, replicas=1)
        alone = retrain(config, tmp_path / str(seed), ce.folder)
        (one,), both = scores(alone)["last"]["replicas"], scores(run.summary)["last"]["replicas"]
        assert one["confusion"] == both[seed]["confusion"]
        assert one["nll"] == pytest.approx(both[seed]["nll"], rel=1e-6)
        assert alone["retrain"]["knob"]["validation_balanced_accuracy"] == [[max(of_all)]]


def digits_as_arrays(path: Path, **other) -> str:
    """The digits as a user's own file; `other` replaces single arrays."""
    found = load_source("digits")
    content = {
        "x_train": found.train_images,
        "y_train": found.train_labels,
        "x_test": found.test_images,
        "y_test": found.test_labels,
    }
    np.savez(path, **{**content, **other})
    return f"arrays:{path}"


def test_the_choice_does_not_read_the_test_set(tmp_path, monkeypatch):
    """Test labels that are all wrong change the test scores and nothing else."""
    source = digits_as_arrays(tmp_path / "my.npz")
    train(tiny(replicas=2, data__source=source), tmp_path / "stage1")
    knobs, tests = [], []
    for name in ("right", "wrong"):
        summary = retrain(
            second("tau_norm", data__source=source), tmp_path / name, tmp_path / "stage1"
        )
        knobs.append(summary["retrain"]["knob"])
        tests.append(summary["test"]["last"]["mean"]["balanced_accuracy"])
        labels = load_source("digits").test_labels
        digits_as_arrays(tmp_path / "my.npz", y_test=(labels + 1) % 10)
        # Which would be noticed.
        monkeypatch.setattr("lt_jax.retrain.check_same_images", lambda *_: None)
    assert knobs[0] == knobs[1]
    assert tests[1] < 0.2 < tests[0]


def test_without_validation_one_tau_is_taken_as_it_is(tmp_path):
    """As for the papers' tables, which train on all of train."""
    config = second("tau_norm", retrain__tau=(0.5,), data__validation_size=0, replicas=1)
    knob = train(config, tmp_path)["retrain"]["knob"]
    assert knob["chosen"] == [0.5]
    assert knob["validation_balanced_accuracy"] is None


# Samplers.


def assert_trained_unlike(summary: dict, folder: Path, default: Path, *, unlike: bool):
    assert np.isfinite(losses(folder)).all()
    assert 0 < summary["test"]["last"]["mean"]["balanced_accuracy"] <= 1
    assert (losses(folder).tolist() != losses(default).tolist()) == unlike


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_sampler_in_the_second_stage(scheme, ce, done, tmp_path):
    """Runs, and draws other images than the default."""
    summary = retrain(second("crt", retrain__sampling__scheme=scheme), tmp_path, ce.folder)
    assert_trained_unlike(summary, tmp_path, done("crt").folder, unlike=scheme != "class")


@pytest.mark.parametrize("scheme", ["class", "progressive"])
def test_samplers_in_the_first_stage(scheme, ce, tmp_path):
    """Run, and draw other images than the default."""
    summary = train(tiny(replicas=2, sampling__scheme=scheme), tmp_path)
    assert_trained_unlike(summary, tmp_path, ce.folder, unlike=True)


# Bad input.


@pytest.fixture
def _no_training(monkeypatch):
    """Nothing there may get as far as training or computing a classifier."""

    def refuse(*_):
        raise AssertionError("it started")

    monkeypatch.setattr("lt_jax.finish.Loop", refuse)
    monkeypatch.setattr(retrain_module, "compute", refuse)


def assert_refused(call, sentence: str, *folders: Path):
    """One sentence; folders are as before, or still missing."""
    before = [snapshot(f) if f.exists() else None for f in folders]
    with pytest.raises(InputError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert [snapshot(f) if f.exists() else None for f in folders] == before


CONFIGS = {
    "other imbalance": (
        lambda: second("crt", data__imbalance=20.0),
        r"trained on other data: data.imbalance = 10.0, and this config has 20.0",
    ),
    "other split": (
        lambda: second("crt", data__split_seed=3),
        r"trained on other data: data.split_seed = 0, and this config has 3",
    ),
    "other source": (
        lambda: second("crt", data__source="tfds:cifar10"),
        r"trained on other data: data.source = 'digits', and this config has 'tfds:cifar10'",
    ),
    "other backbone": (
        lambda: second("crt", model__name="small"),
        r"with another network: model.name = 'pixels', and this config has 'small'",
    ),
    "other objective": (
        lambda: second("crt", "balanced_softmax"),
        r"in another way: objective.transforms",
    ),
    "other length": (
        lambda: second("crt", train__epochs=3),
        r"in another way: train.epochs = 2, and this config has 3",
    ),
    "seeds": (
        lambda: second("crt", seed=1),
        r"has seeds \[0, 1\], and config.seed and config.replicas ask for \[1, 2\]",
    ),
    "no method": (lambda: tiny(replicas=2), r"config.retrain.method is ''; expected a second"),
    "batch above data": (
        lambda: second("crt", retrain__batch_size=4096),
        r"config.retrain.batch_size is 4096; expected at most 240",
    ),
    "indivisible batch": (
        lambda: second("crt", retrain__batch_size=60, train__num_devices=8),
        r"config.retrain.batch_size is 60; expected a multiple of the 8 devices",
    ),
    "cosine objective on a linear head": (
        lambda: second("finetune", retrain__objective=second("gcl", "gcl").retrain.objective),
        r"keeps the linear head of stage 1, but config.retrain.objective needs a cosine one",
    ),
    "gcl on a linear head": (
        lambda: second("gcl"),
        r"config.retrain.method is 'finetune', which keeps the linear head",
    ),
    "no tau": (lambda: second("tau_norm", retrain__tau=()), r"config.retrain.tau is empty"),
    "negative tau": (lambda: second("tau_norm", retrain__tau=(0.5, -1.0)), r"tau holds -1.0"),
    "unknown features": (lambda: second("ncm", retrain__features=("l2",)), r"features holds 'l2'"),
    "unknown weights": (
        lambda: second("crt", retrain__weights="first"),
        r"config.retrain.weights is 'first'; expected one of last, best_on_validation",
    ),
    "unknown scheme": (
        lambda: second("crt", retrain__sampling__scheme="uniform"),
        r"config.retrain.sampling.scheme is 'uniform'; expected one of instance",
    ),
    "autoaugment": (
        lambda: second("crt", retrain__augment__autoaugment=True),
        r"config.retrain.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
}


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config_is_refused(name, ce, tmp_path):
    """Before anything is made in the new folder or changed in that of stage 1."""
    make, sentence = CONFIGS[name]
    workdir = tmp_path / "run"
    assert_refused(lambda: retrain(make(), workdir, ce.folder), sentence, workdir, ce.folder)


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epoch": 3}, r"no field 'retrain.epoch'; did you mean retrain.epochs\?"),
        ({"tau": (1.0,)}, r"config has no field 'retrain.tau'"),
        ({"method": "crtt"}, r"config.retrain.method is 'crtt'; expected one of crt, finetune"),
        ({"epochs": "many"}, r"config.retrain.epochs is 'many'; expected int"),
        ({"epochs": 0}, r"config.retrain.epochs is 0; expected at least 1"),
    ],
    ids=["misspelt", "of another method", "unknown method", "type", "range"],
)
def test_field_of_the_second_stage_is_refused(change, sentence, ce, tmp_path):
    """In plain dictionaries, which check nothing by themselves; by either entrance."""
    config = second("crt").to_dict()
    config["retrain"].update(change)
    workdir = tmp_path / "run"
    assert_refused(lambda: retrain(config, workdir, ce.folder), sentence, workdir, ce.folder)
    assert_refused(lambda: train(config, workdir), sentence, workdir)


BEFORE_STAGE_1 = {
    "choice without validation": (
        lambda: second("tau_norm", data__validation_size=0),
        r"config.retrain.tau has 4 values, but there is no validation split to choose on",
    ),
    "features without validation": (
        lambda: second("ncm", data__validation_size=0),
        r"config.retrain.features has 3 values, but there is no validation split",
    ),
    "tau_norm on cosines": (
        lambda: second("tau_norm", "gcl"),
        r"the head of stage 1 takes cosines.*expected a stage 1 with a linear head",
    ),
    "gcl on a linear head": (lambda: second("gcl"), r"keeps the linear head of stage 1"),
    "batch above data": (
        lambda: second("crt", retrain__batch_size=4096),
        r"config.retrain.batch_size is 4096; expected at most 240",
    ),
    "rate": (
        lambda: second("crt", retrain__optimizer__learning_rate=-1.0),
        r"learning_rate is -1.0; expected a positive number",
    ),
    "autoaugment of grey images in stage 2": (
        lambda: second("crt", retrain__augment__autoaugment=True),
        r"config.retrain.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
    "autoaugment of grey images in stage 1": (
        lambda: second("crt", augment__autoaugment=True),
        r"config.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
    "color jitter of grey images": (
        lambda: tiny(augment__color_jitter=0.4),
        r"config.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
    "negative color jitter": (
        lambda: second("crt", retrain__augment__color_jitter=-0.4),
        r"config.retrain.augment.color_jitter is -0.4; expected at least 0",
    ),
    "autoaugment of grey images without stage 2": (
        lambda: tiny(augment__autoaugment=True),
        r"config.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
}


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", sorted(BEFORE_STAGE_1))
def test_second_stage_is_refused_before_the_first_is_trained(name, tmp_path):
    """Hours would be lost otherwise."""
    make, sentence = BEFORE_STAGE_1[name]
    workdir = tmp_path / "run"
    assert_refused(lambda: train(make(), workdir), sentence, workdir)


@pytest.mark.usefixtures("_no_training")
def test_tau_norm_is_refused_on_a_finished_cosine_head(gcl, tmp_path):
    call = functools.partial(retrain, second("tau_norm", "gcl"), tmp_path / "run", gcl.folder)
    assert_refused(call, r"expected a stage 1 with a linear head", tmp_path / "run", gcl.folder)


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
    return crt.folder, r"holds a second stage; expected the folder of a first one"


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
    sentence = r"was trained on other images than those now in arrays:.*: pixel_mean was"
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


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--from_workdir={none}"], "does not exist; train stage 1 there first"),
        (["--from_workdir={ce}", "--stage=crt", "--seeds=3"], "has seeds [0, 1], and config.seed"),
    ],
    ids=["missing", "seeds"],
)
def test_command_line_ends_with_one_sentence_and_status_2(given, sentence, ce, tmp_path):
    """A real process: exit status 2, one line, no traceback, no folder."""
    before = snapshot(ce.folder)
    arguments = [a.format(none=tmp_path / "none", ce=ce.folder) for a in given]
    script = ["launch/retrain_classifier.py", *arguments, f"--workdir={tmp_path / 'run'}"]
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


def test_config_of_two_stages_without_the_second_is_that_of_the_first(ce):
    """What `retrain` compares with the config in the folder of stage 1."""
    first = first_stage(second("crt"))
    assert first.name == "cross_entropy_crt_stage1"
    assert first.retrain.to_dict() == base_config().retrain.to_dict()
    first.name = ce.config.name
    assert first.to_dict() == ce.config.to_dict()


# What is exported of it.


@pytest.mark.parametrize("stage", ONE_CLASSIFIER)
def test_an_exported_second_stage_scores_as_it_was_tested(stage, done, tmp_path):
    """From its own folder alone, as `tests/test_export.py` has it of one stage."""
    config, folder, summary = done(stage, "gcl" if stage == "gcl" else "cross_entropy")
    model = exported(folder, tmp_path / "out", seed=1)
    assert_scores(model, load_dataset(config.data), summary["test"]["last"]["replicas"][1])


def test_of_a_run_of_two_stages_the_second_is_exported(gcl, tmp_path):
    config, folder, summary = gcl
    dataset = load_dataset(config.data)
    for which, test in summary["test"].items():
        model = exported(folder, tmp_path / which, weights=which)
        assert_scores(model, dataset, test["replicas"][0])
    first = exported(folder / "stage1", tmp_path / "first")
    assert_scores(first, dataset, summary["stage1"]["test"]["last"]["replicas"][0])


def test_a_computed_classifier_has_no_best_weights(done, tmp_path):
    with pytest.raises(InputError, match=r"weights is 'best_on_validation', but .* has 'last'"):
        exported(done("ncm").folder, tmp_path / "out", weights="best_on_validation")
