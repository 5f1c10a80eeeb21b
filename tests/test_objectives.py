"""Objectives: every registered method held to the same rules, composition, state, sharding, specs.

Compiling is what takes time here: each method is compiled once in float32 for one batch that holds
ordinary logits and logits of +-1e4, and the tests share what it gives.
"""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compiling import optimised_jit
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lt_jax import losses, objectives
from lt_jax.errors import InputError
from lt_jax.losses import margins
from lt_jax.objectives import BASES, METHODS, TRANSFORMS, build_objective, chain, method_spec

COUNTS = np.array([500, 120, 60, 20, 4])
CLASSES = len(COUNTS)
KEY = jax.random.key(11)
SIGMOID, SOFTMAX = objectives.sigmoid_cross_entropy, objectives.softmax_cross_entropy
# Rows of the batch: the first are ordinary (and cosines), the rest extreme.
ORDINARY = 8
IDEAL_SHIFT = np.array([0.5, 2.0, 1.0, 0.3, 4.0])


@cache
def batch():
    """Logits and labels: ordinary rows in [-1, 1], then -1e4, 0, 1e4 in many combinations."""
    rng = np.random.default_rng(0)
    extreme = np.array(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)))
    extreme = np.concatenate([extreme, extreme[:, :2]], 1)
    logits = np.concatenate([rng.uniform(-0.99, 0.99, (ORDINARY, CLASSES)), extreme])
    return logits, rng.integers(CLASSES, size=len(logits))


def spec_of(name):
    """The method's spec, with deferral that is over when `active_state` begins."""
    spec = method_spec(name)
    for options in spec["transforms"].values():
        if options.get("start_epoch"):
            options["start_epoch"] = 1
    return spec


@cache
def objective_of(name):
    return build_objective(spec_of(name), COUNTS, steps_per_epoch=4)


def active_state(objective):
    """A state in which everything acts: deferrals are over and some labels are masked."""

    def activate(state):
        if isinstance(state, objectives.PartialLabelState):
            return state._replace(ideal_ratio=state.ideal_ratio * IDEAL_SHIFT)
        return state._replace(step=state.step + 4) if hasattr(state, "step") else state

    return tuple(activate(s) for s in objective.init())


def step_of(objective):
    """``(state, key, logits, labels) -> loss [B], state, gradient [B, C]`` of an objective."""

    def step(state, key, logits, labels):
        def summed(z):
            loss, new_state = objective.apply(state, key, z, labels)
            return loss.sum(), (loss, new_state)

        gradient, (loss, new_state) = jax.grad(summed, has_aux=True)(logits)
        return loss, new_state, gradient

    return step


@cache
def in_float32(name):
    """What `step_of` gives for the whole batch, compiled as users have it."""
    logits, labels = batch()
    objective = objective_of(name)
    return optimised_jit(step_of(objective))(
        active_state(objective), KEY, jnp.float32(logits), labels
    )


def assert_trees_close(one, other, **tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **tolerance)


def assert_same_loss(name, one, other):
    """Of the whole batch, compiled in two ways: to a few roundings in float32."""
    cosine = objective_of(name).wants_cosines
    # Logits of 30 are spaced by 2e-6 in float32, which a loss of nearly 0 cannot do better than;
    # 1e4 is no cosine: at scale 30 it makes 3e5, spaced by 1 / 32.
    rows, near_zero = (slice(ORDINARY), 4e-6) if cosine else (slice(None), 1e-6)
    np.testing.assert_allclose(one[rows], other[rows], rtol=2e-6, atol=near_zero, err_msg=name)
    np.testing.assert_allclose(one, other, rtol=2e-6, atol=1 / 32, err_msg=name)


# Every registered method


