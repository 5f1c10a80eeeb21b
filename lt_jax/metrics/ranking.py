"""Scores that need the order of all predictions: average precision, the best thresholds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def average_precision(probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> np.ndarray:
    """Average precision of every class, for multi-label scores.

    Args:
      probabilities: scores, ``[N, C]``.
      targets: multi-hot, ``[N, C]``.

    Returns:
      float64 ``[C]``; NaN for a class without positives.
    """
    from sklearn.metrics import average_precision_score

    p, t = np.asarray(probabilities, np.float64), np.asarray(targets) > 0
    has = np.atleast_1d(t.any(axis=0))
    return np.array(
        [average_precision_score(t[:, c], p[:, c]) if has[c] else np.nan for c in range(t.shape[1])]
    )


def tune_thresholds(logits: npt.ArrayLike, targets: npt.ArrayLike) -> Vector:
    """The threshold of each class with the highest F1, to be chosen on validation.

    A threshold lies midway between two neighbouring scores, so that rounding does not matter; of
    several that are equally good the highest is taken, which predicts the fewest positives.

    Args:
      logits: scores, ``[N, C]``.
      targets: multi-hot, ``[N, C]``.

    Returns:
      Thresholds on the logits, float64 ``[C]``: a positive is predicted above them. 0, a
      probability of one half, for a class without positives.

    Example:
      >>> tune_thresholds([[-3.0], [-2.0], [1.0]], [[0], [1], [1]])
      array([-2.5])
    """
    z, t = np.asarray(logits, np.float64), np.asarray(targets) > 0
    return np.array([_best_threshold(z[:, c], t[:, c]) for c in range(z.shape[1])])


def _best_threshold(scores: Vector, positive: npt.NDArray[np.bool_]) -> float:
    if not positive.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    # The first k are predicted; equal scores cannot be told apart.
    k = np.flatnonzero(np.append(ranked[:-1] > ranked[1:], True)) + 1
    f1 = 2.0 * hits[k - 1] / (k + positive.sum())
    best = k[np.argmax(f1)]
    last, next_one = ranked[best - 1], ranked[best] if best < len(ranked) else -np.inf
    return float(next_one if last == np.inf else (last + next_one) / 2.0)  # nothing is above inf
