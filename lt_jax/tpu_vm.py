"""The gcloud commands that make a Cloud TPU VM, train on all its workers and give it back."""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
from pathlib import Path

from lt_jax.errors import InputError

# In the home directory of each worker: what is installed, and what a run leaves there.
CHECKOUT, LOG, STATUS, PID = "lt_jax", "run.log", "run.status", "run.pid"
BUNDLE = "lt_jax.bundle"
ROOT = Path(__file__).resolve().parents[1]
# The images of TPU VMs have Python 3.10; uv brings a newer one.
PYTHON = "3.12"

Command = list[str]


@dataclasses.dataclass(frozen=True)
class Machine:
    """A TPU VM of one or many workers, as gcloud's flags describe it.

    Attributes:
      name: of the TPU node; with `spot` also of the queued resource that asks for it.
      zone: such as ``us-central2-b``.
      accelerator_type: such as ``v4-32``.
      runtime_version: such as ``tpu-ubuntu2204-base``.
      project: "" for gcloud's own default.
      spot: whether it is cheap and can be preempted; then it is asked for by a queued resource.
      create_flags: more flags of the create command, such as ``--network=NAME``.
      extras: extras of the package that are installed.
    """

    name: str
    zone: str
    accelerator_type: str = ""
    runtime_version: str = ""
    project: str = ""
    spot: bool = False
    create_flags: tuple[str, ...] = ()
    extras: str = "tfds,pretrained,gcs"

    def __post_init__(self):
        for field in ("name", "zone"):
            if not getattr(self, field):
                raise InputError(f"no --{field} was given; expected that of the TPU VM")


def _gcloud(machine: Machine, kind: str, verb: str, *arguments: str) -> Command:
    where = [f"--zone={machine.zone}"]
    if machine.project:
        where.append(f"--project={machine.project}")
    return ["gcloud", "compute", "tpus", kind, verb, *arguments, *where]


def create(machine: Machine) -> list[Command]:
    """The command that asks for the machine.

    Example:
      >>> machine = Machine("a", "us-central2-b", "v4-32", "tpu-ubuntu2204-base", spot=True)
      >>> print(*create(machine)[0][3:7])
      queued-resources create a --node-id=a

    Raises:
      InputError: if it is not known which machine to create.
    """
    for field in ("accelerator_type", "runtime_version"):
        if not getattr(machine, field):
            raise InputError(f"no --{field} was given; expected such as v4-32, tpu-ubuntu2204-base")
    accelerator = f"--accelerator-type={machine.accelerator_type}"
    if machine.spot:
        version = f"--runtime-version={machine.runtime_version}"
        named = (machine.name, f"--node-id={machine.name}", "--spot")
        command = _gcloud(machine, "queued-resources", "create", *named, accelerator, version)
    else:
        version = f"--version={machine.runtime_version}"
        command = _gcloud(machine, "tpu-vm", "create", machine.name, accelerator, version)
    return [command + list(machine.create_flags)]


def delete(machine: Machine) -> list[Command]:
    """The command that gives the machine back, with the queued resource if there is one."""
    if machine.spot:
        return [_gcloud(machine, "queued-resources", "delete", machine.name, "--force", "--quiet")]
    return [_gcloud(machine, "tpu-vm", "delete", machine.name, "--quiet")]


def describe(machine: Machine) -> list[Command]:
    """The commands that tell the state of the queued resource, if any, and of the node."""
    node = _gcloud(machine, "tpu-vm", "describe", machine.name, "--format=value(state)")
    queue = _gcloud(
        machine, "queued-resources", "describe", machine.name, "--format=value(state.state)"
    )
    return [queue, node] if machine.spot else [node]


def ssh(machine: Machine, remote: str) -> Command:
    """The command that runs a line of shell on all workers at once."""
    every = ("--worker=all", "--quiet", f"--command={remote}")
    return _gcloud(machine, "tpu-vm", "ssh", machine.name, *every)


def setup(machine: Machine) -> list[Command]:
    """The commands that install the last commit of this checkout, with its history, on all workers.

    The commit travels along, so that results are kept with it.
    """
    install = (
        f"rm -rf {CHECKOUT} && git -c advice.detachedHead=false clone --quiet {BUNDLE} {CHECKOUT}"
        f" && cd {CHECKOUT}"
        " && python3 -m pip install --quiet --user uv"
        f" && python3 -m uv venv --quiet --python={PYTHON} .venv"
        f" && python3 -m uv pip install --quiet --editable '.[{machine.extras}]' 'jax[tpu]'"
    )
    bundle = str(Path(tempfile.gettempdir()) / BUNDLE)
    every = (f"{machine.name}:", "--worker=all", "--quiet")
    return [
        ["git", "-C", str(ROOT), "bundle", "create", "--quiet", bundle, "HEAD"],
        _gcloud(machine, "tpu-vm", "scp", bundle, *every),
        ssh(machine, install),
    ]


_DISTRIBUTED = ("--distributed", *(f"--distributed={yes}" for yes in ("true", "t", "1")))


def check_run(command: Command) -> None:
    """Refuses a command whose results would be lost with the machine, or that is not one run."""
    if not command:
        raise InputError("no command was given; expected it after --, python launch/train.py ...")
    folders = [a.partition("=")[2] for a in command if a.startswith("--workdir=")]
    if not folders or not folders[-1].startswith("gs://"):
        given = f"--workdir={folders[-1]}" if folders else "no --workdir=... was given, which"
        raise InputError(
            f"{given} is lost with the machine; expected one that stays, --workdir=gs://BUCKET/..."
        )
    if not any(a.lower() in _DISTRIBUTED for a in command):
        raise InputError(
            "the command has no --distributed, so each worker would train a run of its own"
        )


def run(machine: Machine, command: Command) -> list[Command]:
    """The command that starts a run on all workers; it goes on if the connection breaks.

    A run that is still there is asked to stop first, which saves it.
    """
    check_run(command)
    inner = (
        "trap : TERM; "  # it is for the run, whose exit status is still written down
        f"cd ~/{CHECKOUT} && export PATH=$PWD/.venv/bin:$PATH && {shlex.join(command)}"
        f"; echo $? > ~/{STATUS}"
    )
    remote = (
        f"{_STOP}; rm -f {STATUS}; "
        # A session of its own, so that its process group is stopped as one.
        f"setsid nohup bash -c {shlex.quote(inner)} > {LOG} 2>&1 < /dev/null & echo $! > {PID}"
    )
    return [ssh(machine, remote)]


_ALIVE = f"[ ! -e {STATUS} ] && kill -0 -- -$(cat {PID}) 2> /dev/null"
_STOP = f"if {_ALIVE}; then kill -TERM -- -$(cat {PID}); while {_ALIVE}; do sleep 1; done; fi"


def stop(machine: Machine) -> list[Command]:
    """The command that asks the run to save and stop."""
    return [ssh(machine, _STOP)]


def logs(machine: Machine) -> list[Command]:
    """The command that shows the end of each worker's log."""
    return [ssh(machine, f'tail -n 20 {LOG} | sed "s/^/$(hostname): /"')]


def progress(machine: Machine) -> list[Command]:
    """The command that tells of each worker: ``running``, ``gone``, or the exit status."""
    known = f"if {_ALIVE}; then echo running; else cat {STATUS} 2> /dev/null || echo gone; fi"
    return [ssh(machine, f'echo "lt_jax $(hostname) $({known})"')]
