"""Small arrays of a state as a few larger ones, while steps run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any

_LARGEST = 2048  # numbers of what is small
_TOGETHER = 16  # arrays; XLA takes long to compile a change of many more


def packing(like: Tree) -> tuple[Callable[[Tree], Tree], Callable[[Tree], Tree]]:
    """Functions that put the small float32 arrays of a tree together, and take them apart again.

    A GPU takes longer to start a kernel than to change a few thousand numbers. The biases and
    scales of a network are as many small arrays, each of which an optimizer changes in a kernel of
    its own; if a loop carries them as a few arrays, XLA changes each of these in one.

    Args:
      like: arrays, or what has their shapes and dtypes.

    Returns:
      ``(pack, unpack)``: of such a tree ``(vectors, other leaves)``, two lists, and back.

    Example:
      >>> pack, unpack = packing({"a": jnp.ones(2), "b": jnp.zeros((), int), "c": jnp.ones((1, 1))})
      >>> packed = pack({"a": jnp.ones(2), "b": jnp.array(5), "c": jnp.zeros((1, 1))})
      >>> jax.tree.map(lambda leaf: leaf.tolist(), packed)
      ([[1.0, 1.0, 0.0]], [5])
      >>> jax.tree.map(lambda leaf: leaf.tolist(), unpack(packed))
      {'a': [1.0, 1.0], 'b': 5, 'c': [[0.0]]}
    """
    leaves, structure = jax.tree.flatten(like)
    small = [i for i, leaf in enumerate(leaves) if _is_small(leaf)]
    groups = [small[i : i + _TOGETHER] for i in range(0, len(small), _TOGETHER)]
    others = [i for i, leaf in enumerate(leaves) if not _is_small(leaf)]

    def pack(tree: Tree) -> Tree:
        found = jax.tree.leaves(tree)
        vectors = [jnp.concatenate([found[i].reshape(-1) for i in group]) for group in groups]
        return vectors, [found[i] for i in others]

    def unpack(packed: Tree) -> Tree:
        parts = dict(zip(others, packed[1], strict=True))
        for vector, group in zip(packed[0], groups, strict=True):
            begin = 0
            for i in group:
                end = begin + leaves[i].size
                parts[i] = vector[begin:end].reshape(leaves[i].shape)
                begin = end
        return jax.tree.unflatten(structure, [parts[i] for i in range(len(leaves))])

    return pack, unpack


def _is_small(leaf: Any) -> bool:
    return leaf.dtype == jnp.float32 and leaf.size <= _LARGEST
