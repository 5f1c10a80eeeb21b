"""Features in files, one for each split: `.npz` or `.h5` with ``features`` and ``labels``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError, first_line
from lt_jax.files import located
from lt_jax.npz import read_npz

KEYS = ("features", "labels")
EXPECTED = "features [N, D] and labels [N]"
SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_SHARD = re.compile(r"(\w+)-(\d{5})-of-(\d{5})\.npz")

Pair = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class FeatureFiles(NamedTuple):
    """The splits of a folder, as (features, labels); None where there is no validation split."""

    train: Pair
    validation: Pair | None
    test: Pair


def shard_name(split: str, shard: int, shards: int) -> str:
    """Name of a file with a part of a split.

    Example:
      >>> shard_name("train", 0, 3)
      'train-00000-of-00003.npz'
    """
    return f"{split}-{shard:05}-of-{shards:05}.npz"


def read_feature_folder(folder: str, data_dir: str = "") -> FeatureFiles:
    """Reads ``train``, ``test`` and maybe ``validation`` (or ``val``) of a folder.

    Each is ``NAME.npz``, ``NAME.h5`` or ``NAME.hdf5``, or several files named by `shard_name`,
    which are put together in their order.

    Args:
      folder: where they are.
      data_dir: what a relative folder is relative to.

    Returns:
      `FeatureFiles`.

    Raises:
      InputError: if a file is missing, damaged, or lacks features or labels.
    """
    path = located(folder, data_dir)
    if not path.is_dir():
        raise InputError(f"there is no folder {path}; expected one with train.npz and test.npz")
    found = {name: _read_split(path, names) for name, names in SPLITS.items()}
    train, test = found["train"], found["test"]
    if train is None or test is None:
        missing = "train" if train is None else "test"
        raise InputError(f"{path} has no {missing}.npz or {missing}.h5; expected {EXPECTED} in it")
    return FeatureFiles(train, found["validation"], test)


def _read_split(folder: Path, names: tuple[str, ...]) -> Pair | None:
    files = [folder / f"{name}{end}" for name in names for end in (".npz", ".h5", ".hdf5")]
    whole = [path for path in files if path.exists()]
    shards = [m for p in sorted(folder.glob("*-*.npz")) if (m := _SHARD.fullmatch(p.name))]
    parts = {name: {int(m[3]) for m in shards if m[1] == name} for name in names}
    there = [path.name for path in whole]
    there += [f"the parts of {name}" for name in names if parts[name]]
    if len(there) > 1:
        raise InputError(
            f"{folder} has {' and '.join(there)}; expected one of these for {names[0]}"
        )
    if whole:
        return _read(whole[0])
    return next((_read_shards(folder, name, parts[name]) for name in names if parts[name]), None)


def _read_shards(folder: Path, name: str, totals: set[int]) -> Pair:
    if len(totals) > 1:
        raise InputError(
            f"{folder} has {name} in {' and in '.join(map(str, sorted(totals)))} parts; expected"
            " one of these, and the files of the other removed"
        )
    total = totals.pop()
    expected = [shard_name(name, i, total) for i in range(total)]
    missing = next((n for n in expected if not (folder / n).exists()), None)
    if missing:
        raise InputError(f"{folder} lacks {missing}; expected all {total} parts of {name}")
    parts = [_read(folder / n) for n in expected]
    for n, part in zip(expected, parts, strict=True):
        for key, array, first in zip(KEYS, part, parts[0], strict=True):
            if array.shape[1:] != first.shape[1:]:
                raise InputError(
                    f"{key} of {folder / n} have shape {list(array.shape)}, and those of"
                    f" {expected[0]} {list(first.shape)}; expected the same but for their number"
                )
    whole = all(y.dtype.kind in "iu" for _, y in parts)  # of mixed types NumPy would make floats
    labels = np.concatenate([y for _, y in parts], dtype=np.int64 if whole else None)
    return np.concatenate([x for x, _ in parts]), labels


def _read(path: Path) -> Pair:
    arrays = read_npz(path, KEYS, expected=EXPECTED) if path.suffix == ".npz" else _read_h5(path)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise InputError(f"{path} lacks {' and '.join(missing)}; expected {EXPECTED}")
    features, labels = arrays["features"], arrays["labels"]
    if features.ndim != 2 or features.dtype.kind != "f":
        raise InputError(
            f"features of {path} are {features.dtype} {list(features.shape)}; expected floats"
            " [N, D]"
        )
    if not labels.ndim or len(labels) != len(features):  # of parts, totals may agree by chance
        raise InputError(
            f"labels of {path} have shape {list(labels.shape)} for {len(features)} features;"
            " expected one for each"
        )
    return features, labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _read_h5(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path} needs h5py: pip install 'lt_jax[dlsa]'") from error
    try:
        with h5py.File(path, "r") as file:
            return {key: np.asarray(file[key]) for key in KEYS if key in file}
    except OSError as error:
        raise InputError(f"{path} is damaged or not an HDF5 file ({first_line(error)})") from error