@pytest.mark.parametrize("name", METHODS)
def test_shape_and_jit_equal_to_eager(name):
    logits, labels = batch()
    objective = objective_of(name)
    loss, state, gradient = in_float32(name)
    assert loss.shape == labels.shape
    assert gradient.shape == logits.shape
    assert jax.tree.structure(state) == jax.tree.structure(objective.init())
    eager, eager_state = objective.apply(
        active_state(objective), KEY, jnp.float32(logits), jnp.asarray(labels)
    )
    assert_same_loss(name, loss, eager)
    assert_trees_close(state, eager_state, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_large_logits_stay_finite(name, dtype):
    logits, labels = batch()
    if dtype == "float32":
        loss, state, gradient = in_float32(name)
    else:
        objective = objective_of(name)
        loss, state, gradient = jax.jit(step_of(objective))(
            active_state(objective), KEY, jnp.asarray(logits, dtype), labels
        )
    assert loss.dtype == jnp.float32
    assert gradient.dtype == dtype
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient.astype(jnp.float32)).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_and_replicas(name, x64):
    """Against central differences in float64; and `vmap` over replicas against a loop over them."""
    logits, labels = (x[:ORDINARY] for x in batch())
    spec = spec_of(name)
    if (
        name == "seesaw"
    ):  # its compensation is held constant by the gradient: see test_losses_reference
        spec["transforms"]["seesaw"]["compensation"] = 0.0
    objective = build_objective(spec, COUNTS, steps_per_epoch=4)
    state, step = active_state(objective), step_of(objective)
    single = jax.jit(step)
    direction, size = np.random.default_rng(1).normal(size=logits.shape), 1e-6
    replicas = [logits, logits + size * direction, logits - size * direction]
    loop = [single(state, KEY, jnp.asarray(z), labels) for z in replicas]
    given = (loop[0][2] * direction).sum(-1)
    difference = (loop[1][0] - loop[2][0]) / (2 * size)
    # Losses of up to 50, rounded to 1e-16 of themselves and divided by 2e-6.
    np.testing.assert_allclose(given, difference, rtol=1e-6, atol=3e-8)

    states, keys = jax.tree.map(lambda x: jnp.stack([x] * 3), state), jnp.stack([KEY] * 3)
    together = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)))(
        states, keys, jnp.stack(replicas), labels
    )
    for i, alone in enumerate(loop):
        replica = jax.tree.map(lambda x, i=i: x[i], together)
        assert_trees_close(replica, alone, rtol=1e-9, atol=1e-12)


