"""The picture of a division: what comes to each block, its clusters, a map of the latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax import dlsa
from lt_jax.dividing_report import part_names, parts_of
from lt_jax.picture_axes import legend_above, log_scale, whole_numbers
from lt_jax.pictures import literal, new_figure, subject, write_figure
from lt_jax.summaries import Scores, score_text, undivided

MAPPED = 2000  # points of a map
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def latent_map(
    blocks: Sequence[dlsa.Block],
    divided: dlsa.Divided,
    features: Mapping[str, Any],
    labels: npt.NDArray[np.int64],
    bound: float,
) -> dict[str, npt.NDArray[Any]]:
    """Latents of test samples in the first block of the first replica, on two axes.

    The axes are those of the largest variance of the class means of the latents, along which
    classes are furthest apart.

    Args:
      blocks: in order.
      divided: of test.
      features: of each split, ``[R, N, D]``.
      labels: of test.
      bound: of the flow's log-scales.

    Returns:
      ``points [M, 2]``, ``labels [M]``, ``parts [M]`` and ``centres [K, 2]``.
    """
    flow = jax.tree.map(lambda leaf: leaf[0], blocks[0].flow)
    count = len(labels)
    rows = np.random.default_rng(0).permutation(count)[:MAPPED]
    chosen = jnp.asarray(features["test"][0, np.sort(rows)])
    latents = np.asarray(dlsa.forward(flow, chosen, train=False, bound=bound)[0], np.float64)
    own, part = labels[np.sort(rows)], divided.part[0, np.sort(rows)]
    means = np.stack([latents[own == c].mean(axis=0) for c in np.unique(own)])
    middle = means.mean(axis=0)
    found = np.linalg.svd(means - middle, full_matrices=False)[2][:2]
    axes = np.zeros((len(middle), 2))  # a second of zeros where there is one class or feature
    axes[:, : len(found)] = found.T
    return {
        "points": (latents - middle) @ axes,
        "labels": own,
        "parts": part,
        "centres": (np.asarray(blocks[0].centres[0], np.float64) - middle) @ axes,
    }


def save_division(summary: Scores, points: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Draws a division: counts entering each part, accuracies, clusters, likelihoods and a map.

    Args:
      summary: of the second stage, with ``division``.
      points: from `latent_map`.
      path: of the PNG to write.
    """
    made = new_figure(2, 3, (16, 9))
    if made is None:
        return
    figure, grid = made
    both = [score_text(run) for run in (summary, undivided(summary))]
    figure.suptitle(
        f"{literal(subject(summary))}: balanced accuracy {both[0]} %,"
        f" {both[1]} % undivided (test, {len(summary['seeds'])} seed(s))"
    )
    for axes, draw in zip(grid.flat, division_panels(summary, points).values(), strict=True):
        draw(axes)
    write_figure(figure, path)


def division_panels(
    summary: Scores, points: Mapping[str, npt.NDArray[Any]] | None
) -> dict[str, Callable[[Any], None]]:
    """What draws each panel of the picture of a division.

    Args:
      summary: of the second stage, with ``division``.
      points: from `latent_map`; None leaves the map out.

    Returns:
      Functions of the axes to draw on, by what they show.
    """
    replicas = summary["division"]["replicas"]
    panels: dict[str, Callable[[Any], None]] = {
        "training samples that come to each part": lambda axes: _draw_counts(axes, replicas),
        "accuracy on each part": lambda axes: _draw_parts(axes, replicas),
        "accuracy of each class": lambda axes: _draw_classes(axes, summary),
        "size and purity of clusters": lambda axes: _draw_clusters(axes, replicas),
        "log-likelihoods": lambda axes: _draw_likelihoods(axes, replicas[0]),
    }
    if points is not None:
        panels["map of the latents"] = lambda axes: _draw_map(axes, points)
    return panels


def _draw_counts(axes: Any, replicas: list[Scores]) -> None:
    """The imbalance of what comes to each part."""
    first = np.array(replicas[0]["blocks"][0]["entering"])
    order = np.argsort(-first, kind="stable")
    for i, name in enumerate(part_names(replicas[0])):
        entering = np.mean([parts_of(r)[i]["entering"] for r in replicas], axis=0)
        gini = np.mean([parts_of(r)[i]["imbalance"] for r in replicas])
        axes.plot(
            np.where(entering > 0, entering, np.nan)[order],
            "o-",
            ms=3,
            lw=1,
            color=_COLOURS[i % len(_COLOURS)],
            label=f"{name} (Gini {gini:.2f})",
        )
    axes.set(title="training samples that come to each part")
    log_scale(axes, "y")
    axes.set(xlabel="class, by frequency", ylabel="samples (mean over seeds)")
    whole_numbers(axes.xaxis)
    legend_above(axes)


