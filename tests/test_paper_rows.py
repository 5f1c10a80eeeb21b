"""Configs of the papers' rows have the papers' numbers; those of GCL are in test_cifar_tables."""

import itertools
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import ROOT

from lt_jax.configuration import base_config, with_stage
from lt_jax.errors import InputError
from lt_jax.objectives import METHODS, TRANSFORMS, Method, build_objective
from lt_jax.objectives.core import stateless
from lt_jax.settings import load_configs
from lt_jax.sweep import run_sweep
from lt_jax.train import train
from lt_jax.two_stage import stage_fields

CIFAR = runpy.run_path(str(ROOT / "configs/cifar_lt.py"))["get_config"]
_PHOTOGRAPHS = runpy.run_path(str(ROOT / "configs/photographs.py"))
PHOTOGRAPHS, PHOTOGRAPH_TABLES = _PHOTOGRAPHS["get_config"], _PHOTOGRAPHS["get_sweep"]
SGD = {"name": "sgd", "momentum": 0.9, "nesterov": False}
# Cui et al., CVPR 2019, section 5: "Training with sigmoid cross-entropy" and "Implementation".
CB_CIFAR = {
    **SGD,
    "learning_rate": 0.1,
    "weight_decay": 2e-4,
    "schedule": "step",
    "warmup_epochs": 5.0,
    "milestones": (160.0, 180.0),
    "factors": (0.01, 0.01),
}
# Its table 2: loss, gamma and beta that were best at each imbalance.
CB_BEST = {
    ("cifar10", "200"): "SM .9999",
    ("cifar10", "100"): "F1 .9999",
    ("cifar10", "50"): "F2 .9999",
    ("cifar10", "20"): "SM .9999",
    ("cifar10", "10"): "SGM .9999",
    ("cifar10", "1"): "SGM",
    ("cifar100", "200"): "F1 .9",
    ("cifar100", "100"): "F1 .9",
    ("cifar100", "50"): "SGM .99",
    ("cifar100", "20"): "F.5 .99",
    ("cifar100", "10"): "F.5 .999",
    ("cifar100", "1"): "SGM",
}


def as_written(objective):
    """An objective in the words of that table."""
    transforms = objective.transforms
    name = {"softmax": "SM", "sigmoid": "SGM"}[objective.base]
    if "focal" in transforms:
        name = f"F{transforms.focal.gamma:g}".replace("0.", ".")
    beta = [f"{transforms.class_balanced.beta:g}"[1:]] if "class_balanced" in transforms else []
    return " ".join([name, *beta])


@pytest.mark.parametrize(
    ("data", "method"),
    itertools.product(
        ("cifar10", "cifar100"), ("softmax", "sigmoid", "focal_1", "cb_softmax", "cb_focal_2")
    ),
)
def test_rows_of_the_class_balanced_table(data, method):
    config = CIFAR(f"{data},100,{method}")
    found = config.optimizer.to_dict()
    assert {name: found[name] for name in CB_CIFAR} == CB_CIFAR
    assert (config.train.epochs, config.train.batch_size) == (200, 128)
    assert config.model.name == "resnet32"
    augmentation = {k: v for k, v in config.augment.items() if v}
    assert augmentation == {"crop_padding": 4, "flip": True}
    assert config.sampling.scheme == "instance"
    kinds = {"softmax": "SM", "sigmoid": "SGM", "focal_1": "F1"}
    default = {"cb_softmax": "SM .9999", "cb_focal_2": "F2 .9999"}
    assert as_written(config.objective) == {**kinds, **default}[method]


@pytest.mark.parametrize(("column", "choice"), CB_BEST.items())
def test_best_rows_are_those_of_the_table(column, choice):
    assert as_written(CIFAR(",".join([*column, "cb_best"])).objective) == choice


@pytest.mark.parametrize(
    ("data", "network", "side"),
    [
        ("inat2018", "resnet50", 224),
        ("ilsvrc2012", "resnet152", 320),
        ("inat2017", "resnet101", 224),
    ],
)
def test_class_balanced_rows_on_photographs(data, network, side):
    """90 epochs, beta 0.999, gamma 0.5; rates as Goyal et al., 2017: 0.1 for a batch of 256."""
    config = PHOTOGRAPHS(f"{data},{network},{side},cb_focal")
    assert as_written(config.objective) == "F.5 .999"
    assert config.train.epochs == 90
    found = config.optimizer.to_dict()
    expected = {
        **SGD,
        "learning_rate": 0.1 * config.train.batch_size / 256,
        "weight_decay": 1e-4,
        "warmup_epochs": 5.0,
        "milestones": (30.0, 60.0, 80.0),
        "factors": (0.1, 0.1, 0.1),
    }
    assert {name: found[name] for name in expected} == expected
    assert (config.model.name, config.data.image_size) == (network, side)
    augmentation = {k: v for k, v in config.augment.items() if v}
    assert augmentation == {"random_resized_crop": 0.08, "flip": True}


def test_gcl_on_places_starts_from_weights_that_the_user_names(tmp_path, monkeypatch):
    """No row of its table starts from random ones unasked: that is told before data are looked for.

    Those of other sets, and of the class-balanced paper, do.
    """
    monkeypatch.chdir(tmp_path)
    module = {"get_config": PHOTOGRAPHS, "get_sweep": PHOTOGRAPH_TABLES}
    rows = load_configs(module, "gcl_table,places_lt", (), ("data.data_dir=none",), seeds=1)
    absent = r"config.model.pretrained is 'resnet152.safetensors', and there is no such file; exp"
    for config in rows.values():
        with pytest.raises(InputError, match=f"^{absent}"):
            train(config, tmp_path / "run")
    with pytest.raises(InputError, match=f"^row 'places_lt_resnet152_224_.*': {absent}"):
        run_sweep(rows, tmp_path / "table", list)
    settings = ("data.data_dir=none", "model.pretrained=")
    rows = load_configs(module, "gcl_table,places_lt", (), settings, seeds=1)
    with pytest.raises(InputError, match="places365_small is not in"):
        run_sweep(rows, tmp_path / "table", list)
    assert list(tmp_path.iterdir()) == []
    for row in ("imagenet_lt,resnet50,224,gcl", "places_lt,resnet50,224,softmax"):
        assert PHOTOGRAPHS(row).model.pretrained == ""


