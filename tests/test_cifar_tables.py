"""configs/cifar_lt.py: every row of the tables of the papers can be run, as the papers have it."""

import itertools
import runpy

import pytest
from tiny_runs import ROOT

from lt_jax.configuration import check_config
from lt_jax.settings import load_configs
from lt_jax.sweep import plan

CIFAR = runpy.run_path(str(ROOT / "configs/cifar_lt.py"))
TABLES = sorted(CIFAR["SWEEPS"])


@pytest.mark.parametrize(
    ("data", "imbalance"), itertools.product(("cifar10", "cifar100"), ("10", "50", "100", "200"))
)
def test_every_row_of_the_papers_tables_is_a_config(data, imbalance):
    """One that can be run, as far as can be seen without images; with a name of its own."""
    for name in TABLES:
        configs = load_configs(CIFAR, f"{name},{data},{imbalance}", [], [], 3)
        assert len(configs) == len(CIFAR["SWEEPS"][name])
        for row, config in configs.items():
            check_config(config)
            assert row.startswith(f"{data}_lt{imbalance}_")
            assert config.data.source == f"tfds:{data}"
            assert config.data.imbalance == float(imbalance)
            assert config.data.validation_size == 0  # all of train, as in the papers
            assert config.model.name == "resnet32"
            # Without validation there is nothing to choose a knob on.
            assert len(config.retrain.get("tau", (0,))) == 1
        plan(configs)


def test_first_stages_of_the_gcl_table_are_trained_once():
    configs = load_configs(CIFAR, "gcl_table,cifar10,100", [], [], 5)
    stages = {row.name: row.stage1 for row in plan(configs) if row.stage1}
    name = "cifar10_lt100_{}".format
    rows = ("posthoc_logit_adjustment", "crt", "lws", "tau_norm")
    assert stages == {
        **{name(row): name("cross_entropy") for row in rows},
        name("gcl"): name("gcl_stage1"),
    }


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_gcl_row_has_the_settings_of_the_paper(data):
    """Li, Cheung and Lu, CVPR 2022: clouds, margins, scales, focal, sampler, recipe, warm-ups."""
    config = CIFAR["get_config"](f"{data},100,gcl")
    optimizer = {
        "name": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 2e-4,
        "warmup_epochs": 5.0,
    }
    # Stage 1: softmax of clouds, every image once an epoch, mixup.
    assert config.objective.base == "softmax"
    assert list(config.objective.transforms) == ["gaussian_cloud"]
    cloud = config.objective.transforms.gaussian_cloud
    assert (cloud.noise, cloud.margin, cloud.scale, cloud.angular) == (0.5, 0.0, 30.0, False)
    assert config.sampling.scheme == "instance"
    assert config.augment.mixup_alpha == 1.0
    assert (config.train.epochs, config.train.batch_size) == (200, 64)
    found = config.optimizer.to_dict()
    assert {name: found[name] for name in optimizer} == optimizer
    assert found["schedule"] == "step"
    assert (found["milestones"], found["factors"]) == ((160.0, 180.0), (0.1, 0.1))
    # Stage 2: from the classifier of stage 1.
    second = config.retrain
    assert (second.method, second.weights) == ("finetune", "last")
    assert second.objective.base == "softmax"
    assert sorted(second.objective.transforms) == ["focal", "gaussian_cloud"]
    cloud, focal = second.objective.transforms.gaussian_cloud, second.objective.transforms.focal
    assert (cloud.noise, cloud.margin, cloud.scale, cloud.angular) == (0.5, 0.1, 20.0, False)
    assert (focal.gamma, focal.differentiate_modulator) == (1.0, False)
    assert second.sampling.scheme == "class_based_effective_number"
    assert (second.sampling.beta, second.sampling.beta_spread) == (0.9999, 1e-5)
    assert second.augment.mixup_alpha == 1.0
    assert (second.epochs, second.batch_size) == (30, 64)
    found = second.optimizer.to_dict()
    assert {name: found[name] for name in optimizer} == optimizer
    assert found["schedule"] == "constant"  # after the warm-up; no milestone within 30 epochs


def test_first_stage_of_gcl_alone_is_that_of_both():
    """The row `gcl_stage1` is what the row `gcl` starts from."""
    alone, both = (CIFAR["get_config"](f"cifar100,200,{name}") for name in ("gcl_stage1", "gcl"))
    assert plan({"a": alone, "b": both})[1].stage1 == "a"
    assert not alone.retrain.method
