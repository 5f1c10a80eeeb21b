"""Losses that must agree: to the last bit where an option turns a method off; clouds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from every_loss import COUNTS, KEY, RATIO, random_inputs

from lt_jax import losses
from lt_jax.losses import margins, reweighted

# Identities

BALANCED = [7] * 5
CE, BCE = losses.softmax_cross_entropy, losses.sigmoid_cross_entropy
PLM = partial(losses.partial_label_masked_cross_entropy, key=KEY)
BIAS = jnp.zeros(5)


def scaled(z, y):
    return CE(30.0 * z, y)


# Pairs of calls ``(logits, labels) -> loss`` that must agree to the last bit.
IDENTITIES = {
    "CB softmax, beta 0": (
        partial(losses.class_balanced_softmax_cross_entropy, class_counts=COUNTS, beta=0.0),
        CE,
    ),
    "CB sigmoid, beta 0": (
        partial(losses.class_balanced_sigmoid_cross_entropy, class_counts=COUNTS, beta=0.0),
        BCE,
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
        partial(losses.class_balanced_softmax_cross_entropy, class_counts=BALANCED),
        CE,
    ),
    "softmax focal, gamma 0": (partial(losses.softmax_focal_loss, gamma=0.0), CE),
    "sigmoid focal, gamma 0": (partial(losses.sigmoid_focal_loss, gamma=0.0), BCE),
    "GCL, balanced": (
        partial(losses.gaussian_clouded_cross_entropy, class_counts=BALANCED, key=KEY),
        scaled,
    ),
    "GCL angular, balanced": (
        partial(
            losses.gaussian_clouded_cross_entropy, class_counts=BALANCED, key=KEY, angular=True
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
        CE,
    ),
    "balanced softmax is logit adjustment at tau 1": (
        partial(losses.balanced_softmax_cross_entropy, class_counts=COUNTS),
        partial(losses.logit_adjusted_cross_entropy, class_counts=COUNTS, tau=1.0),
    ),
    "seesaw, balanced, q 0": (
        partial(losses.seesaw_loss, class_counts=BALANCED, compensation=0.0),
        CE,
    ),
    "seesaw, p 0, q 0": (
        partial(losses.seesaw_loss, class_counts=COUNTS, mitigation=0.0, compensation=0.0),
        CE,
    ),
    "EQL, nothing dropped": (
        partial(losses.equalization_loss, class_counts=COUNTS, key=KEY, probability=0.0),
        CE,
    ),
    "EQL, nothing rare": (
        partial(losses.equalization_loss, class_counts=COUNTS, key=KEY, threshold=0.0),
        CE,
    ),
    "ASL, zeros": (
        partial(losses.asymmetric_loss, gamma_positive=0.0, gamma_negative=0.0, clip=0.0),
        BCE,
    ),
    "negative-tolerant, bias 0, lambda 1": (
        partial(reweighted.negative_tolerant_cross_entropy, bias=BIAS, negative_scale=1.0),
        BCE,
    ),
    "weighted sigmoid, power 0": (
        partial(losses.weighted_sigmoid_cross_entropy, class_counts=COUNTS, power=0.0),
        BCE,
    ),
    "weighted sigmoid, half of the examples positive": (
        partial(losses.weighted_sigmoid_cross_entropy, class_counts=BALANCED, num_examples=14),
        BCE,
    ),
    "PLM sigmoid, ideal = real": (partial(PLM, ratio=RATIO, ideal_ratio=RATIO), BCE),
    "PLM softmax, ideal = real": (
        partial(PLM, ratio=RATIO, ideal_ratio=RATIO, base="softmax"),
        CE,
    ),
}


def test_identities_hold_to_the_last_bit():
    logits, labels = random_inputs("integers")
    cosines = jnp.asarray(np.tanh(logits), jnp.float32)
    for name, (one, other) in IDENTITIES.items():
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
