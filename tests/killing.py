"""Trains in processes that are killed with SIGKILL, at moments drawn from a seed.

Importing jax takes longer than a tiny run, so one process imports everything and forks another for
each attempt, before any backend starts. As a script it writes into a folder: ``whole``, the
undisturbed run; ``SEED_0``, ``SEED_1`` ..., the runs that were killed; and ``SEED.json``, with each
kill: the run, the step it had saved, and whether a checkpoint was being written.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import scipy.stats  # noqa: F401  (what a run imports late, it finds imported)
import sklearn.metrics  # noqa: F401
import tensorboardX  # noqa: F401
from tiny_runs import PixelNet, tiny

from lt_jax import models
from lt_jax.data import load_dataset
from lt_jax.train import train

KILLS = 20  # every second one waits until a checkpoint is being written
# Starting takes most of the time, so that there are many epochs, each of three steps.
CONFIG = tiny(train__epochs=24, train__tensorboard=True)


class Killer:
    """Runs in folders of one folder, which share what they have compiled."""

    def __init__(self, folder, seed):
        self.folder, self.draw = folder, random.Random(seed)
        self.dataset = load_dataset(CONFIG["data"])

    def start(self, name):
        """Forks a process that trains; its number."""
        child = os.fork()
        if child:
            return child
        try:
            with (self.folder / f"{name}.log").open("a") as log:
                os.dup2(log.fileno(), 2)
            train(CONFIG, self.folder / name, dataset=self.dataset)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)

    def finish(self, name):
        """Trains undisturbed; the seconds that it took."""
        begun = time.monotonic()
        assert os.waitpid(self.start(name), 0)[1] == 0, (self.folder / f"{name}.log").read_text()
        return time.monotonic() - begun

    def written(self, name):
        """Names of the checkpoints of a run; temporary ones are being written."""
        return {path.name for path in (self.folder / name / "checkpoints").glob("*")}

    def kill(self, name, writing, seconds):
        """Trains and kills; False if the run came to its end before."""
        child, begun = self.start(name), time.monotonic()
        wait = self.draw.uniform(0, 0.03 if writing else seconds)
        left, before = self.draw.randint(2, 4) if writing else 0, set()
        while left or time.monotonic() - begun < wait:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert status == 0, (self.folder / f"{name}.log").read_text()
                return False
            if left:  # counts the checkpoints whose writing begins
                partial = {one for one in self.written(name) if "tmp" in one}
                left -= bool(partial - before) and time.monotonic() - begun > 0.1
                before |= partial
                begun = begun if left else time.monotonic()
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_often(folder, seed, seconds):
    """A chain of kills of runs that are begun one after another; the last one comes to its end."""
    killer, kills, run = Killer(folder, seed), [], 0
    name = f"{seed}_{run}"
    for i in range(KILLS // 2):
        while not killer.kill(name, writing=i % 2 == 0, seconds=seconds):
            run += 1
            name = f"{seed}_{run}"
        names = killer.written(name)
        steps = [int(one) for one in names if one.isdigit()]
        kills.append([name, max(steps, default=0), any("tmp" in one for one in names)])
    killer.finish(name)
    (folder / f"{seed}.json").write_text(json.dumps(kills))


def main(folder, seed):
    """An undisturbed run, which compiles, and two chains of kills side by side."""
    seconds = 0.5 * Killer(folder, seed).finish("whole")
    other = os.fork()
    if not other:
        status = 1
        try:
            kill_often(folder, seed + 1, seconds)
            status = 0
        finally:
            os._exit(status)
    kill_often(folder, seed, seconds)
    assert os.waitpid(other, 0)[1] == 0


if __name__ == "__main__":
    models.MODELS["pixels"] = PixelNet
    main(Path(sys.argv[1]), int(sys.argv[2]))
