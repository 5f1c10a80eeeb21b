"""What torchvision and timm call the parameters of our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OF_CONV_BATCH_NORM = {
    "kernel": ("conv", "weight"),
    "scale": ("bn", "weight"),
    "bias": ("bn", "bias"),
    "mean": ("bn", "running_mean"),
    "var": ("bn", "running_var"),
}
POSITIONS = "pos_embed"  # timm's; of the class token and of all patches in one array
_OF_VIT = {
    "patches": "patch_embed.proj",
    "class_token": "cls_token",
    "class_position": POSITIONS,
    "positions": POSITIONS,
    "norm": "norm",
}
_OF_VIT_BLOCK = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "norm2": "norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_OF_LAYER = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# torchvision's names of a Vision Transformer, as patterns, and timm's. The files that torchvision
# publishes still call the layers of the MLP linear_1 and linear_2.
_TIMM = (
    (r"conv_proj\.", "patch_embed.proj."),
    (r"class_token$", "cls_token"),
    (r"encoder\.pos_embedding$", POSITIONS),
    (r"encoder\.ln\.", "norm."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.", r"blocks.\1.norm\2."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_", r"blocks.\1.attn.qkv."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.fc2."),
    (r"heads\.(?:head\.)?", "head."),
)


def resnet_name(path: tuple[Any, ...]) -> str | None:
    """What torchvision and timm call a parameter or a batch statistic of our `ResNet`.

    Args:
      path: its keys in the nested dictionaries of a `lt_jax.state.Network`.

    Returns:
      The name, or None for what belongs to the head.

    Example:
      >>> resnet_name(("stages", 0, 2, "layers", 1, "kernel"))
      'layer1.2.conv2.weight'
      >>> resnet_name(("stages", 3, 0, "shortcut", "mean"))
      'layer4.0.downsample.1.running_mean'
    """
    *place, leaf = path
    if place[0] == "head":
        return None
    kind, tensor = _OF_CONV_BATCH_NORM[leaf]
    if place == ["stem"]:
        return f"{kind}1.{tensor}"
    _, stage, block, *layer = place
    where = f"layer{stage + 1}.{block}"
    if layer == ["shortcut"]:
        return f"{where}.downsample.{int(kind == 'bn')}.{tensor}"
    return f"{where}.{kind}{layer[1] + 1}.{tensor}"


def vit_name(path: tuple[Any, ...]) -> str | None:
    """What timm calls a parameter of our `VisionTransformer`.

    Args:
      path: its keys in the nested dictionaries of a `lt_jax.state.Network`.

    Returns:
      The name, or None for what belongs to the head. Two of ours are in `POSITIONS`.

    Example:
      >>> vit_name(("blocks", 11, "qkv", "kernel")), vit_name(("class_token",))
      ('blocks.11.attn.qkv.weight', 'cls_token')
    """
    first, *rest = path
    if first == "head":
        return None
    if first == "blocks":
        block, layer, leaf = rest
        return f"blocks.{block}.{_OF_VIT_BLOCK[layer]}.{_OF_LAYER[leaf]}"
    return ".".join([_OF_VIT[first], *(_OF_LAYER[leaf] for leaf in rest)])


def timm_name(name: str) -> str:
    """Timm's name of what torchvision calls a parameter of a Vision Transformer.

    Args:
      name: torchvision's, or timm's own.

    Returns:
      timm's; a name that is not torchvision's stays as it is.

    Example:
      >>> timm_name("encoder.layers.encoder_layer_3.self_attention.in_proj_bias")
      'blocks.3.attn.qkv.bias'
      >>> timm_name("blocks.3.attn.qkv.bias")
      'blocks.3.attn.qkv.bias'
    """
    for pattern, replacement in _TIMM:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return renamed
    return name


def without_wrapper(arrays: Mapping[str, Any], first: tuple[str, ...]) -> dict[str, Any]:
    """Names without what training code puts before all of them.

    Args:
      arrays: of a file, by name.
      first: names of which such a file holds one, whatever else is in it.

    Returns:
      The same arrays by names without ``module.``, ``backbone.`` or ``model.``.

    Example:
      >>> without_wrapper({"module.conv1.weight": 0, "module.fc.bias": 1}, ("conv1.weight",))
      {'conv1.weight': 0, 'fc.bias': 1}
    """
    wrappers = ("", "module.", "backbone.", "model.")
    held = (w for w in wrappers if any(w + name in arrays for name in first))
    wrapper = next(held, "")
    return {name.removeprefix(wrapper): array for name, array in arrays.items()}