def test_class_permutation_equivariance(monkeypatch):
    """Classes have no order: permuting counts, logits, labels and state changes no loss."""
    # Drawn noise has an order, so every cloud is 0.7, and every label is masked surely or never.
    monkeypatch.setattr(
        margins, "draw_cloud", lambda key, shape, dtype: jnp.full(shape, 0.7, dtype)
    )
    order = np.array([3, 0, 4, 2, 1])
    surely = np.array([1e-30, 1.0, 1e30, 1.0, 1e-30], np.float32)

    def losses_in(order, logits, labels):
        def loss_of(name):
            spec = spec_of(name)
            if name == "equalization":
                spec["transforms"][name]["probability"] = 1.0
            objective = build_objective(spec, COUNTS[order], steps_per_epoch=4)
            state = tuple(
                s._replace(ideal_ratio=first.ideal_ratio * surely[order])
                if isinstance(s, objectives.PartialLabelState)
                else s
                for s, first in zip(active_state(objective), objective.init(), strict=True)
            )
            return objective.apply(state, KEY, logits, labels)[0]

        return {name: loss_of(name) for name in METHODS}

    logits, labels = (x[:ORDINARY] for x in batch())
    same = np.arange(CLASSES)
    one, other = jax.jit(
        lambda z, y: (
            losses_in(same, z, y),
            losses_in(order, z[:, order], jnp.asarray(np.argsort(order))[y]),
        )
    )(jnp.float32(logits), labels)
    for name in METHODS:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_methods_equal_the_plain_functions():
    """For the same key: the chain folds the place of the transform into it."""
    logits, labels = batch()
    key = jax.random.fold_in(KEY, 0)
    ratio = losses.label_ratio(COUNTS)
    ideal = np.float32(ratio) * IDEAL_SHIFT.astype(np.float32)

    @jax.jit
    def plain(z, y):
        masked = partial(losses.partial_label_masked_cross_entropy, z, y, ratio, ideal, key=key)
        clouded = partial(losses.gaussian_clouded_cross_entropy, z, y, COUNTS, key=key)
        return {
            "cross_entropy": losses.softmax_cross_entropy(z, y),
            "sigmoid": losses.sigmoid_cross_entropy(z, y),
            "cosine": losses.softmax_cross_entropy(30.0 * z, y),
            "focal": losses.sigmoid_focal_loss(z, y, gamma=1.0),
            "softmax_focal": losses.softmax_focal_loss(z, y, gamma=1.0),
            "cb_softmax": losses.class_balanced_softmax_cross_entropy(z, y, COUNTS),
            "cb_sigmoid": losses.class_balanced_sigmoid_cross_entropy(z, y, COUNTS),
            "cb_focal": losses.class_balanced_focal_loss(z, y, COUNTS),
            "logit_adjustment": losses.logit_adjusted_cross_entropy(z, y, COUNTS),
            "balanced_softmax": losses.balanced_softmax_cross_entropy(z, y, COUNTS),
            "ldam": losses.ldam_loss(z, y, COUNTS),
            "gcl": clouded(),
            "gcl_angular": clouded(angular=True),
            "plm": masked(),
            "plm_softmax": masked(base="softmax"),
            "equalization": losses.equalization_loss(z, y, COUNTS, key=key),
            "seesaw": losses.seesaw_loss(z, y, COUNTS),
            "asymmetric": losses.asymmetric_loss(z, y),
            "distribution_balanced": losses.distribution_balanced_loss(z, y, COUNTS),
            "weighted_sigmoid": losses.weighted_sigmoid_cross_entropy(z, y, COUNTS),
        }

    expected = plain(jnp.float32(logits), labels)
    assert set(METHODS) - set(expected) == {"inverse_frequency", "ldam_drw"}
    for name, value in expected.items():
        assert_same_loss(name, in_float32(name)[0], value)


