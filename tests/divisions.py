"""What tests of DLSA as a second stage share: a finished run of both stages, and its config."""

import json

import pytest
from shared_runs import once
from tiny_runs import tiny

from lt_jax.train import train

SEEDS = 2
FLOW = {"num_clusters": 8, "hidden": 8, "epochs": 4, "batch_size": 32}
SHORT = {f"retrain__flow__{name}": value for name, value in FLOW.items()} | {
    "retrain__cascade__depth": 2,
    "retrain__cascade__eval_every": 2,
    "retrain__heads__epochs": 3,
}


def division(**fields):
    """A run of both stages on digits, two seeds."""
    return tiny("cross_entropy/dlsa", **{"replicas": SEEDS, **SHORT, **fields})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run, with its picture; whatever the tests do with it, it stays as it is."""

    def make(parent):
        config = division(train__picture=True)
        return config, parent / "run", train(config, parent / "run")

    config, folder, summary = once(tmp_path_factory, "dlsa", make)
    yield config, folder, summary
    assert json.loads((folder / "summary.json").read_text())["division"]
