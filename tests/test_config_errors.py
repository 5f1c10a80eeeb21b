"""Errors in a config file of one's own: its line and its own words, never a field that it lacks.

Every exception of it was told as a field that the config lacks, or, by the sweep, by a traceback.
"""

import runpy
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags
from tiny_runs import ROOT

from lt_jax import flag_errors
from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.settings import load_configs

HEAD = """import numpy as np
from lt_jax.configuration import base_config
RATES = {"a": 0.1}

def get_config(method="cross_entropy"):
    config = base_config(method)
    LINE
    return config
"""
# The line, and the part of the sentence that tells what is wrong.
ERRORS = {
    "numpy": ("np.rint_(5.2)", "AttributeError: module 'numpy' has no attribute 'rint_'"),
    "own dictionary": ('RATES["b"]', "KeyError: 'b'"),
    "own attribute": ("RATES.b", "AttributeError: 'dict' object has no attribute 'b'"),
    "set field": ("config.train.epoch = 5", "config has no field 'epoch'; did you mean epochs?"),
    "read field": ("config.train.epoch", "config has no field 'epoch'; did you mean epochs?"),
    "item": ("config['trains']", "config has no field 'trains'; did you mean train?"),
    "type": ('config.train.epochs = "x"', "TypeError: "),
    "value": ('int("x")', "ValueError: invalid literal for int() with base 10: 'x'"),
    "zero": ("1 / 0", "ZeroDivisionError: division by zero"),
    "file": ('open("no.txt")', "FileNotFoundError: [Errno 2] No such file or directory: 'no.txt'"),
    "import": ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
}


def read(path, monkeypatch, way="flag"):
    """As `lt_jax.cli` reads the flag, in flags of their own; this file stands for the script."""
    monkeypatch.setattr(sys, "argv", [__file__, f"--config={path}"])
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    with flag_errors.told_of_flags():
        if way == "sweep":
            load_configs(runpy.run_path(str(path)), None, ["plm"], [], 1)
            return
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", None, flag_values=values)
        values(sys.argv)
        values.config.to_dict()


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("way", ["flag", "sweep"])
def test_the_line_and_its_own_words_are_told(name, way, tmp_path, monkeypatch):
    line, told = ERRORS[name]
    path = tmp_path / "mine.py"
    path.write_text(HEAD.replace("LINE", line))
    with pytest.raises(InputError) as error:
        read(path, monkeypatch, way)
    sentence = str(error.value)
    assert sentence.startswith(f"{path} cannot be used (line 7: {told}")
    assert "\n" not in sentence
    assert name in ("set field", "read field", "item") or "config has no field" not in sentence


@pytest.mark.parametrize("way", ["flag", "sweep"])
def test_a_file_that_does_not_compile_is_told(way, tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text("x = 1\ndef get_config(:\n")
    with pytest.raises(InputError, match=r"mine\.py cannot be used \(line 2: SyntaxError: inv"):
        read(path, monkeypatch, way)


def test_the_helper_that_raised_is_named(tmp_path, monkeypatch):
    (tmp_path / "helper_of_mine.py").write_text("def rate(name):\n    return {}[name]\n")
    path = tmp_path / "mine.py"
    path.write_text(HEAD.replace("LINE", "import helper_of_mine; helper_of_mine.rate('r')"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"helper_of_mine\.py cannot be used \(line 2: KeyError: "):
        read(path, monkeypatch)


def test_sentences_of_the_library_and_of_the_file_stay_as_they_are(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    for line in ('base_config("plmm")', 'raise InputError("expected a or b")'):
        path.write_text(HEAD.replace("LINE", f"from lt_jax.errors import InputError; {line}"))
        with pytest.raises(InputError, match=r"^(method is 'plmm'; expected|expected a or b$)"):
            read(path, monkeypatch)


def test_defects_of_the_library_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("lt_jax.settings.has_field", lambda *_: {}["defect"])
    monkeypatch.setattr(sys, "argv", [__file__])
    module = {"get_config": base_config}
    with pytest.raises(KeyError, match="defect"), flag_errors.told_of_flags():
        load_configs(module, None, ["plm"], ["objective.transforms.a=1"], 1)


@pytest.mark.parametrize(
    ("content", "string", "sentence"),
    [
        ("x = 1\n", "", "the config file has no get_config"),
        ("def get_config():\n    return 1\n", ":crt", "TypeError: get_config() takes 0 positional"),
    ],
)
def test_files_without_a_fitting_get_config(content, string, sentence, tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read(f"{path}{string}", monkeypatch)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("script", ["train", "sweep", "retrain_classifier"])
def test_scripts_end_with_the_sentence_and_status_2(script, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(HEAD.replace("LINE", 'RATES["b"]'))
    given = ["--row=plm"] if script == "sweep" else []
    done = subprocess.run(
        [
            sys.executable,
            f"launch/{script}.py",
            f"--config={path}",
            f"--workdir={tmp_path}/r",
            *given,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert f"error: {path} cannot be used (line 7: KeyError: 'b')\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("script", ["train", "sweep"])
def test_a_config_file_that_is_missing_is_looked_for_in_a_folder(script, tmp_path):
    given = ["--row=plm"] if script == "sweep" else []
    done = subprocess.run(
        [sys.executable, ROOT / f"launch/{script}.py", "--workdir=r", *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert f"error: there is no config file configs/digits.py in {tmp_path}; expe" in done.stderr
