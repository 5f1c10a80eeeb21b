"""Exported models: the numbers of their runs, served by JAX alone; predictions in CSV files."""

import csv
import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from exported import exported, outputs
from PIL import Image
from tiny_runs import ROOT, PixelNet, snapshot, tiny

from lt_jax import artifact, models, sharding
from lt_jax import export as export_module
from lt_jax.artifact import load_artifact, predicted_positives
from lt_jax.data import load_dataset
from lt_jax.errors import InputError, StorageError
from lt_jax.examples import find_examples
from lt_jax.export import export_run, lowered
from lt_jax.files import writing
from lt_jax.models import create_model
from lt_jax.predict import predict, write_predictions
from lt_jax.prepare import put_splits
from lt_jax.stage1 import find_stage1, load_frozen
from lt_jax.state import make_network
from lt_jax.steps import plain_inputs
from lt_jax.train import train
from lt_jax.trained import Trained, remembered

CLASSES, NAMES = 4, list("abcd")


@pytest.fixture(scope="module", autouse=True)
def _tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "pixels", PixelNet)
        yield


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
    folder = tmp_path_factory.mktemp("run")
    np.savez(folder / "set.npz", **images, class_names=NAMES)
    config = tiny("sigmoid", data__source=f"arrays:{folder / 'set.npz'}", replicas=2)
    config.data.update(imbalance=0.0, max_count=0, validation_size=40)
    config.train.update(batch_size=32)
    summary = train(config, folder / "run")
    before = snapshot(folder)
    yield config, folder / "run", summary
    assert snapshot(folder) == before


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    """Its second replica, exported for all platforms."""
    out = tmp_path_factory.mktemp("exported") / "digits"
    return load_artifact(export_run(run[1], out, seed=1))


@pytest.fixture(scope="module")
def single(served):
    """The same as if an image had one label."""
    return served._replace(facts={**served.facts, "multi_label": False})


def read(path):
    """The rows of a CSV file as dictionaries."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


# Predictions


def test_a_folder_becomes_a_table(single, images, tmp_path):
    """In the order of paths, without hidden files, in batches of which the last is not full."""
    folder = tmp_path / "photos"
    names = ["b.png", "a/z.png", "a/c/d.bmp", "e.tif", "f.pgm"]
    for name, image in zip(names, images["x_test"], strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / name)
    shutil.copy(folder / "b.png", folder / ".hidden.png")
    (folder / "notes.txt").write_text("no image")
    written = write_predictions(
        single, [folder], tmp_path / "p.csv", top_k=3, batch_size=2, all_probabilities=True
    )
    assert written == (5, ())
    rows = read(tmp_path / "p.csv")
    assert [row["path"] for row in rows] == [str(folder / name) for name in sorted(names)]
    probabilities = outputs(single, images["x_test"][:5])[1]
    for row in rows:
        own = probabilities[names.index(str(row["path"]).removeprefix(f"{folder}/"))]
        order = np.argsort(-own)
        assert [row[f"class{s}"] for s in ("", "_2", "_3")] == [NAMES[c] for c in order[:3]]
        given = [float(row[f"probability{s}"]) for s in ("", "_2", "_3")]
        np.testing.assert_allclose(given, own[order[:3]], atol=1e-6)
        np.testing.assert_allclose([float(row[name]) for name in NAMES], own, atol=1e-6)


def test_an_image_of_another_kind_becomes_one_of_the_model(served, images, tmp_path):
    """RGB of another size, by Pillow's own bilinear resizing of its grey version."""
    large = Image.fromarray(images["x_test"][0, ..., 0]).convert("RGB").resize((40, 24))
    large.save(tmp_path / "large.png")
    grey = np.asarray(large.convert("L").resize((8, 8), Image.Resampling.BILINEAR))
    examples = find_examples([tmp_path / "large.png"], served.facts)
    np.testing.assert_array_equal(examples[0].read(), grey[..., None])
    np.savez(tmp_path / "large.npz", images=np.asarray(large)[None])
    (example,) = find_examples([tmp_path / "large.npz"], served.facts)
    np.testing.assert_array_equal(example.read(), grey[..., None])


def test_arrays_are_predicted_like_files(served, images, tmp_path):
    np.savez(tmp_path / "x.npz", images=images["x_test"][:5, ..., 0], labels=np.zeros(5))
    found = list(predict(served, find_examples([tmp_path / "x.npz"], served.facts), batch_size=3))
    assert [one.name for one in found] == [f"{tmp_path}/x.npz[{i}]" for i in range(5)]
    expected = outputs(served, images["x_test"][:5])[0]
    np.testing.assert_allclose([one.logits for one in found], expected, rtol=0, atol=1e-5)


def test_classes_above_their_thresholds_are_told(served, images, tmp_path):
    np.savez(tmp_path / "x.npz", x=images["x_test"])
    write_predictions(served, [tmp_path / "x.npz"], tmp_path / "p.csv", all_probabilities=True)
    claimed = predicted_positives(*outputs(served, images["x_test"]), served.facts)
    assert set(claimed.sum(axis=1)) >= {0, 1, 2}
    for row, own in zip(read(tmp_path / "p.csv"), claimed, strict=True):
        names = row["classes"].split(";") if row["classes"] else []
        assert sorted(names) == [name for name, is_one in zip(NAMES, own, strict=True) if is_one]
        given = [row[name] for name in names]
        assert ";".join(given) == row["probabilities"]
        assert given == sorted(given, key=float, reverse=True)


