"""Settings, rows and values from the command line: as their fields have them, or refused."""

import runpy

import pytest
from tiny_runs import ROOT

from lt_jax.configuration import base_config, check_config
from lt_jax.errors import InputError
from lt_jax.settings import load_configs, override

CIFAR = runpy.run_path(str(ROOT / "configs/cifar_lt.py"))
DIGITS = runpy.run_path(str(ROOT / "configs/digits.py"))


# One field.


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train.epochs=2", 2),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning_rate=1e-3", 1e-3),
        ("augment.flip=true", True),
        ("augment.flip=True", True),
        ("train.picture=False", False),
        ("model.name=resnet20", "resnet20"),
        ('model.name="resnet20"', "resnet20"),
        ("data.source=arrays:a=b.npz", "arrays:a=b.npz"),
        ("data.class_counts=[5,4,3]", (5, 4, 3)),
        ("retrain.tau=[0,0.5,1]", (0, 0.5, 1)),
        ("objective.transforms.focal.gamma=2", 2.0),
    ],
)
def test_setting_is_read_as_its_field_has_it(setting, value):
    config = base_config("focal/tau_norm")
    override(config, [setting])
    found = config
    for name in setting.partition("=")[0].split("."):
        found = found[name]
    assert found == value
    assert type(found) is type(value)
    check_config(config)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.epochs", r"setting is 'train.epochs'; expected such as 'train.epochs=2'"),
        ("train.epoch=2", r"config has no field 'train.epoch'; did you mean train.epochs"),
        ("training.epochs=2", r"config has no field 'training.epochs'; did you mean train.epochs"),
        ("=2", r"config has no field ''"),
        ("train.epochs=two", r"'train.epochs=two'; expected a value such as "),
        ("train.epochs=2.5", r"'train.epochs=2.5'; expected a value such as "),
        ("train.epochs=", r"'train.epochs='; expected a value such as "),
        ("train=2", r"'train=2', but train is a group; expected train.FIELD"),
        ("augment.flip=1", r"'augment.flip=1'; expected a value such as False"),
        ("retrain.tau=0.5", r"'retrain.tau=0.5'; expected a value such as "),
        ("retrain.epochs=2", r"config has no field 'retrain.epochs'"),
        ("objective.transforms.focal.gamma=2", r"config.objective has no transform 'focal'; exp"),
        ("objective.transforms.focl.gamma=2", r"config has no field 'objective.transforms.focl"),
    ],
)
def test_setting_that_does_not_fit_is_refused(setting, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        override(base_config("tau_norm"), [setting])
    assert "\n" not in str(error.value)


def test_a_misspelt_option_of_a_transform_that_is_there():
    with pytest.raises(InputError, match=r"no field .*focal.gama'; did you mean .*focal.gamma\?"):
        override(base_config("focal"), ["objective.transforms.focal.gama=2"])


# Rows of a sweep.


def test_configs_of_rows_and_of_a_sweep():
    """Settings and seeds reach every row; those of a second stage or a loss the rows with it."""
    beta = "objective.transforms.class_balanced.beta=0.9"
    settings = ["train.epochs=2", "retrain.epochs=3", "retrain.tau=[1]", beta]
    rows = ["cross_entropy", "crt", "tau_norm", "cb_softmax"]
    configs = load_configs(DIGITS, None, rows, settings, 3)
    assert list(configs) == rows
    assert [c.train.epochs for c in configs.values()] == [2, 2, 2, 2]
    assert [c.replicas for c in configs.values()] == [3, 3, 3, 3]
    assert configs["cb_softmax"].objective.transforms.class_balanced.beta == 0.9
    assert configs["crt"].retrain.epochs == 3
    assert configs["tau_norm"].retrain.tau == (1,)
    table = load_configs(CIFAR, "gcl_table,cifar10,100", [], [], 1)
    assert list(table) == [f"cifar10_lt100_{m}" for m in CIFAR["SWEEPS"]["gcl_table"]]


def test_every_combination_of_values_is_a_row():
    """Fields vary in the rows that have them; the other rows stay one."""
    gamma = "objective.transforms.focal.gamma=0.5,1"
    over = ["optimizer.milestones=[1, 2],[3]", gamma, "optimizer.name=sgd,adam"]
    rows = load_configs(DIGITS, None, ["focal"], ["train.epochs=2"], 3, over)
    assert len(rows) == 8
    row = rows["focal_milestones_1_2_gamma_1_name_adam"]
    assert row.optimizer.milestones == (1, 2)
    assert row.objective.transforms.focal.gamma == 1.0
    assert (row.optimizer.name, row.train.epochs, row.replicas) == ("adam", 2, 3)
    both = load_configs(DIGITS, None, ["cross_entropy", "focal"], [], 1, [gamma])
    assert list(both) == ["cross_entropy", "focal_gamma_0.5", "focal_gamma_1"]


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ("train.epochs", r"--over is 'train.epochs'; expected such as 'train.epochs=10,20'"),
        ("=1,2", r"--over is '=1,2'"),
        ("train.epochs=1,two", r"'train.epochs=two'; expected a value such as"),
        ("train.epoch=1,2", r"field that none of the rows has; did you mean train.epochs"),
        ("train.epochs=1,1", r"two rows are called 'crt_epochs_1'"),
    ],
)
def test_values_that_cannot_be_swept_are_refused(over, sentence):
    with pytest.raises(InputError, match=sentence):
        load_configs(DIGITS, None, ["crt"], [], 1, [over])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((None, ["crt"], ["replicas=1"]), r"'replicas=1' is how many seeds .*; expected --seeds"),
        ((None, [], []), r"expected either --sweep or --row"),
        (("x", ["crt"], []), r"expected either --sweep or --row"),
        (("gcl_table", [], []), r"the config file has no get_sweep; name the rows by --row"),
        ((None, ["crt", "ncm", "crt"], []), r"two rows are called 'crt'; expected different names"),
        ((None, ["crtt"], []), r"method is 'crtt'|objective 'crtt'"),
        ((None, ["crt"], ["train.epoch=2"]), r"config has no field 'train.epoch'"),
        ((None, ["crt"], ["retrain.epochs=x"]), r"'retrain.epochs=x'; expected a value such as 20"),
        (
            (None, ["cross_entropy", "tau_norm"], ["retrain.epochs=2"]),
            r"setting 'retrain.epochs=2' is of a field that none of the rows has",
        ),
        (
            (None, ["focal"], ["train.epoks=2"]),
            r"no field .train.epoks.; did you mean train.epochs",
        ),
        ((None, ["crt"], ["retrain.epochs"]), r"setting is 'retrain.epochs'; expected such as"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(arguments, sentence):
    name, rows, settings = arguments
    with pytest.raises(InputError, match=sentence) as error:
        load_configs(DIGITS, name, rows, settings, 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["gcl_table", "none,cifar10,100", "gcl_table,cifar11,100", "gcl_table,cifar10,ten"]
)
def test_sweep_that_does_not_exist_is_refused(name):
    with pytest.raises(InputError, match=r"expected"):
        load_configs(CIFAR, name, [], [], 1)
