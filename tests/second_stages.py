"""What tests of second stages share: finished runs of both stages, and what holds of them."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from shared_runs import once
from tiny_runs import rows, snapshot, tiny

from lt_jax import retrain as retrain_module
from lt_jax.data.sources import load_source
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.train import train
from lt_jax.two_stage import NCM_FEATURES, STAGES, TRAINED

TAUS = (0.0, 0.5, 1.0, 2.0)


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


def trained(config: ConfigDict, folder: Path) -> Finished:
    """A run that was not there."""
    return Finished(config, folder, train(config, folder))


@pytest.fixture(scope="module")
def ce(tmp_path_factory):
    """A finished first stage; whatever the tests do with it, it stays as it is."""
    config = tiny(replicas=2)
    found = once(tmp_path_factory, "ce", functools.partial(trained, config))
    before = snapshot(found.folder)
    yield found
    assert snapshot(found.folder) == before


@pytest.fixture(scope="module")
def gcl(tmp_path_factory):
    """Both stages of GCL in one go, undisturbed."""
    config = second("gcl", "gcl", retrain__optimizer__warmup_epochs=1.0)
    found = once(tmp_path_factory, "gcl", functools.partial(trained, config))
    before = snapshot(found.folder)
    yield found
    assert snapshot(found.folder) == before


@pytest.fixture(scope="module")
def done(tmp_path_factory, ce, gcl):
    """``stage -> Finished``: every second stage, run once, without a change to the first."""

    @functools.cache
    def run(stage, method="cross_entropy"):
        first = ce.folder if method == "cross_entropy" else gcl.folder
        config = gcl.config if stage == "gcl" else second(stage, method)

        def make(parent):
            before = snapshot(first)
            summary = retrain(config, parent / "run", first)
            assert snapshot(first) == before
            return Finished(config, parent / "run", summary)

        return once(tmp_path_factory, f"{method}_{stage}", make)

    return run


def assert_same(one, other):
    """Two trees of arrays are equal bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def losses(folder: Path) -> np.ndarray:
    """Training losses ``[rows, R]``."""
    return np.array([row["loss"] for row in rows(folder) if row["split"] == "train"])


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
