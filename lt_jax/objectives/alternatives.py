"""Several objectives as one, of which each replica of a run has its own: for tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lt_jax.errors import InputError
from lt_jax.objectives.core import Objective, Report

Array = jax.Array
State = Any  # a pytree


class Alternative(NamedTuple):
    """Which of the objectives is meant, int32 scalar, and its state."""

    number: Array
    state: State


def alternatives(objectives: Sequence[Objective]) -> tuple[Objective, tuple[Any, ...]]:
    """Objectives that differ in their options as one, whose state says which is meant.

    Under `jax.vmap` replicas with different numbers run side by side in one program; each then
    computes the losses of all, which cost little beside a network, and takes its own.

    Args:
      objectives: whose states have the same shapes and which scale logits alike.

    Returns:
      The objective, and the ``init`` of each alternative: ``() -> state``. That of the objective is
      the first one's.

    Raises:
      InputError: if there are none, or their states or scales differ.

    Example:
      >>> from lt_jax import objectives
      >>> one, starts = alternatives([
      ...     objectives.chain(objectives.focal(gamma=g), base=objectives.softmax_cross_entropy)
      ...     for g in (0.0, 2.0)])
      >>> logits, labels, key = jnp.zeros((1, 2)), jnp.array([0]), jax.random.key(0)
      >>> [round(float(one.apply(start(), key, logits, labels)[0][0]), 3) for start in starts]
      [0.693, 0.173]
    """
    if not objectives:
        raise InputError("there are no objectives to choose from; expected at least one")
    first = objectives[0]
    _check_alike(objectives)

    def apply(
        state: Alternative,
        key: Array,
        logits: ArrayLike,
        labels: ArrayLike,
        where: ArrayLike | None = None,
    ) -> tuple[Array, Alternative]:
        loss, inner = jax.lax.switch(
            state.number,
            [lambda *given, own=o: own.apply(*given) for o in objectives],
            *(state.state, key, logits, labels, where),
        )
        return loss, Alternative(state.number, inner)

    def report(state: Alternative) -> Report:
        return jax.lax.switch(state.number, [o.report for o in objectives], state.state)

    def start(number: int) -> Alternative:
        return Alternative(jnp.asarray(number, jnp.int32), objectives[number].init())

    starts = tuple(lambda number=n: start(number) for n in range(len(objectives)))
    reason = next((o.only_single_label for o in objectives if o.only_single_label), "")
    together = first._replace(init=starts[0], apply=apply, report=report, only_single_label=reason)
    return together, starts


def _check_alike(objectives: Sequence[Objective]) -> None:
    """Refuses what one program cannot hold."""
    first = objectives[0]
    for other in objectives[1:]:
        if _shapes(first) != _shapes(other):
            raise InputError(
                "the objectives remember states of different shapes; expected ones that differ in"
                " numbers alone, with a start_epoch above 0 in all of them or in none"
            )
        for name in ("scale", "wants_cosines", "competing"):
            if getattr(first, name) != getattr(other, name):
                raise InputError(
                    f"the objectives have {name} {getattr(first, name)!r} and"
                    f" {getattr(other, name)!r}; expected the same, as networks are evaluated alike"
                )


def _shapes(objective: Objective) -> Any:
    """Of what it remembers, as a tree that can be compared."""
    state = jax.eval_shape(objective.init)
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), state)
