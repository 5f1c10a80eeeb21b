"""Folders of images and list files: what is in them, in which order, and what is refused."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import lzma
import os
import re
import shutil

import numpy as np
import pytest
from class_folders import (  # noqa: F401 (a fixture)
    CLASSES,
    COUNTS,
    Image,
    arrays,
    folder,
    load,
    pixels,
    resized,
    write,
)

from lt_jax.data import StreamedImages
from lt_jax.data.folder_source import images_in
from lt_jax.errors import InputError


@pytest.mark.parametrize("stream", [False, True])
def test_sub_folders_are_classes(folder, stream):
    got = load(folder, stream=stream)
    assert got.class_names == CLASSES
    assert isinstance(got.train_images, StreamedImages) == stream
    for images, labels, split in (
        (got.train_images, got.train_labels, "train"),
        (got.test_images, got.test_labels, "val"),
    ):
        expected, classes = resized(split)
        np.testing.assert_array_equal(arrays(images), expected)
        assert labels.tolist() == classes


def test_images_in_sub_folders_are_of_their_class(folder):
    """As torchvision's ImageFolder has it; links are followed, also one that leads back."""
    for i, place in enumerate(["train/bee/day", "train/bee/day/rain", "elsewhere"]):
        (folder / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels("train", 1, i)).save(folder / place / "a.jfif", "PNG")
    (folder / "train/bee/more").symlink_to(folder / "elsewhere")
    (folder / "train/bee/day/back").symlink_to(folder / "train/bee")
    (folder / "train/bee/thumbs.png").mkdir()
    (folder / "train/bee/.cache").mkdir()
    Image.fromarray(pixels("train", 1, 0)).save(folder / "train/bee/.cache/a.png")
    assert images_in(folder / "train/bee") == [
        *("0.png", "1.png", "2.png", "3.png"),
        *("day/a.jfif", "day/rain/a.jfif", "more/a.jfif"),
    ]
    assert load(folder).class_counts.tolist() == [6, 7, 3]


def test_test_is_preferred_and_validation_may_be_a_folder(tmp_path):
    write(tmp_path, ("train", "val", "test"))
    got = load(tmp_path, validation_split="val", stream=True)
    np.testing.assert_array_equal(arrays(got.test_images), resized("test")[0])
    np.testing.assert_array_equal(arrays(got.validation_images), resized("val")[0])
    assert len(got.train_labels) == 13
    assert load(tmp_path, test_split="val").test_labels.tolist() == resized("val")[1]


def test_a_folder_with_validation_can_be_long_tailed_too(tmp_path):
    write(tmp_path, ("train", "val", "test"))
    got = load(tmp_path, validation_split="val", class_counts=(5, 2, 1))
    assert got.class_counts.tolist() == [5, 2, 1]
    assert len(got.validation_labels) == 6


def test_a_folder_for_validation_that_is_not_used_is_told(tmp_path):
    write(tmp_path, ("train", "val", "test"))
    (note,) = load(tmp_path).notes
    assert re.search(r"/val is there and not used; --config.data.validation_split=val takes", note)
    assert load(tmp_path, validation_split="val").notes == ()
    assert load(tmp_path, test_split="val").notes == ()


def test_files_that_are_left_out_for_their_endings_are_counted(folder):
    assert load(folder).notes == ()  # there is a text, and a hidden file
    for name in ("train/ant/a.HEIC", "train/bee/b.heic", "val/ant/c", "val/ant/Thumbs.db"):
        (folder / name).write_text("something")
    (note,) = load(folder).notes
    assert re.search(r"3 files .* left out for their endings, .heic \(2\), none \(1\); read", note)


def test_images_of_one_size_need_none(tmp_path):
    """Grey ones stay grey."""
    for split in ("train", "test"):
        for c in range(2):
            (tmp_path / split / str(c)).mkdir(parents=True)
            grey = np.full((5, 4), 10 * c, np.uint8)
            Image.fromarray(grey).save(tmp_path / split / str(c) / "a.png")
    got = load(tmp_path, image_size=0)
    assert got.train_images.shape == (2, 5, 4, 1)
    assert got.train_images[:, 0, 0, 0].tolist() == [0, 10]


