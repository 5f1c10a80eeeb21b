"""Processes that read and decode images, started once and kept.

Grain has worker processes of its own, but starts them anew for every iterator, so for each epoch
and each evaluation: 8 to 10 seconds each, measured on 2 cores. These take a chunk of indices and
give back its images; Grain orders the chunks and keeps some in flight.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import Any

from lt_jax.errors import InputError

GRACE = 600.0  # seconds between a SIGTERM and the end, in which the run can validate and save

Load = Callable[[int], Any]
_loads: list[Load] = []  # in a worker: what it reads from


class Workers:
    """A pool of processes, and what they can read from.

    Attributes:
      count: how many processes.
    """

    def __init__(self, count: int) -> None:
        """Starts none yet.

        Args:
          count: how many processes.
        """
        self.count = count
        self._sources: list[Load] = []
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def register(self, load: Load) -> int:
        """Makes a way to read images known; its number. Only before the first `run`."""
        assert self._pool is None, "the workers have started without it"
        self._sources.append(load)
        return len(self._sources) - 1

    def run(self, task: Callable[..., Any], number: int, *rest: Any) -> Any:
        """``task(load, *rest)`` in one of the processes, with the `load` of that number.

        Raises:
          InputError: if a process died, as when memory is short.
        """
        try:
            pool = self._started()
            with _signals_held():  # a submission may start a process, which inherits that
                asked = pool.submit(_call, task, number, *rest)
            return asked.result()
        except BrokenProcessPool as error:
            for process in list((self._pool._processes or {}).values()) if self._pool else []:
                process.kill()  # asked politely, the others would stay
            raise InputError(
                f"one of the {self.count} processes of data.workers ended while it read images, as"
                " happens when memory is short; expected fewer data.workers, or 0 for threads"
            ) from error

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:  # several threads ask for it
            if self._pool is None:
                resource_tracker.ensure_running()  # when it starts it lets held signals through
                self._pool = ProcessPoolExecutor(
                    self.count,
                    # A fork of a process with XLA's threads can hang.
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_begin,
                    initargs=(self._sources,),
                )
                weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
            return self._pool


_STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that ask to stop wait: one that comes while a worker starts would end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(sources: list[Load]) -> None:
    """In a worker, before its first task."""
    _loads[:] = sources
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C and SLURM tell all processes, but the run needs its images until it has saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def _end_later(*_: object) -> None:
    timer = threading.Timer(GRACE, os._exit, (1,))
    timer.daemon = True  # a worker that is not needed any more ends at once
    timer.start()


def _end_with_parent() -> None:
    """Nobody else ends a worker whose parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(task: Callable[..., Any], number: int, *rest: Any) -> Any:
    return task(_loads[number], *rest)
