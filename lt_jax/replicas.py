"""R seeds in one run: side by side by `vmap`, or one after another in the same process.

Both ways give the same results, up to the rounding of sums. On XLA:CPU a vmapped convolution
becomes a grouped one, which is slow, so there each step runs the replicas in turn with one compiled
program; on GPU and TPU small networks leave most of the chip idle and `vmap` pays.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lt_jax.data.sampling import Order
from lt_jax.metrics import Scoring
from lt_jax.objectives import Objective
from lt_jax.programs import Compiler, Program
from lt_jax.sharding import awaited, replicated, to_devices
from lt_jax.state import TrainState, offer_best
from lt_jax.steps import EvalStep, Split, Steps, TrainStep, one_row, several

Array = jax.Array
States = Any  # one stacked state, or a tuple of states
Rows = Array | np.ndarray
Batches = Iterable[tuple[Split, Array, Array]]  # see `lt_jax.feeding.evaluation_batches`


_HELD = 8  # counts of batches; those of 1,000 classes, with their confusion, take 4 MB each


class Replicas(NamedTuple):
    """How R replicas are advanced; every array of theirs has a leading axis R.

    Attributes:
      init: ``keys -> states``.
      order: ``(keys, epoch) -> int32 [R, steps, B]``, each replica's own.
      advance: ``(states, keys, split, rows [R, K, B]) -> (states, losses [R, K])``; the states
        that go in are given up.
      programs: ``(states, keys, split, [rows], [batch]) -> [program]``, for `compile_together`: of
        calls of `advance` with each of these rows, and of the evaluation of each of these batches,
        in which there may be `jax.ShapeDtypeStruct`. The longest come first.
      evaluate: ``(states, which, batches) -> counts``, of the ``"last"`` or the ``"best"`` weights
        over all batches.
      report: ``states -> dict``, what the objectives remember for people, see `Objective`.
      offer: ``(states, scores [R]) -> states``, see `offer_best`.
      stack: states as one tree with a leading axis, for the checkpoint.
      unstack: the way back.
      steps_per_call: K of `advance`.
    """

    init: Callable[[Array], States]
    order: Callable[[Array, int], Array]
    advance: Callable[[States, Array, Split, Rows], tuple[States, Array]]
    programs: Callable[[States, Array, Split, list[Rows], Batches], list[Program]]
    evaluate: Callable[[States, str, Batches], Any]
    report: Callable[[States], dict[str, np.ndarray]]
    offer: Callable[[States, np.ndarray], States]
    stack: Callable[[States], TrainState]
    unstack: Callable[[TrainState], States]
    steps_per_call: int


def use_vmap(mode: str, num_replicas: int) -> bool:
    """Whether replicas run side by side: if asked for, or where it pays."""
    if mode == "auto":
        return num_replicas > 1 and jax.default_backend() != "cpu"
    return mode == "vmap"


class _Programs(NamedTuple):
    """Compiled functions: of one replica, or of all of them side by side."""

    init: Callable[[Array], tuple[TrainState, ...]]
    order: Callable[[Array, int], Array]
    advance: Callable[..., Any]
    of: Callable[..., list[Program]]
    evaluate: Callable[..., Any]
    total: Callable[[list[Any]], Any]
    report: Callable[[Any], dict[str, Array]]
    offer: Callable[..., TrainState]


def make_replicas(
    init: Callable[[Array, int], TrainState],
    order: Order,
    train_step: TrainStep,
    eval_step: EvalStep,
    scoring: Scoring,
    objective: Objective,
    *,
    vmapped: bool,
    num_replicas: int,
    steps_per_call: int,
    mesh: Mesh,
    split_axes: Any = None,
    fsdp: bool = False,
) -> Replicas:
    """Compiled functions over all replicas.

    Args:
      init: ``(key, number of the replica) -> state`` of one replica.
      order: ``(key, epoch) -> int32 [steps, B]`` of one replica.
      train_step: of one replica.
      eval_step: of one replica.
      scoring: how the counts of batches add up.
      objective: what the steps minimise.
      vmapped: side by side, or one after another.
      num_replicas: R.
      steps_per_call: updates in one program.
      mesh: devices that share each batch.
      split_axes: None if all replicas see the same arrays; or, side by side only, a `Split` with 0
        for those of which every replica has its own along a leading axis.
      fsdp: whether weights, momenta and all else in a state are split over the devices, each
        gathered where a layer needs it; of one replica that runs as if side by side.

    Returns:
      `Replicas`.
    """
    everywhere = replicated(mesh)
    compiled = Compiler(mesh, vmapped=vmapped, fsdp=fsdp)

    def start(keys: Array) -> tuple[TrainState, ...]:
        # Not compiled: the generator unrolled for every weight takes XLA longer than it runs.
        return tuple(init(key, r) for r, key in enumerate(keys))

    steps = _steps(train_step, steps_per_call, num_replicas if vmapped else 1, fsdp=fsdp)
    advance = compiled(steps, (0, 0, split_axes, 0), donate_argnums=0)
    # What the host reads is whole everywhere.
    evaluate = compiled(eval_step, (0, 0, split_axes, None, None), whole=True)
    programs = _Programs(
        init=start,
        # Orders are light: always drawn for all replicas at once.
        order=jax.jit(jax.vmap(order, in_axes=(0, None)), out_shardings=everywhere),
        # Side by side a step waits for the last one, whose results it changes.
        advance=advance if vmapped else awaited(advance, mesh),
        of=functools.partial(_programs_of, advance, evaluate),
        evaluate=awaited(evaluate, mesh),
        total=scoring.total,
        report=compiled(objective.report, (0,), whole=True),
        offer=compiled(offer_best, (0, 0)),
    )
    if vmapped:
        return _side_by_side(programs, steps_per_call, compiled.put)
    return _in_turn(programs, num_replicas, steps_per_call, everywhere)


def _steps(train_step: TrainStep, per_call: int, copies: int, *, fsdp: bool) -> Steps:
    """What one program does of the updates."""
    if per_call == 1:
        return one_row(train_step)
    # Few kernels are what a GPU needs, and weights that FSDP splits stay by themselves.
    return several(train_step, copies, packed=jax.default_backend() == "gpu" and not fsdp)


def _programs_of(
    advance: Any,
    evaluate: Any,
    state: TrainState,
    key: Array,
    split: Split,
    calls: Iterable[Rows],
    batches: Batches,
) -> list[Program]:
    """The programs of calls and of batches."""
    steps = [(advance, (state, key, split, rows)) for rows in calls]
    return steps + [(evaluate, (state.params, state.stats, *each)) for each in batches]


def _evaluate(
    programs: _Programs, states: Iterable[TrainState], which: str, batches: Batches
) -> list[Any]:
    """Counts over all batches of the last or the best weights, of each state.

    A batch is gone through with all states before the next one is read.
    """
    weights: Any = [state.best if which == "best" else state for state in states]
    parts: list[list[Any]] = [[] for _ in weights]
    for split, indices, where in batches:
        for w, part in zip(weights, parts, strict=True):
            part.append(programs.evaluate(w.params, w.stats, split, indices, where))
            if len(part) == _HELD:
                part[:] = [programs.total(part)]
    return [programs.total(part) for part in parts]


def _stack(trees: Any) -> Any:
    """Trees as one with a leading axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *trees)


