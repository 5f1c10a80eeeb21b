"""The notebooks run from top to bottom, keep no output, and say what is true of what they run.

They run in this process, cell by cell, without a Jupyter kernel: what is IPython's own is left out.
"""

import ast
import functools
import re
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import numpy as np
import pytest

NOTEBOOKS = {p.stem: p for p in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
every_notebook = pytest.mark.parametrize("name", sorted(NOTEBOOKS))


def read(name):
    return nbformat.read(NOTEBOOKS[name], as_version=nbformat.NO_CONVERT)


def python_of(cell):
    """Its code without lines of IPython, which only notebooks have."""
    return re.sub(r"^( *)(%|from IPython).*$", r"\1pass", cell.source, flags=re.MULTILINE)


def code_of(name):
    return {c.id: python_of(c) for c in read(name).cells if c.cell_type == "code"}


def few(summary):
    return summary["test"]["last"]["mean"]["few"]


def balanced_accuracy(test):
    return test["mean"]["balanced_accuracy"]


def quickstart(names):
    """Both losses gain where images are few, and more than they lose elsewhere."""
    plain, *others = names["summaries"]
    for other in others:
        assert few(other) > few(plain)
        assert balanced_accuracy(other["test"]["last"]) > balanced_accuracy(plain["test"]["last"])


def losses_in_your_project(names):
    """All losses train; masks are taken from frequent positives and from rare negatives."""
    assert all(values.mean() > 0.75 for values in names["recall"].values())
    factor = names["remembered"]["ideal_ratio"] / names["remembered"]["ratio"]
    assert factor[0] < 1 < factor[-1]


def plm_explained(names):
    """Operating points move, the ranking stays."""
    before, after = (names[n]["test"]["last"]["mean"] for n in ("before", "after"))
    assert after["recall_rarest"] > before["recall_rarest"]
    assert after["precision_head"] > before["precision_head"]
    assert abs(after["map"] - before["map"]) < 0.02
    left_out = ~np.asarray(names["keep"])
    positive = np.asarray(names["targets"]) > 0
    assert not left_out[:, :3][~positive[:, :3]].any()
    assert not left_out[:, 3:7].any()
    assert not left_out[:, 7:][positive[:, 7:]].any()


def gcl_two_stage(names):
    """The second stage gains where images are few; clouds push away, more so rarer classes."""
    assert few(names["summary"]) > few(names["stage1"])
    away = np.abs(names["angles"] - names["directions"][names["labels"]]) - abs(names["offsets"])
    by_class = [away[:, names["labels"] == c].mean() for c in range(3)]
    assert abs(by_class[0]) < 1e-3 < by_class[1] < by_class[2]


def dlsa_explained(names):
    """Rare classes are a larger share of the rest; both parts and rare classes gain, those most."""
    rare, taken = names["rare"], names["taken"]
    assert rare[taken].mean() < rare.mean() < rare[~taken].mean()
    right = [names[n] == names["truth"] for n in ("by_parts", "undivided")]
    gain = {k: right[0][rows].mean() - right[1][rows].mean() for k, rows in names["groups"].items()}
    assert min(gain["block"], gain["rest"], gain["all"]) > 0.05
    assert gain["rare classes"] == max(gain.values())


def your_own_data(names):
    """Three ways to the same images, and a sentence about what cannot be."""
    sets = [names[n] for n in ("from_file", "from_folder", "from_tfds")]
    assert {tuple(s.class_counts) for s in sets} == {tuple(sets[0].class_counts)}
    np.testing.assert_array_equal(
        np.sort(sets[1].train_images.sum(axis=(1, 2, 3))),
        np.sort(sets[2].train_images.sum(axis=(1, 2, 3))),
    )
    assert not (names["own"] / "other_run").exists()


def tpu_multi_host(names):
    """Eight devices and one say the same."""
    assert names["mesh"].size == 8
    np.testing.assert_array_equal(names["split_state"].negatives, names["whole_state"].negatives)
    np.testing.assert_allclose(*names["curves"], rtol=1e-4)


CLAIMS = {
    f.__name__: f
    for f in (
        quickstart,
        losses_in_your_project,
        plm_explained,
        gcl_two_stage,
        dlsa_explained,
        your_own_data,
        tpu_multi_host,
    )
}


class Shown:
    """Instead of IPython's Image."""

    def __init__(self, path):
        assert Path(path).read_bytes().startswith(b"\x89PNG")


def test_the_claims_of_every_notebook_are_checked():
    assert set(CLAIMS) == set(NOTEBOOKS)


@every_notebook
def test_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", "Image": Shown}
    try:
        for cell, code in code_of(name).items():
            exec(compile(code, f"{name}.ipynb, cell {cell}", "exec"), names)
    finally:
        from matplotlib import pyplot as plt

        plt.close("all")
    CLAIMS[name](names)


@every_notebook
def test_is_valid_and_stripped(name):
    """Outputs and counts would change with every run; cells keep names that say what they are."""
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.metadata
        assert re.fullmatch(r"[a-z][a-z0-9_]*", cell.id)
        assert cell.source == cell.source.strip()
        assert cell.source
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
            compile(python_of(cell), cell.id, "exec")


@every_notebook
def test_installs_first(name):
    """Nothing is imported before the cell that installs what is missing."""
    kinds = [cell.cell_type for cell in read(name).cells]
    first, *others = code_of(name)
    assert kinds[:2] == ["markdown", "code"]
    assert first == "install"
    assert not any("%pip" in cell.source for cell in read(name).cells if cell.id in others)
    install = next(cell.source for cell in read(name).cells if cell.id == "install")
    assert 'find_spec("lt_jax") is None:\n    %pip install -q "$PACKAGE"' in install


distributions = functools.cache(metadata.packages_distributions)


def declared(extras):
    """Distributions that come with the package and these extras."""
    wanted = {"lt-jax"}
    for requirement in metadata.requires("lt_jax"):
        needed_for = re.search(r'extra == "(\w+)"', requirement)
        if needed_for is None or needed_for[1] in extras:
            wanted.add(canonical(re.match(r"[\w.-]+", requirement)[0]))
    return wanted


def canonical(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


@every_notebook
def test_imports_only_what_its_first_cell_installs(name):
    code = code_of(name)
    extras = re.search(r'PACKAGE = "lt_jax(?:\[([\w,]+)\])?"', code["install"])[1] or ""
    wanted, provided = declared(extras.split(",")), distributions()
    for node in ast.walk(ast.parse("\n".join(code.values()))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for package in {n.split(".")[0] for n in names} - sys.stdlib_module_names:
            assert wanted & {canonical(d) for d in provided[package]}, package
