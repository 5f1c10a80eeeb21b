"""Objectives on multi-hot labels: values, classes that none or all have, what is refused."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from every_method import step_of

from lt_jax import longtail, losses, objectives
from lt_jax.errors import InputError
from lt_jax.objectives import METHODS, build_objective, check_multi_label, method_spec

KEY = jax.random.key(3)
NUM_EXAMPLES = 40
COUNTS = {"ordinary": (30, 12, 7, 2, 1), "constant": (40, 0, 19, 3, 1)}
SIGMOID_METHODS = sorted(name for name, method in METHODS.items() if method.base != "softmax")
COMPOSED = (
    "plm+cb_focal",
    "sigmoid+equalization",
    "sigmoid+inverse_frequency",
    "sigmoid+gaussian_cloud",
    "sigmoid+label_distribution_margin",
)


def multi_hot(kind):
    """Labels uint8 ``[N, C]`` that have those counts; with ``ordinary`` also no label and all."""
    rng, labels = np.random.default_rng(1), np.zeros((NUM_EXAMPLES, 5), np.uint8)
    first = 2 if kind == "ordinary" else 0
    labels[1:first] = 1
    for c, count in enumerate(COUNTS[kind]):
        rows = first + rng.permutation(NUM_EXAMPLES - first)
        labels[rows[: count - labels[:, c].sum()], c] = 1
    assert tuple(labels.sum(0)) == COUNTS[kind]
    return labels


def objective_of(name, kind):
    length = {"steps_per_epoch": 4, "epochs": 5}
    return build_objective(method_spec(name), COUNTS[kind], **length, num_examples=NUM_EXAMPLES)


def masking(objective, shift):
    """A state in which the ideal ratios of partial label masking are not the data's."""
    return tuple(
        s._replace(ideal_ratio=s.ideal_ratio * shift) if hasattr(s, "ideal_ratio") else s
        for s in objective.init()
    )


def plm_keep(labels, kind, place, shift):
    counts = np.array(COUNTS[kind], float)
    with np.errstate(divide="ignore"):
        ratio = counts / (NUM_EXAMPLES - counts)
    constant = (counts == 0) | (counts == NUM_EXAMPLES)
    uniform = np.asarray(jax.random.uniform(jax.random.fold_in(KEY, place), labels.shape))
    ideal = np.where(constant, 1.0, ratio * shift)
    return constant | (uniform < reference.keep_probabilities(labels, np.nan_to_num(ratio), ideal))


@cache
def expected_losses(kind):
    """Logits, labels, a shift of PLM's ideal ratios; the second implementation's losses."""
    r, counts, labels = reference, COUNTS[kind], multi_hot(kind)
    z = np.random.default_rng(2).normal(size=labels.shape) * 2
    shift = np.array([0.5, 3.0, 0.2, 2.0, 0.7])
    eql = np.asarray(jax.random.uniform(jax.random.fold_in(KEY, 0), labels.shape)) < 0.9
    mean = sum(counts) / NUM_EXAMPLES / len(counts)
    entries = np.stack([r.sigmoid_focal(z[:, [c]], labels[:, [c]], 1.0) for c in range(5)], 1)
    weighted = r.multi_label_weights(counts, 0.9999) * entries
    values = {
        "sigmoid": r.sigmoid_cross_entropy(z, labels),
        "weighted_sigmoid": r.weighted_sigmoid(z, labels, counts, NUM_EXAMPLES, 1.0),
        "focal": r.sigmoid_focal(z, labels, 1.0),
        "cb_sigmoid": r.class_balanced_focal(z, labels, counts, 0.9999, 0.0),
        "cb_focal": r.class_balanced_focal(z, labels, counts, 0.9999, 1.0),
        "asymmetric": r.asymmetric(z, labels, 1.0, 4.0, 0.05),
        "distribution_balanced": r.distribution_balanced(
            z, labels, counts, NUM_EXAMPLES, 0.1, 10.0, 0.2, 0.05, 2.0
        ),
        "plm": r.masked_sigmoid(z, labels, plm_keep(labels, kind, 0, shift)),
        "plm+cb_focal": (plm_keep(labels, kind, 2, shift) * weighted).sum(-1),
        "sigmoid+equalization": r.equalization(
            z, labels, counts, eql, mean, "sigmoid", NUM_EXAMPLES
        ),
    }
    return z, labels, shift, values