def test_the_two_methods_without_a_plain_function():
    logits, labels = (x[:ORDINARY] for x in batch())
    weights = len(COUNTS) / COUNTS / (1 / COUNTS).sum()
    np.testing.assert_allclose(
        in_float32("inverse_frequency")[0][:ORDINARY],
        weights[labels] * reference.softmax_cross_entropy(logits, labels),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        in_float32("ldam_drw")[0][:ORDINARY],
        reference.class_balanced_weights(COUNTS, 0.9999)[labels]
        * reference.ldam(logits, labels, COUNTS, 0.5, 30.0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_every_method_is_what_its_line_in_the_registry_says():
    for name, method in METHODS.items():
        spec = method_spec(name)
        assert spec["base"] == method.base, name
        assert list(spec["transforms"]) == list(method.transforms), name
        assert objective_of(name).competing == (method.base == "softmax"), name


# Composition


def transform_of(name, counts=COUNTS):
    """A transform with its defaults, by its name in the registry."""
    options = {"update_every": 2} if name == "partial_label_mask" else {}
    if name not in ("scale_logits", "focal"):
        options["class_counts"] = counts
    return TRANSFORMS[name](**options)


def base_of(name):
    return BASES[name](COUNTS) if name == "negative_tolerant" else BASES[name]()


COSINES = {"scale_logits", "gaussian_cloud", "label_distribution_margin"}


def meaningless(names, base):
    return (
        len(COSINES & set(names)) > 1
        or ("seesaw" in names and base != "softmax")
        or ({"rebalanced", "positive_weight"} & set(names) and base == "softmax")
        or ("focal" in names and base == "asymmetric")
    )


@pytest.mark.parametrize("base", BASES)
def test_every_pair_composes_or_is_refused(base):
    labels = jnp.zeros(3, jnp.int32), jnp.zeros((3, CLASSES))
    for names in itertools.combinations(TRANSFORMS, 2):
        transforms = [transform_of(n) for n in names]
        if meaningless(names, base):
            with pytest.raises(InputError, match=r"^\w+( and \w+)? do(es)? not combine.*: .{20,}"):
                chain(*transforms, base=base_of(base))
            continue
        objective = chain(*transforms, base=base_of(base))
        assert objective.wants_cosines == bool(COSINES & set(names))
        for y in labels[names == ("class_balanced", "focal") :]:
            loss, state = jax.eval_shape(
                objective.apply, objective.init(), KEY, jnp.zeros((3, CLASSES)), y
            )
            assert (loss.shape, loss.dtype) == ((3,), jnp.float32)
            assert jax.tree.structure(state) == jax.tree.structure(objective.init())


@pytest.mark.parametrize("base", [SIGMOID, SOFTMAX], ids=["sigmoid", "softmax"])
def test_four_transforms_in_one_chain(base):
    """CB + focal + PLM + GCL, listed in any order, against the definition written out."""
    logits, labels = (x[:ORDINARY] for x in batch())
    transforms = [
        objectives.partial_label_mask(COUNTS, update_every=2),
        objectives.focal(gamma=2.0),
        objectives.gaussian_cloud(COUNTS, scale=4.0),
        objectives.class_balanced(COUNTS, beta=0.99),
    ]
    objective = chain(*transforms, base=base)
    # The stages are sorted, so only the order within a stage may differ.
    other = chain(*transforms[::-1], base=base)
    state = active_state(objective)
    arguments = (state, KEY, jnp.float32(logits), labels)
    loss, new_state, gradient = jax.jit(step_of(objective))(*arguments)
    assert np.isfinite(gradient).all()
    for a, b in zip(other.init(), objective.init(), strict=True):
        assert type(a) is type(b)

    cloud = np.asarray(margins.draw_cloud(jax.random.fold_in(KEY, 0), logits.shape))
    uniform = np.asarray(jax.random.uniform(jax.random.fold_in(KEY, 3), logits.shape))
    ratio, targets = losses.label_ratio(COUNTS), np.eye(CLASSES)[labels]
    ideal = np.asarray(state[3].ideal_ratio)
    keep = uniform < reference.keep_probabilities(targets, ratio, ideal)
    z = reference.clouded_logits(logits, labels, COUNTS, cloud, 0.5, 0.0, 4.0)
    weight = reference.class_balanced_weights(COUNTS, 0.99)[labels]
    if base is SOFTMAX:
        p = np.array([reference.softmax(row)[y] for row, y in zip(z, labels, strict=True)])
        expected = weight * (1 - p) ** 2 * reference.masked_softmax(z, targets, keep)
        predicted = np.array([reference.softmax(4.0 * row) for row in logits])
    else:
        p_t = np.where(targets == 1, reference.sigmoid(z), 1 - reference.sigmoid(z))
        expected = weight * (keep * (1 - p_t) ** 2 * -np.log(p_t)).sum(-1)
        predicted = reference.sigmoid(4.0 * logits)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-6)
    # PLM sees what the network predicts, not the clouded logits.
    for counted, histogram in zip(
        (new_state[3].positives, new_state[3].negatives),
        reference.probability_histograms(predicted, targets),
        strict=True,
    ):
        np.testing.assert_array_equal(counted, histogram)
    np.testing.assert_allclose(objective.probabilities(jnp.float32(logits)), predicted, rtol=1e-5)


def test_labels_of_both_ranks_agree_where_they_mean_the_same():
    logits, labels = (x[:ORDINARY] for x in batch())
    for name in ("cross_entropy", "cb_softmax", "focal", "plm"):
        objective = objective_of(name)
        state = active_state(objective)
        one_hot, _ = jax.jit(objective.apply)(
            state, KEY, jnp.float32(logits), np.eye(CLASSES)[labels]
        )
        np.testing.assert_allclose(one_hot, in_float32(name)[0][:ORDINARY], rtol=2e-6)


# Refusals


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: chain(base="softmax"), "base is 'softmax'; expected one of"),
        (
            lambda: chain(objectives.focal, base=SIGMOID),
            "is not a loss transform; call its factory",
        ),
        (
            lambda: chain(transform_of("focal"), transform_of("focal"), base=SIGMOID),
            "focal is in the chain 2 times; expected once",
        ),
        (
            lambda: objectives.deferred(transform_of("gaussian_cloud"), 3),
            "gaussian_cloud cannot be deferred: it scales the cosines",
        ),
        (
            lambda: objectives.deferred(transform_of("focal"), -1),
            "start_step is -1; expected a whole number of at least 0",
        ),
        (
            lambda: objectives.deferred(transform_of("focal"), 1.5),
            "start_step is 1.5; expected a whole number",
        ),
        (lambda: objectives.asymmetric(clip=1.0), r"clip is 1; expected a number in \[0, 1\)"),
        (lambda: objectives.focal(gamma=-1.0), r"gamma is -1.0; expected"),
        (lambda: objectives.scale_logits(scale=0.0), r"scale is 0.0; expected"),
        (lambda: objectives.gaussian_cloud([5, 0]), r"class_counts\[1\] is 0; expected at least 1"),
        (
            lambda: objectives.partial_label_mask(COUNTS, update_every=0),
            "update_every is 0; expected a whole number of at least 1",
        ),
        (
            lambda: objectives.negative_tolerant(COUNTS, num_examples=100),
            "num_examples is 100; expected at least the largest count 500",
        ),
    ],
)
def test_refusals(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()


@pytest.mark.parametrize("name", [n for n in TRANSFORMS if n not in ("focal", "scale_logits")])
def test_counts_of_another_length_are_refused(name):
    base = SIGMOID if name in ("rebalanced", "positive_weight") else SOFTMAX
    objective = chain(transform_of(name), base=base)
    with pytest.raises(InputError, match="class_counts are 5, but the logits have 4 classes"):
        jax.eval_shape(objective.apply, objective.init(), KEY, jnp.zeros((2, 4)), jnp.array([0, 1]))


# State


def test_deferred_switches_at_exactly_its_step():
    logits, labels = (x[:ORDINARY] for x in batch())
    mask = objectives.partial_label_mask(COUNTS, update_every=2)
    objective = chain(
        objectives.deferred(objectives.class_balanced(COUNTS, beta=0.99), 2),
        objectives.deferred(mask, 3),
        base=SIGMOID,
    )
    step = jax.jit(objective.apply)
    plain = reference.sigmoid_cross_entropy(logits, labels)
    weighted = reference.class_balanced_weights(COUNTS, 0.99)[labels] * plain
    state = objective.init()
    for n in range(6):
        loss, state = step(state, jax.random.key(n), jnp.float32(logits), labels)
        if n < 5:  # the ideal ratio first differs from the data's after its second step, the 5th
            np.testing.assert_allclose(loss, plain if n < 2 else weighted, rtol=1e-5)
        inner = state[1].inner
        assert state[0].step == state[1].step == n + 1
        assert inner.step == max(0, n - 2)
        seen = int(inner.positives.sum() + inner.negatives.sum())
        assert seen == (ORDINARY * CLASSES if n in (3, 5) else 0)
        assert (inner.ideal_ratio != mask.init().ideal_ratio).any() == (n >= 4)


def test_partial_label_state_follows_the_second_implementation():
    rng = np.random.default_rng(2)
    every, rate, n, size = 3, 0.3, 1000, 40
    objective = chain(
        objectives.partial_label_mask(COUNTS, update_every=every, rate=rate, num_examples=n),
        base=SIGMOID,
    )
    step = jax.jit(objective.apply)
    state, ratio = objective.init(), COUNTS / (n - COUNTS)
    np.testing.assert_allclose(state[0].ideal_ratio, ratio, rtol=1e-6)
    ideal, seen = ratio, np.zeros((2, CLASSES, 10), int)
    for i in range(7):
        logits = rng.normal(size=(size, CLASSES)).astype(np.float32) * 3
        labels = (rng.random((size, CLASSES)) < 0.4).astype(np.float32)
        labels[:, 4] = 0  # never present: keeps its ratio
        where = rng.random(size) < 0.8
        _, state = step(state, jax.random.key(i), logits, labels, where)
        probabilities = reference.sigmoid(logits[where])
        seen = seen + np.array(reference.probability_histograms(probabilities, labels[where]))
        if (i + 1) % every == 0:
            ideal = reference.updated_ideal_ratio(ideal, ratio, *seen, rate)
            seen = np.zeros_like(seen)
        np.testing.assert_allclose(state[0].ideal_ratio, ideal, rtol=1e-5)
        np.testing.assert_array_equal(state[0].positives, seen[0])
        np.testing.assert_array_equal(state[0].negatives, seen[1])
        assert state[0].step == i + 1
    assert ideal[4] == ratio[4]
    assert (ideal[:4] != ratio[:4]).all()


def test_padding_rows_are_neither_loss_nor_state():
    logits, labels = (x[:ORDINARY].copy() for x in batch())
    where = np.arange(ORDINARY) < 5
    logits[~where] = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0])
    objective = chain(
        objectives.gaussian_cloud(COUNTS),
        objectives.class_balanced(COUNTS),
        objectives.focal(),
        objectives.partial_label_mask(COUNTS, update_every=5),
        base=SIGMOID,
    )

    @jax.jit
    def step(z):
        def summed(z):
            loss, state = objective.apply(active_state(objective), KEY, z, labels, where)
            return loss.sum(), (loss, state)

        return jax.grad(summed, has_aux=True)(z)

    gradient, (loss, state) = step(jnp.float32(logits))
    harmless, (loss_0, state_0) = step(jnp.float32(np.where(where[:, None], logits, 0.0)))
    np.testing.assert_array_equal(loss, loss_0)
    np.testing.assert_array_equal(gradient, harmless)
    assert (np.asarray(loss)[~where] == 0).all()
    assert (np.asarray(gradient)[~where] == 0).all()
    assert_trees_close(state, state_0, rtol=0)
    assert state[3].positives.sum() == where.sum()


