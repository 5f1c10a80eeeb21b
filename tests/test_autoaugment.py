"""AutoAugment against Pillow, one image and one operation at a time; its draws; many devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lt_jax import autoaugment
from lt_jax.errors import InputError

Image = pytest.importorskip("PIL.Image")
ImageEnhance = pytest.importorskip("PIL.ImageEnhance")
ImageOps = pytest.importorskip("PIL.ImageOps")

KEY = jax.random.key(5)
GREY = (128, 128, 128)

# Written down apart from the library's: operation, probability in tenths, magnitude; twice.
POLICY = [
    line.split()
    for line in """
    Invert 1 7 Contrast 2 6
    Rotate 7 2 TranslateX 3 9
    Sharpness 8 1 Sharpness 9 3
    ShearY 5 8 TranslateY 7 9
    AutoContrast 5 8 Equalize 9 2
    ShearY 2 7 Posterize 3 7
    Color 4 3 Brightness 6 7
    Sharpness 3 9 Brightness 7 9
    Equalize 6 5 Equalize 5 1
    Contrast 6 7 Sharpness 6 5
    Color 7 7 TranslateX 5 8
    Equalize 3 7 AutoContrast 4 8
    TranslateY 4 3 Sharpness 2 6
    Brightness 9 6 Color 2 8
    Solarize 5 2 Invert 0 3
    Equalize 2 0 AutoContrast 6 0
    Equalize 2 8 Equalize 6 4
    Color 9 9 Equalize 6 6
    AutoContrast 8 4 Solarize 2 8
    Brightness 1 3 Color 7 0
    Solarize 4 5 AutoContrast 9 3
    TranslateY 9 9 TranslateY 7 9
    AutoContrast 9 2 Solarize 8 3
    Equalize 8 8 Invert 1 3
    TranslateY 7 9 AutoContrast 9 1
    """.strip().splitlines()
]


def shift(picture, matrix):
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=GREY
    )


def autocontrast(picture):
    """Pillow's formula in integers: Pillow computes it in floats, and rounds down (see below)."""
    values = np.asarray(picture).astype(int)
    low, high = values.min((0, 1)), values.max((0, 1))
    stretched = (values - low) * 255 // np.maximum(high - low, 1)
    return Image.fromarray(np.where(high > low, stretched, values).astype(np.uint8))


def spaced(first, last, magnitude):
    return float(np.linspace(first, last, 10)[magnitude])


def enhance(name, picture, magnitude, sign):
    return getattr(ImageEnhance, name)(picture).enhance(1 + sign * spaced(0, 0.9, magnitude))


REFERENCE = {
    "ShearX": lambda p, m, s: shift(p, (1, s * spaced(0, 0.3, m), 0, 0, 1, 0)),
    "ShearY": lambda p, m, s: shift(p, (1, 0, 0, s * spaced(0, 0.3, m), 1, 0)),
    "TranslateX": lambda p, m, s: shift(p, (1, 0, s * spaced(0, 150 / 331, m) * p.width, 0, 1, 0)),
    "TranslateY": lambda p, m, s: shift(p, (1, 0, 0, 0, 1, s * spaced(0, 150 / 331, m) * p.height)),
    "Rotate": lambda p, m, s: p.rotate(s * spaced(0, 30, m), fillcolor=GREY),
    "AutoContrast": lambda p, m, s: autocontrast(p),
    "Invert": lambda p, m, s: ImageOps.invert(p),
    "Equalize": lambda p, m, s: ImageOps.equalize(p),
    "Solarize": lambda p, m, s: ImageOps.solarize(p, spaced(256, 0, m)),
    "Posterize": lambda p, m, s: ImageOps.posterize(p, round(spaced(8, 4, m))),
    "Contrast": functools.partial(enhance, "Contrast"),
    "Color": functools.partial(enhance, "Color"),
    "Brightness": functools.partial(enhance, "Brightness"),
    "Sharpness": functools.partial(enhance, "Sharpness"),
}


def reference(name, image, magnitude, negative):
    picture = Image.fromarray(image)
    return np.asarray(REFERENCE[name](picture, int(magnitude), -1 if negative else 1))


