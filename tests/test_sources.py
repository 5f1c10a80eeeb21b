"""Where data come from: the digits, npz files, and names and files that cannot be read."""

import builtins
import zipfile

import numpy as np
import pytest
from made_up import MIXED, one_label

from lt_jax import data
from lt_jax.data import checks, sources
from lt_jax.errors import InputError

# digits


def test_digits_have_a_fixed_balanced_test_set():
    digits, again = data.load_source("digits"), data.load_source("digits")
    assert digits.train_images.shape == (1297, 8, 8, 1)
    assert digits.train_images.dtype == np.uint8
    assert digits.train_labels.dtype == np.int32
    assert digits.train_images.max() == 255
    assert np.bincount(digits.test_labels).tolist() == [50] * 10
    assert digits.class_names == tuple("0123456789")
    np.testing.assert_array_equal(digits.test_images, again.test_images)
    first = data.load_dataset({"source": "digits", "split_seed": 0, "validation_size": 100})
    second = data.load_dataset({"source": "digits", "split_seed": 1, "validation_size": 100})
    np.testing.assert_array_equal(first.test_images, second.test_images)
    assert first.index_hash != second.index_hash


# npz files


def test_npz_is_read_with_names_and_casts_labels(npz):
    names = np.array(["ant", "bee", "cat"])
    labels = one_label()["y_train"].astype(np.uint8)
    source = data.load_source(npz(class_names=names, y_train=labels))
    assert source.class_names == ("ant", "bee", "cat")
    assert (source.num_classes, source.train_labels.dtype) == (3, np.int32)
    np.testing.assert_array_equal(source.train_labels, labels)


def test_names_may_be_bytes_in_utf8(npz):
    names = np.array([name.encode() for name in ("fourmi", "abeille", "félin")])
    assert data.load_source(npz(class_names=names)).class_names == ("fourmi", "abeille", "félin")


def test_grey_images_get_a_channel_axis(npz):
    grey = {k: v[..., 0] for k, v in one_label().items() if k.startswith("x")}
    source = data.load_source(npz(**grey))
    assert source.train_images.shape == (100, 4, 5, 1)
    np.testing.assert_array_equal(source.train_images[..., 0], grey["x_train"])


def test_a_relative_file_is_relative_to_data_dir(npz, tmp_path):
    npz()
    assert data.load_source("arrays:set.npz", data_dir=str(tmp_path)).num_classes == 3


def test_num_classes_may_be_more_than_occur(npz):
    assert data.load_source(npz(), num_classes=5).class_names == tuple("01234")


BAD_ARRAYS = [
    ({"y_test": None, "x_train": None}, r"set.npz lacks x_train, y_test; expected x_train, y_tr"),
    ({"x_train": np.array([None, {}])}, r"set.npz holds pickled objects; expected plain arrays"),
    ({"x_train": np.zeros((100, 60), np.uint8)}, r"x_train of .* has shape \(100, 60\); expected"),
    (
        {"x_train": np.zeros((100, 4, 5, 3), np.float32)},
        r"x_train of .* is float32; expected uint8",
    ),
    (
        {"x_test": np.zeros((0, 4, 5, 3), np.uint8)},
        r"x_test of .* \(0, 4, 5, 3\); expected at least",
    ),
    ({"x_test": np.zeros((15, 4, 4, 3), np.uint8)}, r"are \(4, 5, 3\), but test .* \(4, 4, 3\)"),
    ({"y_train": MIXED.astype(np.float32)}, r"y_train of .* is float32; expected integer labels"),
    ({"y_train": MIXED[:, None]}, r"y_train of .* has shape \(100, 1\); expected one label per"),
    ({"y_train": MIXED[:99]}, r"y_train of .* has 99 labels for 100 images"),
    ({"y_train": MIXED - 1}, r"y_train of .* holds the label -1; expected 0 or more"),
    (
        {"y_train": MIXED.astype(np.uint64) << 40},
        r"y_train of .* label 2199023255552; expected a c",
    ),
    ({"y_train": MIXED * 0, "y_test": np.zeros(15, int)}, r"has 1 class; expected at least 2"),
    ({"class_names": np.array(["a", "b"])}, r"holds the label 2, outside its 2 classes"),
    ({"class_names": np.array(["é".encode("latin-1"), b"b", b"c"])}, r"bytes that are no UTF-8"),
    ({"y_test": np.full(15, 2**31 - 1)}, r"holds the label 2147483647; expected less than 1,000,"),
    ({"class_names": np.array(["a", "b", "a"])}, r"calls class 0 and class 2 'a'; expected a nam"),
    ({"class_names": np.array([1, 2, 3])}, r"class_names of .* is not a vector of strings"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_ARRAYS)
def test_a_bad_npz_is_refused_in_a_sentence(npz, changes, sentence):
    with pytest.raises(InputError, match=sentence) as told:
        data.load_source(npz(**changes))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((3, 8, 8), True),
        ((3, 24, 32), True),
        ((1, 28, 20), True),
        ((1, 28, 12), False),  # a row of spectra
        ((3, 60, 8), False),
        ((4, 16, 16), True),
        ((2, 16, 16), True),
        ((4, 16, 10), False),
        ((5, 5, 5), False),
        ((3, 8, 4), False),
        ((8, 8, 10), False),
    ],
)
def test_channels_first_are_refused(shape, first):
    images = np.zeros((6, *shape), np.uint8)
    if not first:
        assert checks.checked_inputs("x", images) is images
        return
    with pytest.raises(InputError, match=r"x has shape .*, with the channels first; expected"):
        checks.checked_inputs("x", images)