def test_eight_devices_see_one_global_batch():
    devices = np.array(jax.devices())
    assert len(devices) == 8
    mesh = Mesh(devices, ("data",))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    objective = chain(
        objectives.gaussian_cloud(COUNTS, scale=8.0),
        objectives.class_balanced(COUNTS),
        objectives.focal(),
        objectives.equalization(COUNTS),
        objectives.partial_label_mask(COUNTS, update_every=3, rate=0.5),
        base=SIGMOID,
    )
    rng, step = np.random.default_rng(5), jax.jit(objective.apply)
    one = many = objective.init()
    many = jax.device_put(many, whole)
    for i in range(4):
        logits = rng.uniform(-1, 1, (32, CLASSES)).astype(np.float32)
        labels, key = rng.integers(CLASSES, size=32).astype(np.int32), jax.random.key(i)
        loss_one, one = step(one, key, logits, labels)
        loss_many, many = step(many, key, *jax.device_put((logits, labels), rows))
        assert len(loss_many.sharding.device_set) == 8
        np.testing.assert_allclose(loss_one, loss_many, rtol=1e-6, atol=1e-7)
        assert_trees_close(one, many, rtol=0)
    assert (one[4].ideal_ratio != objective.init()[4].ideal_ratio).all()


# Specs


def test_specs_write_every_option_out():
    for name in METHODS:
        spec = method_spec(name)
        assert set(spec) == {"base", "base_options", "transforms"}
        assert "class_counts" not in str(spec)
    assert method_spec("plm")["transforms"]["partial_label_mask"]["update_every"] == 0
    spec = method_spec("cb_focal")
    spec["transforms"]["focal"]["gamma"] = 9.0
    assert method_spec("cb_focal")["transforms"]["focal"]["gamma"] == 1.0


