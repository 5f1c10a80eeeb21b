"""List files: which images are in a split, with their labels.

The form of the public lists of ImageNet-LT and Places-LT: a line for each image, its path and the
number of its class (``train/n01440764/n01440764_190.JPEG 0``). Several labels have commas between
them (``a.jpg 3,17``), and ``-`` is none.
"""

from __future__ import annotations

import functools
import lzma
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.data.checks import MOST_CLASSES
from lt_jax.data.reading import Lists
from lt_jax.errors import InputError, first_line
from lt_jax.files import located

Parts = dict[int, list[str]]  # of paths, by their numbers


class Listed(NamedTuple):
    """A split as its list has it.

    Attributes:
      file: of the list.
      paths: of its images, ``[N]``.
      labels: int32 ``[N]``, or multi-hot uint8 ``[N, C]``.
    """

    file: Path
    paths: list[str]
    labels: npt.NDArray[Any]


def read_lists(
    lists: Lists, data_dir: str, num_classes: int, root: Path = Path()
) -> tuple[Listed, Listed, Listed | None]:
    """The splits that list files describe.

    Args:
      lists: their names.
      data_dir: what relative names are relative to.
      num_classes: C of multi-label lists; 0 for the largest label + 1.
      root: what images are relative to, as one list may say so and another not.

    Returns:
      Train, test and, if it has a list, validation.

    Raises:
      InputError: if a file is missing, a line has another form, or an image is in two splits or
        twice in one.
    """
    for name in ("train", "test"):
        if not getattr(lists, name):
            raise InputError(
                f"data.{name}_list is ''; expected a list file, as others of data.train_list,"
                " data.test_list and data.validation_list are given"
            )
    names = [name for name in lists if name]
    files = [located(name, data_dir) for name in names]
    read = [list(_lines(file)) for file in files]
    paths = [[path for path, _ in lines] for lines in read]
    place = _places_under(root)
    places = [_places(file, lines, place) for file, lines in zip(files, read, strict=True)]
    _check_apart(files, places)
    targets = _targets([[label for _, label in lines] for lines in read], num_classes)
    train, test, *validation = map(Listed, files, paths, targets)
    return train, test, validation[0] if validation else None


def class_names(listed: Sequence[Listed]) -> tuple[str, ...]:
    """The folders that the images of each class lie in, if they tell classes apart, else nothing.

    Args:
      listed: splits with one label an image.

    Returns:
      A name for each class, or an empty tuple.

    Example:
      >>> class_names([Listed(Path("a"), ["x/cat/1.jpg", "x/dog/1.jpg"], np.array([0, 1]))])
      ('cat', 'dog')
    """
    if listed[0].labels.ndim == 2:
        return ()
    found: dict[int, set[str]] = defaultdict(set)
    for split in listed:
        for path, label in zip(split.paths, split.labels.tolist(), strict=True):
            found[label].add(PurePosixPath(path).parent.name)
    one_each = all(len(names) == 1 and all(names) for names in found.values())
    names = [min(found[c]) for c in sorted(found)]
    complete = sorted(found) == list(range(len(found)))
    return tuple(names) if one_each and complete and len(set(names)) == len(names) else ()


def matched(listed: Listed, names: Sequence[str], what: str) -> npt.NDArray[np.int64]:
    """Which examples of a set a list means, by the names of their files.

    A list and a set rarely agree on all folders: ``train/bazaar-outdoor/00000001.jpg`` is
    ``data_256/b/bazaar/outdoor/00000001.jpg`` elsewhere. The end of the path decides, as far back
    as needed to tell files of one name apart.

    Args:
      listed: from `read_lists`.
      names: of the files of all examples, in order.
      what: what to call the set in a sentence.

    Returns:
      Numbers of the examples, in the order of the list.

    Raises:
      InputError: for a file that is not there, of which there are several, or that the list calls
        by two paths.

    Example:
      >>> one = Listed(Path("a"), ["val/cat/2.jpg"], np.array([0]))
      >>> matched(one, ["v/dog/2.jpg", "v/cat/2.jpg", "v/cat/3.jpg"], "cats")
      array([1])
    """
    result = np.zeros(len(listed.paths), np.int64)
    taken: dict[int, str] = {}
    agreeing = _agreeing(listed.paths, names)
    for row, (path, found) in enumerate(zip(listed.paths, agreeing, strict=True)):
        if len(found) != 1:
            raise InputError(
                f"{listed.file} lists {path}, of which {what} has {len(found) or 'no'} files"
                f"{' of that name' if found else ''}; expected one"
            )
        result[row] = found[0]
        before = taken.setdefault(found[0], path)
        if before != path and os.path.normpath(before) != os.path.normpath(path):
            raise InputError(
                f"{listed.file} lists {before} and {path}, and {what} has {names[found[0]]} alone"
                " for both; expected a file for each"
            )
    return result


