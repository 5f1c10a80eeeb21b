"""Nearest class mean: a float64 second implementation, scikit-learn, empty classes, no NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frozen_features import FEATURES, LABELS, TRAIN, B, C, D, R, close, over
from sklearn.neighbors import NearestCentroid

from lt_jax.classifiers import nearest_class_mean
from lt_jax.two_stage import NCM_FEATURES


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
