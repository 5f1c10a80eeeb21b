"""Trains in processes that are killed with SIGKILL, at moments drawn from a seed.

Importing jax takes longer than a tiny run, so one process imports everything and forks another for
each attempt, before any backend starts. As a script it writes into ``FOLDER``: ``whole``, the
undisturbed run; ``0``, ``1`` ..., the runs that were killed; and ``report.json``, with one line a
kill: the run, how far it was, and whether a checkpoint was being written.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tiny_runs import PixelNet, compiled_once, tiny

from lt_jax import models
from lt_jax.train import train

KILLS, WRITING = 20, 8  # so many of them wait until a checkpoint is being written
EPOCHS = 8


def config():
    """A run with everything that has a state, and a checkpoint after each epoch of three steps."""
    made = tiny(
        "plm+class_balanced",
        train__epochs=EPOCHS,
        train__tensorboard=True,
        augment__mixup_alpha=0.4,
    )
    made.objective.transforms.partial_label_mask.update_every = 2
    return made


def start(folder, compiled):
    """Forks a process that trains; its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with (folder.parent / f"{folder.name}.log").open("a") as log:
            os.dup2(log.fileno(), 2)
        with compiled_once(compiled):
            train(config(), folder)
        status = 0
    finally:
        os._exit(status)


def written(folder):
    """Names in the folder of the checkpoints; temporary ones are being written."""
    return [p.name for p in (folder / "checkpoints").glob("*")]


def killed(child, folder, moment):
    """Kills the process when `moment` says so; False if it ended before."""
    begun = time.monotonic()
    while not moment(time.monotonic() - begun, folder):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def moments(seconds, draw):
    """When to kill: anywhere in the time that a run takes, or while a checkpoint is written."""
    kinds = [True] * WRITING + [False] * (KILLS - WRITING)
    draw.shuffle(kinds)
    for writing in kinds:
        wait = draw.uniform(0, 0.02) if writing else draw.uniform(0, seconds)
        seen = []

        def moment(elapsed, folder, writing=writing, wait=wait, seen=seen):
            if not writing:
                return elapsed >= wait
            if not seen and any("tmp" in name for name in written(folder)):
                seen.append(elapsed)
            return bool(seen) and elapsed >= seen[0] + wait

        yield moment


def main(folder, seed):
    """All kills, and then the last run to its end."""
    compiled = folder / "compiled"
    for name in ("first", "whole"):  # the first compiles; the second says how long a run takes
        begun = time.monotonic()
        assert os.waitpid(start(folder / name, compiled), 0)[1] == 0, name
        seconds = time.monotonic() - begun
    kills, run = [], 0
    for moment in moments(seconds, random.Random(seed)):
        while not killed(start(folder / str(run), compiled), folder / str(run), moment):
            run += 1
        names = written(folder / str(run))
        steps = [int(name) for name in names if name.isdigit()]
        kills.append([run, max(steps, default=0), any("tmp" in name for name in names)])
    assert os.waitpid(start(folder / str(run), compiled), 0)[1] == 0, run
    (folder / "report.json").write_text(json.dumps({"kills": kills, "runs": run + 1}))


if __name__ == "__main__":
    models.MODELS["pixels"] = PixelNet
    main(Path(sys.argv[1]), int(sys.argv[2]))
