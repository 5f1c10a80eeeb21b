"""Configs of second stages that cannot be run: refused by one sentence before anything is done."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import functools

import pytest
from second_stages import (  # noqa: F401 (fixtures)
    _no_training,
    assert_refused,
    ce,
    gcl,
    second,
)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import tiny

from lt_jax.configuration import base_config, first_stage
from lt_jax.retrain import retrain
from lt_jax.train import train

# On a finished first stage.

CONFIGS = {
    "other imbalance": (
        lambda: second("crt", data__imbalance=20.0),
        r"trained on other data: data.imbalance = 10.0, and this config has 20.0",
    ),
    "other split": (
        lambda: second("crt", data__split_seed=3),
        r"trained on other data: data.split_seed = 0, and this config has 3",
    ),
    "other source": (
        lambda: second("crt", data__source="tfds:cifar10"),
        r"trained on other data: data.source = 'digits', and this config has 'tfds:cifar10'",
    ),
    "other backbone": (
        lambda: second("crt", model__name="small"),
        r"with another network: model.name = 'pixels', and this config has 'small'",
    ),
    "other objective": (
        lambda: second("crt", "balanced_softmax"),
        r"in another way: objective.transforms",
    ),
    "other length": (
        lambda: second("crt", train__epochs=3),
        r"in another way: train.epochs = 2, and this config has 3",
    ),
    "seeds": (
        lambda: second("crt", seed=1),
        r"has seeds \[0, 1\], and config.seed and config.replicas ask for \[1, 2\]",
    ),
    "no method": (lambda: tiny(replicas=2), r"config.retrain.method is ''; expected a second"),
    "batch above data": (
        lambda: second("crt", retrain__batch_size=4096),
        r"config.retrain.batch_size is 4096; expected at most 240",
    ),
    "indivisible batch": (
        lambda: second("crt", retrain__batch_size=60, train__num_devices=8),
        r"config.retrain.batch_size is 60; expected a multiple of the 8 devices",
    ),
    "cosine objective on a linear head": (
        lambda: second("finetune", retrain__objective=second("gcl", "gcl").retrain.objective),
        r"keeps the linear head of stage 1, but config.retrain.objective needs a cosine one",
    ),
    "gcl on a linear head": (
        lambda: second("gcl"),
        r"config.retrain.method is 'finetune', which keeps the linear head",
    ),
    "no tau": (lambda: second("tau_norm", retrain__tau=()), r"config.retrain.tau is empty"),
    "negative tau": (lambda: second("tau_norm", retrain__tau=(0.5, -1.0)), r"tau holds -1.0"),
    "unknown features": (lambda: second("ncm", retrain__features=("l2",)), r"features holds 'l2'"),
    "unknown weights": (
        lambda: second("crt", retrain__weights="first"),
        r"config.retrain.weights is 'first'; expected one of last, best_on_validation",
    ),
    "unknown scheme": (
        lambda: second("crt", retrain__sampling__scheme="uniform"),
        r"config.retrain.sampling.scheme is 'uniform'; expected one of instance",
    ),
    "autoaugment": (
        lambda: second("crt", retrain__augment__autoaugment=True),
        r"config.retrain.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
}


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config_is_refused(name, ce, tmp_path):
    """Before anything is made in the new folder or changed in that of stage 1."""
    make, sentence = CONFIGS[name]
    workdir = tmp_path / "run"
    assert_refused(lambda: retrain(make(), workdir, ce.folder), sentence, workdir, ce.folder)


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epoch": 3}, r"no field 'retrain.epoch'; did you mean retrain.epochs\?"),
        ({"tau": (1.0,)}, r"config has no field 'retrain.tau'"),
        ({"method": "crtt"}, r"config.retrain.method is 'crtt'; expected one of crt, finetune"),
        ({"epochs": "many"}, r"config.retrain.epochs is 'many'; expected int"),
        ({"epochs": 0}, r"config.retrain.epochs is 0; expected at least 1"),
    ],
    ids=["misspelt", "of another method", "unknown method", "type", "range"],
)
def test_field_of_the_second_stage_is_refused(change, sentence, ce, tmp_path):
    """In plain dictionaries, which check nothing by themselves; by either entrance."""
    config = second("crt").to_dict()
    config["retrain"].update(change)
    workdir = tmp_path / "run"
    assert_refused(lambda: retrain(config, workdir, ce.folder), sentence, workdir, ce.folder)
    assert_refused(lambda: train(config, workdir), sentence, workdir)


@pytest.mark.usefixtures("_no_training")
def test_tau_norm_is_refused_on_a_finished_cosine_head(gcl, tmp_path):
    call = functools.partial(retrain, second("tau_norm", "gcl"), tmp_path / "run", gcl.folder)
    assert_refused(call, r"expected a stage 1 with a linear head", tmp_path / "run", gcl.folder)


def test_config_of_two_stages_without_the_second_is_that_of_the_first(ce):
    """What `retrain` compares with the config in the folder of stage 1."""
    first = first_stage(second("crt"))
    assert first.name == "cross_entropy_crt_stage1"
    assert first.retrain.to_dict() == base_config().retrain.to_dict()
    first.name = ce.config.name
    assert first.to_dict() == ce.config.to_dict()


# Before the first stage is trained.

BEFORE_STAGE_1 = {
    "choice without validation": (
        lambda: second("tau_norm", data__validation_size=0),
        r"config.retrain.tau has 4 values, but there is no validation split to choose on",
    ),
    "features without validation": (
        lambda: second("ncm", data__validation_size=0),
        r"config.retrain.features has 3 values, but there is no validation split",
    ),
    "tau_norm on cosines": (
        lambda: second("tau_norm", "gcl"),
        r"the head of stage 1 takes cosines.*expected a stage 1 with a linear head",
    ),
    "gcl on a linear head": (lambda: second("gcl"), r"keeps the linear head of stage 1"),
    "batch above data": (
        lambda: second("crt", retrain__batch_size=4096),
        r"config.retrain.batch_size is 4096; expected at most 240",
    ),
    "rate": (
        lambda: second("crt", retrain__optimizer__learning_rate=-1.0),
        r"learning_rate is -1.0; expected a positive number",
    ),
    "autoaugment of grey images in stage 2": (
        lambda: second("crt", retrain__augment__autoaugment=True),
        r"config.retrain.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
    "autoaugment of grey images in stage 1": (
        lambda: second("crt", augment__autoaugment=True),
        r"config.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
    "color jitter of grey images": (
        lambda: tiny(augment__color_jitter=0.4),
        r"config.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
    "negative color jitter": (
        lambda: second("crt", retrain__augment__color_jitter=-0.4),
        r"config.retrain.augment.color_jitter is -0.4; expected at least 0",
    ),
    "autoaugment of grey images without stage 2": (
        lambda: tiny(augment__autoaugment=True),
        r"config.augment does not fit digits: .*\[B, H, W, 3\]",
    ),
}


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", sorted(BEFORE_STAGE_1))
def test_second_stage_is_refused_before_the_first_is_trained(name, tmp_path):
    """Hours would be lost otherwise."""
    make, sentence = BEFORE_STAGE_1[name]
    workdir = tmp_path / "run"
    assert_refused(lambda: train(make(), workdir), sentence, workdir)
