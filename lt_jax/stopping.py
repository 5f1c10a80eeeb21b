"""Signals that ask a run to save and leave."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from typing import Any

from lt_jax import processes
from lt_jax.writers import say

# Seconds in which signals are one: a terminal or `timeout` tells a group and each of its processes.
_TOGETHER = 1.0
_LATE = 0.2  # until the last of them has come


class Stop:
    """Notices SIGTERM and Ctrl-C, so that the loop can save and leave.

    Several processes must leave after the same step: then JAX notices SIGTERM, `agree` says when,
    and Ctrl-C is handed on as SIGTERM. A second Ctrl-C, more than a second later, raises
    `KeyboardInterrupt`.
    """

    def __init__(self) -> None:
        self.asked = False
        self.unheeded: int | None = None  # the signal that nobody has acted on yet
        self._before: dict[int, Any] = {}
        self._last = -math.inf  # when a signal came that was not one with the one before
        self._handed_on = False

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            return self
        if processes.are_several():
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._hand_on)
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def _hand_on(self, number: int, frame: Any) -> None:
        if self._is_repeated():
            return
        if self._handed_on:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self._handed_on = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _is_repeated(self) -> bool:
        now = time.monotonic()
        if now - self._last < _TOGETHER:
            return True
        self._last = now
        return False

    def _ask(self, number: int, frame: Any) -> None:
        if self._is_repeated():
            return
        if self.asked and number == signal.SIGINT:
            self.unheeded = None
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.asked, self.unheeded = True, number
        say("will save and stop after this step.")

    def agree(self, steps: range) -> None:
        """Called after every call of a program, with the steps it made, in all processes alike."""
        if processes.stop_now(steps):
            self.asked = True

    def __exit__(self, *_: Any) -> None:
        time.sleep(max(0.0, self._last + _LATE - time.monotonic()))
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.unheeded is None:
            return
        # It came while the run was being finished.
        if self._before[self.unheeded] == signal.SIG_IGN:  # as of what a shell starts by `&`
            raise KeyboardInterrupt
        os.kill(os.getpid(), self.unheeded)
