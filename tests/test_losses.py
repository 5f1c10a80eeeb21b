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
    """Every public loss, in every form that has its own code, as ``(logits, labels, where)``."""
    ratio, ideal = RATIO[: len(counts)], IDEAL[: len(counts)]
    plain = {
        "softmax_cross_entropy": losses.softmax_cross_entropy,
        "sigmoid_cross_entropy": losses.sigmoid_cross_entropy,
    }
    for gamma in GAMMAS:
        plain |= {
            f"softmax_focal_loss {gamma}": partial(losses.softmax_focal_loss, gamma=gamma),
            f"sigmoid_focal_loss {gamma}": partial(losses.sigmoid_focal_loss, gamma=gamma),
            f"asymmetric_loss {gamma}": partial(
                losses.asymmetric_loss, gamma_positive=gamma, gamma_negative=2 * gamma, clip=0.05
            ),
        }
    plain["softmax_focal_loss constant"] = partial(
        losses.softmax_focal_loss, gamma=1.0, differentiate_modulator=False
    )
    plain["asymmetric_loss unclipped"] = partial(losses.asymmetric_loss, clip=0.0)
    for base in ("sigmoid", "softmax"):
        plain[f"partial_label_masked_cross_entropy {base}"] = partial(
            losses.partial_label_masked_cross_entropy,
            ratio=ratio,
            ideal_ratio=ideal,
            key=KEY,
            base=base,
        )
    by_class = {
        "class_balanced_softmax_cross_entropy": losses.class_balanced_softmax_cross_entropy,
        "class_balanced_sigmoid_cross_entropy": losses.class_balanced_sigmoid_cross_entropy,
        "gaussian_clouded_cross_entropy": partial(
            losses.gaussian_clouded_cross_entropy, key=KEY, margin=0.1
        ),
        "gaussian_clouded_cross_entropy angular": partial(
            losses.gaussian_clouded_cross_entropy, key=KEY, margin=0.1, angular=True
        ),
        "ldam_loss": losses.ldam_loss,
        "logit_adjusted_cross_entropy": partial(losses.logit_adjusted_cross_entropy, tau=1.5),
        "balanced_softmax_cross_entropy": losses.balanced_softmax_cross_entropy,
        "seesaw_loss": losses.seesaw_loss,
        "equalization_loss softmax": partial(losses.equalization_loss, key=KEY),
        "equalization_loss sigmoid": partial(losses.equalization_loss, key=KEY, base="sigmoid"),
        "distribution_balanced_loss": losses.distribution_balanced_loss,
    }
    for gamma in GAMMAS:
        by_class[f"class_balanced_focal_loss {gamma}"] = partial(
            losses.class_balanced_focal_loss, gamma=gamma
        )
    return plain | {k: partial(f, class_counts=counts) for k, f in by_class.items()}


LOSSES = losses_of()


def values_and_gradients(functions, logits, *args):
    """``{name: (loss [B], gradient [B, C])}``; rows are independent, so one sum is enough."""

    def both(function):
        def summed(z):
            loss = function(z, *args)
            return loss.sum(), loss

        gradient, loss = jax.grad(summed, has_aux=True)(logits)
        return loss, gradient

    return {name: both(f) for name, f in functions.items()}


def test_every_public_loss_is_tested_here():
    covered = {name.split()[0] for name in LOSSES}
    assert covered == set(losses.__all__) - {"label_ratio"}


# Reference values


