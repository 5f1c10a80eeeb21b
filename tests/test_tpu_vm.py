"""TPU VMs without gcloud: a program in its place plays them, two workers each a home directory."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lt_jax import tpu_vm, tpu_vm_resume
from lt_jax.errors import InputError
from lt_jax.tpu_vm import Machine

ROOT = Path(__file__).parents[1]
SPOT = Machine("a", "us-central2-b", "v4-16", "tpu-ubuntu2204-base", "p", spot=True)
OWN = Machine("a", "us-central2-b", "v4-16", "tpu-ubuntu2204-base")
RUN = ["python", "launch/train.py", "--workdir=gs://b/a", "--set=x='$y' \"z\"", "--distributed"]

# Plays the machine that $CLOUD/state.json describes, and writes down what it was called with.
GCLOUD = r"""
import json, os, pathlib, shutil, subprocess, sys
cloud = pathlib.Path(os.environ["CLOUD"])
path = cloud / "state.json"
now = json.loads(path.read_text())
kind, verb, *rest = sys.argv[3:]
with (cloud / "calls").open("a") as file:
    print(json.dumps(sys.argv[1:]), file=file)

def end(text="", status=0):
    path.write_text(json.dumps(now))
    print(text, file=sys.stderr if status else sys.stdout)
    sys.exit(status)

homes = [cloud / "worker_0", cloud / "worker_1"]
told = homes if "--worker=all" in rest else homes[:1]
assert verb in ("create", "describe") or "--quiet" in rest, "it asks, and nobody answers"
if verb == "create":
    assert not now["is"], "it is there already"
    now["is"], *now["coming"] = now["machines"].pop(0)
    for home in homes:
        home.mkdir()
elif verb == "delete":
    assert now["is"]
    if kind == "queued-resources" and now["is"] != "QUEUED" and "--force" not in rest:
        end("ERROR: (gcloud) FAILED_PRECONDITION: it has a node", 1)
    now["is"], now["coming"] = "", []
    for home in homes:
        shutil.rmtree(home)
elif verb == "describe":
    if not now["is"]:
        end("ERROR: (gcloud) NOT_FOUND: Resource 'a' was not found.\n"
            "- '@type': type.googleapis.com/google.rpc.ResourceInfo\n  resourceName: p/a", 1)
    if now["coming"] and (kind == "tpu-vm" or now["is"] == "QUEUED"):
        now["is"] = now["coming"].pop(0)
    if kind == "queued-resources":
        end({"QUEUED": "WAITING_FOR_RESOURCES", "PREEMPTED": "SUSPENDED"}.get(now["is"], "ACTIVE"))
    end(now["is"])
elif verb == "scp":
    for home in told:
        shutil.copy(rest[0], home)
elif verb == "ssh":
    if now["is"] != "READY":
        end("ssh: connect to host: Connection refused", 255)
    line = next(r for r in rest if r.startswith("--command="))
    said = []
    for number, home in enumerate(told):
        env = {**os.environ, "HOME": str(home), "WORKER": str(number)}
        command = ["bash", "-c", line.removeprefix("--command=")]
        done = subprocess.run(command, cwd=home, env=env, stdout=subprocess.PIPE, text=True)
        said.append(done.stdout.replace("$(hostname)", ""))
        if done.returncode:
            end("one of them failed", done.returncode)
    end("".join(said))
end()
"""
# In place of python3 on a worker: makes an environment whose Python "trains".
PYTHON3 = r"""
case "$*" in
  *venv*) mkdir -p .venv/bin; cp "$CLOUD/train" .venv/bin/python ;;
