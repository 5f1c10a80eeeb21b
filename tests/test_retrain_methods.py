"""Every second stage: it changes the classifier alone, as NumPy would; it is told and exported."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import json

import jax
import numpy as np
import pytest
from exported import assert_scores, exported
from flax import nnx
from ml_collections import ConfigDict
from second_stages import (  # noqa: F401 (fixtures)
    TAUS,
    Finished,
    assert_same,
    ce,
    done,
    gcl,
    losses,
)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import checkpoint, rows, scores

from lt_jax import models
from lt_jax.data import load_dataset, make_order
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.two_stage import DIVIDED, NCM_FEATURES, STAGES, TRAINED

# DLSA, which makes several, has tests of its own.
ONE_CLASSIFIER = sorted(name for name, stage in STAGES.items() if stage.kind not in DIVIDED)


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
    for module in ("retrain", "second_run"):
        monkeypatch.setattr(f"lt_jax.{module}.is_cached", lambda fields: False)
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
