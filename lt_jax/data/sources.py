"""Where images come from: scikit-learn's digits, NumPy files, TensorFlow Datasets, composed sets.

Each loader ends in a `Source`: all images of both splits, checked. Which of them are kept, and
which become the validation split, is decided later and apart (`dataset.py`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lt_jax.data import checks
from lt_jax.data.canvas import COMPOSED, Composition, compose
from lt_jax.data.checks import Labels
from lt_jax.data.feature_files import read_feature_folder
from lt_jax.data.made import made_features
from lt_jax.data.reading import NO_LISTS, Lists, Reading
from lt_jax.data.workers import Workers
from lt_jax.errors import InputError
from lt_jax.longtail import long_tailed_indices
from lt_jax.npz import read_npz

DIGITS_TEST_PER_CLASS = 50
_FORMS = ("tfds", "folder", "arrays", "features", "made_features")
ARRAY_KEYS = ("x_train", "y_train", "x_test", "y_test")
NAME_KEYS = ("class_names", "label_names")


class Source(NamedTuple):
    """All images and labels of a set, before anything is cut from it.

    Attributes:
      name: the string it was asked for by, such as ``"tfds:cifar10"``.
      train_images: uint8 ``[N, H, W, channels]``, an array or `StreamedImages`; or features,
        float32 ``[N, D]``.
      train_labels: int32 ``[N]``, or multi-hot uint8 ``[N, C]``.
      test_images: as those of train.
      test_labels: as those of train.
      num_classes: C; every label is below it.
      class_names: one for each class.
      validation_images: of a set that has its own validation split, else None.
      validation_labels: theirs.
    """

    name: str
    train_images: Any
    train_labels: Labels
    test_images: Any
    test_labels: Labels
    num_classes: int
    class_names: tuple[str, ...]
    validation_images: Any = None
    validation_labels: Labels | None = None


def load_source(
    source: str,
    *,
    data_dir: str = "",
    num_classes: int = 0,
    train_split: str = "train",
    test_split: str = "test",
    validation_split: str = "",
    lists: Lists = NO_LISTS,
    download: bool = False,
    image_size: int = 0,
    resize: str = "stretch",
    stream: bool = False,
    workers: int = 0,
    on_corrupt: str = "refuse",
    composition: Composition | None = None,
    made: Mapping[str, Any] | None = None,
) -> Source:
    """Reads a whole image set into memory, or finds out how to stream it.

    ===================== ======================================================================
    ``digits``            scikit-learn's 1,797 grey 8x8 digits; 50 of each class are the test set
    ``tfds:<name>``       an image set of TensorFlow Datasets with one label or several an image,
                          prepared as array_record (read without TensorFlow) or tfrecord (with
                          it); ``<name>/<config>`` and ``<name>:<version>`` work too
    ``folder:<path>``     images in ``<path>/<split>/<class>/``, or those on list files, see
                          `lt_jax.data.folder_source` and `lt_jax.data.lists`
    ``arrays:<file>``     an .npz file with x_train, y_train, x_test, y_test, maybe class_names (or
                          label_names): images or feature vectors, one label or several each
    ``multi_digits``      several of the digits on a canvas, see `lt_jax.data.canvas.compose`
    ``multi_mnist``       the same of ``tfds:mnist``
    ``features:<dir>``    train, test and maybe validation, each an .npz or .h5 file with features
                          ``[N, D]`` and labels ``[N]``, see `lt_jax.data.feature_files`
    ``made_features:<m>`` features whose frequent classes have m modes each, see `lt_jax.data.made`
    ===================== ======================================================================

    Args:
      source: one of these forms.
      data_dir: where prepared TFDS directories lie, by default where TFDS looks itself; for
        ``arrays``, ``folder`` and list files the folder that a relative name is relative to.
      num_classes: C; 0 takes it from the data.
      train_split: TFDS split to train on, such as ``"train+validation"``; or sub-folder.
      test_split: TFDS split to test on, such as ``"test[:50%]"``; or sub-folder.
      validation_split: the same to select on; empty for none.
      lists: list files that say which images are in each split of a TFDS set or a folder.
      download: whether TFDS may download and prepare a set that is not there.
      image_size: of TFDS sets and folders, like all below: side in pixels that every image gets; 0
        for as they are.
      resize: how: ``"stretch"`` or ``"crop"``, see `lt_jax.data.decoding.Decoding`.
      stream: whether images are read when they are needed.
      workers: processes that decode them; 0 for threads.
      on_corrupt: what an image that cannot be decoded is: ``"refuse"``, an error; or ``"skip"``,
        replaced, see `StreamedImages.substituting`.
      composition: how composed sets are made; with its defaults if None.
      made: how made features are, for `lt_jax.data.made.made_features`; with its defaults if None.

    Returns:
      The images and labels.

    Raises:
      InputError: if there is no such set or file, or it is not what is described here.

    Example:
      >>> load_source("digits").train_images.shape
      (1297, 8, 8, 1)
    """
    form, _, rest = str(source).partition(":")
    known = source == "digits" or source in COMPOSED or (form in _FORMS and rest)
    if not known:
        raise InputError(
            f"data source is {source!r}; expected 'digits', 'tfds:<name>', 'folder:<path>',"
            " 'arrays:<file.npz>', 'features:<folder>', 'made_features:<modes>', or one of the"
            " composed sets"
            f" {' and '.join(map(repr, COMPOSED))}"
        )
    names = {"train_split": train_split, "test_split": test_split}
    names["validation_split"] = validation_split
    if form in ("tfds", "folder"):
        pool = Workers(workers) if workers else None
        reading = Reading(image_size, resize, stream, on_corrupt == "skip", pool)
        asked: dict[str, Any] = {
            **names,
            "lists": lists,
            "num_classes": num_classes,
            "reading": reading,
        }
        loaded = _read_files(form, rest, data_dir, download, asked)
        return _with_validation(source, "images", "labels", *loaded, num_classes=num_classes)
    asked = {"image_size": image_size, "resize": resize, "stream": stream, "workers": workers}
    asked |= {f"{name}_list": file for name, file in lists._asdict().items()}
    _check_only_files(form, {**names, **asked, "on_corrupt": on_corrupt})
    if form == "digits":
        return _checked(source, "images", "labels", *_read_digits(), num_classes=num_classes)
    if form == "features":
        files = read_feature_folder(rest, data_dir)
        return _with_validation(source, "features", "labels", *files, num_classes=num_classes)
    if form == "made_features":
        splits = made_features(modes=_modes(rest), **(made or {}))
        return _with_validation(source, "features", "labels", *splits, num_classes=num_classes)
    if form == "arrays":
        return _checked(source, "x", "y", *_read_arrays(rest, data_dir), num_classes=num_classes)
    digits = load_source(COMPOSED[source], data_dir=data_dir, download=download)
    return _composed(source, digits, composition or Composition(), num_classes)


def _read_files(
    form: str, name: str, data_dir: str, download: bool, asked: Mapping[str, Any]
) -> tuple[Any, Any, Any, Sequence[str]]:
    """Train, validation, test and class names of image files."""
    # Imported late, like TFDS itself: most programs never need them.
    if form == "folder":
        from lt_jax.data import folder_source

        loaded = folder_source.read(name, data_dir=data_dir, **asked)
    else:
        from lt_jax.data import tfds_source

        loaded = tfds_source.read(name, data_dir=data_dir, download=download, **asked)
    train, test, names, validation = loaded
    return train, validation, test, names


def _check_only_files(form: str, asked: Mapping[str, Any]) -> None:
    """Refuses what is for files of images only."""
    own = {"train_split": "train", "test_split": "test", "resize": "stretch"}
    own["on_corrupt"] = "refuse"
    for name, value in asked.items():
        expected = own.get(name, type(value)())
        if value == expected:
            continue
        if name in ("train_split", "test_split"):
            raise InputError(f"{name} is {value!r}; {form!r} has only the split {expected!r}")
        raise InputError(f"{name} is {value!r}; expected {expected!r} for {form!r}")


def _composed(name: str, digits: Source, composition: Composition, num_classes: int) -> Source:
    train, validation, test = compose(
        (digits.train_images, digits.train_labels),
        (digits.test_images, digits.test_labels),
        composition,
    )
    return _with_validation(
        name, "images", "labels", train, validation, test, num_classes=num_classes
    )


def _with_validation(
    name: str,
    x: str,
    y: str,
    train: tuple[Any, np.ndarray],
    validation: tuple[Any, np.ndarray] | None,
    test: tuple[Any, np.ndarray],
    class_names: Sequence[str] = (),
    *,
    num_classes: int,
) -> Source:
    """A `Source` of a set that may have its own validation split."""
    source = _checked(name, x, y, train, test, class_names, num_classes=num_classes)
    if validation is None:
        return source
    if not len(validation[1]):  # none was asked for
        return source._replace(validation_images=validation[0], validation_labels=validation[1])
    inputs = checks.checked_inputs(f"{x}_validation of {name}", validation[0])
    labels = checks.checked_labels(f"{y}_validation of {name}", validation[1], len(inputs))
    checks.check_same_shape(name, source.train_images, inputs, "validation")
    checks.checked_classes(name, (labels,), source.num_classes, ())
    return source._replace(validation_images=inputs, validation_labels=labels)


def _modes(text: str) -> int:
    if not text.isdigit():
        raise InputError(f"made_features:{text} has no number of modes; expected made_features:4")
    return int(text)


def _checked(
    name: str,
    x: str,
    y: str,
    train: tuple[Any, np.ndarray],
    test: tuple[Any, np.ndarray],
    class_names: Sequence[str],
    *,
    num_classes: int,
) -> Source:
    """A `Source` of (images, labels) pairs that have passed every check."""
    train_images = checks.checked_inputs(f"{x}_train of {name}", train[0])
    train_labels = checks.checked_labels(f"{y}_train of {name}", train[1], len(train_images))
    test_images = checks.checked_inputs(f"{x}_test of {name}", test[0])
    test_labels = checks.checked_labels(f"{y}_test of {name}", test[1], len(test_images))
    checks.check_same_shape(name, train_images, test_images)
    count, names = checks.checked_classes(
        name, (train_labels, test_labels), num_classes, class_names
    )
    return Source(name, train_images, train_labels, test_images, test_labels, count, names)


def _read_digits():
    """The digits, scaled from 0..16 to 0..255: (train, test, no names).

    The test set is always the same, so that figures of different ``split_seed`` compare.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the digits need scikit-learn: pip install scikit-learn") from error
    return _parsed_digits(load_digits)


