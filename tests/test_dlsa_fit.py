"""DLSA: clusters and what they say, and the training of a flow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_jax import dlsa
from lt_jax.dlsa import fit
from lt_jax.errors import InputError

# Clusters


def class_shares(table, clusters, own=-1, part=0):
    """Of samples that are all in one part; the other, which comes last, has no clusters."""
    tables = jnp.asarray(np.stack([table, np.zeros_like(table)]), jnp.float32)
    vectors = (jnp.asarray(np.broadcast_to(v, np.shape(clusters))) for v in (part, clusters, own))
    return np.asarray(dlsa.class_shares(tables, dlsa.Inputs(jnp.zeros(1), *vectors)))


def test_shares_of_a_cluster_leave_a_training_sample_out():
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
    clusters[0] = 4  # alone
    table = dlsa.cluster_table(clusters, labels, 6, 3)
    assert table.sum() == 60
    shares = class_shares(table, clusters, labels)
    for i in range(60):
        others = (clusters == clusters[i]) & (np.arange(60) != i)
        expected = np.bincount(labels[others] if others.any() else labels, minlength=3)
        np.testing.assert_allclose(shares[i], expected / expected.sum(), rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    unseen = class_shares(table, np.array([5, clusters[1]]))
    np.testing.assert_allclose(unseen[0], np.bincount(labels, minlength=3) / 60, rtol=1e-6)
    own = table[clusters[1]]
    np.testing.assert_allclose(unseen[1], own / own.sum(), rtol=1e-6)
    # The last part has no clusters.
    assert not class_shares(table, clusters, labels, part=1).any()


def test_what_a_share_tells_of_a_left_out_label_is_nothing():
    """On labels that have nothing to do with the clusters, shares must not predict them."""
    rng = np.random.default_rng(1)
    clusters, labels = rng.integers(0, 300, 900), rng.integers(0, 2, 900)
    table = dlsa.cluster_table(clusters, labels, 300, 2)
    own = np.arange(900), labels
    assert class_shares(table, clusters)[own].mean() > 0.6  # with itself among them it does
    assert class_shares(table, clusters, labels)[own].mean() < 0.5


def test_pure_clusters_are_counted_as_said():
    table = np.array([[11, 0], [10, 0], [70, 30], [71, 29], [0, 40]])
    assert dlsa.pure_clusters(table) == 3
    assert dlsa.pure_clusters(table, purity=0.5, larger_than=5) == 5
    # 70 % each, which do not exceed: 0.7 * 90 is a bit below 63 in binary.
    assert dlsa.pure_clusters(np.array([[7 * n, 3 * n] for n in range(1, 100)])) == 0


@pytest.mark.parametrize("proportion", [0.1, 0.3, 0.9])
def test_a_threshold_takes_its_share(proportion):
    values = np.random.default_rng(2).normal(size=1000)
    taken = (values > dlsa.threshold_for(values, proportion)).mean()
    assert abs(taken - proportion) < 0.002


@pytest.mark.parametrize("proportion", [0.0, 1.0, -0.1, 1.5])
def test_shares_that_are_none_are_refused(proportion):
    with pytest.raises(InputError, match=r"proportion is .*; expected a number between 0 and 1"):
        dlsa.threshold_for([1.0, 2.0], proportion)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_likelihoods_that_are_not_finite_are_refused(value):
    """The sheet's trap: a threshold of NaN sent every sample one way."""
    with pytest.raises(InputError, match=r"of 1 of 3 samples are not finite"):
        dlsa.threshold_for([0.0, value, 1.0], 0.5)


# Training

OPTIONS = dlsa.FlowOptions(
    num_clusters=12,
    separation=4.2,
    hidden=32,
    purity=3.0,
    likelihood=1.0,
    weight_power=1.0,
    batch_size=64,
    optimizer="adam",
    learning_rate=0.01,
)
STEPS, EPOCHS = 20, 12
CLASSES = 3


@functools.cache
def samples():
    """Three classes, two of which have two modes each, the third between those of the first."""
    rng = np.random.default_rng(3)
    centres = np.array([[4, 0, 0, 0], [-4, 0, 0, 0], [0, 4, 0, 0], [0, -4, 0, 0], [0, 0, 0, 0]])
    mode = rng.choice(5, 400, p=[0.3, 0.3, 0.15, 0.15, 0.1])
    features = (centres[mode] + rng.normal(size=(400, 4)) * 0.7).astype(np.float32)
    return features, np.array([0, 0, 1, 1, 2])[mode]