LINES = ["train/bee/1.png 1", "train/ant/0.png 0", "train/ant/3.png 0", "train/cat/2.png 2"]


def write_list(folder, name, lines):
    text = "\n".join(lines) + "\n"
    path = folder / name
    path.write_bytes(lzma.compress(text.encode()) if name.endswith("xz") else text.encode())
    return str(path)


@pytest.mark.parametrize("end", ["txt", "txt.xz"])
def test_list_files_say_what_is_in_a_split(folder, end):
    train = write_list(folder, f"a.{end}", LINES)
    test = write_list(folder, f"b.{end}", ["val/cat/0.png 2", "val/ant/1.png 0", "", ""])
    val = write_list(folder, f"c.{end}", ["train/bee/0.png 1"])
    got = load(folder, train_list=train, test_list=test, validation_list=val, stream=True)
    assert got.class_names == CLASSES
    expected, classes = resized("train", [(1, 1), (0, 0), (0, 3), (2, 2)])
    np.testing.assert_array_equal(arrays(got.train_images), expected)
    assert got.train_labels.tolist() == classes
    assert (got.test_labels.tolist(), got.validation_labels.tolist()) == ([2, 0], [1])
    same = load(
        folder.name, data_dir=str(folder.parent),
        train_list=f"{folder.name}/a.{end}", test_list=f"{folder.name}/b.{end}",
    )  # fmt: skip
    np.testing.assert_array_equal(same.train_images, expected)


def test_a_list_may_begin_with_a_byte_order_mark(folder):
    """As some editors write it; it belongs to no path."""
    test = write_list(folder, "b.txt", ["val/cat/0.png 2"])
    expected = load(folder, train_list=write_list(folder, "a.txt", LINES), test_list=test)
    marked = write_list(folder, "c.txt", ["\ufeff" + LINES[0], *LINES[1:]])
    got = load(folder, train_list=marked, test_list=test)
    np.testing.assert_array_equal(got.train_images, expected.train_images)


