"""What is known of finished runs: their summaries, and what two of them say together."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax import environment, metrics
from lt_jax.configuration import plain
from lt_jax.data.identity import different

Scores = dict[str, Any]
# What tables show of summaries that do not say it themselves, as they are of an earlier version.
_COLUMNS = ("balanced_accuracy", "top1", "many", "medium", "few", "ece")
# Scores of which tables show differences to the first run, beside those by which is selected.
_COMPARED = {"map": ("recall_rarest", "precision_head", "of1")}
# Of ten columns of several labels five can be read in a terminal.
_MINOR = ("top1", "ece", "map_medium", "precision_head", "cf1", "exact_match")
_LABELS = {"map": "mAP", "cf1": "CF1", "of1": "OF1"}
EQUAL = 1e-12  # spread of differences that only rounding makes


def headline(summary: Scores) -> str:
    """The score by which validation selects, and tables compare."""
    return str(summary.get("headline", "balanced_accuracy"))


def columns(summary: Scores) -> tuple[str, ...]:
    """The scores that tables show of a run."""
    return tuple(summary.get("columns", _COLUMNS))


def main_columns(summary: Scores) -> tuple[str, ...]:
    """Those of them for which there is room where there is little."""
    return tuple(name for name in columns(summary) if name not in _MINOR)


def compared(summary: Scores) -> tuple[str, ...]:
    """The scores of which tables show differences to the first run.

    Those that the data do not have are left out, as head scores where no class is that frequent.
    """
    names = (headline(summary), *_COMPARED.get(headline(summary), ()))
    return tuple(n for n in names if summary["test"]["last"]["mean"][n] is not None)


def label(score: str) -> str:
    """What tables and pictures call a score.

    Example:
      >>> label("map_head"), label("balanced_accuracy")
      ('mAP head', 'balanced accuracy')
    """
    return " ".join(_LABELS.get(word, word) for word in score.split("_"))


def _over_replicas(values: Sequence[Any], reduce: Any) -> Any:
    """Mean or deviation over replicas, entry by entry; None where there is nothing to take."""
    array = np.array(values, dtype=np.float64)  # None becomes NaN
    with np.errstate(invalid="ignore", divide="ignore"):
        result = reduce(array)
    if result.ndim:
        return [None if np.isnan(v) else float(v) for v in result]
    return None if np.isnan(result) else float(result)


def aggregate(replicas: Sequence[Scores]) -> dict[str, Any]:
    """Mean and sample standard deviation over replicas, of all scores but tables of counts.

    Args:
      replicas: one dictionary of scores for each seed.

    Returns:
      ``{"replicas", "mean", "std"}``; a deviation of one replica is None.
    """
    names = [name for name in replicas[0] if name not in metrics.TABLES]

    def over(reduce: Any) -> Scores:
        return {name: _over_replicas([r[name] for r in replicas], reduce) for name in names}

    def deviation(array: np.ndarray) -> np.ndarray:
        if len(array) < 2:
            return np.full(array.shape[1:], np.nan)
        return array.std(axis=0, ddof=1)

    return {
        "replicas": list(replicas),
        "mean": over(lambda array: array.mean(axis=0)),
        "std": over(deviation),
    }


def summarize(
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    scoring: metrics.Scoring,
    *,
    seeds: Sequence[int],
    scores: Mapping[str, Sequence[Scores]],
    selection: Mapping[str, Mapping[str, Any]],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """The summary of a run: what it was, what it was made with, what came out.

    Args:
      config: of the run.
      data: what is known about the images, with their class counts.
      scoring: what the scores are.
      seeds: one for each replica.
      scores: of each replica on the test split, by selection (``last``, ``best_on_validation``).
      selection: facts about each selection, such as its steps.
      training: facts about the training.

    Returns:
      A dictionary that JSON can hold.
    """
    return {
        "name": config["name"],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **environment.stamp(training["devices"]),
        "seeds": list(seeds),
        "headline": scoring.headline,
        "columns": list(scoring.columns),
        "data": dict(data),
        "training": dict(training),
        "test": {name: {**selection[name], **aggregate(each)} for name, each in scores.items()},
        "config": plain(config),
    }


def with_deviation(mean: float | None, std: float | None, *, percent: bool = True) -> str:
    """``81.2 ± 0.7``, without the deviation of a single run, ``-`` for nothing.

    Example:
      >>> with_deviation(0.8125, 0.0071)
      '81.2 ± 0.7'
    """
    if mean is None:
        return "-"
    factor, digits = (100.0, 1) if percent else (1.0, 3)
    text = f"{factor * mean:.{digits}f}"
    return text if std is None else f"{text} ± {factor * std:.{digits}f}"


def score_text(summary: Scores, score: str = "") -> str:
    """A test score of a run in %, with its deviation over seeds; see `with_deviation`.

    Args:
      summary: of the run.
      score: which; empty for the one that validation selects by.
    """
    test, name = summary["test"]["last"], score or headline(summary)
    return with_deviation(test["mean"][name], test["std"][name])


def with_interval(mean: float, low: float | None, high: float | None) -> str:
    """A difference in points, with its interval if it has one.

    Example:
      >>> with_interval(0.022, 0.003, 0.04), with_interval(0.01, None, None)
      ('+2.2 [+0.3, +4.0]', '+1.0')
    """
    text = f"{100 * mean:+.1f}"
    return text if low is None or high is None else f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]"


def paired_difference(a: Scores, b: Scores, score: str = "") -> Scores:
    """How much better run a is than run b, paired over the seeds that both have.

    Args:
      a: summary of a run.
      b: summary of a run on the same data.
      score: which score; empty for the one that validation selects by.

    Returns:
      ``mean``, its ``standard_error``, and ``low`` and ``high`` of the 95 % paired t interval; the
      latter two None where all differences are the same, all three for a single seed.

    Raises:
      ValueError: if images differ, or no seed is in both.
    """
    common = [seed for seed in a["seeds"] if seed in b["seeds"]]
    if not common or different(a["data"], b["data"]):
        raise ValueError("only runs with common seeds and the same images can be paired")
    name = score or headline(a)
    return paired_interval(*(scores_of_seeds(s, common, name) for s in (a, b)))


def scores_of_seeds(summary: Scores, seeds: Sequence[int], score: str) -> list[Any]:
    """A test score of some of the seeds of a run; None where it has none."""
    replicas = summary["test"]["last"]["replicas"]
    return [replicas[summary["seeds"].index(seed)].get(score) for seed in seeds]


def paired_interval(a: npt.ArrayLike, b: npt.ArrayLike) -> Scores:
    """Mean difference a - b of paired values, with its 95 % paired t interval.

    Args:
      a: values, ``[R]``.
      b: those that they are paired with, ``[R]``.

    Returns:
      As `paired_difference`.

    Example:
      >>> d = paired_interval([3.0, 5.0], [2.0, 2.0])
      >>> d["mean"], d["standard_error"], round(d["low"], 1), round(d["high"], 1)
      (2.0, 1.0, -10.7, 14.7)
    """
    difference = np.subtract(a, b)
    mean, n = float(difference.mean()), len(difference)
    if n < 2:
        return {"mean": mean, "standard_error": None, "low": None, "high": None}
    from scipy import stats

    error = float(difference.std(ddof=1) / np.sqrt(n))
    if np.ptp(difference) < EQUAL:  # an interval of no width would read as certainty
        return {"mean": mean, "standard_error": error, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return {"mean": mean, "standard_error": error, "low": mean - half, "high": mean + half}


def first_row(summary: Scores) -> Scores:
    """What a summary of two stages says about the first, as a summary of one.

    Its last scores are those of the weights that the second stage started from.
    """
    before = summary["stage1"]
    which = summary["config"].get("retrain", {}).get("weights", "last")
    tests = before["test"]
    return {**summary, **before, "test": {**tests, "last": tests.get(which, tests["last"])}}


def undivided(summary: Scores) -> Scores:
    """What the summary of a division says about the same classifier of the whole set, as one."""
    return {**summary, "name": "undivided", "test": {"last": summary["division"]["without"]}}


# What some summaries also tell of the run before their last step: by key, its name and summary.
BEFORE: dict[str, tuple[str, Callable[[Scores], Scores]]] = {
    "stage1": ("its stage 1", first_row),
    "division": ("undivided", undivided),
}


def row_name(summary: Scores) -> str:
    """The method of a run: its name without that of the data.

    Example:
      >>> row_name({"name": "cifar10_lt100_gcl", "data": {"source": "tfds:cifar10"}})
      'gcl'
      >>> row_name({"name": "yeast_plm", "data": {"source": "arrays:yeast.npz"}})
      'plm'
      >>> row_name({"name": "multi_digits_plm", "data": {"source": "arrays:own.npz"}})
      'plm'
    """
    # Own data may have taken the place of those after which configs/multi_digits.py names its runs.
    data = PurePath(str(summary["data"]["source"]).rpartition(":")[2]).stem
    return re.sub(rf"^(\w+_lt[\d.]+|multi_digits|{re.escape(data)})_", "", str(summary["name"]))
