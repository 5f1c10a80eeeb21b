"""Composed images: what is on a canvas, how often, where, and from which digit images."""

import itertools

import numpy as np
import pytest
from made_up import SIDE, pool
from scipy import stats

from lt_jax.data import Canvas, Composition, canvas, compose
from lt_jax.errors import InputError
from lt_jax.longtail import long_tailed_profile


def white(count=400, side=SIDE):
    """Digit images that are their whole box."""
    return np.full((count, side, side, 1), 255, np.uint8), pool(count)[1]


def made(train=None, test=None, *, validation=50, weights=(1.0,) * 10, seed=0, **fields):
    """Train, validation and test canvases, each (images, labels)."""
    fields = {"images": 300, "test_images": 200, **fields}
    composition = Composition(Canvas(**fields), validation, weights, seed)
    return compose(train or pool(), test or pool(100, seed=1), composition)


def single(**fields):
    """Canvases that are one digit image each."""
    return made(**{"min_digits": 1, "max_digits": 1, "size": SIDE, **fields})


def positions(images):
    """Number of the place of the box on canvases that hold one white box each."""
    rows, columns = (images[..., 0].max(axis=a).argmax(axis=1) for a in (2, 1))
    return rows * (images.shape[1] - SIDE + 1) + columns


# What is shown


def test_splits_have_no_digit_image_in_common_and_the_labels_are_theirs():
    train, test = pool(), pool(100, seed=1)
    known = [{i.tobytes(): y for i, y in zip(*p, strict=True)} for p in (train, test)]
    parts = single(train=train, test=test, images=4000, test_images=2000, validation=1000)
    shown = [{image.tobytes() for image in images} for images, _ in parts]
    assert not shown[0] & shown[1]
    assert shown[0] | shown[1] == set(known[0])  # all of them come, the more so the smaller part
    assert shown[2] == set(known[1])
    assert len(shown[1]) == len(known[0]) // 5
    for images, labels in parts:
        classes = [{**known[0], **known[1]}[image.tobytes()] for image in images]
        np.testing.assert_array_equal(labels, np.eye(10, dtype=np.uint8)[classes])


def test_without_validation_canvases_all_digits_are_for_training():
    images, labels = single(images=6000, validation=0)[1]
    assert images.shape == (0, SIDE, SIDE, 1)
    assert labels.shape == (0, 10)
    shown = single(images=6000, validation=0)[0][0]
    assert len({image.tobytes() for image in shown}) == 400


def test_where_digits_overlap_the_brighter_pixel_is_seen():
    """On a canvas as small as a digit every canvas is the maximum of two images, and no other."""
    train = pool(60)
    images, labels = made(
        train=train, validation=0, min_digits=2, max_digits=2, size=SIDE, overlap=1.0
    )[0]
    pairs = {}
    for i, j in itertools.combinations_with_replacement(range(60), 2):
        both = np.maximum(train[0][i], train[0][j])
        pairs[both.tobytes()] = {int(train[1][i]), int(train[1][j])}
    for image, label in zip(images, labels, strict=True):
        assert pairs[image.tobytes()] == set(np.flatnonzero(label).tolist())
    assert (labels.sum(axis=1) == 1).any()  # a class may come twice


def test_canvases_are_dark_where_there_is_no_digit_and_keep_their_channels():
    colour = np.full((400, SIDE, SIDE, 3), (9, 80, 200), np.uint8), pool()[1]
    images, _ = made(train=colour, test=colour, overlap=0.0, size=12)[0]
    assert images.shape == (300, 12, 12, 3)
    assert images.dtype == np.uint8
    pixels = images.reshape(-1, 3)
    assert {tuple(p) for p in np.unique(pixels, axis=0).tolist()} == {(0, 0, 0), (9, 80, 200)}


@pytest.mark.parametrize(("size", "side"), [(0, 10), (9, 9), (4, 4)])
def test_a_size_of_zero_is_two_and_a_half_digits(size, side):
    images, _ = made(size=size, min_digits=1, max_digits=1)[0]
    assert images.shape[1:3] == (side, side)


# How often


@pytest.mark.parametrize("kind", ["exponential", "step"])
def test_single_digits_are_as_frequent_as_their_weights_say(kind):
    weights = long_tailed_profile(10, 20.0, kind)
    labels = [labels for _, labels in single(images=20_000, test_images=20_000, weights=weights)]
    assert stats.chisquare(labels[0].sum(axis=0), 20_000 * weights / weights.sum()).pvalue > 1e-3
    assert stats.chisquare(labels[2].sum(axis=0)).pvalue > 1e-3
    assert stats.chisquare(labels[0].sum(axis=0)).pvalue < 1e-9


def test_a_class_is_on_a_canvas_with_the_documented_probability():
    """With 2 to 4 digits: the mean of 1 - (1 - p)^k. Long-tailed in train, equal elsewhere."""
    weights = long_tailed_profile(10, 50.0)
    p = weights / weights.sum()
    sizes = {"images": 20_000, "test_images": 20_000, "validation": 20_000}
    train, validation, test = (y for _, y in made(weights=weights, overlap=1.0, **sizes))
    for labels, share in ((train, p), (validation, np.full(10, 0.1)), (test, np.full(10, 0.1))):
        expected = np.mean([1 - (1 - share) ** k for k in (2, 3, 4)], axis=0)
        deviation = np.sqrt(expected * (1 - expected) / 20_000)
        assert (abs(labels.mean(axis=0) - expected) < 4 * deviation).all()
    assert train[:, 0].sum() > 25 * train[:, 9].sum()


