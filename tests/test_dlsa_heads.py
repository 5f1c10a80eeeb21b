"""DLSA's classifiers: their logits, and their training against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lt_jax import dlsa
from lt_jax.dlsa import heads
from lt_jax.errors import InputError

CLASSES, CLUSTERS, DIM, NUM = 3, 5, 4, 240
OPTIONS = dlsa.HeadOptions(
    epochs=400, batch_size=NUM, learning_rate=0.3, weight_decay=0.01, loss="cross_entropy", own=1.0
)


@pytest.fixture(scope="module")
def samples():
    """Long-tailed, overlapping, in two parts, the first with clusters of any classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), (160, 60, 20))
    features = rng.normal(size=(NUM, DIM)) + np.eye(CLASSES, DIM)[labels] * 1.5
    part = rng.integers(0, 2, NUM)
    cluster = rng.integers(0, CLUSTERS, NUM) * (part == 0)
    return features.astype(np.float32), labels, part, cluster


def tables_of(samples):
    """Of the samples of the first part; zeros for the second."""
    _, labels, part, cluster = samples
    first = dlsa.cluster_table(cluster[part == 0], labels[part == 0], CLUSTERS, CLASSES)
    return jnp.asarray(np.stack([first, np.zeros_like(first)]), jnp.float32)


def inputs_of(samples, *, training=False):
    features, labels, part, cluster = samples
    own = labels if training else np.full(NUM, -1)
    return dlsa.Inputs(*(jnp.asarray(v) for v in (features, part, cluster, own)))


def fitted(samples, options, *, num_parts=1, seed=0):
    labels = samples[1]
    tables, inputs = tables_of(samples), inputs_of(samples, training=True)
    if num_parts == 1:
        tables = jnp.zeros((1, 1, CLASSES))
        zero = jnp.zeros(NUM, jnp.int32)
        inputs = inputs._replace(part=zero, cluster=zero)
    prior = np.log(np.bincount(labels) / NUM)
    fit = jax.jit(heads.fit_heads, static_argnums=6)
    made = fit(
        jax.random.key(seed), inputs, jnp.asarray(labels), dlsa.members_of(labels, CLASSES),
        jnp.float32(prior), tables, options,
    )  # fmt: skip
    return made, (tables, inputs)


def probabilities(made, inputs, options, shift=0.0):
    return np.asarray(jax.nn.softmax(dlsa.part_logits(made, *inputs, options) + shift))


def test_cross_entropy_is_scikit_learns_logistic_regression(samples):
    """Shared and own kernel are one together, whose penalty is half that of either."""
    made, inputs = fitted(samples, OPTIONS)
    peer = LogisticRegression(C=2 / (NUM * OPTIONS.weight_decay), max_iter=1000, tol=1e-8)
    peer.fit(np.float64(samples[0]), samples[1])
    expected = peer.predict_proba(np.float64(samples[0]))
    np.testing.assert_allclose(probabilities(made, inputs, OPTIONS), expected, atol=2e-3)


def test_balanced_softmax_adds_the_prior_in_training_alone(samples):
    """With an unpenalised bias it is the same model: the bias takes the prior up."""
    plain, inputs = fitted(samples, OPTIONS)
    options = OPTIONS._replace(loss="balanced_softmax")
    balanced, _ = fitted(samples, options)
    prior = np.log(np.bincount(samples[1]) / NUM)
    found = probabilities(balanced, inputs, options, shift=prior)
    np.testing.assert_allclose(found, probabilities(plain, inputs, OPTIONS), atol=2e-3)
    rare = probabilities(balanced, inputs, options)[:, 2].mean()
    assert rare > 1.5 * probabilities(plain, inputs, OPTIONS)[:, 2].mean()