def test_list_files_may_have_several_labels(folder):
    train = write_list(folder, "a.txt", ["train/ant/0.png 0,2", "train/bee/0.png -"])
    test = write_list(folder, "b.txt", ["val/cat/0.png 1", "val/bee/0.png 1"])
    got = load(folder, train_list=train, test_list=test)
    assert got.train_labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert got.test_labels.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert load(folder, train_list=train, test_list=test, num_classes=5).num_classes == 5


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["train/ant/0.png"], r"line 1 of .*a.txt is 'train/ant/0.png'; expected a path and the"),
        (["train/ant/0.png 0", "train/ant/1.png x"], r"line 2 of .*a.txt is 'train/ant/1.png x'"),
        (["train/ant/99.png 0"], r"a.txt lists .*train/ant/99.png, and there is no such file"),
        (["val/cat/0.png 0"], r"a.txt and .*b.txt have 1 images in common, such as val/cat/0.png"),
        (["./train/../val/cat/0.png 0"], r"1 images in common, such as val/cat/0.png"),
        (["{folder}/val/cat/0.png 0"], r"1 images in common, such as val/cat/0.png"),
        (["train/ant/0.png 99999999999"], r"line 1 of .*a.txt has the label 99999999999; expected"),
        (["train/ant/0.png 0,5000000"], r"has the label 5000000; expected less than 1,000,000"),
        (["train/ant/0.png 0"] * 2, r"a.txt lists train/ant/0.png twice; expected one line for"),
        (["train/ant/0.png 0", "train/./ant/0.png 0"], r"0.png twice, also as train/./ant/0.png; "),
        (["train/ant/0.png 0", "train/ant/0.png 1"], r"0.png twice, with the labels 0 and 1; exp"),
        (["train/ant/0.png 0,1", "train/ant/0.png -"], r"twice, with the labels 0,1 and -; expect"),
        (["linked/cat/0.png 0"], r"1 images in common, such as val/cat/0.png"),
        ([""], r"a.txt is empty; expected lines such as 'train/cat/1.jpg 0'"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(folder, lines, sentence):
    (folder / "linked").symlink_to(folder / "val")
    train = write_list(folder, "a.txt", [line.format(folder=folder) for line in lines])
    test = write_list(folder, "b.txt", ["val/cat/0.png 2"])
    with pytest.raises(InputError, match=sentence) as told:
        load(folder, train_list=train, test_list=test)
    assert "\n" not in str(told.value)


def test_lists_of_a_relative_folder_may_hold_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    train = write_list(folder, "a.txt", [f"{folder}/val/cat/0.png 2", "train/ant/0.png 0"])
    test = write_list(folder, "b.txt", ["val/cat/0.png 2"])
    with pytest.raises(InputError, match=r"1 images in common, such as val/cat/0.png"):
        load(folder.name, train_list=train, test_list=test)


def test_a_list_that_was_cut_short_is_refused(folder):
    path = folder / "a.txt.xz"
    path.write_bytes(lzma.compress("\n".join(LINES).encode())[:-20])
    test = write_list(folder, "b.txt", ["val/cat/0.png 2"])
    with pytest.raises(InputError, match=r"list file .*a.txt.xz cannot be read: Compressed file"):
        load(folder, train_list=str(path), test_list=test)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"train_split": "all"}, r"has no sub-folder 'all'; .* its sub-folders, train, val, as"),
        ({"test_split": "train"}, r"the splits of .* are train, train; expected different ones"),
        ({"stream": True, "image_size": 0}, r"data.stream is True and data.image_size 0; expected"),
        ({"resize": "crop", "image_size": 0}, r"data.resize is 'crop' and data.image_size 0"),
        ({"image_size": 0}, r"train has images of more than one size, .*image_size=224"),
        ({"train_list": "a.txt"}, r"data.test_list is ''; expected a list file, as others"),
        ({"train_list": "a.txt", "test_list": "b.txt"}, r"list file /.*/a.txt cannot be read: "),
        ({"source": "folder:/no/such"}, r"but there is no folder /no/such"),
        ({"source": "digits"}, r"image_size is 8; expected 0 for 'digits'"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(folder, options, sentence):
    with pytest.raises(InputError, match=sentence) as told:
        load(folder, **options)
    assert "\n" not in str(told.value)


def test_other_classes_in_test_are_refused(folder):
    (folder / "val/dog").mkdir()
    with pytest.raises(InputError, match=r"val has a sub-folder 'dog', which .*train has not; exp"):
        load(folder)


@pytest.mark.parametrize("empty", [False, True])
def test_a_class_may_lack_in_test_and_validation(folder, empty):
    """Rare classes often have no image there: as if their folder were there and empty."""
    write(folder, ("test",))
    for split in ("test", "val"):
        shutil.rmtree(folder / split / "bee")
        if empty:
            (folder / split / "bee").mkdir()
    got = load(folder, validation_split="val")
    assert got.class_names == CLASSES
    assert got.test_labels.tolist() == [0, 2]
    assert got.validation_labels.tolist() == [0, 0, 2, 2]
    assert "classes without images in test: 'bee'" in got.notes
    np.testing.assert_array_equal(got.test_images, resized("test", [(0, 0), (2, 0)])[0])


def test_a_folder_without_splits_is_told_of_list_files(folder):
    """Classes at its root, or train alone: both have a way on."""
    way_on = r"train_list=FILE and --config.data.test_list=FILE, whose lines, such as 'cat/1.jpg 0'"
    with pytest.raises(InputError, match=rf"no sub-folder 'train'; .*, ant, bee, cat, .*{way_on}"):
        load(folder / "train")
    shutil.rmtree(folder / "val")
    with pytest.raises(InputError, match=rf"no sub-folder 'test'; .*, train, .*{way_on}"):
        load(folder)


def test_names_that_are_no_utf8_become_text(tmp_path):
    """So that they can be drawn and written; files are read by their own names."""
    for split in (b"train", b"test"):
        for name in (b"caf\xe9", b"tea"):
            folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), split, name))
            os.makedirs(folder)
            Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(f"{folder}/1.png")
    got = load(tmp_path)
    assert got.class_names == ("caf\\udce9", "tea")
    assert all(name.encode() for name in got.class_names)
    assert len(got.train_images) == 2
