"""What is wrong with inputs, labels and class names, in one sentence; every source goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.data.streamed import StreamedImages
from lt_jax.errors import InputError
from lt_jax.longtail.counts import is_whole

Features = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
MOST_CLASSES = 1_000_000  # a larger label is none, and its set would fill the memory
Labels = npt.NDArray[np.int32] | npt.NDArray[np.uint8]


def checked_inputs(what: str, inputs: Any) -> Any:
    """Images with a channel axis or feature vectors, or a sentence on what is wrong with them.

    Args:
      what: what to call them in the sentence, such as ``"x_train of cats.npz"``.
      inputs: images, uint8 ``[N, H, W, C]``, or ``[N, H, W]`` for grey ones; `StreamedImages`; or
        features, floats ``[N, D]``.

    Returns:
      The images, uint8 ``[N, H, W, C]``, or the features, float32 ``[N, D]``.

    Raises:
      InputError: for another dtype or rank, an axis of length 0, channels first, or a feature that
        is not finite.

    Example:
      >>> checked_inputs("x_train", np.zeros((2, 8, 8), np.uint8)).shape
      (2, 8, 8, 1)
    """
    if isinstance(inputs, StreamedImages):
        return inputs
    if inputs.ndim == 2 and inputs.dtype.kind == "f":
        return _checked_features(what, inputs)
    if inputs.ndim == 1 and inputs.dtype.kind == "f":
        raise InputError(
            f"{what} has shape {inputs.shape}; expected [N, D] for feature vectors: [1, D] for one"
        )
    if inputs.dtype != np.uint8:
        shares = inputs.dtype.kind == "f" and inputs.size and 0 <= inputs.min() <= inputs.max() <= 1
        how = ": (255 * x).round().astype(np.uint8) of these" if shares else ""
        raise InputError(
            f"{what} is {inputs.dtype}; expected uint8 pixels from 0 to 255{how}, or floats [N, D]"
            " for feature vectors"
        )
    if inputs.ndim not in (3, 4):
        raise InputError(
            f"{what} has shape {inputs.shape}; expected [N, H, W, C], or [N, H, W] for grey images,"
            " or floats [N, D] for feature vectors"
        )
    if inputs.size == 0:
        raise InputError(f"{what} has shape {inputs.shape}; expected at least one image and pixel")
    if inputs.ndim == 4 and _channels_are_first(*inputs.shape[1:]):
        raise InputError(
            f"{what} has shape {inputs.shape}, with the channels first; expected channels last,"
            " [N, H, W, C]: x.transpose(0, 2, 3, 1)"
        )
    return inputs[..., None] if inputs.ndim == 3 else inputs


def _channels_are_first(first: int, second: int, last: int) -> bool:
    """Whether a shape is hardly [H, W, C]: so few rows, beside so many channels."""
    if second == last:
        return first in (1, 2, 3, 4) and last > 4
    # Images of one or three rows may have some channels, as those of spectra.
    return first in (1, 3) and last > 16 and 4 < second < 3 * last


def _checked_features(what: str, features: np.ndarray) -> Features:
    if features.size == 0:
        raise InputError(f"{what} has shape {features.shape}; expected at least one feature vector")
    with np.errstate(over="ignore"):
        result = features.astype(np.float32)
    bad = ~np.isfinite(result)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise InputError(
            f"{what} holds {features[row, column]} in row {row}, column {column}; expected finite"
            " numbers of float32"
        )
    return result


def checked_labels(what: str, labels: np.ndarray, num_images: int) -> Labels:
    """Labels as integers or multi-hot, or a sentence that says what is wrong with them.

    Args:
      what: what to call them in the sentence.
      labels: integers ``[N]``, not negative; or 0 and 1 of any dtype, ``[N, C]``.
      num_images: N.

    Returns:
      The labels, int32 ``[N]``, or uint8 ``[N, C]``.

    Raises:
      InputError: for another rank or length, fewer than two classes, floats or negative labels
        ``[N]``, and for anything but 0 and 1 ``[N, C]``.

    Example:
      >>> checked_labels("y_train", np.array([[0.0, 1.0]]), 1)
      array([[0, 1]], dtype=uint8)
    """
    multi_label = labels.ndim == 2 and labels.shape[1] > 1
    if labels.dtype.kind not in ("biuf" if multi_label else "iu"):
        raise InputError(f"{what} is {labels.dtype}; expected integer labels")
    if labels.ndim != 1 and not multi_label:
        how = ": y[:, 0]" if labels.ndim == 2 else ""
        raise InputError(
            f"{what} has shape {labels.shape}; expected one label per image, [N]{how}, or 0 and 1"
            " for each of at least 2 classes, [N, C]"
        )
    if len(labels) != num_images:
        raise InputError(f"{what} has {len(labels)} labels for {num_images} images")
    if multi_label:
        return _checked_multi_hot(what, labels)
    if labels.min() < 0:
        raise InputError(f"{what} holds the label {labels.min()}; expected 0 or more")
    if labels.max() > np.iinfo(np.int32).max:
        raise InputError(f"{what} holds the label {labels.max()}; expected a class number")
    return labels.astype(np.int32)


def _checked_multi_hot(what: str, labels: np.ndarray) -> Labels:
    bad = (labels != 0) & (labels != 1)
    if bad.any():
        row, c = np.argwhere(bad)[0].tolist()
        raise InputError(
            f"{what} holds {labels[row, c]} in row {row} for class {c}; expected 0 or 1"
        )
    return labels.astype(np.uint8)


def checked_classes(
    what: str, labels: Sequence[Labels], num_classes: int, class_names: Sequence[str]
) -> tuple[int, tuple[str, ...]]:
    """How many classes there are and what they are called.

    Args:
      what: what to call the source in a sentence.
      labels: of every split, each int32 ``[N]`` or each multi-hot ``[N, C]``.
      num_classes: what the caller says; 0 takes the number of names, else the largest label + 1,
        or the columns of multi-hot labels.
      class_names: one name for each class, or nothing: then the classes are called by number.

    Returns:
      The number of classes C, at least 2, and C names.

    Raises:
      InputError: if the three do not agree, there is only one class, or two have one name.

    Example:
      >>> checked_classes("cats.npz", [np.array([0, 2])], 0, ())
      (3, ('0', '1', '2'))
    """
    if not is_whole(num_classes):
        raise InputError(
            f"num_classes is {num_classes!r}; expected a whole number, 0 = from the data"
        )
    if len({split.ndim for split in labels}) > 1:
        raise InputError(
            f"{what} has labels {' and '.join(str(split.shape) for split in labels)}; expected one"
            " label per image in both splits, [N], or several, [N, C]"
        )
    if labels[0].ndim == 2:
        count = _num_columns(what, labels, int(num_classes))
        largest = count - 1
    else:
        largest = int(max(split.max() for split in labels))
        count = int(num_classes) or len(class_names) or largest + 1
        if count > MOST_CLASSES:
            raise InputError(
                f"{what} holds the label {largest}; expected less than {MOST_CLASSES:,}, counted"
                " from 0"
            )
    if count < 2:
        raise InputError(f"{what} has {count} class; expected at least 2")
    if class_names and len(class_names) != count:
        raise InputError(f"{what} names {len(class_names)} classes, but num_classes is {count}")
    if largest >= count:
        raise InputError(f"{what} holds the label {largest}, outside its {count} classes (from 0)")
    names = tuple(str(name) for name in class_names) or tuple(map(str, range(count)))
    known: dict[str, int] = {}
    for c, name in enumerate(names):
        if known.setdefault(name, c) != c:
            raise InputError(
                f"{what} calls class {known[name]} and class {c} {name!r}; expected a name for each"
            )
    return count, names


def _num_columns(what: str, labels: Sequence[Labels], num_classes: int) -> int:
    """C of multi-hot labels."""
    columns = [split.shape[1] for split in labels]
    if len(set(columns)) > 1:
        raise InputError(
            f"{what} has labels of {' and '.join(map(str, columns))} classes; expected as many in"
            " train as in test"
        )
    if num_classes not in (0, columns[0]):
        raise InputError(
            f"num_classes is {num_classes}, but {what} has labels of {columns[0]} classes"
        )
    return columns[0]


def check_same_shape(what: str, train_images: Any, other_images: Any, other: str = "test") -> None:
    """Refuses splits with images of different size or channels, or features of another D."""
    train, found = train_images.shape[1:], other_images.shape[1:]
    if train != found:
        raise InputError(f"{what}: train images are {train}, but {other} images are {found}")


def check_can_select(what: str, validation_labels: Labels) -> None:
    """Refuses several labels of which validation has none: no mAP, so that any epoch is the best.

    Args:
      what: what to call the set in the sentence.
      validation_labels: int32 ``[N]``, or multi-hot ``[N, C]``; none at all is no validation.

    Raises:
      InputError: naming the set.
    """
    labels = validation_labels
    if labels.ndim == 2 and len(labels) and not labels.any():
        raise InputError(
            f"no validation example of {what} has a label, so that nothing can be selected by mAP;"
            " expected some that have, or no validation: data.validation_size=0 without a"
            " validation split or list"
        )
