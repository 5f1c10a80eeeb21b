"""longtail: reference values, known splits, limits, and the sentence of every error."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference

from lt_jax import longtail
from lt_jax.errors import InputError

ROOT = Path(__file__).parents[1]
COUNTS = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
# Everything that takes class counts first, with its other arguments fixed.
TAKES_COUNTS = {
    "effective_number": lambda n: longtail.effective_number(n, 0.9),
    "class_balanced_weights": lambda n: longtail.class_balanced_weights(n, 0.9),
    "inverse_frequency_weights": longtail.inverse_frequency_weights,
    "log_prior": longtail.log_prior,
    "label_distribution_margins": longtail.label_distribution_margins,
    "cloud_sizes": longtail.cloud_sizes,
    "sampling_probabilities": lambda n: longtail.sampling_probabilities(n, "instance"),
    "long_tailed_indices": lambda n: longtail.long_tailed_indices([0, 1], n, seed=0),
    "check_class_counts": longtail.check_class_counts,
}
NO_ZERO = ("log_prior", "label_distribution_margins", "cloud_sizes")
WEIGHTS = {
    "class_balanced_weights": lambda n: longtail.class_balanced_weights(n, 0.999),
    "inverse_frequency_weights": longtail.inverse_frequency_weights,
}


def test_golden_effective_numbers_and_weights(golden):
    counts = golden["class_counts"]
    for beta, expected in golden["effective_number"].items():
        np.testing.assert_allclose(
            longtail.effective_number(counts, float(beta)), expected, rtol=1e-11
        )
    for beta, expected in golden["class_balanced_weights"].items():
        weights = longtail.class_balanced_weights(counts, float(beta))
        np.testing.assert_allclose(weights, expected, rtol=1e-11)
        assert weights.dtype == np.float64


def test_golden_clouds_and_class_based_sampling(golden):
    counts = golden["class_counts"]
    np.testing.assert_allclose(
        longtail.cloud_sizes(counts), golden["cloud_sizes"], rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(
        longtail.sampling_probabilities(counts, "class_based_effective_number"),
        golden["class_based_effective_number_sampling"],
        rtol=1e-10,
    )


def test_cifar_10_counts():
    assert longtail.long_tailed_counts(5000, 10, 100).tolist() == COUNTS


@pytest.mark.parametrize(
    ("classes", "totals"),
    [(10, [20431, 17023, 13996, 12406, 11203]), (100, [19573, 15907, 12608, 10847, 9502])],
)
def test_totals_of_the_published_splits(classes, totals):
    counts = [
        longtail.long_tailed_counts(50000 // classes, classes, i) for i in (10, 20, 50, 100, 200)
    ]
    assert [int(n.sum()) for n in counts] == totals
    assert all((np.diff(n) <= 0).all() for n in counts)


def test_long_tailed_counts_at_the_edges():
    assert longtail.long_tailed_counts(7, 4, 1).tolist() == [7, 7, 7, 7]
    assert longtail.long_tailed_counts(7, 1, 100).tolist() == [7]
    assert longtail.long_tailed_counts(3, 3, 1000).tolist() == [3, 1, 1]
    # Whole numbers in exact arithmetic stay whole, whatever the power rounds to.
    for imbalance in (3, 7, 10, 49, 50, 100, 200, 256):
        assert longtail.long_tailed_counts(imbalance * 11, 10, imbalance)[-1] == 11


def test_step_imbalance():
    step = longtail.long_tailed_counts
    assert step(500, 4, 10, "step").tolist() == [500, 500, 50, 50]
    assert step(500, 5, 10, "step").tolist() == [500, 500, 500, 50, 50]


def test_long_tailed_indices_are_nested_and_deterministic():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 40)).astype(np.uint8)
    large = longtail.long_tailed_indices(labels, [40, 30, 20, 10], seed=3)
    small = longtail.long_tailed_indices(labels, [30, 30, 5, 1], seed=3)
    assert np.bincount(labels[large]).tolist() == [40, 30, 20, 10]
    assert (np.diff(large) > 0).all()
    assert set(small) <= set(large)
    again = longtail.long_tailed_indices(labels, [40, 30, 20, 10], seed=3)
    other = longtail.long_tailed_indices(labels, [40, 30, 20, 10], seed=4)
    assert np.array_equal(large, again)
    assert not np.array_equal(large, other)
    # The draw of one class does not depend on what the others keep.
    alone = longtail.long_tailed_indices(labels, [0, 0, 20, 0], seed=3)
    assert np.array_equal(alone, large[labels[large] == 2])


def test_each_class_is_drawn_from_its_own_images_alone():
    """The rule of the docstring, class by class: tables of earlier runs go on with these images."""
    labels = np.random.default_rng(0).integers(0, 30, 500).astype(np.uint64)
    counts = np.bincount(labels.astype(int), minlength=31) // 2  # the last class has none
    expected = [
        np.random.default_rng([3, c]).permutation(np.flatnonzero(labels == c))[:count]
        for c, count in enumerate(counts)
    ]
    found = longtail.long_tailed_indices(labels, counts, seed=3)
    assert np.array_equal(found, np.sort(np.concatenate(expected)))


def test_effective_number_against_the_geometric_sum():
    """E(n) is by definition 1 + beta + ... + beta ** (n - 1)."""
    for beta in (0.0, 0.5, 0.9, 0.9999):
        expected = [sum(beta**k for k in range(n)) for n in (1, 2, 30, 1000)]
        np.testing.assert_allclose(
            longtail.effective_number([1, 2, 30, 1000], beta), expected, rtol=1e-12
        )
    per_class = longtail.effective_number([5, 5, 0], [0.0, 0.9, 0.99])
    np.testing.assert_allclose(per_class, [1, 1 + 0.9 + 0.81 + 0.729 + 0.6561, 0], rtol=1e-12)


def test_limits_of_beta():
    assert (longtail.class_balanced_weights(COUNTS, 0.0) == 1.0).all()
    for beta in (1 - 1e-12, 1 - 2**-53):
        np.testing.assert_allclose(
            longtail.class_balanced_weights(COUNTS, beta),
            longtail.inverse_frequency_weights(COUNTS),
            rtol=1e-8,
        )
        np.testing.assert_allclose(longtail.effective_number(COUNTS, beta), COUNTS, rtol=1e-8)


def test_per_class_vectors_against_the_second_implementation():
    for beta in (0.9, 0.999, 0.9999):
        np.testing.assert_allclose(
            longtail.class_balanced_weights(COUNTS, beta),
            reference.class_balanced_weights(COUNTS, beta),
            rtol=1e-10,
        )
    np.testing.assert_allclose(
        longtail.label_distribution_margins(COUNTS, 0.3),
        reference.ldam_margins(COUNTS, 0.3),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        longtail.cloud_sizes(COUNTS), reference.cloud_sizes(COUNTS), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(np.exp(longtail.log_prior(COUNTS)), np.array(COUNTS) / sum(COUNTS))


def test_balanced_counts_give_nothing_to_balance():
    assert (longtail.cloud_sizes([9, 9, 9]) == 0).all()
    assert (longtail.class_balanced_weights([9, 9, 9], 0.9999) == 1).all()
    assert (longtail.label_distribution_margins([9, 9], 0.5) == 0.5).all()
    assert (longtail.inverse_frequency_weights([9, 1], power=0.0) == 1).all()


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_sum_to_the_classes_that_occur(weights):
    full = weights(COUNTS)
    with_gaps = weights([0, *COUNTS, 0])
    assert full.sum() == pytest.approx(len(COUNTS), rel=1e-14)
    assert (np.diff(full) > 0).all()
    np.testing.assert_array_equal(with_gaps, [0, *full, 0])


@pytest.mark.parametrize("scheme", longtail.SCHEMES)
def test_sampling_schemes(scheme):
    p = longtail.sampling_probabilities(COUNTS, scheme, progress=0.25)
    with_gap = longtail.sampling_probabilities([*COUNTS, 0], scheme, progress=0.25)
    assert p.sum() == pytest.approx(1.0, rel=1e-14)
    assert (p > 0).all()
    np.testing.assert_allclose(with_gap, [*p, 0], rtol=1e-13)


def test_sampling_schemes_at_their_limits():
    draw = longtail.sampling_probabilities
    instance, uniform = np.array(COUNTS) / sum(COUNTS), np.full(10, 0.1)
    np.testing.assert_allclose(draw(COUNTS, "instance"), instance, rtol=1e-14)
    np.testing.assert_allclose(draw(COUNTS, "class"), uniform, rtol=1e-14)
    np.testing.assert_allclose(draw(COUNTS, "progressive", progress=0.0), instance, rtol=1e-14)
    np.testing.assert_allclose(draw(COUNTS, "progressive", progress=1.0), uniform, rtol=1e-14)
    np.testing.assert_allclose(draw(COUNTS, "effective_number", beta=0.0), instance, rtol=1e-14)
    np.testing.assert_allclose(draw(COUNTS, "effective_number", beta=1 - 1e-12), uniform, rtol=1e-8)
    np.testing.assert_allclose(
        draw(COUNTS, "class_based_effective_number", beta_spread=0.0),
        draw(COUNTS, "effective_number"),
        rtol=1e-14,
    )
    np.testing.assert_allclose(draw([900, 100], "square_root"), [0.75, 0.25], rtol=1e-14)


def test_sampling_by_a_power_of_the_counts():
    """Kang et al.: n^q / sum n^q, which holds the named schemes; BBN's reversed sampler at -1."""
    draw, counts = longtail.sampling_probabilities, np.array([900.0, 100.0, 0.0, 25.0])
    for power, scheme in ((1.0, "instance"), (0.0, "class"), (0.5, "square_root")):
        own = draw(counts, "power", power=power)
        np.testing.assert_allclose(own, draw(counts, scheme), rtol=1e-14)
    # 900^1.5 = 27000, 100^1.5 = 1000, 25^1.5 = 125
    by_hand = np.array([27000, 1000, 0, 125]) / 28125
    np.testing.assert_allclose(draw(counts, "power", power=1.5), by_hand, rtol=1e-14)
    # w_c = n_max / n_c is 1, 9 and 36; the paper draws class c in proportion to it.
    reversed_ = np.array([1, 9, 0, 36]) / 46
    np.testing.assert_allclose(draw(counts, "power", power=-1), reversed_, rtol=1e-14)
    # Far beyond what float64 can hold of the powers themselves.
    np.testing.assert_array_equal(draw(counts, "power", power=1e308), [1, 0, 0, 0])
    np.testing.assert_array_equal(draw(counts, "power", power=-1e308), [0, 0, 0, 1])
    assert draw(counts, "power").tolist() == draw(counts, "power", power=1.0).tolist()


