"""``--import``: losses of one's own in every script, as the guide says."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import ROOT

from lt_jax.objectives import build_objective, method_spec

GUIDE = (ROOT / "docs/guide/extending.md").read_text()
EXAMPLE = re.search(r"^```python\n(# my_losses.py\n.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)[1]
NETWORK = """
from lt_jax.models import MODELS
from tiny_runs import PixelNet
MODELS["pixels"] = PixelNet
"""
SHORT = (
    "--config.model.name=pixels",
    "--config.data.max_count=60",
    "--config.train.epochs=1",
    "--config.train.num_devices=1",
    "--config.train.picture=False",
    "--config.train.tensorboard=False",
)


def run(folder, script, *arguments):
    """A real process, in a folder of its own."""
    return subprocess.run(
        [sys.executable, ROOT / f"launch/{script}.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        timeout=180,
    )


def assert_refused(ended, sentence):
    assert ended.returncode == 2, ended.stderr
    assert re.fullmatch(f"error: {sentence}\n", ended.stderr), ended.stderr


def test_the_loss_of_the_guide_is_that_of_its_paper(registries_restored):
    """Kini et al.: softmax cross-entropy of Delta_j z_j + iota_j, here in NumPy float64."""
    exec(EXAMPLE, {})
    counts = np.array([800, 150, 50])
    logits, labels = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 3
    spec = method_spec("vs")
    spec["transforms"]["vector_scaling"] |= {"gamma": 0.3, "tau": 1.25}
    objective = build_objective(spec, counts)
    loss, _ = objective.apply(
        objective.init(), jax.random.key(0), jnp.float32(logits), jnp.asarray(labels)
    )
    z = logits * (counts / 800) ** 0.3 + 1.25 * np.log(counts / 1000)
    expected = np.log(np.exp(z).sum(1)) - z[np.arange(6), labels]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_run_with_a_loss_of_ones_own_is_trained_retrained_and_exported(tmp_path):
    """By the commands of the guide, with a network too; both are there before the config is."""
    (tmp_path / "my_losses.py").write_text(EXAMPLE)
    (tmp_path / "my_networks.py").write_text(NETWORK)
    own = ("--import=my_losses.py", "--import", "my_networks.py")
    trained = run(
        tmp_path,
        "train",
        f"--config={ROOT}/configs/digits.py:vs",
        "--config.objective.transforms.vector_scaling.tau=1.25",
        *SHORT,
        "--workdir=vs",
        *own,
    )
    assert trained.returncode == 0, trained.stderr
    second = ("--from_workdir=vs", "--stage=crt/vs", "--set=epochs=1", "--workdir=vs_crt")
    without = run(tmp_path, "retrain_classifier", *second)
    assert_refused(without, r"loss transform is 'vector_scaling'; expected one of .*--import=FILE")
    retrained = run(tmp_path, "retrain_classifier", *own, *second)
    assert retrained.returncode == 0, retrained.stderr
    config = json.loads((tmp_path / "vs_crt/config.json").read_text())
    assert config["retrain"]["sampling"]["scheme"] == "instance"
    assert config["objective"]["transforms"]["vector_scaling"]["tau"] == 1.25
    exported = run(tmp_path, "export", *own, "--workdir=vs_crt", "--out=vs_model")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "vs_model/model.stablehlo").is_file()


@pytest.mark.parametrize("script", ["retrain_classifier", "export"])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"--import is 'own.py'; expected a Python file, such as my_losses.py"),
        ("x = 1\ny = x / 0\n", r"own.py of --import .* \(line 2: ZeroDivisionError: division .*\)"),
    ],
    ids=["missing", "failing"],
)
def test_a_file_that_cannot_be_imported_is_named(script, text, sentence, tmp_path):
    """In scripts with a config, which is loaded when its flag is defined, and without."""
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    assert_refused(run(tmp_path, script, "--import=own.py", "--workdir=a"), sentence)
