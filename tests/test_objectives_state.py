"""State of objectives: deferral, ratios of labels, padding, devices, intervals in epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from every_method import (
    CLASSES,
    COUNTS,
    KEY,
    ORDINARY,
    SIGMOID,
    active_state,
    assert_trees_close,
    batch,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lt_jax import objectives
from lt_jax.objectives import build_objective, chain


def test_deferred_switches_at_exactly_its_step():
    logits, labels = (x[:ORDINARY] for x in batch())
    mask = objectives.partial_label_mask(COUNTS, update_every=2)
    objective = chain(
        objectives.deferred(objectives.class_balanced(COUNTS, beta=0.99), 2),
        objectives.deferred(mask, 3),
        base=SIGMOID,
    )
    step = jax.jit(objective.apply)
    plain = reference.sigmoid_cross_entropy(logits, labels)
    weighted = reference.class_balanced_weights(COUNTS, 0.99)[labels] * plain
    state = objective.init()
    for n in range(6):
        loss, state = step(state, jax.random.key(n), jnp.float32(logits), labels)
        if n < 5:  # the ideal ratio first differs from the data's after its second step, the 5th
            np.testing.assert_allclose(loss, plain if n < 2 else weighted, rtol=1e-5)
        inner = state[1].inner
        assert state[0].step == state[1].step == n + 1
        assert inner.step == max(0, n - 2)
        seen = int(inner.positives.sum() + inner.negatives.sum())
        assert seen == (ORDINARY * CLASSES if n in (3, 5) else 0)
        assert (inner.ideal_ratio != mask.init().ideal_ratio).any() == (n >= 4)


def test_partial_label_state_follows_the_second_implementation():
    rng = np.random.default_rng(2)
    every, rate, n, size = 3, 0.3, 1000, 40
    objective = chain(
        objectives.partial_label_mask(COUNTS, update_every=every, rate=rate, num_examples=n),
        base=SIGMOID,
    )
    step = jax.jit(objective.apply)
    state, ratio = objective.init(), COUNTS / (n - COUNTS)
    np.testing.assert_allclose(state[0].ideal_ratio, ratio, rtol=1e-6)
    ideal, seen = ratio, np.zeros((2, CLASSES, 10), int)
    for i in range(7):
        logits = rng.normal(size=(size, CLASSES)).astype(np.float32) * 3
        labels = (rng.random((size, CLASSES)) < 0.4).astype(np.float32)
        labels[:, 4] = 0  # never present: keeps its ratio
        where = rng.random(size) < 0.8
        _, state = step(state, jax.random.key(i), logits, labels, where)
        probabilities = reference.sigmoid(logits[where])
        seen = seen + np.array(reference.probability_histograms(probabilities, labels[where]))
        if (i + 1) % every == 0:
            ideal = reference.updated_ideal_ratio(ideal, ratio, *seen, rate)
            seen = np.zeros_like(seen)
        np.testing.assert_allclose(state[0].ideal_ratio, ideal, rtol=1e-5)
        np.testing.assert_array_equal(state[0].positives, seen[0])
        np.testing.assert_array_equal(state[0].negatives, seen[1])
        assert state[0].step == i + 1
    assert ideal[4] == ratio[4]
    assert (ideal[:4] != ratio[:4]).all()


def test_padding_rows_are_neither_loss_nor_state():
    logits, labels = (x[:ORDINARY].copy() for x in batch())
    where = np.arange(ORDINARY) < 5
    logits[~where] = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0])
    objective = chain(
        objectives.gaussian_cloud(COUNTS),
        objectives.class_balanced(COUNTS),
        objectives.focal(),
        objectives.partial_label_mask(COUNTS, update_every=5),
        base=SIGMOID,
    )

    @jax.jit
    def step(z):
        def summed(z):
            loss, state = objective.apply(active_state(objective), KEY, z, labels, where)
            return loss.sum(), (loss, state)

        return jax.grad(summed, has_aux=True)(z)

    gradient, (loss, state) = step(jnp.float32(logits))
    harmless, (loss_0, state_0) = step(jnp.float32(np.where(where[:, None], logits, 0.0)))
    np.testing.assert_array_equal(loss, loss_0)
    np.testing.assert_array_equal(gradient, harmless)
    assert (np.asarray(loss)[~where] == 0).all()
    assert (np.asarray(gradient)[~where] == 0).all()
    assert_trees_close(state, state_0, rtol=0)
    assert state[3].positives.sum() == where.sum()


def test_eight_devices_see_one_global_batch():
    devices = np.array(jax.devices())
    assert len(devices) == 8
    mesh = Mesh(devices, ("data",))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    objective = chain(
        objectives.gaussian_cloud(COUNTS, scale=8.0),
        objectives.class_balanced(COUNTS),
        objectives.focal(),
        objectives.equalization(COUNTS),
        objectives.partial_label_mask(COUNTS, update_every=3, rate=0.5),
        base=SIGMOID,
    )
    rng, step = np.random.default_rng(5), jax.jit(objective.apply)
    one = many = objective.init()
    many = jax.device_put(many, whole)
    for i in range(4):
        logits = rng.uniform(-1, 1, (32, CLASSES)).astype(np.float32)
        labels, key = rng.integers(CLASSES, size=32).astype(np.int32), jax.random.key(i)
        loss_one, one = step(one, key, logits, labels)
        loss_many, many = step(many, key, *jax.device_put((logits, labels), rows))
        assert len(loss_many.sharding.device_set) == 8
        np.testing.assert_allclose(loss_one, loss_many, rtol=1e-6, atol=1e-7)
        assert_trees_close(one, many, rtol=0)
    assert (one[4].ideal_ratio != objective.init()[4].ideal_ratio).all()


# Intervals of specs


def first_step_that_differs(objective, changed):
    """At which call, counted from 0, `changed` of the state first holds."""
    logits, labels = (x[:ORDINARY] for x in batch())
    step, state = jax.jit(objective.apply), objective.init()
    for n in range(12):
        loss, state = step(state, KEY, jnp.float32(logits), labels)
        if changed(np.asarray(loss), state):
            return n
    return None


@pytest.mark.parametrize(("every", "expected"), [(0, 6), (3, 3)])
def test_update_every_of_zero_means_an_epoch(every, expected):
    spec = {"base": "sigmoid", "transforms": {"partial_label_mask": {"update_every": every}}}
    objective = build_objective(spec, COUNTS, steps_per_epoch=6)
    start = objective.init()[0].ideal_ratio
    n = first_step_that_differs(objective, lambda _, s: (s[0].ideal_ratio != start).any())
    assert n == expected - 1


def test_start_epoch_is_counted_in_steps():
    logits, labels = (x[:ORDINARY] for x in batch())
    plain = reference.softmax_cross_entropy(logits, labels)
    spec = {"transforms": {"class_balanced": {"beta": 0.99, "start_epoch": 1.5}}}
    objective = build_objective(spec, COUNTS, steps_per_epoch=6)
    n = first_step_that_differs(objective, lambda loss, _: not np.allclose(loss, plain, rtol=1e-4))
    assert n == 9
