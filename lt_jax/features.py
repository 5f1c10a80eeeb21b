"""Features of whole splits, computed once with a frozen network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lt_jax import sharding
from lt_jax.data.statistics import feature_statistics
from lt_jax.errors import InputError
from lt_jax.feeding import evaluation_batches
from lt_jax.programs import compiler_options
from lt_jax.run import Config
from lt_jax.stage1 import Frozen
from lt_jax.steps import Split, plain_inputs, shared
from lt_jax.writers import say

Array = jax.Array
Program = Callable[[Any, Any, Split, Array], Array]


def feature_program(frozen: Frozen, mesh: Mesh) -> Program:
    """``(params, stats, split, indices) -> features``, compiled once for splits of one size.

    Args:
      frozen: the network.
      mesh: devices that share each batch.

    Returns:
      The function.
    """

    def forward(params: Any, stats: Any, split: Split, indices: Array) -> Array:
        chosen = plain_inputs(split, shared(indices, mesh))
        return frozen.network.features(params, stats, chosen)

    compiled = jax.jit(
        forward, out_shardings=sharding.replicated(mesh), compiler_options=compiler_options()
    )
    return sharding.awaited(compiled, mesh)


def feature_splits(
    frozen: Frozen,
    splits: dict[str, Split],
    mesh: Mesh,
    options: Config,
    program: Program | None = None,
) -> dict[str, Split]:
    """The splits with features, float32 ``[R, N, D]``, in place of images.

    Args:
      frozen: the network.
      splits: of images, on the device.
      mesh: devices that share each batch.
      options: with ``eval_batch_size``.
      program: from `feature_program`, if there is one already.

    Returns:
      Splits on the device.
    """
    everywhere = sharding.replicated(mesh)
    compiled = feature_program(frozen, mesh) if program is None else program
    result = {}
    for name, split in splits.items():
        count = len(split.labels)
        replicas = []
        for r in range(len(jax.tree.leaves(frozen.params)[0])):
            params, stats = sharding.to_devices(
                jax.tree.map(lambda leaf, r=r: leaf[r], (frozen.params, frozen.stats)), everywhere
            )
            batches = evaluation_batches(split, options["eval_batch_size"], mesh)
            parts = [compiled(params, stats, part, indices) for part, indices, _ in batches]
            replicas.append(jnp.concatenate(parts)[:count])
        features, labels = sharding.to_devices((jnp.stack(replicas), split.labels), everywhere)
        result[name] = split._replace(images=features, labels=labels)
    return result


def standardised_splits(
    frozen: Frozen, splits: dict[str, Split], mesh: Mesh, options: Config
) -> dict[str, Split]:
    """The splits with features of mean 0 and deviation 1 on train, on one device.

    A feature that is constant on train, as a unit that is dead, is 0 in all splits: nothing can be
    learnt from it, and any other value of a test example would count as impossible.

    Args:
      frozen: the network.
      splits: of images, on the device.
      mesh: devices that share each batch.
      options: with ``eval_batch_size``.

    Returns:
      Splits, whose images are float32 ``[R, N, D]``, and mean and deviation those of the features
      on train, float64 ``[R, D]``, infinite where they are constant.

    Raises:
      InputError: for features that are not finite, or all constant.
    """
    found = feature_splits(frozen, splits, mesh, options)
    arrays = {name: np.array(split.images) for name, split in found.items()}
    for name, values in arrays.items():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            r, row, column = bad[0].tolist()
            raise InputError(
                f"feature {column} of {name} example {row} is {values[r, row, column]}; expected"
                " finite numbers, from a first stage whose weights are finite"
            )
    mean, std = _standardise(arrays)
    constant = np.isinf(std)
    if constant.all(axis=1).any():
        raise InputError(
            "all features are constant on train; expected some that tell classes apart"
        )
    if constant.any():
        say(
            f"of {constant.shape[1]} features {constant.sum(axis=1).tolist()} (by seed) are"
            " constant on train; they say nothing and are set to 0 in all splits."
        )
    return {
        name: found[name]._replace(
            images=jnp.asarray(values),
            labels=jnp.asarray(np.asarray(found[name].labels)),
            mean=mean,
            std=std,
        )
        for name, values in arrays.items()
    }


def _standardise(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Standardises features ``[R, N, D]`` in place, so that no second copy is held.

    Returns:
      Their mean and deviation on train, ``[R, D]``; infinite where they are constant.
    """
    train = arrays["train"]
    constant = train.min(axis=1) == train.max(axis=1)
    each = [feature_statistics(own) for own in train]
    means, deviations = (np.stack(values) for values in zip(*each, strict=True))
    deviations[constant] = np.inf
    for r, mean in enumerate(means):
        scale = 1.0 / deviations[r]
        for values in arrays.values():
            for start in range(0, values.shape[1], 4096):
                rows = values[r, start : start + 4096]
                rows[:] = (rows - mean) * scale
    return means, deviations
