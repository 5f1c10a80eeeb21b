"""Photographs of any set of TFDS: lists of labels, one label each, damaged ones, other files."""

import re

import numpy as np
import pytest
from prepared_sets import builder_of, photo, prepare, read, tfds

from lt_jax.errors import InputError


@pytest.mark.parametrize("keys", [None, ("image", "labels")])
def test_a_sequence_of_labels_is_multi_label_too(tmp_path, keys):
    names = ["ant", "bee", "cat"]
    tags = tfds.features.Sequence(tfds.features.ClassLabel(names=names))
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "labels": tags}
    builder = builder_of("TinyTags", features, str(tmp_path), keys=keys)
    given = [[0, 2], [], [1], [-1]]  # TFDS allows -1 for no label
    made = [{"image": photo(np.random.default_rng(i), i), "labels": g} for i, g in enumerate(given)]
    prepare(builder, {"train": made, "test": made[:3]})
    (_, labels), (_, fewer), got = read("tiny_tags", str(tmp_path))
    assert sorted(map(tuple, labels)) == [(0, 0, 0), (0, 0, 0), (0, 1, 0), (1, 0, 1)]
    assert sorted(map(tuple, fewer)) == [(0, 0, 0), (0, 1, 0), (1, 0, 1)]
    assert list(got) == names


def single_label(folder, made):
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=["ant", "bee"]),
    }
    builder = builder_of("TinyPhotos", features, str(folder), keys=("image", "label"))
    rows = [{"image": file, "label": i % 2} for i, file in enumerate(made)]
    prepare(builder, {"train": rows, "test": rows})


def test_photographs_with_one_label_are_resized_and_streamed(tmp_path):
    rng = np.random.default_rng(0)
    single_label(tmp_path, [photo(rng, i) for i in range(7)])
    with pytest.raises(InputError, match=r"more than one size.*--config.data.image_size=224"):
        read("tiny_photos", str(tmp_path), image_size=0)
    (now, labels), _, _ = read("tiny_photos", str(tmp_path))
    (later, same), _, _ = read("tiny_photos", str(tmp_path), stream=True)
    np.testing.assert_array_equal(later.read(np.arange(7)), now)
    assert labels.tolist() == same.tolist()
    assert sorted(labels) == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("options", [{"stream": True}, {}, {"image_size": 0}])
def test_a_damaged_photograph_is_named(tmp_path, options):
    rng = np.random.default_rng(0)
    files = [photo(rng, 0) for _ in range(4)]
    single_label(tmp_path, [*files, files[0][:200]])

    def use():
        (images, _), _, _ = read("tiny_photos", str(tmp_path), **options)
        return images.read(np.arange(5))

    with pytest.raises(InputError) as told:
        use()
    start = r"image \d of the split 'train' of tfds:tiny_photos cannot be read: [^\n]+"
    assert re.fullmatch(start, str(told.value))


def test_only_array_record_can_be_streamed(tmp_path, monkeypatch):
    """Where there is TensorFlow to read tfrecord; without it the set is refused anyway."""
    single_label(tmp_path, [photo(np.random.default_rng(0), i) for i in range(2)])
    info = tmp_path / "tiny_photos/1.1.0/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(InputError, match=r"stream is True, .* as tfrecord; expected array_record:"):
        read("tiny_photos", str(tmp_path), stream=True)
