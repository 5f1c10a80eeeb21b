"""Predictions of a run's own splits: scikit-learn finds in the files what the summary says.

Of one stage, every kind of second stage, DLSA and several labels; with paths where the data are
files; and what is refused before anything is written.
"""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from class_folders import CLASSES, Image, write
from divisions import done as divided  # noqa: F401 (a fixture)
from exported import NAMES, images, run  # noqa: F401 (fixtures)
from scipy.special import expit, softmax
from second_stages import ce, digits_as_arrays, done, gcl  # noqa: F401 (fixtures)
from shared_runs import _tiny_network, once  # noqa: F401 (a fixture)
from sklearn import metrics
from tiny_runs import ROOT, ColourNet, snapshot, tiny

from lt_jax import models
from lt_jax.data import load_dataset, load_source
from lt_jax.errors import InputError
from lt_jax.predict_split import predict_split, write_split_predictions
from lt_jax.train import train


def written(workdir, folder, **options):
    """The arrays of the file, and what was returned."""
    path = folder / "predictions.npz"
    found = write_split_predictions(workdir, path, **options)
    with np.load(path) as file:  # which refuses pickled objects
        return dict(file), found


def assert_scores(file, tested):
    """Scikit-learn's scores of a file are those of the summary."""
    labels, predicted, probabilities = file["label"], file["predicted"], file["probabilities"]
    classes = np.arange(len(file["class_names"]))
    confusion = metrics.confusion_matrix(labels, predicted, labels=classes)
    assert confusion.tolist() == tested["confusion"]
    assert metrics.accuracy_score(labels, predicted) == pytest.approx(tested["top1"], abs=1e-12)
    recall = metrics.recall_score(labels, predicted, average=None)
    assert recall == pytest.approx(tested["per_class"], abs=1e-12)
    balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert balanced == pytest.approx(tested["balanced_accuracy"], abs=1e-12)
    nll = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean()
    assert nll == pytest.approx(tested["nll"], rel=1e-4)
    assert (predicted == file["logits"].argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("seed", "weights"), [(None, "last"), (1, "last"), (1, "best_on_validation")]
)
def test_one_stage(seed, weights, ce, tmp_path):
    """Of the seed and the weights that were asked for."""
    file, found = written(ce.folder, tmp_path, seed=seed, weights=weights)
    tested = ce.summary["test"][weights]["replicas"][seed or 0]
    assert_scores(file, tested)
    dataset = load_dataset(ce.config.data)
    np.testing.assert_array_equal(file["label"], dataset.test_labels)
    np.testing.assert_array_equal(file["index"], np.arange(len(dataset.test_labels)))
    np.testing.assert_allclose(softmax(file["logits"], -1), file["probabilities"], atol=1e-6)
    assert file["logits"].dtype == file["probabilities"].dtype == np.float32
    assert "path" not in file
    facts = json.loads(str(file["run"]))
    assert (facts["seed"], facts["weights"], facts["split"]) == (seed or 0, weights, "test")
    assert facts["images"]["test_hash"] == dataset.test_hash
    assert found.headline == pytest.approx(tested["balanced_accuracy"], abs=1e-12)
    assert found.in_summary == tested["balanced_accuracy"]


@pytest.mark.parametrize("weights", ["last", "best_on_validation"])
def test_validation(weights, ce, tmp_path):
    file, found = written(ce.folder, tmp_path, split="validation", seed=1, weights=weights)
    np.testing.assert_array_equal(file["label"], load_dataset(ce.config.data).validation_labels)
    score = metrics.balanced_accuracy_score(file["label"], file["predicted"])
    expected = ce.summary["test"][weights]["validation_balanced_accuracy"][1]
    assert score == pytest.approx(expected, abs=1e-6)
    assert found.headline == pytest.approx(score, abs=1e-12)
    assert found.in_summary == expected


@pytest.mark.parametrize(
    "stage", ["crt", "lws", "gcl", "tau_norm", "ncm", "posthoc_logit_adjustment"]
)
def test_second_stages(stage, done, gcl, tmp_path):
    finished = gcl if stage == "gcl" else done(stage)
    file, _ = written(finished.folder, tmp_path, seed=1)
    assert_scores(file, finished.summary["test"]["last"]["replicas"][1])


@pytest.mark.parametrize("seed", [0, 1])
def test_division(seed, divided, tmp_path):
    _, folder, summary = divided
    file, _ = written(folder, tmp_path, seed=seed)
    assert_scores(file, summary["test"]["last"]["replicas"][seed])


