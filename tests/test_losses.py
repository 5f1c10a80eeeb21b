"""The losses: reference values, a second implementation, optax, limits, padding, error sentences.

Many losses share one compiled function here: compiling is what takes time, not computing.
"""

import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from compiling import optimised_jit

from lt_jax import longtail, losses
from lt_jax.errors import InputError
from lt_jax.losses import margins, partial_label, reweighted
from lt_jax.losses.priors import seesaw_logits

ROOT = Path(__file__).parents[1]
COUNTS = np.array([500, 120, 60, 20, 4])
KEY = jax.random.key(7)
GAMMAS = (0.0, 0.5, 1.0, 2.0)
RATIO = np.array([2.0, 0.3, 0.2, 0.05, np.nan])
IDEAL = np.array([1.0, 0.6, 0.2, 0.02, 1.0])


def losses_of(counts=COUNTS):
    """Every public loss, in every form that has its own code, as ``(logits, labels, where=)``."""
    counted = {"class_counts": counts}
    masked = {"ratio": RATIO[: len(counts)], "ideal_ratio": IDEAL[: len(counts)], "key": KEY}
    gcl = {**counted, "key": KEY, "margin": 0.1}
    forms = {
        "softmax_cross_entropy": {},
        "sigmoid_cross_entropy": {},
        "softmax_focal_loss": {},
        "softmax_focal_loss constant": {"differentiate_modulator": False},
        "sigmoid_focal_loss": {},
        "asymmetric_loss": {},
        "asymmetric_loss unclipped": {"clip": 0.0},
        "partial_label_masked_cross_entropy": masked,
        "partial_label_masked_cross_entropy softmax": {**masked, "base": "softmax"},
        "class_balanced_softmax_cross_entropy": counted,
        "class_balanced_sigmoid_cross_entropy": counted,
        "class_balanced_focal_loss": counted,
        "gaussian_clouded_cross_entropy": gcl,
        "gaussian_clouded_cross_entropy angular": {**gcl, "angular": True},
        "ldam_loss": counted,
        "logit_adjusted_cross_entropy": {**counted, "tau": 1.5},
        "balanced_softmax_cross_entropy": counted,
        "seesaw_loss": counted,
        "equalization_loss": {**counted, "key": KEY},
        "equalization_loss sigmoid": {**counted, "key": KEY, "base": "sigmoid"},
        "distribution_balanced_loss": counted,
        "weighted_sigmoid_cross_entropy": counted,
    }
    return {k: partial(getattr(losses, k.split()[0]), **options) for k, options in forms.items()}


LOSSES = losses_of()


def value_and_gradient(function, logits):
    """``(loss [B], gradient [B, C])``; rows are independent, so the gradient of one sum is all."""

    def summed(z):
        loss = function(z)
        return loss.sum(), loss

    gradient, loss = jax.grad(summed, has_aux=True)(logits)
    return loss, gradient


def test_every_public_loss_is_tested_here():
    covered = {name.split()[0] for name in LOSSES}
    assert covered == set(losses.__all__) - {"label_ratio"}


# Reference values


GOLDEN_LOSSES = {
    "class_balanced_softmax": losses.class_balanced_softmax_cross_entropy,
    "class_balanced_sigmoid": losses.class_balanced_sigmoid_cross_entropy,
    "class_balanced_focal": losses.class_balanced_focal_loss,
    "softmax_focal": losses.softmax_focal_loss,
    "ldam": losses.ldam_loss,
    "logit_adjusted": losses.logit_adjusted_cross_entropy,
    "gaussian_clouded": None,
}


def golden_clouded(case):
    """GCL with the noise that the case gives instead of one drawn by a key."""
    sizes, noise = longtail.cloud_sizes(case["class_counts"]), np.array(case["cloud_noise"])

    def loss(z, labels, **options):
        targets = jax.nn.one_hot(labels, z.shape[1], dtype=z.dtype)
        constants = jnp.asarray(sizes, z.dtype), jnp.asarray(noise, z.dtype)
        clouded = margins.clouded_logits(z, targets, *constants, **options)
        return losses.softmax_cross_entropy(clouded, labels)

    return loss


