"""Signals: several within a second are one, as terminals send them; a later one is a second."""

import os
import signal
import time
import types

import numpy as np
import pytest
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import leaves, tiny

from lt_jax import cli, loop
from lt_jax.stopping import Stop
from lt_jax.train import train

ADVANCE = loop.Loop._advance
CONFIG = tiny("plm", train__epochs=3)  # of three steps each


def press(*seconds):
    """Ctrl-C, again and again, with these pauses before each."""
    for pause in seconds:
        time.sleep(pause)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def at_step(monkeypatch):
    """Calls something while that step runs."""

    def arrange(step, act):
        def advance(self, rest, end):
            if self.step == step:
                act()
            ADVANCE(self, rest, end)

        monkeypatch.setattr(loop.Loop, "_advance", advance)

    return arrange


@pytest.fixture
def clock(monkeypatch):
    """The time as `Stop` sees it; it never waits."""
    now = [100.0]
    fake = types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None)
    monkeypatch.setattr("lt_jax.stopping.time", fake)
    return now


@pytest.fixture(autouse=True)
def _handlers_restored():
    """Whatever a test does with signals, they are as before after it."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.1])
def test_two_at_once_are_one_and_the_run_is_saved(pause, at_step, tmp_path):
    """The second was taken for a wish not to wait: all since the last checkpoint was lost."""
    whole = train(CONFIG, tmp_path / "whole")
    at_step(4, lambda: press(0, pause))
    assert train(CONFIG, tmp_path / "run") is None
    assert (tmp_path / "run/checkpoints/5").is_dir()
    at_step(-1, None)
    assert train(CONFIG, tmp_path / "run")["test"] == whole["test"]
    for one, other in zip(leaves(tmp_path / "whole"), leaves(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_late_echo_of_the_last_signal_finds_nobody_in_a_hurry():
    """What is saved quicker than the second of the two comes is saved all the same."""
    before = time.monotonic()
    with Stop() as stop:
        press(0)
        assert stop.asked
        stop.unheeded = None  # it was saved
    assert time.monotonic() - before >= 0.2
    with Stop():
        pass  # and nobody waits who was not told to stop
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(("step", "kept"), [(1, None), (4, 3)])
def test_a_second_one_ends_it_and_says_what_is_kept(step, kept, at_step, tmp_path, clock):
    """Also where it is told to a group, so that it comes twice."""

    def act():
        press(0, 0)
        clock[0] += 1.1
        try:
            press(0)
        finally:
            press(0)

    at_step(step, act)
    with pytest.raises(KeyboardInterrupt) as error:
        train(CONFIG, tmp_path)
    assert str(error.value).startswith(
        f"a second Ctrl-C ended the run at step {step} of 9 without saving; "
        + ("no checkpoint had been" if kept is None else f"the checkpoint of step {kept} is kept")
    )
    assert error.value.__suppress_context__
    at_step(-1, None)
    assert train(CONFIG, tmp_path)["test"]


def test_ctrl_c_after_a_sigterm_is_a_second_signal(clock):
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        press(0)
        clock[0] += 2
        os.kill(os.getpid(), signal.SIGTERM)  # asked twice to save: it will
        clock[0] += 2
        with pytest.raises(KeyboardInterrupt):
            press(0)
        assert stop.asked


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.default_int_handler])
def test_a_signal_that_came_at_the_end_is_not_lost(before):
    """Also where a shell has had it ignored, as of what it starts by `&`: it was announced."""
    own = signal.signal(signal.SIGINT, before)
    try:
        with pytest.raises(KeyboardInterrupt), Stop():
            press(0)  # after the last step: nobody acts on it
    finally:
        signal.signal(signal.SIGINT, own)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyboardInterrupt(), "error: interrupted; what was saved before is kept\n"),
        (KeyboardInterrupt("at step 4"), "error: at step 4\n"),
    ],
)
def test_scripts_end_with_a_sentence(error, sentence, capsys):
    with pytest.raises(SystemExit) as ended, cli.told():
        raise error
    assert ended.value.code == 130
    assert capsys.readouterr().err == sentence
