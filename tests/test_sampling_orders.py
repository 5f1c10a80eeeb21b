"""Orders of batches are the same everywhere: on any devices, resumed, of labels of any type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import LABELS, order_of

from lt_jax import sharding
from lt_jax.errors import InputError
from lt_jax.longtail import SCHEMES


def test_orders_are_the_same_on_one_and_eight_devices_and_side_by_side():
    """Compiled as `lt_jax.replicas` does it, against one by one without compilation."""
    assert len(jax.devices()) == 8
    orders = {scheme: order_of(scheme) for scheme in SCHEMES}
    keys = jax.random.split(jax.random.key(4), 3)

    def all_schemes(key, epoch):
        return {scheme: order(key, epoch) for scheme, order in orders.items()}

    for devices in (1, 8):
        everywhere = sharding.replicated(sharding.make_mesh(devices))
        compiled = jax.jit(jax.vmap(all_schemes, in_axes=(0, None)), out_shardings=everywhere)
        for epoch in (0, 7):
            together = compiled(jax.device_put(keys, everywhere), epoch)
            for scheme, order in orders.items():
                assert len(together[scheme].sharding.device_set) == devices
                assert together[scheme].is_fully_replicated
                for r, key in enumerate(keys):
                    np.testing.assert_array_equal(together[scheme][r], order(key, epoch))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_epoch_is_a_function_of_its_number_and_the_key(scheme):
    """A resumed run makes its functions anew and begins at a later epoch: same images."""
    key, order = jax.random.key(6), order_of(scheme)
    through = [np.asarray(order(key, e)) for e in range(4)]
    resumed = order_of(scheme)
    np.testing.assert_array_equal(resumed(key, 3), through[3])
    np.testing.assert_array_equal(resumed(key, jnp.int32(2)), through[2])
    np.testing.assert_array_equal(resumed(key, np.int64(1)), through[1])
    np.testing.assert_array_equal(order(key, 0), through[0])
    assert len({one.tobytes() for one in through}) == 4
    assert np.asarray(order(jax.random.key(7), 0)).tobytes() != through[0].tobytes()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_of_any_integer_type_give_the_same_order(scheme):
    key = jax.random.key(0)
    want = np.asarray(order_of(scheme)(key, 1))
    for labels in (LABELS.astype(np.uint8), LABELS.astype(np.int32), LABELS.tolist()):
        np.testing.assert_array_equal(order_of(scheme, labels)(key, 1), want)


# Bad input


@pytest.mark.parametrize("scheme", ["fair", "", "Class", "sqrt", None])
def test_an_unknown_scheme_is_named_with_those_there_are(scheme):
    sentence = rf"sampling\.scheme is {scheme!r}; expected one of instance, class, square_root"
    with pytest.raises(InputError, match=sentence):
        order_of(scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("batch", [1001, 0, -1])
def test_a_batch_that_the_data_cannot_fill_is_refused(scheme, batch):
    """At once, in every scheme, also in those that could draw more images than there are."""
    with pytest.raises(InputError, match=rf"batch size is {batch}; expected 1 to 1000"):
        order_of(scheme, batch=batch)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_images_at_all_are_refused(scheme):
    with pytest.raises(InputError, match=r"batch size is 1; expected 1 to 0"):
        order_of(scheme, np.zeros(0, int), 3, 1)


@pytest.mark.parametrize("scheme", ["effective_number", "class_based_effective_number"])
@pytest.mark.parametrize("beta", [1.0, -0.1, 1.5, np.nan, np.inf, "0.9"])
def test_a_beta_outside_its_range_is_named(scheme, beta):
    with pytest.raises(InputError, match=rf"beta is {beta!r}; expected a number in \[0, 1\)"):
        order_of(scheme, beta=beta)


@pytest.mark.parametrize("power", [np.nan, -np.inf, "half"])
def test_a_power_that_is_no_number_is_named(power):
    """In its own scheme; the others do not read it."""
    with pytest.raises(InputError, match=rf"power is {power!r}; expected a finite number"):
        order_of("power", power=power)
    order_of("square_root", power=power)


def test_a_spread_that_takes_beta_out_of_its_range_is_named():
    """With beta_spread, too, beta must stay below 1 for every class."""
    with pytest.raises(
        InputError, match=r"beta_spread is 0.001; expected 0 or more, and less than 1"
    ):
        order_of("class_based_effective_number", beta=0.9999, beta_spread=1e-3)
    order_of("class_based_effective_number", beta=0.9999, beta_spread=9.9e-5)
