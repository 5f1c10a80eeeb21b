"""The large long-tailed sets as TFDS describes them: classes, splits, lists, streaming.

Descriptions are TFDS's own; examples come from its `mock_data`, as the sets are hundreds of
gigabytes. (COCO and VOC are in test_tfds_photographs.py: files in their real form.)
"""

import io
import os
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from prepared_sets import builder_of, prepare
from tiny_runs import ColourNet

from lt_jax import models
from lt_jax.configuration import check_config
from lt_jax.data import StreamedImages, load_dataset
from lt_jax.errors import InputError
from lt_jax.metrics import single_label
from lt_jax.train import train

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("array_record")
pytest.importorskip("grain")
tfds = pytest.importorskip("tensorflow_datasets")

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = runpy.run_path(str(ROOT / "configs/photographs.py"))
CLASSES = {
    "imagenet_lt": 1000,
    "imagenet2012": 1000,
    "i_naturalist2017": 5089,
    "i_naturalist2018": 8142,
    "places365_small": 365,
}
# Whose test split has labels; those of the others are kept for competitions.
TESTED_ON = dict.fromkeys(CLASSES, "validation") | {"imagenet_lt": "test"}
NAMES = {
    "train": [f"data_256/{p}.jpg" for p in (
        "a/airfield/00000001", "a/apartment_building/outdoor/00000001", "b/bazaar/indoor/00000001",
        "b/bazaar/outdoor/00000001", "a/airfield/00000002",
    )],
    "validation": [f"val_256/Places365_val_0000000{i}.jpg" for i in range(5)],
}  # fmt: skip


