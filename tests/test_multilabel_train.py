"""Runs on examples with several labels, from a config to a summary; the network is a small MLP."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from compiling import OPTIMISED
from sklearn.metrics import average_precision_score, f1_score
from tiny_runs import (
    ROOT,
    assert_resumes,
    checkpoint,
    rows,
    scores,
    tiny,
)

from lt_jax import programs
from lt_jax.data import load_dataset
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.sweep import run_sweep
from lt_jax.train import train

CLASSES = 6


def features(seed=0, train_size=240, test_size=120, **changes):
    """Features that tell the labels, of which the first are frequent and the last rare."""
    rng = np.random.default_rng(seed)
    frequency = np.array([0.6, 0.4, 0.3, 0.2, 0.1, 0.06])
    directions = rng.normal(size=(CLASSES, 12))

    def draw(count):
        labels = (rng.random((count, CLASSES)) < frequency).astype(np.uint8)
        noise = rng.normal(size=(count, 12))
        return (labels @ directions + noise).astype(np.float32), labels

    (x_train, y_train), (x_test, y_test) = draw(train_size), draw(test_size)
    y_train[:3], y_test[:3] = np.eye(CLASSES)[3:], np.eye(CLASSES)[3:]
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return {**arrays, **changes}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The features as a file."""
    path = tmp_path_factory.mktemp("features") / "set.npz"
    np.savez(path, **features())
    return path


def config_of(path, method="plm", **fields):
    config = tiny(method, data__source=f"arrays:{path}", model__name="mlp", **fields)
    config.data.update(imbalance=0.0, max_count=0, validation_size=60)
    config.train.update(batch_size=32, epochs=3)
    return config


def test_a_run_ends_with_scores_thresholds_rows_and_pictures(file, tmp_path, capsys):
    config = config_of(file, replicas=2, train__picture=True)
    summary = train(config, tmp_path)
    assert summary["headline"] == "map"
    assert summary["data"]["multi_label"] is True
    assert summary["data"]["class_counts"] == sorted(summary["data"]["class_counts"])[::-1]
    test = summary["test"]["last"]
    assert 0 < test["mean"]["map"] < 1
    assert test["mean"]["cf1_tuned"] is not None
    assert len(test["validation_map"]) == 2
    assert set(summary["test"]) == {"last", "best_on_validation"}
    found = rows(tmp_path)
    assert {row["split"] for row in found} == {"train", "validation", "objective"}
    masks = [row for row in found if row["split"] == "objective"]
    assert np.shape(masks[0]["ideal_ratio"]) == (2, CLASSES)
    assert ["histogram_positives" in row for row in masks] == [True, False, True]
    for name in ("picture.png", "masks.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_test_scores_are_those_of_scikit_learn_on_the_weights_saved(file, tmp_path):
    """From the checkpoint, the features and NumPy alone."""
    summary = train(config_of(file, "sigmoid"), tmp_path)
    arrays = np.load(file)
    info = summary["data"]
    x = (arrays["x_test"] - info["pixel_mean"]) / info["pixel_std"]
    params = checkpoint(tmp_path)["params"]
    hidden, head = ({k: np.asarray(v[0]) for k, v in params[n].items()} for n in ("hidden", "head"))
    logits = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0) @ head["kernel"] + head["bias"]
    average = average_precision_score(arrays["y_test"], logits, average=None)
    found = summary["test"]["last"]["replicas"][0]
    np.testing.assert_allclose(found["per_class_ap"], average, atol=1e-6)
    right = ((logits > 0) == arrays["y_test"]).all(axis=1).mean()
    assert found["exact_match"] == pytest.approx(right)


def test_thresholds_of_each_weights_are_chosen_by_those_weights(file, tmp_path):
    """On validation, of the last as of the best ones; from the checkpoint by NumPy."""
    config = config_of(file, "sigmoid")
    # A last epoch of leaps, after which the weights are not the best.
    config.optimizer.update(schedule="step", milestones=(2.0,), factors=(100.0,))
    summary = train(config, tmp_path)
    assert summary["test"]["last"]["steps"] != summary["test"]["best_on_validation"]["steps"]
    data = load_dataset(config.data)
    state = checkpoint(tmp_path)
    found = {}
    for which, weights in (("last", state), ("best_on_validation", state["best"])):
        hidden, head = (
            {k: np.asarray(v[0]) for k, v in weights["params"][n].items()}
            for n in ("hidden", "head")
        )
        inner = np.maximum(data.validation_images @ hidden["kernel"] + hidden["bias"], 0)
        logits = inner @ head["kernel"] + head["bias"]
        found[which] = summary["test"][which]["replicas"][0]["per_class_threshold"]
        for c, threshold in enumerate(found[which]):
            if threshold is None:
                continue
            targets = data.validation_labels[:, c] > 0
            f1 = [f1_score(targets, logits[:, c] > t) for t in (*logits[:, c], threshold)]
            assert f1[-1] == pytest.approx(max(f1))
    assert found["last"] != found["best_on_validation"]


