"""The documentation says what is true: its Python runs, its commands exist, nothing is left out.

Pages are read as they are; that they can be built is for Sphinx to say (`make docs`).
"""

import contextlib
import importlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from lt_jax.config_fields import FIELDS
from lt_jax.configuration import base_config, check_config, with_stage
from lt_jax.longtail import SCHEMES
from lt_jax.objectives import METHODS, TRANSFORMS
from lt_jax.settings import load_configs, override
from lt_jax.two_stage import KINDS, STAGES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Made before each build of files that are elsewhere, see docs/_ext/made_pages.py.
MADE = {
    "notebooks/index.md": ROOT,
    "results/index.md": ROOT / "results/README.md",
    "reference/config.md": DOCS / "_ext/config_page.py",
    "project/index.md": ROOT,
}
PAGES = {
    name: page.read_text()
    for page in sorted(DOCS.rglob("*.md"))
    for name in [page.relative_to(DOCS).as_posix()]
    if name not in MADE and name.split("/")[0] not in ("_build", "notebooks", "results", "project")
}
SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.py"))
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))

sys.path.insert(0, str(DOCS / "_ext"))
config_page = importlib.import_module("config_page")
flags = importlib.import_module("flags")
sys.path.pop(0)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def commands(page):
    """Commands of a page that start a script of this repository, in words."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            starts = [i for i, w in enumerate(words) if re.match(r"(launch|benchmarks)/\w+\.", w)]
            for start, end in zip(starts, [*starts, len(words)][1:], strict=True):
                yield words[start:end]


COMMANDS = [(page, words) for page in PAGES for words in commands(page)]
WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
assert len(COMMANDS) > 40
assert len(WITH_PYTHON) > 9


@pytest.fixture
def training_ends_at_once(monkeypatch):
    """`train` and `retrain` check their config, which is kept, and have finished."""
    configs = []
    scores = {"test": {"last": {"mean": {"balanced_accuracy": 0.5}}}}

    def ended(config, *args, **kwargs):
        check_config(config)
        configs.append(config)
        return {**scores, "stage1": scores}

    monkeypatch.setattr("lt_jax.train.train", ended)
    monkeypatch.setattr("lt_jax.retrain.retrain", ended)
    return configs


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_of_a_page_runs(page, training_ends_at_once, registries_restored, monkeypatch):
    monkeypatch.chdir(ROOT)  # some read results/
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), names)
    trained = "from lt_jax.train import train" in PAGES[page]
    assert bool(training_ends_at_once) == trained


def values(words, flag):
    return [word.partition("=")[2] for word in words if word.startswith(f"--{flag}=")]


def named(words):
    """The names of flags, without those of fields of a config."""
    own = (word[2:].partition("=")[0] for word in words[1:] if word.startswith("--") and word[2:])
    return {name for name in own if not name.startswith("config.")}


COMMON = {row[0] for row in flags.flags_of((ROOT / "lt_jax/cli.py").read_text())}


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{p}: {' '.join(w)[:60]}" for p, w in COMMANDS]
)
def test_commands_can_be_given(page, words, registries_restored):
    script = ROOT / words[0]
    assert script.is_file()
    if script.suffix != ".py" or script.parent.name != "launch":
        return
    known = {row[0] for row in flags.flag_rows(script)}
    assert named(words) <= known | COMMON
    for file in values(words, "import"):  # a block of the page
        exec(next(b for b in blocks(page, "python") if b.startswith(f"# {file}\n")), {})
    for file, _, row in (value.partition(":") for value in values(words, "config")):
        module = runpy.run_path(str(ROOT / file))
        rows = values(words, "row")
        if script.stem == "sweep":
            sweep, settings = "".join(values(words, "sweep")), values(words, "set")
            load_configs(module, sweep, rows, settings, 2, values(words, "over"))
            continue
        config = module["get_config"](row) if row else module["get_config"]()
        fields = [w.removeprefix("--config.") for w in words if w.startswith("--config.")]
        if script.stem == "retrain_classifier":
            fields += [f"retrain.{setting}" for setting in values(words, "set")]
            assert config.retrain.method
        override(config, fields)
        check_config(config)
    for stage in values(words, "stage"):
        config = with_stage(base_config(), stage)
        override(config, [f"retrain.{setting}" for setting in values(words, "set")])


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```(?:python|bash).*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        there = (DOCS / page).parent / path if path else DOCS / page
        name = there.resolve().relative_to(ROOT).as_posix().removeprefix("docs/")
        if name in ("notebooks", *MADE):
            continue
        assert there.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(), flags=re.MULTILINE)
            made = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
            assert anchor in made, link


@pytest.mark.parametrize(
    "package", ["losses", "objectives", "longtail", "models", "data", "metrics", "dlsa"]
)
def test_every_public_name_has_its_entry(package):
    page = PAGES[f"api/{package}.md"]
    if f"automodule:: lt_jax.{package}\n   :members:" in page:
        return
    entries = re.findall(r"^\.\. (?:auto|py:)\w+:: (\w+)$", page, flags=re.MULTILINE)
    public = importlib.import_module(f"lt_jax.{package}").__all__
    assert sorted(set(public) - set(entries)) == []
    assert len(entries) == len(set(entries))


@pytest.mark.parametrize("group", FIELDS)
def test_the_fields_of_a_group_are_described_and_no_others(group):
    assert sorted(FIELDS[group]) == sorted(config_page.defaults(group))
    assert all(FIELDS[group].values())


def test_no_group_of_a_config_is_forgotten():
    config = base_config()
    groups = [name for name, value in config.items() if hasattr(value, "items")]
    groups += [f"data.{n}" for n, value in config.data.items() if hasattr(value, "items")]
    assert {*FIELDS} == {"", *groups}
    assert {*config_page.TITLES} == {*FIELDS}
    trained = config_page.default_fields("crt")
    like = {name for name, value in trained.items() if isinstance(value, dict)}
    # Their fields are those of the groups of the same name, which are described.
    assert like == {"objective", "sampling", "augment", "optimizer"}
    for name in like:
        assert set(trained[name]) == set(FIELDS[name])
    divided = config_page.default_fields("dlsa")
    assert {n for n, v in divided.items() if isinstance(v, dict)} == {*config_page.DIVISION}


def test_the_reference_of_fields_has_every_one_of_them_with_a_text():
    page = config_page.config_page()
    rows = re.findall(r"^\| `(.+?)` \| .*? \| (.+) \|$", page, flags=re.MULTILINE)
    texts = dict(rows)
    for group, fields in FIELDS.items():
        for name in fields:
            assert texts[f"{group}.{name}" if group else name].strip()
    for group, options in config_page.DIVISION.items():
        for name in options._fields:
            assert texts[f"retrain.{group}.{name}"].strip()
    for name, factory in TRANSFORMS.items():
        for option in config_page.options_of(factory):
            assert texts[f"objective.transforms.{name}.{option}"].strip()
    assert all(f"| `{name}` |" in page for name in [*METHODS, *STAGES])


def test_names_that_a_field_takes_are_in_its_description():
    assert all(f"``{kind}``" in FIELDS["retrain"]["method"] for kind in KINDS)
    assert all(f"``{scheme}``" in FIELDS["sampling"]["scheme"] for scheme in SCHEMES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_second_stage_is_in_the_guide(stage):
    assert f"| `{stage}` |" in PAGES["guide/two_stages.md"]


def test_a_description_is_read_from_a_docstring():
    text = """One line.

    Args:
      first: of two
        lines: with a colon.
      second: the next.

    Returns:
      third: not an argument.
    """
    described = config_page.described(text, "Args")
    assert described == {"first": "of two lines: with a colon.", "second": "the next."}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_on_its_page_and_has_no_field_of_its_own(name):
    module = f"configs.{name.removesuffix('.py')}"
    assert f"automodule:: {module}\n" in PAGES["reference/configs.md"]
    check_config(runpy.run_path(str(ROOT / "configs" / name))["get_config"]())


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_on_its_page(name):
    assert f".. script:: launch/{name}\n" in PAGES["reference/scripts.md"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_on_a_page_of_methods(method):
    pages = (text for name, text in PAGES.items() if name.startswith("methods/"))
    assert any(f"`{method}`" in text for text in pages)
