"""Backbone weights from a file that names them as torchvision and timm do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax.errors import InputError
from lt_jax.npz import read_npz

Tree = Any
Arrays = dict[str, np.ndarray]

_WRAPPERS = ("", "module.", "backbone.", "model.")
_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; its momentum is constant
_TO_HWIO, _TO_OIHW = (2, 3, 1, 0), (3, 2, 0, 1)
_TENSORS = {
    "kernel": ("conv", "weight"),
    "scale": ("bn", "weight"),
    "bias": ("bn", "bias"),
    "mean": ("bn", "running_mean"),
    "var": ("bn", "running_var"),
}


def torchvision_name(path: tuple[Any, ...]) -> str | None:
    """What torchvision calls a parameter or a batch statistic of our `ResNet`.

    Args:
      path: its keys in the nested dictionaries of a `lt_jax.state.Network`.

    Returns:
      The name, or None for what belongs to the head.

    Example:
      >>> torchvision_name(("stages", 0, 2, "layers", 1, "kernel"))
      'layer1.2.conv2.weight'
      >>> torchvision_name(("stages", 3, 0, "shortcut", "mean"))
      'layer4.0.downsample.1.running_mean'
    """
    *place, leaf = path
    if place[0] == "head":
        return None
    kind, tensor = _TENSORS[leaf]
    if place == ["stem"]:
        return f"{kind}1.{tensor}"
    _, stage, block, *layer = place
    where = f"layer{stage + 1}.{block}"
    if layer == ["shortcut"]:
        return f"{where}.downsample.{int(kind == 'bn')}.{tensor}"
    return f"{where}.{kind}{layer[1] + 1}.{tensor}"


def load_pretrained(
    path: str | os.PathLike[str], name: str, params: Tree, stats: Tree
) -> tuple[Tree, Tree]:
    """Weights with the backbone's taken from a file; the head stays as it is.

    Args:
      path: a ``.safetensors`` or ``.npz`` file with torchvision's names and layouts, in any float
        dtype; its classifier (``fc.*``) is ignored, as is ``module.`` or the like before the names.
      name: of the model, see `lt_jax.models.MODELS`.
      params: its weights in nested dictionaries; shapes suffice (`jax.ShapeDtypeStruct`).
      stats: its batch statistics, likewise.

    Returns:
      ``(params, stats)`` in float32, with the structure of those given.

    Raises:
      InputError: for a model that such files are not of, or a file that is missing, damaged, of
        another kind or of another network.
    """
    if "stages" not in params:
        raise InputError(
            f"model {name!r} takes no pretrained weights; expected an ImageNet ResNet such as"
            " 'resnet50'"
        )
    weights = _unwrapped(_read(Path(os.path.expanduser(path))))
    expected = set()

    def replace(keys: tuple[Any, ...], leaf: Any) -> Any:
        own = torchvision_name(tuple(key.key for key in keys))
        if own is None:
            return leaf
        expected.add(own)
        if own not in weights:
            raise InputError(f"{path} lacks {own!r} of {name}; it holds {_some(weights)}")
        return _fitting(f"{own!r} of {path}", weights[own], leaf.shape)

    loaded = jax.tree_util.tree_map_with_path(replace, params)
    loaded_stats = jax.tree_util.tree_map_with_path(replace, stats)
    for extra in sorted(weights.keys() - expected):
        if extra.startswith("layer") and not extra.endswith(_COUNTER):
            raise InputError(f"{path} holds {extra!r}, which {name} does not have")
    return loaded, loaded_stats


def _fitting(what: str, array: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """The array in float32 and our layout, if it has the shape that is needed."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{what} is {array.dtype}; expected floats")
    theirs = tuple(shape[axis] for axis in _TO_OIHW) if len(shape) == 4 else shape
    if array.shape != theirs:
        raise InputError(f"{what} has shape {array.shape}; expected {theirs}")
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{what} holds NaN or infinity; expected finite numbers")
    return jnp.asarray(values.transpose(_TO_HWIO) if len(shape) == 4 else values)


def _unwrapped(weights: Arrays) -> Arrays:
    """Names without what training code puts before all of them."""
    wrapper = next((w for w in _WRAPPERS if w + "conv1.weight" in weights), "")
    return {key.removeprefix(wrapper): array for key, array in weights.items()}


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
