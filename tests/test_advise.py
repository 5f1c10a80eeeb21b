"""Advice from class counts: its numbers, that it quotes what was measured, what it says.

Measures are held to SciPy and to their definitions, quotations to the tables in results/.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from counted_sets import SETS, TAIL

import lt_jax
from lt_jax.advice import advice_for, least_scale
from lt_jax.advice.evidence import BETAS, nearest_beta
from lt_jax.errors import InputError
from lt_jax.metrics import class_groups

ROOT = Path(__file__).parents[1]
SINGLE = {name: counts for name, (counts, total) in SETS.items() if total is None}

# Numbers


@pytest.mark.parametrize("name", SETS)
def test_measures_against_their_definitions(name, advised):
    n, found = np.asarray(SETS[name][0], np.float64), advised[name].measures
    share = n / n.sum()
    assert found.effective == pytest.approx(np.exp(scipy.stats.entropy(n)), rel=1e-12)
    assert found.inverse_simpson == pytest.approx(1 / (share**2).sum(), rel=1e-12)
    assert 1 <= found.inverse_simpson <= found.effective * (1 + 1e-12)
    assert found.effective <= (n > 0).sum() * (1 + 1e-12)
    if n.size < 1000:
        pairs = np.abs(n[:, None] - n[None]).mean()
        assert found.gini == pytest.approx(pairs / (2 * n.mean()), rel=1e-12)
    if n.size > 2:
        assert found.head_share == pytest.approx(share[class_groups(n)["head"]].sum(), rel=1e-12)
    assert found.factor == max(n) / min(n[n > 0])
    assert found.absent == list(n).count(0)


@pytest.mark.parametrize("name", SETS)
def test_every_class_is_in_one_shot_group(name, advised):
    counts, groups = SETS[name][0], advised[name].measures.groups
    kinds = ["many" if n > 100 else "few" if n < 20 else "medium" for n in counts]
    for name, group in groups.items():
        assert group.classes == tuple(c for c, kind in enumerate(kinds) if kind == name)
    assert sum(group.images for group in groups.values()) == sum(counts)
    assert sum(group.share for group in groups.values()) == pytest.approx(1)


def test_balanced_counts_are_as_equal_as_can_be(advised):
    found = advised["balanced"].measures
    assert (found.factor, found.gini) == (1, 0)
    assert found.effective == pytest.approx(10)
    assert advised["balanced"].start.method == "cross_entropy"
    np.testing.assert_allclose(advised["balanced"].vectors.weights, 1)
    np.testing.assert_array_equal(advised["balanced"].vectors.cloud_sizes, 0)


@pytest.mark.parametrize("use", BETAS, ids=lambda use: use.name)
def test_a_set_whose_beta_is_known_is_its_own_nearest(use):
    counts = np.linspace(use.largest, use.smallest, use.num_classes).round()
    assert nearest_beta(counts) == use


def test_the_least_scale_reaches_its_probability():
    """Class vectors as far apart as can be: a simplex, whose cosines are -1 / (C - 1)."""
    for num_classes in (2, 10, 1000):
        cosines = np.full(num_classes, -1 / (num_classes - 1))
        cosines[0] = 1
        e = np.exp(least_scale(num_classes, 0.99) * cosines)
        assert e[0] / e.sum() == pytest.approx(0.99)


@pytest.mark.parametrize("name", SINGLE)
def test_advised_scales_are_above_the_least(name, advised):
    assert advised[name].numbers.scale2 > least_scale(len(SINGLE[name]))
    assert advised[name].numbers.scale2 < advised[name].numbers.scale


def test_scales_are_those_that_trained(advised):
    """See the README: 15 for digits, 30 for 2,478 images and more, 5 to 15 for two classes."""
    for name, scale in (("digits", 15), ("small", 30), ("iNaturalist 2018", 30)):
        assert advised[name].numbers.scale == scale
        assert f"{scale:g}, in stage 2" in advised[name].settings[1].value
    assert 5 <= advised["two classes"].numbers.scale <= 15


def test_vectors_are_those_of_the_methods(advised):
    counts = np.array([900, 0, 90, 9, 0], float)
    weights, clouds, margins = advised["absent classes"].vectors
    beta = advised["absent classes"].numbers.beta
    inverse = [0 if n == 0 else (1 - beta) / (1 - beta**n) for n in counts]
    np.testing.assert_allclose(weights, 3 * np.array(inverse) / sum(inverse), rtol=1e-9)
    np.testing.assert_allclose(clouds, [0, np.nan, 0.5, 1, np.nan], atol=1e-12)
    np.testing.assert_allclose(margins, 0.5 * (9 / np.where(counts, counts, np.nan)) ** 0.25)


# Quotations


@pytest.mark.parametrize(
    ("counts", "ratio", "share"),
    [(TAIL(1000, 10, 100), "1.05", "0.6%"), (TAIL(5000, 10, 100), "1.27", "3.0%")],
)
def test_samplers_differ_as_in_the_table_of_the_results(counts, ratio, share):
    text = next(s for s in advice_for(counts).settings if s.name == "sampler").reason
    assert f" {ratio} times as often" in text
    assert f" {share} of the draws" in text
    row = f"| {ratio} | {share.replace('%', ' %')} |"
    assert row in (ROOT / "results/README.md").read_text()


def test_what_is_quoted_was_measured(advised):
    """Each difference with its interval stands in one of the tables that are named beside it."""
    quoted = 0
    for advice in advised.values():
        for choice in advice.choices:
            files = re.findall(r"results/[\w/]+\.(?:md|csv)", choice.source)
            texts = [(ROOT / file).read_text() for file in files]
            for difference in re.findall(r"[+-]\d+\.\d \[[^]]+\]", choice.reason):
                assert any(difference in text for text in texts), difference
                quoted += 1
            if "reported" in choice.reason and "results/reported.csv" in files:
                # Errors as they are, accuracies rounded.
                known = [float(x) for x in re.findall(r",(\d+\.\d+),", texts[-1] + texts[0])]
                for number in re.findall(r"\d\d\.\d+(?= %| to| against)", choice.reason):
                    digits = len(number.partition(".")[2])
                    assert any(f"{x:.{digits}f}" == number for x in known), number
    assert quoted > 30


# Text


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("balanced", ["An imbalance of 1 is next to none"]),
        ("two classes", ["measured with two classes"]),
        ("two images", ["next to none", "2 images are few", "two classes", "one image (0, 1)"]),
        ("tiny", ["8 images are few", "one image (2)"]),
        ("small", []),
        ("digits", ["312 images are few"]),
        ("ImageNet-LT", ["a thousand classes or more"]),
        ("absent classes", ["without images (1, 4)"]),
        ("canvases", []),
        ("even labels", ["An imbalance of 1.7 is next to none"]),
        ("never and always", ["300 images", "never occur (4)", "always occur (0)"]),
    ],
)
def test_where_little_is_known_it_says_so(name, phrases, advised):
    cautions = advised[name].cautions
    assert len(cautions) == len(phrases), cautions
    for phrase, caution in zip(phrases, cautions, strict=True):
        assert phrase in caution
        assert caution.split()[0] in str(advised[name]).split("Beware")[1]


def test_more_cautions():
    many = ", ".join(map(str, range(1, 6)))
    assert f"({many}, ..., 9 in all)" in advice_for([900] + [1] * 9).cautions[0]
    assert "beyond every set" in advice_for([5_000, 500, 4]).cautions[0]
    assert "was not given" in advice_for([50_000, 500], multi_label=True).cautions[0]


def test_it_prints_what_it_returns(capsys):
    advice = lt_jax.advise(TAIL(1000, 10, 100))
    printed = capsys.readouterr().out
    assert printed == f"{advice}\n"
    for text in (advice.command, advice.snippet):
        assert all(line.strip() in printed for line in text.splitlines())
    lines = [line for line in printed.splitlines() if not line.startswith("      --")]
    assert max(map(len, lines)) <= 96
    assert repr(advice).startswith("Advice(start='gcl', second='balanced_softmax', numbers=Num")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([5],), "class_counts have 1 class with images; expected at least 2"),
        (([5, 0],), "class_counts have 1 class with images; expected at least 2"),
        (([],), "class_counts must be a vector with one count for each class"),
        (([3, -1],), r"class_counts\[1\] is -1; expected 0 or more"),
        (("abc",), "class_counts must be numbers, one for each class; got 'abc'"),
        (([9, 3], False, 12), "num_examples is 12, but with one label an example"),
        (([9, 3], True, 5), "num_examples is 5; expected at least the largest count 9"),
    ],
)
def test_bad_input(arguments, sentence):
    counts, multi_label, num_examples = (*arguments, False, None)[:3]
    with pytest.raises(InputError, match=sentence):
        lt_jax.advise(counts, multi_label, num_examples=num_examples)


def test_unknown_names_of_the_package_are_still_unknown():
    with pytest.raises(AttributeError, match="has no attribute 'advice_'"):
        lt_jax.advice_  # noqa: B018
