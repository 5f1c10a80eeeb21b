"""Losses, clouds and partial label masking against the reference values in golden/."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from compiling import optimised_jit
from every_loss import value_and_gradient

from lt_jax import longtail, losses
from lt_jax.losses import margins, partial_label

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
