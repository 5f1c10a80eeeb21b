"""Labels that are no class, smoothed ones, rows left out; options of losses that are arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_loss import COUNTS, KEY, LOSSES, random_inputs

from lt_jax import losses, objectives
from lt_jax.errors import InputError
from lt_jax.longtail import inverse_frequency_weights
from lt_jax.losses import equalization, partial_label


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_refused(name, label):
    """Counted from 1, or -1 for rows to ignore: the loss of such a row would be 0."""
    logits, labels = random_inputs("integers")
    wrong = np.where(np.arange(12) == 3, label, labels)
    with pytest.raises(InputError, match=rf"labels hold {label}; expected 0 to 4, the number of"):
        LOSSES[name](logits, wrong)
    counts = np.arange(12) != 3
    allowed = LOSSES[name](logits, wrong, where=counts)
    assert allowed[3] == 0
    np.testing.assert_array_equal(allowed, LOSSES[name](logits, labels, where=counts))
    if name in ("softmax_cross_entropy", "sigmoid_focal_loss", "seesaw_loss"):
        # A compiled step cannot read labels: the row is not finite, which stops a run.
        right, traced = (jax.jit(LOSSES[name])(logits, y) for y in (labels, wrong))
        assert np.isnan(traced[3])
        np.testing.assert_array_equal(traced[counts], right[counts])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "where", [np.ones((12, 1), bool), np.ones(1, bool), [True, False], np.ones(12)]
)
def test_where_is_one_bool_for_each_row(name, where):
    """Others would be broadcast, and the loss be of another shape."""
    with pytest.raises(
        InputError, match=r"where has shape .*; expected bool \(12,\), one for each"
    ):
        LOSSES[name](*random_inputs("integers"), where=where)


def test_lists_will_do():
    logits, labels = random_inputs("integers")
    where = (np.arange(12) < 9).tolist()
    found = losses.softmax_cross_entropy(logits.tolist(), labels.tolist(), where=where)
    expected = losses.softmax_cross_entropy(logits, labels, where=np.array(where))
    np.testing.assert_array_equal(found, expected)


def smoothed(labels, epsilon):
    return (1 - epsilon) * np.eye(5)[labels] + epsilon / 5


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_masks_of_smoothed_labels_are_those_of_the_labels(epsilon):
    logits, labels = random_inputs("integers")
    hard, soft = np.eye(5)[labels], smoothed(labels, epsilon)
    rare = COUNTS < 100
    kept = [equalization.equalization_keep(KEY, jnp.asarray(t), rare, 1.0) for t in (hard, soft)]
    np.testing.assert_array_equal(*kept)
    assert not np.asarray(kept[0]).all()
    ratio, ideal = jnp.full(5, 0.5), jnp.linspace(0.1, 2.0, 5)
    probabilities = [
        partial_label.keep_probabilities(jnp.asarray(t), ratio, ideal) for t in (hard, soft)
    ]
    np.testing.assert_array_equal(*probabilities)
    predicted = jax.nn.softmax(logits)
    seen = [partial_label.probability_histograms(predicted, jnp.asarray(t)) for t in (hard, soft)]
    np.testing.assert_array_equal(*seen)


def test_equalization_of_smoothed_labels_by_hand():
    """What is left out leaves the sum of exponentials, and its own share of the target."""
    logits, labels = random_inputs("integers")
    targets, rare = smoothed(labels, 0.2), COUNTS / COUNTS.sum() < 0.2
    found = losses.equalization_loss(logits, targets, COUNTS, key=KEY, probability=1.0)
    kept = (np.eye(5)[labels] > 0) | ~rare
    log_p = logits - np.log((np.exp(logits) * kept).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, -(targets * log_p * kept).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("method", ["plm", "plm_softmax"])
def test_partial_label_masking_learns_the_same_of_smoothed_labels(method):
    """Its ratios move as with the labels themselves."""
    logits, labels = random_inputs("integers")
    states = []
    for targets in (labels, smoothed(labels, 0.1)):
        objective = objectives.build_objective(
            objectives.method_spec(method), COUNTS, steps_per_epoch=2
        )
        state = objective.init()
        for step in range(4):
            _, state = objective.apply(state, jax.random.key(step), jnp.float32(logits), targets)
        states.append(state)
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert np.abs(states[0][0].ideal_ratio / objective.init()[0].ideal_ratio - 1).max() > 1e-3


@pytest.mark.parametrize(
    ("loss", "option", "values"),
    [
        (lambda z, y, v: losses.asymmetric_loss(z, y, clip=v), "clip", [0.0, 0.05, 0.2]),
        (lambda z, y, v: losses.ldam_loss(z, y, COUNTS, max_margin=v), "margin", [0.0, 0.3, 0.5]),
        (lambda z, y, v: losses.softmax_focal_loss(z, y, gamma=v), "gamma", [0.0, 1.0, 2.0]),
    ],
    ids=["clip", "max_margin", "gamma"],
)
def test_options_may_be_traced(loss, option, values):
    """So that `jax.vmap` compares them in one program."""
    logits, labels = random_inputs("integers")
    side_by_side = jax.vmap(lambda v: loss(jnp.float32(logits), labels, v))(jnp.array(values))
    for value, found in zip(values, side_by_side, strict=True):
        np.testing.assert_allclose(found, loss(logits, labels, value), rtol=1e-4, err_msg=option)


def test_options_may_be_arrays_without_dimensions():
    expected = losses.class_balanced_focal_loss(*random_inputs("integers"), COUNTS, beta=0.9)
    for beta in (np.array(0.9), jnp.float32(0.9), np.float32(0.9)):
        found = losses.class_balanced_focal_loss(*random_inputs("integers"), COUNTS, beta=beta)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("power", ["a", None, np.nan, 1000, -1000, np.ones(2)])
def test_powers_that_give_no_weights_are_refused(power):
    with pytest.raises(InputError, match=r"power is .*; expected"):
        inverse_frequency_weights([50, 20, 5], power)


@pytest.mark.parametrize(
    ("name", "value"),
    [("bins", 2.5), ("bins", "a"), ("bins", None), ("update_every", np.nan), ("update_every", 0)],
)
def test_numbers_of_partial_label_masking_are_whole(name, value):
    options = {"update_every": 3, name: value}
    with pytest.raises(InputError, match=rf"{name} is {value!r}; expected a whole number of at le"):
        objectives.partial_label_mask(COUNTS, **options)


def test_bins_may_be_a_float_that_is_whole():
    objective = objectives.chain(
        objectives.partial_label_mask(COUNTS, update_every=2.0, bins=3.0),
        base=objectives.sigmoid_cross_entropy,
    )
    assert objective.init()[0].positives.shape == (5, 3)


@pytest.mark.parametrize("start", [float("nan"), float("inf"), -1, "soon", None])
def test_starts_of_transforms_are_checked(start):
    spec = {"base": "softmax", "transforms": {"class_balanced": {"start_epoch": start}}}
    with pytest.raises(InputError, match=rf"start_epoch of class_balanced is {start!r}; expected"):
        objectives.build_objective(spec, COUNTS, steps_per_epoch=4)


def test_a_transform_may_never_start():
    """Asked for by a number that is larger than any step."""
    logits, labels = random_inputs("integers")
    spec = {"base": "softmax", "transforms": {"class_balanced": {"start_epoch": 1e12}}}
    objective = objectives.build_objective(spec, COUNTS, steps_per_epoch=4)
    loss, _ = objective.apply(objective.init(), KEY, jnp.float32(logits), labels)
    np.testing.assert_allclose(loss, losses.softmax_cross_entropy(logits, labels), rtol=1e-5)


def test_a_share_of_the_training_needs_its_length():
    spec = objectives.method_spec("ldam_drw")
    with pytest.raises(InputError, match=r"start_epoch of class_balanced is 0.8, a share of the"):
        objectives.build_objective(spec, COUNTS, steps_per_epoch=4)


@pytest.mark.parametrize(
    ("dtype", "classes"), [("uint8", 256), ("uint8", 300), ("int8", 200), ("int16", 40_000)]
)
def test_small_integer_types_hold_labels_of_many_classes(dtype, classes):
    """The number of classes would be another one in them."""
    logits = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    labels = np.array([3, 100, 44], dtype)
    expected = losses.softmax_cross_entropy(logits, labels.astype(np.int32))
    for loss in (losses.softmax_cross_entropy, jax.jit(losses.softmax_cross_entropy)):
        np.testing.assert_allclose(loss(logits, labels), expected, rtol=1e-6)


def test_labels_in_shards_are_checked_too():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    labels = jax.device_put(np.full(8, 9), jax.sharding.NamedSharding(mesh, jax.P("d")))
    with pytest.raises(InputError, match="labels hold 9; expected 0 to 4"):
        losses.softmax_cross_entropy(np.zeros((8, 5), np.float32), labels)
