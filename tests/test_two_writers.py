"""Two processes never write to one folder: the second waits, and is refused with a sentence."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from shared_runs import _tiny_network  # noqa: F401
from tiny_runs import rows, tiny

from lt_jax import workdir
from lt_jax.configuration import plain
from lt_jax.errors import InputError
from lt_jax.retrain import retrain
from lt_jax.sweep import run_sweep
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
    monkeypatch.setattr(workdir, "_PATIENCE", 1)
    monkeypatch.setattr(workdir, "_SLICE", 1)
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


@pytest.mark.parametrize("method", ["cross_entropy", "cross_entropy/crt", "cross_entropy/ncm"])
def test_what_another_process_finished_meanwhile_is_left_as_it_is(method, tmp_path, monkeypatch):
    """Test is not read again, nothing written anew; in both ways to start a second stage."""
    config = tiny(method)
    done, folder = tmp_path / "done", tmp_path / "run"
    train(config, done)
    second = bool(config.retrain.method)
    hold = workdir.hold
    for direct in (False, True) if second else (False,):
        source = done / "stage2" if direct else done

        def finishing(path, source=source):
            if not folder.exists():
                shutil.copytree(source, folder)
            hold(path)

        with monkeypatch.context() as patch:
            patch.setattr(workdir, "hold", finishing)
            found = retrain(config, folder, done) if direct else train(config, folder)
        assert found == json.loads((source / "summary.json").read_text())
        for path in source.rglob("*.json*"):
            copy = folder / path.relative_to(source)
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns
        shutil.rmtree(folder)


def test_threads_have_folders_of_their_own(tmp_path, monkeypatch):
    """One that ends does not give up those of others, and none enters one in use."""
    monkeypatch.setattr(workdir, "_PATIENCE", 1)
    monkeypatch.setattr(workdir, "_SLICE", 1)

    def claimed(folder):
        with workdir.until_done():
            workdir.claim(tiny(), folder)

    with ThreadPoolExecutor(1) as pool, workdir.until_done():
        workdir.claim(tiny(), tmp_path / "a")
        pool.submit(claimed, tmp_path / "b").result()
        assert list(workdir._held) == [tmp_path / "a"]
        with pytest.raises(InputError, match="is being written to by another process"):
            pool.submit(claimed, tmp_path / "a").result()
    assert not workdir._held


def test_a_second_sweep_in_a_folder_is_refused(tmp_path, monkeypatch):
    """Before its first row, so that tables are written by one."""
    monkeypatch.setattr(workdir, "_PATIENCE", 1)
    monkeypatch.setattr(workdir, "_SLICE", 1)
    rows_of = {"ce": tiny(), "plm": tiny("plm_softmax")}
    with workdir.until_done(), other_process(tiny(), tmp_path / "t"):
        shutil.move(tmp_path / "t" / "config.json", tmp_path / "elsewhere")
        with pytest.raises(InputError, match="is being written to by"):
            run_sweep(rows_of, tmp_path / "t", lambda _: None)
    assert not (tmp_path / "t" / "ce").exists()
