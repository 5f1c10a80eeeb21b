"""Classifiers that are trained on a frozen network: their logits, their gradient, what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from frozen_features import (
    CLASSIFY,
    COSINE_HEADS,
    FEATURES,
    HEADS,
    C,
    R,
    close,
    cosine,
    each,
    linear,
    network_of,
)

from lt_jax import sharding
from lt_jax.classifiers import frozen_network, scaled_logits
from lt_jax.objectives import build_objective, method_spec
from lt_jax.state import init_state
from lt_jax.steps import Split, make_train_step

# Learnable weight scaling


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_scaled_logits_are_the_formula(head):
    """The factor is on the whole logit, bias included; factors of 1 are the head itself."""
    heads, formula = (HEADS, linear) if head == "linear" else (COSINE_HEADS, cosine)
    classify = scaled_logits(CLASSIFY[head])
    factors = np.random.default_rng(2).normal(size=(R, C)).astype(np.float32)
    got = jax.vmap(classify)({"head": {"scale": factors}}, heads, FEATURES)
    close(np.asarray(got), factors[:, None] * each(formula, heads))
    ones = jax.vmap(classify)({"head": {"scale": np.ones((R, C), "f")}}, heads, FEATURES)
    np.testing.assert_array_equal(ones, jax.vmap(CLASSIFY[head])(heads, FEATURES))


# Frozen networks

LABELS_OF_BATCH = np.array([0, 1, 2, 3, 4, 0, 0, 1])
MEAN, STD = np.float32([0.4]), np.float32([0.25])


@pytest.fixture(scope="module")
def first():
    """A tiny network whose statistics are not those of any batch, images and their features."""
    network = network_of()
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(network.init, jax.random.key(0))  # to draw them takes a while

    def fill(path, leaf):
        if "var" in jax.tree_util.keystr(path):
            return jnp.asarray(0.2 + rng.random(leaf.shape), leaf.dtype)
        deviation = np.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 else 0.5
        return jnp.asarray(deviation * rng.normal(size=leaf.shape), leaf.dtype)

    params, stats = jax.tree_util.tree_map_with_path(fill, shapes)
    assert jax.tree.leaves(stats)
    images = rng.integers(0, 256, (len(LABELS_OF_BATCH), 8, 8, 1), dtype=np.uint8)
    inputs = jnp.asarray((images / np.float32(255) - MEAN) / STD)
    features = network.features(params, stats, inputs)
    return network, {"params": params, "stats": stats}, images, inputs, features


def second_stage(network, method, frozen):
    """How logits are made, and weights to begin with: not those of stage 1, not all alike."""
    rng = np.random.default_rng(8)
    if method == "lws":
        start = {"head": {"scale": jnp.asarray(rng.normal(size=C), jnp.float32)}}
        return scaled_logits(network.classify), start
    start = jax.tree.map(
        lambda w: jnp.asarray(rng.normal(size=w.shape) / 8, jnp.float32),
        {"head": frozen["params"]["head"]},
    )
    return (lambda params, _, x: network.classify(params["head"], x)), start


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gradient_by_hand(method, head, params, features):
    """Of the mean cross-entropy, float64: what only the classifier gets."""
    x = np.asarray(features, np.float64)
    y = np.eye(C)[LABELS_OF_BATCH]
    own = {k: np.asarray(v, np.float64) for k, v in params["head"].items()}
    if method == "lws":
        f = np.array([linear(head, row) for row in x])
        wrong = softmax(own["scale"] * f) - y
        return {"head": {"scale": (wrong * f).mean(0)}}
    wrong = softmax(x @ own["kernel"] + own["bias"]) - y
    return {"head": {"kernel": x.T @ wrong / len(x), "bias": wrong.mean(0)}}


@pytest.mark.parametrize("method", ["finetune", "lws"])
def test_images_and_features_computed_before_give_the_same_logits(first, method):
    """Caching is a matter of speed alone."""
    network, frozen, _, inputs, features = first
    classify, params = second_stage(network, method, frozen)
    on_images = frozen_network(network, classify, on_features=False)
    on_features = frozen_network(network, classify, on_features=True)
    want = classify(params, frozen["params"]["head"], features)
    for train in (False, True):
        of_images, _ = on_images.apply(params, frozen, inputs, train)
        of_features, _ = on_features.apply(params, frozen, features, train)
        np.testing.assert_array_equal(of_features, want)
        close(np.asarray(of_images), np.asarray(want), 1e-6)
    np.testing.assert_array_equal(on_features.features(params, frozen, features), features)
    close(np.asarray(on_images.features(params, frozen, inputs)), np.asarray(features), 1e-6)
    assert np.abs(features).max() > 0.1


def test_a_frozen_backbone_is_in_evaluation_mode_also_when_training(first):
    """Its normalisation uses what stage 1 gathered: logits of an image do not depend on others."""
    network, frozen, _, inputs, _ = first
    classify, params = second_stage(network, "finetune", frozen)
    apply = frozen_network(network, classify, on_features=False).apply
    together, after = apply(params, frozen, inputs, True)
    close(np.asarray(apply(params, frozen, inputs[:3], True)[0]), np.asarray(together[:3]))
    before, now = jax.tree.leaves(frozen), jax.tree.leaves(after)
    assert jax.tree.structure(after) == jax.tree.structure(frozen)
    assert all(a is b for a, b in zip(now, before, strict=True))
    # The whole network in training mode would have changed both.
    trained, changed = network.apply(frozen["params"], frozen["stats"], inputs, True)
    evaluated, _ = network.apply(frozen["params"], frozen["stats"], inputs, False)
    assert np.abs(trained - evaluated).max() > 1e-3
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(frozen["stats"]), strict=True)
    )


@pytest.mark.parametrize("on_features", [True, False], ids=["features", "images"])
@pytest.mark.parametrize("method", ["finetune", "lws"])
def test_a_training_step_changes_the_classifier_alone(first, method, on_features):
    """By the gradient computed by hand; the network of stage 1 comes out bit for bit."""
    network, frozen, images, _, features = first
    classify, params = second_stage(network, method, frozen)
    objective = build_objective(method_spec("cross_entropy"), [3, 2, 1, 1, 1])
    optimizer = optax.sgd(0.5)
    state = init_state((params, frozen), optimizer, objective, keep_best=False)
    augmentation = {
        "crop_padding": 0,
        "flip": False,
        "color_jitter": 0.0,
        "autoaugment": False,
        "cutout_size": 0,
        "mixup_alpha": 0.0,
    }
    step = make_train_step(
        frozen_network(network, classify, on_features=on_features),
        objective,
        optimizer,
        augmentation,
        sharding.make_mesh(1),
    )
    split = Split(features if on_features else jnp.asarray(images), LABELS_OF_BATCH, MEAN, STD)
    split = jax.tree.map(jnp.asarray, split)
    rows = jnp.arange(len(LABELS_OF_BATCH))
    after, loss = jax.jit(step)(state, jax.random.key(0), split, rows)
    assert np.isfinite(loss)
    assert jax.tree.structure(after.params) == jax.tree.structure(params)
    assert jax.tree.structure(after.stats) == jax.tree.structure(frozen)
    jax.tree.map(np.testing.assert_array_equal, after.stats, frozen)
    gradient = gradient_by_hand(method, frozen["params"]["head"], params, features)
    for (path, old), new, slope in zip(
        jax.tree.leaves_with_path(params),
        jax.tree.leaves(after.params),
        jax.tree.leaves(gradient),
        strict=True,
    ):
        assert np.abs(slope).max() > 0.01, path
        np.testing.assert_allclose(new, old - 0.5 * slope, rtol=1e-4, atol=1e-5)


def test_the_rest_of_a_network_stays_as_it_is(first):
    """A frozen network still says how stage 1 classifies."""
    network, *_ = first
    frozen = frozen_network(network, lambda params, head, x: x, on_features=True)
    assert frozen.classify is network.classify
    assert frozen.init is network.init
