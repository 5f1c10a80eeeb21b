"""What holds of every computed classifier: permuted classes, one value or many, images alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frozen_features import (
    CLASSIFY,
    COUNTS,
    FEATURES,
    HEADS,
    LABELS,
    TAUS,
    TRAIN,
    C,
    R,
    close,
    over,
)

from lt_jax.classifiers import adjusted, nearest_class_mean, tau_normalised

PERMUTATION = np.array([3, 0, 4, 1, 2])
KINDS = ("unit", "centred_unit", "plain")


def made_by(name, perm=None):
    """A classifier; with a permutation, the same with its classes in that order."""
    perm = np.arange(C) if perm is None else perm
    heads = {"kernel": HEADS["kernel"][..., perm], "bias": HEADS["bias"][..., perm]}
    if name == "tau_norm":
        return tau_normalised(heads, TAUS)
    if name == "ncm":
        return nearest_class_mean(jnp.asarray(TRAIN), np.argsort(perm)[LABELS], C, KINDS)
    return adjusted(heads, CLASSIFY["linear"], 1.0, np.array(COUNTS)[perm], TAUS)


ALL = ("tau_norm", "ncm", "logit_adjustment")


@functools.cache
def made_once(name):
    """A classifier and its logits of `FEATURES`."""
    made = made_by(name)
    return made, over(made, FEATURES)


@pytest.mark.parametrize("name", ALL)
def test_permuting_classes_permutes_logits(name):
    """No class is special by its number."""
    after = over(made_by(name, PERMUTATION), FEATURES)
    close(after, made_once(name)[1][..., PERMUTATION])


def test_the_order_of_training_images_does_not_matter():
    order = np.random.default_rng(0).permutation(len(LABELS))
    made = nearest_class_mean(jnp.asarray(TRAIN[:, order]), LABELS[order], C, KINDS)
    close(over(made, FEATURES), made_once("ncm")[1])


@pytest.mark.parametrize("name", ALL)
def test_all_values_of_all_replicas_at_once_equal_one_by_one(name):
    """The sweep over the knob changes nothing; nor does a value of its own for each replica."""
    made, together = made_once(name)
    one = jax.jit(made.logits)
    for r in range(R):
        memory = jax.tree.map(lambda leaf, r=r: jnp.asarray(leaf[r]), made.memory)
        for k, number in enumerate(made.numbers):
            alone = one(jnp.asarray(number), memory, jnp.asarray(FEATURES[r]))
            close(together[r, k], np.asarray(alone), 1e-5)
    chosen = np.arange(R)[::-1] % len(made.numbers)
    own = jax.jit(jax.vmap(made.logits))(made.numbers[chosen], made.memory, FEATURES)
    close(np.asarray(own), together[np.arange(R), chosen])


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_classified_alone(name):
    """Logits of one row do not depend on what else is in the batch, such as padding."""
    made, together = made_once(name)
    close(over(made, FEATURES[:, 4:6]), together[:, :, 4:6])


def test_knobs_are_kept_as_written_and_as_numbers():
    """What a summary reports is what was asked for."""
    for made, knob, values, numbers in (
        (made_once("tau_norm")[0], "tau", TAUS, TAUS),
        (made_once("logit_adjustment")[0], "tau", TAUS, TAUS),
        (made_once("ncm")[0], "features", list(KINDS), [1, 2, 0]),
    ):
        assert made.knob == knob
        assert list(made.values) == values
        assert made.numbers.dtype == np.float32
        np.testing.assert_allclose(made.numbers, numbers, rtol=1e-6)
        assert all(len(leaf) == R for leaf in jax.tree.leaves(made.memory))
