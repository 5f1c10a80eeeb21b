"""A second implementation of Vision Transformers, in NumPy, and the names of their weights."""

import numpy as np
import pytest

# Of a network that compiles in no time.
PATCH, WIDTH, HEADS, DEPTH = 4, 16, 4, 2

# Names, as timm and torchvision have them


def described(width, depth, patch, places):
    """Names and shapes as timm has them."""
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, 1 + places, width)
    yield "patch_embed.proj.weight", (width, 3, patch, patch)
    yield "patch_embed.proj.bias", (width,)
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in range(depth):
        for norm in ("norm1", "norm2"):
            yield f"blocks.{block}.{norm}.weight", (width,)
            yield f"blocks.{block}.{norm}.bias", (width,)
        for layer, (out, into) in layers.items():
            yield f"blocks.{block}.{layer}.weight", (out * width, into * width)
            yield f"blocks.{block}.{layer}.bias", (out * width,)
    yield "norm.weight", (width,)
    yield "norm.bias", (width,)


def random_weights(places=9):
    """For images of 12x12; far from those at the start."""
    rng = np.random.default_rng(0)
    return {
        name: np.float32(rng.normal(size=shape) / (2 if len(shape) == 2 else 1))
        for name, shape in described(WIDTH, DEPTH, PATCH, places)
    }


TORCHVISION = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj": "conv_proj",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "blocks.": "encoder.layers.encoder_layer_",
    "head.": "heads.head.",
}


def as_torchvision(name, *, published=False):
    """By plain replacement. The files that torchvision publishes have older names of the MLP."""
    for theirs, other in TORCHVISION.items():
        name = name.replace(theirs, other)
    name = f"encoder.ln{name.removeprefix('norm')}" if name.startswith("norm") else name
    if published:
        name = name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2")
    return name


NAMINGS = {
    "timm": lambda name: name,
    "timm in a wrapper": lambda name: f"module.{name}",
    "torchvision": as_torchvision,
    "torchvision as published": lambda name: as_torchvision(name, published=True),
    "torchvision in a wrapper": lambda name: f"model.{as_torchvision(name)}",
}

# Features


def layer_norm(x, scale, bias):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * scale + bias


def features_numpy(weights, images, positions):
    """float64, one image and one head at a time, every array looked up by its name."""
    from scipy.special import erf, softmax

    w = {name: np.float64(array) for name, array in weights.items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def one(image):
        rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
        cut = [
            image[PATCH * i : PATCH * (i + 1), PATCH * j : PATCH * (j + 1)].transpose(2, 0, 1)
            for i in range(rows)
            for j in range(columns)
        ]
        kernel = w["patch_embed.proj.weight"]
        patches = np.array([np.tensordot(kernel, p, 3) for p in cut]) + w["patch_embed.proj.bias"]
        x = np.concatenate([w["cls_token"][0], patches]) + positions
        for block in (f"blocks.{i}" for i in range(DEPTH)):
            query, key, value = np.split(
                linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv"), 3, 1
            )
            mixed = []
            for columns in np.split(np.arange(WIDTH), HEADS):
                q, k, v = query[:, columns], key[:, columns], value[:, columns]
                mixed.append(softmax(q @ k.T / np.sqrt(len(columns)), axis=1) @ v)
            x = x + linear(np.concatenate(mixed, 1), f"{block}.attn.proj")
            hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
            hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
            x = x + linear(hidden, f"{block}.mlp.fc2")
        return norm(x, "norm")[0]

    return np.array([one(image) for image in np.float64(images)])


def resized(grid, height, width):
    """``[side, side, D]`` by Pillow, whose bicubic filter widens where it shrinks."""
    image = pytest.importorskip("PIL.Image")
    return np.stack(
        [
            np.asarray(image.fromarray(plane).resize((width, height), image.Resampling.BICUBIC))
            for plane in np.moveaxis(grid, -1, 0)
        ],
        axis=-1,
    )
