"""Photographs as squares: crops where torchvision has them, pixels as Pillow makes them."""

import io

import numpy as np
import pytest

from lt_jax.data.decoding import Decoding, decode_image, fitted, middle_box, random_box

Image = pytest.importorskip("PIL.Image")
BILINEAR = Image.Resampling.BILINEAR


def smooth(width, height, seed=0):
    """A photograph without fine detail: noise of 8 x 8, enlarged."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def boxes(width, height, smallest, count=4000):
    rng = np.random.default_rng(1)
    return np.array([random_box(width, height, smallest, rng) for _ in range(count)])


def test_random_crops_have_uniform_areas_and_log_uniform_aspects():
    left, upper, right, lower = boxes(1000, 1000, 0.08).T
    width, height = right - left, lower - upper
    assert (left >= 0).all()
    assert (upper >= 0).all()
    assert (right <= 1000).all()
    assert (lower <= 1000).all()
    area = width * height / 1e6
    small = area[area < 0.7]  # larger ones do not fit at every aspect, and are tried again
    assert abs(small.min() - 0.08) < 0.005
    assert np.abs(np.quantile(small, [0.25, 0.5, 0.75]) - [0.235, 0.39, 0.545]).max() < 0.015
    aspect = np.log(width / height)[area < 0.7] / np.log(4 / 3)
    assert np.abs(np.quantile(aspect, [0, 0.25, 0.5, 0.75, 1]) - [-1, -0.5, 0, 0.5, 1]).max() < 0.06
    middle = ((left + right) / 2000).mean()
    assert abs(middle - 0.5) < 0.01


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 3), (148, 0, 152, 3)), ((3, 300), (0, 148, 3, 152))]
)
def test_where_no_crop_fits_the_middle_is_taken(size, expected):
    assert {tuple(box) for box in boxes(*size, 0.9, 20).tolist()} == {expected}


def test_a_whole_square_has_one_crop_of_its_whole_area():
    assert {tuple(box) for box in boxes(64, 64, 1.0, 200).tolist()} == {(0, 0, 64, 64)}


def test_a_random_crop_is_that_part_resized():
    """Away from the border, where this one may look at the pixels outside."""
    image, draw = smooth(120, 90), [3, 1, 0, 17]
    got = Decoding(32, smallest_area=0.3)(encoded(image, "PNG"), draw)
    box = random_box(120, 90, 0.3, np.random.default_rng(draw))
    expected = np.asarray(image.crop(box).resize((32, 32), BILINEAR)).astype(int)
    assert np.abs(got.astype(int) - expected)[2:-2, 2:-2].max() <= 2
    whole = np.asarray(image.resize((32, 32), BILINEAR)).astype(int)
    assert np.abs(got.astype(int) - whole).max() > 20


def test_crops_depend_on_the_draw_alone():
    image, decoding = encoded(smooth(60, 50), "PNG"), Decoding(16, smallest_area=0.08)
    first, again, other = (decoding(image, draw) for draw in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(decoding(image), Decoding(16)(image))


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (64, 64), (230, 1000)])
def test_the_middle_is_that_of_imagenet_evaluation(size):
    """Shorter side to 256, then 224 in the middle, as two steps of Pillow."""
    image = smooth(*size)
    width, height = size
    short = 256
    scaled = (short, int(short * height / width)) if width <= height else None
    scaled = scaled or (int(short * width / height), short)
    large = image.resize(scaled, BILINEAR)
    left, upper = (round((side - 224) / 2) for side in scaled)
    expected = np.asarray(large.crop((left, upper, left + 224, upper + 224))).astype(int)
    got = Decoding(224, "crop")(encoded(image, "PNG")).astype(int)
    assert np.abs(got - expected).max() <= 2
    box = middle_box(width, height, 224)
    assert box[2] - box[0] == pytest.approx(0.875 * min(size), rel=0.01)


def test_a_large_jpeg_is_decoded_small_without_loss(monkeypatch):
    """A crop four times as large as the result: half of the pixels each way are enough."""
    image, draw = smooth(800, 800), [5]
    file = encoded(image, "JPEG", quality=95)
    box = random_box(800, 800, 0.9, np.random.default_rng(draw))
    sizes = []
    real = Image.Image.resize

    def resize(self, *args, **options):
        sizes.append(self.size)
        return real(self, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", resize)
    got = Decoding(200, smallest_area=0.9)(file, draw).astype(int)
    assert sizes == [(400, 400)]
    expected = real(Image.open(io.BytesIO(file)).crop(box), (200, 200), BILINEAR)
    assert np.abs(got - np.asarray(expected).astype(int))[2:-2, 2:-2].max() <= 4
    sizes.clear()
    Decoding(500, smallest_area=0.9)(file, draw)
    Decoding(200)(file)  # nothing random: exactly as without this
    assert sizes == [(800, 800), (800, 800)]


@pytest.mark.parametrize("size", [(1061, 743), (505, 377), (500, 375)])
def test_crops_of_small_jpegs_are_where_they_were_drawn(size):
    """Sides that 2, 4 or 8 do not divide are rounded up; stripes would show the shift."""
    width, height = size
    x = np.broadcast_to(np.arange(width), (height, width))
    stripes = np.uint8(127.5 + 127.5 * np.sin(2 * np.pi * x / 64))
    file, whole = (encoded(Image.fromarray(stripes).convert("RGB"), f) for f in ("JPEG", "PNG"))
    for draw in range(20):
        decoding = Decoding(32, smallest_area=0.5)
        got, expected = (decoding(each, [draw]).astype(int) for each in (file, whole))
        assert np.abs(got - expected).mean() < 4


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_grey_images_of_16_bits_keep_their_shades(form):
    """As from microscopes and scanners; Pillow by itself would make them white."""
    deep = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    file = encoded(Image.fromarray(deep), form)
    expected = (deep >> 8).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(file)[..., 0], expected)
    np.testing.assert_array_equal(fitted(file, (48, 64, 3))[..., 1], expected)
    assert Decoding(16)(file).std() > 50


def test_images_of_floats_are_refused():
    file = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(ValueError, match="its pixels are in mode 'F', whose range is not known"):
        decode_image(file)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_crops_of_any_mode_are_rgb(mode):
    form = {"L": "JPEG", "CMYK": "JPEG"}.get(mode, "PNG")
    file = encoded(smooth(400, 300).convert(mode), form)
    for decoding in (Decoding(50, smallest_area=0.5), Decoding(50, "crop")):
        got = decoding(file, [0])
        assert (got.shape, got.dtype) == ((50, 50, 3), np.uint8)
        assert got.std() > 10


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_images_to_predict_are_decoded_as_those_of_the_test_split(mode, resize):
    file = encoded(smooth(90, 60).convert(mode), "PNG")
    expected = Decoding(32, resize)(file)
    np.testing.assert_array_equal(fitted(file, (32, 32, 3), resize), expected)
    grey = Image.open(io.BytesIO(file)).convert("L")
    (flat,) = np.moveaxis(fitted(encoded(grey, "PNG"), (32, 32, 1), resize), -1, 0)
    np.testing.assert_array_equal(flat, fitted(file, (32, 32, 1), resize)[..., 0])
    if mode == "L":
        np.testing.assert_array_equal(flat, expected[..., 0])


def test_an_image_of_the_right_size_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 1)).astype(np.uint8)
    np.testing.assert_array_equal(fitted(pixels, (5, 9, 1)), pixels)
