"""The end of a run: the test set is read, once, and the summary written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lt_jax import metrics, workdir
from lt_jax.data import Dataset
from lt_jax.loop import Config, Loop, Run, Stop, evaluate
from lt_jax.pictures import save_picture
from lt_jax.report import summarize


def carry_out(run: Run, extra: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Trains what was prepared, in its folder, from where an earlier call stopped.

    Args:
      run: what `lt_jax.prepare` gave; its folder is claimed.
      extra: further fields of the summary.

    Returns:
      The summary; None if a signal stopped it.

    Raises:
      NonFiniteError: if the loss or the weights stop being finite.
    """
    with Stop() as stop:
        loop = Loop(run, stop)
        try:
            finished = loop.go()
            return finish(run, loop.states, loop.seconds, extra) if finished else None
        finally:
            loop.close()


def finish(
    run: Run, states: Any, seconds: float, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Reads the test set, once, and writes the summary and its picture.

    Args:
      run: what `lt_jax.prepare.prepare` gave.
      states: after the last step.
      seconds: spent training.
      extra: further fields of the summary.

    Returns:
      The summary.
    """
    stacked = run.replicas.stack(states)
    selection: dict[str, Any] = {"last": {"steps": [run.total_steps] * len(run.seeds)}}
    if "validation" in run.splits:
        confusion = evaluate(run, states, "validation").confusion
        score = metrics.balanced_accuracy(confusion)
        selection["last"]["validation_balanced_accuracy"] = score.tolist()
    if stacked.best:
        selection["best_on_validation"] = {
            "steps": np.asarray(stacked.best.step).tolist(),
            "validation_balanced_accuracy": np.asarray(stacked.best.score, float).tolist(),
        }
    counts = {
        name: evaluate(run, states, "test", "last" if name == "last" else "best")
        for name in selection
    }
    sizes = [leaf[0].size for leaf in jax.tree.leaves(stacked.params)]
    training = {
        "steps": run.total_steps,
        "steps_per_epoch": run.steps_per_epoch,
        "seconds": round(seconds, 3),
        "parameters": int(sum(sizes)),
        "devices": run.mesh.size,
    }
    return write_summary(
        run.config,
        run.dataset,
        run.folder,
        seeds=run.seeds,
        counts=counts,
        selection=selection,
        training=training,
        extra=extra or {},
    )


def write_summary(
    config: Config,
    dataset: Dataset,
    folder: Path,
    *,
    extra: Mapping[str, Any],
    **results: Any,
) -> dict[str, Any]:
    """Writes the summary of a run and its picture.

    Args:
      config: of the run.
      dataset: it was tested on.
      folder: where to.
      extra: further fields of the summary.
      **results: for `lt_jax.report.summarize`.

    Returns:
      The summary.
    """
    summary = {**summarize(config, dataset.info(), **results), **extra}
    # Its presence says that the run has finished; a picture that fails must not undo that.
    workdir.write_json(folder / workdir.SUMMARY, summary)
    if config["train"]["picture"]:
        save_picture(summary, folder / workdir.METRICS, folder / workdir.PICTURE)
    return summary