@pytest.mark.parametrize("kind", COUNTS)
def test_methods_against_the_second_implementation(kind, x64):
    z, labels, shift, expected = expected_losses(kind)
    assert set(SIGMOID_METHODS) <= set(expected)
    steps = {name: objective_of(name, kind) for name in expected}
    actual = jax.jit(
        lambda z, y: {
            name: objective.apply(masking(objective, shift), KEY, z, y)[0]
            for name, objective in steps.items()
        }
    )(z, labels)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", [*SIGMOID_METHODS, *COMPOSED[:3]])
def test_constant_classes_are_trained_around(name):
    """A linear model learns to tell no from always, and everything stays finite."""
    labels = multi_hot("constant")
    x = np.random.default_rng(5).normal(size=(NUM_EXAMPLES, 8)).astype(np.float32)
    objective = objective_of(name, "constant")

    @jax.jit
    def train(weights, bias):
        def step(carry, n):
            parameters, state = carry

            def mean(p):
                loss, new = objective.apply(state, jax.random.key(n), x @ p[0] + p[1], labels)
                return loss.mean(), new

            (loss, state), gradient = jax.value_and_grad(mean, has_aux=True)(parameters)
            parameters = jax.tree.map(lambda p, g: p - 0.05 * g, parameters, gradient)
            return (parameters, state), loss

        return jax.lax.scan(step, ((weights, bias), objective.init()), jnp.arange(60))

    (parameters, state), loss = train(jnp.zeros((8, 5)), jnp.zeros(5))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((parameters, state, loss)))
    probabilities = np.asarray(objective.probabilities(x @ parameters[0] + parameters[1]))
    # From one half: those that all have went up, those that none has down, in the mean.
    assert probabilities[:, 0].mean() > 0.5 > probabilities[:, 1].mean()
    assert np.asarray(objective.report(state).get("ideal_ratio", np.ones(2)))[:2].tolist() == [1, 1]


@pytest.mark.parametrize("kind", COUNTS)
def test_large_logits_of_multi_hot_labels_stay_finite(kind):
    labels = multi_hot(kind)
    logits = np.random.default_rng(0).choice([-1e4, 0.0, 1e4], size=labels.shape)
    objective = {name: objective_of(name, kind) for name in (*SIGMOID_METHODS, *COMPOSED[:3])}
    results = jax.jit(
        lambda z, y: {name: step_of(o)(o.init(), KEY, z, y) for name, o in objective.items()}
    )(jnp.float32(logits), labels)
    for name, tree in results.items():
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)), name


def test_accepted_objectives_judge_each_class_by_its_own_logit():
    """Moving the other classes' logits changes no gradient; with a softmax it does."""
    labels = multi_hot("ordinary")
    rng = np.random.default_rng(4)
    logits, moved = rng.uniform(-0.9, 0.9, (2, *labels.shape)).astype(np.float32)
    moved[:, 2] = logits[:, 2]
    accepted = {name: objective_of(name, "ordinary") for name in (*SIGMOID_METHODS, *COMPOSED)}
    refused = {"cross_entropy": objective_of("cross_entropy", "ordinary")}
    gradients = jax.jit(
        lambda *logits: {
            name: [step_of(o)(o.init(), KEY, z, labels)[2][:, 2] for z in logits]
            for name, o in (accepted | refused).items()
        }
    )(logits, moved)
    for name, objective in accepted.items():
        check_multi_label(objective)
        np.testing.assert_array_equal(*gradients[name], err_msg=name)
        assert (gradients[name][0] != 0).any()
    assert not np.allclose(*gradients["cross_entropy"])


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(SIGMOID_METHODS)))
def test_softmax_methods_are_refused(name):
    sentence = (
        "^the objective is for one label an example: base softmax lets classes compete, .*; for"
        " multi-label data use a method such as asymmetric, cb_focal, .*, weighted_sigmoid$"
    )
    with pytest.raises(InputError, match=sentence):
        check_multi_label(objective_of(name, "ordinary"))


