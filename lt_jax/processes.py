"""Several processes as one run: how they find each other, who writes, and when all stop.

Each process runs the same script on the same config and sees a share of the devices. Everything
that decides what to do is computed from the same files and numbers in all of them; only the first
writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lt_jax.errors import InputError, StorageError, first_line

# A process that dies is missed after this long; JAX then ends the others.
HEARTBEAT_SECONDS = 30
_JOIN_SECONDS = 300
_LEAVE_SECONDS = 30


def start(
    *,
    automatic: bool = False,
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
) -> None:
    """Joins the other processes of a run, before JAX is used; does nothing if none are named.

    Args:
      automatic: whether to ask the cluster who the others are, as TPU VMs, SLURM, Open MPI and GKE
        can tell; then nothing else is given.
      coordinator: address of the first process, ``"host:port"``, the same in all.
      num_processes: how many there are.
      process_id: which this is, from 0.

    Raises:
      InputError: for values that do not fit together, a cluster that cannot be asked, or others
        that do not come.
    """
    given = (coordinator, num_processes, process_id) != ("", 0, -1)
    if not automatic and not given:
        return
    if automatic and given:
        raise InputError(
            "--distributed asks the cluster; expected it alone, or --coordinator, --num_processes"
            " and --process_id without it"
        )
    options: dict[str, Any] = {}
    if given:
        _check(coordinator, num_processes, process_id)
        options = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
    where = f"at {coordinator}" if given else "by asking the cluster"
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _patience(where):
            jax.distributed.initialize(
                **options,
                initialization_timeout=_JOIN_SECONDS + 60,  # `_patience` ends before
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=_LEAVE_SECONDS,
            )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes of this run did not meet {where}: {first_line(error)}"
        ) from error
    # For the first time CPUs wait half a minute for each other, from then on as long as it takes:
    # now all are here, and soon one may load for longer than another.
    all_agree(True)
    # JAX now notices SIGTERM, and nobody asks it where a process is alone.
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _patience(where: str) -> Iterator[None]:
    """Ends this process when others have not come in time: JAX would abort it, with a stack."""

    def give_up() -> None:
        print(
            f"error: the processes of this run did not meet {where} within {_JOIN_SECONDS:g} s;"
            " expected all of them to be started",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)  # as bad input

    timer = threading.Timer(_JOIN_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator):
        raise InputError(
            f"--coordinator is {coordinator!r}; expected the address of the first process, such as"
            " 10.0.0.1:8476"
        )
    if num_processes < 1:
        raise InputError(f"--num_processes is {num_processes}; expected at least 1")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id is {process_id}; expected 0 to {num_processes - 1}, another one for each"
            " process"
        )
    if process_id == 0 and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
        _check_free(coordinator)


def _check_free(coordinator: str) -> None:
    """Refuses a port that JAX cannot listen at: it would tell so by a segmentation fault at times.

    All addresses are tried, as by JAX.
    """
    port = int(coordinator.rpartition(":")[2])
    v6 = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if v6 else socket.AF_INET
        socket.create_server(("", port), family=family, dualstack_ipv6=v6).close()
    except (OSError, OverflowError) as error:
        code = getattr(error, "errno", None)
        reason = os.strerror(code) if code else first_line(error)
        raise InputError(
            f"--coordinator is {coordinator!r}, but its port cannot be listened at here"
            f" ({reason}); expected a free port of the machine of process 0"
        ) from error


def are_several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_writer() -> bool:
    """Whether this process writes the files of a run and talks: the first of all.

    Checkpoints are apart: all processes write their parts of the arrays.
    """
    return not are_several() or jax.process_index() == 0


def check_alone(what: str) -> None:
    """Refuses what several processes cannot share.

    Args:
      what: names it.

    Raises:
      InputError: if there are several.
    """
    if are_several():
        raise InputError(
            f"{what} runs in one process, and this run has {jax.process_count()}; start it in one,"
            " whose devices share the work"
        )


def meet(where: str) -> None:
    """Waits for all processes to come here.

    Args:
      where: a name, the same in all.
    """
    if are_several():
        multihost_utils.sync_global_devices(where)


_told = 0  # the last number that JAX was told


def stop_now(steps: range) -> bool:
    """Whether all processes stop after these steps, because one of them was told to.

    JAX notices SIGTERM in any of them and chooses a step that none has passed. It knows how far
    each is by these calls, and by those that Orbax makes with the step of a checkpoint.

    Args:
      steps: numbers of those just made, the same in all processes.
    """
    global _told
    if not are_several():
        return False
    # Steps jump where a run goes on or another begins: what was chosen may be the next of before.
    jump = [] if steps[0] == _told + 1 else [_told + 1]
    _told = steps[-1]
    return any(multihost_utils.reached_preemption_sync_point(step) for step in (*jump, *steps))


def all_agree(is_so: bool) -> bool:
    """Whether something is so in all processes, which all ask."""
    if not are_several():
        return is_so
    return bool(multihost_utils.process_allgather(np.array(is_so)).all())


@contextlib.contextmanager
def agreed(what: str) -> Iterator[None]:
    """What is refused in one process ends all of them, which all come here.

    Args:
      what: the others could not do, as a verb.
    """
    refused: InputError | StorageError | None = None
    try:
        yield
    except (InputError, StorageError) as error:
        refused = error
    if not all_agree(refused is None):
        raise refused or InputError(f"another process cannot {what}; it tells why")


def check_same(values: Mapping[str, Any]) -> None:
    """Refuses values that differ from those of the first process, in all that ask, which all do.

    Args:
      values: by name, of what has to be the same in all processes of a run, such as the fields of
        its config. Of a kind that JSON can hold.

    Raises:
      InputError: naming the first that differs; where none does, saying that another process tells.
    """
    if not are_several():
        return
    first = _of_first(json.dumps(values, default=repr))
    own = json.loads(json.dumps(values, default=repr))
    other = next((n for n in sorted({*own, *first}) if own.get(n) != first.get(n)), "")
    if all_agree(not other):
        return
    if not other:
        raise InputError(
            "the processes of this run were not started alike; another one tells what differs"
        )
    raise InputError(
        f"{other} is {own.get(other)!r} in process {jax.process_index()} and"
        f" {first.get(other)!r} in the first; expected the same in all processes of a run"
    )


def _of_first(text: str) -> dict[str, Any]:
    """What JSON text of the first process says; texts may have other lengths."""
    encoded = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.array(encoded.size, np.int32)))
    padded = np.resize(encoded, length)  # what others put there is not looked at
    found: dict[str, Any] = json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())
    return found
