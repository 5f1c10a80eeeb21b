"""Advice from class counts: its numbers, that it can be followed, that it quotes what was measured.

Measures are held to SciPy and to their definitions, quotations to the tables in results/, and every
method, field and command that is advised to the registry and the configs.
"""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import lt_jax
from lt_jax import longtail
from lt_jax.advice import advice_for, least_scale
from lt_jax.advice.evidence import BETAS, nearest_beta
from lt_jax.advice.usage import command_for, snippet_for
from lt_jax.config_checks import value_at
from lt_jax.configuration import base_config, check_config
from lt_jax.errors import InputError
from lt_jax.metrics import class_groups
from lt_jax.objectives import build_objective, check_multi_label
from lt_jax.settings import override, with_string

ROOT = Path(__file__).parents[1]
TAIL = longtail.long_tailed_counts
# name -> counts, and of multi-label sets the number of examples.
SETS = {
    "balanced": (np.full(10, 500), None),
    "two classes": ([9_000, 90], None),
    "two images": ([1, 1], None),
    "tiny": ([5, 2, 1], None),
    "digits": (TAIL(113, 10, 50), None),
    "small": (TAIL(1000, 10, 100), None),
    "mild": (TAIL(1000, 10, 10), None),
    "CIFAR-10-LT": (TAIL(5000, 10, 1000), None),
    "few of many classes": (TAIL(350, 100, 50), None),
    "CIFAR-100-LT": (TAIL(500, 100, 100), None),
    "ImageNet-LT": (TAIL(1280, 1000, 256), None),
    "iNaturalist 2018": (TAIL(1000, 8142, 500), None),
    "Places-LT": (TAIL(4980, 365, 996), None),
    "absent classes": ([900, 0, 90, 9, 0], None),
    "canvases": ([2147, 1594, 1110, 779, 562, 399, 234, 145, 98, 67], 3000),
    "even labels": ([171, 124, 148, 147, 208, 169], 907),
    "never and always": ([300, 120, 30, 2, 0], 300),
    "many labels": (TAIL(60_000, 80, 300), 118_000),
}
# Every method, and the most extreme counts: compiling their losses takes longest here.
COMPILED = ("two classes", "two images", "tiny", "few of many classes", "iNaturalist 2018",
            "absent classes", "never and always")  # fmt: skip
SINGLE = {name: counts for name, (counts, total) in SETS.items() if total is None}


@pytest.fixture(scope="module")
def advised():
    """The advice for each of the sets."""
    return {
        name: advice_for(counts, total is not None, num_examples=total)
        for name, (counts, total) in SETS.items()
    }


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


def counts_of(name):
    counts, total = SETS[name]
    return np.asarray(counts), total


def words_of(command):
    return shlex.split(command.replace("\\\n", " "))


@pytest.fixture(scope="module")
def objectives(advised):
    """The objectives of all stages of all choices, by set and method."""
    built = {}
    for name, advice in advised.items():
        counts, total = counts_of(name)
        for choice in advice.choices:
            config = base_config(choice.method)
            override(config, [f"{k}={v}" for k, v in choice.fields.items()])
            check_config(config)
            trained = "objective" in config.retrain
            specs = [config.objective, *([config.retrain.objective] if trained else [])]
            for stage, spec in enumerate(specs):
                objective = build_objective(spec.to_dict(), counts, num_examples=total)
                built[name, choice.method, stage] = objective
                if total is not None:
                    check_multi_label(objective)
    return built


def test_losses_of_every_choice_are_finite(objectives):
    rng = np.random.default_rng(0)
    sizes = {name: len(SETS[name][0]) for name in COMPILED}
    chosen = {key: o for key, o in objectives.items() if key[0] in COMPILED}
    assert {method for _, method, _ in chosen} == {method for _, method, _ in objectives}
    cosines = {n: rng.uniform(-1, 1, (4, c)).astype(np.float32) for n, c in sizes.items()}

    @jax.jit  # all at once: each by itself takes a second to compile
    def losses(cosines, key):
        found = {}
        for (name, method, stage), objective in chosen.items():
            labels = jnp.array([0, sizes[name] - 1, 0, 1])
            if SETS[name][1] is not None:
                labels = jax.nn.one_hot(labels, sizes[name])
            loss, _ = objective.apply(objective.init(), key, cosines[name], labels)
            found[f"{name} {method} {stage}"] = loss
        return found

    found = losses(cosines, jax.random.key(0))
    for name, loss in found.items():
        assert loss.shape == (4,)
        assert np.isfinite(loss).all(), name


@pytest.fixture(scope="module")
def get_config():
    """The function of a config file, which is run once."""
    functions = {}

    def of(file):
        if file not in functions:
            functions[file] = runpy.run_path(str(ROOT / file))["get_config"]
        return functions[file]

    return of


