"""Image files that cannot be decoded: named and refused, or named, replaced and counted."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import warnings

import numpy as np
import pytest
from class_folders import Image, arrays, folder, load, resized  # noqa: F401 (a fixture)

from lt_jax import cli
from lt_jax.errors import InputError


def damage(folder):
    (folder / "train/bee/1.png").write_bytes(b"")
    whole = (folder / "train/bee/2.png").read_bytes()
    (folder / "train/bee/2.png").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("options", [{}, {"image_size": 0}, {"stream": True}])
def test_a_damaged_file_is_named(folder, options):
    for path in folder.rglob("*.png"):  # of one size
        Image.new("RGB", (8, 8)).save(path)
    damage(folder)
    size = " with --config.data.image_size=SIZE" if "image_size" in options else ""
    way_out = f"; --config.data.on_corrupt=skip{size} replaces such images$"
    with pytest.raises(InputError, match=rf"train/bee/1.png cannot be read: [^\n]+{way_out}"):
        arrays(load(folder, **options).train_images)


@pytest.mark.parametrize("stream", [False, True])
def test_a_damaged_file_is_replaced_by_the_next_of_its_class(folder, stream):
    damage(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = load(folder, on_corrupt="skip", stream=stream)
        images = [arrays(got.train_images) for _ in range(2)]
    whole = resized("train")[0]
    expected = whole.copy()
    expected[[7, 8]] = whole[9]  # bees 1 and 2 become bee 3
    np.testing.assert_array_equal(images, [expected, expected])
    sentences = {str(w.message) for w in told if "cannot be read" in str(w.message)}
    assert len(sentences) == len([w for w in told if "cannot be read" in str(w.message)]) == 2
    assert any("train/bee/1.png" in s and "train/bee/3.png stands for it" in s for s in sentences)
    # Of streamed images nobody knows before all have been read.
    assert got.info().get("replaced_images") == (None if stream else {"train": 2})


def test_replaced_images_are_counted_in_the_split_they_are_in(folder):
    """Those of validation are cut from train, and those left out by a long tail are not counted."""
    damage(folder)
    for name in ("0", "1"):
        (folder / f"val/cat/{name}.png").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = load(folder, on_corrupt="skip", validation_size=5, normalization="imagenet")
        assert got.replaced.pop("test") == 2
        assert sum(got.replaced.values()) == 2  # of the bees, wherever they have come
        few = load(folder, on_corrupt="skip", class_counts=(2, 0, 2))
    assert few.info()["replaced_images"] == {"test": 2}


def test_scripts_tell_of_replaced_images_as_of_everything_else(folder):
    """Without the line of code that Python adds to a warning; warnings of others keep it."""
    damage(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load(folder, on_corrupt="skip")
    ours = [w for w in told if "cannot be read" in str(w.message)]
    assert len(ours) == 2
    for w in ours:
        text = cli.plain_warning(w.message, w.category, w.filename, w.lineno)
        assert text == f"lt_jax: {w.message}\n"
    other = cli.plain_warning("late", UserWarning, __file__, 1)
    assert other.startswith(f"{__file__}:1: UserWarning: late")


@pytest.mark.parametrize("stream", [False, True])
def test_a_damaged_file_is_never_replaced_by_one_of_validation(folder, stream):
    """With two bees left to train on, of which one is damaged, the other stands for it."""
    damage(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(4):
            got = load(
                folder, on_corrupt="skip", stream=stream, validation_size=5, split_seed=seed,
                normalization="imagenet",
            )  # fmt: skip
            train = {image.tobytes() for image in arrays(got.train_images)}
            validation = {image.tobytes() for image in arrays(got.validation_images)}
            grey = np.full((8, 8, 3), 128, np.uint8).tobytes()
            assert not train & validation - {grey}
