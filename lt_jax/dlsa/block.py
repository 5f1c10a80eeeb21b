"""One block of the cascade: a flow fitted to the samples that are left, and what it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax.data import Members
from lt_jax.dlsa.clusters import check_finite, cluster_table, pure_clusters
from lt_jax.dlsa.fit import FitState, FlowOptions, Mixture, init_fit, make_epoch, place
from lt_jax.dlsa.flow import Flow
from lt_jax.dlsa.pairs import members_of
from lt_jax.dlsa.terms import likelihood_weights
from lt_jax.errors import InputError

Array = jax.Array
SELECTIONS = ("pure_clusters", "validation_likelihood", "last")


class Placed(NamedTuple):
    """Where a mixture has samples.

    Attributes:
      log_likelihood: float64 ``[R, N]``.
      cluster: the most probable Gaussian, int ``[R, N]``.
    """

    log_likelihood: npt.NDArray[np.float64]
    cluster: npt.NDArray[np.int64]


class Fit(NamedTuple):
    """A block's training, which can be stopped after any epoch and go on.

    Attributes:
      state: of all replicas, leading axis R.
      centres: ``[R, K, D]``.
      best: the flow chosen so far, leading axis R.
      score: what it was chosen by, float ``[R]``.
      epoch: epochs done.
    """

    state: FitState
    centres: Array
    best: Flow
    score: npt.NDArray[np.float64]
    epoch: int


class Task(NamedTuple):
    """What a block is fitted to.

    Attributes:
      features: of training, float ``[R, N, D]``.
      labels: int ``[N]``.
      where: which samples are left, bool ``[R, N]``.
      validation: features of validation, ``[R, M, D]``; M may be 0.
      validation_where: which of them are left, bool ``[R, M]``.
      num_classes: C.
    """

    features: Array
    labels: npt.NDArray[np.int64]
    where: npt.NDArray[np.bool_]
    validation: Array
    validation_where: npt.NDArray[np.bool_]
    num_classes: int


def steps_per_epoch(task: Task, options: FlowOptions) -> int:
    """As many pairs as there are samples, in every block, so that all run the same program."""
    return max(1, round(len(task.labels) / options.batch_size))


def start_fit(keys: Array, task: Task, options: FlowOptions) -> Fit:
    """A fresh fit.

    Args:
      keys: PRNG keys ``[R]``.
      task: see `Task`.
      options: see `FlowOptions`.

    Returns:
      A `Fit`.

    Raises:
      InputError: if fewer samples are left than there are clusters.
    """
    fewest = int(task.where.sum(axis=1).min())
    if fewest < options.num_clusters:
        raise InputError(
            f"a block has {fewest} samples for {options.num_clusters} clusters; expected at least"
            " as many samples, fewer clusters or a smaller depth"
        )
    total = steps_per_epoch(task, options) * options.epochs
    dim = task.features.shape[-1]
    state, centres = jax.vmap(lambda key: init_fit(key, dim, options, total))(keys)
    best = jax.tree.map(jnp.copy, state.flow)  # as the state's buffers are donated
    return Fit(state, centres, best, np.full(len(keys), -np.inf), 0)


def make_advance(
    task: Task, options: FlowOptions
) -> Callable[[Fit, Array], tuple[Fit, np.ndarray]]:
    """The function that trains all replicas for an epoch.

    Args:
      task: see `Task`.
      options: see `FlowOptions`.

    Returns:
      ``(fit, keys) -> (fit, terms [R, 3])``.
    """
    steps = steps_per_epoch(task, options)
    program = _epoch_program(options, steps)
    members, weights = _stacked_members(task, options.weight_power)
    labels = jnp.asarray(task.labels, jnp.int32)

    def advance(fit: Fit, keys: Array) -> tuple[Fit, np.ndarray]:
        state, terms = program(
            fit.state, keys, fit.centres, task.features, labels, members, weights
        )
        return fit._replace(state=state, epoch=fit.epoch + 1), np.asarray(terms)

    return advance


@functools.cache
def _epoch_program(options: FlowOptions, steps: int) -> Callable[..., Any]:
    """Compiled once for all blocks."""
    epoch = make_epoch(options, steps, steps * options.epochs)
    return jax.jit(jax.vmap(epoch, in_axes=(0, 0, 0, 0, None, 0, 0)), donate_argnums=0)


@functools.cache
def _place_program(bound: float) -> Callable[..., Any]:
    def one(flow: Flow, centres: Array, features: Array) -> tuple[Array, Array]:
        return place(Mixture(flow, centres), features, bound)

    return jax.jit(jax.vmap(one))


def _stacked_members(task: Task, power: float) -> tuple[Members, Array]:
    """Members and class weights of every replica, leading axis R."""
    each = [members_of(task.labels, task.num_classes, where) for where in task.where]
    weights = np.stack([likelihood_weights(m.counts, power=power) for m in each])
    members: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return members, jnp.asarray(weights, jnp.float32)


def make_place(bound: float) -> Callable[[Flow, Array, Array], Placed]:
    """The function that places samples.

    Args:
      bound: of the flow's log-scales.

    Returns:
      ``(flow, centres, features [R, N, D]) -> Placed``; it refuses log-likelihoods that are not
      finite.
    """
    program = _place_program(bound)

    def placed(flow: Flow, centres: Array, features: Array) -> Placed:
        if not features.shape[1]:
            shape = features.shape[:2]
            return Placed(np.zeros(shape), np.zeros(shape, np.int64))
        likelihood, cluster = (np.asarray(v) for v in program(flow, centres, features))
        check_finite(likelihood)
        return Placed(likelihood.astype(np.float64), cluster.astype(np.int64))

    return placed


def chosen(
    fit: Fit, task: Task, place: Callable[..., Placed], selection: str
) -> tuple[Fit, npt.NDArray[np.float64]]:
    """Keeps the flow of this epoch for the replicas in which it is the best so far.

    Args:
      fit: after an epoch.
      task: see `Task`.
      place: from `make_place`.
      selection: ``"pure_clusters"`` (the most on training data), ``"validation_likelihood"`` (the
        highest mean) or ``"last"``.

    Returns:
      The fit, and the scores of this epoch, ``[R]``.

    Source: Xu et al., ECCV 2022, choose by pure clusters; the released code by test accuracy.
    """
    clusters = fit.centres.shape[1]
    if selection == "last":
        score = np.full(len(fit.score), float(fit.epoch))
    elif selection == "validation_likelihood":
        likelihood = place(fit.state.flow, fit.centres, task.validation).log_likelihood
        kept = np.where(task.validation_where, likelihood, 0.0).sum(axis=1)
        score = kept / np.maximum(task.validation_where.sum(axis=1), 1)
    else:
        placed = place(fit.state.flow, fit.centres, task.features)
        score = np.array(
            [
                pure_clusters(cluster_table(c[w], task.labels[w], clusters, task.num_classes))
                for c, w in zip(placed.cluster, task.where, strict=True)
            ],
            np.float64,
        )
    # At equal scores the later one, which has been trained for longer.
    better = score >= fit.score

    def pick(new: Array, old: Array) -> Array:
        shape = (-1, *(1 for _ in new.shape[1:]))
        return jnp.where(jnp.asarray(better).reshape(shape), new, old)

    best = jax.tree.map(pick, fit.state.flow, fit.best)
    return fit._replace(best=best, score=np.where(better, score, fit.score)), score
