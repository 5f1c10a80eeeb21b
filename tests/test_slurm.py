"""The SLURM script with programs in the place of srun and scontrol."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "launch/slurm.sh"
# "Trains": writes what it was started with, and saves when it is asked to stop.
PYTHON = r"""#!/usr/bin/env bash
printf '%s\n' "$@" > "$CLUSTER/arguments"
trap 'sleep 0.3; touch "$CLUSTER/saved"; exit "$ASKED"' TERM
touch "$CLUSTER/started"
for _ in $(seq "$TURNS"); do sleep 0.05; done
exit "$STATUS"
"""
# As SLURM's own: asked to end, it kills what it started; only scancel reaches that.
SRUN = r"""#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
"$@" &
echo $! > "$CLUSTER/step"
trap 'kill -KILL $(cat "$CLUSTER/step"); exit 143' TERM
wait $!
"""
SCANCEL = r"""#!/usr/bin/env bash
[ "$*" = "--signal=TERM 17" ] && kill -TERM $(cat "$CLUSTER/step")
"""
SQUEUE = r"""#!/usr/bin/env bash
echo "$STATE"
"""
SCONTROL = r"""#!/usr/bin/env bash
echo "$@" >> "$CLUSTER/control"
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts the script as a job whose training takes so many turns and ends with a status."""
    programs = {"python": PYTHON, "srun": SRUN, "scontrol": SCONTROL}
    for name, text in {**programs, "scancel": SCANCEL, "squeue": SQUEUE}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def starting(*arguments, turns=0, status=0, state="RUNNING", asked=0):
        env = {
            **os.environ,
            "CLUSTER": str(tmp_path),
            "PYTHON": str(tmp_path / "python"),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_ID": "17",
            "TURNS": str(turns),
            "STATUS": str(status),
            "ASKED": str(asked),
            "STATE": state,
        }
        return subprocess.Popen(["bash", SCRIPT, *arguments], env=env)

    return starting


def test_training_gets_the_arguments_and_is_distributed(start, tmp_path):
    given = ["--config=configs/a b.py", "--workdir=/shared/$x"]
    assert start(*given).wait(60) == 0
    told = (tmp_path / "arguments").read_text().splitlines()
    assert told == ["launch/train.py", *given, "--distributed"]
    assert not (tmp_path / "control").exists()


def test_failing_training_fails_the_job_and_is_not_queued_again(start, tmp_path):
    assert start(status=3).wait(60) == 3
    assert not (tmp_path / "control").exists()


@pytest.mark.parametrize(("status", "queued"), [(0, True), (143, True), (3, False)])
def test_asked_to_stop_it_waits_for_saving_and_is_queued_again(start, tmp_path, status, queued):
    """SLURM's --signal=B: reaches the script alone. Where nothing was saved the status is 143."""
    job = start(turns=1000, asked=status)
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == status
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "control").exists() == queued
    if queued:
        assert (tmp_path / "control").read_text() == "requeue 17\n"


def test_tasks_that_srun_ended_as_one_failed_are_not_queued_again(start, tmp_path):
    (tmp_path / "run").mkdir()
    assert start(f"--workdir={tmp_path / 'run'}", status=143).wait(60) == 143
    assert not (tmp_path / "control").exists()


@pytest.mark.parametrize("flag", ["--workdir={}", "--workdir {}", "-workdir={}"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_that_was_stopped_behind_its_back_is_queued_again(finished, flag, start, tmp_path):
    """Preemption may signal the processes of the step alone; they save and end with 0."""
    (tmp_path / "run").mkdir()
    if finished:
        (tmp_path / "run/summary.json").touch()
    assert start(*flag.format(tmp_path / "run").split(), "--config=a").wait(60) == 0
    assert (tmp_path / "control").exists() == (not finished)


def test_a_job_that_was_cancelled_is_not_queued_again(start, tmp_path):
    (tmp_path / "run").mkdir()
    assert start(f"--workdir={tmp_path / 'run'}", state="COMPLETING").wait(60) == 0
    assert not (tmp_path / "control").exists()


def test_the_head_says_what_preemption_needs():
    """One process for each GPU, as JAX expects it; queued again; a signal before the end."""
    lines = SCRIPT.read_text().splitlines()
    head = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert "--requeue" in head
    assert "--signal=B:TERM@120" in head
    tasks = {line.partition("=")[2] for line in head if "-per-node=" in line}
    assert len(tasks) == 1
