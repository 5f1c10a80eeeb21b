"""The README says what is true: its Python runs, its tables name every field and every method."""

import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.objectives import METHODS
from lt_jax.two_stage import KINDS, STAGES, stage_fields

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_losses_example_runs():
    names = {}
    exec(BLOCKS[0], names)
    assert names["loss"].shape == (8,)
    code = [line for line in BLOCKS[0].splitlines() if line and not line.startswith("#")]
    assert len(code) <= 10


def test_training_example_is_a_valid_config(monkeypatch):
    calls = []
    block = next(block for block in BLOCKS if "train(config" in block)
    score = {"test": {"last": {"mean": {"balanced_accuracy": 0.5}}}}
    monkeypatch.setattr("lt_jax.train.train", lambda *a: calls.append(a) or score)
    exec(block, {})
    assert calls[0][0].replicas == 3


def test_added_loss_example_is_a_transform():
    from lt_jax.objectives.core import Transform, stateless

    block = next(block for block in BLOCKS if "stateless(" in block)
    names = {"Transform": Transform, "stateless": stateless}
    exec(block, names)
    made = next(v for k, v in names.items() if callable(v) and k.startswith("label_smoothing"))()
    assert isinstance(made, Transform)


def fields(config, path=""):
    for name, value in config.items():
        if isinstance(value, ConfigDict) and name != "objective":
            yield from fields(value, f"{path}{name}.")
        elif name != "objective":
            yield path + name


@pytest.mark.parametrize("field", sorted(fields(base_config())))
def test_every_field_is_in_the_reference(field):
    group, _, name = field.rpartition(".")
    table = README.split("### Fields of a config")[1].split("## Adding")[0]
    rows = [row for row in table.splitlines() if f"`{field}`" in row or f"`{name}`" in row]
    assert any(f"`{group}." in row or not group for row in rows), field


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_in_the_table(method):
    assert f"`{method}`" in README.split("## Methods")[1].split("## Training")[0]


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_second_stage_is_in_the_table_and_its_fields_in_the_reference(stage):
    assert f"| `{stage}` |" in README.split("### Second stages")[1].split("## Training")[0]
    table = README.split("### Fields of a config")[1].split("## Adding")[0]
    for name, value in stage_fields(stage).items():
        group = isinstance(value, dict) and stage == "dlsa"
        for field in value if group else [name]:
            assert (
                f"`retrain.{name}`" in table
                or f"`{field}`" in table
                or (group and f"`retrain.{name}.{field}`" in table)
            ), field


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_second_stage_is_in_the_reference(kind):
    assert f"`{kind}`" in next(row for row in README.splitlines() if "`retrain.method`" in row)


def test_every_file_linked_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
