"""Images read while training against images on the device, with a small network on small images.

python benchmarks/streamed_vs_resident.py --images=6000
python benchmarks/streamed_vs_resident.py --images=6000 --data_dir=DIR   # of TFDS, with cifar10

The hardest case for streaming: steps of milliseconds, images of 32 x 32. They are the first of
CIFAR-10, prepared as array_record (--images=50000 for all), or without a folder of TFDS made and
written as PNG; for ten to train on one to test. Every way is a process of its own that trains three
epochs: images/s of the later epochs, memory of all its processes after each, and the seconds from
start to the first step, without and with programs compiled before.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from lt_jax import environment

DATA_DIR = flags.DEFINE_string("data_dir", "", "Where TFDS has cifar10; empty for made images.")
IMAGES = flags.DEFINE_integer("images", 10_000, "Training images to make, or of CIFAR-10.")
EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of each way.")
OUT = flags.DEFINE_string("out", "results/benchmarks/streamed_vs_resident.json", "JSON to write.")
WAY = flags.DEFINE_string("way", "", "One way, in this process: resident, or the workers.")
FOLDER = flags.DEFINE_string("folder", "", "Of the images and the compiled programs, then.")

WAYS = {"resident": "resident", "streamed, threads": "0", "streamed, 2 processes": "2"}


def make(folder, count):
    """PNG files of ten classes, train and test."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, many in (("train", count), ("test", count // 10)):
        for c in range(10):
            (folder / split / str(c)).mkdir(parents=True)
        for i in range(many):
            small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            image = Image.fromarray(small).resize((32, 32))
            image.save(folder / split / str(i % 10) / f"{i:06d}.png")


def config_of(way):
    """A run of the small network."""
    from lt_jax.configuration import base_config

    config = base_config("cross_entropy")
    source = "tfds:cifar10" if DATA_DIR.value else f"folder:{FOLDER.value}/images"
    config.data.update(source=source, data_dir=DATA_DIR.value, image_size=32, imbalance=0.0)
    if DATA_DIR.value:
        config.data.train_split = f"train[:{IMAGES.value}]"
        config.data.test_split = f"test[:{IMAGES.value // 10}]"
    config.data.update(validation_size=0, normalization="imagenet", stream=way != "resident")
    config.data.workers = int(way) if way.isdigit() else 0
    config.augment.update(flip=True, crop_padding=4)
    config.train.update(epochs=EPOCHS.value, batch_size=128, log_every_steps=10)
    config.train.update(tensorboard=False, progress=False, picture=False, num_devices=1)
    return config


def resident_bytes():
    """Memory of this process and all below it: its own, and a share of what it shares."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    family = {os.getpid()}
    for _ in range(4):
        family |= {pid for pid, parent in parents.items() if parent in family}
    total = 0
    for pid in family:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def measure(way):
    """Trains, and prints what was seen."""
    logging.set_verbosity(logging.WARNING)
    started = time.time() - seconds_since_start()
    import jax

    from lt_jax import loop
    from lt_jax.train import train

    jax.config.update("jax_compilation_cache_dir", f"{FOLDER.value}/programs")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    seen = {"memory": [], "first_step": 0.0}
    advance, epoch = loop.Loop._advance, loop.Loop._epoch

    def first(self, rest, end):
        advance(self, rest, end)
        if not seen["first_step"]:
            jax.block_until_ready(self.unread[-1] if self.unread else self.states)
            seen["first_step"] = time.time() - started

    def counted(self, number):
        epoch(self, number)
        seen["memory"].append(resident_bytes())

    loop.Loop._advance, loop.Loop._epoch = first, counted
    with tempfile.TemporaryDirectory() as folder:
        train(config_of(way), folder)
        lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    later = [r["images_per_second"] for r in rows if r["split"] == "train" and r["epoch"] > 1]
    print(json.dumps({**seen, "images_per_second": statistics.median(later)}))


def seconds_since_start():
    """Of this process, imports included."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def run(way, folder):
    """The same in a process of its own."""
    command = [sys.executable, __file__, f"--way={way}", f"--folder={folder}"]
    command += [f"--data_dir={DATA_DIR.value}", f"--images={IMAGES.value}"]
    command += [f"--epochs={EPOCHS.value}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv):
    """Measures all ways, twice, and writes."""
    if WAY.value:
        measure(WAY.value)
        return
    result = {}
    with tempfile.TemporaryDirectory() as root:
        if not DATA_DIR.value:
            make(Path(root, "images"), IMAGES.value)
        for name, way in WAYS.items():
            folder = Path(root, way)
            folder.mkdir()
            if not DATA_DIR.value:
                (folder / "images").symlink_to(Path(root, "images"))
            new, again = run(way, folder), run(way, folder)
            megabytes = [round(b / 2**20) for b in again["memory"]]
            result[name] = {
                "images_per_second": max(new["images_per_second"], again["images_per_second"]),
                "seconds_to_first_step": {
                    "new": new["first_step"],
                    "compiled before": again["first_step"],
                },
                "megabytes_after_each_epoch": megabytes,
            }
            print(name, json.dumps(result[name]))
    path = Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "of cifar10" if DATA_DIR.value else "made"
    facts = {"images": f"{IMAGES.value} {kind}", "epochs": EPOCHS.value}
    path.write_text(json.dumps({**environment.stamp(), **facts, **result}, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