def check_golden(case, rtol, gradient_rtol, gradient_floor):
    counts, labels = {"class_counts": case["class_counts"]}, jnp.array(case["labels"])
    entries = {k: v if isinstance(v := case[k], list) else [v] for k in GOLDEN_LOSSES}
    static = {
        "class_balanced_softmax": {**counts, "beta": 0.9999},
        "class_balanced_sigmoid": {**counts, "beta": 0.999},
        "class_balanced_focal": {**counts, "beta": 0.9999},
        "ldam": {**counts, "max_margin": 0.5, "scale": 30},
        "logit_adjusted": {**counts, "tau": 1.0},
    }
    varied = {
        "class_balanced_focal": ["gamma"],
        "softmax_focal": ["gamma"],
        "gaussian_clouded": ["noise", "margin", "scale"],
    }

    # What is compared in float32 is compiled as users have it.
    @(jax.jit if rtol < 1e-6 else optimised_jit)
    def compute(logits, cosines):
        def values(name):
            """Loss and gradient for each entry of the case, stacked."""
            loss = GOLDEN_LOSSES[name] or golden_clouded(case)
            loss = partial(loss, labels=labels, **static.get(name, {}))
            z = cosines if name in ("ldam", "gaussian_clouded") else logits
            options = {k: jnp.array([e[k] for e in entries[name]]) for k in varied.get(name, ())}
            return jax.vmap(
                lambda o: value_and_gradient(partial(loss, **o), z), axis_size=len(entries[name])
            )(options)

        return {name: values(name) for name in entries}

    actual = compute(jnp.array(case["logits"]), jnp.array(case["cosine"]))
    for name, expected in entries.items():
        for fixed, value in static.get(name, counts).items():
            assert all(e.get(fixed, value) == value for e in expected)
        np.testing.assert_allclose(
            actual[name][0], [e["loss"] for e in expected], rtol=rtol, err_msg=name
        )
        if "grad" in expected[0]:
            gradients = np.array([e["grad"] for e in expected])
            floor = gradient_floor * np.maximum(1.0, np.abs(gradients).max())
            np.testing.assert_allclose(
                actual[name][1], gradients, rtol=gradient_rtol, atol=floor, err_msg=name
            )


# The given gradients are central differences: the rounding of losses of up to 70, divided by the
# step, leaves an absolute error of up to 2.5e-8 on every entry, however small the entry.
DIFFERENCES = 5e-8


def test_golden_losses_and_gradients_in_float32(golden):
    # In float32 an entry such as p - 1 is rounded relative to 1, not to itself.
    check_golden(golden, 1e-5, 1e-5, DIFFERENCES + 4 * np.finfo(np.float32).eps)


def test_golden_losses_and_gradients_in_float64(golden, x64):
    check_golden(golden, 1e-9, 1e-6, DIFFERENCES)


def check_golden_clouds(case, rtol):
    targets = jax.nn.one_hot(jnp.array(case["labels"]), len(case["class_counts"]))
    sizes = jnp.array(longtail.cloud_sizes(case["class_counts"]))
    for expected in case["gaussian_clouded"]:
        options = {k: expected[k] for k in ("noise", "margin", "scale")}
        actual = margins.clouded_logits(
            jnp.array(case["cosine"]), targets, sizes, jnp.array(case["cloud_noise"]), **options
        )
        # A logit near 0 is a difference of cosines, each rounded relative to 1, times the scale.
        np.testing.assert_allclose(
            actual, expected["logits"], rtol=rtol, atol=expected["scale"] * rtol / 10
        )


def test_golden_clouded_logits(golden):
    check_golden_clouds(golden, 1e-5)
    with jax.enable_x64(True):
        check_golden_clouds(golden, 1e-9)


def check_golden_partial_labels(plm, rtol):
    @(jax.jit if rtol < 1e-6 else optimised_jit)
    def compute(labels, ratio, ideal, probabilities, targets, positives, negatives):
        return (
            partial_label.keep_probabilities(labels, ratio, ideal),
            partial_label.probability_histograms(probabilities, targets),
            partial_label.histogram_divergence(positives, positives=True),
            partial_label.histogram_divergence(negatives, positives=False),
            partial_label.updated_ideal_ratio(ideal, ratio, positives, negatives, rate=plm["rate"]),
        )

    histograms = [np.array(plm[k]).astype(np.int32) for k in ("hist_pos", "hist_neg")]
    vectors = [jnp.array(plm[k]) for k in ("labels", "ratio", "ideal_ratio", "probs", "targets")]
    keep, counted, positive, negative, updated = compute(*vectors, *histograms)
    np.testing.assert_allclose(keep, plm["keep_probability"], rtol=rtol)
    np.testing.assert_array_equal(counted[0], histograms[0])
    np.testing.assert_array_equal(counted[1], histograms[1])
    np.testing.assert_allclose(positive, plm["divergence_pos"], rtol=rtol)
    np.testing.assert_allclose(negative, plm["divergence_neg"], rtol=rtol)
    np.testing.assert_allclose(updated, plm["updated_ideal_ratio"], rtol=rtol)