def photo(split, i):
    """A file of some size."""
    rng = np.random.default_rng([len(split), i])
    pixels = rng.integers(0, 256, (20 + i, 30, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


class Examples(list):
    """Five of a split, as they are read without decoding."""

    def __getitems__(self, keys):
        return [self[key] for key in keys]


def examples(builder, split, decoders=None, **_):
    name = builder.name
    assert isinstance(decoders["image"], type(tfds.decode.SkipDecoding()))
    hidden = split == "test" and TESTED_ON[name] != "test"
    label = [-1] * 5 if hidden else [CLASSES[name] - 1, 0, 2, 2, 1]
    rows = [{"image": photo(split, i), "label": label[i]} for i in range(5)]
    named = {"places365_small": "filename", "imagenet_lt": "file_name", "imagenet2012": "file_name"}
    for i, row in enumerate(rows if name in named else []):
        row[named[name]] = NAMES[split][i].encode() if split in NAMES else b"%d.jpg" % i
    return Examples(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Descriptions of the sets, as preparing them would leave."""
    folder = tmp_path_factory.mktemp("sets")
    for name in CLASSES:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        files = tfds.core.ShardedFileTemplate(
            data_dir=builder.data_path,
            dataset_name=name,
            filetype_suffix="array_record",
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        )
        splits = [
            tfds.core.SplitInfo(name=s, shard_lengths=[5], num_bytes=1, filename_template=files)
            for s in ("train", "validation", "test")
        ]
        builder.info.set_splits(tfds.core.SplitDict(splits))
        builder.data_path.mkdir(parents=True)
        builder.info.write_to_directory(builder.data_path)
    return str(folder)


@pytest.fixture
def mocked(folder):
    policy = tfds.testing.MockPolicy.USE_FILES
    with tfds.testing.mock_data(as_data_source_fn=examples, data_dir=folder, policy=policy):
        yield folder


def load(name, folder, **options):
    options = {"stream": True, "image_size": 8, "imbalance": 0, "validation_size": 0, **options}
    options = {"test_split": TESTED_ON[name], "normalization": "imagenet", **options}
    return load_dataset({"source": f"tfds:{name}", "data_dir": folder, **options})


def square(split, i):
    image = Image.open(io.BytesIO(photo(split, i)))
    return np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("name", CLASSES)
def test_every_set_streams_with_its_classes(mocked, name):
    got = load(name, mocked)
    assert got.num_classes == CLASSES[name] == len(set(got.class_names))
    assert got.train_labels.tolist() == [CLASSES[name] - 1, 0, 2, 2, 1]
    for images, split in ((got.train_images, "train"), (got.test_images, TESTED_ON[name])):
        assert isinstance(images, StreamedImages)
        expected = [square(split, i) for i in (4, 0, 4)]
        np.testing.assert_array_equal(next(images.batches(np.array([[4, 0, 4]]))), expected)


def test_a_split_of_its_own_is_selected_on(mocked):
    got = load("imagenet_lt", mocked, validation_split="validation", class_counts=())
    assert (len(got.train_labels), len(got.validation_labels), len(got.test_labels)) == (5, 5, 5)
    expected = [square("validation", i) for i in range(5)]
    np.testing.assert_array_equal(got.validation_images.read(range(5)), expected)
    with pytest.raises(InputError, match=r"data.train_split 'train' and data.validation_split 'tr"):
        load("imagenet_lt", mocked, validation_split="train[:2]")


def test_a_test_split_without_labels_is_refused(mocked):
    with pytest.raises(InputError, match=r"has no annotations; .*data.test_split=validation"):
        load("i_naturalist2018", mocked, test_split="test")


def places(folder, train):
    """The lists in the form of the public ones of Places-LT."""
    lists = {
        "train": train,
        "validation": ["train/airfield/00000002.jpg 0"],
        "test": ["val/airfield/Places365_val_00000003.jpg 0", "val/b/Places365_val_00000001.jpg 2"],
    }
    for name, lines in lists.items():
        (Path(folder) / f"{name}.txt").write_text("\n".join(lines))
    return {f"{name}_list": f"{name}.txt" for name in lists}


@pytest.mark.parametrize("stream", [True, False])
def test_public_lists_choose_examples_by_the_names_of_files(mocked, stream):
    train = [
        "train/bazaar-outdoor/00000001.jpg 2",
        "train/airfield/00000001.jpg 0",
        "train/apartment_building-outdoor/00000001.jpg 1",
    ]
    got = load("places365_small", mocked, stream=stream, **places(mocked, train))
    read = [x.read(range(len(x))) if stream else x for x in (
        got.train_images, got.validation_images, got.test_images,
    )]  # fmt: skip
    np.testing.assert_array_equal(read[0], [square("train", i) for i in (3, 0, 1)])
    np.testing.assert_array_equal(read[1], [square("train", 4)])
    np.testing.assert_array_equal(read[2], [square("validation", i) for i in (3, 1)])
    assert got.train_labels.tolist() == [2, 0, 1]
    assert (got.validation_labels.tolist(), got.test_labels.tolist()) == ([0], [0, 2])
    assert got.num_classes == 3


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train/airfield/00000009.jpg 0", r"lists train/airfield/00000009.jpg, .* has no files; e"),
        ("train/00000001.jpg 0", r"lists train/00000001.jpg, of which .* has 4 files of that name"),
    ],
)
def test_a_listed_file_that_is_not_one_example_is_refused(mocked, line, sentence):
    with pytest.raises(InputError, match=sentence):
        load("places365_small", mocked, **places(mocked, [line]))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            ["train/a/00000002.jpg 0", "train/b/00000002.jpg 1"],
            r"lists train/a/00000002.jpg and train/b/00000002.jpg, and .* alone for both",
        ),
        (
            ["train/b/00000002.jpg 1"],
            r"1 images in common, such as train/b/00000002.jpg, which the other calls train/air",
        ),
    ],
)
def test_an_image_on_lists_by_two_paths_is_refused(mocked, lines, sentence):
    """One path is taken for another's file, and would give it a second label or a second split."""
    with pytest.raises(InputError, match=sentence):
        load("places365_small", mocked, **places(mocked, lines))


def test_lists_need_names_of_files(mocked):
    with pytest.raises(InputError, match=r"tfds:i_naturalist2018 have no file name"):
        load("i_naturalist2018", mocked, **places(mocked, ["a/b.jpg 0"]))


STREAM = """
    import sys
    import numpy as np
    from lt_jax.data import load_dataset

    def loaded(load):
        return "tensorflow" in sys.modules

    if __name__ == "__main__":
        options = {"image_size": 8, "stream": True, "workers": 1, "validation_size": 2}
        got = load_dataset({"source": "tfds:bugs", "data_dir": sys.argv[1], **options})
        batch = next(got.train_images.batches(np.array([[1, 0]])))
        here = "tensorflow" in sys.modules
        print(batch.shape, here, got.train_images._workers.run(loaded, 0))
"""


def test_tensorflow_is_not_imported_to_stream(tmp_path):
    """Neither here nor in a process that decodes; there is one here that could be imported."""
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=2)}
    rows = [{"image": photo("x", i), "label": i % 2} for i in range(8)]
    builder = builder_of("Bugs", features, str(tmp_path), keys=("image", "label"))
    prepare(builder, {"train": rows, "test": rows})
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("")
    script = tmp_path / "stream.py"
    script.write_text(textwrap.dedent(STREAM))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    )  # fmt: skip
    assert done.stdout == "(2, 8, 8, 3) False False\n", done.stderr


