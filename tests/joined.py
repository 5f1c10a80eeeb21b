"""One process of a run of several: ``python joined.py PORT NUMBER OF FOLDER RUN...``."""

import os
import signal
import sys

if __name__ == "__main__":
    devices = 1 if "slender" in sys.argv else 4
    os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace("count=8", f"count={devices}")

import numpy as np
from tiny_runs import ColourNet, PixelNet, tiny

from lt_jax import cli, loop, models, processes, workdir
from lt_jax.data import load_dataset
from lt_jax.errors import InputError
from lt_jax.train import train

SIGNALLED = 4  # the step after which the last process is told to stop
RUNS = {
    # 20 steps of what remembers most: PLM's ratios, deferral, momentum, batch norm, two replicas.
    "plm": lambda: tiny("plm+class_balanced", train__epochs=7, replicas=2),
    # Two stages, each process reading half of each batch.
    "photographs": lambda: tiny(
        "cross_entropy/crt", model__name="colours", data__image_size=8, data__stream=True
    ),
    "signalled": lambda: tiny("plm", train__epochs=40, train__checkpoint_every_epochs=40),
    "endless": lambda: tiny(train__epochs=100_000, train__log_every_steps=1),
    # On one device each, saving nothing: they wait for each other in nothing but steps.
    "slender": lambda: tiny(
        train__epochs=100_000, train__log_every_steps=1, train__checkpoint_every_epochs=100_000
    ),
}


def config_of(name, folder):
    """The config of a run, on all devices; its photographs, if need be, are in the folder."""
    config = RUNS[name]()
    config.train.num_devices = 0
    if name == "photographs":
        config.data.update(source=f"folder:{folder}/images", imbalance=0.0, max_count=0)
        config.data.validation_size = 8
        config.augment.random_resized_crop = 0.3
        config.train.batch_size = config.retrain.batch_size = 16
        config.retrain.epochs = 2
        config.retrain.augment.random_resized_crop = 0.3
    return config


def signal_self(number):
    """The process sends itself SIGTERM after a step."""
    original = loop.Loop._advance

    def advance(self, rest, end):
        original(self, rest, end)
        if self.step == number:
            os.kill(os.getpid(), signal.SIGTERM)

    loop.Loop._advance = advance


def disagree(number, folder):
    """Starts runs that are not the same in all processes, and writes down how each is refused."""
    workdir._SIGHT = 0
    alike = config_of("plm", folder)
    rate, bad, images, missing = (alike.copy_and_resolve_references() for _ in range(4))
    rate.optimizer.learning_rate = 0.25 * (1 + number)
    images.data.split_seed = number
    if number:
        bad.data.validation_size = -1
    missing.data.update(source="arrays:few.npz", data_dir=f"{folder}/of_process_{number}")
    if not number:
        os.makedirs(missing.data.data_dir)
        few = np.zeros((2000, 8, 8, 1), np.uint8), np.arange(2000) % 10
        names = ("x_train", "y_train", "x_test", "y_test")
        np.savez(f"{missing.data.data_dir}/few.npz", **dict(zip(names, few * 2, strict=True)))
    cases = {
        "rate": (rate, "rate", None),
        "bad": (bad, "bad", None),
        "images": (alike, "images", load_dataset(images.data)),
        "missing": (missing, "missing", None),
        "unshared": (alike, f"unshared{number}", None),
    }
    for name, (config, place, dataset) in cases.items():
        try:
            train(config, f"{folder}/{place}", dataset=dataset)
        except InputError as error:
            with open(f"{folder}/{number}.told", "a") as file:  # Gloo writes where others print
                file.write(f"{name}: {error}\n")


def main():
    """Joins the others, trains, and tells what became of it."""
    port, number, count, folder, *names = sys.argv[1:]
    processes.HEARTBEAT_SECONDS = 10  # not 30, so that the test need not wait that long
    processes.start(
        coordinator=f"localhost:{port}", num_processes=int(count), process_id=int(number)
    )
    models.MODELS.update(pixels=PixelNet, colours=ColourNet)
    if "disagreeing" in names:
        return disagree(int(number), folder)
    with cli.told():
        run(names, folder, last=int(number) == int(count) - 1)


def run(names, folder, *, last):
    """Trains the runs one after the other; the last process may have to send itself a signal."""
    for name in names:
        if name == "signalled" and last:
            signal_self(SIGNALLED)
        if train(config_of(name, folder), f"{folder}/{name}") is None:
            print("stopped", flush=True)
            return
    print("finished", flush=True)


if __name__ == "__main__":
    main()