def test_methods_and_transforms_join():
    spec = method_spec("cb_focal+partial_label_mask+gaussian_cloud")
    assert spec["base"] == "sigmoid"
    assert list(spec["transforms"]) == [
        "class_balanced",
        "focal",
        "partial_label_mask",
        "gaussian_cloud",
    ]
    assert list(method_spec("sigmoid+plm")["transforms"]) == ["partial_label_mask"]
    # Names that are both a method and a transform: first a method, later a transform.
    assert method_spec("focal")["base"] == "sigmoid"
    assert method_spec("cb_softmax+focal")["base"] == "softmax"
    assert method_spec("logit_adjustment+class_balanced")["base"] == "softmax"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cross_entrpy", "method is 'cross_entrpy'; expected one of asymmetric, balanced_softmax"),
        ("gaussian_cloud", "method is 'gaussian_cloud'; expected one of"),
        ("plm+fokal", "method is 'fokal'; expected one of"),
        ("gcl+plm", "plm has base sigmoid and gcl has base softmax; name the transform instead"),
        ("", "method is ''; expected one of"),
    ],
)
def test_bad_method_names(name, sentence):
    with pytest.raises(InputError, match=sentence):
        method_spec(name)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"transform": {}}, "objective has no field 'transform'; it has base, base_options and"),
        (
            {"transforms": {"fokal": {}}},
            "loss transform is 'fokal'; expected one of class_balanced",
        ),
        ({"base": "tanh"}, "base loss is 'tanh'; expected one of asymmetric, negative_tolerant"),
        (
            {"transforms": {"focal": {"gama": 1}}},
            "focal has no option 'gama'; it has differentiate_modulator, gamma",
        ),
        (
            {"transforms": {"class_balanced": {"class_counts": [1]}}},
            "class_balanced has no option 'class_counts'; it has beta",
        ),
        ({"base_options": {"clip": 0}}, "softmax has no option 'clip'; it has none"),
        ({"transforms": {"class_balanced": {"beta": 1}}}, "beta is 1; expected a number in"),
        (
            {"transforms": {"focal": {"start_epoch": -1}}},
            "start_step is -4; expected a whole number of at least 0",
        ),
        (
            {"transforms": {"gaussian_cloud": {"start_epoch": 1}}},
            "gaussian_cloud cannot be deferred",
        ),
        (
            {"transforms": {"scale_logits": {}, "gaussian_cloud": {}}},
            "scale_logits and gaussian_cloud do not combine: each takes cosines and scales them",
        ),
    ],
)
def test_bad_specs(spec, sentence):
    with pytest.raises(InputError, match=sentence):
        build_objective(spec, COUNTS, steps_per_epoch=4)


