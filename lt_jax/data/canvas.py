"""Composed sets: each image is a canvas with several digits on it, its labels are their classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.data.checks import Images, Labels
from lt_jax.data.splits import validation_indices
from lt_jax.errors import InputError
from lt_jax.longtail import count_classes
from lt_jax.longtail.counts import check_whole

COMPOSED = {"multi_digits": "digits", "multi_mnist": "tfds:mnist"}
NUM_DIGITS = 10
VALIDATION_SHARE = 5  # one digit in five is shown on validation canvases only
DIGIT_TO_CANVAS = 2.5
TRIES = 32  # places for a digit, before its canvas begins anew
RESTARTS = 1000  # of a canvas, before the request counts as impossible
CHUNK = 250  # canvases at once, so that an impossible request is refused within seconds

Pool = tuple[Images, Labels]
Composed = tuple[Images, npt.NDArray[np.uint8]]
_LOW = {"images": 1, "test_images": 1, "size": 0, "min_digits": 1, "max_digits": 1}


class Canvas(NamedTuple):
    """What canvases look like and how many there are.

    Attributes:
      images: canvases to train on.
      test_images: canvases to test on.
      size: side of a canvas in pixels; 0 for 2.5 times the digit's.
      min_digits: fewest digits of a canvas.
      max_digits: most digits; every number between is equally likely.
      overlap: the largest share of a digit's box that the box of any other may cover, in [0, 1].
    """

    images: int = 2000
    test_images: int = 1000
    size: int = 0
    min_digits: int = 2
    max_digits: int = 4
    overlap: float = 0.25


class Composition(NamedTuple):
    """All that a composed set is made from, except the digits.

    Attributes:
      canvas: what canvases look like.
      validation_images: canvases to select on.
      class_weights: how frequent the digits of train are relative to each other, ``[10]``.
      seed: which canvases, those of test excepted.
    """

    canvas: Canvas = Canvas()
    validation_images: int = 0
    class_weights: npt.ArrayLike = (1.0,) * NUM_DIGITS
    seed: int = 0


def compose(
    train: Pool, test: Pool, composition: Composition
) -> tuple[Composed, Composed, Composed]:
    """Canvases to train, select and test on, which have no digit image in common.

    One digit image in five of `train` is for validation. The number of digits on a canvas is drawn
    from ``min_digits`` to ``max_digits``, then the class of each by itself, so that digits of train
    are as long-tailed as the class weights, to the last: with k digits a canvas has class c with
    probability

    .. math:: 1 - (1 - p_c)^k

    (a class that comes twice is one label, so the positives are less imbalanced than the digits).
    In validation and test all classes are equally likely. Then one of the digit images of the class
    is taken, and the digits are placed one after another at random, each where it does not overlap
    those before it more than allowed; where there is no room left, all are placed anew. Where
    digits overlap, the brighter pixel is seen.

    Args:
      train: square images, uint8 ``[N, S, S, channels]``, and their classes, int32 ``[N]``.
      test: the same, for test.
      composition: see `Composition`.

    Returns:
      Canvases, uint8 ``[M, size, size, channels]``, and their classes, uint8 0 and 1 ``[M, C]``: of
      train, validation and test. The last depend on `Canvas` only.

    Raises:
      InputError: for numbers outside their ranges, a canvas too small for its digits, and more
        digits than fit on it without overlapping too much.

    Source: Duarte, Rawat and Shah, CVPRW 2021, describe such a set of MNIST's digits (MultiMNIST).
    """
    canvas, seed = composition.canvas, composition.seed
    _check(canvas, train[0].shape[1])
    check_whole("data.validation_size", composition.validation_images, 0)
    equal = np.full(NUM_DIGITS, 1 / NUM_DIGITS)
    tail = np.asarray(composition.class_weights, np.float64)
    tail = tail / tail.sum()
    held_out = len(train[1]) // VALIDATION_SHARE if composition.validation_images else 0
    rest, other = validation_indices(train[1], held_out, seed, NUM_DIGITS)

    # The last number keeps the draws apart from each other and from those of other splits.
    return (
        _canvases([seed, 2], (train[0][rest], train[1][rest]), canvas.images, tail, canvas),
        _canvases(
            [seed, 3],
            (train[0][other], train[1][other]),
            composition.validation_images,
            equal,
            canvas,
        ),
        _canvases([0, 4], test, canvas.test_images, equal, canvas),
    )


def _check(canvas: Canvas, digit: int) -> None:
    for name, low in _LOW.items():
        check_whole(f"data.canvas.{name}", getattr(canvas, name), low)
    if canvas.max_digits < canvas.min_digits:
        raise InputError(
            f"data.canvas.max_digits is {canvas.max_digits}; expected at least min_digits,"
            f" {canvas.min_digits}"
        )
    if not 0 <= canvas.overlap <= 1:
        raise InputError(f"data.canvas.overlap is {canvas.overlap!r}; expected a number in [0, 1]")
    if canvas.size and canvas.size < digit:
        raise InputError(
            f"data.canvas.size is {canvas.size}; expected at least {digit}, the side of a digit,"
            f" or 0 for {round(DIGIT_TO_CANVAS * digit)}"
        )


def _canvases(
    seed: list[int], pool: Pool, count: int, probabilities: np.ndarray, canvas: Canvas
) -> Composed:
    """Canvases of one split."""
    rng = np.random.default_rng(seed)
    images, labels = pool
    digits = rng.integers(canvas.min_digits, canvas.max_digits + 1, count)
    classes = rng.choice(NUM_DIGITS, (count, canvas.max_digits), p=probabilities)
    members = np.argsort(labels, kind="stable")
    counts = count_classes(labels, NUM_DIGITS)
    if count and not counts.all():
        raise InputError(
            f"there are {counts.tolist()} images of the {NUM_DIGITS} digits to put on {count}"
            " canvases; expected some of each"
        )
    starts = np.cumsum(counts) - counts
    shown = images[members[starts[classes] + rng.integers(0, counts[classes])]]
    side = images.shape[1]
    size = canvas.size or round(DIGIT_TO_CANVAS * side)
    corners = np.zeros((count, canvas.max_digits, 2), np.int64)
    for k in range(canvas.min_digits, canvas.max_digits + 1):
        corners[digits == k, :k] = _corners(rng, (digits == k).sum(), k, side, size, canvas.overlap)
    present = np.arange(canvas.max_digits) < digits[:, None]
    targets = np.zeros((count, NUM_DIGITS), np.uint8)
    targets[np.nonzero(present)[0], classes[present]] = 1
    return _painted(shown, corners, present, size), targets


def _corners(
    rng: np.random.Generator, count: int, digits: int, side: int, size: int, overlap: float
) -> np.ndarray:
    """Upper left corners ``[count, digits, 2]`` of boxes that overlap no more than allowed."""
    parts = [
        _some_corners(rng, min(CHUNK, count - start), digits, side, size, overlap)
        for start in range(0, count, CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, digits, 2), np.int64)


def _some_corners(
    rng: np.random.Generator, count: int, digits: int, side: int, size: int, overlap: float
) -> np.ndarray:
    corners, pending = np.zeros((count, digits, 2), np.int64), np.arange(count)
    for _ in range(RESTARTS):
        placed = np.ones(len(pending), bool)
        for j in range(digits):
            tried = rng.integers(0, size - side + 1, (len(pending), TRIES, 2))
            apart = np.abs(tried[:, :, None] - corners[pending, None, :j])
            common = np.maximum(side - apart, 0).prod(axis=-1)
            allowed = (common <= overlap * side**2).all(axis=-1)
            corners[pending, j] = tried[np.arange(len(pending)), allowed.argmax(axis=1)]
            placed &= allowed.any(axis=1)
        pending = pending[~placed]
        if not pending.size:
            return corners
    raise InputError(
        f"{digits} digits of {side} px hardly fit on a canvas of {size} px if none may cover more"
        f" than {overlap:g} of another; expected a larger data.canvas.size or overlap, or a smaller"
        " max_digits"
    )


def _painted(shown: np.ndarray, corners: np.ndarray, present: np.ndarray, size: int) -> Images:
    """Canvases ``[M, size, size, channels]`` with the digits ``[M, digits, S, S, channels]``."""
    side = shown.shape[2]
    result = np.zeros((len(shown), size, size, shown.shape[-1]), np.uint8)
    offset = np.arange(side)
    for j in range(shown.shape[1]):
        (which,) = np.nonzero(present[:, j])
        rows = (corners[which, j, 0, None] + offset)[:, :, None]
        columns = (corners[which, j, 1, None] + offset)[:, None, :]
        place = which[:, None, None], rows, columns
        result[place] = np.maximum(result[place], shown[which, j])
    return result