def _agreeing(paths: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """Of each path the names of the same file that have most parts in common with it at the end.

    All paths of a file are followed together, folder by folder: pair by pair there would be 23
    million to compare in Places, where a file name is in up to 365 folders.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        rows[path.rpartition("/")[2]].append(row)
    candidates: dict[str, list[int]] = {file: [] for file in rows}
    for i, name in enumerate(names):
        same = candidates.get(name.rpartition("/")[2])
        if same is not None:
            same.append(i)
    found: dict[int, list[int]] = {}
    for file, same in candidates.items():
        depth = len(_split(file))  # so many parts agree already
        found |= _narrowed(_parts(paths, rows[file]), _parts(names, same), depth)
    return [found[row] for row in range(len(paths))]


def _narrowed(rows: Parts, candidates: Parts, depth: int) -> dict[int, list[int]]:
    """Of each row those candidates that agree with it furthest, where all agree up to a depth."""
    found: dict[int, list[int]] = {}
    pending = [(rows, candidates, depth)]
    while pending:
        some, left, depth = pending.pop()
        further = _by_part(left, depth) if len(left) > 1 else {}
        for part, together in _by_part(some, depth).items():
            if part is not None and part in further:
                pending.append((together, further[part], depth + 1))
            else:
                found.update((row, list(left)) for row in together)
    return found


def _split(path: str) -> list[str]:
    """Parts of a path; those of a hyphenated name are apart."""
    return path.replace("-", "/").split("/")


def _parts(paths: Sequence[str], numbers: Sequence[int]) -> Parts:
    return {i: _split(paths[i]) for i in numbers}


def _by_part(files: Parts, depth: int) -> dict[str | None, Parts]:
    """Files by their part at that depth, counted from the end; None where there is none."""
    found: dict[str | None, Parts] = defaultdict(dict)
    for i, parts in files.items():
        found[parts[-1 - depth] if depth < len(parts) else None][i] = parts
    return found


def _lines(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Path and labels of each line."""
    try:
        opened = lzma.open if file.suffix == ".xz" else open
        with opened(file, "rt", encoding="utf-8-sig") as lines:  # some editors write a BOM
            text = lines.read().splitlines()
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise InputError(f"list file {file} cannot be read: {first_line(error)}") from error
    found = [(n, line.rsplit(None, 1)) for n, line in enumerate(text, 1) if line.strip()]
    if not found:
        raise InputError(f"list file {file} is empty; expected lines such as 'train/cat/1.jpg 0'")
    for number, parts in found:
        labels = [] if parts[-1] == "-" else parts[-1].split(",")
        if len(parts) != 2 or not all(label.isdecimal() for label in labels):
            raise InputError(
                f"line {number} of {file} is {' '.join(parts)!r}; expected a path and the number of"
                " its class, such as 'train/cat/1.jpg 0', or of several, such as 'a.jpg 3,17'"
            )
        if any(int(label) >= MOST_CLASSES for label in labels):
            raise InputError(
                f"line {number} of {file} has the label {max(map(int, labels))}; expected less than"
                f" {MOST_CLASSES:,}, counted from 0"
            )
        yield parts[0].replace("\\", "/"), [int(label) for label in labels]


def _targets(splits: Sequence[list[list[int]]], num_classes: int) -> list[npt.NDArray[Any]]:
    if all(len(labels) == 1 for split in splits for labels in split):
        return [np.array(split, np.int32)[:, 0] for split in splits]
    largest = max(max(labels, default=0) for split in splits for labels in split)
    if num_classes and largest >= num_classes:
        raise InputError(f"the lists hold the label {largest}, outside {num_classes} classes")
    targets = [np.zeros((len(split), num_classes or largest + 1), np.uint8) for split in splits]
    for split, target in zip(splits, targets, strict=True):
        for row, labels in zip(target, split, strict=True):
            row[labels] = 1
    return targets


def _places(
    file: Path, lines: Sequence[tuple[str, list[int]]], place: Callable[[str], str]
) -> dict[str, str]:
    """What is in a list by where it is; refuses one that has an image twice.

    Validation might be cut from train between the two, and no image is of two classes.
    """
    found: dict[str, tuple[str, list[int]]] = {}
    for path, labels in lines:
        where = place(path)
        if where in found:
            before, known = found[where]
            also = "" if path == before else f", also as {path}"
            both = [",".join(map(str, one)) or "-" for one in (known, labels)]
            other = "" if both[0] == both[1] else f", with the labels {both[0]} and {both[1]}"
            raise InputError(
                f"{file} lists {before} twice{also}{other}; expected one line for each image"
            )
        found[where] = path, labels
    return {where: path for where, (path, _) in found.items()}


def _places_under(root: Path) -> Callable[[str], str]:
    """Tells where an image is, whatever links lead to its folder: a look for each would be slow."""
    base, real = os.path.abspath(root), functools.cache(os.path.realpath)

    def place(path: str) -> str:
        folder, name = os.path.split(os.path.normpath(os.path.join(base, path)))
        return os.path.join(real(folder), name)

    return place


def _check_apart(files: Sequence[Path], paths: Sequence[dict[str, str]]) -> None:
    """Refuses splits that share images, of which the scores would say nothing.

    Args:
      files: of the lists.
      paths: of each what is in the list, by where that is.
    """
    for i, file in enumerate(files):
        for j in range(i):
            shared = [paths[i][place] for place in paths[i].keys() & paths[j].keys()]
            if shared:
                raise InputError(
                    f"{files[j]} and {file} have {len(shared)} images in common, such as"
                    f" {min(shared)}; expected none"
                )
