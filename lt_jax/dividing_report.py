"""What a division of a set is worth: what blocks take, how pure clusters are, who is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax import dlsa, longtail, metrics
from lt_jax.dividing_heads import Evaluated
from lt_jax.summaries import Scores, aggregate, undivided
from lt_jax.tables import difference_text, table_rows
from lt_jax.writers import say

Labels = npt.NDArray[np.int64]
HISTOGRAM_BINS = 60


def division_facts(
    blocks: Sequence[dlsa.Block],
    divided: Mapping[str, dlsa.Divided],
    labels: Mapping[str, Labels],
    evaluated: Mapping[str, Evaluated],
    without: Mapping[str, Evaluated],
    scoring: metrics.Scoring,
    class_counts: npt.ArrayLike,
) -> dict[str, Any]:
    """Everything that a summary says about a division.

    Args:
      blocks: in order.
      divided: of each split.
      labels: of each split.
      evaluated: classifiers of the parts, on test and maybe validation.
      without: the classifier of the whole set, on the same.
      scoring: of the run.
      class_counts: training samples of each class, ``[C]``.

    Returns:
      A dictionary that JSON can hold: ``without`` (scores on test of the classifier of the whole
      set, as in ``summary["test"]``), ``validation`` (balanced accuracy of both, ``[R]`` each),
      and for each replica ``blocks``, ``rest``, ``feature_score`` and ``log_likelihood``.
    """
    counts = np.asarray(class_counts)
    replicas = range(len(blocks[0].threshold))
    scores = [scoring.scores(_row(without["test"].counts, r), None) for r in replicas]
    facts: dict[str, Any] = {"without": aggregate(scores)}
    if "validation" in evaluated:
        facts["validation"] = {
            name: metrics.balanced_accuracy(found["validation"].counts).tolist()
            for name, found in (("divided", evaluated), ("without", without))
        }
    facts["replicas"] = [
        _of_replica(r, blocks, divided, labels, evaluated["test"], without["test"], counts)
        for r in replicas
    ]
    return facts


def _row(counts: metrics.Counts, r: int) -> metrics.Counts:
    return metrics.Counts(*(np.asarray(leaf)[r] for leaf in counts))


def _of_replica(
    r: int,
    blocks: Sequence[dlsa.Block],
    divided: Mapping[str, dlsa.Divided],
    labels: Mapping[str, Labels],
    evaluated: Evaluated,
    without: Evaluated,
    counts: Labels,
) -> dict[str, Any]:
    parts = {name: split.part[r] for name, split in divided.items()}
    made = []
    for number, block in enumerate(blocks):
        facts = _composition(parts["train"], labels["train"], number, counts)
        facts["threshold"] = float(block.threshold[r])
        facts |= _clusters(block.table[r])
        for name, split in divided.items():
            facts[name] = _division(
                parts[name], split.cluster[number, r], labels[name], number, counts
            )
        facts["test"] |= _accuracies(
            parts["test"] == number, evaluated.predicted[r], without.predicted[r], labels["test"]
        )
        made.append(facts)
    last = len(blocks)
    rest: dict[str, Any] = _composition(parts["train"], labels["train"], last, counts)
    for name in parts:
        rest[name] = {"samples": int((parts[name] == last).sum())}
    rest["test"] |= _accuracies(
        parts["test"] == last, evaluated.predicted[r], without.predicted[r], labels["test"]
    )
    return {
        "blocks": made,
        "rest": rest,
        "feature_score": made[0].get("validation", made[0]["test"])["mcc"],
        "log_likelihood": _histograms({k: v.log_likelihood[0, r] for k, v in divided.items()}),
    }


def _composition(part: Labels, labels: Labels, number: int, counts: Labels) -> dict[str, Any]:
    """Training samples that come to a part, by class, and what is said of their balance."""
    size = len(counts)
    entering = np.bincount(labels[part >= number], minlength=size)
    taken = np.bincount(labels[part == number], minlength=size)
    return {
        "entering": entering.tolist(),
        "taken": taken.tolist(),
        "imbalance": longtail.gini_coefficient(entering),
        "groups_entering": _groups(entering, counts),
        "groups_taken": _groups(taken, counts),
    }


def _groups(found: Labels, counts: Labels) -> dict[str, int]:
    """Samples of the classes with many, medium and few in the whole training set."""
    members = longtail.shot_groups(counts)
    return {name: int(found[which].sum()) for name, which in members.items()}


def _clusters(table: Labels) -> dict[str, Any]:
    """Size and purity of the clusters that have training samples, and of all together."""
    size = table.sum(axis=1)
    there = size > 0
    most = table.max(axis=1)
    return {
        "pure_clusters": dlsa.pure_clusters(table),
        "purity": float(most.sum() / size.sum()),
        "clusters": {
            "size": size[there].tolist(),
            "purity": (most[there] / size[there]).round(4).tolist(),
            "class": table[there].argmax(axis=1).tolist(),
        },
    }


def _division(
    part: Labels, cluster: npt.NDArray[np.int32], labels: Labels, number: int, counts: Labels
) -> dict[str, Any]:
    """How a block divides the samples of a split that come to it.

    MCC is the correlation of being taken with being of a head class, one of more than the mean
    number of training samples; NMI that of clusters with classes.
    """
    from sklearn.metrics import matthews_corrcoef, normalized_mutual_info_score

    came = part >= number
    taken = part[came] == number
    head = (counts > counts.mean())[labels[came]]
    return {
        "samples": int(taken.sum()),
        "came": int(came.sum()),
        "mcc": float(matthews_corrcoef(head, taken)) if came.any() else 0.0,
        "nmi": float(normalized_mutual_info_score(labels[came], cluster[came]))
        if came.any()
        else 0.0,
    }


def _accuracies(
    where: npt.NDArray[np.bool_], with_parts: Labels, without: Labels, labels: Labels
) -> dict[str, float | None]:
    """Accuracy on the samples of a part, of its classifier and of that of the whole set."""
    if not where.any():
        return {"accuracy": None, "accuracy_without": None}
    right, plain = with_parts[where] == labels[where], without[where] == labels[where]
    return {"accuracy": float(right.mean()), "accuracy_without": float(plain.mean())}


def _histograms(values: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    """Shares of samples in equal bins, which hold 98 % of each split; the rest is at their ends."""
    edges = [np.quantile(v, (0.01, 0.5, 0.99)) for v in values.values()]
    low, high = min(e[0] for e in edges), max(e[2] for e in edges)
    bins = np.linspace(low, high if high > low else low + 1.0, HISTOGRAM_BINS + 1)
    found: dict[str, Any] = {"bins": bins.tolist()}
    for (name, v), edge in zip(values.items(), edges, strict=True):
        share = np.histogram(np.clip(v, bins[0], bins[-1]), bins)[0] / len(v)
        found[name] = {"median": float(edge[1]), "share": share.tolist()}
    return found


def part_names(replica: Mapping[str, Any]) -> list[str]:
    """What parts are called: their blocks, and the rest."""
    return [*(f"block {i + 1}" for i in range(len(replica["blocks"]))), "rest"]


def parts_of(replica: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The facts about all parts, the rest last."""
    return [*replica["blocks"], replica["rest"]]


