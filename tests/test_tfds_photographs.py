"""Multi-label sets of photographs of TFDS: coco/2017 and voc/2007 in their real form.

Both are written here, with a few made-up images, in the features and files of the real ones.
TFDS's own code of coco cannot even describe the set without TensorFlow; that of voc can.
"""

import importlib.abc
import io
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from prepared_sets import Image, builder_of, photo, prepare, read, tfds

from lt_jax.configuration import check_config
from lt_jax.data import decoding, load_dataset
from lt_jax.data.streamed import StreamedImages
from lt_jax.errors import InputError
from lt_jax.objectives import build_objective

COCO_NAMES = [f"thing {c}" for c in range(80)]
VOC_NAMES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow")
BOX = tfds.features.BBox(0.1, 0.2, 0.3, 0.4)
SPLITS = ("train", "validation", "test")

# As they are written


def photos(kind, split):
    """Made-up examples: a file, the class of each object, a flag (crowd, difficult) of each."""
    rng = np.random.default_rng([len(kind), len(split)])
    for i in range(7):
        nothing = i == 2 or (kind, split) == ("coco", "test")
        classes = rng.integers(0, 10, 0 if nothing else 4)
        yield photo(rng, i), classes.tolist(), rng.integers(0, 2, len(classes)).astype(bool)


def coco_object(label, flag):
    return {"id": 0, "area": 9, "bbox": BOX, "label": COCO_NAMES[label], "is_crowd": bool(flag)}


def coco_example(i, file, classes, crowds):
    objects = [coco_object(*pair) for pair in zip(classes, crowds, strict=True)]
    return {"image": file, "image/filename": f"{i}.jpg", "image/id": i, "objects": objects}


def coco_builder(folder):
    objects = {
        "id": np.int64,
        "area": np.int64,
        "bbox": tfds.features.BBoxFeature(),
        "label": tfds.features.ClassLabel(names=COCO_NAMES),
        "is_crowd": np.bool_,
    }
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "image/filename": tfds.features.Text(),
        "image/id": np.int64,
        "objects": tfds.features.Sequence(objects),
    }
    return builder_of("Coco", features, folder, config="2017")


def voc_object(label, flag):
    flags = {"pose": "left", "is_truncated": False, "is_difficult": bool(flag)}
    return {"label": VOC_NAMES[label], "bbox": BOX, **flags}


