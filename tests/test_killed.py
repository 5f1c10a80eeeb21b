"""A run that is killed at any moment, also while a checkpoint is written, loses nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from tiny_runs import ROOT, rows

CLOCK = {"finished", "command"}  # of a summary, beside the seconds of the training


def saved(run: Path) -> dict[str, list[np.ndarray]]:
    """The arrays of all checkpoints, read by Orbax alone."""
    with ocp.StandardCheckpointer() as checkpointer:
        return {
            path.name: jax.tree.leaves(checkpointer.restore(path / "state"))
            for path in (run / "checkpoints").iterdir()
        }


def summary(run: Path) -> dict:
    found = json.loads((run / "summary.json").read_text())
    del found["training"]["seconds"]
    return {name: value for name, value in found.items() if name not in CLOCK}


def assert_same_end(run: Path, whole: Path) -> None:
    """All arrays bit for bit, all rows, the summary, and no other files than the undisturbed."""
    found, expected = saved(run), saved(whole)
    assert found.keys() == expected.keys()
    for step, leaves in expected.items():
        assert len(leaves) > 10
        for one, other in zip(found[step], leaves, strict=True):
            np.testing.assert_array_equal(one, other)
    assert rows(run) == rows(whole)
    assert summary(run) == summary(whole)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


def test_killed_twenty_times_it_ends_with_the_same_bits(tmp_path):
    """Real kills of real processes, in start-up, in steps and while checkpoints are written."""
    env = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1")}
    script = [sys.executable, "tests/killing.py", str(tmp_path), "0"]
    ended = subprocess.run(script, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    kills = [kill for seed in "01" for kill in json.loads((tmp_path / f"{seed}.json").read_text())]
    assert len(kills) == 20
    assert sum(writing for _, _, writing in kills) >= 3
    assert len({step for _, step, _ in kills}) >= 5  # nowhere near each other
    whole = tmp_path / "whole"
    told = [path.read_text().count("going on from step") for path in tmp_path.glob("*_*.log")]
    assert sum(told) >= 5
    for path in tmp_path.glob("*_*.log"):
        assert_same_end(tmp_path / path.stem, whole)
