"""Losses against a second implementation in NumPy, and against optax.

Many losses share one compiled function: compiling is what takes time, not computing.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from every_loss import COUNTS, GAMMAS, IDEAL, KEY, RATIO, random_inputs

from lt_jax import losses
from lt_jax.losses import margins
from lt_jax.losses.priors import seesaw_logits

BETA, NUM_EXAMPLES, DROP = 0.99, 1000, 0.7
CLOUD = {"noise": 0.7, "margin": 0.2, "scale": 5.0}
REBALANCE = {"alpha": 0.2, "beta": 5.0, "mu": 0.3, "kappa": 0.1}


@jax.jit
def own_values(z, f, y):
    """Every loss with options other than the defaults."""
    gcl = partial(losses.gaussian_clouded_cross_entropy, f, y, COUNTS, key=KEY, **CLOUD)
    masked = partial(losses.partial_label_masked_cross_entropy, z, y, RATIO, IDEAL, key=KEY)
    eql = partial(losses.equalization_loss, z, y, COUNTS, key=KEY, probability=DROP, threshold=0.1)
    out = {
        "softmax": losses.softmax_cross_entropy(z, y),
        "sigmoid": losses.sigmoid_cross_entropy(z, y),
        "cb_softmax": losses.class_balanced_softmax_cross_entropy(z, y, COUNTS, beta=BETA),
        "cb_sigmoid": losses.class_balanced_sigmoid_cross_entropy(z, y, COUNTS, beta=BETA),
        "gcl": gcl(),
        "gcl_angular": gcl(angular=True),
        "ldam": losses.ldam_loss(f, y, COUNTS, max_margin=0.4, scale=6.0),
        "logit_adjusted": losses.logit_adjusted_cross_entropy(z, y, COUNTS, tau=0.7),
        "balanced_softmax": losses.balanced_softmax_cross_entropy(z, y, COUNTS),
        "eql_softmax": eql(),
        "eql_sigmoid": eql(base="sigmoid"),
        "asymmetric": losses.asymmetric_loss(
            z, y, gamma_positive=0.5, gamma_negative=3.0, clip=0.1
        ),
        "distribution_balanced": losses.distribution_balanced_loss(
            z, y, COUNTS, num_examples=NUM_EXAMPLES, negative_scale=3.0, **REBALANCE
        ),
        "weighted_sigmoid": losses.weighted_sigmoid_cross_entropy(
            z, y, COUNTS, num_examples=NUM_EXAMPLES, power=0.7
        ),
        "plm_sigmoid": masked(),
        "plm_softmax": masked(base="softmax"),
    }
    if y.ndim == 1:
        out["seesaw"] = losses.seesaw_loss(z, y, COUNTS, mitigation=0.8, compensation=2.0)
    focal = {
        "softmax_focal": partial(losses.softmax_focal_loss, z, y),
        "sigmoid_focal": partial(losses.sigmoid_focal_loss, z, y),
        "cb_focal": partial(losses.class_balanced_focal_loss, z, y, COUNTS, beta=BETA),
    }
    for name, loss in focal.items():
        out[name] = jax.vmap(lambda gamma, loss=loss: loss(gamma=gamma))(jnp.array(GAMMAS))
    return out


@pytest.mark.parametrize("kind", ["integers", "multi-hot", "soft"])
def test_losses_against_the_second_implementation(kind, x64):
    z, y = random_inputs(kind)
    targets = reference.one_hot(y, 5)
    f = np.tanh(z / 4)
    cloud = np.asarray(margins.draw_cloud(KEY, z.shape, jnp.float64))
    uniform = np.asarray(jax.random.uniform(KEY, z.shape))
    keep = uniform < reference.keep_probabilities(targets >= 0.5, RATIO, IDEAL)
    drop = uniform < DROP
    r = reference
    expected = {
        "softmax": r.softmax_cross_entropy(z, y),
        "sigmoid": r.sigmoid_cross_entropy(z, y),
        "cb_softmax": r.class_balanced_softmax(z, y, COUNTS, BETA),
        "cb_sigmoid": r.class_balanced_focal(z, y, COUNTS, BETA, 0.0),
        "gcl": r.gaussian_clouded(f, y, COUNTS, cloud, **CLOUD),
        "gcl_angular": r.gaussian_clouded(f, y, COUNTS, cloud, **CLOUD, angular=True),
        "ldam": r.ldam(f, y, COUNTS, 0.4, 6.0),
        "logit_adjusted": r.logit_adjusted(z, y, COUNTS, 0.7),
        "balanced_softmax": r.logit_adjusted(z, y, COUNTS, 1.0),
        "eql_softmax": r.equalization(z, y, COUNTS, drop, 0.1, "softmax"),
        "eql_sigmoid": r.equalization(z, y, COUNTS, drop, 0.1, "sigmoid"),
        "asymmetric": r.asymmetric(z, y, 0.5, 3.0, 0.1),
        "distribution_balanced": r.distribution_balanced(
            z, y, COUNTS, NUM_EXAMPLES, **REBALANCE, scale=3.0
        ),
        "weighted_sigmoid": r.weighted_sigmoid(z, y, COUNTS, NUM_EXAMPLES, 0.7),
        "plm_sigmoid": r.masked_sigmoid(z, targets, keep),
        "plm_softmax": r.masked_softmax(z, targets, keep),
        "softmax_focal": [r.softmax_focal(z, y, gamma) for gamma in GAMMAS],
        "sigmoid_focal": [r.sigmoid_focal(z, y, gamma) for gamma in GAMMAS],
        "cb_focal": [r.class_balanced_focal(z, y, COUNTS, BETA, gamma) for gamma in GAMMAS],
    }
    if kind == "integers":
        expected["seesaw"] = r.seesaw(z, y, COUNTS, 0.8, 2.0)
    actual = own_values(z, f, y)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_losses_against_optax():
    logits, labels = (jnp.asarray(x) for x in random_inputs("integers"))
    multi_hot = jnp.asarray(random_inputs("multi-hot")[1])

    @jax.jit
    def compute(z, y, t):
        pairs = {
            "softmax": (
                losses.softmax_cross_entropy(z, y),
                optax.softmax_cross_entropy_with_integer_labels(z, y),
            ),
            "sigmoid": (
                losses.sigmoid_cross_entropy(z, t),
                optax.sigmoid_binary_cross_entropy(z, t).sum(-1),
            ),
        }
        for gamma in GAMMAS:
            pairs[f"focal {gamma}"] = (
                losses.sigmoid_focal_loss(z, t, gamma=gamma),
                optax.sigmoid_focal_loss(z, t, gamma=gamma).sum(-1),
            )
        return pairs

    for name, (own, theirs) in compute(logits, labels, multi_hot).items():
        np.testing.assert_allclose(own, theirs, rtol=1e-5, err_msg=name)


def test_seesaw_factors_carry_no_gradient(x64):
    """The gradient is that of the cross-entropy of the adjusted logits, softmax minus target."""
    logits, labels = random_inputs("integers")
    targets = reference.one_hot(labels, 5)
    adjusted = jax.jit(seesaw_logits)(logits, targets, np.log(COUNTS))
    gradient = jax.jit(jax.grad(lambda z: losses.seesaw_loss(z, labels, COUNTS).sum()))(logits)
    expected = np.array([reference.softmax(np.asarray(z)) for z in adjusted]) - targets
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)
