"""Traps of other ports of partial label masking: each breaks a fact that is checked here."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from masked_labels import CLASSES, COUNTS, NUM_EXAMPLES, SIGMOID, VARIABLE, data_ratio, examples

from lt_jax import losses
from lt_jax.losses import partial_label
from lt_jax.objectives import chain, partial_label_mask


def check_facts(base=SIGMOID):
    """What each trap breaks: the histograms, the update of the ratios, and which labels count."""
    logits, labels = examples()
    transform = partial_label_mask(COUNTS, update_every=2, rate=0.3, num_examples=NUM_EXAMPLES)
    objective, shift = chain(transform, base=base), np.linspace(0.3, 3.0, CLASSES)
    first = objective.init()[0]
    state, key = (first._replace(ideal_ratio=first.ideal_ratio * shift),), jax.random.key(0)

    @jax.jit
    def gradient(z, state):
        def mean(z):
            loss, new = objective.apply(state, key, z, labels)
            return loss.mean(), new

        return jax.grad(mean, has_aux=True)(z)

    slope, after = gradient(logits, state)
    histograms = reference.probability_histograms(reference.sigmoid(logits), labels)
    np.testing.assert_array_equal(after[0].positives, histograms[0])
    np.testing.assert_array_equal(after[0].negatives, histograms[1])

    _, updated = gradient(logits, after)
    doubled = [2 * h for h in histograms]
    expected = reference.updated_ideal_ratio(
        np.asarray(state[0].ideal_ratio), data_ratio(), *doubled, 0.3
    )
    np.testing.assert_allclose(updated[0].ideal_ratio, expected, rtol=1e-5)

    uniform = np.asarray(jax.random.uniform(jax.random.fold_in(key, 0), logits.shape))
    ratio = np.where(VARIABLE, data_ratio(), 1.0)
    keep = ~VARIABLE | (uniform < reference.keep_probabilities(labels, ratio, ratio * shift))
    assert 0.2 < keep.mean() < 0.9
    whole = (reference.sigmoid(logits) - labels) / NUM_EXAMPLES
    np.testing.assert_allclose(slope, np.where(keep, whole, 0.0), rtol=1e-4, atol=1e-8)


def of_logits(histograms, probabilities, *rest):
    return histograms(jax.scipy.special.logit(probabilities), *rest)


def swapped(histograms, *arguments):
    return histograms(*arguments)[::-1]


def collapsed(divergence, histogram, *, positives):
    value = divergence(histogram, positives=positives)
    return jnp.full_like(value, value.sum())


def mask_on_a_reduced_loss(logits, targets, *, weights, keep):
    loss = losses.sigmoid_cross_entropy(logits, targets, weights=weights).mean()
    return (loss * keep).sum(-1) / keep.mean() / keep.shape[1]


def test_the_facts_hold():
    check_facts()


@pytest.mark.parametrize(
    ("function", "trap", "broken"),
    [
        ("probability_histograms", of_logits, "not equal"),
        ("probability_histograms", swapped, "not equal"),
        ("histogram_divergence", collapsed, "rtol=1e-05"),
    ],
)
def test_wrong_histograms_and_divergences_are_found(function, trap, broken, monkeypatch):
    right = getattr(partial_label, function)
    monkeypatch.setattr(partial_label, function, partial(trap, right))
    with pytest.raises(AssertionError, match=broken):
        check_facts()


def test_a_mask_on_a_reduced_loss_is_found():
    """Which masks nothing: here the gradient is even that of the unmasked mean."""
    with pytest.raises(AssertionError, match=r"rtol=0\.0001"):
        check_facts(SIGMOID._replace(loss=mask_on_a_reduced_loss))
