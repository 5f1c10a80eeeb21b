"""Image sets of TensorFlow Datasets, single- and multi-label, without TensorFlow where possible.

Labels of multi-label sets are made from what a set annotates: the objects in its images, or a
sequence of class labels.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lt_jax.data.streamed import StreamedImages, decode_image, naming_image
from lt_jax.data.tfds_builder import (
    array_record_command,
    full_name,
    has_array_record,
    import_tfds,
    prepared_builder,
)
from lt_jax.errors import InputError, first_line

CHUNK = 1000  # records per read: array_record is much faster in blocks than one by one
LABELS = ("label", "objects", "labels")  # where labels are looked for

Split = tuple[np.ndarray | StreamedImages, np.ndarray]


def read(
    name: str,
    *,
    data_dir: str,
    train_split: str,
    test_split: str,
    download: bool,
    image_size: int = 0,
    stream: bool = False,
) -> tuple[Split, Split, Sequence[str]]:
    """Reads two splits of a TFDS set.

    Args:
      name: ``<name>``, ``<name>/<config>`` or either with ``:<version>``.
      data_dir: where prepared directories lie; empty for where TFDS looks itself.
      train_split: to train on; TFDS slices and sums such as ``"train+validation"`` work.
      test_split: to test on.
      download: whether to download and prepare (as array_record) what is not there.
      image_size: S; every image is resized to S x S and to RGB. 0 leaves images as they are: then
        all must have one size.
      stream: whether to read images when they are used, not now; needs `image_size`.

    Returns:
      (train images, train labels), (test images, test labels), class names or nothing, in the order
      of the files. Images are uint8 ``[N, H, W, C]``, an array or `StreamedImages`; labels are
      integers ``[N]``, or uint8 0 and 1 ``[N, C]`` for a multi-label set.

    Raises:
      InputError: if TFDS is not installed, does not know or cannot read the set, the set is not
        prepared, has no image or label or an image that cannot be decoded, has images of more
        than one size, or if no image of the test split is annotated or one is in both splits.
    """
    if stream and not image_size:
        raise InputError(
            "data.stream is True and data.image_size 0; expected a size to make all images of,"
            " such as --config.data.image_size=224"
        )
    builder = prepared_builder(name, data_dir, download)
    if stream and not has_array_record(builder):
        command = array_record_command(full_name(builder))
        raise InputError(
            f"data.stream is True, but tfds:{name} is in {builder.data_path} as tfrecord; expected"
            f" array_record: prepare it in another folder with `{command}` and pass"
            " --config.data.data_dir=DIR"
        )
    fields = _fields(builder)
    with _telling(builder):
        # Both are opened before either is read, so that a wrong split name is told at once.
        train, test = (_Part(builder, split, fields) for split in (train_split, test_split))
        _check_apart(train, test)
        if fields.multi_label and not test.is_annotated():
            raise InputError(_not_annotated(test))
        loaded = [part.load(image_size, stream) for part in (train, test)]
    return loaded[0], loaded[1], getattr(fields.classes, "names", None) or ()


class _Fields(NamedTuple):
    """Which features of a set are what.

    Attributes:
      image: name of the image.
      label: name of the label or labels, or the names on the way to them.
      classes: the feature that describes one label.
      multi_label: whether an example has any number of labels.
    """

    image: str
    label: tuple[str, ...]
    classes: Any
    multi_label: bool

    def targets(self, labels: Sequence[Any]) -> np.ndarray:
        """Labels of examples as targets: ``[N]``, or 0 and 1 ``[N, C]``."""
        if not self.multi_label:
            return np.array(labels)
        targets = np.zeros((len(labels), self.classes.num_classes), np.uint8)
        for target, present in zip(targets, labels, strict=True):
            present = np.asarray(present, np.int64)
            target[present[present >= 0]] = 1  # TFDS writes -1 for no label
        return targets


def _fields(builder: Any) -> _Fields:
    """Which features are the image and the label: what the set itself says, else by name.

    Every annotated object makes its class present. Of COCO that includes crowds; of VOC also
    objects marked as difficult, as its own ``labels`` do: training usually counts them. (The
    official evaluation of VOC leaves out a class in an image where all its objects are difficult,
    which labels of 0 and 1 cannot say.)
    """
    keys, features = builder.info.supervised_keys, builder.info.features
    pair = keys if keys and len(keys) == 2 and all(isinstance(k, str) for k in keys) else None
    names = list(features.keys()) if hasattr(features, "keys") else []
    image, label = pair or ("image", next((n for n in LABELS if n in names), LABELS[0]))
    if not {image, label} <= set(names):
        raise InputError(
            f"tfds:{builder.name} has no image and label; its features are {', '.join(names)}"
        )
    fields = _Fields(image, (label,), features[label], False)
    if isinstance(fields.classes, import_tfds().features.Sequence):
        fields = fields._replace(classes=fields.classes.feature, multi_label=True)
        if hasattr(fields.classes, "keys") and "label" in fields.classes:
            fields = fields._replace(classes=fields.classes["label"], label=(label, "label"))
    _check_fields(builder, fields)
    return fields


def _check_fields(builder: Any, fields: _Fields) -> None:
    image, label = builder.info.features[fields.image], builder.info.features[fields.label[0]]
    labelled = hasattr(fields.classes, "num_classes") if fields.multi_label else label.shape == ()
    if len(image.shape or ()) != 3 or not labelled:
        raise InputError(
            f"tfds:{builder.name} is not for image classification: its inputs {fields.image!r} have"
            f" shape {image.shape} and its targets {fields.label[0]!r} {label.shape}"
        )
    if image.np_dtype != np.uint8:
        raise InputError(
            f"tfds:{builder.name} has {np.dtype(image.np_dtype)} images; expected uint8"
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


class _Part:
    """A split that has been opened."""

    def __init__(self, builder: Any, split: str, fields: _Fields) -> None:
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
        """Whether any example of a multi-label split has a label."""
        return any(np.size(present) for present in self.labels())

    def load(self, image_size: int, stream: bool) -> Split:
        """All images and labels."""
        if not image_size or self.source is None:
            return self._stacked(image_size)
        images = self._streamed(image_size)
        targets = self.fields.targets(list(self.labels()))
        return images if stream else images.read(np.arange(self.count)), targets

    def _streamed(self, image_size: int) -> StreamedImages:
        """Its images by index, resized."""

        def load(index: int) -> np.ndarray:
            return decode_image(self.source[index][self.fields.image], image_size)

        return StreamedImages(load, self.count, (image_size, image_size, 3), what=self.what)

    def _decoded(self, image: Any, image_size: int) -> np.ndarray:
        if image_size:
            return decode_image(image, image_size)
        feature = self.builder.info.features[self.fields.image]
        return feature.decode_example_np(image) if isinstance(image, bytes) else image

    def _stacked(self, image_size: int) -> Split:
        """All images in one array, which is allocated once, and all labels."""
        labels = []

        def decode() -> Iterator[np.ndarray]:
            for i, row in enumerate(self.rows()):
                labels.append(_at(row, self.fields.label))
                with naming_image(i, self.what):
                    image = self._decoded(row[self.fields.image], image_size)
                yield image

        rows = decode()
        # A set of photographs shows within a few images that their sizes differ, before terabytes
        # are asked for.
        head = list(itertools.islice(rows, 100))
        shape, dtype = (head[0].shape, head[0].dtype) if head else ((0, 0, 0), np.uint8)
        for image in head:
            _check_size(self.what, image, shape)
        images = np.empty((self.count, *shape), dtype)
        for i, image in enumerate(itertools.chain(head, rows)):
            _check_size(self.what, image, shape)
            images[i] = image
        return images, self.fields.targets(labels)


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


def _check_apart(train: _Part, test: _Part) -> None:
    """Refuses splits that share images, of which the scores would say nothing."""
    shared = 0
    for a in train.builder.info.splits[train.split].file_instructions:
        for b in test.builder.info.splits[test.split].file_instructions:
            if a.filename == b.filename:
                end = min(a.skip + a.take, b.skip + b.take)
                shared += max(0, end - max(a.skip, b.skip))
    if shared:
        raise InputError(
            f"data.train_split {train.split!r} and data.test_split {test.split!r} of"
            f" tfds:{full_name(train.builder)} have {shared} images in common; expected none"
        )


def _not_annotated(part: _Part) -> str:
    """What to say of a test split that is for a competition: its labels are kept secret."""
    builder, asked = part.builder, part.split.partition("[")[0]
    others = [split for split in builder.info.splits if split not in ("train", asked)]
    usable = [s for s in others if _Part(builder, s, part.fields).is_annotated()]
    instead = " or ".join(f"--config.data.test_split={split}" for split in usable)
    return f"{part.what} has no annotations; expected {instead or 'another set, as no split has'}"


def _check_size(where: str, image: np.ndarray, shape: tuple[int, ...]) -> None:
    if image.shape != shape:
        raise InputError(
            f"{where} has images of more than one size, such as {shape} and {image.shape}; "
            "expected one size, or the size to make all of them, such as "
            "--config.data.image_size=224"
        )