def _side_by_side(
    programs: _Programs, per_call: int, put: Callable[[TrainState], TrainState]
) -> Replicas:
    """All replicas in one program; their states are one stacked state."""
    return Replicas(
        init=lambda keys: put(_stack(programs.init(keys))),
        order=programs.order,
        advance=programs.advance,
        programs=programs.of,
        evaluate=lambda states, *rest: _evaluate(programs, [states], *rest)[0],
        # What remembers nothing reports nothing, and has no axis of replicas either.
        report=lambda states: (
            jax.device_get(programs.report(states.objective))
            if jax.tree.leaves(states.objective)
            else {}
        ),
        offer=programs.offer,
        stack=lambda states: states,
        unstack=put,
        steps_per_call=per_call,
    )


def _in_turn(
    programs: _Programs, num_replicas: int, per_call: int, everywhere: NamedSharding
) -> Replicas:
    """One program, run for each replica; their states are a tuple."""

    def advance(states: Any, keys: Array, split: Split, rows: Rows) -> Any:
        results = [
            programs.advance(state, key, split, own)
            for state, key, own in zip(states, keys, rows, strict=True)
        ]
        return tuple(state for state, _ in results), jnp.stack([loss for _, loss in results])

    def of_first(
        states: Any, keys: Array, split: Split, calls: list[Rows], batches: Batches
    ) -> list[Program]:
        # As `advance` takes them apart: indexing keys would be one more program.
        state, key = next(zip(states, keys, strict=True))
        return programs.of(state, key, split, [rows[0] for rows in calls], batches)

    def unstack(tree: Any) -> tuple[Any, ...]:
        each = (jax.tree.map(operator.itemgetter(r), tree) for r in range(num_replicas))
        return tuple(to_devices(state, everywhere) for state in each)

    return Replicas(
        init=lambda keys: tuple(to_devices(state, everywhere) for state in programs.init(keys)),
        order=programs.order,
        advance=advance,
        programs=of_first,
        evaluate=lambda states, *rest: _stack(_evaluate(programs, states, *rest)),
        report=lambda states: (
            _stack([programs.report(s.objective) for s in states])
            if jax.tree.leaves(states[0].objective)
            else {}
        ),
        offer=lambda states, scores: tuple(map(programs.offer, states, scores)),
        stack=_stack,
        unstack=unstack,
        steps_per_call=per_call,
    )


def finite(leaf: Any, mesh: Mesh) -> np.ndarray:
    """Of which replicas an array of states is finite.

    Args:
      leaf: ``[R, ...]``.
      mesh: devices of the run.

    Returns:
      bool ``[R]``, on the host.
    """
    where = leaf.sharding if isinstance(leaf, jax.Array) else None
    if isinstance(where, NamedSharding) and not where.is_fully_replicated:  # parts may be elsewhere
        return np.asarray(_finite_on(mesh)(leaf))
    return np.isfinite(np.asarray(leaf)).reshape(len(leaf), -1).all(1)


@functools.cache
def _finite_on(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """The same on the devices, compiled once for each shape and not at each checkpoint."""
    return jax.jit(
        lambda x: jnp.isfinite(x).reshape(len(x), -1).all(1), out_shardings=replicated(mesh)
    )
