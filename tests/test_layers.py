"""Lower layers never import higher ones; every doctest of the package runs."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lt_jax

PACKAGE = Path(lt_jax.__file__).parent
LAYERS = (
    (
        "errors",
        "config_fields",
        "files",
        "npz",
        "longtail",
        "sharding",
        "processes",
        "environment",
        "tpu_vm",
        "tpu_vm_resume",
        "artifact",
    ),
    (
        "advice",
        "losses",
        "objectives",
        "augment",
        "autoaugment",
        "color",
        "metrics",
        "models",
        "optimizers",
    ),
    (
        "data",
        "dlsa",
        "packing",
        "state",
        "two_stage",
        "config_checks",
        "configuration",
        "recipes",
        "classifiers",
    ),
    (
        "steps",
        "checkpoint",
        "writers",
        "matching",
        "workdir",
        "programs",
        "replicas",
        "feeding",
        "stopping",
        "run",
        "loop",
    ),
    ("settings", "build", "assembly", "prepare"),
    (
        "reported",
        "summaries",
        "joining",
        "table_notes",
        "tables",
        "table_files",
        "picture_axes",
        "pictures",
        "table_pictures",
        "masking_pictures",
        "finish",
    ),
    ("tuning_report",),
    ("stage1", "features", "posthoc", "dividing_blocks", "dividing_heads", "dividing_report"),
    ("dividing_pictures", "dividing", "extract", "second_run"),
    (
        "retrain",
        "train",
        "sweep",
        "sweep_plan",
        "sweep_tables",
        "sweep_seeds",
        "tuning",
        "evaluate",
        "cli",
        "flag_errors",
        "comparison",
    ),
    ("divided", "trained", "export", "examples", "predict", "predict_split"),
)
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")
# What `import lt_jax.losses` may load beside the package itself; its tests hold it to that.
LIGHT = {
    "longtail": {"numpy"},
    "advice": {"numpy"},
    "errors": set(),
    "losses": {"jax", "numpy"},
}
STANDARD = ("__future__", "collections", "functools", "shlex", "textwrap", "typing")


def dotted(path):
    """``lt_jax.losses.margins`` of its file; a package is named by its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """Full names of everything that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: write imports in full"
            # `from lt_jax import longtail` imports a module, `from lt_jax.errors import X` a name.
            if node.module == "lt_jax":
                yield from (f"lt_jax.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_lower_layers_never_import_higher_ones(path):
    own = dotted(path).split(".")[1]
    assert own in LAYER, f"{own} is in no layer; add it to the list here and in the documentation"
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package == "lt_jax" and rest:
            other = rest.split(".")[0]
            assert other in LAYER, f"{path.name} imports {name}, which is in no layer"
            assert LAYER[other] <= LAYER[own], f"{own} imports {name} of a higher layer"
        elif own in LIGHT:
            allowed = package in STANDARD or package in LIGHT[own]
            assert allowed, f"{own} imports {name}"


def test_the_package_itself_imports_nothing_before_it_is_asked():
    """Of `lt_jax.advise`, for which `lt_jax.advice` is imported."""
    assert set(imported(PACKAGE / "__init__.py")) == {"typing", "lt_jax.advice"}
    code = "import sys, lt_jax; print(*sys.modules); lt_jax.advise; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after = ({m.partition(".")[0] for m in s.split()} for s in run.stdout.splitlines())
    assert "numpy" not in before
    assert "numpy" in after
    assert not {"jax", "jaxlib", "flax", "scipy"} & after


def test_nothing_imports_itself_through_a_package():
    """`lt_jax.losses` and `lt_jax.objectives` are of one layer, but only one imports the other."""
    for path in FILES:
        if dotted(path).startswith("lt_jax.losses"):
            assert not [n for n in imported(path) if n.startswith("lt_jax.objectives")]


@pytest.mark.parametrize("name", [dotted(p) for p in FILES])
def test_doctests(name):
    # Not by attribute: `lt_jax.objectives.deferred` is a module and, as an attribute, a function.
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
