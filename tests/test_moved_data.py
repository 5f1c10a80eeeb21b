"""Data that were copied elsewhere: runs go on and are retrained there, on the same images only."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from class_folders import Image, write
from second_stages import digits_as_arrays, second
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import ROOT, ColourNet, Killed, StopAfter, dying, leaves, snapshot, tiny
from tiny_runs import rows as rows_of

from lt_jax import models, prepare, sweep, workdir
from lt_jax.configuration import read_config
from lt_jax.data import load_dataset
from lt_jax.data.sources import load_source
from lt_jax.errors import InputError
from lt_jax.joining import can_join
from lt_jax.retrain import retrain
from lt_jax.stage1 import config_of
from lt_jax.sweep import run_sweep, write_table
from lt_jax.train import train
from lt_jax.tuning import tune

BETA = "objective.transforms.class_balanced.beta"


def arrays_in(folder, **other):
    """``arrays:<file>`` in a folder that is made for it."""
    folder.mkdir(exist_ok=True)
    return digits_as_arrays(folder / "set.npz", **other)


def features_in(folder, shift=0.0):
    """``features:<folder>`` with random features."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 96), ("validation", 24), ("test", 24)):
        features = rng.normal(size=(count, 6)).astype(np.float32)
        features[0] += shift
        np.savez(folder / f"{split}.npz", features=features, labels=np.arange(count) % 3)
    return f"features:{folder}"


def folder_in(folder):
    """``folder:<path>`` with images in sub-folders."""
    counts = dict.fromkeys(("train", "val"), (6, 4, 3))
    return f"folder:{write(folder, counts=counts)}"


def replaced(folder):
    """One image of `folder_in` becomes another of the same name and size."""
    path = folder / "train/ant/0.png"
    size = path.stat().st_size
    Image.new("RGB", (9, 12)).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))


OF_FOLDER = {
    "model__name": "colours",
    "data__image_size": 8,
    "data__validation_size": 0,
    "data__validation_split": "",
    "data__test_split": "val",
}
# Makes the data, and the same with something changed; fields of the run.
KINDS = {
    "arrays": (arrays_in, lambda f: arrays_in(f, x_train=changed_pixels()), {}),
    "features": (features_in, lambda f: features_in(f, 1e-3), {"model__name": "linear"}),
    "folder": (folder_in, replaced, OF_FOLDER),
    "streamed": (folder_in, replaced, {**OF_FOLDER, "data__stream": True}),
}


def changed_pixels():
    images = load_source("digits").train_images.copy()
    images[:, 0, 0] ^= 1
    return images


@pytest.fixture(autouse=True)
def _colours(monkeypatch):
    monkeypatch.setitem(models.MODELS, "colours", ColourNet)


def of_kind(kind, source):
    small = {} if kind == "arrays" else {"train__batch_size": 4, "data__max_count": 0}
    if kind != "arrays":
        small["data__imbalance"] = 0.0
    return tiny(data__source=source, **{**small, **KINDS[kind][2]})


