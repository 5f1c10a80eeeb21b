"""Images that have changed under the same name: what tells them, and who refuses them."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import dataclasses
import json

import numpy as np
import pytest
from class_folders import folder, load, write  # noqa: F401 (a fixture)
from tiny_runs import PixelNet, StopAfter, tiny

from lt_jax import extract, loop, models
from lt_jax.data import StreamedImages, load_dataset
from lt_jax.data.identity import data_fingerprint
from lt_jax.data.tfds_part import Records
from lt_jax.errors import InputError
from lt_jax.sweep_tables import check_one_set
from lt_jax.train import train


def told(dataset):
    """Names of what a fingerprint has, with values that JSON can hold."""
    return json.loads(json.dumps(data_fingerprint(dataset.info())))


def different(before, after):
    return {name for name in before if before[name] != after.get(name)}


@pytest.fixture
def arrays(tmp_path):
    """Writes a set of random images, changed by a function, and gives its config."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.integers(0, 256, (90, 8, 8, 1), np.uint8)

    def write(change=None, form=lambda x: x):
        changed = x if change is None else change(x)
        file = tmp_path / "set.npz"
        np.savez(file, x_train=form(changed), y_train=y, x_test=form(x[:30]), y_test=y[:30])
        return {"source": f"arrays:{file}", "imbalance": 0.0, "validation_size": 15}

    return write


def exchanged(x):
    """Two images of different classes."""
    return x[[1, 0, *range(2, len(x))]]


@pytest.mark.parametrize(
    "change", [exchanged, lambda x: x[::-1], lambda x: x[:, :, ::-1]], ids=["two", "all", "mirror"]
)
def test_the_same_pixels_elsewhere_are_other_images(arrays, change):
    before, after = (told(load_dataset(arrays(c))) for c in (None, change))
    changed = different(before, after)
    assert "train_hash" in changed or "validation_hash" in changed
    assert not changed & {"index_hash", "test_hash", "class_counts", "total_test"}
    assert different(before, told(load_dataset(arrays()))) == set()


def test_features_are_told_too(arrays):
    def flat(x):
        return x.reshape(len(x), -1).astype(np.float32)

    before, after = (told(load_dataset(arrays(c, flat))) for c in (None, exchanged))
    assert different(before, after) & {"train_hash", "validation_hash"}
    assert different(before, told(load_dataset(arrays(form=flat)))) == set()


def exchange(folder, one, other):
    for source, target in ((one, "held"), (other, one), ("held", other)):
        (folder / source).rename(folder / target)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_streamed_files_that_have_changed_places_are_told(tmp_path, split, monkeypatch):
    write(tmp_path, ("train", "val", "test"), dict.fromkeys(("train", "val", "test"), (3, 2, 2)))
    monkeypatch.setattr(StreamedImages, "_stream", None)  # nothing is decoded
    options = {"validation_split": "val", "stream": True, "normalization": "imagenet"}
    before = told(load(tmp_path, **options))
    assert before == told(load(tmp_path.name, data_dir=str(tmp_path.parent), **options))
    exchange(tmp_path, f"{split}/ant/0.png", f"{split}/cat/1.png")
    name = {"train": "train_hash", "val": "validation_hash", "test": "test_files_hash"}[split]
    assert different(before, told(load(tmp_path, **options))) == {name, "sample_hash"}


def test_an_own_validation_split_in_memory_is_told(tmp_path):
    write(tmp_path, ("train", "val", "test"))
    before = told(load(tmp_path, validation_split="val"))
    exchange(tmp_path, "val/ant", "val/cat")
    assert different(before, told(load(tmp_path, validation_split="val"))) == {"validation_hash"}


def test_a_file_that_is_gone_is_told_and_refused_when_it_is_read(folder):
    before = load(folder, stream=True, normalization="imagenet").train_images
    facts = before.told_apart_by()
    (folder / "train/ant/0.png").unlink()
    sizes = before.told_apart_by()[1]
    assert (sizes[0], sizes[1:].tolist()) == (-1, facts[1][1:].tolist())
    with pytest.raises(InputError, match=r"ant.0\.png"):
        before[np.array([0])].read_all()


@dataclasses.dataclass
class Instruction:
    filename: str
    skip: int = 0
    take: int = 5


def test_records_are_told_by_their_files_and_numbers():
    def facts(file, rows, **options):
        images = StreamedImages(
            Records(None, "image", [Instruction(file, **options)]), 5, (2, 2, 3)
        )
        return [array.tolist() for array in images[rows].told_apart_by()]

    assert facts("/a/x", [0, 1]) == facts("gs://b/x", [0, 1])
    assert len({str(facts(*args)) for args in (("x", [0, 1]), ("x", [1, 0]), ("y", [0, 1]))}) == 3
    assert facts("x", [0], skip=1) != facts("x", [0])


def test_a_run_does_not_go_on_on_other_images(arrays, tmp_path, monkeypatch):
    """But on those of a checkpoint of an earlier version, which noted less."""
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)
    config = tiny(train__batch_size=16, data__max_count=0)

    def go():
        config.data.update(arrays())
        return train(config, tmp_path / "run")

    with monkeypatch.context() as patch:
        patch.setattr(StopAfter, "step", 5)
        patch.setattr("lt_jax.finish.Stop", StopAfter)
        assert go() is None
    config.data.update(arrays(exchanged))
    with pytest.raises(InputError, match=r"was trained on other images than those now in arrays"):
        train(config, tmp_path / "run")
    earlier = ("train_hash", "validation_hash")

    def check(self, before, original=loop.Loop._check_same_data):
        assert before["train_hash"]
        original(self, {k: v for k, v in before.items() if k not in earlier})

    monkeypatch.setattr(loop.Loop, "_check_same_data", check)
    assert go()["test"]


def test_features_of_an_earlier_version_are_gone_on_with(arrays, tmp_path):
    facts, other = ({"which": "last", **told(load_dataset(arrays(c)))} for c in (None, exchanged))
    earlier = {k: v for k, v in facts.items() if k not in ("train_hash", "validation_hash")}
    for name, there in (("earlier", earlier), ("now", facts)):
        extract._claim(tmp_path / name, there)
        extract._claim(tmp_path / name, facts)
    with pytest.raises(InputError, match=r"has features with (train|validation)_hash = '\w+', and"):
        extract._claim(tmp_path / "now", other)


def test_a_table_has_rows_of_the_same_pixels(arrays):
    before, after = (load_dataset(arrays(c)).info() for c in (None, exchanged))
    rows = {"a": {"data": before}}
    check_one_set(rows, before)
    with pytest.raises(InputError, match=r"row 'a' has finished with other"):
        check_one_set(rows, after)
