"""What training carries from step to step; NNX modules are split and merged here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lt_jax.errors import InputError
from lt_jax.models.requirements import check_features_of
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


class Apply(Protocol):
    """Signature of `Network.apply`."""

    def __call__(
        self, params: Tree, stats: Tree, images: Array, train: bool, key: Array | None = None, /
    ) -> tuple[Array, Tree]:
        """Logits ``[B, C]``, and the new statistics."""
        ...


class Network(NamedTuple):
    """A model as pure functions of plain dictionaries of arrays.

    Attributes:
      init: ``key -> (params, stats)``.
      apply: ``(params, stats, images, train, key=None) -> (logits, stats)``. In training all that
        is random depends on the key alone, which a network that draws nothing does without; in
        evaluation mode nothing is random.
      features: ``(params, stats, images) -> features [B, D]``, in evaluation mode.
      classify: ``(params of the head, features) -> logits``.
      draws: whether training it is random, as with dropout.
    """

    init: Callable[[Array], tuple[Tree, Tree]]
    apply: Apply
    features: Callable[[Tree, Tree, Array], Array]
    classify: Callable[[Tree, Array], Array]
    draws: bool = False


def make_network(build: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """Splits an NNX module once, so that the step is plain `jax.jit` over pytrees.

    Random streams of the module (`nnx.RngState`) are no part of what is trained or saved: each
    call starts them anew.

    Args:
      build: gives the module with fresh weights.

    Returns:
      Its pure functions; `features` raises an `InputError` if the module has none.

    Raises:
      InputError: for a module that keeps a random key in anything but a random stream.
    """
    abstract: Any = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    graph, head_graph = nnx.graphdef(abstract), nnx.graphdef(abstract.head)
    streams = nnx.to_pure_dict(nnx.state(abstract, nnx.RngState))
    draws = bool(jax.tree.leaves(streams))
    if any(map(_is_key, jax.tree.leaves(_split(abstract)))):
        raise InputError(
            f"the network {type(abstract).__name__} keeps a random key in a variable; expected it"
            " to draw from nnx.Rngs, as nnx.Dropout(0.2, rngs=rngs) does"
        )
    still_graph = _without_dropout(abstract) if draws else graph

    def merge(params: Tree, stats: Tree, key: Array | None) -> Any:
        if not draws:
            return nnx.merge(graph, params, stats)
        if key is None:
            return nnx.merge(still_graph, params, stats, _started(streams, jax.random.key(0)))
        return nnx.merge(graph, params, stats, _started(streams, key))

    def apply(
        params: Tree, stats: Tree, images: Array, train: bool, key: Array | None = None
    ) -> tuple[Array, Tree]:
        module = merge(params, stats, key if train else None)
        logits = module(images, train=train)
        return logits, _split(module)[1]

    def features(params: Tree, stats: Tree, images: Array) -> Array:
        module = merge(params, stats, None)
        check_features_of(module)
        return module.features(images, train=False)

    def classify(params: Tree, inputs: Array) -> Array:
        module: Any = nnx.merge(head_graph, params)
        return module(inputs)

    return Network(
        init=lambda key: _split(build(nnx.Rngs(key))),
        apply=apply,
        features=features,
        classify=classify,
        draws=draws,
    )


def _split(module: nnx.Module) -> tuple[Tree, Tree]:
    """Weights, and all else but the random streams."""
    parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return nnx.to_pure_dict(parts[1]), nnx.to_pure_dict(parts[3])


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_dropout(module: Any) -> Any:
    """The graph of a module whose dropout is off also where a call does not say so."""
    module.set_attributes(deterministic=True, raise_if_not_found=False)
    return nnx.graphdef(module)


def _started(streams: Tree, key: Array) -> Tree:
    """Random streams as if nothing had been drawn from them yet, each with its own key.

    Args:
      streams: shapes and dtypes of their keys and of their counts of what was drawn.
      key: on which alone the keys depend.

    Returns:
      The same with arrays.
    """
    leaves, structure = jax.tree.flatten(streams)

    def start(number: int, leaf: Any) -> Array:
        if not _is_key(leaf):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = jax.random.fold_in(key, number)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return jax.tree.unflatten(structure, [start(i, leaf) for i, leaf in enumerate(leaves)])


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
