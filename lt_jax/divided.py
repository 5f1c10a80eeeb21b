"""A finished division (DLSA) as one function of features, without its training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import dlsa, workdir
from lt_jax.checkpoint import read_step
from lt_jax.dividing import Options
from lt_jax.errors import InputError

Array = jax.Array
Tree = Any


def division_logits(weights: Tree, features: Array, options: Options) -> Array:
    """Sends features through the blocks, and classifies each by the classifier of its part.

    Args:
      weights: of one replica, from `read_division`.
      features: of the first stage, float ``[B, D]``.
      options: of the division.

    Returns:
      Logits ``[B, C]``.
    """
    standard = weights["features"]
    x = (features - standard["mean"]) / standard["std"]
    part = jnp.full(x.shape[:1], len(weights["blocks"]), jnp.int32)
    cluster = jnp.zeros_like(part)  # the last part has none
    for number in reversed(range(len(weights["blocks"]))):  # the first that takes a sample has it
        one = weights["blocks"][number]
        latents, log_det, _ = dlsa.forward(one["flow"], x, train=False, bound=options.flow.bound)
        density = dlsa.log_densities(latents, log_det, one["centres"])
        taken = dlsa.log_likelihood(density) > one["threshold"]
        part = jnp.where(taken, number, part)
        cluster = jnp.where(taken, density.argmax(axis=-1), cluster)
    inputs = dlsa.Inputs(x, part, cluster, jnp.full_like(part, -1))
    return dlsa.part_logits(weights["heads"], weights["tables"], inputs, options.heads)


def read_division(
    folder: Path, options: Options, *, replicas: int, dim: int, num_classes: int
) -> Tree:
    """What a finished division has saved.

    Args:
      folder: of the second stage.
      options: of the division.
      replicas: R.
      dim: of the features, D.
      num_classes: C.

    Returns:
      The weights for `division_logits`, leading axis R, on the host.

    Raises:
      InputError: if something is gone or damaged, or of a version that saved less.
    """
    checkpoints = folder / workdir.CHECKPOINTS
    found = _read_heads(checkpoints / "heads", options, replicas, dim, num_classes)
    fit = _fit_template(options.flow, replicas, dim)
    blocks = []
    for number, threshold in enumerate(found.pop("thresholds")):
        saved = read_step(checkpoints / f"block_{number}", options.flow.epochs, fit)
        blocks.append(
            {
                "flow": saved["best"],
                "centres": saved["centres"],
                "threshold": np.array([_rounded_down(value) for value in threshold]),
            }
        )
    features = {name: np.asarray(v, np.float32) for name, v in found["features"].items()}
    return {**found, "features": features, "blocks": blocks}


def _rounded_down(threshold: float) -> np.float32:
    """The largest float32 that is not above: the same float32 numbers are larger than either."""
    rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(-np.inf)) if rounded > threshold else rounded


def _fit_template(options: dlsa.FlowOptions, replicas: int, dim: int) -> Tree:
    """Of the checkpoint of a block."""
    keys = jax.random.split(jax.random.key(0), replicas)
    init = jax.vmap(lambda key: dlsa.init_fit(key, dim, options, 1))
    state, centres = jax.eval_shape(init, keys)
    score = np.zeros(replicas)
    return {"state": state, "centres": centres, "best": state.flow, "score": score}


def _read_heads(folder: Path, options: Options, replicas: int, dim: int, num_classes: int) -> Tree:
    """The classifiers, and all that leads to them beside the flows."""
    depth = options.cascade.depth
    init = jax.vmap(lambda key: dlsa.init_heads(key, dim, num_classes, depth + 1))
    shares = (replicas, depth + 1, options.flow.num_clusters, num_classes)
    template = {
        "heads": jax.eval_shape(init, jax.random.split(jax.random.key(0), replicas)),
        "tables": jax.ShapeDtypeStruct(shares, jnp.float32),
        "thresholds": np.zeros((depth, replicas)),
        "features": {name: np.zeros((replicas, dim)) for name in ("mean", "std")},
    }
    try:
        return read_step(folder, 0, template)
    except InputError as error:
        raise InputError(
            f"{error}; an earlier version saved no mean and deviation of the features, without"
            " which a division takes no new ones: run it again in another workdir"
        ) from error
