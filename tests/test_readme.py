"""The README says what is true: its Python runs, its tables name every method."""

import re
import textwrap
from pathlib import Path

import pytest

from lt_jax import artifact
from lt_jax.objectives import METHODS
from lt_jax.two_stage import STAGES

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
    made = next(v for k, v in names.items() if callable(v) and k.startswith("margin_of"))()
    assert isinstance(made, Transform)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_in_the_table(method):
    assert f"`{method}`" in README.split("## Methods")[1].split("## Training")[0]


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_second_stage_is_in_the_table(stage):
    assert f"| `{stage}` |" in README.split("### Second stages")[1].split("## Training")[0]


def test_every_file_linked_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_serving_example_is_the_one_that_is_executed():
    """By `tests/test_export.py`, from the docstring."""
    block = next(block for block in BLOCKS if "export.deserialize" in block)
    assert textwrap.dedent(artifact.__doc__.split("::\n")[1]).strip() == block.strip()