def test_several_labels(run, images, tmp_path):
    """With the thresholds that validation chose, and with one of all classes."""
    _, folder, summary = run
    file, found = written(folder, tmp_path, seed=1)
    tested = summary["test"]["last"]["replicas"][1]
    labels, predicted = file["label"], file["predicted"]
    np.testing.assert_array_equal(labels, images["y_test"])
    np.testing.assert_allclose(expit(file["logits"]), file["probabilities"], atol=1e-6)
    precision = metrics.average_precision_score(labels, file["logits"], average=None)
    assert precision == pytest.approx(tested["per_class_ap"], abs=1e-9)
    assert found.headline == pytest.approx(tested["map"], abs=1e-9)
    at_half = file["probabilities"] > 0.5
    for said, end in ((predicted, "_tuned"), (at_half, "")):
        f1 = metrics.f1_score(labels, said, average="micro")
        assert f1 == pytest.approx(tested[f"of1{end}"], abs=1e-9)
        exact = metrics.accuracy_score(labels, said)
        assert exact == pytest.approx(tested[f"exact_match{end}"], abs=1e-12)
    assert (predicted != at_half).any()
    assert list(file["class_names"]) == NAMES


def test_features_are_standardised_once(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150).astype(np.int32)
    x = (rng.normal(size=(3, 6))[labels] * 4 + rng.normal(20, 2, (150, 6))).astype(np.float32)
    np.savez(
        tmp_path / "set.npz", x_train=x[:90], y_train=labels[:90], x_test=x[90:], y_test=labels[90:]
    )
    config = tiny(data__source="arrays:set.npz", data__data_dir=str(tmp_path), model__name="mlp")
    config.data.update(imbalance=0.0, max_count=0, validation_size=0)
    config.train.update(batch_size=30, epochs=10)
    summary = train(config, tmp_path / "run")
    file, _ = written(tmp_path / "run", tmp_path)
    assert_scores(file, summary["test"]["last"]["replicas"][0])
    assert summary["test"]["last"]["replicas"][0]["top1"] > 0.5


def rows_of(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_csv_files_have_the_same_numbers(ce, run, tmp_path):
    """In full: float32 comes back as it was."""
    for folder in (ce.folder, run[1]):
        path = tmp_path / f"{folder.parent.name}.csv"
        found = write_split_predictions(folder, path)
        names = found.facts["class_names"]
        rows = rows_of(path)
        assert [int(row["index"]) for row in rows] == list(range(len(found.labels)))
        for kind in ("probability", "logit"):
            given = np.array([[row[f"{kind}_{n}"] for n in names] for row in rows], np.float32)
            expected = found.probabilities if kind == "probability" else found.logits
            np.testing.assert_array_equal(given, expected)
        for kind, expected in (("label", found.labels), ("predicted", found.predicted)):
            if found.facts["multi_label"]:
                given = np.array([[int(row[f"{kind}_{n}"]) for n in names] for row in rows])
                np.testing.assert_array_equal(given, expected)
            else:
                assert [row[kind] for row in rows] == [names[c] for c in expected]


def test_a_run_that_selected_on_nothing_has_no_validation(tmp_path):
    train(tiny(train__epochs=1, data__validation_size=0), tmp_path / "run")
    with pytest.raises(InputError, match=r"split is 'validation', but the run in .*run has n"):
        predict_split(tmp_path / "run", "validation")


COUNTS = {"train": (20, 16, 12), "val": (6, 5, 4)}


@pytest.fixture(scope="module", params=[False, True], ids=["in_memory", "streamed"])
def photos(request, tmp_path_factory):
    """A run on a folder of files, of which some are cut from train to select on."""

    def make(folder):
        root = write(folder / "photos", ("train", "val"), COUNTS)
        os.rename(root / "val/bee/0.png", os.fsencode(root / "val/bee/0") + b"\xe9.png")
        config = tiny(data__source="folder:photos", data__data_dir=str(folder))
        config.data.update(
            imbalance=0.0, max_count=0, validation_size=9, image_size=8, stream=request.param
        )
        config.model.name = "colour"
        config.train.update(batch_size=16, eval_batch_size=4, num_devices=0)
        return folder, train(config, folder / "run")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "colour", ColourNet)
        yield once(tmp_path_factory, f"photos_{request.param}", make)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_files_are_named(split, photos, tmp_path):
    """Relative to the folder; names that are no UTF-8 too; validation by those in train."""
    folder, summary = photos
    file, found = written(folder / "run", tmp_path, split=split)
    assert_scores_of_files(file, summary, split)
    assert len(set(found.paths)) == len(found.labels) == summary["data"][f"total_{split}"]
    for path, label in zip(found.paths, file["label"], strict=True):
        assert (folder / "photos" / path).is_file()
        assert path.split("/")[:2] == ["val" if split == "test" else "train", CLASSES[label]]
    assert file["path"].tolist() == found.paths
    write_split_predictions(folder / "run", tmp_path / "p.csv", split=split)
    assert [row["path"] for row in rows_of(tmp_path / "p.csv")] == found.paths


