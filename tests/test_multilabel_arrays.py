"""Multi-label sets and feature vectors of npz files: dtypes, names, standardisation, refusals."""

import json

import numpy as np
import pytest
from made_up import NAMES, multi_hot, several_labels
from sklearn.preprocessing import StandardScaler

from lt_jax import data
from lt_jax.errors import InputError

# npz files


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_labels_of_zeros_and_ones_of_any_dtype_become_uint8(hot_npz, dtype):
    source = data.load_source(hot_npz(y_train=multi_hot().astype(dtype)))
    assert source.train_labels.dtype == source.test_labels.dtype == np.uint8
    np.testing.assert_array_equal(source.train_labels, multi_hot())
    assert (source.num_classes, source.class_names) == (4, tuple(NAMES))


@pytest.mark.parametrize("key", ["class_names", "label_names"])
def test_either_name_of_the_names_is_taken(hot_npz, key):
    other = "class_names" if key == "label_names" else "label_names"
    assert data.load_source(hot_npz(**{key: NAMES, other: None})).class_names == tuple(NAMES)
    assert data.load_source(hot_npz(label_names=None)).class_names == ("0", "1", "2", "3")


def test_multi_label_images_stay_uint8(hot_npz):
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8)).astype(np.uint8)
    got = data.load_dataset({"source": hot_npz(x_train=images[:200], x_test=images[200:])})
    assert got.multi_label
    assert got.train_images.dtype == np.uint8
    assert got.train_images.shape == (200, 8, 8, 1)
    np.testing.assert_allclose(got.std, (got.train_images / 255).std((0, 1, 2)))


def labels_with(value, dtype=np.float64):
    labels = multi_hot().astype(dtype)
    labels[7, 2] = value
    return labels


def features_with(value, dtype=np.float32):
    features = np.ones((200, 3), dtype)
    features[5, 1] = value
    return features


BAD_ARRAYS = [
    ({"y_train": labels_with(2, np.int64)}, r"y_train of .* holds 2 in row 7 for class 2; expect"),
    ({"y_train": labels_with(-1, np.int8)}, r"y_train of .* holds -1 in row 7 for class 2; expec"),
    ({"y_train": labels_with(0.5)}, r"y_train of .* holds 0.5 in row 7 for class 2; expected 0 or"),
    ({"y_train": labels_with(np.nan)}, r"y_train of .* holds nan in row 7 for class 2; expected 0"),
    ({"y_test": multi_hot(100)[:, :3]}, r"set.npz has labels of 4 and 3 classes; expected as many"),
    ({"y_test": multi_hot(99)}, r"y_test of .* has 99 labels for 100 images"),
    ({"y_test": np.zeros(100, int)}, r"has labels \(200, 4\) and \(100,\); expected one label per"),
    ({"y_train": multi_hot()[:, :1]}, r"has shape \(200, 1\); expected one label per image, \[N"),
    ({"y_train": multi_hot().astype(str)}, r"y_train of .* is <U3; expected integer labels"),
    ({"label_names": NAMES[:3]}, r"names 3 classes, but num_classes is 4"),
    ({"label_names": np.arange(4)}, r"label_names of .* is not a vector of strings"),
    ({"y_train": 0 * multi_hot()}, r"no training example of .* has a label; expected some"),
    ({"x_train": features_with(np.nan)}, r"x_train of .* holds nan in row 5, column 1; expected"),
    ({"x_train": features_with(-np.inf)}, r"x_train of .* holds -inf in row 5, column 1; expect"),
    ({"x_train": features_with(1e39, np.float64)}, r"holds 1e\+39 in row 5, column 1; expected fi"),
    ({"x_train": np.ones((200, 0))}, r"x_train of .* \(200, 0\); expected at least one feature"),
    ({"x_train": np.ones((200, 3), int)}, r"x_train of .* is int64; expected uint8 pixels .* or f"),
    ({"x_test": np.ones((100, 2))}, r"train images are \(3,\), but test images are \(2,\)"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_ARRAYS)
def test_a_bad_npz_is_refused_in_a_sentence(hot_npz, changes, sentence):
    with pytest.raises(InputError, match=sentence) as told:
        data.load_dataset({"source": hot_npz(**changes)})
    assert "\n" not in str(told.value)


def test_a_number_of_classes_that_the_labels_have_not_is_refused(hot_npz):
    assert data.load_source(hot_npz(), num_classes=4).num_classes == 4
    with pytest.raises(InputError, match=r"num_classes is 5, but .* has labels of 4 classes"):
        data.load_source(hot_npz(), num_classes=5)


# Features


@pytest.mark.parametrize("multi_label", [True, False])
def test_features_are_standardised_by_what_is_trained_on(hot_npz, multi_label):
    arrays = several_labels()
    labels = {} if multi_label else {"y_train": np.arange(200) % 4, "y_test": np.arange(100) % 4}
    arrays["x_train"][:, 1] = 7.0
    config = {"source": hot_npz(x_train=arrays["x_train"], **labels), "validation_size": 50}
    got = data.load_dataset({**config, "imbalance": 3.0})
    assert got.multi_label == multi_label
    train, validation = (
        got.std * part + got.mean for part in (got.train_images, got.validation_images)
    )
    scaler = StandardScaler().fit(train)
    np.testing.assert_allclose(got.mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(got.std, scaler.scale_, rtol=1e-5)
    assert got.std[1] == 1.0
    np.testing.assert_allclose(got.test_images, scaler.transform(arrays["x_test"]), atol=1e-4)
    np.testing.assert_allclose(got.train_images.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(got.train_images.std(axis=0), [1, 0, 1], atol=1e-6)
    rows = {tuple(row) for row in arrays["x_train"].round(3).tolist()}
    assert {tuple(row) for row in validation.astype(np.float32).round(3).tolist()} <= rows
    assert got.train_images.dtype == got.test_images.dtype == np.float32
    assert got.mean.dtype == got.std.dtype == np.float64
    assert json.loads(json.dumps(got.info()))["pixel_std"][1] == 1.0


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_features_of_other_precisions_become_float32(hot_npz, dtype):
    assert (
        data.load_source(hot_npz(x_train=np.ones((200, 3), dtype))).train_images.dtype == np.float32
    )


def test_the_hash_of_test_features_does_not_depend_on_the_split(hot_npz):
    config = {"source": hot_npz(), "validation_size": 50}
    first, second = (data.load_dataset({**config, "split_seed": s}) for s in (0, 1))
    assert (first.test_images != second.test_images).any()  # other statistics
    assert first.test_hash == second.test_hash
    assert first.index_hash != second.index_hash
