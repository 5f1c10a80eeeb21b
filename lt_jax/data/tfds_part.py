"""A split of a TFDS set that has been opened."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.data.decoding import decode_image
from lt_jax.data.label_cache import remembered
from lt_jax.data.lists import Listed, matched
from lt_jax.data.reading import SKIPPING_WITH_SIZE, Reading, Split, decoded, stacked
from lt_jax.data.tfds_builder import full_name, has_array_record, import_tfds
from lt_jax.data.tfds_fields import FILE_NAMES, Fields
from lt_jax.errors import InputError

Chosen = tuple[npt.NDArray[np.int64], npt.NDArray[Any]]  # numbers of examples, labels instead
CHUNK = 1000  # records per read: array_record is much faster in blocks than one by one


class Records:
    """The encoded image of each record; can be pickled, and then opens the files anew."""

    def __init__(self, source: Any, field: str, files: Sequence[Any] = ()) -> None:
        """Takes a TFDS data source that does not decode images.

        Args:
          source: of the split.
          field: name of the image.
          files: TFDS's instructions on which records of which file are in the split.
        """
        self._source, self._field = source, field
        self._files = [[os.path.basename(f.filename), f.skip, f.take] for f in files]

    def __call__(self, index: int) -> Any:
        """A file, or pixels."""
        return self._source[index][self._field]

    def told_apart_by(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
        """Which records of which files, wherever those are."""
        return np.frombuffer(json.dumps(self._files).encode(), np.uint8), rows


class Part:
    """A split that has been opened."""

    def __init__(self, builder: Any, split: str, fields: Fields) -> None:
        self.builder, self.split, self.fields = builder, split, fields
        self.what = f"the split {split!r} of tfds:{full_name(builder)}"
        tfds = import_tfds()
        encoded = isinstance(builder.info.features[fields.image], tfds.features.Image)
        # Decoding them here, past TFDS's tree of decoders, saves a fifth of the time, and pixels
        # are the same whether TensorFlow or array_record reads the files.
        decoders = {fields.image: tfds.decode.SkipDecoding()} if encoded else None
        self.source: Any = None
        if has_array_record(builder):
            self.source = builder.as_data_source(
                split=split, decoders=decoders, file_format="array_record"
            )
            self.count = len(self.source)
        else:
            _keep_tensorflow_off_gpus()
            in_order = tfds.ReadConfig(interleave_cycle_length=1)
            self.dataset = builder.as_dataset(split=split, read_config=in_order, decoders=decoders)
            self.count = builder.info.splits[split].num_examples

    def rows(self) -> Iterator[Any]:
        """All examples in the order of the files."""
        if self.source is None:
            yield from import_tfds().as_numpy(self.dataset)
            return
        for start in range(0, self.count, CHUNK):
            yield from self.source.__getitems__(range(start, min(start + CHUNK, self.count)))

    def labels(self) -> Iterator[Any]:
        """What is annotated in each example."""
        return (_at(row, self.fields.label) for row in self.rows())

    def is_annotated(self) -> bool:
        """Whether any example has a label."""
        return any(np.size(found) and np.max(found) >= 0 for found in self.labels())

    def matched(self, listed: Listed) -> npt.NDArray[np.int64]:
        """Which examples are on a list, in its order."""
        return matched(listed, self._file_names(self._known()), self.what)

    def load(self, reading: Reading, chosen: Chosen | None = None) -> Split:
        """The images and labels: all, or those chosen."""
        if self.source is None or (not reading.image_size and not chosen):
            return self._stacked(reading.image_size)
        rows, labels = chosen or (np.arange(self.count), self._known()["labels"])
        records = Records(self.source, self.fields.image, self._instructions())
        if reading.image_size:
            return reading.images(records, self.count, self.what, labels, rows), labels
        images = (self._decoded(records(i), 0, i) for i in rows.tolist())
        return stacked(images, len(rows), self.what), labels

    def _known(self) -> dict[str, npt.NDArray[Any]]:
        return remembered(self._files(), f"{self.what} {self.fields}", self._read_labels)

    def _files(self) -> list[str]:
        return [str(file.filename) for file in self._instructions()]

    def _instructions(self) -> Sequence[Any]:
        return self.builder.info.splits[self.split].file_instructions

    def _read_labels(self) -> dict[str, npt.NDArray[Any]]:
        """Labels of all examples, and the names of their files if they have any."""
        labels, names = [], []
        for row in self.rows():
            labels.append(_at(row, self.fields.label))
            if self.fields.file_name:
                name = row[self.fields.file_name]
                names.append(name.encode() if isinstance(name, str) else bytes(name))
        return {"labels": self.fields.targets(labels), "names": np.array(names, np.bytes_)}

    def _file_names(self, known: dict[str, npt.NDArray[Any]]) -> Sequence[str]:
        if not self.fields.file_name:
            raise InputError(
                f"data.train_list is given, but examples of tfds:{full_name(self.builder)} have no"
                f" file name ({', '.join(FILE_NAMES)}); expected a set that has, or a folder:<path>"
            )
        return [name.decode() for name in known["names"].tolist()]

    def _decoded(self, image: Any, image_size: int, index: int) -> np.ndarray:
        feature = self.builder.info.features[self.fields.image]

        def decode() -> np.ndarray:
            if image_size:
                return decode_image(image, image_size)
            return feature.decode_example_np(image) if isinstance(image, bytes) else image

        way_out = SKIPPING_WITH_SIZE if self.source is not None else ""  # it needs array_record
        return decoded(decode, f"image {index} of {self.what}", way_out)

    def _stacked(self, image_size: int) -> Split:
        """All images in one array, and all labels."""
        labels = []

        def images() -> Iterator[np.ndarray]:
            for i, row in enumerate(self.rows()):
                labels.append(_at(row, self.fields.label))
                yield self._decoded(row[self.fields.image], image_size, i)

        found = stacked(images(), self.count, self.what)
        return found, self.fields.targets(labels)


def _at(row: Any, path: Sequence[str]) -> Any:
    """``row[path[0]][path[1]]`` ..."""
    for key in path:
        row = row[key]
    return row


def _keep_tensorflow_off_gpus() -> None:
    """Or else it takes all of their memory, and JAX has none."""
    import tensorflow

    with contextlib.suppress(RuntimeError):  # it has already started: then it has what it has
        tensorflow.config.set_visible_devices([], "GPU")