@functools.cache
def epoch_of(options):
    return jax.jit(fit.make_epoch(options, STEPS, STEPS * EPOCHS))


def trained(seed, epochs=EPOCHS, options=OPTIONS):
    """The state after so many epochs, the centres, and the mean terms of each epoch."""
    features, labels = samples()
    state, centres = fit.init_fit(jax.random.key(seed), 4, options, STEPS * EPOCHS)
    arguments = centres, jnp.asarray(features), jnp.asarray(labels), *members()
    terms = []
    for _ in range(epochs):
        state, mean = epoch_of(options)(state, jax.random.key(seed), *arguments)
        terms.append(np.asarray(mean))
    return state, centres, np.array(terms)


def members():
    labels = samples()[1]
    weights = dlsa.likelihood_weights(np.bincount(labels, minlength=CLASSES), power=1.0)
    return dlsa.members_of(labels, CLASSES), jnp.asarray(weights, jnp.float32)


def purity(state, centres):
    features, labels = samples()
    _, cluster = jax.jit(dlsa.place, static_argnums=2)(
        dlsa.Mixture(state.flow, centres), jnp.asarray(features), 3.0
    )
    table = dlsa.cluster_table(cluster, labels, 12, CLASSES)
    return table.max(axis=1).sum() / table.sum()


def test_training_makes_clusters_pure():
    before, centres, _ = trained(0, epochs=0)
    after, _, terms = trained(0)
    assert terms[-1, 2] < terms[0, 2] - 1  # the purity term falls
    assert purity(after, centres) > 0.9 > purity(before, centres)
    assert int(after.step) == STEPS * EPOCHS


def test_the_whole_loss_falls_in_the_form_of_the_released_code():
    """SGD, no floor, no bound: as published, though here on few dimensions."""
    released = OPTIONS._replace(
        optimizer="sgd", learning_rate=0.05, purity=0.02, purity_floor=0.0, bound=0.0, clip=0.0
    )
    _, _, terms = trained(0, options=released)
    losses = terms @ np.array([released.likelihood, released.balance, released.purity])
    assert losses[-1] < losses[0]


def test_stopped_and_resumed_is_the_same_to_the_last_bit():
    features, labels = samples()
    whole, centres, _ = trained(1, epochs=4)
    half, _, _ = trained(1, epochs=2)
    arguments = centres, jnp.asarray(features), jnp.asarray(labels), *members()
    copy = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), half)
    for _ in range(2):
        copy, _ = epoch_of(OPTIONS)(copy, jax.random.key(1), *arguments)
    jax.tree.map(np.testing.assert_array_equal, copy, whole)


def test_replicas_side_by_side_are_those_one_after_another():
    """Each with samples of its own: some take part in one and not in the other."""
    features, labels = samples()
    places = [np.ones(400, bool), np.arange(400) % 3 > 0]
    all_members = [dlsa.members_of(labels, CLASSES, where) for where in places]
    keys = [jax.random.key(seed) for seed in (5, 6)]
    # With Adam, whose first steps are of one size whatever the gradient, rounding would decide.
    options = OPTIONS._replace(optimizer="sgd", learning_rate=0.05)
    starts = [fit.init_fit(key, 4, options, STEPS * EPOCHS) for key in keys]
    epoch = epoch_of(options)
    data = jnp.asarray(features), jnp.asarray(labels)
    weights = members()[1]

    def stacked(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    states, centres = stacked(starts)
    together, _ = jax.jit(jax.vmap(epoch, in_axes=(0, 0, 0, None, None, 0, None)))(
        states, jnp.stack(keys), centres, *data, stacked(all_members), weights
    )
    for r in range(2):
        alone, _ = epoch(starts[r][0], keys[r], starts[r][1], *data, all_members[r], weights)
        jax.tree.map(
            lambda a, b, r=r: np.testing.assert_allclose(a[r], b, rtol=2e-3, atol=2e-3),
            together,
            alone,
        )
