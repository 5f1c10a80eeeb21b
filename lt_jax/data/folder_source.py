"""Folders of images: a sub-folder for each class, or list files that say what is what."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.data.decoding import decode_image
from lt_jax.data.lists import Listed, class_names, read_lists
from lt_jax.data.multilabel import MOST_NAMES
from lt_jax.data.reading import SKIPPING_WITH_SIZE, Lists, Reading, Split, decoded, stacked
from lt_jax.errors import InputError
from lt_jax.files import located, printable

Paths = npt.NDArray[Any]  # of bytes

ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif"),
    *(".bmp", ".ppm", ".pgm", ".tif", ".tiff"),
)
STATS = 32  # files that are looked at side by side
NO_IMAGES = (  # that lie about in folders of images
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".md", ".log"),
    *(".db", ".ini", ".npy", ".npz", ".mat", ".h5", ".zip", ".tar", ".gz", ".xz", ".py", ".pdf"),
)
ALSO_TEST = ("val", "validation")  # where ``test`` is called so


class FolderSplits(NamedTuple):
    """What a folder has.

    Attributes:
      train: images and labels.
      test: likewise.
      class_names: or nothing.
      validation: as train; None if there is none.
      notes: on what is there and not read.
      paths: of the files of each split, relative to the folder, as `encoded` gives them.
    """

    train: Split
    test: Split
    class_names: Sequence[str]
    validation: Split | None
    notes: tuple[str, ...]
    paths: dict[str, Paths]


def encoded(paths: Sequence[str]) -> Paths:
    """Paths as an array of bytes, which takes a fraction of the room and is small when pickled."""
    return np.array([os.fsencode(path) for path in paths])


def read(
    folder: str,
    *,
    data_dir: str,
    train_split: str,
    test_split: str,
    validation_split: str,
    lists: Lists,
    num_classes: int,
    reading: Reading,
) -> FolderSplits:
    """Reads a folder of images.

    Either ``<folder>/<split>/<class>/*.jpg``, classes in the order of their names, images also in
    sub-folders of theirs; a class of train that another split lacks has no images there. Or what
    list files say, whose paths are relative to the folder.

    Args:
      folder: its path, relative to `data_dir` if that is given.
      data_dir: also what the names of list files are relative to.
      train_split: sub-folder to train on.
      test_split: sub-folder to test on; where there is no ``test``, ``val`` or ``validation``.
      validation_split: sub-folder to select on; empty for none.
      lists: list files instead.
      num_classes: of multi-label lists; 0 for the largest label + 1.
      reading: what images to make of them.

    Returns:
      `FolderSplits`.

    Raises:
      InputError: if there is no such folder, it is not of this form, a listed file is missing, or
        an image cannot be decoded.
    """
    reading.check()
    _check_installed()
    root = located(folder, data_dir)
    if not root.is_dir():
        raise InputError(f"data source is 'folder:{folder}', but there is no folder {root}")
    if any(lists):
        train, test, validation = read_lists(lists, data_dir, num_classes, root)
        splits = [train, test, *([validation] if validation else [])]
        names: Sequence[str] = class_names(splits)
        notes: tuple[str, ...] = ()
    else:
        test_split = _existing(root, test_split)
        asked = [train_split, test_split, *([validation_split] if validation_split else [])]
        splits, names, left = _by_class(root, asked)
        notes = (*_unused(root, asked), *_left_out(folder, left))
    loaded = [_load(root, split, reading, listed=any(lists)) for split in splits]
    roles = ("train", "test", "validation")
    paths = {role: encoded(one.paths) for role, one in zip(roles, splits, strict=False)}
    names = [printable(name) for name in names]
    own = loaded[2] if len(loaded) > 2 else None
    return FolderSplits(loaded[0], loaded[1], names, own, notes, paths)


def _check_installed() -> None:
    missing = [name for name in ("grain", "PIL") if not importlib.util.find_spec(name)]
    if missing:
        raise InputError(
            f"folders of images need {' and '.join(missing)}: pip install 'lt_jax[images]'"
        )


class Files:
    """The content of files by number; small when pickled, for worker processes."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        """Reads none.

        Args:
          root: folder that the paths are relative to.
          paths: of the files.
        """
        self._root, self._paths = str(root), encoded(paths)

    def __call__(self, index: int) -> bytes:
        """The content of a file."""
        return Path(self.path(index)).read_bytes()

    def path(self, index: int) -> str:
        """Where it is."""
        return os.path.join(self._root, os.fsdecode(bytes(self._paths[index])))

    def told_apart_by(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
        """Paths and sizes of files, which tell without reading that one took another's place."""
        paths = b"\0".join(self._paths[rows].tolist())
        parts = np.array_split(rows, STATS)  # a million looks, one by one, cost minutes on NFS
        with ThreadPoolExecutor(STATS) as pool:
            sizes = [size for part in pool.map(self._sizes, parts) for size in part]
        return np.frombuffer(paths, np.uint8), np.array(sizes, np.int64)

    def _sizes(self, rows: npt.NDArray[np.int64]) -> list[int]:
        return [_size(self.path(row)) for row in rows.tolist()]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # whoever reads it tells
        return -1


def _load(root: Path, split: Listed, reading: Reading, *, listed: bool) -> Split:
    files, count = Files(root, split.paths), len(split.paths)
    missing = None
    if listed:  # what was found in folders is there: a million looks cost minutes on NFS
        missing = next((i for i in range(count) if not os.path.isfile(files.path(i))), None)
    if missing is not None:
        raise InputError(f"{split.file} lists {files.path(missing)}, and there is no such file")
    if reading.image_size:
        return reading.images(files, count, files.path, split.labels), split.labels
    images = (
        decoded(partial(_decode, files, i), files.path(i), SKIPPING_WITH_SIZE) for i in range(count)
    )
    return stacked(images, count, str(split.file)), split.labels


def _decode(files: Files, index: int) -> npt.NDArray[Any]:
    return decode_image(files(index))


def _existing(root: Path, test_split: str) -> str:
    """The sub-folder to test on."""
    if test_split != "test" or (root / test_split).is_dir():
        return test_split
    return next((name for name in ALSO_TEST if (root / name).is_dir()), test_split)


def _unused(root: Path, asked: Sequence[str]) -> tuple[str, ...]:
    """That there is a folder for validation, and none was asked for."""
    rest = [name for name in ALSO_TEST if name not in asked and (root / name).is_dir()]
    if len(asked) > 2 or not rest:
        return ()
    there = rest[0]
    return (
        f"{root / there} is there and not used; --config.data.validation_split={there} takes it to"
        " select on.",
    )


def _left_out(folder: str, left: Counter[str]) -> tuple[str, ...]:
    """That files are no images by their endings, though perhaps by what is in them."""
    if not left:
        return ()
    endings = ", ".join(f"{end or 'none'} ({count})" for end, count in left.most_common(MOST_NAMES))
    return (
        f"{left.total()} files in class folders of folder:{folder} are left out for their endings,"
        f" {endings}; read are {', '.join(ENDINGS)}.",
    )


def _by_class(root: Path, names: Sequence[str]) -> tuple[list[Listed], list[str], Counter[str]]:
    """Splits of a sub-folder each, with the classes of train, and endings of what is left out."""
    for name in names:
        if not (root / name).is_dir():
            found = sorted(p.name for p in root.iterdir() if p.is_dir())
            there = ", ".join(found[:MOST_NAMES] + ["..."] * (len(found) > MOST_NAMES)) or "none"
            raise InputError(
                f"{root} has no sub-folder {name!r}; expected some of its sub-folders, {there}, as"
                " data.train_split and data.test_split, or --config.data.train_list=FILE and"
                " --config.data.test_list=FILE, whose lines, such as 'cat/1.jpg 0', say which of"
                " its images are in each"
            )
    if len(set(names)) < len(names):
        raise InputError(f"the splits of {root} are {', '.join(names)}; expected different ones")
    classes = [_sub_folders(root / name) for name in names]
    for name, found in zip(names, classes, strict=True):
        unknown = sorted(set(found) - set(classes[0]))
        if unknown:  # one that lacks is one without images, as rare classes often are in test
            raise InputError(
                f"{root / name} has a sub-folder {unknown[0]!r}, which {root / names[0]} has not;"
                " expected classes to train on only"
            )
    left = Counter[str]()
    return [_listed(root, name, classes[0], left) for name in names], classes[0], left


def _sub_folders(folder: Path) -> list[str]:
    found = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    if not found:
        raise InputError(f"{folder} has no sub-folders; expected one for each class")
    return found


def _listed(root: Path, name: str, classes: Sequence[str], left: Counter[str]) -> Listed:
    paths, labels = [], []
    for label, one in enumerate(classes):
        files = images_in(root / name / one, left)
        paths += [f"{name}/{one}/{file}" for file in files]
        labels += [label] * len(files)
    if not paths:
        raise InputError(f"{root / name} has no images; expected files such as *.jpg, *.png")
    return Listed(root / name, paths, np.array(labels, np.int32))


def images_in(folder: Path, left: Counter[str] | None = None) -> list[str]:
    """The image files of a folder and its sub-folders, without hidden ones.

    Args:
      folder: its path; links to other folders are followed, and each folder is looked into once.
      left: is added the endings of other files, without those that never are images.

    Returns:
      Their paths relative to the folder, sorted.
    """
    found, seen = list[str](), set[str]()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link may lead to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        files = [f for f in files if f[0] != "."]
        images = [f for f in files if f.lower().endswith(ENDINGS)]
        if left is not None and len(images) < len(files):
            others = (f.lower() for f in files if not f.lower().endswith(ENDINGS))
            left.update(os.path.splitext(f)[1] for f in others if not f.endswith(NO_IMAGES))
        inside = os.path.relpath(where, folder)
        found += images if inside == "." else [os.path.join(inside, image) for image in images]
    return sorted(found)
