"""Every registered method: the rules that all are held to, and the plain function that it equals.

Compiling is what takes time here: each method is compiled once in float32 for one batch that holds
ordinary logits and logits of +-1e4, and the tests share what it gives.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compiling import optimised_jit
from every_method import (
    CLASSES,
    COUNTS,
    IDEAL_SHIFT,
    KEY,
    ORDINARY,
    active_state,
    assert_trees_close,
    batch,
    objective_of,
    spec_of,
    step_of,
)

from lt_jax import losses, objectives
from lt_jax.losses import margins
from lt_jax.objectives import METHODS, build_objective, method_spec


@cache
def in_float32(name):
    """What `step_of` gives for the whole batch, compiled as users have it."""
    logits, labels = batch()
    objective = objective_of(name)
    return optimised_jit(step_of(objective))(
        active_state(objective), KEY, jnp.float32(logits), labels
    )


def assert_same_loss(name, one, other):
    """Of the whole batch, compiled in two ways: to a few roundings in float32."""
    cosine = objective_of(name).wants_cosines
    # Logits of 30 are spaced by 2e-6 in float32, which a loss of nearly 0 cannot do better than;
    # 1e4 is no cosine: at scale 30 it makes 3e5, spaced by 1 / 32.
    rows, near_zero = (slice(ORDINARY), 4e-6) if cosine else (slice(None), 1e-6)
    np.testing.assert_allclose(one[rows], other[rows], rtol=2e-6, atol=near_zero, err_msg=name)
    np.testing.assert_allclose(one, other, rtol=2e-6, atol=1 / 32, err_msg=name)


# Rules


@pytest.mark.parametrize("name", METHODS)
def test_shape_and_jit_equal_to_eager(name):
    logits, labels = batch()
    objective = objective_of(name)
    loss, state, gradient = in_float32(name)
    assert loss.shape == labels.shape
    assert gradient.shape == logits.shape
    assert jax.tree.structure(state) == jax.tree.structure(objective.init())
    eager, eager_state = objective.apply(
        active_state(objective), KEY, jnp.float32(logits), jnp.asarray(labels)
    )
    assert_same_loss(name, loss, eager)
    assert_trees_close(state, eager_state, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_large_logits_stay_finite(name, dtype):
    logits, labels = batch()
    if dtype == "float32":
        loss, state, gradient = in_float32(name)
    else:
        objective = objective_of(name)
        loss, state, gradient = jax.jit(step_of(objective))(
            active_state(objective), KEY, jnp.asarray(logits, dtype), labels
        )
    assert loss.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient.astype(jnp.float32)).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_and_replicas(name, x64):
    """Against central differences in float64; and `vmap` over replicas against a loop over them."""
    logits, labels = (x[:ORDINARY] for x in batch())
    spec = spec_of(name)
    if (
        name == "seesaw"
    ):  # its compensation is held constant by the gradient: see test_losses_reference
        spec["transforms"]["seesaw"]["compensation"] = 0.0
    objective = build_objective(spec, COUNTS, steps_per_epoch=4)
    state, step = active_state(objective), step_of(objective)
    single = jax.jit(step)
    direction, size = np.random.default_rng(1).normal(size=logits.shape), 1e-6
    replicas = [logits, logits + size * direction, logits - size * direction]
    loop = [single(state, KEY, jnp.asarray(z), labels) for z in replicas]
    given = (loop[0][2] * direction).sum(-1)
    difference = (loop[1][0] - loop[2][0]) / (2 * size)
    # Losses of up to 50, rounded to 1e-16 of themselves and divided by 2e-6.
    np.testing.assert_allclose(given, difference, rtol=1e-6, atol=3e-8)

    states, keys = jax.tree.map(lambda x: jnp.stack([x] * 3), state), jnp.stack([KEY] * 3)
    together = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)))(
        states, keys, jnp.stack(replicas), labels
    )
    for i, alone in enumerate(loop):
        replica = jax.tree.map(lambda x, i=i: x[i], together)
        assert_trees_close(replica, alone, rtol=1e-9, atol=1e-12)


def test_class_permutation_equivariance(monkeypatch):
    """Classes have no order: permuting counts, logits, labels and state changes no loss."""
    # Drawn noise has an order, so every cloud is 0.7, and every label is masked surely or never.
    monkeypatch.setattr(
        margins, "draw_cloud", lambda key, shape, dtype: jnp.full(shape, 0.7, dtype)
    )
    order = np.array([3, 0, 4, 2, 1])
    surely = np.array([1e-30, 1.0, 1e30, 1.0, 1e-30], np.float32)

    def losses_in(order, logits, labels):
        def loss_of(name):
            spec = spec_of(name)
            if name == "equalization":
                spec["transforms"][name]["probability"] = 1.0
            objective = build_objective(spec, COUNTS[order], steps_per_epoch=4)
            state = tuple(
                s._replace(ideal_ratio=first.ideal_ratio * surely[order])
                if isinstance(s, objectives.PartialLabelState)
                else s
                for s, first in zip(active_state(objective), objective.init(), strict=True)
            )
            return objective.apply(state, KEY, logits, labels)[0]

        return {name: loss_of(name) for name in METHODS}

    logits, labels = (x[:ORDINARY] for x in batch())
    same = np.arange(CLASSES)
    one, other = jax.jit(
        lambda z, y: (
            losses_in(same, z, y),
            losses_in(order, z[:, order], jnp.asarray(np.argsort(order))[y]),
        )
    )(jnp.float32(logits), labels)
    for name in METHODS:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_labels_of_both_ranks_agree_where_they_mean_the_same():
    logits, labels = (x[:ORDINARY] for x in batch())
    for name in ("cross_entropy", "cb_softmax", "focal", "plm"):
        objective = objective_of(name)
        state = active_state(objective)
        one_hot, _ = jax.jit(objective.apply)(
            state, KEY, jnp.float32(logits), np.eye(CLASSES)[labels]
        )
        np.testing.assert_allclose(one_hot, in_float32(name)[0][:ORDINARY], rtol=2e-6)


# What each is


def test_methods_equal_the_plain_functions():
    """For the same key: the chain folds the place of the transform into it."""
    logits, labels = batch()
    key = jax.random.fold_in(KEY, 0)
    ratio = losses.label_ratio(COUNTS)
    ideal = np.float32(ratio) * IDEAL_SHIFT.astype(np.float32)

    @jax.jit
    def plain(z, y):
        masked = partial(losses.partial_label_masked_cross_entropy, z, y, ratio, ideal, key=key)
        clouded = partial(losses.gaussian_clouded_cross_entropy, z, y, COUNTS, key=key)
        return {
            "cross_entropy": losses.softmax_cross_entropy(z, y),
            "sigmoid": losses.sigmoid_cross_entropy(z, y),
            "cosine": losses.softmax_cross_entropy(30.0 * z, y),
            "focal": losses.sigmoid_focal_loss(z, y, gamma=1.0),
            "softmax_focal": losses.softmax_focal_loss(z, y, gamma=1.0),
            "cb_softmax": losses.class_balanced_softmax_cross_entropy(z, y, COUNTS),
            "cb_sigmoid": losses.class_balanced_sigmoid_cross_entropy(z, y, COUNTS),
            "cb_focal": losses.class_balanced_focal_loss(z, y, COUNTS),
            "logit_adjustment": losses.logit_adjusted_cross_entropy(z, y, COUNTS),
            "balanced_softmax": losses.balanced_softmax_cross_entropy(z, y, COUNTS),
            "ldam": losses.ldam_loss(z, y, COUNTS),
            "gcl": clouded(),
            "gcl_angular": clouded(angular=True),
            "plm": masked(),
            "plm_softmax": masked(base="softmax"),
            "equalization": losses.equalization_loss(z, y, COUNTS, key=key),
            "seesaw": losses.seesaw_loss(z, y, COUNTS),
            "asymmetric": losses.asymmetric_loss(z, y),
            "distribution_balanced": losses.distribution_balanced_loss(z, y, COUNTS),
            "weighted_sigmoid": losses.weighted_sigmoid_cross_entropy(z, y, COUNTS),
        }

    expected = plain(jnp.float32(logits), labels)
    assert set(METHODS) - set(expected) == {"inverse_frequency", "ldam_drw"}
    for name, value in expected.items():
        assert_same_loss(name, in_float32(name)[0], value)


def test_the_two_methods_without_a_plain_function():
    logits, labels = (x[:ORDINARY] for x in batch())
    weights = len(COUNTS) / COUNTS / (1 / COUNTS).sum()
    np.testing.assert_allclose(
        in_float32("inverse_frequency")[0][:ORDINARY],
        weights[labels] * reference.softmax_cross_entropy(logits, labels),
        rtol=1e-5,
    )
    own = reference.class_balanced_weights(COUNTS, 0.9999)
    np.testing.assert_allclose(
        in_float32("ldam_drw")[0][:ORDINARY],
        own[labels] / own[batch()[1]].mean() * reference.ldam(logits, labels, COUNTS, 0.5, 30.0),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("base", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", ["class_balanced", "inverse_frequency"])
def test_normalised_weights_make_a_weighted_mean(name, base):
    """``sum w l / sum w`` over the rows that count, as PyTorch's cross_entropy(weight=) has it."""
    logits, labels = (x[:ORDINARY] for x in batch())
    spec = {"base": base, "transforms": {name: {"normalize": True}}}
    objective = build_objective(spec, COUNTS)
    own = {
        "class_balanced": reference.class_balanced_weights(COUNTS, 0.9999),
        "inverse_frequency": 1 / COUNTS,
    }[name][labels]
    plain = {
        "softmax": reference.softmax_cross_entropy(logits, labels),
        "sigmoid": np.logaddexp(0, np.where(np.eye(CLASSES)[labels] > 0, -logits, logits)).sum(1),
    }[base]
    for where in (np.arange(ORDINARY) < 5, np.ones(ORDINARY, bool), np.zeros(ORDINARY, bool)):

        def mean(z, where=where):
            loss, _ = objective.apply(objective.init(), KEY, z, labels, where)
            return loss.sum() / max(where.sum(), 1)

        loss, gradient = jax.value_and_grad(mean)(jnp.float32(logits))
        expected = (own * plain)[where].sum() / max(own[where].sum(), 1e-9)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert np.isfinite(gradient).all()


def test_every_method_is_what_its_line_in_the_registry_says():
    for name, method in METHODS.items():
        spec = method_spec(name)
        assert spec["base"] == method.base, name
        assert list(spec["transforms"]) == list(method.transforms), name
        assert objective_of(name).competing == (method.base == "softmax"), name
