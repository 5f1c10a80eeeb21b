"""What one should know before believing advice from counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lt_jax.advice.choices import MILD, THOUSANDS
from lt_jax.advice.measured import Measures
from lt_jax.longtail import Vector

TINY = 500  # images
BEYOND = 1000.0  # imbalance; more than any set that the advice rests on
NAMED = 5  # classes that a sentence lists


def cautions_for(
    counts: Vector, measures: Measures, multi_label: bool, num_examples: int | None
) -> tuple[str, ...]:
    """Sentences about where little is known, or something cannot work.

    Args:
      counts: images of each class, float64 ``[C]``.
      measures: of them.
      multi_label: whether an example may have several labels, or none.
      num_examples: as it was given.

    Returns:
      Sentences, maybe none.

    Example:
      >>> from lt_jax.advice.measured import measure
      >>> counts = np.array([900.0, 300.0, 300.0])
      >>> cautions_for(counts, measure(counts), False, None)
      ()
    """
    of_labels = _of_several_labels if multi_label else _of_one_label
    return (*_of_size(measures), *of_labels(counts, measures, num_examples))


def _of_size(measures: Measures) -> Iterator[str]:
    if measures.factor < MILD:
        yield (
            f"An imbalance of {measures.factor:.2g} is next to none: expect no difference between"
            " methods for long tails."
        )
    if measures.num_examples < TINY:
        yield (
            f"{measures.num_examples:,} images are few: on 312 digits the scores of a method"
            " deviate by 0.4 to 2.8 points between seeds; compare five seeds or more, paired."
        )
    if measures.factor > BEYOND:
        yield (
            f"An imbalance of {measures.factor:,.0f} is beyond every set that this rests on (at"
            " most 100 measured here, 996 in the papers)."
        )
    if measures.num_classes >= THOUSANDS:
        yield (
            "Nothing with a thousand classes or more was trained to its end by this project;"
            " figures are those that papers report."
        )


def _of_one_label(counts: Vector, measures: Measures, num_examples: int | None) -> Iterator[str]:
    if measures.num_classes == 2:
        yield (
            "Nothing was measured with two classes: try the plain loss with a threshold chosen on"
            " validation beside everything else."
        )
    if measures.absent:
        yield (
            f"Classes without images ({_listed(counts == 0)}): nothing can be learned of them;"
            " number the labels without them, and every method can be used."
        )
    if (counts == 1).any():
        yield (
            f"Classes with one image ({_listed(counts == 1)}): validation can have none of them,"
            " and all that is learned of such a class is that image."
        )


def _of_several_labels(
    counts: Vector, measures: Measures, num_examples: int | None
) -> Iterator[str]:
    if num_examples is None:
        yield (
            "The number of examples was not given and is taken for the sum of the counts, as if"
            " each had one label: num_examples=... makes ratios and weights right."
        )
    if measures.absent:
        yield (
            f"Classes that never occur ({_listed(counts == 0)}): trained around, but nothing is"
            " learned of them."
        )
    always = counts >= measures.num_examples
    if always.any():
        yield (
            f"Classes that always occur ({_listed(always)}): there are no negatives to learn from;"
            " masks and weights of positives leave them alone."
        )


def _listed(members: np.ndarray) -> str:
    """Their numbers, of many the first ones and how many they are."""
    found = np.flatnonzero(members)
    named = ", ".join(map(str, found[:NAMED]))
    return named if found.size <= NAMED else f"{named}, ..., {found.size:,} in all"
