"""Signals that ask a run to save and leave."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from lt_jax import processes
from lt_jax.writers import say


class Stop:
    """Notices SIGTERM and Ctrl-C, so that the loop can save and leave.

    Several processes must leave after the same step: then JAX notices SIGTERM, `agree` says when,
    and Ctrl-C is handed on as SIGTERM.
    """

    def __init__(self) -> None:
        self.asked = False
        self.unheeded: int | None = None  # the signal that nobody has acted on yet
        self._before: dict[int, Any] = {}

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
        signal.signal(number, signal.default_int_handler)  # a second Ctrl-C does not wait
        os.kill(os.getpid(), signal.SIGTERM)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.asked, self.unheeded = True, number
        say("will save and stop after this step.")

    def agree(self, steps: range) -> None:
        """Called after every call of a program, with the steps it made, in all processes alike."""
        if processes.stop_now(steps):
            self.asked = True

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.unheeded is not None:  # it came while the run was being finished
            os.kill(os.getpid(), self.unheeded)
