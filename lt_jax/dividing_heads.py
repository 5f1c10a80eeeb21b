"""Classifiers of the parts of a division: trained in one program, evaluated in batches."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax import dlsa, metrics
from lt_jax.data import shared_order
from lt_jax.errors import NonFiniteError
from lt_jax.longtail import log_prior

Array = jax.Array
Labels = Mapping[str, npt.NDArray[np.int64]]


class Evaluated(NamedTuple):
    """What classifiers say of a split.

    Attributes:
      counts: leading axis R.
      predicted: classes, int ``[R, N]``.
    """

    counts: metrics.Counts
    predicted: npt.NDArray[np.int32]


def classified(
    keys: Array,
    tables: Array,
    inputs: Mapping[str, dlsa.Inputs],
    labels: Labels,
    class_counts: npt.ArrayLike,
    options: dlsa.HeadOptions,
    batch_size: int,
) -> tuple[Any, dict[str, Evaluated]]:
    """Trains classifiers on train, and evaluates them on the other splits.

    Args:
      keys: PRNG keys ``[R]``.
      tables: see `lt_jax.dlsa.class_shares`, leading axis R.
      inputs: of each split, leading axis R.
      labels: of each split.
      class_counts: training samples of each class, ``[C]``.
      options: see `lt_jax.dlsa.HeadOptions`.
      batch_size: of the evaluation.

    Returns:
      The classifiers, leading axis R, and what they say of each other split.

    Raises:
      NonFiniteError: if their weights are not finite.
    """
    prior = jnp.asarray(log_prior(class_counts), jnp.float32)
    members = dlsa.members_of(labels["train"], prior.size)
    own = jnp.asarray(labels["train"], jnp.int32)
    heads = _fit_program(options)(keys, inputs["train"], own, members, prior, tables)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(heads)):
        raise NonFiniteError(
            "the weights of the classifiers are not finite; expected a smaller"
            " config.retrain.heads.learning_rate"
        )
    count = partial(_count_program(options), heads, tables)
    return heads, {
        name: _evaluated(count, split, labels[name], batch_size)
        for name, split in inputs.items()
        if name != "train"
    }


def _evaluated(
    count: Any, inputs: dlsa.Inputs, labels: npt.NDArray[np.int64], batch_size: int
) -> Evaluated:
    """Counts and predictions, in batches."""
    batches, where = shared_order(len(labels), batch_size, 1)
    total, predicted = None, []
    for rows, kept in zip(batches, where, strict=True):
        part, chosen = count(inputs, jnp.asarray(labels, jnp.int32), rows, kept)
        total = part if total is None else metrics.add(total, part)
        predicted.append(np.asarray(chosen)[:, kept])
    return Evaluated(jax.tree.map(np.asarray, total), np.concatenate(predicted, axis=1))


@functools.cache
def _fit_program(options: dlsa.HeadOptions) -> Any:
    """``(keys, inputs, labels, members, log_prior, tables) -> heads`` of all replicas."""
    fit = partial(dlsa.fit_heads, options=options)
    return jax.jit(jax.vmap(fit, in_axes=(0, 0, None, None, None, 0)))


@functools.cache
def _count_program(options: dlsa.HeadOptions) -> Any:
    """``(heads, tables, inputs, labels, rows, where) -> counts, predictions`` of all replicas."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0, None, None, None))
    def count(
        heads: Any, tables: Array, inputs: Any, labels: Array, rows: Array, where: Array
    ) -> tuple[metrics.Counts, Array]:
        chosen = jax.tree.map(lambda leaf: leaf[rows], inputs)
        logits = dlsa.part_logits(heads, tables, chosen, options)
        counts = metrics.count(logits, jax.nn.softmax(logits), labels[rows], where)
        return counts, logits.argmax(axis=-1)

    return count
