"""Made features on which it is known whether dividing helps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail import long_tailed_counts

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class MadeFeatures(NamedTuple):
    """Splits of made features.

    Attributes:
      train: features float32 ``[N, D]`` and labels ``[N]``, long-tailed.
      validation: the same, balanced.
      test: the same, balanced.
    """

    train: tuple[Features, Labels]
    validation: tuple[Features, Labels]
    test: tuple[Features, Labels]


def made_features(
    seed: int,
    *,
    num_classes: int = 10,
    dim: int = 8,
    modes: int = 4,
    radius: float = 6.0,
    max_count: int = 2000,
    imbalance: float = 50.0,
    held_out: int = 100,
) -> MadeFeatures:
    """Gaussians of deviation 1: head classes of several, and a tail class between two of each.

    The frequent half of the classes has `modes` modes each, at random places on a sphere. Each
    class of the rare half has one mode, in the middle between two modes of a frequent class. No
    linear classifier can give that place to the rare class, as what it gives to the frequent one is
    convex and holds both modes; clusters can. With one mode a class there is nothing to divide:
    then all means are on the sphere, and a linear classifier is right.

    Args:
      seed: which samples; the places of the modes are the same for all seeds.
      num_classes: C, even.
      dim: D.
      modes: of each frequent class; 1 for one Gaussian a class.
      radius: of the sphere, in deviations.
      max_count: training samples of the most frequent class.
      imbalance: most / least frequent class.
      held_out: samples of each class in validation; five times as many in test.

    Returns:
      `MadeFeatures`.

    Raises:
      InputError: for an odd number of classes, or fewer than one mode.

    Example:
      >>> made = made_features(0, max_count=100)
      >>> made.train[0].shape, np.bincount(made.train[1]).tolist()
      ((276, 8), [100, 64, 41, 27, 17, 11, 7, 4, 3, 2])
    """
    if num_classes < 2 or num_classes % 2:
        raise InputError(f"num_classes is {num_classes!r}; expected an even number of at least 2")
    if modes < 1:
        raise InputError(f"modes is {modes!r}; expected at least 1")
    half = num_classes // 2
    places = np.random.default_rng([17, dim, num_classes, modes]).normal(
        size=(num_classes, modes, dim)
    )
    places *= radius / np.linalg.norm(places, axis=-1, keepdims=True)
    if modes > 1:
        places[half:] = places[:half, :2].mean(axis=1, keepdims=True)
    counts = long_tailed_counts(max_count, num_classes, imbalance)
    rng = np.random.default_rng(seed)

    def draw(of_each: int | npt.NDArray[np.int64]) -> tuple[Features, Labels]:
        labels = np.repeat(np.arange(num_classes), of_each)
        means = places[labels, rng.integers(0, modes, len(labels))]
        return (means + rng.normal(size=means.shape)).astype(np.float32), labels

    return MadeFeatures(draw(counts), draw(held_out), draw(5 * held_out))
