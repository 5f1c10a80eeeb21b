"""Sets that are small enough to be arrays: scikit-learn's digits, and NumPy files of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lt_jax.data.feature_files import Pair
from lt_jax.errors import InputError
from lt_jax.files import located
from lt_jax.longtail import long_tailed_indices
from lt_jax.npz import read_npz

DIGITS_TEST_PER_CLASS = 50
ARRAY_KEYS = ("x_train", "y_train", "x_test", "y_test")
NAME_KEYS = ("class_names", "label_names")

Splits = tuple[Pair, Pair, Sequence[str]]  # train and test with their labels, names of classes


def read_digits() -> Splits:
    """The digits, scaled from 0..16 to 0..255.

    The test set is always the same, so that figures of different ``split_seed`` compare.

    Returns:
      Train and test, as (images uint8 ``[N, 8, 8, 1]``, labels int ``[N]``), and no names.

    Raises:
      InputError: without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the digits need scikit-learn: pip install scikit-learn") from error
    return _parsed_digits(load_digits)


@functools.cache  # scikit-learn parses them from text each time
def _parsed_digits(load_digits: Callable[..., Any]) -> Splits:
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    test = long_tailed_indices(labels, [DIGITS_TEST_PER_CLASS] * 10, seed=0)
    train = np.setdiff1d(np.arange(len(labels)), test)
    arrays = images[train], labels[train], images[test], labels[test]
    for array in arrays:
        array.setflags(write=False)  # all callers have the same ones
    return arrays[:2], arrays[2:], ()


def read_arrays(file: str, data_dir: str) -> Splits:
    """The arrays of an .npz file, not yet checked.

    Args:
      file: its name.
      data_dir: the folder that a relative name is relative to.

    Returns:
      Train and test, as (inputs, labels), and the names of the classes, if it has any.

    Raises:
      InputError: if the file cannot be read or lacks an array.
    """
    path = located(file, data_dir)
    found = read_npz(path, (*ARRAY_KEYS, *NAME_KEYS), expected=_listed())
    missing = [key for key in ARRAY_KEYS if key not in found]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; expected {_listed()}")
    x_train, y_train, x_test, y_test = (found[key] for key in ARRAY_KEYS)
    key = next((key for key in NAME_KEYS if key in found), "")
    names = found[key] if key else np.zeros(0, str)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(f"{key} of {path} is not a vector of strings")
    try:
        texts = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
    except UnicodeDecodeError as error:
        raise InputError(f"{key} of {path} are bytes that are no UTF-8; expected text") from error
    return (x_train, y_train), (x_test, y_test), texts.tolist()


def _listed() -> str:
    return f"{', '.join(ARRAY_KEYS[:-1])} and {ARRAY_KEYS[-1]}"
