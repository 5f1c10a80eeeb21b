"""Whether a run is better than the baseline: paired over the seeds that both have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lt_jax.data.identity import different
from lt_jax.summaries import Scores, headline, paired_interval, scores_of_seeds, with_interval

ALPHA = 0.05
SMALLEST = 0.001  # p values below are written as such


class Paired(NamedTuple):
    """A paired difference.

    Attributes:
      seeds: how many both runs have.
      mean: the difference, in units of the score; None if there is nothing to take it of.
      low: of its 95 % t interval; None if there is none.
      high: likewise.
      p: of the two-sided paired t test; None if there is none.
      reason: why there is no test; empty if there is one.
    """

    seeds: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str = ""


def paired_test(a: Scores, b: Scores, score: str = "") -> Paired:
    """How much better run a is than run b, over the seeds that both have.

    Args:
      a: summary of a run.
      b: summary of a run on the same data.
      score: which score; empty for the one that validation selects by.

    Returns:
      `Paired`, with a reason instead of a test for fewer than two common seeds, for a score that
      one of the runs lacks, and where all differences are the same.

    Raises:
      ValueError: if images differ.
    """
    if different(a["data"], b["data"]):
        raise ValueError("only runs with the same images can be paired")
    common = [seed for seed in a["seeds"] if seed in b["seeds"]]
    if len(common) < 2:
        found = f"{len(common) or 'no'} common seed{'' if common else 's'}"
        return Paired(len(common), reason=f"{found}: no comparison")
    one, other = (scores_of_seeds(summary, common, score or headline(a)) for summary in (a, b))
    if None in one or None in other:
        return Paired(len(common), reason="not scored in both")
    d = paired_interval(one, other)
    if d["low"] is None:
        return Paired(len(common), d["mean"], reason="the same for all seeds: no test")
    from scipy import stats

    t = abs(d["mean"] / d["standard_error"])
    p = float(2 * stats.t.sf(t, len(common) - 1))
    return Paired(len(common), d["mean"], d["low"], d["high"], p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    r"""Corrects p values for their number, by the step-down procedure of Holm.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) p_{(j)})

    with the m values in ascending order. What is rejected where a corrected value is below a level
    has at least one false rejection with no more than that probability.

    Args:
      p_values: of each comparison; None where there was none, which does not count.

    Returns:
      The corrected values, in the same order.

    Example:
      >>> holm([0.04, None, 0.01, 0.03])
      [0.06, None, 0.03, 0.06]

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 1979.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def p_text(p: float | None) -> str:
    """A p value as text.

    Example:
      >>> p_text(0.0312), p_text(0.0002), p_text(None)
      ('0.031', '< 0.001', '-')
    """
    if p is None:
        return "-"
    return f"< {SMALLEST}" if p < SMALLEST else f"{p:.3f}"


def paired_text(paired: Paired) -> str:
    """A difference in points with its interval, as in the tables; or why there is none.

    Example:
      >>> paired_text(Paired(5, 0.022, 0.003, 0.04, 0.03)), paired_text(Paired(3, 0.01))
      ('+2.2 [+0.3, +4.0]', '+1.0')
    """
    if paired.mean is None or paired.low is None or paired.high is None:
        shown = [] if paired.mean is None else [f"{100 * paired.mean:+.1f}"]
        return "; ".join([*shown, *([paired.reason] if paired.reason else [])])
    return with_interval(paired.mean, paired.low, paired.high)
