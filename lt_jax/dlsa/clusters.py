"""What clusters say of classes, and which samples are well clustered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lt_jax.errors import InputError


def cluster_table(
    clusters: npt.ArrayLike, labels: npt.ArrayLike, num_clusters: int, num_classes: int
) -> npt.NDArray[np.int64]:
    """How many samples of each class each cluster has.

    Args:
      clusters: cluster of each sample, integers ``[N]``.
      labels: class of each, integers ``[N]``.
      num_clusters: K.
      num_classes: C.

    Returns:
      Counts, int64 ``[K, C]``.

    Example:
      >>> cluster_table([0, 0, 1], [1, 1, 0], 2, 2).tolist()
      [[0, 2], [1, 0]]
    """
    table = np.zeros((num_clusters, num_classes), np.int64)
    np.add.at(table, (np.asarray(clusters), np.asarray(labels)), 1)
    return table


def pure_clusters(
    table: npt.NDArray[np.int64], *, purity: float = 0.7, larger_than: int = 10
) -> int:
    """How many clusters are mostly of one class and not small.

    Args:
      table: from `cluster_table`, ``[K, C]``.
      purity: the share of its most frequent class that a cluster has to exceed.
      larger_than: samples that it has to exceed.

    Returns:
      Their number.

    Example:
      >>> pure_clusters(np.array([[20, 1], [20, 20], [3, 0]]))
      1

    Source: Xu et al., ECCV 2022, by which the best epoch is chosen there.
    """
    size = table.sum(axis=1)
    # The tiny factor keeps a share that is equal in exact arithmetic (63 of 90) from exceeding.
    least = purity * size * (1 + 1e-12)
    return int(((size > larger_than) & (table.max(axis=1) > least)).sum())


def threshold_for(log_likelihood: npt.ArrayLike, proportion: float) -> float:
    """The log-likelihood that a share of samples is above.

    Args:
      log_likelihood: of the samples, ``[N]``.
      proportion: share to take, in (0, 1).

    Returns:
      The threshold.

    Raises:
      InputError: for a share outside (0, 1), no log-likelihoods, or some that are not finite:
        comparing with them would send samples one way silently.

    Example:
      >>> threshold_for([1.0, 2.0, 3.0, 4.0], 0.5)
      2.5
    """
    values = np.asarray(log_likelihood, np.float64)
    if not 0 < proportion < 1:
        raise InputError(f"proportion is {proportion!r}; expected a number between 0 and 1")
    if not values.size:
        raise InputError("there are no log-likelihoods; expected at least one")
    check_finite(values)
    return float(np.quantile(values, 1 - proportion))


def check_finite(log_likelihood: npt.NDArray[np.floating]) -> None:
    """Refuses log-likelihoods that are not finite.

    Args:
      log_likelihood: ``[N]``.

    Raises:
      InputError: saying how many are not.
    """
    wrong = int((~np.isfinite(log_likelihood)).sum())
    if wrong:
        raise InputError(
            f"the log-likelihoods of {wrong} of {log_likelihood.size} samples are not finite;"
            " expected a flow with bounded log-scales, or a smaller learning rate"
        )
