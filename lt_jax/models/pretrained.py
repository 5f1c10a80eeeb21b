"""Backbone weights from a file that names them as torchvision and timm do."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax.errors import InputError
from lt_jax.models.names import POSITIONS, resnet_name, timm_name, vit_name, without_wrapper
from lt_jax.npz import read_npz

Tree = Any
Arrays = dict[str, np.ndarray]

_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; its momentum is constant
# Of our axes, where theirs come from: PyTorch has outputs before inputs before places.
_TO_OURS = {4: (2, 3, 1, 0), 2: (1, 0)}


class _Family(NamedTuple):
    """Networks whose weights are published under names of one kind.

    Attributes:
      name_of: a parameter of ours.
      first: names of which each file holds one.
      is_backbone: whether a name that we do not have belongs to another backbone, and not to a
        classifier or to what PyTorch counts.
    """

    name_of: Callable[[tuple[Any, ...]], str | None]
    first: tuple[str, ...]
    is_backbone: Callable[[str], bool]


_RESNETS = _Family(
    resnet_name,
    ("conv1.weight",),
    lambda name: name.startswith("layer") and not name.endswith(_COUNTER),
)
_VITS = _Family(
    vit_name,
    ("patch_embed.proj.weight", "conv_proj.weight"),
    lambda name: not name.startswith(("head.", "head_dist.", "pre_logits.")),
)


def load_pretrained(
    path: str | os.PathLike[str], name: str, params: Tree, stats: Tree
) -> tuple[Tree, Tree]:
    """Weights with the backbone's taken from a file; the head stays as it is.

    The position embeddings of a Vision Transformer for another size of images are resized as timm
    does it: bicubically, with antialiasing.

    Args:
      path: a ``.safetensors`` or ``.npz`` file with the names and layouts of torchvision or timm,
        in any float dtype; its classifier (``fc.*``, ``head.*``, ``heads.*``) is ignored, as is
        ``module.`` or the like before the names.
      name: of the model, see `lt_jax.models.MODELS`.
      params: its weights in nested dictionaries; shapes suffice (`jax.ShapeDtypeStruct`).
      stats: its batch statistics, likewise.

    Returns:
      ``(params, stats)`` in float32, with the structure of those given.

    Raises:
      InputError: for a model that such files are not of, or a file that is missing, damaged, of
        another kind or of another network.
    """
    family = _family(name, params)
    weights = without_wrapper(_read(Path(os.path.expanduser(path))), family.first)
    if family is _VITS:
        weights = {timm_name(key): array for key, array in weights.items()}
    expected = set()

    def replace(keys: tuple[Any, ...], leaf: Any) -> Any:
        own = family.name_of(tuple(key.key for key in keys))
        if own is None:
            return leaf
        expected.add(own)
        if own not in weights:
            raise InputError(f"{path} lacks {own!r} of {name}; it holds {_some(weights)}")
        fitting = _fitting_positions if own == POSITIONS else _fitting
        return fitting(f"{own!r} of {path}", weights[own], leaf.shape)

    loaded = jax.tree_util.tree_map_with_path(replace, params)
    loaded_stats = jax.tree_util.tree_map_with_path(replace, stats)
    for extra in sorted(weights.keys() - expected):
        if family.is_backbone(extra):
            raise InputError(f"{path} holds {extra!r}, which {name} does not have")
    return loaded, loaded_stats


def _family(name: str, params: Tree) -> _Family:
    for part, family in (("stages", _RESNETS), ("positions", _VITS)):
        if part in params:
            return family
    raise InputError(
        f"model {name!r} takes no pretrained weights; expected an ImageNet ResNet such as"
        " 'resnet50', 'resnext50', or a Vision Transformer such as 'vit_b16'"
    )


def _fitting(what: str, array: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """The array in float32 and our layout, if it has the shape that is needed."""
    ours = _TO_OURS.get(len(shape), tuple(range(len(shape))))
    theirs = tuple(shape[ours.index(axis)] for axis in range(len(shape)))
    if array.shape != theirs:
        raise InputError(f"{what} has shape {array.shape}; expected {theirs}")
    # Not jnp.asarray, which would be a program for every shape.
    return jax.device_put(_finite(what, array).transpose(ours))


def _fitting_positions(what: str, array: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """The class token's embedding, or those of the patches, in the size needed.

    Args:
      what: the array is.
      array: ``[1, 1 + side * side, D]``.
      shape: ``[D]`` for the class token's, or ``[height, width, D]``.
    """
    side = math.isqrt(max(array.shape[1] - 1, 0)) if array.ndim == 3 else 0
    if side == 0 or array.shape != (1, 1 + side * side, shape[-1]):
        raise InputError(
            f"{what} has shape {array.shape}; expected (1, 1 + side * side, {shape[-1]}), the class"
            " token and a square of patches"
        )
    values = jnp.asarray(_finite(what, array))
    if len(shape) == 1:
        return values[0, 0]
    return jax.image.resize(values[0, 1:].reshape(side, side, -1), shape, "cubic")


def _finite(what: str, array: np.ndarray) -> np.ndarray:
    """The array in float32."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{what} is {array.dtype}; expected floats")
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{what} holds NaN or infinity; expected finite numbers")
    return values


def _some(weights: Arrays) -> str:
    """The first names of a file, to see what it is of."""
    return ", ".join([repr(key) for key in sorted(weights)[:3]] + ["..."] * (len(weights) > 3))


def _read(path: Path) -> Arrays:
    """All arrays of a file by name; nothing in it is ever run."""
    if path.suffix in (".pth", ".pt", ".bin"):
        raise InputError(
            f"{path} is a PyTorch pickle, which could run code; convert it once where PyTorch is:"
            ' python -c "import torch, safetensors.torch as s;'
            f" s.save_file(torch.load('{path}', weights_only=True),"
            f" '{path.with_suffix('.safetensors')}')\""
        )
    readers: dict[str, Callable[[Path], Arrays]]
    readers = {".safetensors": _read_safetensors, ".npz": read_npz}
    if path.suffix not in readers:
        raise InputError(f"{path} ends in {path.suffix!r}; expected .safetensors or .npz")
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected weights in .safetensors or .npz")
    return readers[path.suffix](path)


def _read_safetensors(path: Path) -> Arrays:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise InputError(
            f"safetensors cannot be imported ({error}): pip install 'lt_jax[pretrained]'"
        ) from error
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged or not a safetensors file ({error})") from error