def voc_example(i, file, classes, difficult):
    easy = [c for c, d in zip(classes, difficult, strict=True) if not d]
    return {
        "image": file,
        "image/filename": f"{i}.jpg",
        "objects": [voc_object(*pair) for pair in zip(classes, difficult, strict=True)],
        "labels": sorted({VOC_NAMES[c] for c in classes}),
        "labels_no_difficult": sorted({VOC_NAMES[c] for c in easy}),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with prepared sets; coco's test split has no annotations, like the real one's."""
    folder = str(tmp_path_factory.mktemp("photographs"))
    for kind, builder, example in (
        ("coco", coco_builder(folder), coco_example),
        ("voc", tfds.builder("voc/2007", data_dir=folder), voc_example),
    ):
        made = {s: [example(i, *row) for i, row in enumerate(photos(kind, s))] for s in SPLITS}
        prepare(builder, made)
    return folder


def expected(kind, split, size, num_classes):
    """What has to come out, as a set of pairs: TFDS writes examples in an order of its own."""
    pairs = set()
    for file, classes, _ in photos(kind, split):
        image = Image.open(io.BytesIO(file)).convert("RGB")
        label = [int(c in classes) for c in range(num_classes)]
        resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        pairs.add((resized.tobytes(), bytes(label)))
    return pairs


def pairs_of(images, labels):
    """The same of what was read."""
    images = images.read(np.arange(len(images))) if isinstance(images, StreamedImages) else images
    assert (images.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert len(images) == len(labels) == 7
    return {(x.tobytes(), y.tobytes()) for x, y in zip(images, labels, strict=True)}


# As they are read


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "name", "num_classes", "test_split"),
    [("coco", "coco/2017", 80, "validation"), ("voc", "voc/2007", 20, "test")],
)
def test_objects_become_labels_and_images_one_size(
    folder, kind, name, num_classes, test_split, stream
):
    train, test, names = read(name, folder, test_split=test_split, stream=stream)
    for split, (images, labels) in (("train", train), (test_split, test)):
        assert isinstance(images, StreamedImages) == stream
        assert images.shape == (7, 8, 8, 3)
        assert labels.shape == (7, num_classes)
        assert pairs_of(images, labels) == expected(kind, split, 8, num_classes)
    assert list(names[:10]) == (COCO_NAMES[:10] if kind == "coco" else list(VOC_NAMES))


def test_streamed_images_are_those_in_memory_in_the_same_order(folder):
    (now, labels), _, _ = read("voc/2007", folder)
    (later, same), _, _ = read("voc/2007", folder, stream=True)
    rows = np.array([[6, 0, 3], [3, 1, 5]])
    np.testing.assert_array_equal(list(later.batches(rows)), now[rows])
    np.testing.assert_array_equal(labels, same)


@pytest.mark.parametrize("stream", [False, True])
def test_splits_can_be_joined_to_train_on(folder, stream):
    """As papers train on what VOC calls trainval."""
    parts = [
        read("voc/2007", folder, train_split=s, test_split=t)[0]
        for s, t in (("train", "test"), ("validation[2:]", "validation[:2]"))
    ]
    (images, labels), _, _ = read(
        "voc/2007", folder, train_split="train+validation[2:]", stream=stream
    )
    images = images.read(np.arange(12)) if stream else images
    np.testing.assert_array_equal(images, np.concatenate([p[0] for p in parts]))
    np.testing.assert_array_equal(labels, np.concatenate([p[1] for p in parts]))


def test_no_image_is_decoded_before_it_is_used(folder, monkeypatch):
    decoded = []
    real = decoding._open
    monkeypatch.setattr(decoding, "_open", lambda image: decoded.append(image) or real(image))
    (images, _), _, _ = read("voc/2007", folder, stream=True)
    part = images[[4, 2]]
    assert decoded == []
    part.read([1])
    assert len(decoded) == 1


def test_tensorflow_is_not_even_looked_for(folder, monkeypatch):
    """Whether it is installed or not: prepared files are read without the code that made them."""
    looked_for = []

    class Watch(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname, path=None, target=None):
            if fullname.partition(".")[0] == "tensorflow":
                looked_for.append(fullname)

    before = {m for m in sys.modules if m.partition(".")[0] == "tensorflow"}
    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    (images, _), _, _ = read("coco/2017", folder, test_split="validation", stream=True)
    images.read([0])
    assert looked_for == []
    assert {m for m in sys.modules if m.partition(".")[0] == "tensorflow"} == before


class Rows(list):
    """Examples of a mocked source, whose own ``__getitems__`` cannot be called."""

    def __getitems__(self, indices):
        return [self[i] for i in indices]


@pytest.mark.parametrize("name", ["coco/2017", "voc/2007"])
def test_mocked_sets(folder, name):
    """The random examples that `tfds.testing.mock_data` makes of the features of these sets.

    The mock cannot make encoded images of them: that takes TensorFlow, and whole examples, of
    which it makes the fields of objects of different lengths. So it is asked for decoded ones,
    which are resized all the same.
    """
    policy = tfds.testing.MockPolicy.USE_FILES
    with (
        tfds.testing.mock_data(num_examples=5, data_dir=folder, policy=policy),
        pytest.MonkeyPatch.context() as patch,
    ):
        mocked = tfds.core.DatasetBuilder.as_data_source
        rows = Rows(mocked(tfds.core.read_only_builder.builder_from_files(name), "train"))
        patch.setattr(tfds.core.DatasetBuilder, "as_data_source", lambda *args, **kwargs: rows)
        (images, labels), _, _ = read(name, folder, test_split="validation", stream=True)
        got = images.read(np.arange(5))
    assert labels.sum() > 5
    for image, label, row in zip(got, labels, rows, strict=True):
        assert set(np.flatnonzero(label)) == set(row["objects"]["label"].tolist())
        resized = Image.fromarray(row["image"]).resize((8, 8), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(resized))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stream": True, "image_size": 0}, r"data.stream is True and data.image_size 0; expected"),
        ({}, r"'test' of tfds:coco/2017 has no annotations; expected --c.*.test_split=validation$"),
        (
            {"test_split": "test[:3]"},
            r"'test\[:3\]' of .*; expected --config.data.test_split=validation$",
        ),
        (
            {"train_split": "train+validation[:4]", "test_split": "validation[1:]"},
            r"'train\+validation\[:4\]' and .* of tfds:coco/2017 have 3 images in common",
        ),
        ({"test_split": "val"}, r"splits train, validation, test, cannot be read: Unknown split"),
    ],
)
def test_what_cannot_be_used_is_refused(folder, options, sentence):
    with pytest.raises(InputError, match=sentence) as told:
        read("coco/2017", folder, **options)
    assert "\n" not in str(told.value)


def test_coco_that_is_not_there_is_told_how_to_get_it(tmp_path):
    """Also without TensorFlow, where TFDS cannot describe the set."""
    with pytest.raises(InputError) as told:
        read("coco/2017", str(tmp_path))
    command = "tfds.builder('coco/2017', data_dir='DIR').download_and_prepare(file_format='array_"
    for part in ("tfds:coco/2017 is not in", str(tmp_path), command, "--config.data.data_dir=DIR"):
        assert part in str(told.value)


# Configs


COCO = runpy.run_path(str(Path(__file__).parents[1] / "configs/coco.py"))


@pytest.mark.parametrize("name", ["coco", "voc", "coco_mlt", "voc_mlt"])
def test_every_config_of_these_sets_is_complete(name):
    rows = COCO["get_sweep"](f"all,{name},resnet101,448")
    for row in [*rows, f"{name},resnet50,224,plm"]:
        config = COCO["get_config"](row)
        check_config(config)
        assert build_objective(config.objective, [30, 20, 10], num_examples=50)


@pytest.mark.parametrize("row", ["coco", "coco,resnet50,224", "coco,resnet18,224,plm", "a,b,c,d"])
def test_config_strings_that_cannot_be_used_are_refused(row):
    with pytest.raises(InputError, match=r"config string is .*; expected such as 'coco,resnet50,"):
        COCO["get_config"](row)
    with pytest.raises(InputError, match=r"sweep is .*; expected such as 'all,coco_mlt,resnet50,"):
        COCO["get_sweep"](row)


def test_the_coco_config_reads_the_set(folder):
    """Every field that it sets reaches the data: what is streamed, dropped, cut off, tested on."""
    config = COCO["get_config"]("coco,resnet50,224,plm").data
    config.update(data_dir=folder, image_size=8, validation_size=2)
    dataset = load_dataset(config)
    assert isinstance(dataset.train_images, StreamedImages)
    assert dataset.test_images.shape == (7, 8, 8, 3)
    assert dataset.train_labels.any(axis=1).all()
    left_out = 7 - len(dataset.train_labels) - len(dataset.validation_labels)
    assert left_out + (~dataset.validation_labels.any(axis=1)).sum() == 1
    np.testing.assert_allclose(dataset.mean, [0.485, 0.456, 0.406])
