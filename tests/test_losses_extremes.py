"""Every loss at logits of +-1e4 and beside rows of padding, which hold inf and NaN.

Many losses share one compiled function: compiling is what takes time, not computing.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compiling import optimised_jit
from every_loss import COUNTS, GAMMAS, LOSSES, losses_of, value_and_gradient

from lt_jax import losses


def test_every_public_loss_is_tested_here():
    covered = {name.split()[0] for name in LOSSES}
    assert covered == set(losses.__all__) - {"label_ratio"}


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


COMPETING = tuple(
    name
    for name in LOSSES
    if "sigmoid" not in name
    and not name.startswith(("asymmetric", "distribution", "class_balanced_focal", "weighted"))
    and name != "partial_label_masked_cross_entropy"
)


def test_a_class_that_the_caller_masks_at_minus_infinity_is_no_class():
    """Where classes compete: loss and gradient are those of a logit that is merely very small."""
    logits = jnp.array([[0.1, 0.3, -0.2], [0.5, -0.4, 0.2]])
    labels, functions = jnp.array([0, 1]), losses_of(COUNTS[:3])

    @jax.jit
    def both(masked):
        z = logits.at[:, 2].set(masked)
        return {
            name: value_and_gradient(partial(functions[name], labels=labels), z)
            for name in COMPETING
        }

    found, expected = both(-jnp.inf), both(-1e20)
    assert len(found) >= 10
    for name, pair in found.items():
        for value, wanted in zip(pair, expected[name], strict=True):
            assert np.isfinite(wanted).all(), name
            np.testing.assert_allclose(value, wanted, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_a_class_alone_costs_nothing(gamma):
    logits, labels = jnp.array([[1.0, -jnp.inf, -jnp.inf]]), jnp.array([0])
    loss = partial(losses.softmax_focal_loss, labels=labels, gamma=gamma)
    value, gradient = value_and_gradient(loss, logits)
    assert value == 0
    assert (gradient == 0).all()


def test_weights_of_a_masked_class_have_no_gradient():
    logits, labels = jnp.array([[1.0, -jnp.inf]]), jnp.array([0])
    gradient = jax.grad(lambda w: losses.softmax_cross_entropy(logits, labels, weights=w).sum())(
        jnp.ones((1, 2))
    )
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("gamma", [0.0, 4.0])
def test_sure_mistakes_of_the_asymmetric_loss_are_finite(gamma):
    """In float32 the probability of a logit of 30 is 1, also less a small clip."""
    logits, targets = np.array([[30.0, -30.0, 2.0]]), np.array([[0, 1, 0]])
    clips = [0.0, 1e-8, 1e-6, 0.05, 0.5]
    loss = partial(losses.asymmetric_loss, gamma_negative=gamma)
    z, y = jnp.float32(logits), jnp.array(targets)
    traced = jax.vmap(lambda clip: value_and_gradient(partial(loss, labels=y, clip=clip), z))(
        jnp.array(clips)
    )
    for clip, value, gradient in zip(clips, *traced, strict=True):
        expected = reference.asymmetric(logits, targets, 0.0, gamma, clip)
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        np.testing.assert_allclose(loss(z, y, clip=clip), expected, rtol=1e-4)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_float64_mode_does_not_change_the_type_of_float32_losses(name, x64):
    logits, labels = jax.ShapeDtypeStruct((2, 5), jnp.float32), jnp.array([0, 1])
    assert jax.eval_shape(LOSSES[name], logits, labels).dtype == jnp.float32