@pytest.mark.parametrize("name", SETS)
def test_the_command_is_a_config_with_the_advised_numbers(name, advised, get_config):
    advice = advised[name]
    python, script, config, *rest = words_of(advice.command)
    assert (python, script) == ("python", "launch/train.py")
    assert (ROOT / script).is_file()
    file, _, string = config.removeprefix("--config=").partition(":")
    made = get_config(file)(string)
    assert string.rpartition(",")[2] == advice.start.method
    override(made, [x.removeprefix("--config.") for x in rest if x.startswith("--config.")])
    check_config(made)
    assert rest[-1].startswith("--workdir=runs/")
    assert made.data.imbalance == 0
    assert made.data.validation_size < advice.measures.num_examples
    for part in ("objective", "retrain.objective"):
        second = part != "objective"
        if not second or "objective" in made.retrain:
            transforms = value_at(made, part)["transforms"]
            if "gaussian_cloud" in transforms:
                scale = advice.numbers.scale2 if second else advice.numbers.scale
                noise = advice.numbers.noise2 if second else advice.numbers.noise
                cloud = transforms["gaussian_cloud"]
                assert (cloud["scale"], cloud["noise"]) == (scale, noise)


def test_commands_of_the_other_choices(advised, get_config):
    """Advised betas and rates are in the fields of the methods that have them."""
    for name, field, method in (
        ("iNaturalist 2018", "class_balanced.beta", "cb_focal"),
        ("canvases", "partial_label_mask.rate", "plm"),
    ):
        advice = advised[name]
        assert advice.second.method == method
        command = command_for(advice.second, advice.numbers, advice.measures, advice.multi_label)
        number = advice.numbers._asdict()[field.rpartition(".")[2]]
        assert f"--config.objective.transforms.{field}={number}" in words_of(command)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("digits.py", "digits.py:cross_entropy"),
        ("cifar_lt.py", "cifar_lt.py:cifar10,100,cb_focal"),
        ("photographs.py:places_lt,resnet50,224,gcl_long",) * 2,
        ("dlsa_imagenet_lt.py",) * 2,  # its string is a folder
    ],
)
def test_a_config_without_a_string_is_its_default(name, known):
    found = with_string(f"{ROOT}/configs/{name}")
    assert found == f"{ROOT}/configs/{known}"


def test_the_command_keeps_the_config_that_was_given():
    given = ("configs/cifar_lt.py:cifar10,100,cb_focal", "data.class_counts=(50, 5)")
    words = words_of(advice_for([500, 50, 5], config=given).command)
    assert words[2] == "--config=configs/cifar_lt.py:cifar10,100,gcl"
    assert words[3] == "--config.data.class_counts=(50, 5)"
    without = words_of(advice_for([500, 50, 5], config=("configs/digits.py", "seed=3")).command)
    assert "--config.seed=3" in without
    assert "--config.data.source=arrays:FILE.npz" in without


def run(snippet, name, **names):
    """What the snippet makes of logits in somebody's jitted step."""
    counts, total = counts_of(name)
    labels = jnp.array([0, 1, 0])
    labels = labels if total is None else jax.nn.one_hot(labels, counts.size)

    @jax.jit
    def step(logits, key):
        known = {"counts": counts, "labels": labels, "cosines": logits, "logits": logits}
        exec(snippet, {**known, "key": key, **names}, made := {})
        return made["loss"], made.get("state")

    return step(np.zeros((3, counts.size), np.float32), jax.random.key(0))


@pytest.mark.parametrize("name", ["balanced", "two classes", "small", "iNaturalist 2018"])
def test_the_snippet_runs(name, advised):
    loss, _ = run(advised[name].snippet, name)
    assert loss.shape == ()
    assert np.isfinite(loss)


@pytest.mark.parametrize("name", ["canvases", "even labels"])
def test_the_snippet_runs_with_several_labels(name, advised):
    loss, _ = run(advised[name].snippet, name)
    assert np.isfinite(loss)


def test_the_snippet_of_masking_runs(advised):
    advice = advised["canvases"]
    snippet = snippet_for(advice.second, advice.numbers, advice.measures)
    loss, state = run(snippet, "canvases", STEPS_PER_EPOCH=10)
    counts, total = counts_of("canvases")
    np.testing.assert_allclose(loss, np.full(3, counts.size * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(state[0].ideal_ratio, counts / (total - counts), rtol=1e-6)


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


def test_the_script_advises_for_the_data_of_a_config():
    run = subprocess.run(
        [sys.executable, "launch/advise.py", "--config=configs/digits.py:plm",
         "--config.data.max_count=80", "--config.data.imbalance=20"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    counts = TAIL(80, 10, 20)
    config = ("configs/digits.py:plm", "data.max_count=80", "data.imbalance=20.0")
    assert run.stdout == f"{advice_for(counts, config=config)}\n"
