"""What a run consists of, and the functions that are its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from lt_jax.data import Dataset
from lt_jax.feeding import evaluation_batches, evaluation_shapes
from lt_jax.metrics import Scoring
from lt_jax.programs import Program
from lt_jax.replicas import Replicas, Rows
from lt_jax.steps import Split

Config = Mapping[str, Any]


class Run(NamedTuple):
    """What a run consists of, before its first step."""

    config: Config
    options: Config  # of this stage: epochs, batch_size, how often to log, evaluate and save
    folder: Path
    dataset: Dataset
    mesh: Mesh
    replicas: Replicas
    scoring: Scoring
    schedule: optax.Schedule
    splits: dict[str, Split]
    seeds: tuple[int, ...]
    steps_per_epoch: int
    total_steps: int
    fingerprint: dict[str, Any]  # of what it is trained on
    stage: int = 1
    variants: tuple[str, ...] = ()  # what tells replicas of one seed apart, such as " with tau 2"
    later: Callable[[], Iterable[Program]] = tuple  # makes the programs of a stage after this one


def evaluate(run: Run, states: Any, split: str, which: str = "last") -> Any:
    """Counts of every replica over a split, leading axis R.

    Args:
      run: what `prepare` gave.
      states: of the replicas.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      which: ``"last"`` or ``"best"`` weights.

    Returns:
      What `Run.scoring` makes scores of.
    """
    batches = evaluation_batches(run.splits[split], run.options["eval_batch_size"], run.mesh)
    return run.replicas.evaluate(states, which, batches)


def programs_of(
    run: Run, states: Any, keys: jax.Array, split: Split, rows: Rows, left: int
) -> list[Program]:
    """The programs of a run: of its calls, of the last one of an epoch, and of evaluation.

    Args:
      run: what `prepare` gave.
      states: of its replicas.
      keys: of their steps.
      split: as a call is handed it.
      rows: of a call, as many as one program makes.
      left: how many the last call of an epoch has; 0 if it is like the others.

    Returns:
      For `compile_together`.
    """
    size = run.options["eval_batch_size"]
    evaluated = [run.splits[name] for name in ("validation", "test") if name in run.splits]
    shapes = [evaluation_shapes(split, size, run.mesh) for split in evaluated]
    # Batches that are alike are evaluated by one program.
    batches = {str(jax.tree.map(np.shape, each)): each for each in shapes}.values()
    calls = [rows, rows[:, :left]] if left else [rows]
    return run.replicas.programs(states, keys, split, calls, batches)


@functools.partial(jax.jit, static_argnums=1)
def start_keys(seeds: jax.Array, stage: int) -> tuple[jax.Array, ...]:
    """Keys ``[R]`` for the weights, the order of the images and the steps."""
    keys = jax.vmap(jax.random.key)(seeds)
    if stage > 1:  # or the second stage would repeat the draws of the first
        keys = jax.vmap(lambda key: jax.random.fold_in(key, stage))(keys)
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    return keys[:, 0], keys[:, 1], keys[:, 2]