def assert_scores_of_files(file, summary, split):
    tested = summary["test"]["last"]
    score = metrics.balanced_accuracy_score(file["label"], file["predicted"])
    known = tested["validation_balanced_accuracy"][0]
    expected = known if split == "validation" else tested["replicas"][0]["balanced_accuracy"]
    assert score == pytest.approx(expected, abs=1e-6)


def test_paths_belong_to_their_images(photos):
    """The label of a class could be right by chance within it; the pixels could not."""
    folder, _ = photos
    config = json.loads((folder / "run/config.json").read_text())
    dataset = load_dataset(config["data"])
    for split in ("test", "validation"):
        inputs = getattr(dataset, f"{split}_images")
        inputs = inputs.read_all() if hasattr(inputs, "read_all") else inputs
        for path, image in zip(dataset.paths[split].tolist(), inputs, strict=True):
            with Image.open(folder / "photos" / os.fsdecode(path)) as opened:
                np.testing.assert_array_equal(np.asarray(opened.resize((8, 8), 2)), image)


def test_data_may_have_moved_and_may_not_have_changed(photos, tmp_path):
    folder, _ = photos
    shutil.copytree(folder, tmp_path / "all")
    (tmp_path / "all/photos").rename(tmp_path / "photos")
    there = predict_split(folder / "run")
    moved = predict_split(tmp_path / "all/run", data_dir=str(tmp_path))
    np.testing.assert_array_equal(moved.logits, there.logits)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "photos/val/ant/0.png")
    sentence = r"folder:photos has other test images now than the run in .* had \(test_\w+ differs"
    with pytest.raises(InputError, match=sentence):
        predict_split(folder / "run", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"out": "p.txt"}, r"out is .*p\.txt; expected a name that ends in \.npz or \.csv"),
        ({"out": "none/p.npz"}, "expected a file in a folder that exists"),
        ({"split": "train"}, "split is 'train'; expected 'test' or 'validation'"),
        ({"seed": 7}, r"seed is 7, but the run in .* has seeds \[0, 1\]"),
        ({"weights": "worst"}, "weights is 'worst', but the run in .* has 'last' or 'best_on"),
        ({"data_dir": "there"}, "data_dir is there, but digits is in no folder; expected none"),
        ({"workdir": "none"}, "none holds no config.json; expected the folder of a run"),
    ],
)
def test_what_cannot_be_predicted_is_refused(options, sentence, ce, tmp_path):
    given = {"workdir": ce.folder, "out": "p.npz", **options}
    given["out"] = tmp_path / given["out"]
    with pytest.raises(InputError, match=sentence):
        write_split_predictions(**given)
    assert not list(tmp_path.iterdir())


def test_an_absolute_path_is_looked_for_nowhere_else(run):
    with pytest.raises(InputError, match=r"but arrays:.*set\.npz has an absolute path; expected n"):
        predict_split(run[1], data_dir="there")


def test_a_file_that_is_there_is_kept_unless_told_otherwise(ce, tmp_path):
    out = tmp_path / "p.npz"
    out.write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="is there already; choose another out, or give --over"):
        write_split_predictions(ce.folder, out)
    assert snapshot(tmp_path) == before
    write_split_predictions(ce.folder, out, overwrite=True)
    assert np.load(out)["label"].shape == (500,)


def test_the_script(ce, tmp_path):
    """Its score is told beside the summary's; bad input ends with one sentence and status 2."""
    command = [sys.executable, str(ROOT / "launch/predict_split.py"), f"--import={tmp_path}/n.py"]
    (tmp_path / "n.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "from tiny_runs import PixelNet\nfrom lt_jax import models\n"
        "models.MODELS['pixels'] = PixelNet\n"
    )
    flags = [f"--workdir={ce.folder}", "--seed=1", f"--out={tmp_path / 'p.csv'}"]
    told = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
    score = ce.summary["test"]["last"]["replicas"][1]["balanced_accuracy"]
    sentence = f"balanced accuracy {score:.4f} ({score:.4f} in its summary)."
    assert told.stderr.strip().endswith(sentence)
    assert "500 predictions of seed 1 on test" in told.stderr
    again = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1


def test_absolute_paths_of_data_may_have_changed(tmp_path):
    """The source says where they are now; another kind, or other images, are refused."""
    source = digits_as_arrays(tmp_path / "a.npz")
    summary = train(tiny(data__source=source), tmp_path / "run")
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    with pytest.raises(InputError, match="there is no file"):
        predict_split(tmp_path / "run")
    found = predict_split(tmp_path / "run", source=f"arrays:{tmp_path}/b.npz")
    assert found.headline == summary["test"]["last"]["replicas"][0]["balanced_accuracy"]
    with pytest.raises(InputError, match="expected its kind"):
        predict_split(tmp_path / "run", source="digits")
    other = digits_as_arrays(tmp_path / "c.npz", y_test=load_source("digits").test_labels[::-1])
    with pytest.raises(InputError, match="has other test images now"):
        predict_split(tmp_path / "run", source=other)
