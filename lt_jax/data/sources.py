"""Where images come from: scikit-learn's digits, NumPy files, TensorFlow Datasets, composed sets.

Each loader ends in a `Source`: all images of both splits, checked. Which of them are kept, and
which become the validation split, is decided later and apart (`parts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.data import checks
from lt_jax.data.array_source import read_arrays, read_digits
from lt_jax.data.canvas import COMPOSED, Composition, compose
from lt_jax.data.checks import Labels
from lt_jax.data.feature_files import read_feature_folder
from lt_jax.data.made import MadeFeatures, made_features
from lt_jax.data.reading import NO_LISTS, Lists, Reading
from lt_jax.data.workers import Workers
from lt_jax.errors import InputError

_OF_FILES = ("tfds", "folder")
_FORMS = (*_OF_FILES, "arrays", "features", "made_features")


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
      notes: sentences on what is there and not taken.
      paths: of the files of each split, bytes ``[N]``, relative to the folder; of folders only.
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
    notes: tuple[str, ...] = ()
    paths: Mapping[str, npt.NDArray[Any]] = MappingProxyType({})


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
    form, _ = _form_of(source)
    splits = {"train_split": train_split, "test_split": test_split}
    splits["validation_split"] = validation_split
    if form in _OF_FILES:
        pool = Workers(workers) if workers else None
        reading = Reading(image_size, resize, stream, on_corrupt == "skip", pool)
        asked: dict[str, Any] = {
            **splits,
            "lists": lists,
            "num_classes": num_classes,
            "reading": reading,
        }
        return _of_files(source, data_dir, download, asked)
    asked = {"image_size": image_size, "resize": resize, "stream": stream, "workers": workers}
    asked |= {f"{name}_list": file for name, file in lists._asdict().items()}
    _check_only_files(form, {**splits, **asked, "on_corrupt": on_corrupt})
    if form in COMPOSED:
        digits = load_source(COMPOSED[form], data_dir=data_dir, download=download)
        return _composed(source, digits, composition or Composition(), num_classes)
    return _from_memory(source, data_dir, num_classes, made or {})


def _form_of(source: str) -> tuple[str, str]:
    """What stands before the first colon of a source, and what after it."""
    form, _, rest = str(source).partition(":")
    if source == "digits" or source in COMPOSED or (form in _FORMS and rest):
        return form, rest
    raise InputError(
        f"data source is {source!r}; expected 'digits', 'tfds:<name>', 'folder:<path>',"
        " 'arrays:<file.npz>', 'features:<folder>', 'made_features:<modes>', or one of the"
        f" composed sets {' and '.join(map(repr, COMPOSED))}"
    )


def _from_memory(source: str, data_dir: str, num_classes: int, made: Mapping[str, Any]) -> Source:
    """A `Source` of arrays that are read or made as a whole."""
    form, rest = _form_of(source)
    if form == "digits":
        return _checked(source, "images", "labels", *read_digits(), num_classes=num_classes)
    if form == "arrays":
        return _checked(source, "x", "y", *read_arrays(rest, data_dir), num_classes=num_classes)
    of_folder = form == "features"
    splits = read_feature_folder(rest, data_dir) if of_folder else _made(rest, made)
    return _with_validation(source, "features", "labels", *splits, num_classes=num_classes)


def _of_files(source: str, data_dir: str, download: bool, asked: Mapping[str, Any]) -> Source:
    """A `Source` of image files."""
    form, name = _form_of(source)
    more: dict[str, Any] = {}
    # Imported late, like TFDS itself: most programs never need them.
    if form == "folder":
        from lt_jax.data import folder_source

        read = folder_source.read(name, data_dir=data_dir, **asked)
        train, test, names, validation, notes, paths = read
        more = {"notes": notes, "paths": paths}
    else:
        from lt_jax.data import tfds_source

        train, test, names, validation = tfds_source.read(
            name, data_dir=data_dir, download=download, **asked
        )
    found = _with_validation(
        source, "images", "labels", train, validation, test, names, num_classes=asked["num_classes"]
    )
    return found._replace(**more)


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


def _made(modes: str, fields: Mapping[str, Any]) -> MadeFeatures:
    if not modes.isdigit():
        raise InputError(f"made_features:{modes} has no number of modes; expected made_features:4")
    return made_features(modes=int(modes), **fields)


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
