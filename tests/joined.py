"""A process of a run of several: ``python joined.py PORT NUMBER OF FOLDER RUN...``, see `RUNS`."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

from tiny_runs import PixelNet, tiny

from lt_jax import models, processes
from lt_jax.train import train

RUNS = {
    # 20 steps of what remembers most: PLM's ratios, deferral, momentum, batch norm.
    "plm": lambda: tiny("plm+class_balanced", train__epochs=5, replicas=2),
    "gcl": lambda: tiny("gcl"),
    "long": lambda: tiny(train__epochs=4000, train__checkpoint_every_epochs=4000),
}


def config_of(name):
    """The config of a run, on all devices."""
    config = RUNS[name]()
    config.train.num_devices = 0
    return config


def main():
    """Joins the others, trains, and tells what became of it."""
    port, number, count, folder, *names = sys.argv[1:]
    processes.start(
        coordinator=f"localhost:{port}", num_processes=int(count), process_id=int(number)
    )
    models.MODELS["pixels"] = PixelNet
    for name in names:
        print(name, flush=True)
        if train(config_of(name), f"{folder}/{name}") is None:
            print("stopped", flush=True)
            return
    print("finished", flush=True)


if __name__ == "__main__":
    main()