def test_golden_partial_label_masking(golden):
    check_golden_partial_labels(golden["plm"], 1e-5)
    with jax.enable_x64(True):
        check_golden_partial_labels(golden["plm"], 1e-9)


# The second implementation


@cache
def random_inputs(kind):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(12, 5)) * 3
    labels = {
        "integers": rng.integers(5, size=12),
        "multi-hot": (rng.random((12, 5)) < 0.4).astype(np.float64),
        "soft": rng.dirichlet(np.ones(5), 12),
    }[kind]
    if kind == "multi-hot":
        labels[0], labels[1] = 0.0, 1.0  # no label at all, every label
    return logits, labels


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
    keep = uniform < reference.keep_probabilities(np.ceil(targets), RATIO, IDEAL)
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


# Large logits and padding


def extreme_batch(kind):
    """Every combination of -1e4, 0 and 1e4 for three classes, and padding rows of inf and NaN."""
    grid = np.array(np.meshgrid(*[[-1e4, 0.0, 1e4]] * 3)).reshape(3, -1).T
    if kind == "integers":
        logits, labels = np.repeat(grid, 3, 0), np.tile(np.arange(3), len(grid))
        junk_labels = np.array([0, 2, -1])
    else:
        multi_hot = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T
        logits, labels = np.repeat(grid, 8, 0), np.tile(multi_hot, (len(grid), 1))
        junk_labels = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [np.nan, np.inf, 1.0]])
    junk = np.array([[np.nan, 0, 1], [np.inf, -np.inf, np.nan], [np.inf, np.inf, np.inf]])
    where = np.arange(len(logits) + 3) < len(logits)
    return np.concatenate([logits, junk]), np.concatenate([labels, junk_labels]), where


# Where the margins' scale of 30 makes 3e5 of 1e4, float32 is spaced by 1 / 32, and a loss that is 0
# may come out below it by that much.
SPACING = {k: np.float32(1 / 32) for k in LOSSES if "class_counts" in LOSSES[k].keywords}


@cache
def compiled_on_three_classes(names, dtype):
    """Loss and gradient of those losses; a loss with a gamma at each of them, ``[4, B, ...]``."""
    functions = losses_of(COUNTS[:3])

    @(optimised_jit if dtype == jnp.float32 else jax.jit)
    def compute(logits, labels, where):
        def both(name):
            loss = partial(functions[name], labels=labels, where=where)
            if name.startswith("asymmetric"):
                options = [{"gamma_positive": g, "gamma_negative": 2 * g} for g in GAMMAS]
            elif "focal" in name:
                options = [{"gamma": g} for g in GAMMAS]
            else:
                return value_and_gradient(loss, logits)
            stacked = jax.tree.map(lambda *x: jnp.array(x, jnp.float32), *options)
            return jax.vmap(lambda o: value_and_gradient(partial(loss, **o), logits))(stacked)

        return {name: both(name) for name in names}

    return compute


