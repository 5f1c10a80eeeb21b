"""Deferral: a transform that starts later, as in deferred re-weighting (DRW)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax.errors import InputError
from lt_jax.longtail.counts import check_whole
from lt_jax.objectives.core import Terms, Transform

Array = jax.Array


class DeferredState(NamedTuple):
    """Calls since the start, int32 scalar, and the state of the deferred transform."""

    step: Array
    inner: Any


def deferred(transform: Transform, start_step: int) -> Transform:
    """The transform from step `start_step` on, nothing before.

    Args:
      transform: any transform that leaves the scale of the logits alone.
      start_step: first step, counted from 0, at which it acts; its state stands still before.

    Returns:
      A transform of the same stage.

    Raises:
      InputError: for a negative step, or a transform that scales cosines: without it they would be
        trained unscaled until then.

    Example:
      >>> from lt_jax import objectives
      >>> objective = objectives.chain(
      ...     deferred(objectives.class_balanced([900, 100], beta=0.999), start_step=160),
      ...     base=objectives.softmax_cross_entropy)

    Source: Cao et al., LDAM-DRW, NeurIPS 2019.
    """
    if not isinstance(transform, Transform):
        raise InputError(f"{transform!r} is not a loss transform; call its factory first")
    start_step = min(check_whole("start_step", start_step, 0), np.iinfo(np.int32).max)
    if transform.wants_cosines:
        raise InputError(
            f"{transform.name} cannot be deferred: it scales the cosines, which are not trained"
            " without a scale"
        )

    def apply(state: DeferredState, key: Array, terms: Terms) -> tuple[Terms, DeferredState]:
        changed, inner = transform.apply(state.inner, key, terms)
        active = state.step >= start_step

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(active, new, old)

        terms = terms._replace(
            logits=choose(changed.logits, terms.logits),
            weights=choose(changed.weights, terms.weights),
            keep=choose(changed.keep, terms.keep),
        )
        return terms, DeferredState(state.step + 1, jax.tree.map(choose, inner, state.inner))

    return transform._replace(
        init=lambda: DeferredState(jnp.zeros((), jnp.int32), transform.init()),
        apply=apply,
        report=lambda state: transform.report(state.inner),
    )