@pytest.mark.parametrize("start_epoch", [0, 1])
def test_priors_of_a_softmax_are_refused(start_epoch):
    options = {"logit_adjustment": {"start_epoch": start_epoch}, "focal": {}}
    objective = build_objective({"base": "sigmoid", "transforms": options}, COUNTS["ordinary"])
    with pytest.raises(InputError, match=r"logit_adjustment: its log priors .*; use positive_wei"):
        check_multi_label(objective)


# Weights of the positives


def test_positives_weigh_as_much_as_negatives():
    labels = multi_hot("ordinary").astype(float)
    weights = longtail.positive_weights(COUNTS["ordinary"], NUM_EXAMPLES)
    np.testing.assert_allclose((labels * weights).sum(0), (1 - labels).sum(0), rtol=1e-14)
    constant = longtail.positive_weights(COUNTS["constant"], NUM_EXAMPLES)
    assert constant[:2].tolist() == [1, 1]
    np.testing.assert_allclose(constant[2:], [21 / 19, 37 / 3, 39], rtol=1e-14)
    # Single-label: each class against the rest.
    np.testing.assert_allclose(longtail.positive_weights([30, 10]), [1 / 3, 3], rtol=1e-14)
    np.testing.assert_allclose(
        longtail.positive_weights([30, 10, 0], power=0.5), [3**-0.5, 3**0.5, 1], rtol=1e-14
    )


def test_weighted_sigmoid_against_optax():
    labels = multi_hot("ordinary")
    logits = np.random.default_rng(2).normal(size=labels.shape).astype(np.float32) * 3
    ratio = (NUM_EXAMPLES - np.array(COUNTS["ordinary"])) / COUNTS["ordinary"]
    entries = optax.sigmoid_binary_cross_entropy(logits, labels) * np.where(labels, ratio, 1.0)
    np.testing.assert_allclose(
        losses.weighted_sigmoid_cross_entropy(
            logits, labels, COUNTS["ordinary"], num_examples=NUM_EXAMPLES
        ),
        entries.sum(-1),
        rtol=1e-5,
    )


# Refusals


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: objectives.rebalanced([5, 0]), r"class_counts\[1\] is 0; expected at least 1"),
        (
            lambda: objectives.negative_tolerant([5, 0]),
            r"class_counts\[1\] is 0; expected at least 1",
        ),
        (lambda: objectives.negative_tolerant([5]), "class_counts are of one class only"),
        (
            lambda: objectives.gaussian_cloud(COUNTS["constant"]),
            r"class_counts\[1\] is 0; expected at least 1",
        ),
        (
            lambda: objectives.positive_weight([5, 1], num_examples=4),
            "num_examples is 4; expected at least the largest count 5",
        ),
        (
            lambda: objectives.equalization([5, 1], num_examples=4),
            "num_examples is 4; expected at least the largest count 5",
        ),
        (lambda: objectives.positive_weight([5, 1], power=np.nan), "power is nan; expected"),
        (lambda: objectives.positive_weight([5, 1], power="sqrt"), "power is 'sqrt'; expected"),
    ],
)
def test_refusals(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()


def test_labels_for_another_number_of_classes_are_refused():
    objective = objective_of("plm", "ordinary")
    with pytest.raises(InputError, match=r"labels have shape \(2, 4\); expected \[B\] or that of"):
        objective.apply(objective.init(), KEY, jnp.zeros((2, 5)), np.zeros((2, 4), np.uint8))
