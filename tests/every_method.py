"""Objectives of every registered method, a batch for them, and states in which everything acts."""

import itertools
from functools import cache

import jax
import numpy as np

from lt_jax import objectives
from lt_jax.objectives import build_objective, method_spec

COUNTS = np.array([500, 120, 60, 20, 4])
CLASSES = len(COUNTS)
KEY = jax.random.key(11)
SIGMOID, SOFTMAX = objectives.sigmoid_cross_entropy, objectives.softmax_cross_entropy
# Rows of the batch: the first are ordinary (and cosines), the rest extreme.
ORDINARY = 8
IDEAL_SHIFT = np.array([0.5, 2.0, 1.0, 0.3, 4.0])


@cache
def batch():
    """Logits and labels: ordinary rows in [-1, 1], then -1e4, 0, 1e4 in many combinations."""
    rng = np.random.default_rng(0)
    extreme = np.array(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)))
    extreme = np.concatenate([extreme, extreme[:, :2]], 1)
    logits = np.concatenate([rng.uniform(-0.99, 0.99, (ORDINARY, CLASSES)), extreme])
    return logits, rng.integers(CLASSES, size=len(logits))


def spec_of(name):
    """The method's spec, with deferral that is over when `active_state` begins."""
    spec = method_spec(name)
    for options in spec["transforms"].values():
        if options.get("start_epoch"):
            options["start_epoch"] = 1
    return spec


@cache
def objective_of(name):
    return build_objective(spec_of(name), COUNTS, steps_per_epoch=4)


def active_state(objective):
    """A state in which everything acts: deferrals are over and some labels are masked."""

    def activate(state):
        if isinstance(state, objectives.PartialLabelState):
            return state._replace(ideal_ratio=state.ideal_ratio * IDEAL_SHIFT)
        return state._replace(step=state.step + 4) if hasattr(state, "step") else state

    return tuple(activate(s) for s in objective.init())


def step_of(objective):
    """``(state, key, logits, labels) -> loss [B], state, gradient [B, C]`` of an objective."""

    def step(state, key, logits, labels):
        def summed(z):
            loss, new_state = objective.apply(state, key, z, labels)
            return loss.sum(), (loss, new_state)

        gradient, (loss, new_state) = jax.grad(summed, has_aux=True)(logits)
        return loss, new_state, gradient

    return step


def assert_trees_close(one, other, **tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **tolerance)
