"""How unequal classes are, each measure a number; and which have many, medium and few images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.longtail.counts import check_class_counts

MANY, FEW = 100, 20  # more than 100 training images, fewer than 20
GROUPS = ("many", "medium", "few")


def shot_groups(class_counts: npt.ArrayLike) -> dict[str, npt.NDArray[np.bool_]]:
    """Which classes have many (> 100), medium (20 to 100) and few (< 20) training images.

    Args:
      class_counts: training images of each class, ``[C]``.

    Returns:
      ``many``, ``medium`` and ``few``, bool ``[C]`` each; every class is in one of them.

    Example:
      >>> shot_groups([101, 100, 20, 19])["medium"]
      array([False,  True,  True, False])

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
    """
    n = np.asarray(class_counts)
    return dict(zip(GROUPS, (n > MANY, (n >= FEW) & (n <= MANY), n < FEW), strict=True))


def imbalance_factor(class_counts: npt.ArrayLike) -> float:
    r"""Largest count divided by the smallest one of the classes that have any.

    .. math:: \rho = n_{max} / n_{min}

    Args:
      class_counts: images of each class, ``[C]``.

    Returns:
      At least 1.

    Raises:
      InputError: for bad counts.

    Example:
      >>> imbalance_factor([500, 50, 5, 0])
      100.0

    Source: Buda et al., A systematic study of the class imbalance problem, Neural Networks 2018.
    """
    counts = check_class_counts(class_counts)
    return float(counts.max() / counts[counts > 0].min())


def gini_coefficient(class_counts: npt.ArrayLike) -> float:
    r"""How unequal counts are: 0 for equal ones, near 1 if one of many classes has everything.

    .. math:: G = \frac{\sum_i \sum_j |n_i - n_j|}{2 C \sum_i n_i}

    Unlike the ratio of largest and smallest, it is defined where a class has none.

    Args:
      class_counts: images of each class, ``[C]``; all 0 counts as equal.

    Returns:
      From 0 to 1 - 1 / C.

    Example:
      >>> gini_coefficient([5, 5]), gini_coefficient([10, 0]), round(gini_coefficient([100, 1]), 3)
      (0.0, 0.5, 0.49)

    Source: Gini, 1912; of class counts Yang et al., A Survey on Long-Tailed Visual Recognition,
    IJCV 2022.
    """
    ordered = np.sort(np.asarray(class_counts, np.float64))
    if not ordered.sum():
        return 0.0
    n = ordered.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def effective_classes(class_counts: npt.ArrayLike, order: int = 1) -> float:
    r"""How many equally frequent classes would be as uncertain as these.

    .. math:: D_1 = \exp\Bigl(-\sum_c \pi_c \log \pi_c\Bigr), \quad
              D_2 = \Bigl(\sum_c \pi_c^2\Bigr)^{-1}, \quad \pi_c = n_c / \sum_j n_j

    Args:
      class_counts: images of each class, ``[C]``.
      order: 1 for the exponential of the entropy; 2 for the inverse Simpson index, which heeds rare
        classes less.

    Returns:
      From 1 to the number of classes that have images.

    Raises:
      InputError: for bad counts or another order.

    Example:
      >>> round(effective_classes([5, 5, 5]), 6), round(effective_classes([9, 1]), 3)
      (3.0, 1.384)

    Source: Hill, Diversity and Evenness, Ecology 1973.
    """
    counts = check_class_counts(class_counts)
    share = counts[counts > 0] / counts.sum()
    if order not in (1, 2):
        raise InputError(f"order is {order!r}; expected 1 or 2")
    if order == 1:
        return float(np.exp(-(share @ np.log(share))))
    return float(1.0 / (share @ share))


def head_share(class_counts: npt.ArrayLike) -> float:
    """Share of the images that belong to the most frequent third of the classes.

    Args:
      class_counts: images of each class, ``[C]``; the third is rounded down, and at least one
        class.

    Returns:
      From about a third, where classes are balanced, to 1.

    Raises:
      InputError: for bad counts.

    Example:
      >>> head_share([80, 10, 10])
      0.8
    """
    counts = np.sort(check_class_counts(class_counts))[::-1]
    return float(counts[: max(1, counts.size // 3)].sum() / counts.sum())
