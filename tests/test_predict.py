"""Predictions of an exported model in CSV files: of folders and arrays; what is refused."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from exported import (  # noqa: F401 (fixtures)
    NAMES,
    images,
    outputs,
    read,
    run,
    served,
)
from PIL import Image
from shared_runs import _tiny_network  # noqa: F401 (a fixture)

from lt_jax.artifact import predicted_positives
from lt_jax.errors import InputError, StorageError
from lt_jax.examples import find_examples
from lt_jax.files import writing
from lt_jax.predict import predict, write_predictions


@pytest.fixture(scope="module")
def single(served):
    """The same as if an image had one label."""
    return served._replace(facts={**served.facts, "multi_label": False})


def saved(path, **arrays):
    np.savez(path, **arrays)
    return [path]


def test_a_folder_becomes_a_table(single, images, tmp_path):
    """In the order of paths, without hidden files, in batches of which the last is not full."""
    folder = tmp_path / "photos"
    names = ["b.png", "a/z.png", "a/c/d.bmp", "e.tif", "f.pgm"]
    for name, image in zip(names, images["x_test"], strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / name)
    shutil.copy(folder / "b.png", folder / ".hidden.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.png").mkdir()
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


def test_names_with_semicolons_stay_apart(served, images, tmp_path):
    """Cells of several classes are rows of a CSV file themselves."""
    names = ["red; blue", 'so-called "x"', *NAMES[2:]]
    model = served._replace(facts={**served.facts, "class_names": names, "threshold": 0.0})
    model.facts["logit_thresholds"] = None
    np.savez(tmp_path / "x.npz", x=images["x_test"][:3])
    write_predictions(model, [tmp_path / "x.npz"], tmp_path / "p.csv")
    for row in read(tmp_path / "p.csv"):
        (cell,) = csv.reader([row["classes"]], delimiter=";")
        assert sorted(cell) == sorted(names)


def test_a_damaged_image_is_refused_or_left_out(served, images, tmp_path):
    Image.fromarray(images["x_test"][0, ..., 0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"bad\.png cannot be read: .*; --on_corrupt=skip l"):
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


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (lambda p: [], "no images were given"),
        (lambda p: [p / "none"], r"there is no file or folder .*none"),
        (lambda p: [p], "has no images; expected files such as"),
        (lambda p: saved(p / "a.npz", a=np.zeros(1), b=np.zeros(1)), r"has the arrays a, b; expec"),
        (lambda p: saved(p / "a.npz", x=np.zeros((2, 6))), r"takes uint8 \[N, 8, 8, 1\]"),
        (lambda p: saved(p / "a.npz", x=np.zeros((2, 9, 9, 2), np.uint8)), r"neither grey nor RGB"),
        (
            lambda p: saved(p / "a.npz", x=np.zeros(6)),
            r"x of .* has shape \(6,\); expected \[N, D\]",
        ),
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