def golden_losses(case):
    """The losses that a case has values of, by the name of the loss and its options."""
    counts, out = case["class_counts"], {}
    for name, function in (
        ("class_balanced_softmax", losses.class_balanced_softmax_cross_entropy),
        ("class_balanced_sigmoid", losses.class_balanced_sigmoid_cross_entropy),
        ("class_balanced_focal", losses.class_balanced_focal_loss),
        ("softmax_focal", losses.softmax_focal_loss),
        ("ldam", losses.ldam_loss),
        ("logit_adjusted", losses.logit_adjusted_cross_entropy),
    ):
        entries = case[name] if isinstance(case[name], list) else [case[name]]
        for expected in entries:
            options = {k: v for k, v in expected.items() if k not in ("loss", "grad")}
            if name != "softmax_focal":
                options["class_counts"] = counts
            out[f"{name} {options}"] = name, partial(function, **options), expected
    sizes, noise = longtail.cloud_sizes(counts), np.array(case["cloud_noise"])
    for expected in case["gaussian_clouded"]:
        options = {k: expected[k] for k in ("noise", "margin", "scale")}

        def clouded(z, labels, options=options):
            targets = jax.nn.one_hot(labels, z.shape[1], dtype=z.dtype)
            adjusted = margins.clouded_logits(
                z, targets, jnp.asarray(sizes, z.dtype), jnp.asarray(noise, z.dtype), **options
            )
            return losses.softmax_cross_entropy(adjusted, labels)

        out[f"gaussian_clouded {options}"] = "gaussian_clouded", clouded, expected
    return out


def check_golden(case, rtol):
    named = golden_losses(case)
    cosine = {k for k, (name, _, _) in named.items() if name in ("ldam", "gaussian_clouded")}
    labels = jnp.array(case["labels"])

    @jax.jit
    def compute(logits, cosines):
        plain = {k: f for k, (_, f, _) in named.items() if k not in cosine}
        on_cosines = {k: f for k, (_, f, _) in named.items() if k in cosine}
        return values_and_gradients(plain, logits, labels) | values_and_gradients(
            on_cosines, cosines, labels
        )

    actual = compute(jnp.array(case["logits"]), jnp.array(case["cosine"]))
    for k, (_, _, expected) in named.items():
        loss, gradient = actual[k]
        np.testing.assert_allclose(loss, expected["loss"], rtol=rtol, err_msg=k)
        if "grad" in expected:
            # The given gradients are central differences: their last digits are the rounding of
            # losses of up to 100 divided by the step, so entries near 0 need a floor, relative to
            # the largest of the row.
            given = np.array(expected["grad"])
            floor = np.abs(given).max(-1, keepdims=True)
            error = np.abs(gradient - given) / np.maximum(np.abs(given), GRADIENT_FLOOR * floor)
            assert error.max() < max(rtol, 1e-6), (k, error.max())


GRADIENT_FLOOR = 1e-2


def test_golden_losses_and_gradients_in_float32(golden):
    check_golden(golden, rtol=1e-5)


def test_golden_losses_and_gradients_in_float64(golden, x64):
    check_golden(golden, rtol=1e-9)


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
    @jax.jit
    def compute(labels, ratio, ideal, probabilities, targets, positives, negatives):
        return (
            partial_label.keep_probabilities(labels, ratio, ideal),
            partial_label.probability_histograms(probabilities, targets),
            partial_label.histogram_divergence(positives, positives=True),
            partial_label.histogram_divergence(negatives, positives=False),
            partial_label.updated_ideal_ratio(ideal, ratio, positives, negatives, rate=plm["rate"]),
        )

    histograms = [np.array(plm[k]).astype(np.int32) for k in ("hist_pos", "hist_neg")]
    vectors = [
        jnp.array(plm[k]) for k in ("labels", "ratio", "ideal_ratio", "probs", "targets")
    ]
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