@pytest.mark.parametrize(("plain", "rounding"), [("sigmoid", 0.0), ("cb_sigmoid", 1e-6)])
def test_before_the_first_update_masking_is_its_base(plain, rounding, file, tmp_path):
    """The losses of a whole epoch, bit for bit; then they differ.

    With weights XLA sums a batch of the two programs in another order, though each example's loss
    is the same bit for bit (`test_partial_label_masks.py`).
    """
    masked = f"{plain}+partial_label_mask"
    runs = {}
    for method in (plain, masked):
        config = config_of(file, method, train__log_every_steps=1)
        if method == masked:
            config.objective.transforms.partial_label_mask.rate = 0.5
        steps = train(config, tmp_path / method)["training"]["steps_per_epoch"]
        found = rows(tmp_path / method)
        runs[method] = [row["loss"][0] for row in found if row["split"] == "train"]
    # The loss of the first step after the update is that of masked labels.
    assert runs[plain][:steps] == pytest.approx(runs[masked][:steps], rel=rounding, abs=0)
    assert runs[plain][steps:] != pytest.approx(runs[masked][steps:], rel=1e-3)


@pytest.mark.parametrize("mode", ["sequential", "vmap"])
def test_stopped_and_resumed_is_bit_exact(mode, file, tmp_path, monkeypatch):
    """Ratios, histograms, the rows about them, and class-aware sampling too."""
    config = config_of(
        file, "plm+class_balanced", replicas=2, replica_mode=mode, augment__mixup_alpha=0.4
    )
    config.objective.transforms.partial_label_mask.update(update_every=2, rate=0.3)
    config.sampling.scheme = "class"
    assert_resumes(lambda folder: train(config, folder), 8, tmp_path, monkeypatch)


def test_eight_devices_end_where_one_does(file, tmp_path):
    """Histograms and ratios are those of the global batch; only sums over devices round."""
    summaries = []
    for devices in (1, 8):
        config = config_of(file, "plm+class_balanced", train__num_devices=devices)
        config.objective.transforms.partial_label_mask.rate = 0.3
        summaries.append(train(config, tmp_path / str(devices)))
    one, eight = (rows(tmp_path / str(devices)) for devices in (1, 8))
    masks = [[row for row in found if row["split"] == "objective"] for found in (one, eight)]
    for a, b in zip(*masks, strict=True):
        np.testing.assert_allclose(a["ideal_ratio"], b["ideal_ratio"], rtol=1e-3)
    assert masks[0][0]["histogram_positives"] == masks[1][0]["histogram_positives"]
    mean = [s["test"]["last"]["mean"] for s in summaries]
    assert mean[0]["map"] == pytest.approx(mean[1]["map"], abs=5e-3)


def test_classes_that_never_or_always_occur_are_named_and_trained_around(tmp_path, capsys):
    arrays = features()
    arrays["y_train"][:, 4] = 0
    arrays["y_train"][:, 0] = 1
    arrays["y_train"][:40, 1:] = 0
    np.savez(tmp_path / "set.npz", **arrays, class_names=list("abcdef"))
    for method in ("plm+class_balanced", "weighted_sigmoid", "distribution_balanced"):
        summary = train(config_of(tmp_path / "set.npz", method), tmp_path / method)
        assert np.isfinite(summary["test"]["last"]["mean"]["map"])
    told = capsys.readouterr().err
    for name in "ae":
        assert told.count(f"'{name}'") == 1  # however many runs of a table see it


@pytest.mark.parametrize("stage", ["crt", "finetune"])
def test_a_second_stage_on_several_labels(stage, file, tmp_path):
    """Class-aware sampling of the classifier alone; the features stay."""
    config = config_of(file, f"sigmoid/{stage}/sigmoid")
    config.retrain.batch_size = 32
    config.retrain.augment.mixup_alpha = 0.0
    summary = train(config, tmp_path)
    assert config.retrain.sampling.scheme == "class"
    assert summary["stage1"]["test"]["last"]["mean"]["map"] > 0
    assert summary["test"]["last"]["mean"]["recall_rarest"] >= 0
    first, second = (checkpoint(tmp_path / name) for name in ("stage1", "stage2"))
    np.testing.assert_array_equal(
        first["params"]["hidden"]["kernel"], second["stats"]["params"]["hidden"]["kernel"]
    )