esac
"""
TRAIN = r"""#!/usr/bin/env bash
printf '%s\n' "$WORKER $*" >> "$CLOUD/trained"
[ -d .git ] && [ -f launch/train.py ] || exit 9
eval "$(cat "$CLOUD/behaviour")"
"""


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A folder with what is known of the machine; commands find the players on their path."""
    folder = tmp_path / "cloud"
    (folder / "bin").mkdir(parents=True)
    program(folder / "bin/gcloud", f"#!{sys.executable} -SE\n{GCLOUD}")
    program(folder / "bin/python3", f"#!/usr/bin/env bash\n{PYTHON3}")
    program(folder / "bin/hostname", '#!/usr/bin/env bash\necho "worker-$WORKER"\n')
    program(folder / "train", TRAIN)
    (folder / "behaviour").write_text("exit 0")
    # A checkout that is cloned in no time.
    (folder / "checkout/launch").mkdir(parents=True)
    (folder / "checkout/launch/train.py").touch()
    git = ["git", "-C", folder / "checkout", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(tpu_vm, "ROOT", folder / "checkout")
    machines(folder, ["CREATING", "READY"])
    monkeypatch.setenv("CLOUD", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return folder


def machines(cloud, *machines):
    """Of each machine that is created, what describing it tells one time after another."""
    (cloud / "state.json").write_text(json.dumps({"is": "", "coming": [], "machines": machines}))


def calls(cloud):
    path = cloud / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def verbs(cloud):
    """What was done to the machine, without looking at it."""
    return [call[3] for call in calls(cloud) if call[3] in ("create", "delete", "scp")]


def resume(machine=SPOT, command=RUN, poll_seconds=0.05):
    said = []
    tpu_vm_resume.resume(machine, command, poll_seconds=poll_seconds, say=said.append)
    return said


def began(cloud):
    path = cloud / "trained"
    return path.read_text().splitlines() if path.exists() else []


def trained(cloud):
    return sorted((cloud / "trained").read_text().splitlines())


@pytest.mark.parametrize("machine", [SPOT, OWN], ids=["spot", "own"])
def test_a_run_is_brought_to_its_end_from_nothing(machine, cloud):
    """All workers run the command as it was given, in the checkout, once."""
    assert resume(machine)[-1] == "the run has ended; a is still there."
    assert verbs(cloud) == ["create", "scp"]
    told = " ".join(RUN[1:])
    assert trained(cloud) == [f"0 {told}", f"1 {told}"]


def test_after_preemption_it_goes_on_on_a_new_machine(cloud):
    """The run that a preemption ends, ends with 0, as one that has saved: that is not the end."""
    first = ["QUEUED", "CREATING", "READY", "READY", "PREEMPTED"]
    machines(cloud, first, ["READY"])
    resume(poll_seconds=0.3)  # long enough that the run has ended
    assert verbs(cloud) == ["create", "scp", "delete", "create", "scp"]
    assert len(trained(cloud)) == 4


def test_what_runs_is_left_alone_and_followed(cloud, monkeypatch):
    (cloud / "behaviour").write_text('until [ -e "$CLOUD/enough" ]; do sleep 0.05; done')
    machines(cloud, ["READY"])
    for commands in (tpu_vm.create(SPOT), tpu_vm.setup(SPOT), tpu_vm.run(SPOT, RUN)):
        tpu_vm_resume.call_all(commands, list)
    looks = []

    def sleep(seconds):
        looks.append(tpu_vm_resume.workers(SPOT))
        (cloud / "enough").touch()

    monkeypatch.setattr(tpu_vm_resume.time, "sleep", sleep)
    resume()
    assert looks[0] == {"worker-0": "running", "worker-1": "running"}
    assert len(trained(cloud)) == 2


def test_stop_asks_and_waits_and_the_status_is_kept(cloud):
    (cloud / "behaviour").write_text('trap "echo saved; exit 5" TERM; while :; do sleep 0.05; done')
    machines(cloud, ["READY"])
    for commands in (tpu_vm.create(SPOT), tpu_vm.setup(SPOT), tpu_vm.run(SPOT, RUN)):
        tpu_vm_resume.call_all(commands, list)
    tpu_vm_resume.call_all(tpu_vm.stop(SPOT), list)
    assert tpu_vm_resume.workers(SPOT) == {"worker-0": "5", "worker-1": "5"}
    said = []
    tpu_vm_resume.call_all(tpu_vm.logs(SPOT), said.append)
    assert "worker-0: saved" in said[-1]
    assert "worker-1: saved" in said[-1]


def test_a_run_that_fails_ends_it_with_the_logs(cloud):
    (cloud / "behaviour").write_text('echo "error: no such config"; exit $((WORKER * 2))')
    machines(cloud, ["READY"])
    said = []
    with pytest.raises(InputError, match=r"statuses of workers: \{'worker-1': '2'\}"):
        tpu_vm_resume.resume(SPOT, RUN, poll_seconds=0.05, say=said.append)
    assert "worker-1: error: no such config" in said[-1]


def test_gcloud_that_fails_again_and_again_ends_it(cloud):
    program(cloud / "bin/gcloud", '#!/usr/bin/env bash\necho "ERROR: no permission" >&2\nexit 1')
    with pytest.raises(InputError, match="ended with 1: ERROR: no permission"):
        resume()


def test_a_queued_resource_that_failed_is_not_asked_for_again(cloud):
    program(cloud / "bin/gcloud", "#!/usr/bin/env bash\necho FAILED")
    with pytest.raises(InputError, match="cannot be had: gcloud compute tpus queued-resources"):
        resume()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([], "no command was given"),
        (["python", "a.py", "--distributed"], "expected one that stays"),
        (["python", "a.py", "--workdir=runs/a", "--distributed"], "--workdir=runs/a is lost"),
        (["python", "a.py", "--workdir=gs://b/a"], "no --distributed"),
    ],
)
def test_a_run_that_would_be_lost_is_refused_before_anything_is_created(command, sentence, cloud):
    with pytest.raises(InputError, match=sentence):
        resume(SPOT, command)
    assert calls(cloud) == []


@pytest.mark.parametrize("field", ["name", "zone", "accelerator_type", "runtime_version"])
def test_a_machine_that_is_not_described_is_refused(field):
    given = {"name": "a", "zone": "z", "accelerator_type": "v4-8", "runtime_version": "r"}
    with pytest.raises(InputError, match=f"no --{field} was given"):
        tpu_vm.create(Machine(**{**given, field: ""}))


