"""Convolution and normalisation in NumPy, float64; normal numbers for them."""

import numpy as np


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def convolved(images, kernel, stride):
    """float64, one output pixel at a time."""
    size = kernel.shape[0]
    padded = np.pad(images, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    rows = range(0, images.shape[1], stride)
    columns = range(0, images.shape[2], stride)
    pixel = [
        [np.einsum("bijc,ijco->bo", padded[:, h : h + size, w : w + size], kernel) for w in columns]
        for h in rows
    ]
    return np.transpose(np.array(pixel), (2, 0, 1, 3))


def normalised(x):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)


def dense(kernel, groups):
    """The kernel of one convolution of all channels that does what the groups do apart."""
    size, _, into, out = kernel.shape
    full = np.zeros((size, size, into * groups, out))
    for group in range(groups):
        outputs = slice(group * out // groups, (group + 1) * out // groups)
        full[:, :, group * into : (group + 1) * into, outputs] = kernel[..., outputs]
    return full