def stopped(config, folder, step=2):
    """A run that was stopped by a signal and has saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopAfter, "step", step)
        patch.setattr("lt_jax.finish.Stop", StopAfter)
        assert train(config, folder) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_where_its_data_are_now(kind, tmp_path):
    """With the bits of one that was never stopped; other content is refused, and it stays."""
    make, change, _ = KINDS[kind]
    source = make(tmp_path / "a")
    whole = train(of_kind(kind, source), tmp_path / "whole")
    stopped(of_kind(kind, source), tmp_path / "run")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    shutil.rmtree(tmp_path / "a")
    change(tmp_path / "c")
    before = snapshot(tmp_path / "run")
    with pytest.raises(InputError, match="was trained on other images than those now in"):
        train(of_kind(kind, source.replace("/a", "/c")), tmp_path / "run")
    assert {**before, ".lock": 0} == {**snapshot(tmp_path / "run"), ".lock": 0}
    config = of_kind(kind, source.replace("/a", "/b"))
    found = train(config, tmp_path / "run")
    assert found["test"] == whole["test"]
    assert found["name"] == whole["name"]
    for one, other in zip(leaves(tmp_path / "whole"), leaves(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(one, other)
    # So that a second stage looks for them there.
    assert config_of(tmp_path / "run").data.source == config.data.source


def test_a_finished_run_is_told_only_of_its_own_images(tmp_path):
    train(tiny(data__source=arrays_in(tmp_path / "a")), tmp_path / "run")
    before = snapshot(tmp_path / "run")
    moved = tiny(data__source=arrays_in(tmp_path / "b"))
    assert train(moved, tmp_path / "run")["test"]
    other = tiny(data__source=arrays_in(tmp_path / "c", x_train=changed_pixels()))
    with pytest.raises(InputError, match=r"has finished with other training images than those"):
        train(other, tmp_path / "run")
    assert snapshot(tmp_path / "run") == before


def test_other_kinds_of_sources_stay_refused(tmp_path):
    train(tiny(data__source=arrays_in(tmp_path / "a")), tmp_path / "run")
    for source in (f"folder:{tmp_path / 'a'}", "digits", "made_features:2"):
        with pytest.raises(InputError, match=r"belongs to a run with data\.source = 'arrays:"):
            train(tiny(data__source=source), tmp_path / "run")
    with pytest.raises(InputError, match=r"data\.source = 'tfds:mnist'"):
        train(tiny(data__source="tfds:cifar10"), _with_source(tmp_path / "tfds", "tfds:mnist"))


def _with_source(folder, source):
    """A folder in which a run was begun."""
    folder.mkdir()
    workdir.write_json(folder / "config.json", tiny(data__source=source).to_dict())
    return folder


def test_runs_that_noted_no_hashes_are_not_moved(tmp_path):
    """Earlier versions; where the data were they go on, but elsewhere nobody can tell."""
    source = arrays_in(tmp_path / "a")
    train(tiny(data__source=source), tmp_path / "run")
    path = tmp_path / "run/summary.json"
    summary = json.loads(path.read_text())
    for name in ("train_hash", "validation_hash"):
        del summary["data"][name]
    path.write_text(json.dumps(summary))
    assert train(tiny(data__source=source), tmp_path / "run")
    moved = arrays_in(tmp_path / "b")
    sentence = r"is of an earlier version and has no hashes .* expected them as there, in .*/a/set"
    with pytest.raises(InputError, match=sentence):
        train(tiny(data__source=moved), tmp_path / "run")
    with pytest.raises(InputError, match=sentence):
        retrain(second("crt", replicas=1, data__source=moved), tmp_path / "crt", tmp_path / "run")
    assert not (tmp_path / "crt").exists()


@pytest.mark.parametrize("stage", ["crt", "tau_norm"])
def test_a_second_stage_takes_data_where_they_are_now(stage, tmp_path):
    config = second(stage, replicas=1, data__source=arrays_in(tmp_path / "a"))
    train(config, tmp_path / "both")
    found = config_of(tmp_path / "both", {"source": arrays_in(tmp_path / "b")})
    shutil.rmtree(tmp_path / "a")
    with found.unlocked():
        found.retrain = config.retrain
    summary = retrain(found, tmp_path / "again", tmp_path / "both")
    whole = json.loads((tmp_path / "both/summary.json").read_text())
    assert summary["test"] == whole["test"]
    # And both stages in one go.
    with config.unlocked():
        config.data.source = found.data.source
    assert train(config, tmp_path / "both")["test"] == whole["test"]
    found.data.source = arrays_in(tmp_path / "c", x_train=changed_pixels())
    with pytest.raises(InputError, match=r"trained on other images than those now in .*train_hash"):
        retrain(found, tmp_path / "other", tmp_path / "both")


def test_both_stages_go_on_where_data_are_now(tmp_path):
    config = second("crt", replicas=1, data__source=arrays_in(tmp_path / "a"))
    whole = train(config, tmp_path / "whole")
    stopped(config, tmp_path / "run")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    config.data.source = config.data.source.replace("/a/", "/b/")
    assert train(config, tmp_path / "run")["test"] == whole["test"]
    assert read_config(tmp_path / "run/config.json").data.source == config.data.source


def table(source):
    names = ("cross_entropy", "plm_softmax", "crt")
    configs = {name: tiny(name, data__source=source) for name in names}
    configs["crt"] = second("crt", replicas=1, name="crt", data__source=source)
    return configs


def test_a_table_goes_on_where_its_data_are_now(tmp_path, monkeypatch):
    """Finished rows, a first stage that is one of them, and rows that are missing."""
    source = arrays_in(tmp_path / "a")
    found = []
    first = {"cross_entropy": table(source)["cross_entropy"]}
    run_sweep(first, tmp_path / "table", found.append)
    moved = arrays_in(tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    other = arrays_in(tmp_path / "c", x_train=changed_pixels())
    before = snapshot(tmp_path / "table")
    with pytest.raises(InputError, match="row 'cross_entropy' has finished with other training im"):
        run_sweep(table(other), tmp_path / "table", found.append)
    assert snapshot(tmp_path / "table") == before
    run_sweep(table(moved), tmp_path / "table", found.append)
    assert [s["name"] for s in found[-1]] == ["cross_entropy", "plm_softmax", "crt"]
    # All have finished: images are compared all the same, and loaded once.
    loaded = []
    monkeypatch.setattr(sweep, "load", lambda *a: loaded.append(1) or prepare.load(*a))
    before = snapshot(tmp_path / "table")
    run_sweep(table(moved), tmp_path / "table", found.append)
    assert (len(found[-1]), loaded) == (3, [1])
    with pytest.raises(InputError, match="has finished with other training images"):
        run_sweep(table(other), tmp_path / "table", found.append)
    assert snapshot(tmp_path / "table") == before


def test_a_row_that_comes_later_starts_from_the_first_stage_that_is_there(tmp_path, capsys):
    """Wherever its data were then; and no recipe differs for that."""
    rows, folder = table(arrays_in(tmp_path / "a")), tmp_path / "table"
    run_sweep({"cross_entropy": rows["cross_entropy"]}, folder, lambda _: None)
    write_table([summary_of(folder / "cross_entropy")], folder)
    later = {"crt": table(arrays_in(tmp_path / "b"))["crt"]}
    run_sweep(later, folder, lambda found: write_table(found, folder))
    assert "crt starts from cross_entropy, which has finished" in capsys.readouterr().err
    assert not (folder / "crt_stage1").exists()
    assert "data.source" not in (folder / "table.md").read_text()
    (folder / "crt" / "summary.json").unlink()  # as if it had been stopped
    steps = len(rows_of(folder / "crt"))
    run_sweep({"crt": table(arrays_in(tmp_path / "c"))["crt"]}, folder, lambda _: None)
    assert len(rows_of(folder / "crt")) == steps  # it went on


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_stopped_first_stage_goes_on_where_its_data_are_now(tmp_path, monkeypatch):
    """One that a row needs, of which the folder is not named after a row."""
    folder, old = tmp_path / "table", arrays_in(tmp_path / "a")
    with dying(0), pytest.raises(Killed):
        run_sweep({"crt": table(old)["crt"]}, folder, lambda _: None)
    assert (folder / "crt_stage1" / "config.json").exists()
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = f"arrays:{tmp_path / 'b' / 'set.npz'}"
    found = []
    run_sweep({"crt": table(moved)["crt"]}, folder, found.append)
    assert [s["name"] for s in found[-1]] == ["crt"]


def test_a_finished_comparison_is_told_only_of_its_own_images(tmp_path):
    def compare(source):
        return tune(tiny("cb_softmax", data__source=source), [f"{BETA}=0,0.9"], tmp_path / "run")

    found = compare(arrays_in(tmp_path / "a"))
    assert compare(arrays_in(tmp_path / "b")) == found
    with pytest.raises(InputError, match="has finished with other training images"):
        compare(arrays_in(tmp_path / "c", x_train=changed_pixels()))


def test_runs_that_differ_in_seeds_and_places_are_one_in_a_report(tmp_path):
    def run(seed, folder, **other):
        source = arrays_in(tmp_path / folder, **other)
        return train(tiny(seed=seed, data__source=source), tmp_path / f"run_{seed}")

    one, moved = run(0, "a"), run(1, "b")
    assert can_join(one, moved)
    assert not can_join(one, run(2, "c", x_train=changed_pixels()))
    for summary in (one, moved):
        del summary["data"]["train_hash"]
    assert not can_join(one, moved)


def test_list_files_may_lie_elsewhere_too(tmp_path):
    folder_in(tmp_path / "a")
    for split in ("train", "val"):
        lines = [
            f"{path.relative_to(tmp_path / 'a')} {label}"
            for label, name in enumerate(("ant", "bee", "cat"))
            for path in sorted((tmp_path / "a" / split / name).glob("[0-9].png"))
        ]
        (tmp_path / "a" / f"{split}.txt").write_text("\n".join(lines))

    def config(folder):
        lists = {f"data__{k}_list": f"{folder}/{v}.txt" for k, v in LISTS.items()}
        return of_kind("streamed", f"folder:{folder}").copy_and_resolve_references(), lists

    def made(folder):
        found, lists = config(folder)
        for name, value in lists.items():
            found.data[name.removeprefix("data__")] = value
        found.data.test_split = "test"
        return found

    stopped(made(tmp_path / "a"), tmp_path / "run")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    lines = (tmp_path / "b/train.txt").read_text().splitlines()
    (tmp_path / "b/train.txt").write_text("\n".join(lines[::-1]))
    with pytest.raises(InputError, match="other images"):
        train(made(tmp_path / "b"), tmp_path / "run")
    (tmp_path / "b/train.txt").write_text("\n".join(lines))
    assert train(made(tmp_path / "b"), tmp_path / "run")["test"]


LISTS = {"train": "train", "test": "val"}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("arrays:d/lt.npz", "there is no file {0}/d/lt.npz"),
        ("features:d", "there is no folder {0}/d;"),
        ("folder:d", "there is no folder {0}/d"),
    ],
)
def test_what_is_missing_is_named_by_where_it_was_looked_for(
    source, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence.format(tmp_path)):
        load_dataset({"source": source})
    with pytest.raises(InputError, match=sentence.format(tmp_path / "x")):
        load_dataset({"source": source, "data_dir": "x"})
    folder_in(tmp_path / "e")
    with pytest.raises(InputError, match=f"list file {tmp_path}/l.txt cannot be read"):
        load_dataset({"source": "folder:e", "train_list": "l.txt", "test_list": "l.txt"})


def started(name, folder, *arguments):
    """A script in another folder than the project's."""
    return subprocess.Popen(
        [sys.executable, ROOT / f"launch/{name}.py", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
    )


def test_scripts_are_told_where_data_are(tmp_path, monkeypatch):
    """A source that was relative to another folder; `tmp_path` has none of that name."""
    monkeypatch.chdir(tmp_path)
    features_in(tmp_path / "home")
    fields = KINDS["features"][2] | {"train__batch_size": 4, "data__max_count": 0}
    config = tiny(data__source="features:home", data__imbalance=0.0, **fields)
    train(config, tmp_path / "run")
    (tmp_path / "home").rename(tmp_path / "moved")
    run, to = f"--from_workdir={tmp_path / 'run'}", f"--workdir={tmp_path / 'new'}"
    source = f"--source=features:{tmp_path / 'moved'}"
    dlsa = f"--config={ROOT}/configs/dlsa_digits.py"
    calls = {  # exit status and a part of the sentence
        ("retrain_classifier", run, to, source, "--set=retrain.epochs=1"): (0, ""),
        ("retrain_classifier", run, f"{to}_2", "--source=digits"): (
            2,
            "data.source = 'features:home', and this config has 'digits'",
        ),
        ("extract_features", run, f"--out={tmp_path / 'out'}", source): (0, ""),
        ("extract_features", run, f"--out={tmp_path / 'out_2'}", f"--data_dir={tmp_path / 'x'}"): (
            2,
            f"there is no folder {tmp_path}/x/home;",
        ),
        ("retrain_classifier", run, f"{to}_2", "--data_dir=x"): (
            2,
            f"there is no folder {tmp_path}/x/home;",
        ),
        ("dlsa", dlsa, run, f"{to}_2"): (2, f"there is no folder {tmp_path}/home;"),
        ("dlsa", dlsa, run, f"{to}_2", "--source=features:y"): (
            2,
            f"there is no folder {tmp_path}/y;",
        ),
        ("dlsa", dlsa, to, "--source=arrays:a.npz"): (
            2,
            "--source is given, which is for --from_workdir; expected"
            " --config.data.source=arrays:a.npz",
        ),
    }
    running = {call: started(call[0], tmp_path, *call[1:]) for call in calls}
    for call, (status, sentence) in calls.items():
        errors = running[call].communicate(timeout=240)[1]
        assert running[call].returncode == status, (call, errors)
        assert sentence in errors
    assert config_of(tmp_path / "new").retrain.epochs == 1
    assert (tmp_path / "out/seed_0").is_dir()
    assert not (tmp_path / "new_2").exists()
