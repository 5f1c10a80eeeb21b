"""Batches drawn by class: the images they are drawn of, and what tells drawn from expected."""

import jax
import numpy as np
from scipy import stats

from lt_jax.data import make_order
from lt_jax.longtail import SCHEMES, sampling_probabilities

COUNTS = np.array([450, 0, 300, 140, 70, 30, 10])  # 1000 images; the second class has none
LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(7), COUNTS))
# Far from the defaults, so that an option that is not handed on shows.
OPTIONS = {"beta": 0.98, "beta_spread": 0.0195, "power": -0.4}
BATCH, EPOCHS = 50, 10
DRAWN = [scheme for scheme in SCHEMES if scheme != "instance"]
CASES = [(s, 3) for s in DRAWN if s != "progressive"] + [("progressive", e) for e in (0, 3, 5, 9)]


def order_of(scheme, labels=LABELS, num_classes=7, batch=BATCH, epochs=EPOCHS, **options):
    return make_order({"scheme": scheme, **OPTIONS, **options}, labels, num_classes, batch, epochs)


def expected(scheme, epoch, counts=COUNTS, epochs=EPOCHS):
    """Probabilities that `longtail.sampling_probabilities` gives for an epoch."""
    options = {}
    if scheme == "progressive":
        options["progress"] = epoch / epochs
    if "effective_number" in scheme:
        options["beta"] = OPTIONS["beta"]
    if scheme == "class_based_effective_number":
        options["beta_spread"] = OPTIONS["beta_spread"]
    if scheme == "power":
        options["power"] = OPTIONS["power"]
    return sampling_probabilities(counts, scheme, **options)


def epochs_of(order, epoch, seeds=400, seed=0):
    """Batches ``[seeds, steps, B]`` of one epoch under many keys.

    Not compiled as a whole: its parts are, once for all orders of one shape.
    """
    keys = jax.random.split(jax.random.key(seed), seeds)
    return np.asarray(jax.vmap(order, in_axes=(0, None))(keys, epoch))


def p_value(observed, probabilities):
    """Of the chi-square test; what has probability 0 must not occur at all."""
    observed, probabilities = np.asarray(observed), np.asarray(probabilities)
    assert observed[probabilities == 0].sum() == 0
    kept = probabilities > 0
    return stats.chisquare(observed[kept], probabilities[kept] * observed.sum()).pvalue
