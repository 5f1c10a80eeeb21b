"""Every public loss, in every form that has its own code, and inputs for them."""

from functools import cache, partial

import jax
import numpy as np

from lt_jax import losses

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