@pytest.mark.parametrize(
    ("num_classes", "names", "sentence"),
    [
        (2, None, r"holds the label 2, outside its 2 classes"),
        (4, np.array(["a", "b", "c"]), r"names 3 classes, but num_classes is 4"),
        (-1, None, r"num_classes is -1; expected a whole number"),
    ],
)
def test_a_wrong_number_of_classes_is_refused(npz, num_classes, names, sentence):
    with pytest.raises(InputError, match=sentence):
        data.load_source(npz(class_names=names), num_classes=num_classes)


def test_files_that_are_not_npz_are_refused(tmp_path, npz):
    def refuse(file, sentence):
        with pytest.raises(InputError, match=sentence):
            data.load_source(f"arrays:{tmp_path / file}")

    refuse("nowhere.npz", r"there is no file .*nowhere.npz; expected an .npz file with x_train")
    refuse(".", r"there is no file")
    np.save(tmp_path / "single.npy", np.zeros(3))
    refuse("single.npy", r"single.npy holds a single array; expected an .npz file")
    for name, content in (("text.npz", b"not an archive"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        refuse(name, rf"{name} is damaged or not an .npz file")
    npz()
    whole = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    refuse("half.npz", r"half.npz is damaged or not an .npz file")
    with zipfile.ZipFile(tmp_path / "set.npz") as archive:
        start = archive.getinfo("x_train.npy").header_offset + 300
    (tmp_path / "bit.npz").write_bytes(whole[:start] + b"\xff" + whole[start + 1 :])
    refuse("bit.npz", r"bit.npz is damaged or not an .npz file \(Bad CRC-32")


# other names


@pytest.mark.parametrize("source", ["", "cifar10", "tfds:", "arrays:", "digits:x", "http://x"])
def test_an_unknown_source_is_told_the_forms(source):
    with pytest.raises(
        InputError,
        match=r"expected 'digits', 'tfds:<name>', 'folder:<path>', 'arrays:<file.npz>', .* and",
    ):
        data.load_source(source)


def test_only_tfds_has_other_splits():
    with pytest.raises(InputError, match=r"train_split is 'all'; 'digits' has only the split 'tra"):
        data.load_source("digits", train_split="all")
    with pytest.raises(InputError, match=r"test_split is 'validation'; 'digits' has only"):
        data.load_source("digits", test_split="validation")


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("tensorflow_datasets", "tfds:mnist", r"pip install 'lt_jax\[tfds\]'"),
        ("sklearn.datasets", "digits", r"the digits need scikit-learn"),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, module, source, sentence):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == module:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=sentence):
        sources.load_source(source)