@pytest.mark.parametrize("kind", ["integers", "multi-hot", "soft"])
def test_losses_against_the_second_implementation(kind, x64):
    logits, labels = random_inputs(kind)
    targets = reference.one_hot(labels, 5)
    cosines = np.tanh(logits / 4)
    counts, beta, n = COUNTS, 0.99, 1000
    cloud = np.asarray(margins.draw_cloud(KEY, logits.shape, jnp.float64))
    drop = np.asarray(jax.random.uniform(KEY, logits.shape)) < 0.7
    keep = np.asarray(jax.random.uniform(KEY, logits.shape)) < reference.keep_probabilities(
        np.ceil(targets), RATIO, IDEAL
    )
    masked = partial(losses.partial_label_masked_cross_entropy, key=KEY)
    eql = partial(losses.equalization_loss, key=KEY, probability=0.7, threshold=0.1)
    db = {"alpha": 0.2, "beta": 5.0, "mu": 0.3, "kappa": 0.1}
    gcl = {"noise": 0.7, "margin": 0.2, "scale": 5.0}

    @jax.jit
    def compute(z, f, y):
        out = {
            "softmax": losses.softmax_cross_entropy(z, y),
            "sigmoid": losses.sigmoid_cross_entropy(z, y),
            "cb_softmax": losses.class_balanced_softmax_cross_entropy(z, y, counts, beta=beta),
            "cb_sigmoid": losses.class_balanced_sigmoid_cross_entropy(z, y, counts, beta=beta),
            "gcl": losses.gaussian_clouded_cross_entropy(f, y, counts, key=KEY, **gcl),
            "gcl_angular": losses.gaussian_clouded_cross_entropy(
                f, y, counts, key=KEY, angular=True, **gcl
            ),
            "ldam": losses.ldam_loss(f, y, counts, max_margin=0.4, scale=6.0),
            "logit_adjusted": losses.logit_adjusted_cross_entropy(z, y, counts, tau=0.7),
            "balanced_softmax": losses.balanced_softmax_cross_entropy(z, y, counts),
            "eql_softmax": eql(z, y, counts),
            "eql_sigmoid": eql(z, y, counts, base="sigmoid"),
            "asymmetric": losses.asymmetric_loss(
                z, y, gamma_positive=0.5, gamma_negative=3.0, clip=0.1
            ),
            "distribution_balanced": losses.distribution_balanced_loss(
                z, y, counts, num_examples=n, negative_scale=3.0, **db
            ),
            "plm_sigmoid": masked(z, y, RATIO, IDEAL),
            "plm_softmax": masked(z, y, RATIO, IDEAL, base="softmax"),
        }
        for gamma in GAMMAS:
            out[f"softmax_focal {gamma}"] = losses.softmax_focal_loss(z, y, gamma=gamma)
            out[f"sigmoid_focal {gamma}"] = losses.sigmoid_focal_loss(z, y, gamma=gamma)
            out[f"cb_focal {gamma}"] = losses.class_balanced_focal_loss(
                z, y, counts, beta=beta, gamma=gamma
            )
        if kind == "integers":
            out["seesaw"] = losses.seesaw_loss(z, y, counts, mitigation=0.8, compensation=2.0)
        return out

    r = reference
    expected = {
        "softmax": r.softmax_cross_entropy(logits, labels),
        "sigmoid": r.sigmoid_cross_entropy(logits, labels),
        "cb_softmax": r.class_balanced_softmax(logits, labels, counts, beta),
        "cb_sigmoid": r.class_balanced_focal(logits, labels, counts, beta, 0.0),
        "gcl": r.gaussian_clouded(cosines, labels, counts, cloud, *gcl.values()),
        "gcl_angular": r.gaussian_clouded(
            cosines, labels, counts, cloud, *gcl.values(), angular=True
        ),
        "ldam": r.ldam(cosines, labels, counts, 0.4, 6.0),
        "logit_adjusted": r.logit_adjusted(logits, labels, counts, 0.7),
        "balanced_softmax": r.logit_adjusted(logits, labels, counts, 1.0),
        "eql_softmax": r.equalization(logits, labels, counts, drop, 0.1, "softmax"),
        "eql_sigmoid": r.equalization(logits, labels, counts, drop, 0.1, "sigmoid"),
        "asymmetric": r.asymmetric(logits, labels, 0.5, 3.0, 0.1),
        "distribution_balanced": r.distribution_balanced(
            logits, labels, counts, n, *db.values(), 3.0
        ),
        "plm_sigmoid": r.masked_sigmoid(logits, targets, keep),
        "plm_softmax": r.masked_softmax(logits, targets, keep),
    }
    for gamma in GAMMAS:
        expected[f"softmax_focal {gamma}"] = r.softmax_focal(logits, labels, gamma)
        expected[f"sigmoid_focal {gamma}"] = r.sigmoid_focal(logits, labels, gamma)
        expected[f"cb_focal {gamma}"] = r.class_balanced_focal(logits, labels, counts, beta, gamma)
    if kind == "integers":
        expected["seesaw"] = r.seesaw(logits, labels, counts, 0.8, 2.0)
    actual = compute(logits, cosines, labels)
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
    adjusted = seesaw_logits(logits, targets, np.log(COUNTS))
    gradient = jax.grad(lambda z: losses.seesaw_loss(z, labels, COUNTS).sum())(logits)
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


