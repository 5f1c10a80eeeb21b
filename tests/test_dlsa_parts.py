"""The pieces of DLSA: flow, mixture, terms, pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_jax import dlsa
from lt_jax.errors import InputError

DIM = 6


@pytest.fixture(scope="module")
def trained():
    """A flow far from the identity, as if trained, in float64 precision's stead: large weights."""
    flow = dlsa.init_flow(jax.random.key(0), DIM, num_blocks=2, hidden=7)
    leaves, tree = jax.tree.flatten(flow)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    flow = jax.tree.unflatten(tree, moved)
    stats = [{**s, "var": jnp.abs(s["var"]) + 0.1} for s in flow.stats]
    return flow._replace(stats=stats)


@pytest.fixture(scope="module")
def features():
    return jnp.asarray(np.random.default_rng(2).normal(size=(5, DIM)), jnp.float32)


# The flow


@pytest.mark.parametrize("bound", [0.0, 2.0])
def test_log_determinant_is_that_of_the_jacobian(trained, features, bound):
    _, log_det, _ = dlsa.forward(trained, features, train=False, bound=bound)

    def one(x):
        return dlsa.forward(trained, x[None], train=False, bound=bound)[0][0]

    _, expected = np.linalg.slogdet(np.float64(jax.vmap(jax.jacobian(one))(features)))
    np.testing.assert_allclose(log_det, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bound", [0.0, 2.0])
def test_inverse_gives_the_features_back(trained, features, bound):
    latents, _, _ = dlsa.forward(trained, features, train=False, bound=bound)
    again = dlsa.inverse(trained, latents, bound=bound)
    np.testing.assert_allclose(again, features, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("dim", "hidden"), [(2, 1), (6, 7), (6, 3), (5, 20)])
@pytest.mark.parametrize("reverse", [False, True])
def test_no_coordinate_sees_itself_or_a_later_one(dim, hidden, reverse):
    """By the Jacobian of one block, which is triangular in one order or the other."""
    flow = dlsa.init_flow(jax.random.key(3), dim, num_blocks=2, hidden=hidden)
    params = jax.tree.map(lambda x: jnp.abs(x) + 0.1, flow.params)  # so that no relu is off

    def first_block(x):
        index = int(reverse)
        alone = dlsa.Flow([params[0], params[1]], flow.stats)
        identity = jax.tree.map(jnp.zeros_like, params[1 - index])
        blocks = [identity, params[1]] if reverse else [params[0], identity]
        return dlsa.forward(alone._replace(params=blocks), x[None], train=False, bound=0.0)[0][0]

    jacobian = np.asarray(jax.jacobian(first_block)(jnp.full(dim, 0.5)))
    own = np.triu(jacobian) if reverse else np.tril(jacobian)
    np.testing.assert_array_equal(jacobian, own)
    assert (np.diag(jacobian) != 0).all()
    if hidden >= dim - 1:
        assert (own != 0).sum() == dim * (dim + 1) / 2


def test_coordinates_before_the_first_are_none(trained):
    """With both orders in turn every coordinate may depend on every other one."""
    jacobian = jax.jacobian(lambda x: dlsa.forward(trained, x[None], train=False)[0][0])
    assert (np.asarray(jacobian(jnp.ones(DIM))) != 0).all()


def test_batch_normalisation_standardises_and_remembers(features):
    flow = dlsa.init_flow(jax.random.key(4), DIM)
    latents, _, stats = dlsa.forward(flow, 5 * features + 3, train=True)
    np.testing.assert_allclose(latents.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(latents.var(0), 1, rtol=1e-3)
    for _ in range(300):
        flow = flow._replace(stats=dlsa.forward(flow, 5 * features + 3, train=True)[2])
    again, _, same = dlsa.forward(flow, 5 * features + 3, train=False)
    np.testing.assert_allclose(again, latents, rtol=1e-3, atol=1e-3)
    assert same is not stats


def test_bounded_log_scales_stay_finite_where_free_ones_overflow(trained):
    """The sheet's trap: a few test samples far away made likelihoods NaN."""
    far = jnp.full((1, DIM), 1e4).at[0, ::2].set(-1e4)
    centres = dlsa.draw_centres(jax.random.key(0), 3, DIM)

    def likelihood(bound):
        latents, log_det, _ = dlsa.forward(trained, far, train=False, bound=bound)
        return dlsa.log_likelihood(dlsa.log_densities(latents, log_det, centres))

    assert not np.isfinite(likelihood(0.0)).all()
    assert np.isfinite(likelihood(3.0)).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"dim": 1}, r"dim is 1; expected at least 2"),
        ({"dim": 4, "num_blocks": 0}, r"num_blocks is 0; expected at least 1"),
        ({"dim": 4, "hidden": -1}, r"hidden is -1; expected at least 0"),
    ],
)
def test_impossible_flows_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        dlsa.init_flow(jax.random.key(0), **arguments)


