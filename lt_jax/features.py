"""Features of whole splits, computed once with a frozen network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lt_jax import augment, sharding
from lt_jax.data import shared_order
from lt_jax.loop import Config
from lt_jax.replicas import compiler_options
from lt_jax.stage1 import Frozen
from lt_jax.steps import Split

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
        images = augment.normalize(split.images[indices], split.mean, split.std)
        return frozen.network.features(params, stats, images)

    everywhere = sharding.replicated(mesh)
    compiled = jax.jit(forward, out_shardings=everywhere, compiler_options=compiler_options())
    result = {}
    for name, split in splits.items():
        count = len(split.labels)
        batches, _ = shared_order(count, options["eval_batch_size"], mesh.size)
        replicas = []
        for r in range(len(jax.tree.leaves(frozen.params)[0])):
            params, stats = jax.device_put(
                jax.tree.map(lambda leaf, r=r: leaf[r], (frozen.params, frozen.stats)), everywhere
            )
            parts = [compiled(params, stats, split, indices) for indices in batches]
            replicas.append(jnp.concatenate(parts)[:count])
        result[name] = split._replace(images=jax.device_put(jnp.stack(replicas), everywhere))
    return result
