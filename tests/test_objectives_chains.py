"""Transforms and base losses in one chain: which combine, what they give, which are refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from every_method import (
    CLASSES,
    COUNTS,
    KEY,
    ORDINARY,
    SIGMOID,
    SOFTMAX,
    active_state,
    batch,
    step_of,
)
from ml_collections import ConfigDict

from lt_jax import longtail, losses, objectives
from lt_jax.errors import InputError
from lt_jax.losses import margins
from lt_jax.objectives import BASES, TRANSFORMS, chain


def transform_of(name, counts=COUNTS):
    """A transform with its defaults, by its name in the registry."""
    options = {"update_every": 2} if name == "partial_label_mask" else {}
    if name not in ("scale_logits", "focal"):
        options["class_counts"] = counts
    return TRANSFORMS[name](**options)


def base_of(name):
    return BASES[name](COUNTS) if name == "negative_tolerant" else BASES[name]()


# Composition


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


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("cosines", sorted(COSINES))
def test_priors_are_of_the_scaled_logits(cosines, order):
    """``s f + log prior``: the other way round the prior would be s times too large."""
    logits, labels = (x[:ORDINARY] for x in batch())
    pair = transform_of(cosines), objectives.logit_adjustment(COUNTS)
    z = np.asarray(logits) * 30.0
    targets = np.eye(CLASSES)[labels]
    if cosines == "label_distribution_margin":
        z -= 30.0 * targets * longtail.label_distribution_margins(COUNTS, 0.5)
    elif cosines == "gaussian_cloud":
        cloud = np.asarray(margins.draw_cloud(jax.random.fold_in(KEY, 0), logits.shape))
        z = reference.clouded_logits(logits, labels, COUNTS, cloud, 0.5, 0.0, 30.0)
    z = z + np.log(COUNTS / COUNTS.sum())
    expected = np.log(np.exp(z).sum(axis=1)) - (z * targets).sum(axis=1)
    specs = {"transforms": {t.name: {} for t in pair[::order]}}
    for objective in (
        chain(*pair[::order], base=SOFTMAX),
        objectives.build_objective(specs, COUNTS),
        objectives.build_objective(ConfigDict(specs).to_dict(), COUNTS),  # which sorts by name
    ):
        loss, _ = objective.apply(objective.init(), KEY, jnp.float32(logits), labels)
        np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("base", BASES)
def test_pairs_mean_the_same_in_any_order_in_a_spec(base):
    logits, labels = (x[:ORDINARY] for x in batch())
    for names in itertools.combinations(TRANSFORMS, 2):
        if meaningless(names, base):
            continue
        found = []
        for listed in (names, names[::-1]):
            spec = {"base": base, "transforms": {name: {} for name in listed}}
            objective = objectives.build_objective(spec, COUNTS, steps_per_epoch=2)
            state = active_state(objective)
            found.append(objective.apply(state, KEY, jnp.float32(logits), labels)[0])
        np.testing.assert_array_equal(*found, err_msg=str(names))


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


# Refusals


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: chain(base="softmax"), "base is 'softmax'; expected a Base, such as objectives"),
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
