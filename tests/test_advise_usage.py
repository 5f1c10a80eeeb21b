"""That advice can be followed: every method, field, command and snippet that it gives."""

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted_sets import SETS, TAIL

from lt_jax.advice import advice_for
from lt_jax.advice.usage import command_for, snippet_for
from lt_jax.config_checks import value_at
from lt_jax.configuration import base_config, check_config
from lt_jax.data import load_dataset
from lt_jax.objectives import build_objective, check_multi_label
from lt_jax.settings import override, with_string

ROOT = Path(__file__).parents[1]
# Every method, and the most extreme counts: compiling their losses takes longest here.
COMPILED = ("two classes", "two images", "tiny", "few of many classes", "iNaturalist 2018",
            "absent classes", "never and always")  # fmt: skip


def counts_of(name):
    counts, total = SETS[name]
    return np.asarray(counts), total


def words_of(command):
    return shlex.split(command.replace("\\\n", " "))


# Methods


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


# Commands


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


@pytest.mark.parametrize(
    "tail",
    [
        (),
        ("--config.data.imbalance=0",),
        ("--config=configs/small_lt.py", "--config.data.max_count=90"),
    ],
)
def test_the_script_describes_what_its_command_trains_on(tail, tmp_path, get_config):
    """It held 150 images out of its numbers and fewer in its command, and left a net for 28 px."""
    labels = np.repeat(np.arange(3), (150, 100, 50))
    images = np.zeros((300, 40, 40, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    done = subprocess.run(
        [sys.executable, "launch/advise.py", *tail,
         f"--config.data.source=arrays:{tmp_path}/a.npz"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = done.stdout[done.stdout.index("python launch/train.py") :].partition("\n\n")[0]
    _, _, config, *rest = words_of(command)
    file, _, string = config.removeprefix("--config=").partition(":")
    made = get_config(file)(string)
    override(made, [x.removeprefix("--config.") for x in rest if x.startswith("--config.")])
    found = load_dataset(made.data)
    assert done.stdout.startswith(f"3 classes, {len(found.train_labels)} images:")
    assert len(found.train_labels) == 270 or tail[-1:] != ("--config.data.imbalance=0",)
    assert 0 < made.data.validation_size <= 30
    assert made.model.name == "conv4"


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 48, 3), (224, 224, 3), (512,)])
@pytest.mark.parametrize("name", ["small", "balanced", "canvases"])
def test_the_network_suits_the_images(name, shape, get_config):
    """It is one that is built for inputs of that shape, and none for 8 px gets photographs."""
    counts, total = counts_of(name)
    advice = advice_for(counts, total is not None, num_examples=total, image_shape=shape)
    _, _, config, *rest = words_of(advice.command)
    file, _, string = config.removeprefix("--config=").partition(":")
    made = get_config(file)(string)
    override(made, [x.removeprefix("--config.") for x in rest if x.startswith("--config.")])
    fitting = {28: ("small", "resnet32"), 32: ("conv4", "resnet32"), 64: ("conv4",)}
    fitting |= {224: ("resnet18",), 512: ("mlp",)}
    assert made.model.name in fitting[shape[0]]
    if len(shape) == 1:  # which no crop can be taken of
        assert not any(made.augment.to_dict().values())


# Snippets


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