def first_step_that_differs(objective, changed):
    """At which call, counted from 0, `changed` of the state first holds."""
    logits, labels = (x[:ORDINARY] for x in batch())
    step, state = jax.jit(objective.apply), objective.init()
    for n in range(12):
        loss, state = step(state, KEY, jnp.float32(logits), labels)
        if changed(np.asarray(loss), state):
            return n
    return None


@pytest.mark.parametrize(("every", "expected"), [(0, 6), (3, 3)])
def test_update_every_of_zero_means_an_epoch(every, expected):
    spec = {"base": "sigmoid", "transforms": {"partial_label_mask": {"update_every": every}}}
    objective = build_objective(spec, COUNTS, steps_per_epoch=6)
    start = objective.init()[0].ideal_ratio
    n = first_step_that_differs(objective, lambda _, s: (s[0].ideal_ratio != start).any())
    assert n == expected - 1


def test_start_epoch_is_counted_in_steps():
    logits, labels = (x[:ORDINARY] for x in batch())
    plain = reference.softmax_cross_entropy(logits, labels)
    spec = {"transforms": {"class_balanced": {"beta": 0.99, "start_epoch": 1.5}}}
    objective = build_objective(spec, COUNTS, steps_per_epoch=6)
    n = first_step_that_differs(objective, lambda loss, _: not np.allclose(loss, plain, rtol=1e-4))
    assert n == 9


def test_num_examples_reach_the_ratios():
    objective = build_objective(method_spec("plm"), COUNTS, num_examples=1000)
    np.testing.assert_allclose(objective.init()[0].ideal_ratio, COUNTS / (1000 - COUNTS), rtol=1e-6)
