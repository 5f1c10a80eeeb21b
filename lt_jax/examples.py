"""What an exported model is asked to predict: image files and arrays, read when they are needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from lt_jax.data.checks import checked_inputs
from lt_jax.data.decoding import fitted
from lt_jax.data.folder_source import images_in
from lt_jax.errors import InputError
from lt_jax.npz import read_npz

ARRAYS = ("images", "features", "x", "x_test")  # names in .npz files of several arrays
Array = npt.NDArray[Any]


class Example(NamedTuple):
    """Something to predict.

    Attributes:
      name: path of its file, with ``[i]`` for the i-th of an array.
      read: gives the input of the model, uint8 ``[H, W, C]`` or float32 ``[D]``.
    """

    name: str
    read: Callable[[], Array]


def find_examples(paths: Sequence[str | Path], facts: dict[str, Any]) -> list[Example]:
    """Everything there is to predict, in order; images are not read yet.

    Args:
      paths: of folders, whose images and those in their sub-folders are taken, sorted by path; of
        images; or of .npz files with one array, or one called ``images`` or ``features``.
      facts: of the model, which say what it takes.

    Returns:
      At least one example.

    Raises:
      InputError: for a path that is not there, a folder without images, or arrays that do not fit.
    """
    found: list[Example] = []
    for path in map(Path, paths):
        if path.suffix.lower() == ".npz":
            found += _of_arrays(path, facts)
        elif path.is_dir() or path.is_file():
            found += _of_files(path, facts)
        else:
            raise InputError(f"there is no file or folder {path}; expected images to predict")
    if not found:
        raise InputError("no images were given; expected folders, image files or .npz files")
    return found


def _of_files(path: Path, facts: dict[str, Any]) -> list[Example]:
    shape = tuple(facts["input"]["shape"])
    if len(shape) == 1:
        raise InputError(f"{path} is given, but the model takes feature vectors, in .npz files")
    _check_channels(str(path), shape)
    if not importlib.util.find_spec("PIL"):
        raise InputError("image files need Pillow: pip install 'lt_jax[images]'")
    files = [path] if path.is_file() else [path / name for name in images_in(path)]
    if not files:
        raise InputError(f"{path} has no images; expected files such as *.jpg, *.png")
    resize = facts["input"]["resize"]
    return [Example(str(file), partial(_read_file, file, shape, resize)) for file in files]


def _check_channels(what: str, shape: tuple[int, ...]) -> None:
    if shape[-1] not in (1, 3):
        raise InputError(
            f"{what} is to become {shape}, which is neither grey nor RGB; expected an .npz file of"
            " images of this shape"
        )


def _read_file(path: Path, shape: tuple[int, ...], resize: str) -> Array:
    return fitted(path.read_bytes(), shape, resize)


def _of_arrays(path: Path, facts: dict[str, Any]) -> list[Example]:
    arrays = read_npz(path, expected="an array of images or features")
    name = next((n for n in ARRAYS if n in arrays), None)
    if name is None and len(arrays) == 1:
        (name,) = arrays
    if name is None:
        raise InputError(
            f"{path} has the arrays {', '.join(arrays) or 'none'}; expected one, or one that is"
            f" called {' or '.join(ARRAYS)}"
        )
    inputs = checked_inputs(f"{name} of {path}", arrays[name])
    shape = tuple(facts["input"]["shape"])
    if inputs.ndim != len(shape) + 1 or (len(shape) == 1 and inputs.shape[1:] != shape):
        raise InputError(
            f"{name} of {path} has shape {inputs.shape}; the model takes"
            f" {facts['input']['dtype']} [N, {', '.join(map(str, shape))}]"
        )
    if inputs.shape[1:] != shape:
        _check_channels(f"{name} of {path}", shape)
        _check_channels(f"{name} of {path}", inputs.shape[1:])
    resize = facts["input"]["resize"]
    return [
        Example(f"{path}[{i}]", partial(_read_row, inputs[i], shape, resize))
        for i in range(len(inputs))
    ]


def _read_row(row: Array, shape: tuple[int, ...], resize: str) -> Array:
    return row if row.shape == shape else fitted(row, shape, resize)
