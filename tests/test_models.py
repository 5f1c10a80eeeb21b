"""Networks as they are made: sizes, shapes, dtypes, heads, several devices, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy_layers import normal

from lt_jax.errors import InputError
from lt_jax.models import MODELS, CosineHead, LinearHead, create_model, sigmoid_prior_bias
from lt_jax.models.resnet_cifar import ResNetCIFAR
from lt_jax.state import make_network


def _small(**kwargs):
    arguments = {"image_shape": (8, 8, 1), "num_classes": 10, "rngs": nnx.Rngs(0)}
    return create_model("small", **(arguments | kwargs))


def _num_parameters(model):
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


# Networks


# Published sizes of the option A networks: 0.27, 0.46, 0.66, 0.85 and 1.7 million.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_number_of_parameters(name, count):
    def build():
        return create_model(name, image_shape=(32, 32, 3), num_classes=10, rngs=nnx.Rngs(0))

    assert _num_parameters(nnx.eval_shape(build)) == count


# torchvision's counts for 1000 classes; it has no ResNet-10, which is a ResNet-18 less one block
# per stage: 2 (9 w^2 + 2 w) weights each.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet10", 11_689_512 - sum(18 * w * w + 4 * w for w in (64, 128, 256, 512))),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnext50", 25_028_904),
        ("resnext101", 44_177_704),  # timm's
    ],
)
def test_number_of_parameters_of_imagenet_networks(name, count):
    def build():
        return create_model(name, image_shape=(224, 224, 3), num_classes=1000, rngs=nnx.Rngs(0))

    assert _num_parameters(nnx.eval_shape(build)) == count


@pytest.mark.parametrize(("head", "dtype"), [("linear", "bfloat16"), ("cosine", "float32")])
@pytest.mark.parametrize(
    ("name", "shape", "num_features"),
    [
        ("resnet10", (8, 8, 1), 512),
        ("resnet50", (32, 36, 3), 2048),
        ("resnext50", (32, 36, 3), 2048),
        ("vit_tiny16", (32, 48, 3), 192),
        ("mlp", (5,), 128),
        ("conv4", (56, 56, 1), 64),
        ("resnet20", (32, 32, 3), 64),
    ],
)
def test_pure_functions_of_every_kind_of_network(name, shape, num_features, head, dtype):
    # Shapes and dtypes only: nothing is compiled.
    network = make_network(
        lambda rngs: create_model(
            name, image_shape=shape, num_classes=7, head=head, dtype=jnp.dtype(dtype), rngs=rngs
        )
    )
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)

    def loss(params, stats, images):
        logits, new = network.apply(params, stats, images, True)
        return jnp.sum(logits), (logits, new)

    grads, (logits, new) = jax.eval_shape(jax.grad(loss, has_aux=True), params, stats, images)
    features = jax.eval_shape(network.features, params, stats, images)
    assert (features.shape, logits.shape) == ((2, num_features), (2, 7))
    assert {x.dtype for x in (features, logits, *jax.tree.leaves(params))} == {jnp.dtype("float32")}
    assert (grads, new) == (params, stats)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (9, 11, 3)])
def test_small_takes_any_image(shape):
    model = _small(image_shape=shape, num_classes=7)
    images = jnp.ones((2, *shape))
    assert model.features(images, train=False).shape == (2, 64)
    assert model(images, train=False).shape == (2, 7)


@pytest.mark.parametrize(("name", "seen"), [("small", 9), ("conv4", 31)])
def test_a_feature_of_the_small_networks_sees_as_many_pixels_as_said(name, seen):
    model = create_model(name, image_shape=(64, 64, 1), num_classes=2, rngs=nnx.Rngs(0))

    for layer in model.layers:
        layer.kernel[...] = jnp.abs(layer.kernel[...])  # so that no two paths cancel

    def central(image):
        hidden = image
        for layer in model.layers:
            hidden = layer(hidden, train=False)
        return hidden[0, hidden.shape[1] // 2, hidden.shape[2] // 2].sum()

    gradient = np.asarray(jax.grad(central)(jnp.ones((1, 64, 64, 1))))[0, ..., 0]
    rows, columns = np.nonzero(gradient)
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == seen


def test_logits_are_the_head_of_the_features():
    # Depth 8 has every kind of block and compiles in a fraction of the time.
    head = LinearHead(64, 5, rngs=nnx.Rngs(0))
    model = ResNetCIFAR(8, 3, head=head, dtype=jnp.float32, rngs=nnx.Rngs(1))
    images = jnp.float32(normal(0, 2, 8, 8, 3))
    features = model.features(images, train=False)
    assert features.shape == (2, 64)
    expected = np.float64(features) @ np.float64(model.head.kernel[...])
    np.testing.assert_allclose(model(images, train=False), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_keeps_parameters_statistics_and_logits_float32():
    model = _small(dtype=jnp.bfloat16)
    images = jnp.float32(normal(0, 16, 8, 8, 1))
    exact = _small()(images, train=True)
    logits = model(images, train=True)
    assert logits.dtype == model.features(images, train=True).dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.float32)}
    assert model.layers[1](jnp.ones((1, 4, 4, 16)), train=True).dtype == jnp.bfloat16
    np.testing.assert_allclose(logits, exact, atol=0.1)


def test_sharded_batch_gives_the_output_and_statistics_of_the_whole_batch():
    graph, parameters, rest = nnx.split(_small(), nnx.Param, ...)
    images = jnp.float32(normal(0, 16, 8, 8, 1))

    @jax.jit
    def run(images):
        model = nnx.merge(graph, parameters, rest, copy=True)
        logits = model(images, train=True)
        return logits, nnx.state(model, nnx.BatchStat)

    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    for one, many in zip(*map(jax.tree.leaves, (run(images), run(spread))), strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


# Heads


def test_cosine_head_against_numpy():
    head = CosineHead(6, 4, rngs=nnx.Rngs(0))
    features, kernel = normal(0, 5, 6), np.float64(head.kernel[...])
    norms = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(head(jnp.float32(features)), features @ kernel / norms, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_cosine_head_ignores_the_length_of_features(scale):
    head, features = CosineHead(6, 4, rngs=nnx.Rngs(0)), jnp.float32(normal(0, 5, 6))
    np.testing.assert_allclose(head(features * scale), head(features), atol=1e-6)
    assert jnp.abs(head(scale * head.kernel[...].T)).max() <= 1


def test_cosine_head_at_zero_features():
    head = CosineHead(6, 4, rngs=nnx.Rngs(0))
    value, grad = jax.value_and_grad(lambda x: jnp.sum(head(x)))(jnp.zeros((1, 6)))
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


def test_linear_head_prior():
    model = _small(head_bias=sigmoid_prior_bias(10))
    np.testing.assert_allclose(jax.nn.sigmoid(model.head.bias[...]), 0.1, rtol=1e-5)
    assert jnp.std(model.head.kernel[...]) < 0.02
    assert jnp.std(LinearHead(64, 10, rngs=nnx.Rngs(0)).kernel[...]) > 0.1


def test_sigmoid_prior_needs_two_classes():
    with pytest.raises(InputError, match="num_classes=1"):
        sigmoid_prior_bias(1)


# Refusals


def test_create_model_lists_known_names():
    with pytest.raises(InputError, match=r"resnet33.*" + ".*".join(MODELS)):
        create_model("resnet33", image_shape=(32, 32, 3), num_classes=10, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("small", (8,), r"image_shape=\(8,\): model 'small' takes images, \(height, width"),
        ("resnet50", (2048,), r"model 'resnet50' takes images"),
        ("mlp", (8, 8, 1), r"image_shape=\(8, 8, 1\): model 'mlp' takes feature vectors, \(D,\)"),
        ("mlp", (0,), "D at least 1"),
        ("mlp", (), "feature vectors"),
        ("small", (), "images"),
    ],
)
def test_images_and_feature_vectors_are_not_confused(name, shape, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model(name, image_shape=shape, num_classes=3, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_shape": (8, 8)},
        {"image_shape": (7, 8, 1)},
        {"image_shape": (8, 8, 0)},
        {"num_classes": 1},
        {"head": "dot"},
        {"head": "cosine", "head_bias": -1.0},
        {"head_bias": float("nan")},
        {"dtype": jnp.int32},
    ],
)
def test_create_model_refuses(arguments):
    with pytest.raises(InputError):
        _small(**arguments)