def test_a_damaged_image_is_refused_or_left_out(served, images, tmp_path):
    Image.fromarray(images["x_test"][0, ..., 0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"bad\.png cannot be read: "):
        write_predictions(served, [tmp_path], tmp_path / "p.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.png", "good.png"]
    written = write_predictions(served, [tmp_path], tmp_path / "p.csv", on_corrupt="skip")
    assert written.rows == 1
    assert "bad.png cannot be read" in written.skipped[0]
    assert [row["path"] for row in read(tmp_path / "p.csv")] == [str(tmp_path / "good.png")]


def test_bad_input_is_no_failure_of_a_bucket(monkeypatch):
    """Whose clients raise so many kinds that all others are taken for theirs."""
    monkeypatch.setattr("lt_jax.files.is_remote", lambda path: True)
    with pytest.raises(InputError, match="no image"), writing(Path("folder")):
        raise InputError("a.png is no image")
    with pytest.raises(StorageError, match="refused"), writing(Path("folder")):
        raise ValueError("refused")


# What is refused


def unfinished(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    return {"workdir": tmp_path / "run"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (unfinished, r"the run in .*run has not finished: there is no summary\.json"),
        (lambda _, tmp_path: {"workdir": tmp_path}, r"holds no config\.json; expected the folder"),
        (lambda *_: {"seed": 7}, r"seed is 7, but the run in .* has seeds \[0, 1\]"),
        (lambda *_: {"weights": "worst"}, r"weights is 'worst', .* has 'last' or 'best_on_valid"),
        (lambda *_: {"platforms": ["gpu"]}, r"platforms has 'gpu'; expected some of cpu, cuda"),
        (lambda *_: {"platforms": []}, r"platforms has empty; expected"),
        (lambda *_: {"out": "gs://bucket/model"}, r"expected a local folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(change, sentence, run, tmp_path, monkeypatch):
    monkeypatch.setattr("lt_jax.export.folder_of", lambda name: type(tmp_path)(name))
    monkeypatch.setattr("lt_jax.export.is_remote", lambda path: str(path).startswith("gs:"))
    given = {"workdir": run[1], "out": tmp_path / "out"}
    with pytest.raises(InputError, match=sentence):
        export_run(**{**given, **change(run[1], tmp_path)})
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_there_is_kept_or_replaced_as_a_whole(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    exported(run[1], out)
    before = snapshot(out)
    with pytest.raises(InputError, match="is there already; choose another out, or give --overwr"):
        exported(run[1], out, seed=1)

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left"):
            exported(run[1], out, seed=1, overwrite=True)
    assert snapshot(out) == before
    assert exported(run[1], out, seed=1, overwrite=True).facts["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine is no exported model, and is not overwritten"):
        exported(run[1], tmp_path / "mine", overwrite=True)


def changed(path, text):
    path.write_text(text)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda m: (m / "model.json").unlink(),
            r"is not an exported model, as it holds no model\.",
        ),
        (lambda m: changed(m / "model.json", "{}"), r"has format None; expected 'lt_jax model 1'"),
        (lambda m: changed(m / "model.json", "{"), r"model\.json cannot be read"),
        (lambda m: (m / "weights.npz").unlink(), r"lacks weights\.npz; expected all files"),
        (lambda m: changed(m / "model.stablehlo", "x"), r"model\.stablehlo is damaged"),
    ],
)
def test_what_is_no_exported_model_is_refused(damage, sentence, served, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(served.folder, folder)
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        load_artifact(folder)


def test_a_platform_it_was_not_exported_for_is_named(served, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert load_artifact(served.folder)  # cuda is one of them
    monkeypatch.setattr(jax, "default_backend", lambda: "metal")
    with pytest.raises(InputError, match=r"for cpu, cuda, tpu, and JAX runs on metal here"):
        load_artifact(served.folder)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return [path]


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (lambda p: [], "no images were given"),
        (lambda p: [p / "none"], r"there is no file or folder .*none"),
        (lambda p: [p], "has no images; expected files such as"),
        (lambda p: saved(p / "a.npz", a=np.zeros(1), b=np.zeros(1)), r"has the arrays a, b; expec"),
        (lambda p: saved(p / "a.npz", x=np.zeros((2, 6))), r"takes uint8 \[N, 8, 8, 1\]"),
        (lambda p: saved(p / "a.npz", x=np.zeros((2, 9, 9, 2), np.uint8)), r"neither grey nor RGB"),
    ],
)
def test_what_cannot_be_predicted_is_refused(paths, sentence, served, tmp_path):
    with pytest.raises(InputError, match=sentence):
        write_predictions(served, paths(tmp_path), tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_k": 0}, "top_k is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"on_corrupt": "hide"}, "on_corrupt is 'hide'; expected 'refuse' or 'skip'"),
        ({"out": "x.npz"}, r"x\.npz is there already; choose another out, or give --overwrite"),
        ({"out": "none/p.csv"}, r"out is .*none/p\.csv; expected a file in a folder that exists"),
        ({"out": ".", "overwrite": True}, r"out is .*; expected a file in a folder that exists"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, sentence, served, images, tmp_path):
    saved(tmp_path / "x.npz", x=images["x_test"])
    out = tmp_path / options.pop("out", "p.csv")
    with pytest.raises(InputError, match=sentence):
        write_predictions(served, [tmp_path / "x.npz"], out, **options)


def test_a_model_of_features_takes_no_images(tmp_path):
    facts = {"input": {"shape": [6], "dtype": "float32", "resize": "stretch"}}
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png is given, but the model takes feature vectors"):
        find_examples([tmp_path / "a.png"], facts)
    wrong = saved(tmp_path / "x.npz", x=np.zeros((2, 5)))
    with pytest.raises(InputError, match=r"has shape \(2, 5\); the model takes float32 \[N, 6\]"):
        find_examples(wrong, facts)
