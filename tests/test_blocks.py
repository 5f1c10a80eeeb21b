"""Blocks of residual networks, and the MLP, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy_layers import convolved, dense, normal, normalised

from lt_jax.models import create_model
from lt_jax.models.resnet import Block as ImageNetBlock
from lt_jax.models.resnet_cifar import Block, shortcut
from lt_jax.state import make_network


def test_shortcut_takes_every_second_pixel_and_pads_channels():
    images = jnp.float32(normal(0, 2, 5, 4, 2))
    result = shortcut(images, stride=2, num_channels=4)
    assert result.shape == (2, 3, 2, 4)
    np.testing.assert_array_equal(result[..., 1:3], images[:, ::2, ::2])
    np.testing.assert_array_equal(result[..., [0, 3]], 0)
    np.testing.assert_array_equal(shortcut(images, stride=1, num_channels=2), images)


@pytest.mark.parametrize("stride", [1, 2])
def test_block_against_numpy(stride):
    block = Block(2, 2 * stride, stride=stride, dtype=jnp.float32, rngs=nnx.Rngs(0))
    images = normal(0, 3, 6, 6, 2)
    first, second = (np.float64(layer.kernel[...]) for layer in (block.first, block.second))
    hidden = np.maximum(normalised(convolved(images, first, stride)), 0)
    hidden = normalised(convolved(hidden, second, 1))
    if stride == 1:
        hidden += images
    else:
        hidden[..., 1:3] += images[:, ::2, ::2]
    result = block(jnp.float32(images), train=True)
    np.testing.assert_allclose(result, np.maximum(hidden, 0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("bottleneck", "groups"), [(False, {}), (True, {}), (True, {"groups": 2, "group_width": 96})]
)
def test_imagenet_block_against_numpy(bottleneck, groups, stride):
    # At stride 1 the shortcut has no weights: the block gives as many channels as it takes.
    block = ImageNetBlock(
        8, 2 if bottleneck else 8, bottleneck=bottleneck, stride=stride, dtype=jnp.float32,
        rngs=nnx.Rngs(0), **groups,
    )  # fmt: skip
    images = normal(0, 3, 7, 6, 8)
    np.testing.assert_array_equal(block.layers[-1].scale[...], 0)
    block.layers[-1].scale[...] = jnp.full(8, 0.5)
    kernels = [np.float64(layer.kernel[...]) for layer in block.layers]
    if groups:  # 96 channels a group at width 64 are 3 at width 2
        assert kernels[1].shape == (3, 3, 3, 6)
        kernels[1] = dense(kernels[1], 2)
    assert [kernel.shape[0] for kernel in kernels] == ([1, 3, 1] if bottleneck else [3, 3])
    hidden, last = images, len(kernels) - 1
    for index, kernel in enumerate(kernels):
        hidden = normalised(convolved(hidden, kernel, stride if index == last - 1 else 1))
        hidden = hidden / 2 if index == last else np.maximum(hidden, 0)
    around = images
    if stride == 2:
        around = normalised(convolved(images, np.float64(block.shortcut.kernel[...]), 2))
    result = block(jnp.float32(images), train=True)
    np.testing.assert_allclose(result, np.maximum(hidden + around, 0), rtol=1e-3, atol=1e-4)


def test_mlp_against_numpy():
    network = make_network(
        lambda rngs: create_model("mlp", image_shape=(5,), num_classes=3, rngs=rngs)
    )
    params, stats = network.init(jax.random.key(0))
    vectors = normal(0, 4, 5)
    hidden, head = (
        {k: np.float64(x) for k, x in params[part].items()} for part in ("hidden", "head")
    )
    expected = np.maximum(vectors @ hidden["kernel"] + hidden["bias"], 0)
    features = network.features(params, stats, jnp.float32(vectors))
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    logits, new = network.apply(params, stats, jnp.float32(vectors), True)
    np.testing.assert_allclose(logits, expected @ head["kernel"], rtol=1e-5, atol=1e-5)
    assert new == {}
    # He: the variance of the weights is 2 over the number of inputs.
    np.testing.assert_allclose(hidden["kernel"].var() * 5, 2, rtol=0.2)
