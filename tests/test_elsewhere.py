"""Losses, metrics and samplers in programs of other projects: exported, mapped over, sharded."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_loss import COUNTS, LOSSES
from every_method import KEY, active_state, objective_of
from flax import nnx
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lt_jax import augment, data, longtail, losses, metrics, objectives, sharding
from lt_jax.autoaugment import autoaugment
from lt_jax.color import color_jitter
from lt_jax.errors import InputError
from lt_jax.models import create_model
from lt_jax.objectives import METHODS
from lt_jax.objectives.core import stateless

LABELS = np.array([0, 1, 2, 3, 4, 0])
LOGITS = np.random.default_rng(0).uniform(-1, 1, (6, 5)).astype(np.float32)
LINEAR = objectives.softmax_cross_entropy

# Exported


@pytest.mark.parametrize("name", LOSSES)
def test_losses_can_be_exported_for_any_batch(name):
    (size,) = export.symbolic_shape("b")
    shapes = jax.ShapeDtypeStruct((size, 5), np.float32), jax.ShapeDtypeStruct((size,), np.int32)
    program = export.export(jax.jit(LOSSES[name]))(*shapes)
    for rows in (2, 6):
        given = LOGITS[:rows], LABELS[:rows].astype(np.int32)
        if "key" in LOSSES[name].keywords and "partial" not in name:
            assert program.call(*given).shape == (rows,)  # draws depend on how many there are
        else:
            np.testing.assert_allclose(program.call(*given), LOSSES[name](*given), rtol=1e-6)


# Numbers that are mapped over

MAPPED = {
    "kappa": lambda v: losses.distribution_balanced_loss(LOGITS, LABELS, COUNTS, kappa=v),
    "kappa of a base": lambda v: loss_of(
        objectives.chain(base=objectives.negative_tolerant(COUNTS, kappa=v))
    ),
    "max_margin": lambda v: losses.ldam_loss(LOGITS, LABELS, COUNTS, max_margin=v),
    "max_margin of a transform": lambda v: loss_of(
        objectives.chain(objectives.label_distribution_margin(COUNTS, max_margin=v), base=LINEAR)
    ),
    "tau": lambda v: losses.logit_adjusted_cross_entropy(LOGITS, LABELS, COUNTS, tau=v),
    "gamma": lambda v: losses.class_balanced_focal_loss(LOGITS, LABELS, COUNTS, gamma=v),
}


def loss_of(objective):
    return objective.apply(objective.init(), KEY, LOGITS, LABELS)[0]


@pytest.mark.parametrize("name", MAPPED)
def test_numbers_can_be_mapped_over(name):
    values = jnp.array([0.0, 0.05, 0.4])
    each = [MAPPED[name](float(v)) for v in values]
    np.testing.assert_allclose(jax.vmap(MAPPED[name])(values), each, rtol=2e-6)


TRACED = {
    "beta": lambda v: losses.class_balanced_focal_loss(LOGITS, LABELS, COUNTS, beta=v),
    "beta of a transform": lambda v: objectives.class_balanced(COUNTS, beta=v),
    "power": lambda v: losses.weighted_sigmoid_cross_entropy(LOGITS, LABELS, COUNTS, power=v),
    "threshold": lambda v: losses.equalization_loss(LOGITS, LABELS, COUNTS, key=KEY, threshold=v),
    "threshold of a transform": lambda v: objectives.equalization(COUNTS, threshold=v),
    "class_counts": lambda v: losses.ldam_loss(LOGITS, LABELS, 100 * v + jnp.ones(5)),
    "class_counts in a list": lambda v: losses.ldam_loss(LOGITS, LABELS, [v, 1, 2, 3, 4]),
    "num_examples": lambda v: objectives.negative_tolerant(COUNTS, num_examples=v),
}


@pytest.mark.parametrize("name", TRACED)
def test_what_vectors_are_made_of_on_the_host_cannot_be_traced(name):
    """And the sentence says so, not that a traced number is none."""
    sentence = f"^{name.split()[0]} is traced by JAX; expected a value from outside"
    with pytest.raises(InputError, match=sentence):
        jax.jit(TRACED[name])(0.5)


# Modes of JAX


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_methods_need_no_implicit_promotion(name, dtype):
    objective = objective_of(name)
    given = KEY, jnp.asarray(LOGITS, dtype), jnp.asarray(LABELS, jnp.int8)
    with jax.numpy_dtype_promotion("strict"):
        loss, _ = objective.apply(active_state(objective), *given)
    assert np.isfinite(loss).all()


def test_a_class_without_a_ratio_is_no_accident():
    """`jax.debug_nans` stops at every NaN that is computed; masks mean something by theirs."""
    plm = objectives.partial_label_mask([50, 20, 0, 5, 100], update_every=2, num_examples=100)
    objective = objectives.chain(plm, base=objectives.sigmoid_cross_entropy)
    with jax.debug_nans(True):
        state = objective.init()
        for _ in range(3):
            _, state = jax.jit(objective.apply)(state, KEY, LOGITS, LABELS)
        report = objective.report(state)
    np.testing.assert_allclose(report["ratio"], [1.0, 0.25, 1.0, 5 / 95, 1.0], rtol=1e-6)


# Meshes with explicit axes, as `jax.make_mesh` makes them


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))


IMAGES = np.random.default_rng(1).integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
AUGMENTED = {
    "random_crop": lambda x: augment.random_crop(KEY, x, 2),
    "random_flip": lambda x: augment.random_flip(KEY, x),
    "cutout": lambda x: augment.cutout(KEY, x, 4),
    "mixup": lambda x: augment.mixup(KEY, x, 0.4),
    "autoaugment": lambda x: autoaugment(KEY, x),
    "color_jitter": lambda x: color_jitter(KEY, x, brightness=0.4, contrast=0.4, saturation=0.4),
    "normalize": lambda x: augment.normalize(x, [0.5] * 3, [0.2] * 3),
    "augment": lambda x: augment.augment(
        KEY, x, crop_padding=1, flip=True, color_jitter=0.3, autoaugment=True, cutout_size=2
    ),
}


@pytest.mark.parametrize("in_context", [False, True], ids=["no context", "set_mesh"])
@pytest.mark.parametrize("name", AUGMENTED)
def test_augmentation_is_the_same_on_explicit_axes(name, in_context, mesh):
    spread = jax.device_put(IMAGES, NamedSharding(mesh, PartitionSpec("d")))
    expected = AUGMENTED[name](jnp.asarray(IMAGES))
    with jax.set_mesh(mesh) if in_context else contextlib.nullcontext():
        found = jax.jit(AUGMENTED[name])(spread)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-3), found, expected
    )
    assert jax.tree.leaves(found)[0].sharding.spec[0] == "d"


@pytest.mark.parametrize("compiled", [False, True])
def test_counts_are_the_same_on_explicit_axes(compiled, mesh):
    rng = np.random.default_rng(2)
    logits, labels, where = rng.normal(size=(8, 3)), rng.integers(3, size=8), np.arange(8) < 7
    hot = rng.integers(2, size=(8, 3))
    for count, targets in ((metrics.count, labels), (metrics.multi_label_count, hot)):
        arrays = [np.float32(logits), np.float32(jax.nn.softmax(logits)), targets, where]
        spread = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("d")))
        found = (jax.jit(count) if compiled else count)(*spread)
        for one, other in zip(found, count(*map(jnp.asarray, arrays)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_functions_stay_themselves_where_axes_are_not_explicit():
    assert sharding.automatic(jnp.sin, jnp.ones(3)) is jnp.sin
    spread = jax.device_put(np.ones(8), sharding.split_batch(sharding.make_mesh(8)))
    assert sharding.automatic(jnp.sin, spread) is jnp.sin


# Counts of what is no prediction, or no class


def test_nothing_is_among_the_five_largest_where_logits_are_nan():
    wrong = jnp.full((6, 12), jnp.nan)
    found = metrics.scores(metrics.count(wrong, wrong, jnp.arange(6)), [9] * 12)
    assert found["top5"] == 0.0
    one = jnp.zeros((1, 12)).at[0, 3].set(1.0).at[0, 4].set(jnp.nan)
    assert metrics.count(one, one, jnp.array([3])).top5 == 1  # another one's NaN may be larger
    assert metrics.count(one, one, jnp.array([4])).top5 == 0


@pytest.mark.parametrize("label", [-1, 12])
def test_a_label_that_is_no_class_is_not_counted(label):
    """-1 would be the last class, mostly the rarest."""
    logits = jnp.zeros((6, 12)).at[:, 11].set(9.0)
    given = logits, jax.nn.softmax(logits), jnp.array([11, 1, label, label, label, label])
    with pytest.raises(InputError, match=f"labels hold {label}; expected 0 to 11"):
        metrics.count(*given)
    found = jax.jit(metrics.count)(*given)
    right = metrics.count(*(array[:2] for array in given))
    for name in ("confusion", "total", "correct", "bin_count", "bin_confidence", "top5"):
        np.testing.assert_array_equal(getattr(found, name), getattr(right, name))
    assert np.isnan(found.nll)
    padded = jax.jit(metrics.count)(*given, jnp.arange(6) < 2)
    jax.tree.map(np.testing.assert_array_equal, padded, right)


def test_counts_take_what_numpy_takes():
    given = LOGITS.tolist(), np.exp(LOGITS).tolist(), LABELS.tolist()
    whole = metrics.count(*given, [True] * 6)
    jax.tree.map(np.testing.assert_array_equal, metrics.count(*given), whole)
    with pytest.raises(InputError, match=r"have shapes \(6, 5\), \(6, 5\) and \(6, 5\); expected"):
        metrics.count(LOGITS, LOGITS, np.eye(5)[LABELS])
    with pytest.raises(InputError, match=r"class_counts have shape \(4,\); expected \(5,\)"):
        metrics.scores(whole, [1, 2, 3, 4])


# Samplers by themselves


@pytest.mark.parametrize(("dtype", "classes"), [(np.uint8, 256), (np.int8, 128)])
def test_images_that_take_no_part_are_not_drawn(dtype, classes):
    """The number of classes, which stands for them in sorting, is no such integer."""
    labels = np.array([5, 5, 0, classes - 1, 7], dtype)
    members = data.members_of(labels, classes, np.array([1, 0, 1, 1, 0], bool))
    assert data.one_of_each(KEY, members, jnp.array([0, 5, classes - 1])).tolist() == [2, 0, 3]


def test_progressive_sampling_ends_with_classes_alike():
    """Also in epochs after the last that were planned."""
    labels = np.repeat([0, 1], [900, 100])
    order = data.make_order({"scheme": "progressive"}, labels, 2, 1000, epochs=10)
    for epoch in (10, 15, 30):
        assert abs(labels[order(KEY, epoch)].mean() - 0.5) < 0.05


@pytest.mark.parametrize("scheme", ["effective_number", "class_based_effective_number", "power"])
def test_a_scheme_alone_has_the_numbers_of_its_probabilities(scheme):
    from lt_jax.longtail import sampling_probabilities

    labels = np.repeat([0, 1], [900, 100])
    order = data.make_order({"scheme": scheme}, labels, 2, 1000, 1)
    share = sampling_probabilities([900, 100], scheme)[1]
    assert abs(labels[order(KEY, 0)].mean() - share) < 0.05


# Mistakes with objectives


def test_a_state_of_another_objective_is_refused():
    objective = objectives.chain(objectives.focal(), base=LINEAR)
    for state in ((), None, ((), ())):
        with pytest.raises(InputError, match=r"^state is .*expected that of the objective's init"):
            objective.apply(state, KEY, LOGITS, LABELS)


@pytest.mark.parametrize("base", ["softmax", objectives.asymmetric, objectives.BASES["softmax"]])
def test_what_is_no_base_is_refused(base):
    with pytest.raises(InputError, match=r"expected a Base, such as objectives.softmax_cross_entr"):
        objectives.chain(base=base)


def test_an_unknown_stage_is_refused():
    own = stateless(lambda key, terms: terms, name="own", stage="logit")
    with pytest.raises(InputError, match=r"own has stage 'logit'; expected one of .*logits"):
        objectives.chain(own, base=LINEAR)


# Numbers by themselves


def test_shares_of_labels_are_not_counted_as_none():
    """Smoothed or mixed labels, cut off to integers, would be no positives at all."""
    with pytest.raises(InputError, match=r"labels hold 0\.9; expected multi-hot ones, 0 or 1"):
        longtail.count_classes([[0.9, 0.1], [0.1, 0.9]], 2)
    assert longtail.count_classes(np.float32([[1, 0], [1, 1]]), 2).tolist() == [2, 1]


def test_a_threshold_below_infinite_logits_is_no_nan():
    found = metrics.tune_thresholds([[np.inf, np.inf], [np.inf, 3.0]], [[1, 1], [1, 0]])
    assert found.tolist() == [-np.inf, 3.0]  # what is above is a positive


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed is -1; expected a whole number of at least 0"):
        longtail.multi_label_indices([[1, 0], [0, 1]], [1, 1], seed=-1)


def test_a_transformer_takes_an_empty_batch():
    shape = {"image_shape": (32, 32, 3), "num_classes": 3}
    model = create_model("vit_tiny16", **shape, rngs=nnx.Rngs(0))
    assert model(jnp.zeros((0, 32, 32, 3)), train=False).shape == (0, 3)


def test_arrays_of_numpy_are_of_the_right_type(tmp_path):
    """For a type checker in strict mode; at run time they always were."""
    code = tmp_path / "program.py"
    code.write_text(PROGRAM)
    exec(compile(PROGRAM, str(code), "exec"), {})
    options = ["--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")]
    api = pytest.importorskip("mypy.api")
    output, errors, status = api.run([*options, str(code)])
    assert (status, errors) == (0, ""), output


PROGRAM = """
import jax
import numpy as np

from lt_jax import augment, losses, metrics, objectives

z, y, where = np.zeros((8, 3), np.float32), np.zeros(8, np.int32), np.ones(8, bool)
key = jax.random.key(0)
loss: jax.Array = losses.softmax_cross_entropy(z, y, weights=np.ones((8, 3)), where=where)
loss = losses.gaussian_clouded_cross_entropy(z, y, [3, 2, 1], key=key, where=where)
objective = objectives.chain(objectives.focal(), base=objectives.softmax_cross_entropy)
loss, state = objective.apply(objective.init(), key, z, y, where)
loss, state = objectives.mixed_loss(objective, state, key, z, np.zeros(16, np.int32), 0.5)
counts: metrics.Counts = metrics.count(z, objective.probabilities(z), y, where)
several: metrics.MultiLabelCounts = metrics.multi_label_count(z, z, np.zeros((8, 3)), where)
images: jax.Array = augment.random_crop(key, np.zeros((2, 8, 8, 3), np.uint8), 1)
"""
