"""What tests of whole runs share: a network that compiles in no time, tiny runs, their files."""

import contextlib
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict

from lt_jax import loop
from lt_jax.configuration import base_config
from lt_jax.stopping import Stop

ROOT = Path(__file__).parent.parent


class PixelNet(nnx.Module):
    """Batch-normalised pixels of 8x8 images as features: compiles in no time, has statistics."""

    num_features = 64

    def __init__(self, num_channels, *, head, dtype, rngs):
        self.norm = nnx.BatchNorm(self.num_features, momentum=0.9, dtype=dtype, rngs=rngs)
        self.head = head

    def features(self, images, *, train):
        pixels = images.reshape(images.shape[0], -1)
        return self.norm(pixels, use_running_average=not train).astype(jnp.float32)

    def __call__(self, images, *, train):
        return self.head(self.features(images, train=train))


class ColourNet(PixelNet):
    """The same of colour images."""

    num_features = 192


def tiny(method: str = "cross_entropy", **fields) -> ConfigDict:
    """A run of a few steps on digits; fields by dotted name with ``__`` for the dots."""
    config = base_config(method)
    config.train.update(
        epochs=2,
        batch_size=64,
        eval_batch_size=256,
        log_every_steps=3,
        checkpoint_every_epochs=1,
        num_devices=1,
        tensorboard=False,
        progress=False,
        picture=False,
    )
    config.model.name = "pixels"
    config.data.max_count = 60
    config.data.imbalance = 10.0
    for name, value in fields.items():
        target = config
        *groups, last = name.split("__")
        for group in groups:
            target = target[group]
        target[last] = value
    return config


def rows(workdir: Path) -> list[dict]:
    """Rows of the metrics file without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in lines]


def scores(summary: dict) -> dict:
    """What the test set said."""
    return summary["test"]


class StopAfter(Stop):
    """Acts like a signal that comes while step `step` runs."""

    step = 0

    def __init__(self):
        super().__init__()
        self.calls = 0

    @property
    def asked(self):
        self.calls += 1
        # The loop asks once before each step, and once before each epoch.
        return self.calls > StopAfter.step

    @asked.setter
    def asked(self, value):
        pass


class Killed(Exception):
    """Instead of SIGKILL."""


@contextlib.contextmanager
def dying(epoch: int, stage: int = 1):
    """Runs drop dead before that epoch of that stage, without any chance to save."""
    original = loop.Loop._epoch

    def dying_epoch(self, number):
        if number == epoch and self.run.stage == stage:
            raise Killed
        original(self, number)

    loop.Loop._epoch = dying_epoch
    try:
        yield
    finally:
        loop.Loop._epoch = original


def checkpoint(workdir: Path) -> dict:
    """Every array of the newest checkpoint, read by Orbax alone."""
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(workdir / "checkpoints" / str(max(steps)) / "state")


def leaves(workdir: Path) -> list[np.ndarray]:
    """The same as a list: weights, optimizer, PLM's ratios, the best weights."""
    return jax.tree.leaves(checkpoint(workdir))


def snapshot(folder: Path) -> dict[str, tuple]:
    """Everything in a folder: when it was changed, and the hash of what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (path.stat().st_mtime_ns, content)
    return found


def assert_resumes(train, calls, tmp_path, monkeypatch):
    """A run that is stopped after so many looks at the signal ends with the same bits.

    `train` is called with a folder.
    """
    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.finish.Stop", StopAfter)
        StopAfter.step = calls
        assert train(tmp_path / "parts") is None
    parts = train(tmp_path / "parts")
    assert scores(parts) == scores(whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    for one, other in zip(leaves(tmp_path / "parts"), leaves(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, other)