TAIL = "train/bazaar-outdoor/00000001.jpg 2"


def configured(row, folder):
    """The config of a row, so small that it runs here."""
    config = PHOTOGRAPHS["get_config"](row)
    config.data.update(data_dir=folder, image_size=8, workers=0)
    config.model.update(name="colours", dtype="float32", pretrained="")
    config.train.update(epochs=1, batch_size=2, num_devices=1, tensorboard=False, progress=False)
    return config


@pytest.mark.parametrize("name", PHOTOGRAPHS["SETS"])
def test_every_row_of_the_papers_is_a_config(name):
    tables = [f"cb_table,{name},224", f"cb_table,{name},320"]
    if name in PHOTOGRAPHS["GCL_NETWORK"]:
        tables.append(f"gcl_table,{name}")
    rows, configs = [], []
    for table in tables:
        rows += PHOTOGRAPHS["get_sweep"](table)
        made = [PHOTOGRAPHS["get_config"](row) for row in PHOTOGRAPHS["get_sweep"](table)]
        assert all(config.data == made[0].data for config in made)  # or they would be no table
        configs += made
    for config in configs:
        check_config(config)
    assert len({config.name for config in configs}) == len(rows) >= 9
    assert {config.data.image_size for config in configs} == {224, 320}


@pytest.mark.parametrize(
    "row", ["imagenet_lt", "imagenet_lt,resnet50,64,gcl", "coco,resnet50,224,plm"]
)
def test_a_row_of_another_form_is_refused(row):
    with pytest.raises(InputError, match=r"config string is .*; expected set, network, side"):
        PHOTOGRAPHS["get_config"](row)


def test_both_stages_of_gcl_run_on_lists_of_places(mocked, tmp_path, monkeypatch):
    """Streamed, cropped, jittered and mixed, in both stages, with the config of the paper's row."""
    monkeypatch.setitem(models.MODELS, "colours", ColourNet)
    monkeypatch.setattr(single_label, "LARGEST_TABLE", 2)  # as if there were thousands of classes
    apartment = "train/apartment_building-outdoor/00000001.jpg 1"
    lists = places(mocked, ["train/airfield/00000001.jpg 0", apartment, TAIL])
    config = configured("places_lt,resnet152,224,gcl", mocked)
    config.data.update(lists)
    config.retrain.update(epochs=1, batch_size=2)
    summary = train(config, tmp_path)
    assert summary["training"]["steps"] == 1
    assert summary["data"]["class_counts"] == [1, 1, 1]
    for test in (summary["test"]["last"], summary["stage1"]["test"]["last"]):
        assert len(test["replicas"][0]["per_class"]) == 3
        assert "confusion" not in test["replicas"][0]
    for stage in ("stage1", "stage2"):
        assert (tmp_path / stage / "picture.png").stat().st_size > 10_000