def test_lines_pasted_into_a_shell_do_what_the_verbs_do(cloud):
    """Quotes and dollars of a command arrive as they were given."""
    machines(cloud, ["READY"])
    (cloud / "behaviour").write_text("sleep 0.2")
    lines = [*tpu_vm.create(SPOT), *tpu_vm.setup(SPOT), *tpu_vm.run(SPOT, RUN)]
    subprocess.run(["bash", "-e", "-c", "\n".join(map(shlex.join, lines))], check=True)
    deadline = time.monotonic() + 60  # both have begun before they are stopped
    while time.monotonic() < deadline and len(began(cloud)) < 2:
        time.sleep(0.02)
    tpu_vm_resume.call_all(tpu_vm.stop(SPOT), list)
    told = " ".join(RUN[1:])
    assert trained(cloud) == [f"0 {told}", f"1 {told}"]


def test_machines_are_asked_for_in_the_words_of_gcloud():
    """Checked by hand against `gcloud compute tpus ... create --help` of version 528."""
    where = "--zone=us-central2-b --project=p --network=n"
    own = dataclasses.replace(OWN, project="p", create_flags=("--network=n",))
    spot = dataclasses.replace(own, spot=True)
    assert shlex.join(tpu_vm.create(own)[0]) == (
        "gcloud compute tpus tpu-vm create a "
        f"--accelerator-type=v4-16 --version=tpu-ubuntu2204-base {where}"
    )
    assert shlex.join(tpu_vm.create(spot)[0]) == (
        "gcloud compute tpus queued-resources create a --node-id=a --spot "
        f"--accelerator-type=v4-16 --runtime-version=tpu-ubuntu2204-base {where}"
    )


@pytest.mark.parametrize("machine", [SPOT, OWN], ids=["spot", "own"])
def test_verbs_name_the_machine_and_all_its_workers_and_ask_nothing(machine):
    """Whole command lines: gcloud would take worker 0 alone, ask, or leave the queued resource."""
    where = "--zone=us-central2-b" + (" --project=p" if machine.spot else "")
    node, queue = "gcloud compute tpus tpu-vm", "gcloud compute tpus queued-resources"
    state = f"{node} describe a '--format=value(state)' {where}"
    if machine.spot:
        assert lines(tpu_vm.delete(machine)) == [f"{queue} delete a --force --quiet {where}"]
        queued = f"{queue} describe a '--format=value(state.state)' {where}"
        assert lines(tpu_vm.describe(machine)) == [queued, state]
    else:
        assert lines(tpu_vm.delete(machine)) == [f"{node} delete a --quiet {where}"]
        assert lines(tpu_vm.describe(machine)) == [state]
    _, copy, install = tpu_vm.setup(machine)
    assert shlex.join([*copy[:5], *copy[6:]]) == f"{node} scp a: --worker=all --quiet {where}"
    assert Path(copy[5]).name == "lt_jax.bundle"
    remote = [install, *tpu_vm.run(machine, RUN), *tpu_vm.stop(machine)]
    remote += [*tpu_vm.logs(machine), *tpu_vm.progress(machine)]
    for command in remote:
        (line,) = [part for part in command if part.startswith("--command=")]
        rest = [part for part in command if part is not line]
        assert shlex.join(rest) == f"{node} ssh a --worker=all --quiet {where}"
    assert len(remote) == 5


def lines(commands):
    return [shlex.join(command) for command in commands]


def script(*arguments):
    command = [sys.executable, ROOT / "launch/tpu_vm.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


FLAGS = (
    "--name=a",
    "--zone=us-central2-b",
    "--project=p",
    "--accelerator_type=v4-16",
    "--runtime_version=tpu-ubuntu2204-base",
    "--spot",
)


def test_a_dry_run_of_resume_prints_every_command_and_calls_none(cloud, monkeypatch):
    done = script("resume", *FLAGS, "--dry_run", "--", *RUN)
    assert done.returncode == 0, done.stderr
    assert calls(cloud) == []
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    machines(cloud, ["QUEUED", "READY", "PREEMPTED"], ["READY"])
    monkeypatch.setattr(tpu_vm, "ROOT", ROOT)
    resume()
    for call in calls(cloud):
        assert ["gcloud", *call] in [shlex.split(line) for line in lines]
    (command,) = tpu_vm.run(SPOT, RUN)
    assert shlex.join(command) in lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["destroy", *FLAGS], "verb 'destroy' is none of create"),
        (FLAGS, "verb '' is none of create"),
        (["run", *FLAGS, "--", "python", "a.py", "--workdir=b"], "--workdir=b is lost"),
    ],
)
def test_the_script_ends_with_one_sentence(arguments, sentence, cloud):
    done = script(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert calls(cloud) == []


def test_the_script_tells_its_flags(cloud):
    done = script("--help")
    assert "Cheap and preempted at times" in done.stdout


@pytest.mark.parametrize("flag", ["--distributed", "--distributed=true", "--distributed=1"])
def test_a_run_may_say_in_any_way_that_it_is_distributed(flag):
    tpu_vm.check_run(["python", "a.py", "--workdir=gs://b/a", flag])
