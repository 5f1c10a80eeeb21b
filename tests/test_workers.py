"""Processes that decode images: they end with their parent, and nothing ends silently."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from lt_jax.data.streamed import StreamedImages
from lt_jax.data.workers import Workers
from lt_jax.errors import InputError

pytest.importorskip("grain")
ROOT = Path(__file__).parents[1]


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def pid_of(load):
    return os.getpid()


def leave(load):
    os._exit(3)


class Squares:
    """Images that say which they are."""

    def __call__(self, index):
        if index == 7:
            raise OSError("disk")
        return np.full((1, 1, 1), index, np.uint8)


class Readers:
    """Images that say which process loads them."""

    def __call__(self, index):
        return np.array([os.getpid()]).view(np.uint8).reshape(1, 1, -1)


def processes_of(images):
    """Which processes read these images."""
    batches = images.batches(np.arange(40).reshape(2, 20))
    return {int(i.ravel().view(np.int64)[0]) for batch in batches for i in batch}


def test_processes_read_stay_and_report():
    """One pool: two sets read, one image refused, the same process after it, then it dies.

    All images are read there, and without a pool all are read here.
    """
    workers = Workers(1)
    there = StreamedImages(Readers(), 40, (1, 1, 8), workers=workers)
    one = StreamedImages(Squares(), 40, (1, 1, 1), what="squares", workers=workers)
    two = StreamedImages(Squares(), 40, (1, 1, 1), workers=workers)
    rows = np.array([[3, 3, *range(8, 38)], [*range(8, 38), 2, 1]])
    for images in (one, two):
        np.testing.assert_array_equal(np.ravel(list(images.batches(rows))), rows.ravel())
    process = workers.run(pid_of, 0)
    assert process != os.getpid()
    assert processes_of(there) == {process}
    assert processes_of(StreamedImages(Readers(), 40, (1, 1, 8))) == {os.getpid()}
    with pytest.raises(InputError, match=r"^image 7 of squares cannot be read: disk$"):
        one.read([6, 7, 8])
    assert workers.run(pid_of, 0) == process
    with pytest.raises(InputError, match=r"one of the 1 processes of data.workers ended while"):
        workers.run(leave, 0)


TOLD = """
    import os, signal, threading, time
    from test_workers import Squares, Workers, pid_of
    signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
    workers = Workers(1)
    workers.register(Squares())
    early = EARLY
    if early:  # while the worker starts
        threading.Timer(0.1, os.killpg, (0, signal.SIGTERM)).start()
        time.sleep(0.05)
    first = workers.run(pid_of, 0)
    if not early:
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.2)
    assert workers.run(pid_of, 0) == first
    print("read", flush=True)
"""


@pytest.mark.parametrize("early", [True, False])
def test_a_signal_to_all_processes_leaves_the_run_its_images_and_its_end(early):
    """SLURM and TPU VMs tell all: the run reads on until it has saved, and then ends at once."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TOLD).replace("EARLY", str(early))],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=100,
        start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["told", "read"]


KILLED = """
    import os, signal
    from test_workers import Squares, Workers, pid_of
    workers = Workers(1)
    workers.register(Squares())
    print(workers.run(pid_of, 0), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_with_a_parent_that_is_killed():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path}, timeout=300,
    )  # fmt: skip
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
