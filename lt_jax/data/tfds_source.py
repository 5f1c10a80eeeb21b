"""Image sets of TensorFlow Datasets, single- and multi-label, without TensorFlow where possible.

Labels of multi-label sets are made from what a set annotates: the objects in its images, or a
sequence of class labels.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.data.lists import Listed, class_names, read_lists
from lt_jax.data.reading import AS_THEY_ARE, NO_LISTS, Lists, Reading, Split
from lt_jax.data.tfds_builder import (
    array_record_command,
    full_name,
    has_array_record,
    prepared_builder,
)
from lt_jax.data.tfds_fields import Fields, fields_of
from lt_jax.data.tfds_part import Part
from lt_jax.errors import InputError, first_line

ROLES = ("train", "test", "validation")
Loaded = tuple[Split, Split, Sequence[str], Split | None]


def read(
    name: str,
    *,
    data_dir: str,
    train_split: str,
    test_split: str,
    validation_split: str = "",
    lists: Lists = NO_LISTS,
    num_classes: int = 0,
    download: bool,
    reading: Reading = AS_THEY_ARE,
) -> Loaded:
    """Reads the splits of a TFDS set.

    Args:
      name: ``<name>``, ``<name>/<config>`` or either with ``:<version>``.
      data_dir: where prepared directories lie; empty for where TFDS looks itself. Names of list
        files are relative to it.
      train_split: to train on; TFDS slices and sums such as ``"train+validation"`` work.
      test_split: to test on.
      validation_split: to select on; empty for none.
      lists: list files that say which examples of those splits are taken, by the names of their
        files, and what their labels are. Validation is then of ``validation_split``, or of train.
      num_classes: of multi-label lists; 0 for the largest label + 1.
      download: whether to download and prepare (as array_record) what is not there.
      reading: what images to make of them.

    Returns:
      (images, labels) of train and of test, class names or nothing, and validation or None; in the
      order of the files, or of the lists. Images are uint8 ``[N, H, W, C]``, an array or
      `StreamedImages`; labels are integers ``[N]``, or uint8 0 and 1 ``[N, C]`` for a multi-label
      set.

    Raises:
      InputError: if TFDS is not installed, does not know or cannot read the set, the set is not
        prepared, has no image or label or an image that cannot be decoded, has images of more
        than one size, or if no image of the test split is annotated or one is in both splits.
    """
    reading.check()
    builder = prepared_builder(name, data_dir, download)
    if not has_array_record(builder):
        _check_not_needed(name, builder, reading, lists)
    fields = fields_of(builder)
    with _telling(builder):
        if any(lists):
            listed = read_lists(lists, data_dir, num_classes)
            splits = (train_split, test_split, validation_split or train_split)
            return _read_listed(builder, fields, splits, listed, reading)
        splits = (train_split, test_split, validation_split)
        return _read_whole(builder, fields, splits, reading)


def _read_whole(
    builder: Any, fields: Fields, splits: tuple[str, str, str], reading: Reading
) -> Loaded:
    # All are opened before any is read, so that a wrong split name is told at once.
    parts = {
        role: Part(builder, split, fields)
        for role, split in zip(ROLES, splits, strict=True)
        if split
    }
    for pair in itertools.combinations(parts.items(), 2):
        _check_apart(*pair)
    if fields.multi_label and not parts["test"].is_annotated():
        raise InputError(_not_annotated(parts["test"]))
    loaded = {role: part.load(reading) for role, part in parts.items()}
    if not fields.multi_label and loaded["test"][1].min(initial=0) < 0:
        raise InputError(_not_annotated(parts["test"]))
    names = getattr(fields.classes, "names", None) or ()
    return loaded["train"], loaded["test"], names, loaded.get("validation")


def _read_listed(
    builder: Any,
    fields: Fields,
    splits: tuple[str, str, str],
    listed: tuple[Listed, Listed, Listed | None],
    reading: Reading,
) -> Loaded:
    lists = [one for one in listed if one]
    parts = [Part(builder, split, fields) for split in splits[: len(lists)]]
    chosen = [part.matched(one) for part, one in zip(parts, lists, strict=True)]
    for (i, one), (j, other) in itertools.combinations(enumerate(lists), 2):
        if splits[i] == splits[j]:
            _check_lists_apart(one, other, chosen[i], chosen[j])
    loaded = [
        part.load(reading, (rows, one.labels))
        for part, rows, one in zip(parts, chosen, lists, strict=True)
    ]
    return loaded[0], loaded[1], class_names(lists), loaded[2] if len(loaded) > 2 else None


def _check_lists_apart(
    one: Listed, other: Listed, rows: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> None:
    """Refuses lists that call the same image by different paths."""
    shared, first, second = np.intersect1d(rows, others, return_indices=True)
    if len(shared):
        raise InputError(
            f"{one.file} and {other.file} have {len(shared)} images in common, such as"
            f" {one.paths[first[0]]}, which the other calls {other.paths[second[0]]}; expected none"
        )


def _check_not_needed(name: str, builder: Any, reading: Reading, lists: Lists) -> None:
    """Refuses what can be done with array_record only."""
    asked = {
        "data.stream is True": reading.stream,
        "data.resize is 'crop'": reading.resize == "crop",
        "data.on_corrupt is 'skip'": reading.skip,
        "there are list files": any(lists),
    }
    for what, wanted in asked.items():
        if wanted:
            raise InputError(
                f"{what}, but tfds:{name} is in {builder.data_path} as tfrecord; expected"
                " array_record: prepare it in another folder with"
                f" `{array_record_command(full_name(builder))}` and pass"
                " --config.data.data_dir=DIR"
            )


@contextlib.contextmanager
def _telling(builder: Any) -> Iterator[None]:
    """Makes one sentence of what TFDS raises for a wrong split, a missing or a damaged file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"tfds:{builder.name} in {builder.data_path}, with the splits "
            f"{', '.join(builder.info.splits)}, cannot be read: {first_line(error)}"
        ) from error


def _check_apart(one: tuple[str, Part], other: tuple[str, Part]) -> None:
    """Refuses splits that share images, of which the scores would say nothing."""
    (role, part), (other_role, rest) = one, other
    shared = 0
    for a in part.builder.info.splits[part.split].file_instructions:
        for b in rest.builder.info.splits[rest.split].file_instructions:
            if a.filename == b.filename:
                end = min(a.skip + a.take, b.skip + b.take)
                shared += max(0, end - max(a.skip, b.skip))
    if shared:
        raise InputError(
            f"data.{role}_split {part.split!r} and data.{other_role}_split {rest.split!r} of"
            f" tfds:{full_name(part.builder)} have {shared} images in common; expected none"
        )


def _not_annotated(part: Part) -> str:
    """What to say of a test split that is for a competition: its labels are kept secret."""
    builder, asked = part.builder, part.split.partition("[")[0]
    others = [split for split in builder.info.splits if split not in ("train", asked)]
    usable = [s for s in others if Part(builder, s, part.fields).is_annotated()]
    instead = " or ".join(f"--config.data.test_split={split}" for split in usable)
    return f"{part.what} has no annotations; expected {instead or 'another set, as no split has'}"