def pictures(height, width):
    """Constant, two-valued, smooth and noisy images: edge cases of the histograms, and ordinary."""
    y, x, c = np.mgrid[:height, :width, :3]
    rng = np.random.default_rng(0)
    kinds = [np.full(x.shape, value) for value in (0, 77, 255)]
    kinds += [np.where(x < width // 2, 40, 200), np.where(x + y == 0, 31, 30)]
    kinds += [np.where(c == 0, x % 2 * 255, np.where(c == 1, y % 2 * 9, 7))]
    kinds += [x * 200 // width + y * 50 // height, 255 - (7 * x + 3 * y + 40 * c) % 256]
    kinds += [128 + 90 * np.sin(x / 5 + c) * np.cos(y / 7)]
    kinds += [rng.integers(low, high, x.shape) for low, high in ((0, 256), (90, 131), (250, 256))]
    kinds += [rng.choice([3, 250], x.shape, p=[0.1, 0.9]), rng.integers(0, 256, x.shape)]
    return np.stack(kinds).astype(np.uint8)


apply = jax.jit(autoaugment._apply)
jitted = jax.jit(autoaugment.autoaugment)


def apply_one(name, images, magnitude, negative):
    """The operation on every image, with the magnitude and sign of each."""
    code = np.full(len(images), autoaugment._NAMES.index(name), np.int32)
    return np.asarray(apply(images, code, magnitude.astype(np.int32), negative.astype(bool)))


@pytest.mark.parametrize("shape", [(32, 32), (21, 30), (2, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("name", REFERENCE)
def test_every_operation_is_pillows_bit_for_bit_at_every_magnitude_and_sign(name, shape):
    # Geometry too, with no pixel to spare: the source is computed in Pillow's own fixed point.
    kinds = pictures(*shape)
    image, magnitude, negative = (a.ravel() for a in np.mgrid[: len(kinds), :10, :2])
    rows = zip(kinds[image], magnitude, negative, strict=True)
    want = np.stack([reference(name, *row) for row in rows])
    np.testing.assert_array_equal(apply_one(name, kinds[image], magnitude, negative), want)


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_blends_round_twice_as_pillow_does_where_one_rounding_would_show(name):
    # By 1.2, 0.6 and 1.3 some sums are whole numbers that two roundings just miss: 1 in 60, 90
    # and 800 of all pairs of values. So many noisy images have many of each.
    images = np.random.default_rng(1).integers(0, 256, (280, 32, 32, 3)).astype(np.uint8)
    magnitude, negative = np.resize([2, 4, 3], 280), np.resize([0, 1, 0], 280)
    rows = zip(images, magnitude, negative, strict=True)
    want = np.stack([reference(name, *row) for row in rows])
    np.testing.assert_array_equal(apply_one(name, images, magnitude, negative), want)


def test_autocontrast_is_pillows_but_for_one_level_where_the_quotient_is_whole():
    # Pillow multiplies by the float 255 / (high - low) and rounds down, so that it may fall just
    # below the whole number that integers give, for example 254 for the lightest value.
    rng = np.random.default_rng(2)
    low, span = rng.integers(0, 128, (2, 280, 1, 1, 3))
    steps = (np.arange(1024) % 256).reshape(1, 32, 32, 1)
    images = (low + np.minimum(steps, span)).astype(np.uint8)
    got = apply_one("AutoContrast", images, np.zeros(280), np.zeros(280)).astype(int)
    pillow = np.stack([np.asarray(ImageOps.autocontrast(Image.fromarray(im))) for im in images])
    whole = (images - low) * 255 % np.maximum(span, 1) == 0
    assert ((got - pillow)[~whole] == 0).all()
    assert np.isin(got - pillow, (0, 1)).all()
    assert (got.max((1, 2)) == np.where(span > 0, 255, low)[:, 0, 0]).all()


def test_the_policy_is_the_papers_to_the_last_magnitude():
    # Drawn images alone would not show a slip in an operation that is rarely applied.
    for pair, row in zip(autoaugment._POLICY, POLICY, strict=True):
        assert [f"{name} {round(10 * p)} {m}" for name, p, m in pair] == [
            " ".join(row[:3]),
            " ".join(row[3:]),
        ]


def test_each_image_gets_the_two_operations_that_were_drawn_for_it():
    images = np.concatenate([pictures(32, 32)] * 30)
    drawn = [np.asarray(part) for part in autoaugment._draw(KEY, len(images))]
    want = []
    for image, sub_policy, applied, negative in zip(images, *drawn, strict=True):
        for step in range(2):
            name, _, magnitude = POLICY[sub_policy][3 * step : 3 * step + 3]
            if applied[step]:
                image = reference(name, image, magnitude, negative[step])
        want.append(image)
    np.testing.assert_array_equal(jitted(KEY, images), want)
    assert len(set(drawn[0])) == 25


@pytest.fixture(scope="module")
def many_draws():
    """50,000 draws: sub-policies, applied and negated operations."""
    draw = jax.jit(autoaugment._draw, static_argnums=1)
    return [np.asarray(part) for part in draw(jax.random.key(1), 50_000)]


def chi_square(count, expected):
    return ((count - expected) ** 2 / expected).sum()


def test_sub_policies_are_equally_frequent(many_draws):
    count = np.bincount(many_draws[0], minlength=25)
    assert chi_square(count, 2000) < 51.2  # 24 degrees of freedom; probability 0.001


def test_operations_are_applied_independently_with_the_probabilities_of_the_policy(many_draws):
    sub_policy, applied, _ = many_draws
    total = 0.0
    for row, entry in enumerate(POLICY):
        first, second = int(entry[1]) / 10, int(entry[4]) / 10
        chance = np.outer([1 - first, first], [1 - second, second])
        pairs = applied[sub_policy == row].astype(int)
        count = np.bincount(2 * pairs[:, 0] + pairs[:, 1], minlength=4)
        assert (count[chance.ravel() == 0] == 0).all()
        possible = chance.ravel() > 0
        total += chi_square(count[possible], len(pairs) * chance.ravel()[possible])
    assert total < 113.6  # 24 * 3 + 1 degrees of freedom, a probability of 0 leaves 1 of 3


def test_signs_are_fair_and_independent_of_all_else(many_draws):
    sub_policy, applied, negative = many_draws
    for other in (sub_policy % 2, applied[:, 0], applied[:, 1]):
        for value in (0, 1):
            signs = negative[other == value].astype(int)
            count = np.bincount(2 * signs[:, 0] + signs[:, 1], minlength=4)
            assert chi_square(count, len(signs) / 4) < 16.3  # 3 degrees; probability 0.001


def test_draws_differ_between_images_and_between_keys():
    images = np.broadcast_to(pictures(32, 32)[8], (420, 32, 32, 3))
    got, other = np.asarray(jitted(KEY, images)), np.asarray(jitted(jax.random.key(6), images))
    assert len({image.tobytes() for image in got}) > 50
    assert (got != other).any((1, 2, 3)).mean() > 0.8
    np.testing.assert_array_equal(got, jitted(KEY, images))


SMALL = np.resize(pictures(8, 9), (32, 8, 9, 3))


def test_a_larger_program_around_it_changes_nothing():
    @jax.jit
    def larger(key, images):
        changed = autoaugment.autoaugment(key, 255 - images)
        return changed, changed.astype(jnp.float32) / 255

    changed, scaled = larger(KEY, 255 - SMALL)
    np.testing.assert_array_equal(changed, jitted(KEY, SMALL))
    np.testing.assert_array_equal(np.round(255 * np.asarray(scaled)), changed)


def test_vmap_over_replicas_is_each_replica_alone():
    images, keys = np.stack([SMALL, SMALL[::-1]]), jax.random.split(KEY, 2)
    for got, key, batch in zip(jax.vmap(jitted)(keys, images), keys, images, strict=True):
        np.testing.assert_array_equal(got, jitted(key, batch))


def test_float64_mode_changes_nothing():
    with jax.enable_x64(True):
        got = jitted(KEY, SMALL)
    assert got.dtype == jnp.uint8
    np.testing.assert_array_equal(got, jitted(KEY, SMALL))


def test_eight_devices_give_what_one_gives_and_nothing_moves_between_them():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(SMALL, NamedSharding(mesh, P("data")))
    compiled = jitted.lower(KEY, spread).compile()
    got = compiled(KEY, spread)
    assert got.sharding.spec[0] == "data"
    np.testing.assert_array_equal(np.asarray(got), np.asarray(jitted(KEY, SMALL)))
    moves = ("all-gather(", "all-reduce(", "all-to-all(", "collective-permute(")
    assert not any(word in compiled.as_text() for word in moves)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 8, 8, 1), np.uint8), r"shape \(2, 8, 8, 1\) and dtype uint8; expected uint8"),
        (
            np.zeros((8, 8, 3), np.uint8),
            r"shape \(8, 8, 3\) and dtype uint8; expected uint8 \[B, H",
        ),
        (np.zeros((2, 8, 8, 3), np.float32), r"\(2, 8, 8, 3\) and dtype float32; expected uint8"),
        (np.zeros((2, 0, 8, 3), np.uint8), r"shape \(2, 0, 8, 3\) .* sides of 1 to 2048 pixels"),
        (np.zeros((1, 2049, 1, 3), np.uint8), r"shape \(1, 2049, 1, 3\) .* sides of 1 to 2048"),
    ],
    ids=["channels", "rank", "dtype", "empty", "large"],
)
def test_images_it_cannot_take_are_refused_in_a_sentence(images, sentence):
    with pytest.raises(InputError, match=sentence):
        autoaugment.autoaugment(KEY, images)


def test_a_batch_of_no_images_is_taken():
    empty = jax.eval_shape(autoaugment.autoaugment, KEY, np.zeros((0, 8, 9, 3), np.uint8))
    assert (empty.shape, empty.dtype) == ((0, 8, 9, 3), jnp.uint8)
