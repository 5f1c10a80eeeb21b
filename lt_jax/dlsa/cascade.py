"""The cascade: each block takes the samples that are well clustered, and hands on the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax.dlsa import block
from lt_jax.dlsa.block import Fit, Placed, Task
from lt_jax.dlsa.clusters import cluster_table, threshold_for
from lt_jax.dlsa.fit import FlowOptions
from lt_jax.dlsa.flow import Flow
from lt_jax.dlsa.heads import Inputs
from lt_jax.errors import InputError

Array = jax.Array
Vector = npt.NDArray[np.float64]


class CascadeOptions(NamedTuple):
    """How a set is divided.

    Attributes:
      depth: how many blocks.
      take: share of the samples that come to a block which it takes.
      thresholds: log-likelihoods above which each block takes them, instead of a share; empty for
        the share.
      measured_on: the split on which the share is measured, ``"validation"`` or ``"train"``. Of the
        samples that a flow was fitted to more are above any threshold than of others.
      select: which epoch's flow is kept, see `lt_jax.dlsa.block.chosen`.
      eval_every: epochs between looks at that.
    """

    depth: int = 1
    take: float = 0.3
    thresholds: tuple[float, ...] = ()
    measured_on: str = "validation"
    select: str = "validation_likelihood"
    eval_every: int = 5


class Block(NamedTuple):
    """A block that has been fitted.

    Attributes:
      flow: leading axis R.
      centres: ``[R, K, D]``.
      threshold: ``[R]``.
      table: training samples that came to it, by cluster and class, int64 ``[R, K, C]``.
    """

    flow: Flow
    centres: Array
    threshold: Vector
    table: npt.NDArray[np.int64]


class Divided(NamedTuple):
    """Where the samples of a split went.

    Attributes:
      part: the block that took each sample, or the depth for the rest, int32 ``[R, N]``.
      cluster: of each sample in each block, int32 ``[depth, R, N]``.
      log_likelihood: the same, float64.
    """

    part: npt.NDArray[np.int32]
    cluster: npt.NDArray[np.int32]
    log_likelihood: Vector


def check_cascade_options(options: CascadeOptions) -> None:
    """Refuses options that cannot be used.

    Args:
      options: see `CascadeOptions`.

    Raises:
      InputError: with the name of the first.
    """
    if options.depth < 1:
        raise InputError(f"depth is {options.depth!r}; expected at least 1")
    if not 0 < options.take < 1:
        raise InputError(f"take is {options.take!r}; expected a number between 0 and 1")
    if options.eval_every < 1:
        raise InputError(f"eval_every is {options.eval_every!r}; expected at least 1")
    if options.measured_on not in ("validation", "train"):
        raise InputError(
            f"measured_on is {options.measured_on!r}; expected 'validation' or 'train'"
        )
    if options.select not in block.SELECTIONS:
        known = ", ".join(map(repr, block.SELECTIONS))
        raise InputError(f"select is {options.select!r}; expected one of {known}")
    if options.thresholds and len(options.thresholds) != options.depth:
        raise InputError(
            f"thresholds is {options.thresholds!r}; expected one for each of the {options.depth}"
            " blocks, or none"
        )
    for value in options.thresholds:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise InputError(f"thresholds holds {value!r}; expected finite log-likelihoods")


def check_validation(options: CascadeOptions, has_validation: bool) -> None:
    """Refuses options that need a validation split where there is none.

    Args:
      options: see `CascadeOptions`.
      has_validation: whether there is one.

    Raises:
      InputError: saying what to change.
    """
    reads = options.select == "validation_likelihood" or (
        options.measured_on == "validation" and not options.thresholds
    )
    if reads and not has_validation:
        raise InputError(
            "there are no validation features, by which the flow or its threshold is to be chosen;"
            " expected some, or select='pure_clusters' and measured_on='train'"
        )


def fit_block(
    keys: Array,
    task: Task,
    flow: FlowOptions,
    options: CascadeOptions,
    *,
    fit: Fit | None = None,
    after_epoch: Callable[[Fit, Mapping[str, npt.NDArray[np.float64]]], bool] | None = None,
) -> Fit | None:
    """Trains a block's flow, or what is missing of it.

    Args:
      keys: PRNG keys ``[R]``.
      task: see `Task`.
      flow: see `FlowOptions`.
      options: see `CascadeOptions`.
      fit: where an earlier call stopped; None to start.
      after_epoch: called with the fit and what is known of the epoch (``terms [R, 3]``, maybe
        ``score [R]``); training stops when it returns False.

    Returns:
      The fit; None if it was stopped.
    """
    fit = block.start_fit(keys, task, flow) if fit is None else fit
    advance, place = block.make_advance(task, flow), block.make_place(flow.bound)
    while fit.epoch < flow.epochs:
        fit, terms = advance(fit, keys)
        facts = {"terms": terms}
        # What is not finite is for `after_epoch` to tell.
        due = fit.epoch % options.eval_every == 0 or fit.epoch == flow.epochs
        if due and np.isfinite(terms).all():
            fit, facts["score"] = block.chosen(fit, task, place, options.select)
        if after_epoch is not None and not after_epoch(fit, facts):
            return None
    return fit


def closed(fit: Fit, task: Task, number: int, flow: FlowOptions, options: CascadeOptions) -> Block:
    """Threshold and clusters of a block whose flow has been trained.

    Args:
      fit: from `fit_block`.
      task: that it was fitted to.
      number: of the block, from 0.
      flow: its options.
      options: see `CascadeOptions`.

    Returns:
      A `Block`.
    """
    place = block.make_place(flow.bound)
    train = place(fit.best, fit.centres, task.features)
    if options.thresholds:
        threshold = np.full(len(task.where), options.thresholds[number])
    elif options.measured_on == "validation":
        held_out = place(fit.best, fit.centres, task.validation)
        threshold = _thresholds(held_out, task.validation_where, options.take)
    else:
        threshold = _thresholds(train, task.where, options.take)
    clusters = fit.centres.shape[1]
    tables = [
        cluster_table(c[w], task.labels[w], clusters, task.num_classes)
        for c, w in zip(train.cluster, task.where, strict=True)
    ]
    return Block(fit.best, fit.centres, threshold, np.stack(tables))


def _thresholds(placed: Placed, where: npt.NDArray[np.bool_], take: float) -> Vector:
    pairs = zip(placed.log_likelihood, where, strict=True)
    return np.array([threshold_for(values[rows], take) for values, rows in pairs])


def divide(blocks: list[Block], features: Array, bound: float) -> Divided:
    """Sends samples through the blocks.

    Args:
      blocks: in order; none leaves all samples in part 0.
      features: float ``[R, N, D]``.
      bound: of the flows' log-scales.

    Returns:
      A `Divided`.
    """
    place = block.make_place(bound)
    placed = [place(one.flow, one.centres, features) for one in blocks]
    part = np.full(features.shape[:2], len(blocks), np.int32)
    for number in reversed(range(len(blocks))):  # the first that takes a sample has it
        likelihood, threshold = placed[number].log_likelihood, blocks[number].threshold
        part[likelihood > threshold[:, None]] = number
    shape = len(blocks), *part.shape
    return Divided(
        part,
        np.array([p.cluster for p in placed], np.int32).reshape(shape),
        np.array([p.log_likelihood for p in placed], np.float64).reshape(shape),
    )


def rest_of(blocks: list[Block], task: Task, bound: float) -> Task:
    """The task of the next block: what the blocks so far have not taken.

    Args:
      blocks: in order; none for the first.
      task: of the whole set.
      bound: of the flows' log-scales.

    Returns:
      A `Task`.
    """
    left = [
        divide(blocks, features, bound).part == len(blocks)
        for features in (task.features, task.validation)
    ]
    return task._replace(where=left[0], validation_where=left[1])


def inputs_of(
    divided: Divided, features: Array, labels: npt.NDArray[np.int64] | None = None
) -> Inputs:
    """What the classifiers see of a split, leading axis R.

    Args:
      divided: of the split.
      features: float ``[R, N, D]``.
      labels: of training samples, ``[N]``, which are left out of the shares of their own cluster;
        None for other samples.

    Returns:
      `Inputs`.
    """
    part = divided.part
    # A last row for the rest, which has no clusters.
    clusters = np.concatenate([divided.cluster, np.zeros_like(part)[None]])
    cluster = np.take_along_axis(clusters, part[None], axis=0)[0]
    own = np.full_like(part, -1) if labels is None else np.broadcast_to(labels, part.shape)
    return Inputs(features, *(jnp.asarray(v, jnp.int32) for v in (part, cluster, own)))


def tables_of(blocks: list[Block], replicas: int, num_classes: int) -> Array:
    """Tables of the clusters of all parts.

    Args:
      blocks: in order; may be none.
      replicas: R.
      num_classes: C.

    Returns:
      float32 ``[R, G, K, C]``, zeros for the last part; K is 1 if there are no blocks.
    """
    clusters = blocks[0].table.shape[1] if blocks else 1
    rest = np.zeros((replicas, clusters, num_classes))
    return jnp.asarray(np.stack([*(one.table for one in blocks), rest], axis=1), jnp.float32)
