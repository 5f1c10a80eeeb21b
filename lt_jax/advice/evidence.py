"""What advice rests on: betas that sets were trained with, scores measured here or reported."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lt_jax.longtail import Vector, imbalance_factor

CUI = "Cui et al., CVPR 2019"
OURS = "this project's configs, set beforehand"
# Where differences and scores of the texts below stand; the tests compare them with these files.
DIGITS = "results/digits/table.md"
FASHION = "results/fashion_lt/table.md"
CIFAR10 = "results/cifar10_lt_small/table.md"
CIFAR100 = "results/dlsa_cifar100/table.md"
MNIST100 = "results/multi_mnist_100/table.md"
MNIST50 = "results/multi_mnist_50/table.md"
CANVASES = "results/multi_digits/table.md"
YEAST = "results/yeast/table.md"
SCENE = "results/scene/table.md"
STUDIES = "results/README.md"
REPORTED = "results/reported.csv"


class BetaUse(NamedTuple):
    """A set that class-balanced weights were trained on.

    Attributes:
      name: of the set.
      num_classes: number of classes, C.
      largest: images of its largest class.
      smallest: images of its smallest class.
      beta: that was used.
      source: who chose it.
    """

    name: str
    num_classes: int
    largest: int
    smallest: int
    beta: float
    source: str


_BEST = f"{CUI}, the best of four by its test error"
BETAS = (
    *(
        BetaUse(f"CIFAR-10-LT {5000 // least}", 10, 5000, least, 0.9999, _BEST)
        for least in (25, 50, 100, 250, 500)
    ),
    *(
        BetaUse(f"CIFAR-100-LT {500 // least}", 100, 500, least, beta, _BEST)
        for least, beta in ((2, 0.9), (5, 0.9), (10, 0.99), (25, 0.99), (50, 0.999))
    ),
    BetaUse("ILSVRC-2012", 1000, 1300, 732, 0.999, CUI),
    BetaUse("iNaturalist 2018", 8142, 1000, 2, 0.999, CUI),
    BetaUse("long-tailed digits", 10, 113, 2, 0.999, OURS),
    BetaUse("small long-tailed Fashion-MNIST and CIFAR-10", 10, 1000, 10, 0.999, OURS),
    BetaUse("small long-tailed CIFAR-100", 100, 350, 7, 0.99, OURS),
    BetaUse("multi-label canvases of digits", 10, 1429, 38, 0.999, OURS),
    BetaUse("multi-label canvases of MNIST's digits", 10, 2147, 67, 0.999, OURS),
    BetaUse("yeast", 14, 902, 17, 0.999, OURS),
    BetaUse("scene", 6, 208, 124, 0.999, OURS),
)


def nearest_beta(class_counts: Vector) -> BetaUse:
    """The set of `BETAS` that is most like these counts.

    Nearest in the logarithms of the number of classes, the largest and the smallest count.

    Args:
      class_counts: images of each class, ``[C]``.

    Returns:
      That set.

    Example:
      >>> nearest_beta(np.array([6000.0, 900.0, 300.0, 60.0])).beta
      0.9999
    """

    def distance(use: BetaUse) -> float:
        other = (use.num_classes, use.largest, use.smallest)
        return float(np.linalg.norm(np.log(own) - np.log(other)))

    largest = float(class_counts.max())
    own = (class_counts.size, largest, largest / imbalance_factor(class_counts))
    return min(BETAS, key=distance)