def _draw_parts(axes: Any, replicas: list[Scores]) -> None:
    """Accuracy on the test samples of each part, with and without the division."""
    names = part_names(replicas[0])
    for offset, key, label, colour in (
        (-0.2, "accuracy", "divided", "tab:blue"),
        (0.2, "accuracy_without", "one classifier for all", "tab:gray"),
    ):
        values = np.array(
            [[parts_of(r)[i]["test"][key] for i in range(len(names))] for r in replicas], float
        )
        place = np.arange(len(names)) + offset
        axes.bar(place, _mean(values), width=0.38, color=colour, alpha=0.5, label=label)
        for row in values:
            axes.plot(place, row, "o", ms=3, color=colour)
    shares = [
        np.mean([parts_of(r)[i]["test"]["samples"] for r in replicas]) for i in range(len(names))
    ]
    total = sum(shares)
    axes.set_xticks(
        range(len(names)),
        [f"{n}\n{100 * s / total:.0f} % of test" for n, s in zip(names, shares, strict=True)],
    )
    axes.set(title="accuracy on the test samples of each part", ylabel="accuracy", ylim=(0, 1.02))
    legend_above(axes)


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over replicas of those that have the part."""
    there = ~np.isnan(values)
    return np.where(there, values, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)


def _draw_classes(axes: Any, summary: Scores) -> None:
    counts = np.array(summary["data"]["class_counts"])
    for test, label, colour in (
        (summary["test"]["last"], "divided", "tab:blue"),
        (summary["division"]["without"], "one classifier for all", "tab:gray"),
    ):
        mean = np.array(test["mean"]["per_class"], float)
        std = np.nan_to_num(np.array(test["std"]["per_class"], float))
        axes.errorbar(counts, mean, yerr=std, fmt="o", ms=4, lw=1, label=label, color=colour)
    axes.set(title="accuracy of each class", xlabel="training samples of the class")
    log_scale(axes, "x")
    axes.set(ylabel="test accuracy", ylim=(-0.02, 1.02))
    legend_above(axes)


def _draw_clusters(axes: Any, replicas: list[Scores]) -> None:
    for i in range(len(replicas[0]["blocks"])):
        found = [r["blocks"][i] for r in replicas]
        size = np.concatenate([f["clusters"]["size"] for f in found])
        purity = np.concatenate([f["clusters"]["purity"] for f in found])
        label = f"block {i + 1} (purity {np.mean([f['purity'] for f in found]):.2f})"
        axes.plot(size, purity, "o", ms=3, alpha=0.5, label=label, color=_COLOURS[i % 6])
    axes.axhline(0.7, color="black", lw=0.8, ls=":")
    axes.axvline(10, color="black", lw=0.8, ls=":")
    axes.set(title="clusters (dotted: pure and not small)", ylim=(0, 1.05))
    log_scale(axes, "x")
    axes.set(xlabel="training samples", ylabel="share of its most frequent class")
    legend_above(axes)


def _draw_likelihoods(axes: Any, replica: Scores) -> None:
    """Log-likelihoods in the first block: how far the flow fits what it was not fitted to."""
    found = replica["log_likelihood"]
    bins = np.array(found["bins"])
    for name, colour in (("train", "tab:blue"), ("validation", "tab:orange"), ("test", "tab:red")):
        if name in found:
            axes.stairs(found[name]["share"], bins, label=name, color=colour)
    threshold = replica["blocks"][0]["threshold"]
    axes.axvline(threshold, color="black", lw=0.8, ls="--", label="threshold")
    axes.set(title="log-likelihood in the first block, first seed", ylabel="share of samples")
    axes.set(xlabel="log-likelihood (1 % tails at the ends)")
    legend_above(axes, 4)


def _draw_map(axes: Any, points: Mapping[str, npt.NDArray[Any]]) -> None:
    """Test samples in the latent space: filled ones were taken by the first block."""
    from matplotlib import colormaps

    labels, taken = points["labels"], points["parts"] == 0
    classes = int(labels.max()) + 1
    colours = colormaps["turbo"](labels / max(classes - 1, 1))
    x, y = points["points"].T
    axes.scatter(x[~taken], y[~taken], s=8, facecolors="none", edgecolors=colours[~taken], lw=0.6)
    axes.scatter(x[taken], y[taken], s=10, c=colours[taken])
    axes.scatter(*points["centres"].T, marker="+", s=18, color="black", lw=0.6)
    axes.set(title="latents, first block and seed (filled: taken; +: centres)")
    axes.set(xlabel="colour: class, from the first (blue) to the last (red)", xticks=[], yticks=[])
