"""Learning-rate schedules and weight decay against what the recipes say."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.optimizers import make_optimizer, make_schedule, weight_decay_mask

PARAMS = {
    "head": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    "layers": {0: {"kernel": jnp.ones(2), "scale": jnp.ones(2), "bias": jnp.ones(2)}},
}


def options(**fields):
    return {**base_config().optimizer.to_dict(), **fields}


def test_class_balanced_recipe():
    """Warm-up over 5 epochs to 0.1, a hundredth at 160 and again at 180."""
    config = options(
        schedule="step", warmup_epochs=5.0, milestones=(160.0, 180.0), factors=(0.01, 0.01)
    )
    rate = make_schedule(config, steps_per_epoch=10, total_steps=2000)
    assert rate(0) == pytest.approx(0.1 / 50, rel=1e-5)  # the first step moves
    warm = [float(rate(step)) for step in range(50)]
    np.testing.assert_allclose(warm, 0.1 * np.arange(1, 51) / 50, rtol=1e-5)
    for step, expected in ((50, 0.1), (1599, 0.1), (1600, 1e-3), (1799, 1e-3), (1800, 1e-5)):
        assert rate(step) == pytest.approx(expected, rel=1e-5)


def test_cosine_ends_at_zero_and_constant_stays():
    cosine = make_schedule(options(schedule="cosine", warmup_epochs=1.0), 10, 110)
    assert cosine(9) == pytest.approx(0.1)
    assert cosine(10) == pytest.approx(0.1)
    assert cosine(60) == pytest.approx(0.05)
    assert cosine(110) == pytest.approx(0.0, abs=1e-9)
    assert make_schedule(options(schedule="constant"), 10, 100)(99) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("which", "decays"),
    [
        ("all", {"head.kernel", "head.bias", "0.kernel", "0.scale", "0.bias"}),
        ("kernels", {"head.kernel", "0.kernel"}),
        ("all_but_head_bias", {"head.kernel", "0.kernel", "0.scale", "0.bias"}),
    ],
)
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_moves_only_what_it_should(which, decays, name):
    config = options(weight_decay=0.5, decay=which, name=name)
    optimizer = make_optimizer(config, optax.constant_schedule(0.1))
    nothing = {"head": {k: jnp.zeros(2) for k in PARAMS["head"]}}
    nothing["layers"] = {0: {k: jnp.zeros(2) for k in PARAMS["layers"][0]}}
    updates, _ = optimizer.update(nothing, optimizer.init(PARAMS), PARAMS)
    moved = {f"head.{k}" for k, v in updates["head"].items() if v.any()}
    moved |= {f"0.{k}" for k, v in updates["layers"][0].items() if v.any()}
    assert moved == decays
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1 * 0.5, rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_of_descent_and_of_adam_are_those_of_their_formulas(nesterov):
    """Momentum is SGD's, and Adam's first; decay is added to the gradient."""
    rate, decay, m = 0.1, 0.5, 0.8
    gradients = np.random.default_rng(0).normal(size=(4, 2))
    fields = {"momentum": m, "nesterov": nesterov, "weight_decay": decay, "decay": "all"}
    for name in ("sgd", "adam"):
        optimizer = make_optimizer(options(name=name, **fields), optax.constant_schedule(rate))
        found = {"kernel": jnp.ones(2)}
        state, w, v, second = optimizer.init(found), np.ones(2), np.zeros(2), np.zeros(2)
        for t, g in enumerate(gradients, 1):
            updates, state = optimizer.update({"kernel": jnp.float32(g)}, state, found)
            found = optax.apply_updates(found, updates)
            if name == "sgd":
                g = g + decay * w
                v = m * v + g
                w = w - rate * (g + m * v if nesterov else v)
            else:
                v, second = m * v + (1 - m) * g, 0.999 * second + 0.001 * g**2
                step = v / (1 - m**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
                w = w - rate * (step + decay * w)
            np.testing.assert_allclose(found["kernel"], w, rtol=1e-4, err_msg=f"{name}, step {t}")


def test_unknown_choices_are_refused():
    with pytest.raises(InputError, match=r"optimizer\.decay is 'none'"):
        weight_decay_mask(PARAMS, "none")
    with pytest.raises(InputError, match="weight_decay is -1"):
        make_optimizer(options(weight_decay=-1), optax.constant_schedule(0.1))
    with pytest.raises(InputError, match=r"momentum is 1\.0"):
        make_optimizer(options(momentum=1.0), optax.constant_schedule(0.1))
    with pytest.raises(InputError, match="warmup_epochs is -1"):
        make_schedule(options(warmup_epochs=-1), 10, 100)
