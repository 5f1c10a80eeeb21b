"""Classifiers on frozen features: float64 second implementations, identities, what stays frozen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.neighbors import NearestCentroid

from lt_jax import sharding
from lt_jax.classifiers import (
    adjusted,
    frozen_network,
    nearest_class_mean,
    scaled_logits,
    tau_normalised,
)
from lt_jax.errors import InputError
from lt_jax.models import create_model
from lt_jax.objectives import build_objective, method_spec
from lt_jax.state import init_state, make_network
from lt_jax.steps import Split, make_train_step
from lt_jax.two_stage import NCM_FEATURES

R, B, D, C = 3, 9, 64, 5
COUNTS = [500, 120, 40, 6, 1]
TAUS = [0.0, 0.5, 1.0, 1.7]
RNG = np.random.default_rng(11)
# As of a network that ends in relu and a mean: not negative; some features are dead.
FEATURES = (np.abs(RNG.normal(size=(R, B, D))) * (RNG.random((R, 1, D)) > 0.1)).astype(np.float32)
# Lengths of the weight vectors differ by class, as after training on a long tail.
HEADS = {
    "kernel": (RNG.normal(size=(R, D, C)) * [3, 2, 1, 0.5, 0.2]).astype(np.float32),
    "bias": RNG.normal(size=(R, C)).astype(np.float32),
}
COSINE_HEADS = {"kernel": HEADS["kernel"]}
PERMUTATION = np.array([3, 0, 4, 1, 2])


def network_of(head="linear"):
    return make_network(
        lambda rngs: create_model(
            "small", image_shape=(8, 8, 1), num_classes=C, head=head, rngs=rngs
        )
    )


CLASSIFY = {head: network_of(head).classify for head in ("linear", "cosine")}


def over(made, features):
    """Logits ``[R, K, B, C]`` as `lt_jax.posthoc` has them: all values of all replicas at once."""
    over_values = jax.vmap(made.logits, in_axes=(0, None, None))
    over_replicas = jax.jit(jax.vmap(over_values))
    numbers = np.broadcast_to(made.numbers, (len(features), len(made.numbers)))
    return np.asarray(over_replicas(numbers, made.memory, jnp.asarray(features)))


def close(got, want, tolerance=1e-5):
    """Equal up to float32 rounding of sums whose terms are as large as the largest value."""
    want = np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


# Second implementations, in float64, entry by entry


def linear(head, x):
    w, b = np.asarray(head["kernel"], np.float64), np.asarray(head["bias"], np.float64)
    return np.array([w[:, j] @ x + b[j] for j in range(w.shape[1])])


def cosine(head, x):
    w = np.asarray(head["kernel"], np.float64)
    length = np.sqrt(x @ x)
    return np.array([w[:, j] @ x / length / np.sqrt(w[:, j] @ w[:, j]) for j in range(w.shape[1])])


def without_bias(head, x, tau):
    """Kang et al.: w_j / |w_j|^tau, and no bias."""
    w = np.asarray(head["kernel"], np.float64)
    return np.array([w[:, j] @ x / np.sqrt(w[:, j] @ w[:, j]) ** tau for j in range(w.shape[1])])


def less_log_prior(logits, counts, tau):
    """Menon et al.: f_j - tau log(n_j / N)."""
    total = sum(counts)
    return np.array([f - tau * np.log(n / total) for f, n in zip(logits, counts, strict=True)])


def unit(x):
    return x / np.sqrt(x @ x) if np.any(x) else x


def minus_distances(train, labels, num_classes, kind, x):
    """Kang et al.: minus the squared distance to the mean of each class."""
    train, x = np.asarray(train, np.float64), np.asarray(x, np.float64)
    if kind == "centred_unit":
        centre = sum(train) / len(train)
        train, x = [t - centre for t in train], x - centre
    if kind in ("unit", "centred_unit"):
        train, x = [unit(t) for t in train], unit(x)
    result = []
    for c in range(num_classes):
        own = [t for t, label in zip(train, labels, strict=True) if label == c]
        gap = x - sum(own) / len(own) if own else np.full(x.shape, np.inf)
        result.append(-(gap @ gap))
    return np.array(result)


def each(function, heads, features=FEATURES):
    """``[R, B, C]`` of a function of one head and one feature vector."""
    features = np.asarray(features, np.float64)
    return np.array(
        [
            [function({k: v[r] for k, v in heads.items()}, x) for x in features[r]]
            for r in range(len(features))
        ]
    )


# Tau normalisation


def test_tau_normalised_is_the_formula():
    """For every value and replica at once, against the second implementation."""
    got = over(tau_normalised(HEADS, TAUS), FEATURES)
    assert got.shape == (R, len(TAUS), B, C)
    assert got.dtype == np.float32
    for k, tau in enumerate(TAUS):
        want = each(lambda head, x, tau=tau: without_bias(head, x, tau), HEADS)
        close(got[:, k], want)


def test_tau_zero_is_the_head_without_its_bias():
    got = over(tau_normalised(HEADS, [0.0]), FEATURES)[:, 0]
    head = jax.vmap(CLASSIFY["linear"])(HEADS, FEATURES)
    close(got, np.asarray(head) - HEADS["bias"][:, None])
    assert np.abs(got - head).max() > 0.1
    other = {**HEADS, "bias": HEADS["bias"] + 100}
    np.testing.assert_array_equal(over(tau_normalised(other, [0.0]), FEATURES)[:, 0], got)


def test_tau_one_makes_all_weight_vectors_of_length_one():
    """The logits of the basis vectors are the weights themselves."""
    basis = np.broadcast_to(np.eye(D, dtype=np.float32), (R, D, D))
    weights = over(tau_normalised(HEADS, [0.0, 0.5, 1.0]), basis)
    lengths = np.linalg.norm(weights.astype(np.float64), axis=2)
    np.testing.assert_allclose(lengths[:, 2], 1.0, rtol=1e-5)
    np.testing.assert_allclose(lengths[:, 1], np.sqrt(lengths[:, 0]), rtol=1e-5)
    np.testing.assert_array_equal(weights[:, 0], HEADS["kernel"])


@pytest.mark.parametrize("factor", [1e-4, 0.3, 1e4])
def test_the_length_of_one_weight_vector_does_not_matter_at_tau_one(factor):
    """And at other values it does, by factor ** (1 - tau), for that class alone."""
    changed = {**HEADS, "kernel": HEADS["kernel"] * np.float32([1, 1, factor, 1, 1])}
    before = over(tau_normalised(HEADS, TAUS), FEATURES)
    after = over(tau_normalised(changed, TAUS), FEATURES)
    for k, tau in enumerate(TAUS):
        close(after[:, k, :, 2], before[:, k, :, 2] * factor ** (1 - tau))
    np.testing.assert_array_equal(np.delete(after, 2, -1), np.delete(before, 2, -1))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0, 3.0, 4.0])
def test_a_class_whose_weights_are_zero_keeps_them(tau):
    """No NaN, which argmax would take for the largest logit; other classes are as before."""
    kernel = HEADS["kernel"].copy()
    kernel[:, :, 1] = 0
    got = over(tau_normalised({**HEADS, "kernel": kernel}, [tau]), FEATURES)
    assert np.isfinite(got).all()
    assert (got[..., 1] == 0).all()
    want = over(tau_normalised(HEADS, [tau]), FEATURES)
    np.testing.assert_array_equal(np.delete(got, 1, -1), np.delete(want, 1, -1))


# Post-hoc logit adjustment


@pytest.mark.parametrize(
    ("head", "formula", "scale"), [("linear", linear, 1.0), ("cosine", cosine, 16.0)]
)
def test_adjusted_is_the_formula(head, formula, scale):
    heads = HEADS if head == "linear" else COSINE_HEADS
    made = adjusted(heads, CLASSIFY[head], scale, COUNTS, TAUS)
    got = over(made, FEATURES)
    assert got.shape == (R, len(TAUS), B, C)
    assert got.dtype == np.float32
    logits = scale * each(formula, heads)
    for k, tau in enumerate(TAUS):
        want = np.apply_along_axis(less_log_prior, -1, logits, COUNTS, tau)
        close(got[:, k], want)


@pytest.mark.parametrize(("head", "scale"), [("linear", 1.0), ("cosine", 30.0)])
def test_adjusted_at_tau_zero_is_the_scaled_head(head, scale):
    heads = HEADS if head == "linear" else COSINE_HEADS
    got = over(adjusted(heads, CLASSIFY[head], scale, COUNTS, [0.0]), FEATURES)[:, 0]
    close(got, scale * np.asarray(jax.vmap(CLASSIFY[head])(heads, FEATURES)), 1e-6)


def test_balanced_counts_adjust_nothing():
    """All logits move together: same classes, same probabilities, whatever the count."""
    head = np.asarray(jax.vmap(CLASSIFY["linear"])(HEADS, FEATURES))
    for count in (1, 70, 10**6):
        got = over(adjusted(HEADS, CLASSIFY["linear"], 1.0, [count] * C, TAUS), FEATURES)
        for k, tau in enumerate(TAUS):
            np.testing.assert_array_equal(got[:, k].argmax(-1), head.argmax(-1))
            close(got[:, k] - head, np.full(head.shape, tau * np.log(C)), 1e-5)


def test_adjusted_divides_probabilities_by_the_prior():
    """At tau 1 the posterior under balanced classes; only shares count, not numbers of images."""
    made = adjusted(HEADS, CLASSIFY["linear"], 1.0, COUNTS, [0.0, 1.0])
    got = over(made, FEATURES).astype(np.float64)
    p = np.exp(got) / np.exp(got).sum(-1, keepdims=True)
    divided = p[:, 0] / (np.array(COUNTS) / sum(COUNTS))
    close(p[:, 1], divided / divided.sum(-1, keepdims=True))
    more = adjusted(HEADS, CLASSIFY["linear"], 1.0, np.array(COUNTS) * 1000, [0.0, 1.0])
    close(over(more, FEATURES), got, 1e-6)
    # The rarer the class, the more it gains.
    assert (np.diff((got[:, 1] - got[:, 0]).mean((0, 1))) > 0).all()


def test_adjusted_refuses_a_class_without_images():
    """Its log prior is minus infinity: it would win always."""
    with pytest.raises(InputError, match=r"class_counts\[3\] is 0; expected at least 1"):
        adjusted(HEADS, CLASSIFY["linear"], 1.0, [5, 4, 3, 0, 1], [1.0])


# Nearest class mean

LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(C), [40, 12, 6, 2, 1]))
CENTRES = np.abs(RNG.normal(size=(R, C, D)))
TRAIN = np.abs(CENTRES[:, LABELS] + 0.7 * RNG.normal(size=(R, len(LABELS), D))).astype(np.float32)


def test_nearest_class_mean_is_the_formula():
    """All three kinds of features of all replicas at once, in the order asked for."""
    kinds = ["centred_unit", "plain", "unit"]  # by name, not by place
    made = nearest_class_mean(jnp.asarray(TRAIN), LABELS, C, kinds)
    got = over(made, FEATURES)
    assert got.shape == (R, 3, B, C)
    assert got.dtype == np.float32
    for k, kind in enumerate(kinds):
        for r in range(R):
            want = [minus_distances(TRAIN[r], LABELS, C, kind, x) for x in FEATURES[r]]
            close(got[r, k], want)
    assert set(kinds) == set(NCM_FEATURES)


def test_plain_is_the_nearest_centroid_of_scikit_learn():
    """The same classes, on features near the boundaries; and on unit ones after normalising."""
    noise = np.random.default_rng(4).normal(size=TRAIN.shape)
    test = np.abs(TRAIN + 0.5 * noise).astype(np.float32)
    predicted = over(
        nearest_class_mean(jnp.asarray(TRAIN), LABELS, C, ["plain", "unit"]), test
    ).argmax(-1)

    def normalised(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    for r in range(R):
        plain = NearestCentroid().fit(TRAIN[r].astype(np.float64), LABELS)
        np.testing.assert_array_equal(predicted[r, 0], plain.predict(test[r]))
        unit_length = NearestCentroid().fit(normalised(TRAIN[r].astype(np.float64)), LABELS)
        np.testing.assert_array_equal(predicted[r, 1], unit_length.predict(normalised(test[r])))
    assert len(np.unique(predicted)) == C


def test_a_class_of_one_point_is_found_at_that_point():
    """Distance 0 there, whatever is done to features first."""
    points = FEATURES[:, :C]
    labels = np.repeat(np.arange(C), 4)
    made = nearest_class_mean(jnp.asarray(points[:, labels]), labels, C, NCM_FEATURES)
    got = over(made, points)
    for k in range(3):
        np.testing.assert_array_equal(got[:, k].argmax(-1), np.tile(np.arange(C), (R, 1)))
        own = np.diagonal(got[:, k], axis1=1, axis2=2)
        np.testing.assert_allclose(own, 0.0, atol=1e-6 * (points**2).sum(-1).max())


@pytest.mark.parametrize("empty", [(0,), (2,), (3, 4), (1, 2, 3, 4)])
def test_a_class_without_images_is_never_predicted(empty):
    """Not even where its mean, were it zero, would be nearest; and its probability is 0."""
    kept = ~np.isin(LABELS, empty)
    made = nearest_class_mean(jnp.asarray(TRAIN[:, kept]), LABELS[kept], C, NCM_FEATURES)
    near_zero = np.concatenate([FEATURES, 1e-3 * FEATURES, 0 * FEATURES], axis=1)
    got = over(made, near_zero)
    present = np.setdiff1d(np.arange(C), empty)
    assert set(np.unique(got.argmax(-1))) <= set(present)
    assert np.isneginf(got[..., list(empty)]).all()
    assert np.isfinite(got[..., present]).all()
    probabilities = np.asarray(jax.nn.softmax(got))
    assert (probabilities[..., list(empty)] == 0).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    for k, kind in enumerate(NCM_FEATURES):
        want = [minus_distances(TRAIN[0, kept], LABELS[kept], C, kind, x) for x in FEATURES[0]]
        close(got[0, k, :B][:, present], np.array(want)[:, present])


def test_centred_unit_takes_no_notice_of_a_common_shift_and_scale():
    """Of all features, of training and of test; plain ignores the shift, unit the scale."""
    direction = np.random.default_rng(6).normal(size=D)
    changes = [(1.0, 0.0), (100.0, 0.0), (0.01, 0.0), (1.0, 3.0), (100.0, 3.0), (0.01, -3.0)]

    def moved(x):  # the changes take the place of the replicas
        return np.stack([f * (x + s * direction) for f, s in changes]).astype(np.float32)

    made = nearest_class_mean(jnp.asarray(moved(TRAIN[0])), LABELS, C, NCM_FEATURES)
    got = over(made, moved(FEATURES[0]))
    for (factor, shift), (plain, of_unit, centred) in zip(changes, got, strict=True):
        close(centred, got[0, 2], 1e-4)
        close(plain, factor**2 * got[0, 0], 1e-4)
        if shift == 0:
            close(of_unit, got[0, 1], 1e-4)
        else:
            assert np.abs(of_unit - got[0, 1]).max() > 0.05


def test_large_common_features_do_not_hide_the_distances():
    """Distances of 1 between features of length 240: as a difference of squares, still right."""
    offset = np.full(D, 30.0)
    shifted = (TRAIN + offset).astype(np.float32)
    test = (FEATURES + offset).astype(np.float32)
    got = over(nearest_class_mean(jnp.asarray(shifted), LABELS, C, ["plain"]), test)[:, 0]
    for r in range(R):
        want = [minus_distances(shifted[r], LABELS, C, "plain", x) for x in test[r]]
        np.testing.assert_allclose(got[r], want, atol=0.1)


def test_zero_and_equal_features_give_no_nan():
    """A zero vector has no direction and stays zero, in training and in test."""
    with_zeros = TRAIN.copy()
    with_zeros[:, ::7] = 0
    test = FEATURES.copy()
    test[:, 0] = 0
    test[:, 1] = with_zeros.mean(axis=1)  # no direction once it is centred
    got = over(nearest_class_mean(jnp.asarray(with_zeros), LABELS, C, NCM_FEATURES), test)
    assert np.isfinite(got).all()
    for k, kind in enumerate(NCM_FEATURES):
        for r in range(R):
            rows = [0, *range(2, B)] if kind == "centred_unit" else range(B)
            want = [minus_distances(with_zeros[r], LABELS, C, kind, test[r, i]) for i in rows]
            close(got[r, k, list(rows)], want)


def test_features_that_are_all_equal_give_no_nan():
    """A dead network has a score, if a bad one. The values take the place of the replicas."""
    values = np.float32([0.0, 0.1, 1e-20, 1e6])
    same = np.broadcast_to(values[:, None, None], (4, len(LABELS), D))
    made = nearest_class_mean(jnp.asarray(same), LABELS, C, NCM_FEATURES)
    assert np.isfinite(over(made, same[:, :B])).all()


# All of them

KINDS = ("unit", "centred_unit", "plain")


def made_by(name, perm=None):
    """A classifier; with a permutation, the same with its classes in that order."""
    perm = np.arange(C) if perm is None else perm
    heads = {"kernel": HEADS["kernel"][..., perm], "bias": HEADS["bias"][..., perm]}
    if name == "tau_norm":
        return tau_normalised(heads, TAUS)
    if name == "ncm":
        return nearest_class_mean(jnp.asarray(TRAIN), np.argsort(perm)[LABELS], C, KINDS)
    return adjusted(heads, CLASSIFY["linear"], 1.0, np.array(COUNTS)[perm], TAUS)


ALL = ("tau_norm", "ncm", "logit_adjustment")


@functools.cache
def made_once(name):
    """A classifier and its logits of `FEATURES`."""
    made = made_by(name)
    return made, over(made, FEATURES)


@pytest.mark.parametrize("name", ALL)
def test_permuting_classes_permutes_logits(name):
    """No class is special by its number."""
    after = over(made_by(name, PERMUTATION), FEATURES)
    close(after, made_once(name)[1][..., PERMUTATION])


def test_the_order_of_training_images_does_not_matter():
    order = np.random.default_rng(0).permutation(len(LABELS))
    made = nearest_class_mean(jnp.asarray(TRAIN[:, order]), LABELS[order], C, KINDS)
    close(over(made, FEATURES), made_once("ncm")[1])


@pytest.mark.parametrize("name", ALL)
def test_all_values_of_all_replicas_at_once_equal_one_by_one(name):
    """The sweep over the knob changes nothing; nor does a value of its own for each replica."""
    made, together = made_once(name)
    one = jax.jit(made.logits)
    for r in range(R):
        memory = jax.tree.map(lambda leaf, r=r: jnp.asarray(leaf[r]), made.memory)
        for k, number in enumerate(made.numbers):
            alone = one(jnp.asarray(number), memory, jnp.asarray(FEATURES[r]))
            close(together[r, k], np.asarray(alone), 1e-5)
    chosen = np.arange(R)[::-1] % len(made.numbers)
    own = jax.jit(jax.vmap(made.logits))(made.numbers[chosen], made.memory, FEATURES)
    close(np.asarray(own), together[np.arange(R), chosen])


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_classified_alone(name):
    """Logits of one row do not depend on what else is in the batch, such as padding."""
    made, together = made_once(name)
    close(over(made, FEATURES[:, 4:6]), together[:, :, 4:6])


def test_knobs_are_kept_as_written_and_as_numbers():
    """What a summary reports is what was asked for."""
    for made, knob, values, numbers in (
        (made_once("tau_norm")[0], "tau", TAUS, TAUS),
        (made_once("logit_adjustment")[0], "tau", TAUS, TAUS),
        (made_once("ncm")[0], "features", list(KINDS), [1, 2, 0]),
    ):
        assert made.knob == knob
        assert list(made.values) == values
        assert made.numbers.dtype == np.float32
        np.testing.assert_allclose(made.numbers, numbers, rtol=1e-6)
        assert all(len(leaf) == R for leaf in jax.tree.leaves(made.memory))


# Learnable weight scaling


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_scaled_logits_are_the_formula(head):
    """The factor is on the whole logit, bias included; factors of 1 are the head itself."""
    heads, formula = (HEADS, linear) if head == "linear" else (COSINE_HEADS, cosine)
    classify = scaled_logits(CLASSIFY[head])
    factors = np.random.default_rng(2).normal(size=(R, C)).astype(np.float32)
    got = jax.vmap(classify)({"head": {"scale": factors}}, heads, FEATURES)
    close(np.asarray(got), factors[:, None] * each(formula, heads))
    ones = jax.vmap(classify)({"head": {"scale": np.ones((R, C), "f")}}, heads, FEATURES)
    np.testing.assert_array_equal(ones, jax.vmap(CLASSIFY[head])(heads, FEATURES))


# Frozen networks

LABELS_OF_BATCH = np.array([0, 1, 2, 3, 4, 0, 0, 1])
MEAN, STD = np.float32([0.4]), np.float32([0.25])


@pytest.fixture(scope="module")
def first():
    """A tiny network whose statistics are not those of any batch, images and their features."""
    network = network_of()
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(network.init, jax.random.key(0))  # to draw them takes a while

    def fill(path, leaf):
        if "var" in jax.tree_util.keystr(path):
            return jnp.asarray(0.2 + rng.random(leaf.shape), leaf.dtype)
        deviation = np.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 else 0.5
        return jnp.asarray(deviation * rng.normal(size=leaf.shape), leaf.dtype)

    params, stats = jax.tree_util.tree_map_with_path(fill, shapes)
    assert jax.tree.leaves(stats)
    images = rng.integers(0, 256, (len(LABELS_OF_BATCH), 8, 8, 1), dtype=np.uint8)
    inputs = jnp.asarray((images / np.float32(255) - MEAN) / STD)
    features = network.features(params, stats, inputs)
    return network, {"params": params, "stats": stats}, images, inputs, features


def second_stage(network, method, frozen):
    """How logits are made, and weights to begin with: not those of stage 1, not all alike."""
    rng = np.random.default_rng(8)
    if method == "lws":
        start = {"head": {"scale": jnp.asarray(rng.normal(size=C), jnp.float32)}}
        return scaled_logits(network.classify), start
    start = jax.tree.map(
        lambda w: jnp.asarray(rng.normal(size=w.shape) / 8, jnp.float32),
        {"head": frozen["params"]["head"]},
    )
    return (lambda params, _, x: network.classify(params["head"], x)), start


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gradient_by_hand(method, head, params, features):
    """Of the mean cross-entropy, float64: what only the classifier gets."""
    x = np.asarray(features, np.float64)
    y = np.eye(C)[LABELS_OF_BATCH]
    own = {k: np.asarray(v, np.float64) for k, v in params["head"].items()}
    if method == "lws":
        f = np.array([linear(head, row) for row in x])
        wrong = softmax(own["scale"] * f) - y
        return {"head": {"scale": (wrong * f).mean(0)}}
    wrong = softmax(x @ own["kernel"] + own["bias"]) - y
    return {"head": {"kernel": x.T @ wrong / len(x), "bias": wrong.mean(0)}}


@pytest.mark.parametrize("method", ["finetune", "lws"])
def test_images_and_features_computed_before_give_the_same_logits(first, method):
    """Caching is a matter of speed alone."""
    network, frozen, _, inputs, features = first
    classify, params = second_stage(network, method, frozen)
    on_images = frozen_network(network, classify, on_features=False)
    on_features = frozen_network(network, classify, on_features=True)
    want = classify(params, frozen["params"]["head"], features)
    for train in (False, True):
        of_images, _ = on_images.apply(params, frozen, inputs, train)
        of_features, _ = on_features.apply(params, frozen, features, train)
        np.testing.assert_array_equal(of_features, want)
        close(np.asarray(of_images), np.asarray(want), 1e-6)
    np.testing.assert_array_equal(on_features.features(params, frozen, features), features)
    close(np.asarray(on_images.features(params, frozen, inputs)), np.asarray(features), 1e-6)
    assert np.abs(features).max() > 0.1


def test_a_frozen_backbone_is_in_evaluation_mode_also_when_training(first):
    """Its normalisation uses what stage 1 gathered: logits of an image do not depend on others."""
    network, frozen, _, inputs, _ = first
    classify, params = second_stage(network, "finetune", frozen)
    apply = frozen_network(network, classify, on_features=False).apply
    together, after = apply(params, frozen, inputs, True)
    close(np.asarray(apply(params, frozen, inputs[:3], True)[0]), np.asarray(together[:3]))
    before, now = jax.tree.leaves(frozen), jax.tree.leaves(after)
    assert jax.tree.structure(after) == jax.tree.structure(frozen)
    assert all(a is b for a, b in zip(now, before, strict=True))
    # The whole network in training mode would have changed both.
    trained, changed = network.apply(frozen["params"], frozen["stats"], inputs, True)
    evaluated, _ = network.apply(frozen["params"], frozen["stats"], inputs, False)
    assert np.abs(trained - evaluated).max() > 1e-3
    assert any(
        np.abs(a - b).max() > 1e-3
        for a, b in zip(jax.tree.leaves(changed), jax.tree.leaves(frozen["stats"]), strict=True)
    )


@pytest.mark.parametrize("on_features", [True, False], ids=["features", "images"])
@pytest.mark.parametrize("method", ["finetune", "lws"])
def test_a_training_step_changes_the_classifier_alone(first, method, on_features):
    """By the gradient computed by hand; the network of stage 1 comes out bit for bit."""
    network, frozen, images, _, features = first
    classify, params = second_stage(network, method, frozen)
    objective = build_objective(method_spec("cross_entropy"), [3, 2, 1, 1, 1])
    optimizer = optax.sgd(0.5)
    state = init_state((params, frozen), optimizer, objective, keep_best=False)
    augmentation = {
        "crop_padding": 0,
        "flip": False,
        "color_jitter": 0.0,
        "autoaugment": False,
        "cutout_size": 0,
        "mixup_alpha": 0.0,
    }
    step = make_train_step(
        frozen_network(network, classify, on_features=on_features),
        objective,
        optimizer,
        augmentation,
        sharding.make_mesh(1),
    )
    split = Split(features if on_features else jnp.asarray(images), LABELS_OF_BATCH, MEAN, STD)
    split = jax.tree.map(jnp.asarray, split)
    rows = jnp.arange(len(LABELS_OF_BATCH))
    after, loss = jax.jit(step)(state, jax.random.key(0), split, rows)
    assert np.isfinite(loss)
    assert jax.tree.structure(after.params) == jax.tree.structure(params)
    assert jax.tree.structure(after.stats) == jax.tree.structure(frozen)
    jax.tree.map(np.testing.assert_array_equal, after.stats, frozen)
    gradient = gradient_by_hand(method, frozen["params"]["head"], params, features)
    for (path, old), new, slope in zip(
        jax.tree.leaves_with_path(params),
        jax.tree.leaves(after.params),
        jax.tree.leaves(gradient),
        strict=True,
    ):
        assert np.abs(slope).max() > 0.01, path
        np.testing.assert_allclose(new, old - 0.5 * slope, rtol=1e-4, atol=1e-5)


def test_the_rest_of_a_network_stays_as_it_is(first):
    """A frozen network still says how stage 1 classifies."""
    network, *_ = first
    frozen = frozen_network(network, lambda params, head, x: x, on_features=True)
    assert frozen.classify is network.classify
    assert frozen.init is network.init
