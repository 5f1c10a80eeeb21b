"""Two processes of four devices each are one run of eight, until one of them is gone."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from joined import SIGNALLED, config_of
from PIL import Image
from tiny_runs import ColourNet, PixelNet, leaves, rows, scores

from lt_jax import cli, models, processes
from lt_jax.errors import InputError
from lt_jax.stopping import Stop
from lt_jax.train import train
from lt_jax.workdir import finished_summary

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def pixels(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)
    monkeypatch.setitem(models.MODELS, "colours", ColourNet)


def start(folder, *names):
    """Two processes of the same runs, which write into the folder."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    return [
        subprocess.Popen(
            [sys.executable, HERE / "joined.py", str(port), str(number), "2", folder, *names],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=(folder / f"{number}.log").open("w"),
            text=True,
        )
        for number in range(2)
    ]


def said(process):
    """The last word of a process that ended as it should."""
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return out.split()[-1]


def photographs(folder):
    """Two classes of images of several sizes."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 28), ("test", 6)):
        for number in range(2 * count):
            place = folder / "images" / split / f"class_{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 256, (12 + number % 5, 10, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")


def assert_same(one, other, rtol=1e-3, atol=1e-4):
    """Two runs ended alike, up to the order of sums: every array, every row, the test scores."""
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"split"}:
            np.testing.assert_allclose(
                np.asarray(a[key], float), np.asarray(b[key], float), rtol=rtol, atol=1e-2
            )


def test_two_processes_are_one_run(tmp_path):
    """Weights, PLM's state, metrics, a second stage, images of which each process reads a half."""
    photographs(tmp_path)
    names = ("plm", "photographs")
    pair = start(tmp_path, *names)
    alone = {name: train(config_of(name, tmp_path), tmp_path / f"{name}_alone") for name in names}
    assert [said(process) for process in pair] == ["finished", "finished"]
    assert alone["plm"]["training"]["steps"] >= 20
    for name in ("plm", "photographs/stage1", "photographs/stage2"):
        folder, _, stage = name.partition("/")
        assert_same(tmp_path / folder / stage, tmp_path / f"{folder}_alone" / stage)
        ours = scores(finished_summary(tmp_path / folder))
        theirs = scores(alone[folder])
        for a, b in zip(ours["last"]["replicas"], theirs["last"]["replicas"], strict=True):
            assert a["top1"] == pytest.approx(b["top1"], abs=0.011)


def test_what_is_not_alike_in_all_is_refused_by_all(tmp_path):
    """Another config, other images or a folder of its own: they would train as one run."""
    pair = start(tmp_path, "disagreeing")
    assert [process.wait(timeout=120) for process in pair] == [0, 0]
    first, other = ((tmp_path / f"{n}.told").read_text().splitlines() for n in range(2))
    for line, name in zip(first[:3], ("rate", "bad", "images"), strict=True):
        assert line.startswith(f"{name}: the processes of this run were not started alike")
    expected = "in the first; expected the same in all processes of a run"
    rate = "rate: config.optimizer.learning_rate is 0.5 in process 1 and 0.25 "
    assert other[0] == rate + expected
    assert other[1].startswith("bad: config.data.validation_size is -1 in process 1 and ")
    assert other[2].startswith("images: the data's index_hash is ")
    assert first[3] == "missing: another process cannot load the data; it tells why"
    assert other[3].startswith("missing: there is no file ")
    for lines, folder in ((first, "unshared0"), (other, "unshared1")):
        assert len(lines) == 5
        assert f"{folder}/config.json is not seen by all processes" in lines[4]
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"of_process_0", "unshared0"}


def test_a_signal_to_one_stops_both_after_the_same_step(tmp_path):
    """And the run goes on with another number of processes and devices to the same end."""
    pair = start(tmp_path, "signalled")
    config = config_of("signalled", tmp_path)
    whole = train(config, tmp_path / "whole")
    assert [said(process) for process in pair] == ["stopped", "stopped"]
    (saved,) = [int(p.name) for p in (tmp_path / "signalled" / "checkpoints").iterdir()]
    assert SIGNALLED <= saved < whole["training"]["steps"]
    config.train.num_devices = 2  # in one process now
    summary = train(config, tmp_path / "signalled")
    assert summary["training"]["steps"] == whole["training"]["steps"]
    assert_same(tmp_path / "signalled", tmp_path / "whole", rtol=2e-2, atol=2e-3)


