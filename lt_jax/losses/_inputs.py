"""What every loss does with its arguments first."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike, DTypeLike

from lt_jax.errors import InputError
from lt_jax.longtail.counts import is_number

Array = jax.Array


def promoted(dtype: jnp.dtype, least: DTypeLike) -> jnp.dtype:
    """The dtype, or one that holds all of both, also where JAX promotes none by itself."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(dtype, least)


def as_float(logits: Array) -> Array:
    """Logits in float32, or in float64 where they are: losses are never computed in half."""
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise InputError(f"logits have dtype {logits.dtype}; expected a floating type")
    return logits.astype(promoted(logits.dtype, jnp.float32))


def as_targets(logits: Array, labels: Array, where: Array | None = None) -> Array:
    """Labels as one target per entry, ``[B, C]``: one-hot of integers, or what was given.

    A label that is no class would be a row without a positive, whose loss is small and wrong. It is
    refused; under `jax.jit`, where it cannot be read, its row is NaN.
    """
    if logits.ndim != 2:
        raise InputError(f"logits have shape {logits.shape}; expected [batch, classes]")
    if labels.ndim == 1:
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise InputError(
                f"labels of shape {labels.shape} have dtype {labels.dtype}; expected integers [B],"
                " or a distribution or multi-hot [B, C]"
            )
        if labels.shape[0] != logits.shape[0]:
            raise InputError(
                f"there are {labels.shape[0]} labels for {logits.shape[0]} rows of logits"
            )
        # In a small integer type numbers of classes may be others, also to one_hot.
        labels = labels.astype(promoted(labels.dtype, jnp.int32))
        one_hot = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
        fits = are_classes(labels, logits.shape[1], where)
        return one_hot if fits is None else jnp.where(fits[:, None], one_hot, jnp.nan)
    if labels.shape != logits.shape:
        raise InputError(
            f"labels have shape {labels.shape}; expected [B] or that of the logits {logits.shape}"
        )
    return labels.astype(logits.dtype)


def are_classes(labels: Array, num_classes: int, where: Array | None) -> Array | None:
    """Which rows have a label that is a class, where labels cannot be read; else all have one."""
    known = not isinstance(labels, jax.core.Tracer) and not isinstance(where, jax.core.Tracer)
    if known and labels.is_fully_addressable:
        counted = np.asarray(labels)[slice(None) if where is None else np.asarray(where)]
        wrong = counted[(counted < 0) | (counted >= num_classes)]
        if wrong.size:
            raise InputError(
                f"labels hold {wrong[0]}; expected 0 to {num_classes - 1}, the number of classes"
                " less one; rows are left out by where"
            )
        return None
    fits = (labels >= 0) & (labels < num_classes)
    return fits if where is None else fits | ~where


def prepare(
    logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Float logits and targets, both ``[B, C]``; rows outside ``where`` get logits of 0.

    Replacing the logits, and not only the loss, keeps whatever padding rows hold (infinities, say)
    from turning into NaN in the gradient.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    logits = as_float(logits)
    if where is None:
        return logits, as_targets(logits, labels)
    where = jnp.asarray(where)
    if where.shape != logits.shape[:1] or where.dtype != bool:
        raise InputError(
            f"where has shape {where.shape} and dtype {where.dtype}; expected bool"
            f" {logits.shape[:1]}, one for each row of the logits"
        )
    return jnp.where(where[:, None], logits, 0.0), as_targets(logits, labels, where)


def check_entries(logits: Array, **entries: ArrayLike | None) -> None:
    """Refuses weights and masks of entries, by name, that do not broadcast to the logits."""
    for name, value in entries.items():
        shape = () if value is None else jnp.shape(value)
        try:
            fits = jnp.broadcast_shapes(shape, logits.shape) == logits.shape
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"{name} has shape {shape}; expected one that broadcasts to that of the logits,"
                f" {logits.shape}"
            )


def zero_outside(loss: Array, where: ArrayLike | None) -> Array:
    """The loss ``[B]``, 0 where ``where`` is false."""
    return loss if where is None else jnp.where(jnp.asarray(where), loss, 0.0)


def sum_of(
    entries: Array, weights: ArrayLike, keep: ArrayLike | None, where: ArrayLike | None
) -> Array:
    """Weighted sum of the entries that count, ``[B]``; 0 where ``where`` is false."""
    check_entries(entries, weights=weights, keep=keep)
    if keep is not None:
        entries = jnp.where(keep, entries, 0.0)
    return zero_outside(jnp.sum(weights * entries, axis=-1), where)


def is_positive(targets: Array) -> Array:
    """Which entries are positives, bool: those with a target of at least a half.

    So labels that were smoothed are what they were before.
    """
    return targets >= 0.5


def constant(vector: npt.NDArray[np.float64], logits: Array, what: str = "class_counts") -> Array:
    """A per-class vector made on the host, in the dtype of the logits; its length is checked."""
    if vector.shape != (logits.shape[1],):
        raise InputError(f"{what} are {vector.size}, but the logits have {logits.shape[1]} classes")
    size, limits = np.abs(vector), jnp.finfo(logits.dtype)
    wrong = size[(size > float(limits.max)) | ((size > 0) & (size < float(limits.tiny)))]
    if wrong.size:
        raise InputError(
            f"a class has the constant {wrong[0]:g}, which {logits.dtype} cannot hold; expected"
            " class counts and a power of which weights stay finite"
        )
    return jnp.asarray(vector, logits.dtype)


def proportional(
    number: float,
    vector_of: Callable[[float], npt.NDArray[np.float64]],
    logits: Array,
) -> Array:
    """`constant` of a vector that is proportional to a number, which may be traced."""
    if isinstance(number, jax.core.Tracer):
        return number * constant(vector_of(1.0), logits)
    return constant(vector_of(number), logits)


def check_number(
    name: str, value: float, low: float = -np.inf, high: float = np.inf, *, open_low: bool = False
) -> float:
    """``value`` if it is finite and inside ``[low, high]`` (``(low, high]``), else an error.

    A value that is being traced (a hyperparameter under ``vmap``) cannot be read and is passed on.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    if not (is_number(value) and low <= value <= high and not (open_low and value == low)):
        left = "(" if open_low or low == -np.inf else "["
        right = ")" if high == np.inf else "]"
        raise InputError(
            f"{name} is {value!r}; expected a number in {left}{low:g}, {high:g}{right}"
        )
    return value
