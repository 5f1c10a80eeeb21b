"""What to do about a long tail, from its class counts alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy.typing as npt

from lt_jax.advice.cautions import cautions_for
from lt_jax.advice.choices import Choice, choose
from lt_jax.advice.measured import Measures, measure
from lt_jax.advice.settings import (
    Numbers,
    Setting,
    Vectors,
    numbers_for,
    settings_for,
    vectors_for,
)
from lt_jax.advice.text import render
from lt_jax.advice.usage import command_for, snippet_for
from lt_jax.errors import InputError
from lt_jax.longtail import check_class_counts


class Advice(NamedTuple):
    """What follows from class counts; ``str`` of it is what `advise` prints.

    Attributes:
      multi_label: whether an example may have several labels, or none.
      measures: how unequal the classes are, and the shot groups.
      choices: methods, the one to start with first.
      numbers: what the methods take.
      vectors: what follows for each class: weights, cloud sizes, margins.
      settings: the numbers as they are printed, each with its reason and source.
      cautions: sentences about where little is known.
      command: trains the first choice with this project's scripts.
      snippet: the loss of the first choice, for somebody's own training step.
    """

    multi_label: bool
    measures: Measures
    choices: tuple[Choice, ...]
    numbers: Numbers
    vectors: Vectors
    settings: tuple[Setting, ...]
    cautions: tuple[str, ...]
    command: str
    snippet: str

    @property
    def start(self) -> Choice:
        """The method to start with."""
        return self.choices[0]

    @property
    def second(self) -> Choice:
        """The method to try next."""
        return self.choices[1]

    def __str__(self) -> str:
        return render(self)

    def __repr__(self) -> str:
        return (
            f"Advice(start={self.start.method!r}, second={self.second.method!r},"
            f" numbers={self.numbers!r})"
        )


def advice_for(
    class_counts: npt.ArrayLike,
    multi_label: bool = False,
    *,
    num_examples: int | None = None,
    config: Sequence[str] = (),
    image_shape: Sequence[int] = (),
) -> Advice:
    """What `advise` prints, without printing it.

    Args:
      class_counts: see `advise`.
      multi_label: see `advise`.
      num_examples: see `advise`.
      config: see `advise`.
      image_shape: see `advise`.

    Returns:
      `Advice`.

    Raises:
      InputError: see `advise`.

    Example:
      >>> advice = advice_for([1429, 739, 159, 38], multi_label=True, num_examples=2000)
      >>> advice.start.method, advice.second.method, advice.numbers.rate
      ('distribution_balanced', 'plm', 0.05)
    """
    counts = check_class_counts(class_counts)
    if (counts > 0).sum() < 2:
        raise InputError(
            f"class_counts have {int((counts > 0).sum())} class with images; expected at least 2"
        )
    if num_examples is not None and not multi_label:
        raise InputError(
            f"num_examples is {num_examples!r}, but with one label an example it is the sum of the"
            " counts; expected it with multi_label=True only"
        )
    measures = measure(counts, num_examples)
    numbers = numbers_for(counts, measures)
    vectors = vectors_for(counts, numbers)
    choices = choose(measures, multi_label)
    return Advice(
        multi_label=multi_label,
        measures=measures,
        choices=choices,
        numbers=numbers,
        vectors=vectors,
        settings=settings_for(counts, measures, numbers, vectors, multi_label),
        cautions=cautions_for(counts, measures, multi_label, num_examples),
        command=command_for(choices[0], numbers, measures, multi_label, config, image_shape),
        snippet=snippet_for(choices[0], numbers, measures),
    )


def advise(
    class_counts: npt.ArrayLike,
    multi_label: bool = False,
    *,
    num_examples: int | None = None,
    config: Sequence[str] = (),
    image_shape: Sequence[int] = (),
) -> Advice:
    """Prints what to do about a long tail: measures, methods, settings, each with its reason.

    It knows counts only, not images: what it says comes from papers and from what this project
    measured on small sets, and each line names its source.

    Args:
      class_counts: training images of each class, ``[C]``; positives of multi-label sets.
      multi_label: whether an example may have several labels, or none.
      num_examples: training examples of a multi-label set; the sum of the counts if None.
      config: for the command: a config whose data are meant, such as ``configs/digits.py:gcl``, and
        fields set in it, such as ``data.max_count=80``; if empty, or without a string after the
        file, one for sets of this size.
      image_shape: for the command: ``(H, W, C)``, or ``(D,)`` of feature vectors; then it has a
        network that suits them, where the file is not given.

    Returns:
      The same as an `Advice`.

    Raises:
      InputError: for bad counts, fewer than two classes with images, fewer examples than a class
        has positives, or a number of examples where it follows from the counts.

    Example:
      >>> advice = advise([1000, 359, 129, 46, 10])  # doctest: +ELLIPSIS
      5 classes, 1,544 images: 1,000 in the largest class, 10 in the smallest
      <BLANKLINE>
      Imbalance
        factor              100      largest / smallest
      ...
      >>> advice.start.method, advice.numbers.beta, advice.measures.groups["few"].classes
      ('gcl', 0.999, (4,))
    """
    advice = advice_for(
        class_counts,
        multi_label,
        num_examples=num_examples,
        config=config,
        image_shape=image_shape,
    )
    print(advice)
    return advice
