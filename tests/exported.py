"""What tests of exported models share: a run with several labels, outputs, scores by NumPy."""

import csv

import numpy as np
import pytest
from shared_runs import once
from tiny_runs import snapshot, tiny

from lt_jax.artifact import load_artifact
from lt_jax.export import export_run
from lt_jax.train import train

CLASSES, NAMES = 4, list("abcd")


def exported(run, out, **options):
    """The model of a run, for this machine only, which is quicker."""
    return load_artifact(export_run(run, out, platforms=["cpu"], **options))


def outputs(model, inputs):
    """Logits and probabilities."""
    found = model.outputs(inputs)
    return np.asarray(found["logits"]), np.asarray(found["probabilities"], np.float64)


def assert_scores(model, dataset, tested):
    """It says of every test image what its run said of it, as far as the scores tell."""
    logits, probabilities = outputs(model, dataset.test_images)
    labels = dataset.test_labels
    confusion = np.zeros((dataset.num_classes,) * 2, int)
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    assert confusion.tolist() == tested["confusion"]
    assert np.trace(confusion) / len(labels) == tested["top1"] == model.facts["test"]["top1"]
    own = probabilities[np.arange(len(labels)), labels]
    nll = -np.log(np.maximum(own, 1e-12)).mean()
    assert nll == pytest.approx(tested["nll"], rel=1e-4)


@pytest.fixture(scope="module")
def images():
    """Images with several labels each, of which the frequent ones come first."""
    rng = np.random.default_rng(0)
    labels = (rng.random((240, CLASSES)) < [0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    shown = labels @ rng.uniform(-30, 30, (CLASSES, 64)) + rng.normal(128, 40, (240, 64))
    pixels = shown.clip(0, 255).astype(np.uint8).reshape(-1, 8, 8, 1)
    return {
        "x_train": pixels[:160],
        "y_train": labels[:160],
        "x_test": pixels[160:],
        "y_test": labels[160:],
    }


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """Config, folder and summary of a run on them, two seeds; exports leave it as it is."""

    def make(folder):
        np.savez(folder / "set.npz", **images, class_names=NAMES)
        config = tiny("sigmoid", data__source=f"arrays:{folder / 'set.npz'}", replicas=2)
        config.data.update(imbalance=0.0, max_count=0, validation_size=40)
        config.train.update(batch_size=32)
        return config, folder / "run", train(config, folder / "run")

    config, folder, summary = once(tmp_path_factory, "several_labels", make)
    before = snapshot(folder.parent)
    yield config, folder, summary
    assert snapshot(folder.parent) == before


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    """Its second replica, exported for all platforms."""

    def make(folder):
        return export_run(run[1], folder / "digits", seed=1)

    return load_artifact(once(tmp_path_factory, "served", make))


def read(path):
    """The rows of a CSV file as dictionaries."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