@cache
def compiled_on_three_classes():
    functions = losses_of(COUNTS[:3])
    return jax.jit(
        lambda logits, labels, where: values_and_gradients(
            {k: partial(f, where=where) for k, f in functions.items()}, logits, labels
        )
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["integers", "multi-hot"])
def test_large_logits_and_padding(kind, dtype):
    logits, labels, where = extreme_batch(kind)
    actual = compiled_on_three_classes()(jnp.asarray(logits, dtype), jnp.asarray(labels), where)
    for name, (loss, gradient) in actual.items():
        assert loss.dtype == jnp.float32, name
        assert gradient.dtype == dtype, name
        loss, gradient = np.asarray(loss), np.asarray(gradient, np.float32)
        assert np.isfinite(loss[where]).all(), (name, logits[:-3][~np.isfinite(loss[where])])
        assert np.isfinite(gradient[where]).all(), name
        assert (loss[where] >= 0).all(), name
        assert (loss[~where] == 0).all(), name
        assert (gradient[~where] == 0).all(), name


def test_padding_changes_nothing_else():
    """Real rows have the loss and gradient of a batch whose padding is harmless."""
    logits, labels, where = extreme_batch("integers")
    logits = np.where(where[:, None], np.clip(logits, -3, 3), logits)
    harmless = np.where(where[:, None], logits, 0.0)
    compute = compiled_on_three_classes()
    actual = compute(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), where)
    expected = compute(
        jnp.asarray(harmless, jnp.float32), jnp.asarray(labels), np.ones_like(where)
    )
    for name, pair in actual.items():
        for one, other in zip(pair, expected[name], strict=True):
            np.testing.assert_array_equal(one[where], other[where], err_msg=name)


def test_saturated_focal_keeps_the_right_slope(x64):
    """A wrong label at logit -1e4 costs 1e4 at slope -1, whatever gamma; a right one nothing."""
    logits, labels = jnp.array([[-1e4, 1e4], [1e4, -1e4]]), jnp.array([0, 0])
    for gamma in GAMMAS:
        for loss in (losses.softmax_focal_loss, losses.sigmoid_focal_loss):
            value, gradient = values_and_gradients({0: partial(loss, gamma=gamma)}, logits, labels)[
                0
            ]
            sure = 2e4  # softmax: the difference of the logits; sigmoid: 1e4 for each of two
            np.testing.assert_allclose(value, [sure, 0.0], rtol=1e-12)
            np.testing.assert_allclose(gradient, [[-1.0, 1.0], [0.0, 0.0]], atol=1e-12)


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
    cloud = np.asarray(margins.draw_cloud(KEY, (400, 500)))
    assert np.abs(cloud).max() == 1.0
    # 2e5 draws: the mean and the standard deviation err by less than 5 of their own deviations.
    assert abs(cloud.mean()) < 5 / 3 / np.sqrt(cloud.size)
    unclipped = 1 / 3
    assert abs(cloud.std() - unclipped) < 1e-3 + 5 * unclipped / np.sqrt(2 * cloud.size)
    # Three standard deviations away: 0.27 % of the draws sit on the bounds.
    assert abs((np.abs(cloud) == 1).mean() - 0.0027) < 5 * np.sqrt(0.0027 / cloud.size)


def test_cloud_never_helps_a_class_and_stops_at_pi():
    f = jnp.linspace(-1.0, 1.0, 41)[:, None]
    for size in (0.0, 0.3, 2.0, 5.0):
        z = margins.angular_clouded_logits(
            f, jnp.zeros_like(f), jnp.array([size]), jnp.ones_like(f), noise=1.0, scale=1.0
        )
        assert (np.asarray(z) <= np.asarray(f) + 1e-6).all()
        assert (np.diff(np.asarray(z)[:, 0]) >= -1e-6).all()
        assert np.asarray(z).min() >= -1.0 - 1e-6


# Facts of partial label masking


