"""Sets of TensorFlow Datasets, prepared on the spot by real builders: no network, no TensorFlow."""

import io
import socket
import time

import numpy as np
import pytest

from lt_jax import data
from lt_jax.errors import InputError

Image = pytest.importorskip("PIL.Image")


def rows_of(split):
    """Made-up images and labels: 20, 12 and 8 of each class to train on, 5 to test on."""
    rng = np.random.default_rng(len(split))
    labels = rng.permutation(np.repeat(np.arange(3), (20, 12, 8) if split == "train" else 5))
    return rng.integers(0, 256, (len(labels), 4, 5, 3)).astype(np.uint8), labels


@pytest.fixture(scope="module")
def tfds():
    """The library; its builders for made-up sets are registered in `prepared`."""
    pytest.importorskip("array_record")
    return pytest.importorskip("tensorflow_datasets")


def png(image):
    """The image as a file: TFDS needs TensorFlow only to encode arrays."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def define(tfds, name, features, keys, example):
    """Registers a data set of 40 train and 15 test examples with TFDS."""

    def info(self):
        described = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=described, supervised_keys=keys)

    def examples(split):
        for i, row in enumerate(zip(*rows_of(split), strict=True)):
            yield i, example(i, *row)

    def split_generators(self, manager):
        del manager
        return {split: examples(split) for split in ("train", "test")}

    members = {
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": lambda self: iter(()),
        "__module__": __name__,
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), members)


@pytest.fixture(scope="module")
def prepared(tfds, tmp_path_factory):
    """A folder with three prepared sets."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    image = tfds.features.Image(shape=(4, 5, 3))
    label = tfds.features.ClassLabel(names=["ant", "bee", "cat"])
    define(
        tfds,
        "TinyBugs",  # only supervised_keys tells what is what
        {"kind": label, "picture": image, "name": tfds.features.Text()},
        ("picture", "kind"),
        lambda i, x, y: {"picture": png(x), "kind": y, "name": f"bug {i}"},
    )
    define(
        tfds,
        "TinyMixed",
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": label},
        None,
        lambda i, x, y: {"image": png(x[: 3 + i % 2]), "label": y},
    )
    define(
        tfds,
        "TinyTexts",
        {"text": tfds.features.Text(), "label": label},
        None,
        lambda i, x, y: {"text": "bug", "label": y},
    )
    for name in ("tiny_bugs", "tiny_mixed", "tiny_texts"):
        tfds.builder(name, data_dir=folder).download_and_prepare(file_format="array_record")
    return folder


def test_tfds_images_and_labels_are_those_that_were_written(prepared):
    source = data.load_source("tfds:tiny_bugs", data_dir=prepared)
    assert source.class_names == ("ant", "bee", "cat")
    for split, images, labels in (
        ("train", source.train_images, source.train_labels),
        ("test", source.test_images, source.test_labels),
    ):
        pairs = {(x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)}
        assert pairs == {(x.tobytes(), int(y)) for x, y in zip(*rows_of(split), strict=True)}
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    half = data.load_source("tfds:tiny_bugs", data_dir=prepared, test_split="test[:5]")
    np.testing.assert_array_equal(half.test_images, source.test_images[:5])


def test_tfds_sets_go_through_the_same_checks_and_splits(prepared):
    config = {"source": "tfds:tiny_bugs", "data_dir": prepared, "validation_size": 6}
    got = data.load_dataset(config)
    assert got.class_counts.tolist() == [18, 10, 6]
    with pytest.raises(InputError, match=r"names 3 classes, but num_classes is 2"):
        data.load_dataset({**config, "num_classes": 2})


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("tiny_mixed", {}, r"images of more than one size, such as \(\d, 5, 3\) and \(\d, 5, 3\)"),
        ("tiny_texts", {}, r"tfds:tiny_texts has no image and label; its features are"),
        ("tiny_bugs", {"test_split": "val"}, r"splits train, test, cannot be read: Unknown split"),
        ("tiny_bugs/big", {}, r"cannot open 'tiny_bugs/big'"),
        ("tiny_bugs:9.9.9", {}, r"cannot open 'tiny_bugs:9.9.9': .* only: 1.0.0"),
        ("no_such_set", {}, r"TensorFlow Datasets knows no set 'no_such_set' and there is none in"),
        ("huggingface:mnist", {}, r"expected tfds:<name>\[/config\]\[:version\]"),
    ],
)
def test_tfds_sets_that_cannot_be_used_are_refused(prepared, source, options, sentence):
    with pytest.raises(InputError, match=sentence) as told:
        data.load_source(f"tfds:{source}", data_dir=prepared, **options)
    assert "\n" not in str(told.value)


def test_a_set_that_is_not_there_is_told_how_to_get_it(tfds, tmp_path):
    with pytest.raises(InputError) as told:
        data.load_source("tfds:mnist", data_dir=str(tmp_path))
    for part in (
        f"tfds:mnist is not in {tmp_path}/mnist/",
        "tfds.builder('mnist', data_dir='DIR').download_and_prepare(file_format='array_record')",
        "--config.data.data_dir=DIR",
    ):
        assert part in str(told.value)


def test_download_prepares_what_is_not_there(prepared, tmp_path):
    source = data.load_source("tfds:tiny_bugs", data_dir=str(tmp_path), download=True)
    assert len(source.train_labels) == 40
    assert list(tmp_path.glob("tiny_bugs/1.0.0/*.array_record*"))


def test_a_download_without_a_network_fails_at_once(tfds, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be downloaded, because .* does not answer; with"):
        data.load_source("tfds:svhn_cropped", data_dir=str(tmp_path), download=True)
    assert time.monotonic() - start < 10


def test_a_download_that_fails_says_why(prepared, tfds, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("the disk is full\nmore lines")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(InputError, match=r"preparing it failed \(OSError: the disk is full[;)]"):
        data.load_source("tfds:tiny_bugs", data_dir=str(tmp_path), download=True)


def test_a_missing_shard_is_told(prepared, tfds, tmp_path):
    data.load_source("tfds:tiny_bugs", data_dir=str(tmp_path), download=True)
    next(tmp_path.glob("tiny_bugs/1.0.0/*test.array_record*")).unlink()
    with pytest.raises(InputError, match=r"tfds:tiny_bugs in .* cannot be read: .*No such file"):
        data.load_source("tfds:tiny_bugs", data_dir=str(tmp_path))


def test_tfrecord_without_tensorflow_is_told_to_become_array_record(
    prepared, tmp_path, monkeypatch
):
    data.load_source("tfds:tiny_bugs", data_dir=str(tmp_path), download=True)
    folder = tmp_path / "tiny_bugs" / "1.0.0"
    text = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(text.replace("array_record", "tfrecord"))
    for file in folder.glob("*.array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"as tfrecord, which needs TensorFlow; .* another folder"):
        data.load_source("tfds:tiny_bugs", data_dir=str(tmp_path))