@functools.cache  # scikit-learn parses them from text each time
def _parsed_digits(load_digits: Callable[..., Any]):
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    test = long_tailed_indices(labels, [DIGITS_TEST_PER_CLASS] * 10, seed=0)
    train = np.setdiff1d(np.arange(len(labels)), test)
    arrays = images[train], labels[train], images[test], labels[test]
    for array in arrays:
        array.setflags(write=False)  # all callers have the same ones
    return arrays[:2], arrays[2:], ()


def _read_arrays(file: str, data_dir: str):
    """The arrays of an .npz file: (train, test, class names)."""
    path = Path(os.path.expanduser(data_dir or ""), os.path.expanduser(file))
    found = read_npz(path, (*ARRAY_KEYS, *NAME_KEYS), expected=_listed())
    missing = [key for key in ARRAY_KEYS if key not in found]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; expected {_listed()}")
    x_train, y_train, x_test, y_test = (found[key] for key in ARRAY_KEYS)
    key = next((key for key in NAME_KEYS if key in found), "")
    names = found[key] if key else np.zeros(0, str)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(f"{key} of {path} is not a vector of strings")
    return (x_train, y_train), (x_test, y_test), names.astype(str).tolist()


def _listed() -> str:
    return f"{', '.join(ARRAY_KEYS[:-1])} and {ARRAY_KEYS[-1]}"