def test_log_updates_sum_to_zero():
    rng = np.random.default_rng(0)
    histograms = rng.integers(0, 40, size=(2, 9, 10)).astype(np.int32)
    histograms[0, 3] = 0  # never seen present
    histograms[1, 4] = 0  # never seen absent
    ratio = np.where(np.arange(9) == 5, np.nan, rng.random(9) + 0.1).astype(np.float32)
    start = np.nan_to_num(ratio, nan=1.0)
    updated = np.asarray(
        partial_label.updated_ideal_ratio(start, ratio, *map(jnp.asarray, histograms), rate=0.2)
    )
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
    updated = partial_label.updated_ideal_ratio(ratio, ratio, positives, negatives, rate=0.1)
    np.testing.assert_allclose(updated, 0.5 * np.exp([-0.1, 0.1]), rtol=1e-6)


@pytest.mark.parametrize("classes", [3, 10, 20])
def test_classes_that_do_alike_do_not_move(classes):
    """Every prediction in one bin, as early in training: no class differs, nothing changes."""
    ratio = jnp.full(classes, 0.1)
    counts = jnp.arange(1, classes + 1)
    for b in (0, 3, 9):
        histogram = jnp.zeros((classes, 10), jnp.int32).at[:, b].set(counts)
        updated = partial_label.updated_ideal_ratio(ratio, ratio, histogram, histogram, rate=0.5)
        np.testing.assert_array_equal(updated, ratio)


def test_ideal_ratio_is_bounded():
    ratio = jnp.array([0.5, 0.25])
    histogram = jnp.asarray(np.eye(10, dtype=np.int32)[[9, 0]])
    negatives = jnp.asarray(np.eye(10, dtype=np.int32)[[0, 0]])
    updated = partial_label.updated_ideal_ratio(
        ratio, ratio, histogram, negatives, rate=50.0, bound=4.0
    )
    np.testing.assert_allclose(updated, [0.125, 1.0], rtol=1e-6)


def test_nothing_seen_changes_nothing():
    ratio, empty = jnp.array([0.5, 0.25]), jnp.zeros((2, 10), jnp.int32)
    updated = partial_label.updated_ideal_ratio(ratio, ratio, empty, empty, rate=1.0)
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


def test_softmax_base_drops_terms_and_competitors():
    logits, labels = jnp.array([[2.0, 1.0, 0.5]]), jnp.array([0])
    masked = partial(losses.partial_label_masked_cross_entropy, key=KEY, base="softmax")
    one = np.ones(3)
    drop_positive = masked(logits, labels, one, np.array([1e-30, 1.0, 1.0]))
    drop_negative = masked(logits, labels, one, np.array([1.0, 1e30, 1.0]))
    without = losses.softmax_cross_entropy(logits[:, [0, 2]], labels)
    assert drop_positive == 0
    np.testing.assert_allclose(drop_negative, without, rtol=1e-6)
    gradient = jax.grad(lambda z: masked(z, labels, one, np.array([1.0, 1e30, 1.0]))[0])(logits)
    assert gradient[0, 1] == 0
    np.testing.assert_allclose(gradient.sum(), 0, atol=1e-6)


def test_sigmoid_base_drops_entries_alone():
    logits, labels = jnp.array([[2.0, 1.0, 0.5]]), jnp.array([[1, 0, 0]])
    masked = partial(losses.partial_label_masked_cross_entropy, key=KEY)
    ideal = np.array([1e-30, 1e30, 1.0])
    loss, gradient = values_and_gradients(
        {0: lambda z: masked(z, labels, np.ones(3), ideal)}, logits
    )[0]
    np.testing.assert_allclose(loss, [np.log1p(np.exp(0.5))], rtol=1e-6)
    assert (gradient[0, :2] == 0).all()


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
    positives, negatives = partial_label.probability_histograms(probabilities, targets, 10, where)
    assert positives.dtype == jnp.int32
    assert np.argwhere(positives).tolist() == [[0, 0], [1, 9]]
    assert np.argwhere(negatives).tolist() == [[0, 0], [1, 9]]


# Error sentences


def call(name, logits, labels):
    return LOSSES[name](jnp.asarray(logits), jnp.asarray(labels))


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
            loss(z, y, gamma=gamma)
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
            "num_examples is 500; expected more than the largest count 500",
            partial(db, num_examples=500),
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
            refused()


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