@pytest.mark.parametrize(
    ("method", "fields", "sentence"),
    [
        ("cross_entropy", {}, r"softmax"),
        ("balanced_softmax", {}, r"softmax"),
        (
            "sigmoid",
            {"augment__flip": True},
            r"config.augment.flip is True, but .* feature vectors",
        ),
        ("sigmoid", {"model__name": "small"}, r"small"),
        ("sigmoid", {"metrics__threshold": 1.5}, r"threshold is 1.5"),
        ("sigmoid", {"metrics__groups": "quarters"}, r"metrics.groups is 'quarters'"),
        ("sigmoid", {"data__num_classes": 5}, r"5"),
        ("sigmoid/tau_norm", {}, r"'tau_norm', which is for one label an example"),
        (
            "sigmoid/crt",
            {},
            r"config.retrain.objective does not fit: .* as in 'sigmoid/crt/sigmoid'",
        ),
        ("sigmoid", {"model__pretrained": "x.safetensors"}, r"mlp"),
    ],
)
def test_what_several_labels_do_not_allow_is_refused(method, fields, sentence, file, tmp_path):
    config = config_of(file, method)
    for name, value in fields.items():
        group, last = name.split("__")
        config[group][last] = value
    with pytest.raises(InputError, match=sentence) as told:
        train(config, tmp_path / "run")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_post_hoc_stages_are_refused_after_the_fact_too(file, tmp_path):
    train(config_of(file, "sigmoid"), tmp_path / "first")
    with pytest.raises(InputError, match="one label an example"):
        retrain(config_of(file, "sigmoid/ncm"), tmp_path / "second", tmp_path / "first")
    assert not (tmp_path / "second").exists()


def test_a_table_compares_operating_points_and_shows_what_masks_do(file, tmp_path):
    from lt_jax import pictures, tables
    from lt_jax.masking_pictures import save_masking_of_table
    from lt_jax.table_pictures import save_ranking

    configs = {m: config_of(file, m, replicas=2) for m in ("sigmoid", "plm")}

    def write(summaries):
        tables.write_tables(summaries, tmp_path)
        save_ranking(summaries, tmp_path / "table.png")
        pictures.save_comparison(summaries, tmp_path / "comparison.png")
        save_masking_of_table(summaries, tmp_path, tmp_path / "masking.png")

    assert run_sweep(configs, tmp_path, write) == {}
    text = (tmp_path / "table.md").read_text()
    for part in ("| mAP |", "recall rarest against the first", "chosen on validation"):
        assert part in text
    for name in ("table.png", "comparison.png", "masking.png"):
        assert (tmp_path / name).stat().st_size > 10_000

    # Where no class is frequent enough to be head, its scores are None and left out.
    summaries = [json.loads((tmp_path / m / "summary.json").read_text()) for m in configs]
    for summary in summaries:
        test = summary["test"]["last"]
        for each in (test["mean"], test["std"], *test["replicas"]):
            each.update(map_head=None, precision_head=None)
    write(summaries)
    text = (tmp_path / "table.md").read_text()
    assert "recall rarest against the first" in text
    assert "precision head against the first" not in text


def test_the_launch_script_trains_the_default_config(tmp_path):
    command = [
        sys.executable, "launch/train.py", "--config=configs/multi_digits.py:plm",
        "--config.train.epochs=1", "--config.data.canvas.images=64",
        "--config.data.validation_size=32", "--config.data.canvas.test_images=32",
        "--config.train.batch_size=32", "--config.train.tensorboard=False",
        "--config.train.picture=False", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "mAP" in done.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["headline"] == "map"


def test_streamed_images_train_what_images_in_memory_do(tmp_path, monkeypatch):
    """Two replicas, class-aware order, validation and test: bit for bit."""
    from lt_jax.data import StreamedImages, load_dataset

    options = {**programs.CPU_COMPILER_OPTIONS, **OPTIMISED}  # as users have it
    monkeypatch.setattr(programs, "CPU_COMPILER_OPTIONS", options)
    config = tiny("plm", replicas=2, data__max_count=0)
    config.data.update(source="multi_digits", imbalance=10.0, validation_size=40)
    config.data.canvas.update(images=96, test_images=40, size=16, max_digits=2)
    config.model.name = "small"
    config.train.update(batch_size=32, eval_batch_size=24)
    config.augment.flip = True
    whole = load_dataset(config.data)

    def streamed(images):
        return StreamedImages(lambda i: images[i], len(images), images.shape[1:])

    names = ("train_images", "validation_images", "test_images")
    lazy = dataclasses.replace(whole, **{n: streamed(getattr(whole, n)) for n in names})
    first = train(config, tmp_path / "memory", dataset=whole)
    second = train(config, tmp_path / "streamed", dataset=lazy)
    assert scores(first) == scores(second)
    assert rows(tmp_path / "memory") == rows(tmp_path / "streamed")
