"""What tests know of exported models: their outputs, and scores that NumPy alone takes of them."""

import numpy as np
import pytest

from lt_jax.artifact import load_artifact
from lt_jax.export import export_run


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
