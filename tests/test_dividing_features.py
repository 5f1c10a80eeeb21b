"""Features that are divided or trained on: standardised, extracted, read from files, or refused."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

from pathlib import Path

import jax
import numpy as np
import pytest
from divisions import done  # noqa: F401 (a fixture)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import PixelNet, snapshot, tiny

from lt_jax import features
from lt_jax.data import load_dataset
from lt_jax.data.feature_files import read_feature_folder, shard_name
from lt_jax.errors import InputError
from lt_jax.extract import extract_features
from lt_jax.stage1 import Frozen
from lt_jax.steps import Split
from lt_jax.train import train

# Of a network


def frozen_identity(replicas=1):
    """A network whose features are its inputs."""

    class Identity:
        @staticmethod
        def features(params, stats, inputs):
            return inputs * params["one"]

    params = {"one": np.ones((replicas, 1), np.float32)}
    return Frozen(Identity(), None, params, {})


def standardised(train_features, test_features):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    splits = {
        name: Split(jax.numpy.asarray(x), jax.numpy.zeros(len(x), np.int32), 0.0, 1.0)
        for name, x in (("train", train_features), ("test", test_features))
    }
    return features.standardised_splits(frozen_identity(), splits, mesh, {"eval_batch_size": 16})


def test_features_are_standardised_and_constant_ones_say_nothing(capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 5.0, size=(50, 3)).astype(np.float32)
    x[:, 1] = 7.0
    other = x[:5] + 1.0
    found = standardised(x, other)
    train_features = np.asarray(found["train"].images)[0]
    np.testing.assert_allclose(train_features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train_features.std(axis=0), [1, 0, 1], atol=1e-5)
    assert not np.asarray(found["test"].images)[0, :, 1].any()
    assert "of 3 features [1] (by seed) are constant on train" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "sentence"), [(np.nan, "is nan"), (np.inf, "is inf")])
def test_features_that_are_not_finite_are_refused(value, sentence):
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    bad = x.copy()
    bad[3, 1] = value
    with pytest.raises(InputError, match=rf"feature 1 of test example 3 {sentence}; expected fin"):
        standardised(x, bad)
    with pytest.raises(InputError, match=r"all features are constant on train"):
        standardised(np.ones((4, 2), np.float32), x)


def test_extracted_features_are_those_of_the_run_and_a_data_source(done, tmp_path, capsys):
    _, folder, summary = done
    made = extract_features(folder, tmp_path / "out", shard_size=100)
    assert len(list(made[1].glob("train-*"))) == 3
    assert [path.name for path in made] == ["seed_0", "seed_1"]
    missing = made[1] / shard_name("train", 1, 3)
    before = snapshot(tmp_path / "out")
    missing.unlink()
    extract_features(folder, tmp_path / "out", shard_size=100)  # killed, started again
    after = snapshot(tmp_path / "out")
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in before.items()}
    assert "train: 2 of 3 parts were there already" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"features with shard_size = 100, and these would have"):
        extract_features(folder, tmp_path / "out", shard_size=50)

    config = tiny("cross_entropy", model__name="linear")
    config.data.update(source=f"features:{made[0]}", imbalance=0.0, max_count=0)
    dataset = load_dataset(config["data"])
    assert dataset.class_counts.tolist() == summary["data"]["class_counts"]
    assert dataset.train_images.shape[1] == PixelNet.num_features
    assert len(dataset.validation_labels) == summary["data"]["total_validation"]
    assert train(config, tmp_path / "linear")["test"]["last"]["mean"]["top1"] > 0.25


# In files


def write(folder: Path, suffix=".npz", **changes):
    """A folder of made features; a change is an array, or None to leave it out."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("train", 40), ("test", 20)):
        arrays = {
            "features": rng.normal(size=(count, 3)),
            "labels": np.arange(count) % 2,
            **(changes if name == "train" else {}),
        }
        arrays = {key: value for key, value in arrays.items() if value is not None}
        if suffix == ".npz":
            np.savez(folder / f"{name}.npz", **arrays)
            continue
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / f"{name}{suffix}", "w") as file:
            file.update(arrays)
    return folder


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5"])
def test_features_in_files_are_read(suffix, tmp_path):
    folder = write(tmp_path / "own", suffix)
    found = read_feature_folder("own", str(tmp_path))
    assert found.validation is None
    assert found.train[0].shape == (40, 3)
    assert found.test[1].tolist() == [0, 1] * 10
    dataset = load_dataset({"source": f"features:{folder}", "validation_size": 10})
    assert len(dataset.validation_labels) == 10
    assert dataset.class_counts.tolist() == [15, 15]


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": None}, r"lacks labels; expected features \[N, D\] and labels \[N\]"),
        ({"labels": None, "features": None}, r"lacks features and labels; expected"),
        ({"features": np.zeros((40, 2, 2))}, r"features of .* are float64 \[40, 2, 2\]; expected"),
        ({"features": np.full((40, 3), np.nan)}, r"holds nan in row 0, column 0; expected finite"),
        ({"features": np.zeros((40, 4))}, r"train images are \(4,\), but test images are \(3,\)"),
        ({"labels": np.zeros(39, int)}, r"shape \[39\] for 40 features; expected one"),
    ],
)
def test_files_that_cannot_be_used(changes, sentence, suffix, tmp_path):
    folder = write(tmp_path / "own", suffix, **changes)
    with pytest.raises(InputError, match=sentence):
        load_dataset({"source": f"features:{folder}"})


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; expected one with"):
        read_feature_folder("nowhere", str(tmp_path))
    folder = write(tmp_path / "own")
    (folder / "test.npz").rename(folder / shard_name("test", 0, 2))
    with pytest.raises(InputError, match=r"lacks test-00001-of-00002\.npz; expected all 2 parts"):
        read_feature_folder(str(folder))
    (folder / shard_name("test", 0, 2)).unlink()
    with pytest.raises(InputError, match=r"has no test\.npz or test\.h5; expected"):
        read_feature_folder(str(folder))
    test = {"features": np.zeros((4, 3)), "labels": np.arange(4) % 2}
    np.savez(folder / "test-others-00000-of-00001.npz", **test)  # of no split
    np.savez(folder / shard_name("test", 0, 2), **test)
    np.savez(folder / shard_name("test", 1, 2), **{**test, "features": np.zeros((4, 5))})
    with pytest.raises(InputError, match=r"have shape \[4, 5\], and those of test-00000-of-00002"):
        read_feature_folder(str(folder))
    for labels in (np.arange(3) % 2, np.arange(5) % 2):  # joined, they could be as many in all
        np.savez(folder / shard_name("test", 1, 2), **{**test, "labels": labels})
        with pytest.raises(
            InputError, match=r"labels of .*test-00001-of-00002.npz have shape \[[35]"
        ):
            read_feature_folder(str(folder))
    np.savez(folder / shard_name("test", 1, 2), **{**test, "labels": np.uint64(test["labels"])})
    assert read_feature_folder(str(folder)).test[1].tolist() == [0, 1] * 4  # no floats of them
    np.savez(folder / "test.npz", **test)
    with pytest.raises(InputError, match=r"has test.npz and the parts of test; expected one of"):
        read_feature_folder(str(folder))
    (folder / "test.npz").unlink()
    np.savez(folder / shard_name("test", 0, 1), **test)
    with pytest.raises(InputError, match=r"has test in 1 and in 2 parts; expected one of the"):
        read_feature_folder(str(folder))
    for left in folder.glob("test-*"):
        left.unlink()
    (folder / "test.h5").write_bytes(b"not HDF5")
    pytest.importorskip("h5py")
    with pytest.raises(InputError, match=r"test\.h5 is damaged or not an HDF5 file"):
        read_feature_folder(str(folder))


# Made


def test_made_features_are_a_data_source():
    dataset = load_dataset(
        {"source": "made_features:3", "max_count": 100, "imbalance": 10.0, "validation_size": 50}
    )
    assert dataset.class_counts.tolist()[0] == 100
    assert dataset.class_counts.tolist()[-1] == 10
    assert np.bincount(dataset.validation_labels).tolist() == [5] * 10
    with pytest.raises(InputError, match=r"made_features:x has no number of modes"):
        load_dataset({"source": "made_features:x"})
