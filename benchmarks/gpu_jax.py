"""A row of lt_jax in `gpu.py`: what a run prepares and advances, timed and profiled."""

import json
import re
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from lt_jax import programs
from lt_jax.configuration import base_config
from lt_jax.data import load_dataset
from lt_jax.models import conv
from lt_jax.prepare import prepare

SIDES = {"resnet32": (32, 10, 10_240), "resnet50": (224, 1000, 1_280)}  # side, classes, images


def grouped(images, kernel, *, stride=1, groups=1):
    """`conv2d` as `vmap` makes it of XLA's convolution: one of more groups."""
    pads, layout = [(size // 2, size // 2) for size in kernel.shape[:2]], ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), pads, dimension_numbers=layout, feature_group_count=groups
    )


class Row:
    """A run that advances without end over the batches of its first epoch."""

    def __init__(self, row, dataset):
        """Prepares it."""
        if row["xla"] is not None:  # or the library's own options would win
            programs.GPU_COMPILER_OPTIONS = {}
        if row["grouped"]:
            conv.conv2d = grouped
        config = base_config()
        network, batch, steps, seeds = (row[k] for k in ("network", "batch", "steps", "seeds"))
        config.model.update(name=network, dtype=row["dtype"], fused=row["fused"])
        config.augment.update(crop_padding=4 if network == "resnet32" else 0, flip=True)
        config.train.update(batch_size=batch, steps_per_call=steps, num_devices=1, epochs=1000)
        config.update(replicas=seeds, replica_mode=row["mode"])
        self.run = prepare(config, Path(tempfile.mkdtemp()), dataset)
        keys = jax.random.split(jax.random.key(0), 2 * seeds).reshape(2, seeds)
        self.step_keys = keys[1]
        self.states = self.run.replicas.init(keys[0])
        order = np.asarray(self.run.replicas.order(keys[1], 0))
        calls = order.shape[1] // steps
        self.rows = np.split(order[:, : calls * steps], calls, axis=1)
        self.images = seeds * steps * batch
        self.calls = 0

    def advance(self, calls):
        """That many programs; returns when the device is done."""
        for _ in range(calls):
            rows = self.rows[self.calls % len(self.rows)]
            self.calls += 1
            self.states, losses = self.run.replicas.advance(
                self.states, self.step_keys, self.run.splits["train"], rows
            )
        return np.asarray(losses)

    def rate(self, seconds):
        """Images a second over about that long."""
        self.advance(1)
        start = time.perf_counter()
        self.advance(3)
        calls = max(int(3 * seconds / (time.perf_counter() - start)), 3)
        start = time.perf_counter()
        self.advance(calls)
        return calls * self.images / (time.perf_counter() - start)


def kernels(row):
    """What runs on the device in two calls: how long, of how many kernels, and which."""
    with tempfile.TemporaryDirectory() as folder:
        row.advance(1)
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            row.advance(2)
            wall = time.perf_counter() - start
        file = next(Path(folder).rglob("*.xplane.pb"))
        events = list(device_events(jax.profiler.ProfileData.from_file(str(file))))
    steps = 2 * row.images // row.run.options["batch_size"] // len(row.run.seeds)
    # XLA numbers the fusions of a kind.
    kinds = summed((re.sub(r"_\d+$", "", name), duration) for name, duration in events)
    top = sorted(summed(events).items(), key=lambda item: -item[1][1])[:15]
    return {
        "wall_ms_per_step": wall / steps * 1e3,
        "kernels_per_step": len(events) / steps,
        "busy_ms_per_step": sum(duration for _, duration in events) / steps / 1e6,
        "kinds": {k: [n / steps, t / steps / 1e6] for k, (n, t) in kinds.items()},
        "top": [[name, count / steps, total / steps / 1e6] for name, (count, total) in top],
    }


def summed(events):
    """Count and nanoseconds by name."""
    totals = {}
    for name, duration in events:
        count, time_of = totals.get(name, (0, 0.0))
        totals[name] = count + 1, time_of + duration
    return totals


def device_events(data):
    """Names and nanoseconds of what ran on the GPU's streams."""
    for plane in data.planes:
        if plane.name.startswith("/device:GPU"):
            for line in plane.lines:
                if line.name.startswith("Stream"):
                    for event in line.events:
                        yield event.name.split("(")[0][:70], event.duration_ns


def made_dataset(network):
    """Made-up images on disk, read as any file of arrays is."""
    side, classes, count = SIDES[network]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        labels = np.arange(count) % classes
        images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
        file = Path(folder) / "made.npz"
        np.savez(file, x_train=images, y_train=labels, x_test=images[-64:] ^ 1, y_test=labels[-64:])
        return load_dataset({"source": f"arrays:{file}", "num_classes": classes})


def main():
    """Compiles, then answers on standard output what is asked on standard input."""
    asked = json.loads(sys.argv[1])
    begun = time.perf_counter()
    row = Row(asked, made_dataset(asked["network"]))
    prepared = time.perf_counter()
    loss = float(row.advance(1)[0, 0])
    facts = {"prepare_seconds": prepared - begun, "loss": loss}
    print(json.dumps({**facts, "compile_seconds": time.perf_counter() - prepared}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question.get("profile"):
            print(json.dumps(kernels(row)), flush=True)
        else:
            print(json.dumps({"images_per_second": row.rate(question["seconds"])}), flush=True)


if __name__ == "__main__":
    main()
