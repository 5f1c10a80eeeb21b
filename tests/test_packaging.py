"""What a release says of itself, as far as it can be told without building one."""

import re
import runpy
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement

import lt_jax

ROOT = Path(__file__).parents[1]
SETUP = (ROOT / "setup.py").read_text()


@pytest.fixture(scope="module")
def metadata():
    """What setup.py tells setuptools."""
    told = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", told.update)
        patch.chdir(ROOT)
        runpy.run_path("setup.py")
    return told


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_every_folder_of_modules_is_a_package_of_the_wheel_and_nothing_else(metadata):
    package = Path(lt_jax.__file__).parent
    folders = {path.parent.relative_to(package.parent) for path in package.rglob("*.py")}
    assert set(metadata["packages"]) == {".".join(folder.parts) for folder in folders}
    assert all((package.parent / folder / "__init__.py").is_file() for folder in folders)


def test_users_see_the_types(metadata):
    assert "py.typed" in metadata["package_data"]["lt_jax"]
    assert (Path(lt_jax.__file__).parent / "py.typed").is_file()
    assert "Typing :: Typed" in metadata["classifiers"]


def test_there_is_one_version(metadata, citation):
    assert metadata["version"] == lt_jax.__version__ == citation["version"] == version("lt_jax")
    found = re.findall(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert found[0] == lt_jax.__version__
    assert lt_jax.__version__ not in SETUP


def test_the_pythons_that_are_named_are_those_it_is_for(metadata):
    lowest = metadata["python_requires"].removeprefix(">=")
    named = [c.rpartition(" ")[2] for c in metadata["classifiers"] if ":: Python :: 3." in c]
    assert named[0] == lowest
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    assert target == f"py{lowest.replace('.', '')}"


def test_the_licence_is_one_and_comes_with_it(metadata, citation):
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert metadata["license_expression"] == citation["license"] == "Apache-2.0"
    assert "LICENSE" in metadata["license_files"]
    # Beside an SPDX expression setuptools refuses classifiers of licences.
    assert not any(c.startswith("License ::") for c in metadata["classifiers"])


def test_every_requirement_has_its_reason_and_a_bound(metadata):
    lines = SETUP.splitlines()
    extras = chain.from_iterable(metadata["extras_require"].values())
    for text in {*metadata["install_requires"], *extras}:
        requirement = Requirement(text)
        assert {"==", ">="} & {s.operator for s in requirement.specifier}, text
        found = [line.partition("#")[2].strip() for line in lines if f'"{text}"' in line]
        assert found
        assert all(len(reason) > 4 for reason in found), f"{text} has no reason beside it"


def test_extras_are_those_that_the_readme_and_the_scripts_tell_to_install(metadata):
    extras = set(metadata["extras_require"])
    expected = {"tfds", "images", "gcs", "tensorboard", "dlsa", "pretrained"}
    assert extras == expected | {"export", "notebooks", "docs", "torch", "dev"}
    files = [ROOT / "README.md", ROOT / "Makefile", ROOT / "lt_jax/tpu_vm.py"]
    told = re.findall(r"(?:\.|lt_jax)\[([a-z,]+)\]", "".join(f.read_text() for f in files))
    assert told
    assert {name for names in told for name in names.split(",")} <= extras
    dev = set(metadata["extras_require"]["dev"])
    for name in extras - {"dev", "torch"}:
        needed = {r for r in metadata["extras_require"][name] if not r.startswith("jupyterlab")}
        assert needed <= dev, f"CI would not test {name}"  # notebooks run without their editor


def test_tools_of_the_hooks_are_those_of_the_dev_extra(metadata):
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    dev = {Requirement(text).name for text in metadata["extras_require"]["dev"]}
    for hook in hooks[0]["hooks"]:
        tool = hook["entry"].split()[0]
        assert tool.startswith(".venv/bin/")
        assert tool.removeprefix(".venv/bin/") in dev


def test_the_citation_has_what_the_format_requires(citation):
    assert citation["cff-version"] == "1.2.0"
    for entry in (citation, *citation["references"]):
        assert entry["title"]
        assert all("name" in a or "family-names" in a for a in entry["authors"])
    assert citation["message"]
    assert citation["type"] == "software"


def test_the_citation_has_the_papers_of_the_four_methods(citation):
    readme = (ROOT / "README.md").read_text()
    cited = {r["identifiers"][0]["value"].removeprefix("arXiv:") for r in citation["references"]}
    assert cited == {"1901.05555", "2305.11733", "2105.10782", "2208.02567"}
    for reference in citation["references"]:
        number = reference["identifiers"][0]["value"].removeprefix("arXiv:")
        assert reference["url"] == f"https://arxiv.org/abs/{number}"
        first = reference["authors"][0]["family-names"]
        assert re.search(rf"{first}[\w ,]* et al\.|{first}, ", readme), first
        assert str(reference["year"]) in readme


def test_the_sdist_has_what_its_tests_read():
    manifest = (ROOT / "MANIFEST.in").read_text()
    grafted = set(re.findall(r"^graft (\S+)", manifest, flags=re.MULTILINE))
    assert {"tests", "configs", "launch", "results", "benchmarks", "docs", "notebooks"} <= grafted
    included = set(" ".join(re.findall(r"^include (.+)", manifest, flags=re.MULTILINE)).split())
    for name in included:
        assert (ROOT / name).is_file(), name
    assert {path.name for path in ROOT.glob("*.md")} <= included