@pytest.mark.parametrize("takes_counts", TAKES_COUNTS.values(), ids=TAKES_COUNTS)
@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([5, -1], r"class_counts\[1\] is -1; expected 0 or more"),
        ([np.nan, 5], r"class_counts\[0\] is nan; expected a finite number"),
        ([5, np.inf], r"class_counts\[1\] is inf; expected a finite number"),
        ([5, 2.5], r"class_counts\[1\] is 2.5; expected a whole number"),
        ([], r"class_counts must be a vector .* got shape \(0,\)"),
        (7, r"class_counts must be a vector .* got shape \(\)"),
        ([[1, 2]], r"class_counts must be a vector .* got shape \(1, 2\)"),
        (["many", "few"], r"class_counts must be numbers, .* got \['many', 'few'\]"),
        ([[1], [1, 2]], r"class_counts must be numbers"),
    ],
)
def test_bad_counts_are_refused_everywhere(takes_counts, counts, sentence):
    with pytest.raises(InputError, match=sentence):
        takes_counts(counts)


@pytest.mark.parametrize("name", TAKES_COUNTS)
def test_a_class_without_images_is_refused_where_the_formula_has_no_limit(name):
    if name in NO_ZERO:
        sentence = r"class_counts\[1\] is 0; expected at least 1 for this method"
        with pytest.raises(InputError, match=sentence):
            TAKES_COUNTS[name]([2, 0])
    else:
        sentence = "class_counts are all 0; expected at least one class with images"
        with pytest.raises(InputError, match=sentence):
            TAKES_COUNTS[name]([0, 0])