def test_every_number_of_digits_is_equally_likely():
    images, _ = made(train=white(), images=6000, min_digits=2, max_digits=5, overlap=0.0, size=24)[
        0
    ]
    digits = (images > 0).sum(axis=(1, 2, 3)) // SIDE**2
    assert stats.chisquare(np.bincount(digits)[2:]).pvalue > 1e-3
    assert set(digits.tolist()) == {2, 3, 4, 5}


# Where


def test_a_single_digit_is_anywhere_with_equal_probability():
    images, _ = made(train=white(), images=20_000, min_digits=1, max_digits=1, size=9)[0]
    assert stats.chisquare(np.bincount(positions(images), minlength=36)).pvalue > 1e-3


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6, 1.0])
def test_no_digit_covers_more_of_another_than_allowed(overlap):
    """Seen on the canvas: two white boxes lack as many pixels as they share."""
    images, _ = made(
        train=white(side=8), test=white(side=8), images=3000, min_digits=2, max_digits=2,
        size=18, overlap=overlap,
    )[0]  # fmt: skip
    shared = 2 * 64 - (images > 0).sum(axis=(1, 2, 3))
    assert shared.max() <= overlap * 64
    assert shared.max() > 0.8 * overlap * 64 - 1  # the bound is what limits
    assert (shared == 0).any()


@pytest.mark.parametrize(("digits", "size", "overlap"), [(4, 20, 0.0), (4, 18, 0.25), (6, 24, 0.4)])
def test_boxes_of_many_digits_pairwise(digits, size, overlap):
    """Pixel by pixel, every box against every other."""
    corners = canvas._corners(np.random.default_rng(0), 300, digits, 8, size, overlap)
    assert corners.shape == (300, digits, 2)
    assert corners.min() >= 0
    assert corners.max() <= size - 8
    for boxes in corners.tolist():
        pixels = [{(r + y, c + x) for y in range(8) for x in range(8)} for r, c in boxes]
        for first, second in itertools.combinations(pixels, 2):
            assert len(first & second) <= overlap * 64


# Seeds


def test_canvases_depend_on_the_seed_and_those_of_test_on_nothing_but_the_canvas():
    first, again, other = made(seed=3), made(seed=3), made(seed=4)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    for part in (0, 1):
        assert (first[part][1] != other[part][1]).any()
        assert (first[part][0] != other[part][0]).any()
    changed = made(seed=4, weights=long_tailed_profile(10, 50.0), images=20, validation=7)
    for parts in (other, changed):
        np.testing.assert_array_equal(first[2][0], parts[2][0])
        np.testing.assert_array_equal(first[2][1], parts[2][1])


def test_validation_canvases_do_not_depend_on_the_tail():
    """Runs of different imbalance select on the same images."""
    flat, tail = made(), made(weights=long_tailed_profile(10, 100.0), images=123)
    np.testing.assert_array_equal(flat[1][0], tail[1][0])
    assert (flat[0][1][:123] != tail[0][1]).any()


def test_the_same_digits_come_on_a_larger_canvas():
    small, large = made(size=10), made(size=14, overlap=0.1)
    for a, b in zip(small, large, strict=True):
        np.testing.assert_array_equal(a[1], b[1])


# Bad input


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"images": 0}, r"data.canvas.images is 0; expected a whole number of at least 1"),
        ({"test_images": 1.5}, r"data.canvas.test_images is 1.5; expected a whole number of at"),
        ({"size": -1}, r"data.canvas.size is -1; expected a whole number of at least 0"),
        ({"size": 3}, r"data.canvas.size is 3; expected at least 4, the side of a digit, or 0 for"),
        ({"min_digits": 0}, r"data.canvas.min_digits is 0; expected a whole number of at least 1"),
        ({"max_digits": 1}, r"data.canvas.max_digits is 1; expected at least min_digits, 2"),
        ({"overlap": 1.1}, r"data.canvas.overlap is 1.1; expected a number in \[0, 1\]"),
        ({"overlap": float("nan")}, r"data.canvas.overlap is nan; expected a number in \[0, 1\]"),
        (
            {"size": 7, "overlap": 0.0},
            r"2 digits of 4 px hardly fit on a canvas of 7 px if none may cover more than 0 of an",
        ),
        ({"validation": -1}, r"data.validation_size is -1; expected a whole number of at least 0"),
    ],
)
def test_impossible_canvases_are_refused_in_a_sentence(fields, sentence):
    with pytest.raises(InputError, match=sentence) as told:
        made(**fields)
    assert "\n" not in str(told.value)


def test_a_pool_without_some_digit_is_refused():
    images, labels = pool()
    with pytest.raises(InputError, match=r"there are \[0, \d.* images of the 10 digits .*; expect"):
        made(train=(images[labels > 0], labels[labels > 0]))
