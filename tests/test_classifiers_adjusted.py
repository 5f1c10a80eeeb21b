"""Tau-normalised and logit-adjusted classifiers: float64 second implementations, identities."""

import jax
import numpy as np
import pytest
from frozen_features import (
    CLASSIFY,
    COSINE_HEADS,
    COUNTS,
    FEATURES,
    HEADS,
    TAUS,
    B,
    C,
    D,
    R,
    close,
    cosine,
    each,
    linear,
    over,
)

from lt_jax.classifiers import adjusted, tau_normalised
from lt_jax.errors import InputError

# Second implementations


def without_bias(head, x, tau):
    """Kang et al.: w_j / |w_j|^tau, and no bias."""
    w = np.asarray(head["kernel"], np.float64)
    return np.array([w[:, j] @ x / np.sqrt(w[:, j] @ w[:, j]) ** tau for j in range(w.shape[1])])


def less_log_prior(logits, counts, tau):
    """Menon et al.: f_j - tau log(n_j / N)."""
    total = sum(counts)
    return np.array([f - tau * np.log(n / total) for f, n in zip(logits, counts, strict=True)])


# Tau normalisation


def test_tau_normalised_is_the_formula():
    """For every value and replica at once, against the second implementation."""
    got = over(tau_normalised(HEADS, TAUS), FEATURES)
    assert got.shape == (R, len(TAUS), B, C)
    assert got.dtype == np.float32
    for k, tau in enumerate(TAUS):
        want = each(lambda head, x, tau=tau: without_bias(head, x, tau), HEADS)
        close(got[:, k], want)


def test_tau_zero_is_the_head_without_its_bias():
    got = over(tau_normalised(HEADS, [0.0]), FEATURES)[:, 0]
    head = jax.vmap(CLASSIFY["linear"])(HEADS, FEATURES)
    close(got, np.asarray(head) - HEADS["bias"][:, None])
    assert np.abs(got - head).max() > 0.1
    other = {**HEADS, "bias": HEADS["bias"] + 100}
    np.testing.assert_array_equal(over(tau_normalised(other, [0.0]), FEATURES)[:, 0], got)


def test_tau_one_makes_all_weight_vectors_of_length_one():
    """The logits of the basis vectors are the weights themselves."""
    basis = np.broadcast_to(np.eye(D, dtype=np.float32), (R, D, D))
    weights = over(tau_normalised(HEADS, [0.0, 0.5, 1.0]), basis)
    lengths = np.linalg.norm(weights.astype(np.float64), axis=2)
    np.testing.assert_allclose(lengths[:, 2], 1.0, rtol=1e-5)
    np.testing.assert_allclose(lengths[:, 1], np.sqrt(lengths[:, 0]), rtol=1e-5)
    np.testing.assert_array_equal(weights[:, 0], HEADS["kernel"])


@pytest.mark.parametrize("factor", [1e-4, 0.3, 1e4])
def test_the_length_of_one_weight_vector_does_not_matter_at_tau_one(factor):
    """And at other values it does, by factor ** (1 - tau), for that class alone."""
    changed = {**HEADS, "kernel": HEADS["kernel"] * np.float32([1, 1, factor, 1, 1])}
    before = over(tau_normalised(HEADS, TAUS), FEATURES)
    after = over(tau_normalised(changed, TAUS), FEATURES)
    for k, tau in enumerate(TAUS):
        close(after[:, k, :, 2], before[:, k, :, 2] * factor ** (1 - tau))
    np.testing.assert_array_equal(np.delete(after, 2, -1), np.delete(before, 2, -1))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0, 3.0, 4.0])
def test_a_class_whose_weights_are_zero_keeps_them(tau):
    """No NaN, which argmax would take for the largest logit; other classes are as before."""
    kernel = HEADS["kernel"].copy()
    kernel[:, :, 1] = 0
    got = over(tau_normalised({**HEADS, "kernel": kernel}, [tau]), FEATURES)
    assert np.isfinite(got).all()
    assert (got[..., 1] == 0).all()
    want = over(tau_normalised(HEADS, [tau]), FEATURES)
    np.testing.assert_array_equal(np.delete(got, 1, -1), np.delete(want, 1, -1))


# Post-hoc logit adjustment


@pytest.mark.parametrize(
    ("head", "formula", "scale"), [("linear", linear, 1.0), ("cosine", cosine, 16.0)]
)
def test_adjusted_is_the_formula(head, formula, scale):
    heads = HEADS if head == "linear" else COSINE_HEADS
    made = adjusted(heads, CLASSIFY[head], scale, COUNTS, TAUS)
    got = over(made, FEATURES)
    assert got.shape == (R, len(TAUS), B, C)
    assert got.dtype == np.float32
    logits = scale * each(formula, heads)
    for k, tau in enumerate(TAUS):
        want = np.apply_along_axis(less_log_prior, -1, logits, COUNTS, tau)
        close(got[:, k], want)


@pytest.mark.parametrize(("head", "scale"), [("linear", 1.0), ("cosine", 30.0)])
def test_adjusted_at_tau_zero_is_the_scaled_head(head, scale):
    heads = HEADS if head == "linear" else COSINE_HEADS
    got = over(adjusted(heads, CLASSIFY[head], scale, COUNTS, [0.0]), FEATURES)[:, 0]
    close(got, scale * np.asarray(jax.vmap(CLASSIFY[head])(heads, FEATURES)), 1e-6)


def test_balanced_counts_adjust_nothing():
    """All logits move together: same classes, same probabilities, whatever the count."""
    head = np.asarray(jax.vmap(CLASSIFY["linear"])(HEADS, FEATURES))
    for count in (1, 70, 10**6):
        got = over(adjusted(HEADS, CLASSIFY["linear"], 1.0, [count] * C, TAUS), FEATURES)
        for k, tau in enumerate(TAUS):
            np.testing.assert_array_equal(got[:, k].argmax(-1), head.argmax(-1))
            close(got[:, k] - head, np.full(head.shape, tau * np.log(C)), 1e-5)


def test_adjusted_divides_probabilities_by_the_prior():
    """At tau 1 the posterior under balanced classes; only shares count, not numbers of images."""
    made = adjusted(HEADS, CLASSIFY["linear"], 1.0, COUNTS, [0.0, 1.0])
    got = over(made, FEATURES).astype(np.float64)
    p = np.exp(got) / np.exp(got).sum(-1, keepdims=True)
    divided = p[:, 0] / (np.array(COUNTS) / sum(COUNTS))
    close(p[:, 1], divided / divided.sum(-1, keepdims=True))
    more = adjusted(HEADS, CLASSIFY["linear"], 1.0, np.array(COUNTS) * 1000, [0.0, 1.0])
    close(over(more, FEATURES), got, 1e-6)
    # The rarer the class, the more it gains.
    assert (np.diff((got[:, 1] - got[:, 0]).mean((0, 1))) > 0).all()


def test_adjusted_refuses_a_class_without_images():
    """Its log prior is minus infinity: it would win always."""
    with pytest.raises(InputError, match=r"class_counts\[3\] is 0; expected at least 1"):
        adjusted(HEADS, CLASSIFY["linear"], 1.0, [5, 4, 3, 0, 1], [1.0])
