"""What class counts alone say about a set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lt_jax import longtail
from lt_jax.longtail import Vector


class Group(NamedTuple):
    """Classes of about as many images.

    Attributes:
      classes: their numbers, ascending.
      images: of all of them together; of multi-label sets their positives.
      share: of all images.
    """

    classes: tuple[int, ...]
    images: int
    share: float


class Measures(NamedTuple):
    """How unequal the classes of a set are.

    Attributes:
      num_classes: number of classes, C.
      num_examples: N; the sum of the counts unless it was given.
      labels: sum of the counts.
      largest: images of the largest class.
      smallest: images of the smallest class that has any.
      absent: classes without images.
      factor: largest / smallest.
      gini: Gini coefficient.
      effective: effective number of classes, the exponential of the entropy.
      inverse_simpson: the same by the inverse Simpson index.
      head_share: share of the images that the most frequent third of the classes has.
      groups: ``many``, ``medium`` and ``few``.
    """

    num_classes: int
    num_examples: int
    labels: int
    largest: int
    smallest: int
    absent: int
    factor: float
    gini: float
    effective: float
    inverse_simpson: float
    head_share: float
    groups: dict[str, Group]


def measure(counts: Vector, num_examples: int | None = None) -> Measures:
    """Every measure of some class counts.

    Args:
      counts: images of each class, checked, float64 ``[C]``.
      num_examples: N, of multi-label sets; None for the sum of the counts.

    Returns:
      `Measures`.

    Raises:
      InputError: for fewer examples than a class has positives.

    Example:
      >>> found = measure(np.array([500.0, 50.0, 5.0]))
      >>> found.factor, round(found.effective, 2), found.groups["few"].classes
      (100.0, 1.42, (2,))
    """
    return Measures(
        num_classes=counts.size,
        num_examples=int(longtail.total_examples(counts, num_examples)),
        labels=int(counts.sum()),
        largest=int(counts.max()),
        smallest=int(counts[counts > 0].min()),
        absent=int((counts == 0).sum()),
        factor=longtail.imbalance_factor(counts),
        gini=longtail.gini_coefficient(counts),
        effective=longtail.effective_classes(counts),
        inverse_simpson=longtail.effective_classes(counts, order=2),
        head_share=longtail.head_share(counts),
        groups={name: _group(counts, who) for name, who in longtail.shot_groups(counts).items()},
    )


def _group(counts: Vector, members: np.ndarray) -> Group:
    images = counts[members].sum()
    classes = tuple(np.flatnonzero(members).tolist())
    return Group(classes, int(images), float(images / counts.sum()))
