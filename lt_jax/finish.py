"""The end of a run: the test set is read, once, and the summary written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lt_jax import processes, workdir
from lt_jax.data import Dataset
from lt_jax.loop import Loop
from lt_jax.masking_pictures import save_history
from lt_jax.metrics import Scoring
from lt_jax.pictures import dispensable, save_picture
from lt_jax.run import Config, Run, evaluate
from lt_jax.stopping import Stop
from lt_jax.summaries import summarize


def carry_out(run: Run, extra: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Trains what was prepared, in its folder, from where an earlier call stopped.

    Args:
      run: what `lt_jax.prepare` gave; its folder is claimed.
      extra: further fields of the summary.

    Returns:
      The summary; None if a signal stopped it.

    Raises:
      NonFiniteError: if the loss or the weights stop being finite.
      StorageError: if something cannot be saved; the same call goes on from what was saved before.
    """
    return go_through(run, lambda loop: finish(run, loop.states, loop.seconds, extra))


def go_through(run: Run, conclude: Callable[[Loop], dict[str, Any]]) -> dict[str, Any] | None:
    """Trains what was prepared, and concludes it before its files are closed.

    Args:
      run: as for `carry_out`.
      conclude: called with the loop after the last step.

    Returns:
      What `conclude` does; None if a signal stopped the run.

    Raises:
      NonFiniteError: as `carry_out`.
      StorageError: as `carry_out`.
    """
    with Stop() as stop:
        loop = Loop(run, stop)
        try:
            return conclude(loop) if loop.go() else None
        except KeyboardInterrupt:  # whoever pressed it twice wants no traceback, but what is left
            loop.checkpoints.wait()
            raise KeyboardInterrupt(loop.left()) from None
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
    if stacked.best:
        steps = np.asarray(stacked.best.step).tolist()
        selection["best_on_validation"] = {"steps": steps}
    scores = {}
    for name, facts in selection.items():
        which = "last" if name == "last" else "best"
        validation = None
        if "validation" in run.splits:
            validation = evaluate(run, states, "validation", which)
            headline = run.scoring.headline
            facts[f"validation_{headline}"] = run.scoring.validation_row(validation)[headline]
        scores[name] = scores_of(run.scoring, evaluate(run, states, "test", which), validation)
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
        run.scoring,
        run.folder,
        seeds=run.seeds,
        scores=scores,
        selection=selection,
        training=training,
        extra=extra or {},
    )


def scores_of(scoring: Scoring, test: Any, validation: Any = None) -> list[dict[str, Any]]:
    """Scores of each replica.

    Args:
      scoring: of the run.
      test: counts of the test split, leading axis R.
      validation: of the validation split, to choose thresholds on; None if there is none.

    Returns:
      R dictionaries that JSON can hold.
    """

    def of_replica(counts: Any, r: int) -> Any:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[r], counts)  # None stays None

    count = len(jax.tree.leaves(test)[0])
    return [scoring.scores(of_replica(test, r), of_replica(validation, r)) for r in range(count)]


def write_summary(
    config: Config,
    dataset: Dataset,
    scoring: Scoring,
    folder: Path,
    *,
    extra: Mapping[str, Any],
    **results: Any,
) -> dict[str, Any]:
    """Writes the summary of a run and its picture.

    Args:
      config: of the run.
      dataset: it was tested on.
      scoring: of the run.
      folder: where to.
      extra: further fields of the summary.
      **results: for `lt_jax.summaries.summarize`.

    Returns:
      The summary.
    """
    summary = {**summarize(config, dataset.info(), scoring, **results), **extra}
    # Its presence says that the run has finished; a picture that fails must not undo that.
    workdir.write_json(folder / workdir.SUMMARY, summary)
    if config["train"]["picture"] and processes.is_writer():
        with dispensable():
            save_picture(summary, folder / workdir.METRICS, folder / workdir.PICTURE)
            save_history(summary, folder / workdir.METRICS, folder / workdir.MASKS)
    workdir.await_file(folder / workdir.SUMMARY)  # a second stage reads it in all processes
    return summary