def tell_division(summary: Scores | None) -> None:
    """Prints what each part takes and who is right there, and the scores with and without.

    Args:
      summary: of a second stage of this kind; None for one that was stopped.
    """
    if summary is None:
        return
    from rich.console import Console
    from rich.table import Table

    replicas = summary["division"]["replicas"]
    header, *rows = part_rows(replicas)
    table = Table(*header, title=f"parts, mean over {len(replicas)} seed(s)")
    for row in rows:
        table.add_row(*row)
    console = Console()
    Console(width=console.width if console.is_terminal else 110).print(table)
    one = undivided(summary)
    for what in (summary, one):
        header, row = table_rows([what])
        say(", ".join(f"{name} {value}" for name, value in zip(header, row, strict=True)))
    score = np.mean([r["feature_score"] for r in replicas])
    say(
        f"divided against undivided: {difference_text(summary, one)} points of balanced accuracy;"
        f" score of the features (MCC of head and tail): {score:.2f}"
    )


def part_rows(replicas: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A header and a row for each part, means over replicas.

    Args:
      replicas: of a summary's ``division``.

    Returns:
      Rows of text.
    """
    header = ["part", "takes many/medium/few", "Gini of what comes", "purity", "MCC", "NMI"]
    rows = [[*header, "of test", "accuracy", "undivided"]]
    for i, name in enumerate(part_names(replicas[0])):
        parts = [parts_of(replica)[i] for replica in replicas]
        groups = [np.mean([p["groups_taken"][g] for p in parts]) for g in longtail.GROUPS]
        row = [name, "/".join(f"{g:.0f}" for g in groups), _mean(p["imbalance"] for p in parts)]
        if i < len(replicas[0]["blocks"]):
            row += [_mean(p["purity"] for p in parts)]
            row += [_mean(p["test"][m] for p in parts) for m in ("mcc", "nmi")]
        else:
            row += [""] * 3
        row.append(f"{np.mean([p['test']['samples'] for p in parts]):.0f}")
        row += [_mean(p["test"][a] for p in parts) for a in ("accuracy", "accuracy_without")]
        rows.append(row)
    return rows


def _mean(values: Iterable[float | None]) -> str:
    """Mean of those that are there."""
    known = [v for v in values if v is not None]
    return f"{np.mean(known):.3f}" if known else "-"