# Integers become one-hot targets, which are among the multi-hot ones; only these tell them apart.
OF_INTEGERS = tuple(k for k in LOSSES if k.startswith("class_balanced"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["integers", "multi-hot"])
def test_large_logits_and_padding(kind, dtype):
    logits, labels, where = extreme_batch(kind)
    names = OF_INTEGERS if kind == "integers" else tuple(LOSSES)
    compute = compiled_on_three_classes(names, dtype)
    for name, pair in compute(jnp.asarray(logits, dtype), labels, where).items():
        assert pair[0].dtype == jnp.float32, name
        assert pair[1].dtype == dtype, name
        loss, gradient = np.asarray(pair[0]), np.asarray(pair[1], np.float32)
        assert np.isfinite(loss[..., where]).all(), name
        assert np.isfinite(gradient[..., where, :]).all(), name
        assert (loss >= -SPACING.get(name, 0)).all(), name
        assert (loss[..., ~where] == 0).all(), name
        assert (gradient[..., ~where, :] == 0).all(), name


def test_padding_changes_nothing_else():
    """Real rows have the loss and gradient of a batch whose padding is harmless."""
    logits, labels, where = extreme_batch("multi-hot")
    logits = np.where(where[:, None], np.clip(logits, -3, 3), logits).astype(np.float32)
    harmless = np.where(where[:, None], logits, 0.0)
    tame_labels = np.where(where[:, None], labels, 0.0)
    compute = compiled_on_three_classes(tuple(LOSSES), jnp.float32)
    actual = compute(logits, labels, where)
    expected = compute(harmless, tame_labels, np.ones_like(where))
    for name, (loss, gradient) in actual.items():
        np.testing.assert_array_equal(loss[..., where], expected[name][0][..., where], err_msg=name)
        np.testing.assert_array_equal(
            gradient[..., where, :], expected[name][1][..., where, :], err_msg=name
        )


def test_saturated_focal_keeps_the_right_slope(x64):
    """A wrong label at logit -1e4 costs 1e4 at slope -1, whatever gamma; a right one nothing."""
    logits, labels = jnp.array([[-1e4, 1e4], [1e4, -1e4]]), jnp.array([0, 0])

    @jax.jit
    @jax.vmap
    def compute(gamma):
        return [
            value_and_gradient(lambda z, loss=loss: loss(z, labels, gamma=gamma), logits)
            for loss in (losses.softmax_focal_loss, losses.sigmoid_focal_loss)
        ]

    for value, gradient in compute(jnp.array(GAMMAS)):
        # Softmax: the difference of the logits; sigmoid: 1e4 for each of two classes.
        np.testing.assert_allclose(value, [[2e4, 0.0]] * len(GAMMAS), rtol=1e-12)
        np.testing.assert_allclose(gradient, [[[-1.0, 1.0], [0.0, 0.0]]] * len(GAMMAS), atol=1e-12)


# Identities


def identities():
    """Pairs of calls ``(logits, labels) -> loss`` that must agree to the last bit."""
    balanced = [7] * 5
    ce, bce = losses.softmax_cross_entropy, losses.sigmoid_cross_entropy
    plm = partial(losses.partial_label_masked_cross_entropy, key=KEY)
    bias = jnp.zeros(5)

    def scaled(z, y):
        return ce(30.0 * z, y)

    return {
        "CB softmax, beta 0": (
            partial(losses.class_balanced_softmax_cross_entropy, class_counts=COUNTS, beta=0.0),
            ce,
        ),
        "CB sigmoid, beta 0": (
            partial(losses.class_balanced_sigmoid_cross_entropy, class_counts=COUNTS, beta=0.0),
            bce,
        ),
        "CB focal, beta 0": (
            partial(losses.class_balanced_focal_loss, class_counts=COUNTS, beta=0.0, gamma=2.0),
            partial(losses.sigmoid_focal_loss, gamma=2.0),
        ),
        "CB focal, gamma 0": (
            partial(losses.class_balanced_focal_loss, class_counts=COUNTS, gamma=0.0),
            partial(losses.class_balanced_sigmoid_cross_entropy, class_counts=COUNTS),
        ),
        "CB softmax, balanced": (
            partial(losses.class_balanced_softmax_cross_entropy, class_counts=balanced),
            ce,
        ),
        "softmax focal, gamma 0": (partial(losses.softmax_focal_loss, gamma=0.0), ce),
        "sigmoid focal, gamma 0": (partial(losses.sigmoid_focal_loss, gamma=0.0), bce),
        "GCL, balanced": (
            partial(losses.gaussian_clouded_cross_entropy, class_counts=balanced, key=KEY),
            scaled,
        ),
        "GCL angular, balanced": (
            partial(
                losses.gaussian_clouded_cross_entropy, class_counts=balanced, key=KEY, angular=True
            ),
            scaled,
        ),
        "GCL, noise 0": (
            partial(losses.gaussian_clouded_cross_entropy, class_counts=COUNTS, key=KEY, noise=0.0),
            scaled,
        ),
        "LDAM, margin 0": (
            partial(losses.ldam_loss, class_counts=COUNTS, max_margin=0.0),
            scaled,
        ),
        "logit adjustment, tau 0": (
            partial(losses.logit_adjusted_cross_entropy, class_counts=COUNTS, tau=0.0),
            ce,
        ),
        "balanced softmax is logit adjustment at tau 1": (
            partial(losses.balanced_softmax_cross_entropy, class_counts=COUNTS),
            partial(losses.logit_adjusted_cross_entropy, class_counts=COUNTS, tau=1.0),
        ),
        "seesaw, balanced, q 0": (
            partial(losses.seesaw_loss, class_counts=balanced, compensation=0.0),
            ce,
        ),
        "seesaw, p 0, q 0": (
            partial(losses.seesaw_loss, class_counts=COUNTS, mitigation=0.0, compensation=0.0),
            ce,
        ),
        "EQL, nothing dropped": (
            partial(losses.equalization_loss, class_counts=COUNTS, key=KEY, probability=0.0),
            ce,
        ),
        "EQL, nothing rare": (
            partial(losses.equalization_loss, class_counts=COUNTS, key=KEY, threshold=0.0),
            ce,
        ),
        "ASL, zeros": (
            partial(losses.asymmetric_loss, gamma_positive=0.0, gamma_negative=0.0, clip=0.0),
            bce,
        ),
        "negative-tolerant, bias 0, lambda 1": (
            partial(reweighted.negative_tolerant_cross_entropy, bias=bias, negative_scale=1.0),
            bce,
        ),
        "weighted sigmoid, power 0": (
            partial(losses.weighted_sigmoid_cross_entropy, class_counts=COUNTS, power=0.0),
            bce,
        ),
        "weighted sigmoid, half of the examples positive": (
            partial(losses.weighted_sigmoid_cross_entropy, class_counts=balanced, num_examples=14),
            bce,
        ),
        "PLM sigmoid, ideal = real": (partial(plm, ratio=RATIO, ideal_ratio=RATIO), bce),
        "PLM softmax, ideal = real": (
            partial(plm, ratio=RATIO, ideal_ratio=RATIO, base="softmax"),
            ce,
        ),
    }


def test_identities_hold_to_the_last_bit():
    logits, labels = random_inputs("integers")
    cosines = jnp.asarray(np.tanh(logits), jnp.float32)
    for name, (one, other) in identities().items():
        np.testing.assert_array_equal(one(cosines, labels), other(cosines, labels), err_msg=name)


def test_balanced_priors_only_shift_the_logits():
    logits, labels = (jnp.asarray(x) for x in random_inputs("integers"))
    adjusted = losses.balanced_softmax_cross_entropy(logits, labels, [7] * 5)
    np.testing.assert_allclose(
        adjusted, losses.softmax_cross_entropy(logits, labels), rtol=2e-6, atol=1e-6
    )


# Gaussian clouds


def test_cloud_is_a_clipped_normal_of_one_third():
    cloud = np.asarray(jax.jit(partial(margins.draw_cloud, shape=(400, 500)))(KEY))
    assert np.abs(cloud).max() == 1.0
    # 2e5 draws: the mean and the standard deviation err by less than 5 of their own deviations.
    assert abs(cloud.mean()) < 5 / 3 / np.sqrt(cloud.size)
    unclipped = 1 / 3
    assert abs(cloud.std() - unclipped) < 1e-3 + 5 * unclipped / np.sqrt(2 * cloud.size)
    # Three standard deviations away: 0.27 % of the draws sit on the bounds.
    assert abs((np.abs(cloud) == 1).mean() - 0.0027) < 5 * np.sqrt(0.0027 / cloud.size)


def test_cloud_never_helps_a_class_and_stops_at_pi():
    f = jnp.linspace(-1.0, 1.0, 41)[:, None]
    clouded = jax.jit(
        jax.vmap(
            lambda size: margins.angular_clouded_logits(
                f, jnp.zeros_like(f), size[None], jnp.ones_like(f), noise=1.0, scale=1.0
            )[:, 0]
        )
    )
    for z in np.asarray(clouded(jnp.array([0.0, 0.3, 2.0, 5.0]))):
        assert (z <= np.asarray(f[:, 0]) + 1e-6).all()
        assert (np.diff(z) >= -1e-6).all()
        assert z.min() >= -1.0 - 1e-6


# Facts of partial label masking

UPDATE = jax.jit(partial_label.updated_ideal_ratio)


def test_log_updates_sum_to_zero():
    rng = np.random.default_rng(0)
    histograms = rng.integers(0, 40, size=(2, 9, 10)).astype(np.int32)
    histograms[0, 3] = 0  # never seen present
    histograms[1, 4] = 0  # never seen absent
    ratio = np.where(np.arange(9) == 5, np.nan, rng.random(9) + 0.1).astype(np.float32)
    start = np.nan_to_num(ratio, nan=1.0)
    updated = np.asarray(UPDATE(start, ratio, *map(jnp.asarray, histograms), rate=0.2))
    moved = np.log(updated / start)
    assert abs(moved.sum()) < 1e-5
    assert (moved[3:6] == 0).all()
    assert (np.delete(moved, [3, 4, 5]) != 0).all()
    np.testing.assert_allclose(
        updated, reference.updated_ideal_ratio(start, ratio, *histograms, 0.2), rtol=1e-5
    )


def test_missed_positives_raise_the_ideal_ratio():
    seen, missed = np.zeros((2, 10), np.int32), np.zeros((2, 10), np.int32)
    seen[:, 9], missed[:, 0] = 50, 50
    positives = jnp.asarray(np.stack([seen[0], missed[0]]))  # class 1 is missed
    negatives = jnp.asarray(np.stack([missed[0], missed[0]]))
    ratio = jnp.array([0.5, 0.5])
    updated = UPDATE(ratio, ratio, positives, negatives, rate=0.1)
    np.testing.assert_allclose(updated, 0.5 * np.exp([-0.1, 0.1]), rtol=1e-6)


@pytest.mark.parametrize("classes", [3, 10, 20])
def test_classes_that_do_alike_do_not_move(classes):
    """Every prediction in one bin, as early in training: no class differs, nothing changes."""
    ratio = np.full(classes, 0.1, np.float32)
    counts = np.arange(1, classes + 1)
    for b in (0, 3, 9):
        histogram = np.zeros((classes, 10), np.int32)
        histogram[:, b] = counts
        updated = UPDATE(ratio, ratio, histogram, histogram, rate=0.5)
        np.testing.assert_array_equal(updated, ratio)


def test_ideal_ratio_is_bounded():
    ratio = jnp.array([0.5, 0.25])
    histogram = jnp.asarray(np.eye(10, dtype=np.int32)[[9, 0]])
    negatives = jnp.asarray(np.eye(10, dtype=np.int32)[[0, 0]])
    updated = UPDATE(ratio, ratio, histogram, negatives, rate=50.0, bound=4.0)
    np.testing.assert_allclose(updated, [0.125, 1.0], rtol=1e-6)


def test_nothing_seen_changes_nothing():
    ratio, empty = jnp.array([0.5, 0.25]), jnp.zeros((2, 10), jnp.int32)
    updated = UPDATE(ratio, ratio, empty, empty, rate=1.0)
    np.testing.assert_array_equal(updated, ratio)
    assert (partial_label.histogram_divergence(empty, positives=True) == 0).all()


def test_kept_labels_have_the_ideal_ratio_in_expectation():
    """Counted through the loss itself, which at logit 0 is log 2 for each kept entry."""
    n = 200_000
    ideals = np.array([0.02, 0.25, 0.6, 3.0])
    positives = n // 5
    labels = (jnp.arange(n) < positives)[:, None].astype(jnp.float32)
    ratio = positives / (n - positives)

    @jax.jit
    @jax.vmap
    def kept(key, ideal):
        loss = losses.partial_label_masked_cross_entropy(
            jnp.zeros((n, 1)), labels, jnp.array([ratio]), ideal[None], key=key
        )
        return jnp.round(loss / np.log(2)).astype(jnp.int32)

    counted = np.asarray(kept(jax.random.split(KEY, len(ideals)), jnp.asarray(ideals)))
    for ideal, row in zip(ideals, counted, strict=True):
        p, q = row[:positives].sum(), row[positives:].sum()
        # One of the two is not masked; the other is binomial with at least 3,000 expected. Bound: 5
        # standard deviations of its relative error, at most 1 / sqrt(expected).
        assert p / q == pytest.approx(ideal, rel=5 / np.sqrt(min(p, q)))
        assert p == positives or ideal < ratio
        assert q == n - positives or ideal > ratio


def masked_surely(base, labels, ideal):
    """Loss and gradient at logits (2, 1, 0.5) with all ratios 1.

    An ideal of 1e-30 drops every positive of its class, one of 1e30 every negative.
    """
    loss = jax.jit(
        lambda z: value_and_gradient(
            lambda z: losses.partial_label_masked_cross_entropy(
                z, labels, np.ones(3), np.array(ideal), key=KEY, base=base
            ),
            z,
        )
    )
    return map(np.asarray, loss(np.array([[2.0, 1.0, 0.5]], np.float32)))


def test_softmax_base_drops_terms_and_competitors():
    loss, gradient = masked_surely("softmax", np.array([0]), [1e-30, 1.0, 1.0])
    assert loss == 0
    assert (gradient == 0).all()
    loss, gradient = masked_surely("softmax", np.array([0]), [1.0, 1e30, 1.0])
    np.testing.assert_allclose(loss, np.log1p(np.exp(0.5 - 2.0)), rtol=1e-6)
    p = 1 / (1 + np.exp(1.5))
    np.testing.assert_allclose(gradient, [[-p, 0.0, p]], rtol=1e-5)


def test_sigmoid_base_drops_entries_alone():
    loss, gradient = masked_surely("sigmoid", np.array([[1, 0, 0]]), [1e-30, 1e30, 1.0])
    np.testing.assert_allclose(loss, np.log1p(np.exp(0.5)), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.0, 0.0, reference.sigmoid(0.5)]], rtol=1e-6)


