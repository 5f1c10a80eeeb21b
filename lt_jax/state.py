"""What training carries from step to step; NNX modules are split and merged here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lt_jax.objectives import Objective

Array = jax.Array
Tree = Any


class Best(NamedTuple):
    """The weights with the best validation score so far, and when they were had."""

    score: Array
    step: Array
    params: Tree
    stats: Tree


class TrainState(NamedTuple):
    """Everything that a checkpoint holds.

    Attributes:
      step: updates made, int32 scalar.
      params: float32 weights.
      stats: batch-norm statistics.
      optimizer: state of the optax transformation.
      objective: state of the objective (PLM's ratios and histograms, deferral).
      best: `Best`, or an empty tuple if there is no validation split.
    """

    step: Array
    params: Tree
    stats: Tree
    optimizer: Tree
    objective: Tree
    best: Best | tuple[()]


class Network(NamedTuple):
    """A model as pure functions of plain dictionaries of arrays.

    Attributes:
      init: ``key -> (params, stats)``.
      apply: ``(params, stats, images, train) -> (logits, stats)``.
      features: ``(params, stats, images) -> features [B, D]``, in evaluation mode.
      classify: ``(params of the head, features) -> logits``.
    """

    init: Callable[[Array], tuple[Tree, Tree]]
    apply: Callable[[Tree, Tree, Array, bool], tuple[Array, Tree]]
    features: Callable[[Tree, Tree, Array], Array]
    classify: Callable[[Tree, Array], Array]


def make_network(build: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """Splits an NNX module once, so that the step is plain `jax.jit` over pytrees.

    Args:
      build: gives the module with fresh weights.

    Returns:
      Its pure functions.
    """
    abstract: Any = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    graph, head_graph = nnx.graphdef(abstract), nnx.graphdef(abstract.head)

    def split(module: nnx.Module) -> tuple[Tree, Tree]:
        parts: Any = nnx.split(module, nnx.Param, ...)
        return nnx.to_pure_dict(parts[1]), nnx.to_pure_dict(parts[2])

    def apply(params: Tree, stats: Tree, images: Array, train: bool) -> tuple[Array, Tree]:
        module: Any = nnx.merge(graph, params, stats)
        logits = module(images, train=train)
        return logits, split(module)[1]

    def features(params: Tree, stats: Tree, images: Array) -> Array:
        module: Any = nnx.merge(graph, params, stats)
        return module.features(images, train=False)

    def classify(params: Tree, inputs: Array) -> Array:
        module: Any = nnx.merge(head_graph, params)
        return module(inputs)

    return Network(
        init=lambda key: split(build(nnx.Rngs(key))),
        apply=apply,
        features=features,
        classify=classify,
    )


def init_state(
    weights: tuple[Tree, Tree],
    optimizer: optax.GradientTransformation,
    objective: Objective,
    *,
    keep_best: bool,
) -> TrainState:
    """The state before the first step.

    Args:
      weights: what is trained, and the statistics, from `Network.init`.
      optimizer: an optax transformation.
      objective: the loss; only its state is made here.
      keep_best: whether the best weights on validation are kept beside the last.

    Returns:
      A `TrainState`.
    """
    params, stats = weights
    step, momenta, best = _beside(optimizer, keep_best)(params, stats)
    return TrainState(
        step=step,
        params=params,
        stats=stats,
        optimizer=momenta,
        objective=objective.init(),
        best=best,
    )


@functools.lru_cache(maxsize=16)
def _beside(
    optimizer: optax.GradientTransformation, keep_best: bool
) -> Callable[[Tree, Tree], tuple[Array, Tree, Best | tuple[()]]]:
    """What a state has beside the weights, in one program: by itself each shape would be one."""

    def start(params: Tree, stats: Tree) -> tuple[Array, Tree, Best | tuple[()]]:
        zero = jnp.zeros((), jnp.int32)
        best: Best | tuple[()] = ()
        if keep_best:
            zeros = jax.tree.map(jnp.zeros_like, (params, stats))
            best = Best(jnp.full((), -jnp.inf, jnp.float32), zero, *zeros)
        return zero, optimizer.init(params), best

    return jax.jit(start)


def offer_best(state: TrainState, score: Array) -> TrainState:
    """Keeps the current weights if their validation score is higher than the best so far."""
    if not isinstance(state.best, Best):
        return state
    offered = Best(jnp.asarray(score, jnp.float32), state.step, state.params, state.stats)
    better = offered.score > state.best.score
    return state._replace(
        best=jax.tree.map(lambda new, old: jnp.where(better, new, old), offered, state.best)
    )
