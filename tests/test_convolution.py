"""Convolutions, what follows them, and their weights at the start: values, gradients, replicas."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy_layers import convolved, dense, normal, normalised

from lt_jax.models.conv import ConvBatchNorm, batch_normalise, relu
from lt_jax.models.convolution import conv2d
from lt_jax.models.initial import he_normal

# Convolution


@pytest.mark.parametrize(
    ("height", "width", "stride"), [(8, 8, 1), (8, 6, 2), (7, 5, 1), (7, 9, 2)]
)
def test_conv2d_is_the_sum_over_taps(height, width, stride):
    images, kernel = normal(0, 2, height, width, 3), normal(1, 3, 3, 3, 4)
    expected = convolved(images, kernel, stride)
    result = conv2d(jnp.float32(images), jnp.float32(kernel), stride=stride)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv2d_gradients_are_the_adjoint(stride):
    # <g, conv(x, k)> is linear in x and in k, so its gradients satisfy Euler's identity, and
    # along any other direction they give the value there.
    images, kernel, other = normal(0, 2, 7, 6, 3), normal(1, 3, 3, 3, 4), normal(2, 2, 7, 6, 3)
    grads = normal(3, *convolved(images, kernel, stride).shape)
    _, vjp = jax.vjp(lambda x, k: conv2d(x, k, stride=stride), *map(jnp.float32, (images, kernel)))
    of_images, of_kernel = map(np.float64, vjp(jnp.float32(grads)))
    value = np.sum(grads * convolved(images, kernel, stride))
    np.testing.assert_allclose(np.sum(of_kernel * kernel), value, rtol=1e-4)
    elsewhere = np.sum(grads * convolved(other, kernel, stride))
    np.testing.assert_allclose(np.sum(of_images * other), elsewhere, rtol=1e-4)


def test_conv2d_under_vmap_is_one_convolution_per_replica():
    images, kernels = jnp.float32(normal(0, 2, 6, 6, 3)), jnp.float32(normal(1, 4, 3, 3, 3, 5))
    together = jax.vmap(conv2d, in_axes=(None, 0))(images, kernels)
    apart = jnp.stack([conv2d(images, kernel) for kernel in kernels])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_replicas_side_by_side_convolve_apart(stride, groups):
    """Results and gradients are those of each alone, and no grouped convolution is compiled."""
    images = jnp.float32(normal(0, 2, 4, 7, 6, 3))
    kernels = jnp.float32(normal(1, 2, 3, 3, 3 // groups, 6))

    def loss(x, k):
        return jnp.sum(conv2d(x, k, stride=stride, groups=groups) ** 2)

    step = jax.value_and_grad(loss, argnums=(0, 1))
    together = jax.jit(jax.vmap(step))
    each = [step(x, k) for x, k in zip(images, kernels, strict=True)]
    apart = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        together(images, kernels),
        apart,
    )
    text = together.lower(images, kernels).as_text()
    found = set(re.findall(r"(?:feature|batch)_group_count = (\d+)", text))
    assert found == {"1", str(groups)}, text
    assert text.count("stablehlo.convolution") == 2 * 3


@pytest.mark.parametrize("stride", [1, 2])
def test_groups_of_a_convolution_see_their_own_channels(stride):
    """Also for replicas side by side, whose groups must not mix."""
    images, kernels = normal(0, 2, 7, 6, 6), normal(1, 2, 3, 3, 2, 12)
    expected = np.stack([convolved(images, dense(k, 3), stride) for k in kernels])
    together = jax.vmap(lambda k: conv2d(jnp.float32(images), k, stride=stride, groups=3))
    np.testing.assert_allclose(together(jnp.float32(kernels)), expected, rtol=1e-4, atol=1e-5)


# What follows it


def test_relu_and_its_gradient():
    x = jnp.array([-jnp.inf, -1.0, 0.0, 2.0, jnp.inf])
    np.testing.assert_array_equal(relu(x), jax.nn.relu(x))
    np.testing.assert_array_equal(jax.vmap(jax.grad(relu))(x), [0, 0, 0, 1, 1])
    assert jnp.isnan(relu(jnp.array(jnp.nan)))


def test_batch_normalise_values():
    x, scale, bias = 3 + 2 * normal(0, 5, 4, 4, 3), normal(1, 3), normal(2, 3)
    y, mean, var = batch_normalise(*map(jnp.float32, (x, scale, bias)))
    np.testing.assert_allclose(y, normalised(x) * scale + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-5)


def test_batch_normalise_gradients_against_differences_in_float64():
    arguments = [3 + 2 * normal(0, 4, 3, 3, 2), normal(1, 2), normal(2, 2)]
    weights = normal(3, 4, 3, 3, 2)

    def value(x, scale, bias):
        return np.sum(weights * (normalised(x) * scale + bias))

    def ours(x, scale, bias):
        return jnp.sum(jnp.float32(weights) * batch_normalise(x, scale, bias)[0])

    grads = jax.grad(ours, (0, 1, 2))(*map(jnp.float32, arguments))
    for index, grad in enumerate(grads):
        step = [normal(9, *a.shape) * (i == index) for i, a in enumerate(arguments)]
        up, down = (value(*[a + s * b for a, b in zip(arguments, step, strict=True)])
                    for s in (1e-6, -1e-6))  # fmt: skip
        np.testing.assert_allclose(np.sum(grad * step[index]), (up - down) / 2e-6, rtol=1e-4)


def test_statistics_run_only_in_training():
    layer = ConvBatchNorm(1, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    images = jnp.float32(normal(0, 8, 8, 8, 1))
    hidden = convolved(np.float64(images), np.float64(layer.kernel[...]), 1)
    layer(images, train=False)
    np.testing.assert_array_equal(layer.mean[...], 0)
    layer(images, train=True)
    np.testing.assert_allclose(layer.mean[...], 0.1 * hidden.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * hidden.var((0, 1, 2)), rtol=1e-5)
    expected = (hidden - layer.mean[...]) / np.sqrt(layer.var[...] + 1e-5)
    np.testing.assert_allclose(layer(images, train=False), expected, rtol=1e-4, atol=1e-5)


def test_replicas_under_vmap_train_like_single_layers():
    keys = jax.random.split(jax.random.key(0), 2)
    images = jnp.float32(normal(0, 4, 6, 6, 2))

    def gradient(key):
        layer = ConvBatchNorm(2, 3, stride=2, dtype=jnp.float32, rngs=nnx.Rngs(params=key))
        graph, parameters, rest = nnx.split(layer, nnx.Param, ...)

        def loss(parameters):
            layer = nnx.merge(graph, parameters, rest, copy=True)
            return jnp.sum(jnp.sin(relu(layer(images, train=True))))

        return jax.tree.leaves(jax.grad(loss)(parameters))

    together = jax.jit(jax.vmap(gradient))(keys)
    for many, one in zip(together, gradient(keys[1]), strict=True):
        np.testing.assert_allclose(many[1], one, rtol=1e-4, atol=1e-4)


# Weights


@pytest.mark.parametrize("shape", [(3, 3, 3, 16), (3, 3, 64, 128), (1, 1, 64, 200), (7, 5)])
def test_weights_drawn_by_few_programs_are_those_of_one_each(shape):
    """However many a program draws: seeds keep meaning what they did."""
    expected = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")(jax.random.key(4), shape)
    found = he_normal(jax.random.key(4), shape)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