def test_classes_without_positives_or_negatives_are_never_masked():
    ratio = losses.label_ratio([0, 10, 4], num_examples=10)
    np.testing.assert_array_equal(np.isnan(ratio), [True, True, False])
    keep = partial_label.keep_probabilities(
        jnp.array([[0.0, 1.0, 1.0]]), jnp.asarray(ratio), jnp.array([9.0, 1e-9, 1.0])
    )
    np.testing.assert_array_equal(keep[0], 1.0)


def test_label_ratios():
    counts = [50, 20, 5]
    np.testing.assert_allclose(losses.label_ratio(counts), [2.0, 20 / 55, 5 / 70])
    np.testing.assert_allclose(losses.label_ratio(counts, 200), [50 / 150, 20 / 180, 5 / 195])
    np.testing.assert_allclose(losses.label_ratio(counts, 200, "share"), [0.25, 0.1, 0.025])


def test_histograms_leave_padding_out_and_hold_the_ends():
    probabilities = jnp.array([[0.0, 1.0], [0.05, 0.95], [0.5, 0.5]])
    targets = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    where = jnp.array([True, True, False])
    positives, negatives = jax.jit(partial_label.probability_histograms)(
        probabilities, targets, where=where
    )
    assert positives.dtype == jnp.int32
    assert np.argwhere(positives).tolist() == [[0, 0], [1, 9]]
    assert np.argwhere(negatives).tolist() == [[0, 0], [1, 9]]