def test_when_one_is_killed_the_other_ends(tmp_path):
    """With an error, within a minute, whichever of the two it was: no run hangs.

    With a sentence where it is missed in a step; where the other waits in vain, JAX aborts it.
    """
    victims = {"endless0": 0, "endless1": 1, "slender1": 1}
    pairs = {}
    for name in victims:
        (tmp_path / name).mkdir()
        pairs[name] = start(tmp_path / name, name[:-1])
    for name in victims:
        metrics = tmp_path / name / name[:-1] / "metrics.jsonl"
        wait_until(lambda metrics=metrics: metrics.exists() and metrics.stat().st_size, 180)
    for name, victim in victims.items():
        pairs[name][victim].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    left = {name: pairs[name][1 - victim].wait(timeout=60) for name, victim in victims.items()}
    assert time.monotonic() - begun < 60
    assert all(left.values())
    assert left["slender1"] == cli.LEFT_ALONE
    told = (tmp_path / "slender1" / "0.log").read_text().splitlines()
    assert told[-1].startswith("error: another process of the run has gone (")


def wait_until(condition, seconds):
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_a_signal_between_two_numberings_of_steps_is_heeded(monkeypatch):
    """JAX chooses the number after the last it was told, which a second stage would never reach."""
    told = []
    monkeypatch.setattr(processes, "_told", 0)
    monkeypatch.setattr(processes, "are_several", lambda: True)

    def is_point(number):
        told.append(number)
        return number == 503

    target = "lt_jax.processes.multihost_utils.reached_preemption_sync_point"
    monkeypatch.setattr(target, is_point)
    runs = [range(501, 502), range(502, 503), range(1, 4), range(4, 6)]
    assert [processes.stop_now(steps) for steps in runs] == [False, False, True, False]
    assert told == [1, 501, 502, 503, 4, 5]  # 1 before the first: the run went on from 500


def test_ctrl_c_is_handed_on_as_the_signal_that_jax_notices(monkeypatch):
    """And a second one, but no echo of the first, does not wait."""
    monkeypatch.setattr(processes, "are_several", lambda: True)
    clock = [10.0]
    fake = types.SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None)
    monkeypatch.setattr("lt_jax.stopping.time", fake)
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [signal.SIGTERM]
            assert not stop.asked  # that is for all processes to agree on
            clock[0] += 0.9
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [signal.SIGTERM]
            clock[0] += 0.2
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


ALONE = """
import os, signal, sys
from lt_jax import processes
processes._JOIN_SECONDS = 1
processes.start(coordinator=sys.argv[1], num_processes=int(sys.argv[2]), process_id=0)
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(("count", "status"), [(1, -signal.SIGTERM), (2, 2)])
def test_a_process_of_which_there_is_one(count, status):
    """It ends by a signal at once, though JAX notices it; where others do not come, it says so."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    ended = subprocess.run(
        [sys.executable, "-c", ALONE, address, str(count)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == status, ended.stderr
    sentence = f"error: the processes of this run did not meet at {address} within 1 s; expected"
    assert ended.stderr.startswith(sentence) == (count == 2)


def test_a_port_in_use_is_refused():
    with socket.create_server(("localhost", 0)) as other:
        coordinator = f"localhost:{other.getsockname()[1]}"
        sentence = rf"--coordinator is '{coordinator}', but .*\(Address already in use\); expected"
        with pytest.raises(InputError, match=sentence):
            processes.start(coordinator=coordinator, num_processes=2, process_id=0)


@pytest.mark.parametrize("automatic", [True, False])
def test_jax_is_told_to_miss_a_process_within_half_a_minute(automatic, monkeypatch):
    """And to wait longer than `processes` does for those that have not come; by itself it is 100 s.

    A killed process closes its connections, which most steps notice sooner; a machine that loses
    power does not.
    """
    told = {}

    def initialize(**options):
        told.update(options)
        raise RuntimeError("enough")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(processes, "_check_free", lambda _: None)
    named = {"coordinator": "a:1", "num_processes": 2, "process_id": 0}
    with pytest.raises(InputError, match=r"did not meet .*: enough"):
        processes.start(**({"automatic": True} if automatic else named))
    assert 10 <= told["heartbeat_timeout_seconds"] <= 30
    assert 10 <= told["shutdown_timeout_seconds"] <= 30
    assert told["initialization_timeout"] > processes._JOIN_SECONDS


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"automatic": True, "coordinator": "a:1"}, "--distributed asks the cluster"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "--coordinator is 'a'"),
        ({"num_processes": 2, "process_id": 0}, "--coordinator is ''"),
        ({"coordinator": "a:1", "process_id": 0}, "--num_processes is 0; expected at least 1"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "--process_id is 2"),
        ({"coordinator": "a:1", "num_processes": 2}, "--process_id is -1; expected 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, sentence):
    with pytest.raises(InputError, match=sentence):
        processes.start(**flags)
    assert not jax.distributed.is_initialized()
