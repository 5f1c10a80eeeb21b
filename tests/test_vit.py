"""Vision Transformers against NumPy, by torchvision's and timm's names, and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from vit_numpy import (
    DEPTH,
    HEADS,
    NAMINGS,
    PATCH,
    WIDTH,
    described,
    features_numpy,
    random_weights,
    resized,
)

from lt_jax.errors import InputError
from lt_jax.models import MODELS, VisionTransformer, ViTTiny, create_model, load_pretrained
from lt_jax.models.names import vit_name
from lt_jax.state import make_network

IMAGE = (8, 12, 3)


class Small(VisionTransformer):
    """Everything that ViT-B/16 has, and compiles in no time."""

    num_features, num_heads, depth, patch_size = WIDTH, HEADS, DEPTH, PATCH


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(MODELS, "small_vit", Small)


def network(name="small_vit", image_shape=IMAGE, dtype=jnp.float32):
    return make_network(
        lambda rngs: create_model(
            name, image_shape=image_shape, num_classes=5, dtype=dtype, rngs=rngs
        )
    )


CLASSIFIER = {"head.weight": np.zeros((7, WIDTH), np.float32), "head.bias": np.zeros(7, np.float32)}


def saved(path, weights, naming="timm"):
    named = {NAMINGS[naming](name): array for name, array in weights.items()}
    if path.suffix == ".npz":
        np.savez(path, **named)
    else:
        pytest.importorskip("safetensors.numpy").save_file(named, path)
    return path


def start(made):
    """Shapes of the backbone and a head with weights."""
    params, stats = jax.eval_shape(made.init, jax.random.key(0))
    head = {k: np.full(x.shape, 9, np.float32) for k, x in params["head"].items()}
    return params | {"head": head}, stats


# Weights of files


@pytest.mark.parametrize("naming", NAMINGS)
def test_features_against_numpy(naming, tmp_path):
    """The positions are for a square of 3x3 patches, the image has 2x3."""
    weights = random_weights()
    images = np.float32(np.random.default_rng(1).normal(size=(3, *IMAGE)))
    made, kind = network(), ".npz" if naming == "timm" else ".safetensors"
    path = saved(tmp_path / f"w{kind}", weights | CLASSIFIER, naming)
    params, stats = load_pretrained(path, "small_vit", *start(made))
    assert stats == {}
    np.testing.assert_array_equal(params["head"]["kernel"], 9)
    table = weights["pos_embed"][0]
    grid = resized(table[1:].reshape(3, 3, WIDTH), 2, 3).reshape(6, WIDTH)
    expected = features_numpy(weights, images, np.concatenate([table[:1], grid]))
    assert expected.std() > 0.3
    features = jax.jit(made.features)(params, stats, images)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(3, 3), (2, 3), (5, 7), (9, 2)])
def test_positions_are_resized_as_pillow_does(size, tmp_path):
    weights = random_weights()
    path = saved(tmp_path / "w.npz", weights)
    shape = (size[0] * PATCH, size[1] * PATCH, 3)
    params, _ = load_pretrained(path, "small_vit", *start(network(image_shape=shape)))
    table = weights["pos_embed"][0]
    np.testing.assert_array_equal(params["class_position"], table[0])
    expected = resized(table[1:].reshape(3, 3, WIDTH), *size)
    np.testing.assert_allclose(params["positions"], expected, atol=1e-5)
    if size == (3, 3):
        np.testing.assert_array_equal(params["positions"], expected)


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [
        ("vit_b16", 768, 86_567_656),
        ("vit_small16", 384, 22_050_664),
        ("vit_tiny16", 192, 5_717_416),
    ],
)
def test_every_parameter_has_its_published_name_and_shape(name, width, count):
    """Counts are timm's, with 1000 classes."""
    params, stats = start(network(name, (224, 224, 3)))
    assert stats == {}
    names = dict(described(width, 12, 16, 196))
    assert sum(map(np.prod, names.values())) + 1000 * (width + 1) == count
    ours = [
        (vit_name(tuple(key.key for key in keys)), leaf.shape)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    for own, shape in ours:
        if own == "pos_embed":
            assert shape in ((width,), (14, 14, width))
        elif own is not None:
            theirs = names[own]
            order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(len(theirs), range(len(theirs)))
            assert shape == tuple(theirs[axis] for axis in order), own
    assert {own for own, _ in ours} == {*names, None}


CHANGES = {
    r"lacks 'blocks.1.attn.qkv.bias' of small_vit; it holds": lambda w: {
        k: v for k, v in w.items() if k != "blocks.1.attn.qkv.bias"
    },
    r"holds 'blocks.2.norm1.bias', which small_vit does not have": lambda w: (
        w | {"blocks.2.norm1.bias": np.zeros(WIDTH, np.float32)}
    ),
    r"holds 'blocks.0.ls1.gamma', which small_vit does not have": lambda w: (
        w | {"blocks.0.ls1.gamma": np.ones(WIDTH, np.float32)}
    ),
    r"'pos_embed' of .* has shape \(1, 9, 16\); expected \(1, 1 \+ side \* side, 16\)": lambda w: (
        w | {"pos_embed": w["pos_embed"][:, 1:].copy()}
    ),
    r"'pos_embed' of .* has shape \(10, 16\); expected": lambda w: (
        w | {"pos_embed": w["pos_embed"][0].copy()}
    ),
    r"'pos_embed' of .* holds NaN": lambda w: w | {"pos_embed": w["pos_embed"] * np.nan},
    r"'blocks.0.mlp.fc1.weight' of .* has shape \(16, 64\); expected \(64, 16\)": lambda w: (
        w | {"blocks.0.mlp.fc1.weight": w["blocks.0.mlp.fc1.weight"].T.copy()}
    ),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_file_of_another_network_is_refused(sentence, tmp_path):
    path = saved(tmp_path / "w.npz", CHANGES[sentence](random_weights()))
    with pytest.raises(InputError, match=sentence):
        load_pretrained(path, "small_vit", *start(network()))


def test_models_without_published_weights_name_those_that_have():
    with pytest.raises(InputError, match="such as 'resnet50', 'resnext50', or a Vision Trans"):
        load_pretrained("w.npz", "small", *start(network("small")))


def test_images_that_are_no_whole_number_of_patches_are_refused():
    for shape in ((224, 230, 3), (100, 96, 3)):
        with pytest.raises(InputError, match=r"patches of 16x16 pixels, expected a height and a"):
            network("vit_b16", shape)
    with pytest.raises(InputError, match="height and width at least 16"):
        network("vit_tiny16", (8, 32, 1))


# Training


def test_weights_at_the_start_are_spread_as_in_timm():
    """Deviation 0.02, patches uniform within 1 / sqrt(fan-in), and a class token next to zero."""
    head = nnx.Linear(192, 2, rngs=nnx.Rngs(0))
    image = (64, 64, 3)
    model = ViTTiny(image, head=head, dtype=jnp.float32, rngs=nnx.Rngs(1))
    block = model.blocks[3]
    for param in (block.qkv, block.projection, block.fc1, block.fc2):
        np.testing.assert_allclose(jnp.std(param.kernel[...]), 0.02, rtol=0.03)
        assert not param.bias[...].any()
    np.testing.assert_allclose(jnp.std(model.positions[...]), 0.02, rtol=0.1)
    assert 0 < jnp.abs(model.class_token[...]).max() < 1e-5
    for values in (model.patches.kernel[...], model.patches.bias[...]):
        assert jnp.abs(values).max() <= 1 / np.sqrt(768)
        np.testing.assert_allclose(jnp.std(values), 1 / np.sqrt(3 * 768), rtol=0.15)


def test_every_parameter_is_trained_and_bfloat16_stays_near():
    exact, half = network(), network(dtype=jnp.bfloat16)
    params, stats = exact.init(jax.random.key(0))
    images = jnp.float32(np.random.default_rng(2).normal(size=(4, *IMAGE)))

    def loss(params, made):
        logits, new = made.apply(params, stats, images, True)
        assert new == {}
        return -jax.nn.log_softmax(logits)[:, 0].mean(), logits

    grads, logits = jax.jit(jax.grad(lambda p: loss(p, exact), has_aux=True))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path
    rough = jax.jit(lambda p: loss(p, half)[1])(params)
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(rough - logits).max() < 0.05


def test_it_learns():
    """Four images, each of a class, of which any network can tell which is which."""
    made, optimizer = network(), optax.adam(1e-2)
    params, stats = made.init(jax.random.key(0))
    images = jnp.float32(np.random.default_rng(2).normal(size=(4, *IMAGE)))

    def loss(params):
        logits, _ = made.apply(params, stats, images, True)
        return -jnp.diagonal(jax.nn.log_softmax(logits)).mean()

    def update(carry, _):
        params, memory = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    start = params, optimizer.init(params)
    losses = jax.jit(lambda carry: jax.lax.scan(update, carry, length=60))(start)[1]
    assert losses[0] > 1
    assert losses[-1] < 0.05


def test_replicas_under_vmap_are_each_alone():
    made = network()
    inits = [made.init(key) for key in jax.random.split(jax.random.key(0), 2)]
    images = jnp.float32(np.random.default_rng(3).normal(size=(2, *IMAGE)))
    stacked, stats = jax.tree.map(lambda *x: jnp.stack(x), *inits)
    both = jax.jit(jax.vmap(lambda p, s: made.features(p, s, images)))(stacked, stats)
    for got, (params, none) in zip(both, inits, strict=True):
        np.testing.assert_allclose(got, made.features(params, none, images), atol=1e-5)
