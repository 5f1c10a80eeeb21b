"""What is wrong with images, labels and class names, in one sentence; every source goes through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


def checked_images(what: str, images: np.ndarray) -> Images:
    """Images with a channel axis, or a sentence that says what is wrong with them.

    Args:
      what: what to call them in the sentence, such as ``"x_train of cats.npz"``.
      images: uint8 ``[N, H, W, C]``, or ``[N, H, W]`` for grey images.

    Returns:
      The images, uint8 ``[N, H, W, C]``.

    Raises:
      InputError: for another dtype or rank, or an axis of length 0.

    Example:
      >>> checked_images("x_train", np.zeros((2, 8, 8), np.uint8)).shape
      (2, 8, 8, 1)
    """
    if images.dtype != np.uint8:
        raise InputError(f"{what} is {images.dtype}; expected uint8 pixels from 0 to 255")
    if images.ndim not in (3, 4):
        raise InputError(
            f"{what} has shape {images.shape}; expected [N, H, W, C], or [N, H, W] for grey images"
        )
    if images.size == 0:
        raise InputError(f"{what} has shape {images.shape}; expected at least one image and pixel")
    return images[..., None] if images.ndim == 3 else images


def checked_labels(what: str, labels: np.ndarray, num_images: int) -> Labels:
    """Labels as int32, or a sentence that says what is wrong with them.

    Args:
      what: what to call them in the sentence.
      labels: integers ``[N]``, not negative.
      num_images: N.

    Returns:
      The labels, int32 ``[N]``.

    Raises:
      InputError: for floats, another rank or length, and negative labels.
    """
    if labels.dtype.kind not in "iu":
        raise InputError(f"{what} is {labels.dtype}; expected integer labels")
    if labels.ndim != 1:
        raise InputError(f"{what} has shape {labels.shape}; expected one label per image, [N]")
    if labels.size != num_images:
        raise InputError(f"{what} has {labels.size} labels for {num_images} images")
    if labels.min() < 0:
        raise InputError(f"{what} holds the label {labels.min()}; expected 0 or more")
    if labels.max() > np.iinfo(np.int32).max:
        raise InputError(f"{what} holds the label {labels.max()}; expected a class number")
    return labels.astype(np.int32)


def checked_classes(
    what: str, labels: Sequence[Labels], num_classes: int, class_names: Sequence[str]
) -> tuple[int, tuple[str, ...]]:
    """How many classes there are and what they are called.

    Args:
      what: what to call the source in a sentence.
      labels: the label vectors of every split, each int32 ``[N]``.
      num_classes: what the caller says; 0 takes the number of names, else the largest label + 1.
      class_names: one name for each class, or nothing: then the classes are called by number.

    Returns:
      The number of classes C, at least 2, and C names.

    Raises:
      InputError: if the three do not agree, or there is only one class.

    Example:
      >>> checked_classes("cats.npz", [np.array([0, 2])], 0, ())
      (3, ('0', '1', '2'))
    """
    if num_classes != int(num_classes) or num_classes < 0:
        raise InputError(
            f"num_classes is {num_classes!r}; expected a whole number, 0 = from the data"
        )
    largest = int(max(split.max() for split in labels))
    count = int(num_classes) or len(class_names) or largest + 1
    if count < 2:
        raise InputError(f"{what} has {count} class; expected at least 2")
    if class_names and len(class_names) != count:
        raise InputError(f"{what} names {len(class_names)} classes, but num_classes is {count}")
    if largest >= count:
        raise InputError(f"{what} holds the label {largest}, outside its {count} classes (from 0)")
    return count, tuple(str(name) for name in class_names) or tuple(map(str, range(count)))


def check_same_shape(what: str, train_images: Images, test_images: Images) -> None:
    """Refuses train and test images ``[., H, W, C]`` of different height, width or channels."""
    train, test = train_images.shape[1:], test_images.shape[1:]
    if train != test:
        raise InputError(f"{what}: train images are {train}, but test images are {test}")
