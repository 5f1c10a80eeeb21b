"""Two processes never write to one folder: the second waits, and is refused with a sentence."""

import contextlib
import json
import signal
import subprocess
import sys

import pytest
from shared_runs import _tiny_network  # noqa: F401
from tiny_runs import rows, tiny

from lt_jax import workdir
from lt_jax.configuration import plain
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.train import train

HOLDS = """
import json, sys
from pathlib import Path
from lt_jax import workdir
workdir.claim(json.loads(sys.argv[2]), Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def other_process(config, folder):
    """Holds the folder until it is killed, or its input ends."""
    text = json.dumps(plain(config))
    command = [sys.executable, "-c", HOLDS, str(folder), text]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(workdir, "_PATIENCE", 0.2)
    config = tiny()
    with other_process(config, tmp_path):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(InputError, match=r"is being written to by another process; wait"):
            train(config, tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "waiting for another process, which writes to" in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_folder_of_a_process_that_was_ended_is_free(tmp_path, how):
    """At once: nothing is left that would have to be removed by hand."""
    config = tiny()
    with other_process(config, tmp_path) as process:
        process.send_signal(how)
        process.wait()
        summary = train(config, tmp_path)
    assert summary["training"]["steps"] == rows(tmp_path)[-1]["step"]


def test_a_second_process_waits_for_one_that_ends(tmp_path):
    config = tiny()
    with other_process(config, tmp_path) as process:
        process.stdin.close()
        assert train(config, tmp_path) is not None


def test_a_folder_that_became_anothers_while_data_were_loaded_is_refused(tmp_path):
    """Between the check at the start of a run and the claim no process has the folder."""
    workdir.check_config_matches(tiny(seed=2), tmp_path)
    with workdir.until_done():
        workdir.claim(tiny(seed=1), tmp_path)
    with workdir.until_done(), pytest.raises(InputError, match=r"belongs to a run with seed = 1"):
        workdir.claim(tiny(seed=2), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_folders_are_given_up_at_the_end(tmp_path):
    """Of both stages, also of a run that fails: another process may then have them."""
    config = tiny("cross_entropy/crt")
    config.retrain.epochs = 1
    train(config, tmp_path / "a")
    retrain(config, tmp_path / "b", tmp_path / "a")
    with pytest.raises(InputError):
        train(tiny(seed=7), tmp_path / "a")
    assert not workdir._held
    for folder in ("a", "a/stage1", "a/stage2", "b"):
        stored = json.loads((tmp_path / folder / "config.json").read_text())
        with other_process(stored, tmp_path / folder):
            pass
