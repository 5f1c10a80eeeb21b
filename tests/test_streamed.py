"""Streamed images: in exactly the order asked for, from where a run stopped, and no thread left."""

import contextlib
import gc
import io
import threading
import time

import numpy as np
import pytest

from lt_jax.data.decoding import decode_image
from lt_jax.data.streamed import StreamedImages
from lt_jax.errors import InputError

pytest.importorskip("grain")
Image = pytest.importorskip("PIL.Image")

SHAPE = (4, 5, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (50, *SHAPE)).astype(np.uint8)
ROWS = np.random.default_rng(1).integers(0, 50, (6, 8))  # as a sampler draws: with repetitions


@pytest.fixture
def images():
    """Images that take unequally long to load."""

    def load(index):
        time.sleep(0.0003 * (index % 7))
        return PIXELS[index]

    return StreamedImages(load, len(PIXELS), SHAPE, what="the split 'train' of tfds:bugs")


def encoded(image, form):
    """The image as a file of that form."""
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]


def test_images_look_like_an_array_and_are_read_as_from_one(images):
    assert (len(images), images.shape, images.dtype) == (50, PIXELS.shape, PIXELS.dtype)
    np.testing.assert_array_equal(images.read([3, 49, 3]), PIXELS[[3, 49, 3]])
    assert images.read([]).shape == (0, *SHAPE)


def test_batches_come_in_the_order_of_the_rows(images):
    batches = list(images.batches(ROWS))
    np.testing.assert_array_equal(batches, PIXELS[ROWS])
    assert batches[0].dtype == np.uint8


@pytest.mark.parametrize("done", [1, 4, 6])
def test_an_epoch_goes_on_where_it_stopped(images, done):
    whole = list(images.batches(ROWS))
    with contextlib.closing(images.batches(ROWS)) as batches:
        begun = [next(batches) for _ in range(done)]
    np.testing.assert_array_equal(begun + list(images.batches(ROWS[done:])), whole)


def test_a_part_is_indexed_as_of_an_array(images):
    part = images[np.array([40, 7, 7, 12])][[3, 0]]
    assert part.shape == (2, *SHAPE)
    np.testing.assert_array_equal(part.read([0, 1, 1]), PIXELS[[12, 40, 40]])
    np.testing.assert_array_equal(next(part.batches(np.array([[1, 0]]))), PIXELS[[40, 12]])


def test_images_of_their_final_size_are_not_cropped(images):
    assert images.cropping(0).shape == images.shape
    with pytest.raises(
        InputError, match=r"crop is 0.5, but image 0 of the split .* as \(4, 5, 3\)"
    ):
        images.cropping(0.5)


def test_only_what_is_used_soon_is_read():
    seen = []
    images = StreamedImages(lambda i: seen.append(i) or PIXELS[i % 50], 100_000, SHAPE)
    part = images[np.arange(50_000)]
    batches = part.batches(np.arange(50_000).reshape(-1, 8))
    assert seen == []
    with contextlib.closing(batches):
        next(batches)
    assert 8 <= len(seen) < 200


def fails_inside(batches):
    with contextlib.closing(batches):
        for _ in batches:
            raise ZeroDivisionError


@pytest.mark.parametrize("way", ["closed", "forgotten", "failed", "read to the end"])
def test_no_thread_is_left(images, way):
    batches = images.batches(np.arange(50).repeat(20).reshape(-1, 8))
    next(batches)
    assert threads(), "the threads that this test looks for have another name"
    if way == "closed":
        batches.close()
    elif way == "failed":
        with pytest.raises(ZeroDivisionError):
            fails_inside(batches)
    elif way == "read to the end":
        assert len(list(batches)) == 124
    elif way == "forgotten":
        del batches
        gc.collect()
    deadline = time.monotonic() + 5  # what has begun to load is loaded
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads() == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [(b"no image", "cannot identify image file"), (None, "image file is truncated")],
)
def test_a_damaged_image_is_named(file, reason):
    whole = encoded(Image.fromarray(PIXELS[0].repeat(20, 0).repeat(20, 1)), "JPEG")
    files = [whole] * 10
    files[6] = whole[: len(whole) // 2] if file is None else file
    images = StreamedImages(
        lambda i: decode_image(files[i], 8), 10, (8, 8, 3), what="the split 'train' of tfds:bugs"
    )
    part = images[[9, 8, 7, 6]]
    with pytest.raises(InputError) as told:
        list(part.batches(np.array([[0, 1], [2, 3]])))
    start = "image 6 of the split 'train' of tfds:bugs cannot be read: "
    assert str(told.value).startswith(start + reason)
    assert "\n" not in str(told.value)
    assert " at 0x" not in str(told.value)


def triangle_weights(size, out):
    """Weights ``[out, size]`` of a triangle as wide as what one pixel of the result covers."""
    scale = size / out
    centre = (np.arange(out) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centre[:, None]) / max(scale, 1)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("height", "width", "size"), [(40, 27, 8), (9, 30, 16), (8, 8, 8)])
def test_images_are_resized_by_an_antialiased_triangle(height, width, size):
    """Pillow rounds between its two passes, hence one level of difference."""
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3)).astype(np.uint8)
    rows, columns = triangle_weights(height, size), triangle_weights(width, size)
    expected = np.einsum("hi,wj,ijc->hwc", rows, columns, pixels.astype(np.float64))
    for image in (pixels, encoded(Image.fromarray(pixels), "PNG")):
        got = decode_image(image, size)
        assert (got.shape, got.dtype) == ((size, size, 3), np.uint8)
        assert np.abs(got - expected).max() <= 1.01


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_become_rgb(mode):
    image = Image.fromarray(PIXELS[0]).convert(mode)
    file = encoded(image, "TIFF")
    got = decode_image(file, 4)
    expected = image.convert("RGB").resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got, np.asarray(expected))
    if mode in ("L", "1"):
        np.testing.assert_array_equal(got, got[..., :1].repeat(3, -1))


def test_files_in_memory_can_be_streamed():
    files = [encoded(Image.fromarray(p), "PNG") for p in PIXELS]
    images = StreamedImages(lambda i: decode_image(files[i], 5), len(files), (5, 5, 3))
    expected = [
        np.asarray(Image.fromarray(p).resize((5, 5), Image.Resampling.BILINEAR)) for p in PIXELS
    ]
    np.testing.assert_array_equal(list(images.batches(ROWS)), np.array(expected)[ROWS])