@pytest.mark.parametrize("beta", [1.0, -0.1, 1.5, np.nan, "0.9", None])
def test_bad_beta(beta):
    for call in (
        lambda: longtail.effective_number([5, 1], beta),
        lambda: longtail.class_balanced_weights([5, 1], beta),
        lambda: longtail.sampling_probabilities([5, 1], "effective_number", beta=beta),
    ):
        with pytest.raises(InputError, match=r"beta is .*; expected a number in \[0, 1\)"):
            call()


def test_other_numbers_outside_their_range():
    for call, sentence in (
        (lambda: longtail.effective_number([5, 1, 1], [0.5, 0.9]), "2 betas for 3 class counts"),
        (
            lambda: longtail.sampling_probabilities(
                [5, 1], "class_based_effective_number", beta_spread=1e-3
            ),
            "beta_spread is 0.001; expected 0 or more, and less than 1",
        ),
        (
            lambda: longtail.sampling_probabilities([5, 1], "progressive", progress=1.1),
            r"progress is 1.1; expected a number in \[0, 1\]",
        ),
        (
            lambda: longtail.sampling_probabilities([5, 1], "fair"),
            "sampling scheme is 'fair'; expected one of instance, class, square_root",
        ),
        (lambda: longtail.inverse_frequency_weights([5, 1], np.inf), "power is inf"),
        (lambda: longtail.inverse_frequency_weights([5000, 10], 400), "power is 400; expected one"),
        (
            lambda: longtail.positive_weights([5000, 10], power=400),
            "power is 400; expected one of w",
        ),
        (lambda: longtail.long_tailed_indices([0, 1], [1, 1], -1), "seed is -1; expected a whole"),
        (lambda: longtail.label_distribution_margins([5, 1], -0.5), "max_margin is -0.5"),
        (lambda: longtail.label_distribution_margins([5, 1], np.nan), "max_margin is nan"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 10, 10), "max_count is 0; expected a whole number of at least 1"),
        ((10.5, 10, 10), "max_count is 10.5; expected a whole number"),
        ((np.nan, 10, 10), "max_count is nan; expected a whole number"),
        (("many", 10, 10), "max_count is 'many'; expected a whole number"),
        ((10, 0, 10), "num_classes is 0; expected a whole number"),
        ((10, 10, 0.5), "imbalance is 0.5; expected a number of at least 1"),
        ((10, 10, np.nan), "imbalance is nan; expected a number of at least 1"),
        ((10, 10, "long"), "imbalance is 'long'; expected a number of at least 1"),
        ((10, 10, 10, "linear"), "imbalance kind is 'linear'; expected 'exponential' or 'step'"),
    ],
)
def test_bad_split(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        longtail.long_tailed_counts(*arguments)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 1, 1], "class 0 has 1 images, but the class counts ask for 2"),
        ([0, 0, 1, 2], "label 2 is outside the 2 classes of the class counts"),
        ([0, 0, 1, -1], "label -1 is outside the 2 classes of the class counts"),
        ([0.0, 0.0, 1.0], "labels must be a vector of integers; got float64"),
        ([[0, 0, 1]], r"labels must be a vector of integers; got int64 of shape \(1, 3\)"),
    ],
)
def test_labels_that_do_not_fit_the_counts(labels, sentence):
    with pytest.raises(InputError, match=sentence):
        longtail.long_tailed_indices(labels, [2, 1], seed=0)


def test_longtail_needs_numpy_only():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, lt_jax.longtail; print(*sys.modules)"],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "numpy" in loaded
    assert not {"jax", "jaxlib", "flax", "optax", "scipy"} & set(loaded)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: longtail.count_classes([5], 3), "label 5 is outside the 3 classes"),
        (lambda: longtail.count_classes([-1], 3), "label -1 is outside the 3 classes"),
        (
            lambda: longtail.count_classes([[1, 0]], 3),
            r"shape \(1, 2\); expected one column",
        ),
        (lambda: longtail.effective_classes([5, 5], order=0), "order is 0; expected 1 or 2"),
    ],
)
def test_labels_and_orders_that_mean_nothing_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()


def test_no_labels_and_whole_floats_are_fine():
    assert longtail.count_classes([], 2).tolist() == [0, 0]
    counts = longtail.long_tailed_counts(10, 3.0, 2, "pareto")
    assert counts.tolist() == longtail.long_tailed_counts(10, 3, 2, "pareto").tolist()
