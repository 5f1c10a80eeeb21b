"""Which labels partial label masking keeps: shares in expectation, and all in the first epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compiling import optimised_jit
from masked_labels import (
    BATCH,
    CLASSES,
    COUNTS,
    EVERY,
    NUM_EXAMPLES,
    SIGMOID,
    VARIABLE,
    data_ratio,
    examples,
    masked,
    run,
)

from lt_jax.losses import partial_label
from lt_jax.objectives import build_objective, chain, method_spec, partial_label_mask

# Expected ratios


@pytest.mark.parametrize("kind", ["odds", "share"])
def test_ratio_of_kept_labels_in_expectation(kind):
    """Counted by the gradient at logit 0, which is one half of a kept entry and 0 of a masked."""
    labels = np.arange(1000)[:, None] < np.array([200, 200, 500, 40])
    positives = labels.sum(0)
    share = positives / len(labels)
    ideal = np.array([0.1, 0.6, 0.4, 0.5])
    transform = partial_label_mask(positives, update_every=1, ratio=kind, num_examples=len(labels))
    objective = chain(transform, base=SIGMOID)
    state = (objective.init()[0]._replace(ideal_ratio=jnp.asarray(ideal, jnp.float32)),)

    @jax.jit
    @jax.vmap
    def kept(key):
        def loss(z):
            return objective.apply(state, key, z, jnp.float32(labels))[0].sum()

        return 2 * jnp.abs(jax.grad(loss)(jnp.zeros(labels.shape)))

    keep = np.asarray(kept(jax.random.split(jax.random.key(0), 200))).sum(0)
    kept_positives = np.where(labels, keep, 0).sum(0)
    kept_negatives = np.where(labels, 0, keep).sum(0)
    # One of the two is not masked; the relative error of the other, binomial one is at most
    # 1 / sqrt(its mean), and 5 of these are allowed.
    tolerance = 5 / np.sqrt(np.minimum(kept_positives, kept_negatives).min())
    assert tolerance < 0.06
    odds = kept_positives / kept_negatives
    if kind == "odds":
        np.testing.assert_allclose(odds, ideal, rtol=tolerance)
    else:
        np.testing.assert_allclose(odds, ideal / (1 - share), rtol=tolerance)
        # Which is neither the ideal share nor its odds.
        assert (abs(odds / (1 + odds) / ideal - 1) > 1.5 * tolerance).all()
        assert (abs(odds / (ideal / (1 - ideal)) - 1) > 1.5 * tolerance).all()


def test_shares_are_masked_and_updated_as_ratios():
    """With shares the start is the share, a constant class is left alone, the rest is the same."""
    objective = masked(ratio="share", rate=0.3)
    share = np.where(VARIABLE, COUNTS / NUM_EXAMPLES, 1.0)
    np.testing.assert_allclose(objective.init()[0].ideal_ratio, share, rtol=1e-6)
    state = run(objective, EVERY)[-1][0]
    expected = reference.updated_ideal_ratio(
        share, np.where(VARIABLE, share, np.nan), state.last_positives, state.last_negatives, 0.3
    )
    np.testing.assert_allclose(state.ideal_ratio, expected, rtol=1e-5)
    assert (expected[VARIABLE] != share[VARIABLE]).all()
    odds = run(masked(ratio="odds", rate=0.3), EVERY)[-1][0].ideal_ratio / data_ratio()
    np.testing.assert_allclose((state.ideal_ratio / share)[VARIABLE], odds[VARIABLE], rtol=1e-5)


# The first epoch


# With a focal factor the compiler may fuse another product with another sum once a mask lies
# between them, which rounds differently; at level 0 it fuses none.
PAIRS = (
    ("plm", "sigmoid", optimised_jit),
    ("plm+class_balanced", "cb_sigmoid", optimised_jit),
    ("plm+class_balanced+focal", "cb_focal", jax.jit),
    ("plm_softmax", "cross_entropy", optimised_jit),
)


@pytest.mark.parametrize("kind", ["integers", "multi-hot"])
def test_first_epoch_is_unmasked_to_the_last_bit(kind):
    """A linear model trained for an epoch by a jitted step has the same weights and losses."""
    labels = np.random.default_rng(0).integers(CLASSES, size=NUM_EXAMPLES)
    counts, num_examples = np.bincount(labels, minlength=CLASSES), None
    if kind == "multi-hot":
        labels, counts, num_examples = examples()[1], COUNTS, NUM_EXAMPLES
    x = np.random.default_rng(1).normal(size=(NUM_EXAMPLES, 7)).astype(np.float32)

    def trained(name, jit):
        spec = method_spec(name)
        if name.startswith("plm"):
            spec["transforms"]["partial_label_mask"]["rate"] = 2.0
        objective = build_objective(spec, counts, steps_per_epoch=EVERY, num_examples=num_examples)

        @jit
        def step(weights, state, key, x, y):
            def mean(w):
                loss, new = objective.apply(state, key, x @ w, y)
                return loss.mean(), (loss, new)

            gradient, (loss, state) = jax.grad(mean, has_aux=True)(weights)
            return weights - 0.5 * gradient, state, loss

        weights, state, history = jnp.zeros((7, CLASSES)), objective.init(), []
        for n in range(2 * EVERY):
            rows = np.arange(n * BATCH, (n + 1) * BATCH) % NUM_EXAMPLES
            weights, state, loss = step(weights, state, jax.random.key(n), x[rows], labels[rows])
            history.append((np.asarray(weights), np.asarray(loss)))
        return history

    for with_mask, without, jit in PAIRS:
        if kind == "multi-hot" and without == "cross_entropy":
            continue
        one, other = trained(with_mask, jit), trained(without, jit)
        for n in range(EVERY):
            for a, b in zip(one[n], other[n], strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{with_mask}, step {n}")
        assert (one[-1][0] != other[-1][0]).any(), with_mask


def test_equal_ratios_keep_everything_whatever_the_ratio():
    """Also where a ratio divided by itself might round to less than 1, as by a reciprocal."""
    ratio = np.exp(np.random.default_rng(0).uniform(-12, 12, 20_000)).astype(np.float32)
    targets = np.arange(2, dtype=np.float32)[:, None] * np.ones_like(ratio)
    keep = optimised_jit(lambda ideal: partial_label.keep_probabilities(targets, ratio, ideal))
    assert (keep(ratio) == 1).all()
    assert (keep(np.nextafter(ratio, 0)) < 1).any(-1).tolist() == [False, True]
