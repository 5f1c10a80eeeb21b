"""Features of whole splits, computed once with a frozen network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lt_jax import sharding
from lt_jax.feeding import evaluation_batches
from lt_jax.loop import Config
from lt_jax.replicas import compiler_options
from lt_jax.stage1 import Frozen
from lt_jax.steps import Split, plain_inputs

Array = jax.Array


def feature_splits(
    frozen: Frozen, splits: dict[str, Split], mesh: Mesh, options: Config
) -> dict[str, Split]:
    """The splits with features, float32 ``[R, N, D]``, in place of images.

    Args:
      frozen: the network.
      splits: of images, on the device.
      mesh: devices that share each batch.
      options: with ``eval_batch_size``.

    Returns:
      Splits on the device.
    """

    def forward(params: Any, stats: Any, split: Split, indices: Array) -> Array:
        indices = jax.lax.with_sharding_constraint(indices, sharding.split_batch(mesh))
        return frozen.network.features(params, stats, plain_inputs(split, indices))

    everywhere = sharding.replicated(mesh)
    compiled = jax.jit(forward, out_shardings=everywhere, compiler_options=compiler_options())
    result = {}
    for name, split in splits.items():
        count = len(split.labels)
        replicas = []
        for r in range(len(jax.tree.leaves(frozen.params)[0])):
            params, stats = jax.device_put(
                jax.tree.map(lambda leaf, r=r: leaf[r], (frozen.params, frozen.stats)), everywhere
            )
            batches = evaluation_batches(split, options["eval_batch_size"], mesh)
            parts = [compiled(params, stats, part, indices) for part, indices, _ in batches]
            replicas.append(jnp.concatenate(parts)[:count])
        features, labels = jax.device_put((jnp.stack(replicas), split.labels), everywhere)
        result[name] = split._replace(images=features, labels=labels)
    return result