def test_class_sampling_sees_all_classes_equally_often(samples):
    options = OPTIONS._replace(sampling="class")
    made, inputs = fitted(samples, options)
    counts = np.bincount(samples[1])
    peer = LogisticRegression(C=2 / (NUM * OPTIONS.weight_decay), max_iter=1000)
    peer.fit(samples[0], samples[1], sample_weight=(NUM / CLASSES / counts)[samples[1]])
    expected = peer.predict_proba(np.float64(samples[0]))
    found = probabilities(made, inputs, options)
    np.testing.assert_allclose(found, expected, atol=0.06)  # drawn, not weighted


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_logits_are_those_of_the_samples_part(samples, head):
    """Against a loop over samples in float64."""
    options = OPTIONS._replace(head=head, scale=7.0, own=0.5)
    made = heads.init_heads(jax.random.key(1), DIM, CLASSES, 2)
    rng = np.random.default_rng(2)
    made = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape), jnp.float32), made)
    tables = tables_of(samples)
    found = np.asarray(dlsa.part_logits(made, tables, inputs_of(samples), options))
    shared, own, shares, bias = (
        np.asarray(leaf, np.float64)
        for leaf in (
            *(made[k]["kernel"] for k in ("shared", "own", "shares")),
            made["shared"]["bias"],
        )
    )

    def product(x, kernel):
        if head == "linear":
            return x @ kernel
        return 7.0 * (x / np.linalg.norm(x)) @ (kernel / np.linalg.norm(kernel, axis=0))

    for i in range(0, NUM, 7):
        x, g = np.float64(samples[0][i]), samples[2][i]
        p = np.float64(tables[g, samples[3][i]])
        p /= max(p.sum(), 1)
        expected = product(x, shared) + 0.5 * product(x, own[g]) + p @ shares[g] + bias
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-4)


def test_shares_that_tell_the_class_are_used(samples):
    """And by the part alone that has them."""
    features, labels, part, _ = samples
    given = features, labels, part, labels * (part == 0)
    made, inputs = fitted(given, OPTIONS, num_parts=2)
    right = probabilities(made, inputs, OPTIONS).argmax(axis=1) == labels
    assert right[part == 0].mean() > 0.95 > right[part == 1].mean()


def test_seeds_side_by_side_are_those_one_after_another(samples):
    labels, inputs = samples[1], inputs_of(samples, training=True)
    options = OPTIONS._replace(epochs=3, batch_size=50)
    prior, members = jnp.zeros(CLASSES), dlsa.members_of(labels, CLASSES)
    tables = tables_of(samples)

    def fit(key):
        return heads.fit_heads(key, inputs, jnp.asarray(labels), members, prior, tables, options)

    keys = jax.random.split(jax.random.key(3), 2)
    together = jax.jit(jax.vmap(fit))(keys)
    for r in range(2):
        alone = jax.jit(fit)(keys[r])
        for leaf, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(leaf[r], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"head": "mlp"}, r"head is 'mlp'; expected 'linear' or 'cosine'"),
        ({"loss": "focal"}, r"loss is 'focal'; expected 'balanced_softmax' or 'cross_entropy'"),
        ({"sampling": "none"}, r"sampling is 'none'; expected 'instance' or 'class'"),
        ({"own": -0.1}, r"own is -0.1; expected at least 0"),
        ({"epochs": 0}, r"epochs is 0; expected a positive number"),
        ({"learning_rate": -1.0}, r"learning_rate is -1.0; expected a positive number"),
    ],
)
def test_options_that_cannot_be_used_are_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        dlsa.check_head_options(OPTIONS._replace(**change))


def test_classes_are_balanced_by_the_sampling_or_by_the_loss():
    """Either is fine, also neither; both would do it twice."""
    for sampling in ("instance", "class"):
        for loss in ("cross_entropy", "balanced_softmax"):
            options = OPTIONS._replace(sampling=sampling, loss=loss)
            if (sampling, loss) == ("class", "balanced_softmax"):
                with pytest.raises(InputError, match="make up for the frequency of classes twice"):
                    dlsa.check_head_options(options)
            else:
                dlsa.check_head_options(options)
