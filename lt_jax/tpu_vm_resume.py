"""Carries out commands of `tpu_vm`, and goes on with a run on a new machine after preemption."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable

from lt_jax import tpu_vm
from lt_jax.errors import InputError
from lt_jax.tpu_vm import Command, Machine

ABSENT, LOST, WAITING, READY = "absent", "lost", "waiting", "ready"
# What gcloud calls the states of a node or a queued resource; every other one passes.
STATES = {
    "READY": READY,
    "PREEMPTED": LOST,
    "TERMINATED": LOST,
    "STOPPED": LOST,
    "SUSPENDED": LOST,  # a queued resource whose node was preempted
}
FAILURES = 10  # one after another, after which it gives up


class GcloudError(InputError):
    """A command ended with an error: what it said of it."""


def call(command: Command) -> str:
    """Carries out a command of this machine.

    Returns:
      What it wrote to standard output.

    Raises:
      GcloudError: if it ends with an error.
      InputError: if there is no such program.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise InputError(f"there is no program {command[0]}; expected it on PATH") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        told = next((line for line in said if line.startswith("ERROR:")), said[-1])  # then details
        raise GcloudError(f"{shlex.join(command[:6])} ended with {done.returncode}: {told}")
    return done.stdout.strip()


def call_all(commands: Iterable[Command], say: Callable[[str], object]) -> None:
    """Carries out commands one after another, and tells each and what it says.

    Args:
      commands: lists of arguments.
      say: is given lines of text.
    """
    for command in commands:
        say(f"$ {shlex.join(command)}")
        if told := call(command):
            say(told)


def state(machine: Machine) -> str:
    """How the machine is: ``absent``, ``lost``, ``waiting`` (for it) or ``ready``.

    Raises:
      GcloudError: if gcloud cannot tell.
      InputError: if the queued resource cannot be had.
    """
    found = ABSENT
    for command in tpu_vm.describe(machine):
        try:
            told = call(command)
        except GcloudError as error:
            if "NOT_FOUND" not in str(error):
                raise
            # A queued resource without its node: somebody deleted that.
            return ABSENT if found is ABSENT else LOST
        if told == "FAILED":
            raise InputError(f"{machine.name} cannot be had: {shlex.join(command[:-3])} tells why")
        if told == "ACTIVE":  # of the queued resource; its node comes next
            found = WAITING
            continue
        return STATES.get(told, WAITING)
    return found


def workers(machine: Machine) -> dict[str, str]:
    """What each worker does: ``running``, ``gone``, or the exit status of its run."""
    told = "\n".join(call(command) for command in tpu_vm.progress(machine))
    return dict(re.findall(r"^lt_jax (\S+) (\S+)$", told, re.MULTILINE))


class _Run:
    """A run that is looked at from time to time, and done again where it was lost."""

    def __init__(self, machine: Machine, command: Command, say: Callable[[str], object]):
        self.machine, self.say = machine, say
        self.create = tpu_vm.create(machine)
        run = tpu_vm.run(machine, command)
        self.start = [*tpu_vm.stop(machine), *tpu_vm.setup(machine), *run]
        self.known = False  # whether what the workers tell is of this run
        self.before: dict[str, str] = {}

    def look(self) -> bool:
        """Does what is needed now; whether the run has ended."""
        found = state(self.machine)
        if found in (ABSENT, LOST):
            self.say(f"{self.machine.name} is {found}.")
            lost = tpu_vm.delete(self.machine) if found == LOST else []
            call_all([*lost, *self.create], self.say)
        return found == READY and self._look_at_workers()

    def _look_at_workers(self) -> bool:
        now = workers(self.machine)
        statuses = set(now.values())
        if "gone" in statuses or (not self.known and statuses != {"running"}):
            call_all(self.start, self.say)
            now = {}
        self.known = True
        # A machine that is being preempted asks the run to stop, which then saves and ends with 0.
        # So it has ended only if the machine is still there the next time.
        same, self.before = now == self.before, now
        ended = statuses == {"0"} or not statuses <= {"0", "running", "gone"}
        return bool(now) and same and ended


def resume(
    machine: Machine,
    command: Command,
    *,
    poll_seconds: float,
    say: Callable[[str], object],
) -> None:
    """Sees to it that a run ends: makes the machine, starts, and does so again after preemption.

    The run goes on from its ``--workdir``. Call it again at any time: what runs is left alone,
    whatever else is found is brought to run.

    Args:
      machine: that is created where it is missing.
      command: of the run, the same on each worker.
      poll_seconds: between two looks.
      say: is given lines of text.

    Raises:
      InputError: if the run ends with an error, or gcloud does so again and again.
    """
    run, failures = _Run(machine, command, say), 0
    while True:
        try:
            if run.look():
                break
            failures = 0
        except GcloudError as error:
            failures += 1
            say(str(error))
            if failures == FAILURES:
                raise
        time.sleep(poll_seconds)
    if failed := {name: status for name, status in run.before.items() if status != "0"}:
        call_all(tpu_vm.logs(machine), say)
        raise InputError(f"the run failed; exit statuses of workers: {failed}")
    say(f"the run has ended; {machine.name} is still there.")


def rehearsal(machine: Machine, command: Command, poll_seconds: float) -> Iterable[str]:
    """Lines that `resume` would carry out, and when."""
    run = _Run(machine, command, print)
    steps = {
        f"every {poll_seconds:g} seconds": tpu_vm.describe(machine),
        "if it is lost": tpu_vm.delete(machine),
        "if it is lost or absent": run.create,
        "if it is ready": tpu_vm.progress(machine),
        "if nothing runs there": run.start,
        "if the run failed": tpu_vm.logs(machine),
    }
    for when, commands in steps.items():
        yield f"# {when}:"
        yield from map(shlex.join, commands)
