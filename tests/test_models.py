"""Networks, heads and the layers they are made of, against NumPy and against known numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lt_jax.errors import InputError
from lt_jax.models import MODELS, CosineHead, LinearHead, create_model, sigmoid_prior_bias
from lt_jax.models.conv import ConvBatchNorm, batch_normalise, relu
from lt_jax.models.convolution import conv2d
from lt_jax.models.initial import he_normal
from lt_jax.models.resnet import Block as ImageNetBlock
from lt_jax.models.resnet_cifar import Block, ResNetCIFAR, shortcut
from lt_jax.state import make_network


def _random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def _conv_numpy(images, kernel, stride):
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


def _norm_numpy(x):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)


def _small(**kwargs):
    arguments = {"image_shape": (8, 8, 1), "num_classes": 10, "rngs": nnx.Rngs(0)}
    return create_model("small", **(arguments | kwargs))


def _num_parameters(model):
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


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


@pytest.mark.parametrize(
    ("height", "width", "stride"), [(8, 8, 1), (8, 6, 2), (7, 5, 1), (7, 9, 2)]
)
def test_conv2d_is_the_sum_over_taps(height, width, stride):
    images, kernel = _random(0, 2, height, width, 3), _random(1, 3, 3, 3, 4)
    expected = _conv_numpy(images, kernel, stride)
    result = conv2d(jnp.float32(images), jnp.float32(kernel), stride=stride)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv2d_gradients_are_the_adjoint(stride):
    # <g, conv(x, k)> is linear in x and in k, so its gradients satisfy Euler's identity, and
    # along any other direction they give the value there.
    images, kernel, other = _random(0, 2, 7, 6, 3), _random(1, 3, 3, 3, 4), _random(2, 2, 7, 6, 3)
    grads = _random(3, *_conv_numpy(images, kernel, stride).shape)
    _, vjp = jax.vjp(lambda x, k: conv2d(x, k, stride=stride), *map(jnp.float32, (images, kernel)))
    of_images, of_kernel = map(np.float64, vjp(jnp.float32(grads)))
    value = np.sum(grads * _conv_numpy(images, kernel, stride))
    np.testing.assert_allclose(np.sum(of_kernel * kernel), value, rtol=1e-4)
    elsewhere = np.sum(grads * _conv_numpy(other, kernel, stride))
    np.testing.assert_allclose(np.sum(of_images * other), elsewhere, rtol=1e-4)


def test_conv2d_under_vmap_is_one_convolution_per_replica():
    images, kernels = jnp.float32(_random(0, 2, 6, 6, 3)), jnp.float32(_random(1, 4, 3, 3, 3, 5))
    together = jax.vmap(conv2d, in_axes=(None, 0))(images, kernels)
    apart = jnp.stack([conv2d(images, kernel) for kernel in kernels])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_replicas_side_by_side_convolve_apart(stride, groups):
    """Results and gradients are those of each alone, and no grouped convolution is compiled."""
    images = jnp.float32(_random(0, 2, 4, 7, 6, 3))
    kernels = jnp.float32(_random(1, 2, 3, 3, 3 // groups, 6))

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


def _dense(kernel, groups):
    """The kernel of one convolution of all channels that does what the groups do apart."""
    size, _, into, out = kernel.shape
    full = np.zeros((size, size, into * groups, out))
    for group in range(groups):
        outputs = slice(group * out // groups, (group + 1) * out // groups)
        full[:, :, group * into : (group + 1) * into, outputs] = kernel[..., outputs]
    return full


@pytest.mark.parametrize("stride", [1, 2])
def test_groups_of_a_convolution_see_their_own_channels(stride):
    """Also for replicas side by side, whose groups must not mix."""
    images, kernels = _random(0, 2, 7, 6, 6), _random(1, 2, 3, 3, 2, 12)
    expected = np.stack([_conv_numpy(images, _dense(k, 3), stride) for k in kernels])
    together = jax.vmap(lambda k: conv2d(jnp.float32(images), k, stride=stride, groups=3))
    np.testing.assert_allclose(together(jnp.float32(kernels)), expected, rtol=1e-4, atol=1e-5)


def test_relu_and_its_gradient():
    x = jnp.array([-jnp.inf, -1.0, 0.0, 2.0, jnp.inf])
    np.testing.assert_array_equal(relu(x), jax.nn.relu(x))
    np.testing.assert_array_equal(jax.vmap(jax.grad(relu))(x), [0, 0, 0, 1, 1])
    assert jnp.isnan(relu(jnp.array(jnp.nan)))


def test_batch_normalise_values():
    x, scale, bias = 3 + 2 * _random(0, 5, 4, 4, 3), _random(1, 3), _random(2, 3)
    y, mean, var = batch_normalise(*map(jnp.float32, (x, scale, bias)))
    np.testing.assert_allclose(y, _norm_numpy(x) * scale + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-5)


def test_batch_normalise_gradients_against_differences_in_float64():
    arguments = [3 + 2 * _random(0, 4, 3, 3, 2), _random(1, 2), _random(2, 2)]
    weights = _random(3, 4, 3, 3, 2)

    def value(x, scale, bias):
        return np.sum(weights * (_norm_numpy(x) * scale + bias))

    def ours(x, scale, bias):
        return jnp.sum(jnp.float32(weights) * batch_normalise(x, scale, bias)[0])

    grads = jax.grad(ours, (0, 1, 2))(*map(jnp.float32, arguments))
    for index, grad in enumerate(grads):
        step = [_random(9, *a.shape) * (i == index) for i, a in enumerate(arguments)]
        up, down = (value(*[a + s * b for a, b in zip(arguments, step, strict=True)])
                    for s in (1e-6, -1e-6))  # fmt: skip
        np.testing.assert_allclose(np.sum(grad * step[index]), (up - down) / 2e-6, rtol=1e-4)


def test_statistics_run_only_in_training():
    layer = ConvBatchNorm(1, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    images = jnp.float32(_random(0, 8, 8, 8, 1))
    hidden = _conv_numpy(np.float64(images), np.float64(layer.kernel[...]), 1)
    layer(images, train=False)
    np.testing.assert_array_equal(layer.mean[...], 0)
    layer(images, train=True)
    np.testing.assert_allclose(layer.mean[...], 0.1 * hidden.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * hidden.var((0, 1, 2)), rtol=1e-5)
    expected = (hidden - layer.mean[...]) / np.sqrt(layer.var[...] + 1e-5)
    np.testing.assert_allclose(layer(images, train=False), expected, rtol=1e-4, atol=1e-5)


def test_shortcut_takes_every_second_pixel_and_pads_channels():
    images = jnp.float32(_random(0, 2, 5, 4, 2))
    result = shortcut(images, stride=2, num_channels=4)
    assert result.shape == (2, 3, 2, 4)
    np.testing.assert_array_equal(result[..., 1:3], images[:, ::2, ::2])
    np.testing.assert_array_equal(result[..., [0, 3]], 0)
    np.testing.assert_array_equal(shortcut(images, stride=1, num_channels=2), images)


@pytest.mark.parametrize("stride", [1, 2])
def test_block_against_numpy(stride):
    block = Block(2, 2 * stride, stride=stride, dtype=jnp.float32, rngs=nnx.Rngs(0))
    images = _random(0, 3, 6, 6, 2)
    first, second = (np.float64(layer.kernel[...]) for layer in (block.first, block.second))
    hidden = np.maximum(_norm_numpy(_conv_numpy(images, first, stride)), 0)
    hidden = _norm_numpy(_conv_numpy(hidden, second, 1))
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
    images = _random(0, 3, 7, 6, 8)
    np.testing.assert_array_equal(block.layers[-1].scale[...], 0)
    block.layers[-1].scale[...] = jnp.full(8, 0.5)
    kernels = [np.float64(layer.kernel[...]) for layer in block.layers]
    if groups:  # 96 channels a group at width 64 are 3 at width 2
        assert kernels[1].shape == (3, 3, 3, 6)
        kernels[1] = _dense(kernels[1], 2)
    assert [kernel.shape[0] for kernel in kernels] == ([1, 3, 1] if bottleneck else [3, 3])
    hidden, last = images, len(kernels) - 1
    for index, kernel in enumerate(kernels):
        hidden = _norm_numpy(_conv_numpy(hidden, kernel, stride if index == last - 1 else 1))
        hidden = hidden / 2 if index == last else np.maximum(hidden, 0)
    around = images
    if stride == 2:
        around = _norm_numpy(_conv_numpy(images, np.float64(block.shortcut.kernel[...]), 2))
    result = block(jnp.float32(images), train=True)
    np.testing.assert_allclose(result, np.maximum(hidden + around, 0), rtol=1e-3, atol=1e-4)


def test_mlp_against_numpy():
    network = make_network(
        lambda rngs: create_model("mlp", image_shape=(5,), num_classes=3, rngs=rngs)
    )
    params, stats = network.init(jax.random.key(0))
    vectors = _random(0, 4, 5)
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
    images = jnp.float32(_random(0, 2, 8, 8, 3))
    features = model.features(images, train=False)
    assert features.shape == (2, 64)
    expected = np.float64(features) @ np.float64(model.head.kernel[...])
    np.testing.assert_allclose(model(images, train=False), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_keeps_parameters_statistics_and_logits_float32():
    model = _small(dtype=jnp.bfloat16)
    images = jnp.float32(_random(0, 16, 8, 8, 1))
    exact = _small()(images, train=True)
    logits = model(images, train=True)
    assert logits.dtype == model.features(images, train=True).dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.float32)}
    assert model.layers[1](jnp.ones((1, 4, 4, 16)), train=True).dtype == jnp.bfloat16
    np.testing.assert_allclose(logits, exact, atol=0.1)


def test_sharded_batch_gives_the_output_and_statistics_of_the_whole_batch():
    graph, parameters, rest = nnx.split(_small(), nnx.Param, ...)
    images = jnp.float32(_random(0, 16, 8, 8, 1))

    @jax.jit
    def run(images):
        model = nnx.merge(graph, parameters, rest, copy=True)
        logits = model(images, train=True)
        return logits, nnx.state(model, nnx.BatchStat)

    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    for one, many in zip(*map(jax.tree.leaves, (run(images), run(spread))), strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_replicas_under_vmap_train_like_single_layers():
    keys = jax.random.split(jax.random.key(0), 2)
    images = jnp.float32(_random(0, 4, 6, 6, 2))

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


def test_cosine_head_against_numpy():
    head = CosineHead(6, 4, rngs=nnx.Rngs(0))
    features, kernel = _random(0, 5, 6), np.float64(head.kernel[...])
    norms = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(head(jnp.float32(features)), features @ kernel / norms, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_cosine_head_ignores_the_length_of_features(scale):
    head, features = CosineHead(6, 4, rngs=nnx.Rngs(0)), jnp.float32(_random(0, 5, 6))
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


def test_sigmoid_prior_needs_two_classes():
    with pytest.raises(InputError, match="num_classes=1"):
        sigmoid_prior_bias(1)


@pytest.mark.parametrize("shape", [(3, 3, 3, 16), (3, 3, 64, 64), (1, 1, 64, 200), (7, 5)])
def test_weights_drawn_by_few_programs_are_those_of_one_each(shape):
    """However many a program draws: seeds keep meaning what they did."""
    expected = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")(jax.random.key(4), shape)
    found = he_normal(jax.random.key(4), shape)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