# Xu et al., ECCV 2022, and their code: coefficients of the terms, batch, epochs, classes.
RELEASED = {
    "dlsa_imagenet_lt": ((2.0, 1.0, 0.02), 1024, 50, 1000),
    "dlsa_places_lt": ((1.0, 2.0, 0.03), 512, 60, 365),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_settings_of_dlsa(name):
    (likelihood, balance, purity), batch, epochs, classes = RELEASED[name]
    config = runpy.run_path(str(ROOT / f"configs/{name}.py"))["get_config"]("features")
    flow, cascade, heads = (config.retrain[part] for part in ("flow", "cascade", "heads"))
    # A sum over 2048 dimensions there, with weights of sum 1 over classes instead of mean 1.
    assert flow.likelihood == pytest.approx(likelihood * 2048 / classes)
    assert (flow.balance, flow.purity, flow.weight_power) == (balance, purity, 2.0)
    assert (flow.optimizer, flow.learning_rate, flow.clip) == ("sgd", 0.2, 0.0)
    assert (flow.num_clusters, flow.batch_size, flow.epochs) == (500, batch, epochs)
    # Deviation 0.05 of the centres' coordinates.
    assert flow.separation / (2 * 2048) ** 0.5 == pytest.approx(0.05)
    assert (cascade.depth, cascade.take, cascade.measured_on) == (1, 0.3, "train")
    assert (cascade.select, cascade.eval_every) == ("pure_clusters", 1)
    assert (heads.own, heads.epochs, heads.batch_size, heads.learning_rate) == (1.0, 150, 128, 0.01)


@pytest.mark.parametrize(
    ("file", "row"),
    [
        ("digits", "ldam_drw"),
        ("cifar_lt", "cifar10,100,ldam_drw"),
        ("cifar_lt", "cifar10,100,ldam_drw_strong"),
        ("small_lt", "cifar100,ldam_drw"),
        ("photographs", "imagenet_lt,resnet50,224,ldam_drw"),
        ("dlsa_features", "mine,ldam_drw"),
    ],
)
def test_late_reweighting_starts_after_four_fifths_of_any_training(file, row):
    """Cao et al., NeurIPS 2019: 160 of 200 epochs; here as many calls of one step an epoch."""
    config = runpy.run_path(str(ROOT / f"configs/{file}.py"))["get_config"](row)
    for epochs in (config.train.epochs, 50):  # as configured, and changed on the command line
        objective = build_objective(config.objective, [90, 10], epochs=epochs)
        # Of both classes, as weights are compared with their mean.
        logits, labels = jnp.array([[0.5, -0.5], [0.5, -0.5]]), jnp.array([1, 0])
        state, losses = objective.init(), []
        apply = jax.jit(objective.apply)
        for _ in range(epochs):
            loss, state = apply(state, jax.random.key(0), logits, labels)
            losses.append(float(loss[0]))
        changes = np.flatnonzero(np.diff(losses)) + 1
        assert changes.tolist() == [round(0.8 * epochs)]


@pytest.mark.parametrize(
    ("method", "scheme"),
    [
        ("cross_entropy/crt", "class"),
        ("cross_entropy/crt/balanced_softmax", "instance"),
        ("gcl/lws/logit_adjustment", "instance"),
        ("gcl/finetune/cb_softmax", "instance"),
        ("gcl/crt/ldam", "class"),
        ("gcl", "class_based_effective_number"),
    ],
)
def test_classes_are_balanced_once(method, scheme):
    """By the sampler or by the objective: both would make rare classes too likely."""
    config = runpy.run_path(str(ROOT / "configs/digits.py"))["get_config"](method)
    assert config.retrain.sampling.scheme == scheme


@pytest.mark.parametrize(("balancing", "scheme"), [(True, "instance"), (False, "class")])
def test_a_transform_of_ones_own_says_whether_it_balances(balancing, scheme, monkeypatch):
    """Its images are drawn by class only if it has no prior of its own, also when it starts late.

    It reads the counts, and has an option without a default, as a factory may.
    """

    def own(class_counts, *, update_every):
        prior = jnp.log(jnp.asarray(class_counts) / sum(class_counts)) / update_every
        return stateless(
            lambda key, terms: terms._replace(logits=terms.logits + prior),
            name="own",
            stage="logits",
            balances=balancing,
        )

    monkeypatch.setitem(TRANSFORMS, "own", own)
    method = Method("softmax", {"own": {"start_epoch": 0.8}}, "")
    monkeypatch.setitem(METHODS, "own_deferred", method)
    for name in ("cross_entropy+own", "own_deferred"):
        assert stage_fields("crt", name)["sampling"]["scheme"] == scheme


@pytest.mark.parametrize(("method", "angular"), [("gcl", False), ("gcl_angular/gcl", True)])
def test_clouds_are_on_the_angle_in_both_stages_or_in_none(method, angular):
    config = base_config(method)
    again = with_stage(base_config(method.partition("/")[0]), "gcl")
    for objective in (config.objective, config.retrain.objective, again.retrain.objective):
        assert objective.transforms.gaussian_cloud.angular == angular
