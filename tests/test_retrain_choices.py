"""What a second stage chooses: its tau on validation alone, its images by any sampler."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

from pathlib import Path

import numpy as np
import pytest
from second_stages import (  # noqa: F401 (fixtures)
    TAUS,
    ce,
    digits_as_arrays,
    done,
    gcl,
    losses,
    second,
)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import scores, tiny

from lt_jax.data.sources import load_source
from lt_jax.longtail import SCHEMES
from lt_jax.retrain import retrain
from lt_jax.train import train

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