# Error sentences


def call(name, logits, labels):
    # Traced, not computed: nothing is compiled for a call that is to fail.
    return jax.eval_shape(LOSSES[name], logits, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_bad_shapes_and_types_are_refused(name):
    z, y = np.zeros((2, 5), np.float32), np.array([0, 1])
    for logits, labels, sentence in (
        (z, y.astype(np.float32), r"labels of shape \(2,\) have dtype float32; expected integers"),
        (z, y > 0, r"labels of shape \(2,\) have dtype bool; expected integers"),
        (z, np.array([0, 1, 2]), "there are 3 labels for 2 rows of logits"),
        (z, np.zeros((2, 4)), r"labels have shape \(2, 4\); expected \[B\] or that of the logits"),
        (z, np.array(1), r"labels have shape \(\); expected \[B\]"),
        (z[0], y, r"logits have shape \(5,\); expected \[batch, classes\]"),
        (z.astype(np.int32), y, "logits have dtype int32; expected a floating type"),
    ):
        with pytest.raises(InputError, match=sentence):
            call(name, logits, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_counts_of_another_length_are_refused(name):
    if "class_counts" in LOSSES[name].keywords:
        with pytest.raises(InputError, match=r"class_counts are 5, but the logits have 4 classes"):
            call(name, np.zeros((2, 4), np.float32), np.array([0, 1]))
    elif name.startswith("partial_label"):
        with pytest.raises(InputError, match="need one value for each of 4 classes"):
            call(name, np.zeros((2, 4), np.float32), np.array([0, 1]))


def test_numbers_outside_their_range_are_refused():
    z, y = jnp.zeros((2, 5)), jnp.array([0, 1])
    gcl = partial(losses.gaussian_clouded_cross_entropy, z, y, COUNTS, key=KEY)
    asl = partial(losses.asymmetric_loss, z, y)
    eql = partial(losses.equalization_loss, z, y, COUNTS, key=KEY)
    db = partial(losses.distribution_balanced_loss, z, y, COUNTS)
    for sentence, refused in (
        (r"gamma is -1; expected a number in \[0, inf\)", (losses.softmax_focal_loss, -1)),
        (r"gamma is nan; expected a number in \[0, inf\)", (losses.sigmoid_focal_loss, np.nan)),
        (r"gamma is 'one'; expected a number", (losses.sigmoid_focal_loss, "one")),
    ):
        loss, gamma = refused
        with pytest.raises(InputError, match=sentence):
            jax.eval_shape(partial(loss, gamma=gamma), z, y)
    for sentence, refused in (
        (r"noise is -1; expected", partial(gcl, noise=-1)),
        (r"margin is -1; expected", partial(gcl, margin=-1)),
        (r"scale is 0; expected a number in \(0, inf\)", partial(gcl, scale=0)),
        (r"scale is 0; expected", partial(losses.ldam_loss, z, y, COUNTS, scale=0)),
        (r"max_margin is -1; expected", partial(losses.ldam_loss, z, y, COUNTS, max_margin=-1)),
        (
            r"tau is inf; expected a number in \(-inf, inf\)",
            partial(losses.logit_adjusted_cross_entropy, z, y, COUNTS, tau=np.inf),
        ),
        ("mitigation is -1", partial(losses.seesaw_loss, z, y, COUNTS, mitigation=-1)),
        ("compensation is -1", partial(losses.seesaw_loss, z, y, COUNTS, compensation=-1)),
        ("gamma_positive is -1", partial(asl, gamma_positive=-1)),
        ("gamma_negative is -1", partial(asl, gamma_negative=-1)),
        (r"clip is 1; expected a number in \[0, 1\)", partial(asl, clip=1)),
        (r"clip is -0.1; expected a number in \[0, 1\]", partial(asl, clip=-0.1)),
        (r"threshold is 2; expected a number in \[0, 1\]", partial(eql, threshold=2)),
        (r"probability is 2; expected a number in \[0, 1\]", partial(eql, probability=2)),
        ("base is 'tanh'; expected 'sigmoid' or 'softmax'", partial(eql, base="tanh")),
        (
            "base is 'tanh'; expected 'sigmoid' or 'softmax'",
            partial(
                losses.partial_label_masked_cross_entropy, z, y, RATIO, IDEAL, key=KEY, base="tanh"
            ),
        ),
        ("negative_scale is 0", partial(db, negative_scale=0)),
        ("kappa is -1", partial(db, kappa=-1)),
        (
            "num_examples is 499; expected at least the largest count 500",
            partial(db, num_examples=499),
        ),
        (
            "num_examples is 499; expected at least the largest count 500",
            partial(losses.weighted_sigmoid_cross_entropy, z, y, COUNTS, num_examples=499),
        ),
        (
            "power is inf; expected a finite number",
            partial(losses.weighted_sigmoid_cross_entropy, z, y, COUNTS, power=np.inf),
        ),
        (
            "num_examples is 499; expected at least the largest count 500",
            partial(losses.label_ratio, COUNTS, 499),
        ),
        ("ratio kind is 'log'", partial(losses.label_ratio, COUNTS, kind="log")),
        ("rate is -1", partial(partial_label.check_plm, -1, 100.0, 10, 1)),
        ("bound is 0.5", partial(partial_label.check_plm, 0.1, 0.5, 10, 1)),
        ("bins is 1; expected a whole number", partial(partial_label.check_plm, 0.1, 100, 1, 1)),
        ("update_every is 0", partial(partial_label.check_plm, 0.1, 100, 10, 0)),
        (
            r"class_counts\[4\] is 0; expected at least 1",
            partial(losses.balanced_softmax_cross_entropy, z, y, [5, 4, 3, 2, 0]),
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            jax.eval_shape(refused)


def modules_after(statement):
    code = f"import sys, {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(run.stdout.split())


def test_losses_need_jax_and_numpy_only():
    needed = modules_after("jax, jax.numpy, numpy, numpy.typing")
    assert modules_after("lt_jax.losses") - needed <= {"lt_jax"}
