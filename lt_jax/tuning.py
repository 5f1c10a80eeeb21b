"""Values of options compared on validation: every value and seed is a replica.

Read from the top: `tune` checks everything, makes one run whose replicas differ in the options and
in nothing else, goes through its steps and reads validation. Test is not even put on the device;
only where a second stage is tuned its first, an ordinary run, reads it at its end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lt_jax import workdir
from lt_jax.build import make_objective
from lt_jax.configuration import check_config, first_stage, plain
from lt_jax.data import Dataset
from lt_jax.errors import InputError
from lt_jax.files import folder_of
from lt_jax.finish import go_through, scores_of
from lt_jax.loop import Loop
from lt_jax.objectives import alternatives
from lt_jax.optimizers import make_optimizer, make_schedule
from lt_jax.prepare import check_moved, load, prepare
from lt_jax.retrain import check_second_stage, start_second_stage
from lt_jax.run import Run, evaluate
from lt_jax.second_run import prepare_classifier
from lt_jax.settings import Grid, candidates_of
from lt_jax.train import train
from lt_jax.tuning_report import point_name, summarize_tuning, write_tuning
from lt_jax.writers import say


def tune(
    config: ConfigDict,
    over: Sequence[str],
    folder: str | Path,
    *,
    dataset: Dataset | None = None,
) -> dict[str, Any] | None:
    """Compares values of options on validation, or goes on with it.

    Each seed of the config is trained once with each value, all of them in one run, side by side
    where replicas are (see `lt_jax.replicas`). With one seed the same weights, images, their order
    and random draws belong to all values, so that differences are paired.

    Args:
      config: as for `lt_jax.train.train`; its `replicas` seeds are trained with every value.
      over: one field or two and their values, such as
        ``"objective.transforms.gaussian_cloud.noise=0.25,0.5,1"`` or
        ``"optimizer.learning_rate=0.03,0.1,0.3"``; or of the second stage, whose first is then
        trained once: ``"retrain.objective.transforms.focal.gamma=0,1"``.
      folder: for ``tuning.json``, ``tuning.md`` and ``tuning.png``, beside checkpoints and metrics.
      dataset: of ``config.data``, if it has been loaded already.

    Returns:
      What ``tuning.json`` has; None if a signal stopped it.

    Raises:
      InputError: for fields that cannot be compared, values that are refused, data
        without a validation split, or a folder of something else; before anything is trained.
      NonFiniteError: naming the value with which the loss stopped being finite.
      StorageError: if something cannot be saved.

    Example::

        config = base_config("cb_focal")
        config.replicas = 3
        found = tune(config, ["objective.transforms.class_balanced.beta=0.9,0.99,0.999"], "runs/b")
        found["chosen"]
    """
    return _carry_out(_plan(config, over, folder_of(folder), dataset))


class _Plan(NamedTuple):
    """A tuning that has been checked; without data if it has finished already."""

    config: ConfigDict
    grid: Grid
    path: Path
    dataset: Dataset | None


def _plan(
    config: ConfigDict, over: Sequence[str], path: Path, dataset: Dataset | None = None
) -> _Plan:
    """Checks a tuning; writes nothing."""
    grid = _grid(config, over)
    workdir.check_config_matches(_noted(config, grid), path)
    done = workdir.finished_summary(path, workdir.TUNING)
    if done is not None:
        noted = {k: v for k, v in done["data"].items() if k != "total_test"}  # see `_without_test`
        check_moved(config, path, noted, dataset)
        return _Plan(config, grid, path, None)
    dataset = load(config, dataset)
    _check(grid, dataset)
    return _Plan(config, grid, path, dataset)


@workdir.until_done()
def _carry_out(plan: _Plan) -> dict[str, Any] | None:
    """Trains all values and seeds, and writes what validation says of them."""
    config, grid, path, dataset = plan
    if dataset is None:
        say(f"the tuning in {path} has finished already; nothing was changed.")
        return workdir.finished_summary(path, workdir.TUNING)
    prepare_run = _second_stage if grid.second_stage else _first_stage
    run = prepare_run(config, grid, path, dataset)
    if run is None:
        return None
    done = workdir.claim(_noted(config, grid), path, workdir.TUNING)
    if done is not None:
        return done
    names = [f" with {point_name(grid.fields, point)}" for point in grid.points]
    run = run._replace(variants=tuple(n for n in names for _ in range(config.replicas)))

    def conclude(loop: Loop) -> dict[str, Any]:
        scores = scores_of(run.scoring, evaluate(run, loop.states, "validation"))
        found = summarize_tuning(config, grid, run, scores, loop.seconds)
        write_tuning(found, path)
        return found

    return go_through(run, conclude)


def _grid(config: ConfigDict, over: Sequence[str]) -> Grid:
    """The configs that are compared, each checked."""
    grid = candidates_of(config, over)
    for candidate in grid.configs:
        check_config(candidate)
    return grid


def _noted(config: ConfigDict, grid: Grid) -> dict[str, Any]:
    """The config that the folder keeps, with what is compared."""
    return {**plain(config), "tune": dict(zip(grid.fields, map(list, grid.axes), strict=True))}


def _check(grid: Grid, dataset: Dataset) -> None:
    """Refuses what these data do not allow, before a first stage is trained for nothing."""
    if not len(dataset.validation_labels):
        raise InputError(
            "there is no validation split to choose on; expected config.data.validation_size above"
            " 0, or data that bring one"
        )
    if grid.second_stage:
        for candidate in grid.configs:
            check_second_stage(candidate, dataset)
    alternatives([make_objective(own["objective"], dataset) for own in _compared(grid)])
    for own in _compared(grid):
        make_optimizer(own["optimizer"], make_schedule(own["optimizer"], 1, 1))


def _compared(grid: Grid) -> list[dict[str, Any]]:
    """Fields of the stage with each of the values."""
    fields = [plain(candidate) for candidate in grid.configs]
    return [f["retrain"] if grid.second_stage else f for f in fields]


def _without_test(dataset: Dataset) -> Dataset:
    return dataclasses.replace(
        dataset,
        test_images=dataset.test_images[np.arange(0)],
        test_labels=dataset.test_labels[:0],
    )


def _first_stage(config: ConfigDict, grid: Grid, path: Path, dataset: Dataset) -> Run:
    return prepare(first_stage(config), path, _without_test(dataset), _compared(grid))


def _second_stage(config: ConfigDict, grid: Grid, path: Path, dataset: Dataset) -> Run | None:
    """The first stage is an ordinary run of its own, whose test score nobody asks for here."""
    if train(first_stage(config), path / workdir.STAGE1, dataset=dataset) is None:
        return None
    start = start_second_stage(config, path, path / workdir.STAGE1, dataset)
    stage = start._replace(dataset=_without_test(dataset))
    return prepare_classifier(stage, _compared(grid))


def tune_rows(configs: Mapping[str, ConfigDict], over: Sequence[str], folder: Path) -> None:
    """`tune` for each row of a table, in a folder of its own.

    Args:
      configs: by row.
      over: fields and values.
      folder: one folder for each row is made in it.

    Raises:
      InputError: as `tune`, naming the row, before the first is trained.
    """
    plans: list[_Plan] = []
    for name, config in configs.items():
        same = plans and plain(plans[-1].config)["data"] == plain(config)["data"]
        dataset = plans[-1].dataset if same else None
        try:
            plans.append(_plan(config, over, folder / name, dataset))
        except InputError as error:
            raise InputError(f"row {name!r}: {error}") from error
    for name, plan in zip(configs, plans, strict=True):
        say(f"tuning {name}")
        if _carry_out(plan) is None:
            return
