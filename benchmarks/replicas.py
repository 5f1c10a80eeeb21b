"""R seeds in one run against R runs of one seed each, from start to end, compilation included.

python benchmarks/replicas.py --replicas=8

Every way is a process of its own that trains the small network on long-tailed digits: R separate
runs, then one run with R replicas in turn, then one with the replicas side by side (vmap).
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from lt_jax import environment

REPLICAS = flags.DEFINE_integer("replicas", 8, "R.")
METHOD = flags.DEFINE_string("method", "cb_focal", "What to train.")
EPOCHS = flags.DEFINE_integer("epochs", 60, "Epochs of each seed.")
OUT = flags.DEFINE_string("out", "results/benchmarks/replicas.json", "JSON to write.")


def train(folder, *options):
    """Seconds of one process, and the balanced accuracies of its seeds."""
    command = [
        sys.executable, "launch/train.py", f"--config=configs/digits.py:{METHOD.value}",
        f"--config.train.epochs={EPOCHS.value}", "--config.train.progress=False",
        *options, f"--workdir={folder}",
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    elapsed = time.perf_counter() - start
    summary = json.loads((Path(folder) / "summary.json").read_text())
    return elapsed, [r["balanced_accuracy"] for r in summary["test"]["last"]["replicas"]]


def main(argv):
    """Times the three ways and writes."""
    count = REPLICAS.value
    with tempfile.TemporaryDirectory() as root:
        separate = [train(f"{root}/{r}", f"--config.seed={r}") for r in range(count)]
        together = {
            mode: train(
                f"{root}/{mode}",
                f"--config.replicas={count}",
                f"--config.replica_mode={mode}",
            )
            for mode in ("sequential", "vmap")
        }
    seconds = {"separate": sum(t for t, _ in separate)}
    seconds |= {mode: t for mode, (t, _) in together.items()}
    accuracies = {"separate": [a for _, each in separate for a in each]}
    accuracies |= {mode: each for mode, (_, each) in together.items()}
    for name, value in seconds.items():
        print(f"{name:12s} {value:7.1f} s   {seconds['separate'] / value:.2f} times as fast")
    path = Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        **environment.stamp(),
        "replicas": count,
        "epochs": EPOCHS.value,
        "seconds": seconds,
        "balanced_accuracy": accuracies,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
