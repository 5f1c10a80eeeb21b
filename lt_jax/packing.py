"""Small arrays of a state as one array, while steps run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any

_LARGEST = 2048  # numbers of what is small


def packing(like: Tree) -> tuple[Callable[[Tree], Tree], Callable[[Tree], Tree]]:
    """Functions that put the small float32 arrays of a tree together, and take them apart again.

    A GPU takes longer to start a kernel than to change a few thousand numbers. The biases and
    scales of a network are as many small arrays, each of which an optimizer changes in a kernel of
    its own; if a loop carries them as one array, XLA changes all of them in one.

    Args:
      like: arrays, or what has their shapes and dtypes.

    Returns:
      ``(pack, unpack)``: of such a tree ``(vector, list of the other leaves)``, and back.

    Example:
      >>> pack, unpack = packing({"a": jnp.ones(2), "b": jnp.zeros((), int), "c": jnp.ones((1, 1))})
      >>> vector, others = pack({"a": jnp.ones(2), "b": jnp.array(5), "c": jnp.zeros((1, 1))})
      >>> vector.tolist(), [leaf.tolist() for leaf in others]
      ([1.0, 1.0, 0.0], [5])
      >>> jax.tree.map(lambda leaf: leaf.tolist(), unpack((vector, others)))
      {'a': [1.0, 1.0], 'b': 5, 'c': [[0.0]]}
    """
    leaves, structure = jax.tree.flatten(like)
    is_small = [leaf.dtype == jnp.float32 and leaf.size <= _LARGEST for leaf in leaves]

    def pack(tree: Tree) -> Tree:
        found = list(zip(is_small, jax.tree.leaves(tree), strict=True))
        small = [leaf.reshape(-1) for is_one, leaf in found if is_one]
        vector = jnp.concatenate(small) if small else jnp.zeros(0)
        return vector, [leaf for is_one, leaf in found if not is_one]

    def unpack(packed: Tree) -> Tree:
        vector, others = packed[0], iter(packed[1])
        parts, begin = [], 0
        for is_one, leaf in zip(is_small, leaves, strict=True):
            if is_one:
                parts.append(vector[begin : begin + leaf.size].reshape(leaf.shape))
                begin += leaf.size
            else:
                parts.append(next(others))
        return jax.tree.unflatten(structure, parts)

    return pack, unpack