# The mixture


def test_golden_densities_and_terms(golden):
    """Float64 values of a second implementation, of the released formulation."""
    case = golden["dlsa"]
    latent, log_det, means = (np.array(case[k]) for k in ("latent", "log_det", "means"))
    density = dlsa.log_densities(*(jnp.float32(v) for v in (latent, log_det, means)))
    np.testing.assert_allclose(density, case["log_prob"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        dlsa.log_likelihood(density), case["log_likelihood"], rtol=1e-5, atol=1e-5
    )
    given, other = jnp.float32(case["log_prob"]), jnp.float32(case["log_prob_other"])
    np.testing.assert_allclose(dlsa.purity_term(given, other), case["purity"], rtol=1e-5)
    running = jnp.float32(case["running"])
    value, new = dlsa.balance_term(given, running, case["step"], momentum=case["momentum"])
    np.testing.assert_allclose(value, case["balance"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new, case["new_running"], rtol=1e-5)


def test_what_is_drawn_is_float32_also_in_float64_mode(x64):
    key = jax.random.key(0)
    heads = dlsa.init_heads(key, 4, 3, 2)
    drawn = (dlsa.init_flow(key, 4), dlsa.draw_centres(key, 3, 4), heads)
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {np.dtype(np.float32)}


def test_no_array_of_batch_times_clusters_times_dimension_is_made():
    """Gradients too: their program's temporaries are a small part of what [B, K, D] would take."""
    batch, clusters, dim = 128, 300, 200

    def loss(latents, log_det, centres):
        return dlsa.log_likelihood(dlsa.log_densities(latents, log_det, centres)).sum()

    shapes = [
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((batch, dim), (batch,), (clusters, dim))
    ]
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*shapes).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    assert temporaries < batch * clusters * dim * 4 / 10


@pytest.mark.parametrize(
    ("clusters", "spread", "sentence"),
    [(1, 0.05, r"num_clusters is 1; expected at least 2"), (5, 0.0, r"spread is 0.0; expected a")],
)
def test_impossible_mixtures_are_refused(clusters, spread, sentence):
    with pytest.raises(InputError, match=sentence):
        dlsa.draw_centres(jax.random.key(0), clusters, 4, spread=spread)


# The terms


def test_gradients_flow_where_they_should():
    rng = np.random.default_rng(5)
    own, other = (jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in range(2))
    to_own, to_other = jax.grad(dlsa.purity_term, (0, 1))(own, other)
    assert not np.asarray(to_own).any()
    assert np.asarray(to_other).any()
    running = jnp.full(3, 0.2)
    value, _ = dlsa.balance_term(own, running, 2)
    to_own, to_running = jax.grad(lambda a, r: dlsa.balance_term(a, r, 2)[0], (0, 1))(own, running)
    assert np.asarray(to_own).any()
    assert not np.asarray(to_running).any()
    assert value > 0


def test_a_floor_bounds_the_purity_term_and_stops_its_gradient():
    own, other = jnp.zeros((1, 2)), jnp.array([[-50.0, 0.0]])
    np.testing.assert_allclose(dlsa.purity_term(own, other, floor=10.0), -5.0, rtol=1e-5)
    np.testing.assert_allclose(dlsa.purity_term(own, other), -25.0, rtol=1e-5)
    gradient = jax.grad(lambda z: dlsa.purity_term(own, z, floor=10.0))(other)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_weights_of_the_likelihood_have_mean_one_over_classes():
    weights = dlsa.likelihood_weights([100, 10, 0, 50])
    assert weights[2] == 0
    np.testing.assert_allclose(weights[[0, 1, 3]].mean(), 1)
    np.testing.assert_allclose(weights[1] / weights[0], 100)
    np.testing.assert_array_equal(dlsa.likelihood_weights([7, 3], power=0.0), 1)


# Pairs


def test_pairs_are_of_two_classes_each_equally_likely():
    labels = np.array([0] * 50 + [2] * 5 + [3] * 1)
    members = dlsa.members_of(labels, 5)
    positives, negatives = dlsa.draw_pairs(jax.random.key(6), members, 6000)
    a, b = labels[np.asarray(positives)], labels[np.asarray(negatives)]
    assert (a != b).all()
    for drawn in (a, b):
        shares = np.bincount(drawn, minlength=5) / 6000
        np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3, 0], atol=0.025)
    within = np.bincount(np.asarray(positives)[a == 0], minlength=50)[:50]
    assert within.min() > 0
    assert set(np.asarray(positives)[a == 2]) == set(range(50, 55))


def test_pairs_need_two_classes():
    with pytest.raises(InputError, match="1 classes have samples; expected at least 2"):
        dlsa.members_of([1, 1], 3)
