"""Bad input ends with one sentence that names the value, before anything is trained."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lt_jax.configuration import base_config, check_config
from lt_jax.errors import InputError
from lt_jax.train import train

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_training(monkeypatch):
    """Nothing here may get as far as training."""

    def refuse(*_):
        raise AssertionError("training started")

    monkeypatch.setattr("lt_jax.finish.Loop", refuse)


def changed(method="cross_entropy", **fields):
    """A config as plain dictionaries, which check nothing by themselves."""
    config = base_config(method).to_dict()
    config["train"]["num_devices"] = 1
    for name, value in fields.items():
        target = config
        *groups, last = name.split("__")
        for group in groups:
            target = target[group]
        target[last] = value
    return config


def arrays(path, **other):
    """An .npz of a user's images; `other` replaces single arrays."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    images = rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    content = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, **other}
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    return f"arrays:{path}"


CONFIGS = {
    "unknown field": ({"optimizer__momentun": 0.9}, "no field 'optimizer.momentun'.*momentum"),
    "unknown top field": ({"epochs": 3}, "no field 'epochs'"),
    "wrong type": ({"train__epochs": "many"}, "config.train.epochs is 'many'; expected int"),
    "zero epochs": ({"train__epochs": 0}, "config.train.epochs is 0; expected at least 1"),
    "negative side": (
        {"data__image_size": -3},
        "config.data.image_size is -3; expected at least 0",
    ),
    "seed": ({"seed": 1 << 32}, "config.seed is 4294967296 for 1 replicas; expected seeds below"),
    "last seed": ({"seed": (1 << 32) - 1, "replicas": 2}, "config.seed is 4294967295 for 2 replic"),
    "no number": (
        {"objective__transforms": {"rebalanced": {"mu": float("inf")}}},
        "config.objective.transforms.rebalanced.mu is inf; expected a finite number",
    ),
    "late start": (
        {"objective__transforms": {"focal": {"start_epoch": float("nan")}}},
        "config.objective.transforms.focal.start_epoch is nan; expected a finite number",
    ),
    "second stage": (
        {"retrain__method": "crt"},
        "lacks the field retrain.'weights'; start .* in its name, as 'cross_entropy/crt'",
    ),
    "unknown model": ({"model__name": "resnet33"}, "resnet33"),
    "unknown head": ({"model__head": "mlp"}, "config.model.head is 'mlp'"),
    "unknown dtype": ({"model__dtype": "float8"}, "config.model.dtype is 'float8'"),
    "unknown optimizer": (
        {"optimizer__name": "adamw"},
        r"optimizer.name is 'adamw'; expected sgd, or adam, whose weight decay is decoupled",
    ),
    "unknown schedule": ({"optimizer__schedule": "poly"}, "optimizer.schedule is 'poly'"),
    "milestones": ({"optimizer__schedule": "step", "optimizer__milestones": (5.0,)}, "milestones"),
    "learning rate": ({"optimizer__learning_rate": -0.1}, "learning_rate is -0.1"),
    "decay": ({"optimizer__decay": "some"}, "optimizer.decay is 'some'"),
    "unknown replica mode": ({"replica_mode": "pmap"}, "config.replica_mode is 'pmap'"),
    "unknown base": ({"objective__base": "hinge"}, "base loss is 'hinge'"),
    "unknown transform": ({"objective__transforms": {"mixture": {}}}, "transform is 'mixture'"),
    "unknown option": (
        {"objective__transforms": {"focal": {"alpha": 1.0}}},
        "focal has no option 'alpha'",
    ),
    "beta": (
        {"objective__transforms": {"class_balanced": {"beta": 1.0}}},
        r"beta is 1.0.*\[0, 1\)",
    ),
    "cosine head": ({"model__head": "cosine"}, "does not scale cosines"),
    "imbalance": ({"data__imbalance": 0.5}, "imbalance is 0.5"),
    "class counts": ({"data__class_counts": (5, 5)}, "class_counts"),
    "too many": ({"data__class_counts": (5,) * 9 + (900,)}, "900"),
    "batch above data": ({"train__batch_size": 4096}, "batch_size is 4096.*at most"),
    "no such source": ({"data__source": "folder:x"}, "folder:x"),
    "no such file": ({"data__source": "arrays:/no/such.npz"}, "/no/such.npz"),
    "devices": ({"train__num_devices": 99}, "num_devices is 99"),
    "indivisible": (
        {"train__num_devices": 8, "train__batch_size": 60},
        "batch_size is 60; expected a multiple of the 8 devices",
    ),
}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config_is_refused(name, tmp_path):
    fields, sentence = CONFIGS[name]
    with pytest.raises(InputError, match=sentence) as error:
        train(changed(**fields), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def float_fields(config, path=""):
    """Names of the fields that are floats, or may hold some; objectives are checked elsewhere."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from () if name == "objective" else float_fields(value, f"{path}{name}__")
        elif isinstance(value, (float, tuple)):
            yield f"{path}{name}", isinstance(value, tuple)


@pytest.mark.parametrize("method", ["cross_entropy/crt", "tau_norm", "dlsa"])
def test_number_that_is_not_finite_is_refused_in_every_field(method):
    """JSON holds none: such a run failed while it wrote its config, and left a folder behind."""
    fields = list(float_fields(base_config(method).to_dict()))
    assert ("optimizer__weight_decay", False) in fields
    assert ("optimizer__milestones", True) in fields
    for (field, several), bad in itertools.product(fields, (math.inf, -math.inf, math.nan)):
        value = (1.0, bad) if several else bad
        with pytest.raises(InputError, match=f"config.{field.replace('__', '.')} .* {bad}; .*fini"):
            check_config(changed(method, **{field: value}))


@pytest.mark.parametrize("group", ["sampling", "retrain__sampling"])
@pytest.mark.parametrize("field", ["beta", "beta_spread"])
@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_beta_is_refused_also_where_the_scheme_takes_none(group, field, value):
    """Instance sampling took any, so that a misspelt scheme or number went unseen."""
    config = changed("crt", **{f"{group}__{field}": value, f"{group}__scheme": "instance"})
    name = f"{group}.{field}".replace("__", ".")
    with pytest.raises(InputError, match=rf"config\.{name} is {value}; expected .* \[0, 1\)"):
        check_config(config)


def test_linear_head_is_refused_for_cosine_objectives(tmp_path):
    with pytest.raises(InputError, match="objective takes cosines"):
        train(changed("gcl", model__head="linear"), tmp_path / "run")


def test_missing_field_is_named():
    config = base_config().to_dict()
    del config["optimizer"]["decay"]
    with pytest.raises(InputError, match=r"lacks the field optimizer\.'decay'"):
        check_config(config)


ARRAYS = {
    "label outside the classes": (
        {"y_train": np.repeat([0, 1, 2, 7], 50)},
        {"data__num_classes": 4},
        "7",
    ),
    "float labels": ({"y_train": np.repeat(np.arange(4.0), 50)}, {}, "float64"),
    "missing array": ({"y_test": None}, {}, "y_test"),
    "pickled array": ({"y_train": np.array([{}] * 200, dtype=object)}, {}, "y_train|pickle"),
    "rank": ({"x_train": np.zeros((200, 64), np.uint8)}, {}, r"\(200, 64\)"),
    "dtype": ({"x_train": np.full((200, 8, 8, 3), 9, np.float32)}, {}, "float32; .* to 255, or"),
    "shares": (
        {"x_train": np.full((200, 8, 8, 3), 0.5)},
        {},
        r"float64; .* to 255: \(255 \* x\)\.round\(\)\.astype\(np\.uint8\) of these, or",
    ),
    "channels first": (
        {"x_train": np.zeros((200, 3, 8, 8), np.uint8)},
        {},
        r"shape \(200, 3, 8, 8\), with the channels first; expected channels last, \[N, H, W, C\]",
    ),
    "column of labels": (
        {"y_train": np.repeat(np.arange(4), 50)[:, None]},
        {},
        r"shape \(200, 1\); expected one label per image, \[N\]: y\[:, 0\], or",
    ),
}


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_arrays_are_refused(name, tmp_path):
    content, fields, sentence = ARRAYS[name]
    source = arrays(tmp_path / "images.npz", **content)
    config = changed(data__source=source, data__validation_size=0, **fields)
    with pytest.raises(InputError, match=sentence) as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_workdir_of_another_config_is_refused_and_left_alone(tmp_path):
    other = base_config("cb_focal").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(other))
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(
        InputError, match=r"belongs to a run with name = 'cb_focal'|belongs to"
    ) as e:
        train(changed(), tmp_path)
    assert "choose another workdir" in str(e.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_workdir_of_an_unknown_run_is_refused_and_left_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n')
    with pytest.raises(InputError, match=r"holds metrics\.jsonl but no config\.json"):
        train(changed(), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 5}\n'


def test_unwritable_workdir_is_refused(tmp_path):
    # A file where a folder should be; and, for those who may write anywhere, a folder that
    # refuses everybody.
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", Path("/proc/self/lt_jax_run")):
        with pytest.raises(InputError, match=r"workdir .* cannot be written to"):
            train(changed(), folder)


def test_link_that_leads_nowhere_is_named(tmp_path):
    """The system says of it that a file exists; a disk that is not mounted is a usual reason."""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for folder in (tmp_path / "link", tmp_path / "link/runs/a"):
        sentence = rf"cannot be written to \(the link {tmp_path}/link leads to {tmp_path}/gone, and"
        with pytest.raises(InputError, match=sentence):
            train(changed(), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_read_only_workdir_is_refused(tmp_path, monkeypatch):
    """Also an existing folder, whatever rights this user has."""

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lt_jax.workdir.tempfile.TemporaryFile", denied)
    with pytest.raises(InputError, match=r"cannot be written to \(Permission denied\)"):
        train(changed(), tmp_path)
    assert not list(tmp_path.iterdir())


LINES = {
    "unknown field": (["--config.train.epoch=1"], "config has no field 'train.epoch'"),
    "one stage": (["--config.retrain.epochs=3"], "is of a second stage, and the method has none"),
    "unknown method": (["--config=configs/digits.py:cbfocal"], "method is 'cbfocal'"),
    "nearly a second stage": (
        ["--config=configs/digits.py:crs"],
        "method is 'crs'; expected one of asymmetric, ",
    ),
    "unknown flag": (["--workdirs=x"], "Unknown command line flag 'workdirs'"),
    "no config file": (["--config=configs/none.py"], "no config file configs/none.py"),
    "wrong type": (["--config.train.epochs=x"], "--config.train.epochs=x"),
    "transform": (
        ["--config=configs/digits.py:crt", "--config.objective.transforms.focal.gamma=2"],
        "config.objective has no transform 'focal'; expected a method that has, such as"
        " cross_entropy+focal/crt",
    ),
    "infinite": (
        ["--config.optimizer.weight_decay=inf"],
        "config.optimizer.weight_decay is inf; expected a finite number",
    ),
}


@pytest.mark.parametrize("name", sorted(LINES))
def test_command_line_ends_with_one_sentence_and_status_2(name, tmp_path):
    arguments, sentence = LINES[name]
    done = subprocess.run(
        [sys.executable, "launch/train.py", *arguments, f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        timeout=120,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
