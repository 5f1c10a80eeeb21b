"""Exported models: the numbers of their runs, in a program that JAX alone serves anywhere."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import json
import re
import shutil
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from exported import (  # noqa: F401 (fixtures)
    NAMES,
    exported,
    images,
    outputs,
    read,
    run,
    served,
)
from PIL import Image
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import ROOT

from lt_jax import artifact, models, sharding
from lt_jax import export as export_module
from lt_jax.artifact import predicted_positives
from lt_jax.data import load_dataset
from lt_jax.export import lowered
from lt_jax.models import create_model
from lt_jax.prepare import put_splits
from lt_jax.stage1 import find_stage1, load_frozen
from lt_jax.state import make_network
from lt_jax.steps import plain_inputs
from lt_jax.trained import Trained, remembered

# The numbers of the run


@pytest.mark.parametrize("which", ["last", "best_on_validation"])
def test_probabilities_are_those_of_the_evaluation(which, run, images, tmp_path):
    config, folder, _ = run
    dataset = load_dataset(config.data)
    frozen = load_frozen(find_stage1(config, folder), dataset, which)
    test = put_splits(dataset, sharding.make_mesh(1))["test"]
    own = jax.tree.map(lambda leaf: leaf[0], (frozen.params, frozen.stats))
    logits, _ = frozen.network.apply(*own, plain_inputs(test, np.arange(80)), False)
    expected = np.asarray(frozen.objective.probabilities(logits))
    found = outputs(exported(folder, tmp_path / "out", weights=which), images["x_test"])[1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_each_seed_claims_what_it_claimed_when_tested(seed, run, images, served, tmp_path):
    """With the thresholds that validation chose, and with that of all classes."""
    model = served if seed else exported(run[1], tmp_path / "out")
    tested = run[2]["test"]["last"]["replicas"][seed]
    found, right = outputs(model, images["x_test"]), images["y_test"]
    claimed = predicted_positives(*found, model.facts)
    assert (claimed == right).all(axis=1).mean() == tested["exact_match_tuned"]
    without = predicted_positives(*found, {**model.facts, "logit_thresholds": None})
    assert (without == right).all(axis=1).mean() == tested["exact_match"]
    assert (claimed != without).any()


def test_a_batch_of_any_size_says_the_same(served, images):
    whole = outputs(served, images["x_test"][:7])[1]
    for size in (1, 3):
        part = outputs(served, images["x_test"][:size])[1]
        np.testing.assert_allclose(part, whole[:size], rtol=0, atol=1e-6)


def test_neither_the_data_nor_their_shape_need_be_there(run, tmp_path):
    """A summary of an earlier version has no shape; then the data are asked."""
    config, _, summary = run
    gone = {**config.to_dict(), "data": {**config.data.to_dict(), "source": "arrays:gone.npz"}}
    assert remembered(gone, summary).test_images.shape == (80, 8, 8, 1)
    data = {name: value for name, value in summary["data"].items() if name != "image_shape"}
    assert remembered(config, {**summary, "data": data}).test_images.shape == (80, 8, 8, 1)


def untrained(name, inputs):
    """A network that was not trained, for such inputs; its weights take no room."""
    network = make_network(
        lambda rngs: create_model(name, image_shape=inputs.shape[1:], num_classes=3, rngs=rngs)
    )
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    weights = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0.5), leaf.shape), shapes)
    channels = np.arange(1.0, inputs.shape[-1] + 1)
    data = SimpleNamespace(train_images=inputs, mean=10 * channels, std=channels)
    run = SimpleNamespace(dataset=data)
    return Trained(run, weights, lambda w, x: network.apply(*w, x, False)[0], True, 1.0)


def test_features_are_standardised_inside():
    """Against NumPy in float64."""
    x = np.random.default_rng(0).normal(30, 5, (4, 6)).astype(np.float32)
    model = untrained("linear", x)
    kernel = np.random.default_rng(1).normal(size=(6, 3))
    model.weights[0]["head"]["kernel"] = kernel.astype(np.float32)
    arrays, program = lowered(model, ["cpu"])
    expected = ((x.astype(np.float64) - model.run.dataset.mean) / model.run.dataset.std) @ kernel
    found = program.call(arrays, x)
    np.testing.assert_allclose(found["logits"], expected + 0.5, rtol=1e-5)
    odds = np.exp(expected - expected.max(axis=1, keepdims=True))
    share = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], share, rtol=0, atol=1e-5)


# The program


class OneBlock(models.ViTTiny):
    depth = 1


@pytest.mark.parametrize(
    ("name", "product"), [("resnet10", "convolution"), ("one_block", "dot_general")]
)
def test_programs_are_the_same_everywhere(name, product, monkeypatch):
    """Of plain operations, none of which is a library call of one platform."""
    monkeypatch.setitem(models.MODELS, "one_block", OneBlock)
    program = lowered(untrained(name, np.zeros((1, 32, 32, 3), np.uint8)), export_module.PLATFORMS)[
        1
    ]
    assert program.platforms == ("cpu", "cuda", "tpu")
    text = program.mlir_module()
    assert f"stablehlo.{product}" in text
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion"}
    assert len(program.serialize()) < 1e6  # the weights are not in it


BLOCKED = """
import sys

class Blocked:
    names = {"flax", "optax", "orbax", "ml_collections", "tensorflow_datasets", "grain", "rich",
             "matplotlib", "sklearn", "safetensors", "array_record"}
    def find_spec(self, name, *_):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is not there")

sys.meta_path.insert(0, Blocked())
"""


def test_it_is_served_by_jax_alone(served, images, tmp_path):
    """The example in the documentation, word by word, and the script, where nothing else is."""
    shutil.copytree(served.folder, tmp_path / "exported" / "digits")
    Image.fromarray(images["x_test"][0, ..., 0]).save(tmp_path / "a.png")
    example = textwrap.dedent(artifact.__doc__.split("::\n")[1])
    script = str(ROOT / "launch" / "predict.py")
    flags = ["--model=exported/digits", "--images=a.png", "--out=a.csv", "--all_probabilities"]
    run_it = f"import runpy\nsys.argv = [{script!r}, *{flags}]\nrunpy.run_path(sys.argv[0], "
    code = f"{BLOCKED}\n{example}\n{run_it}run_name='__main__')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.replace("'", '"'))) == 3
    probabilities = outputs(served, images["x_test"][:1])[1]
    (row,) = read(tmp_path / "a.csv")
    given = [float(row[name]) for name in NAMES]
    np.testing.assert_allclose(given, probabilities[0], rtol=0, atol=1e-6)
