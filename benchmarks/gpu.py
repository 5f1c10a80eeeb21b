r"""Training on a GPU: lt_jax against PyTorch in one run, where the time goes, a whole run of GCL.

    python benchmarks/gpu.py --data=cifar10_lt100.npz --out=results/benchmarks/gpu.json

Every row is a whole training step on images that lie on the device: draw, crop and mirror, forward,
loss, backward, update. Each row is a process of its own; all compile at once, then they are timed
in turn, round after round, so that what slows the machine slows all of them. A row that is not
compiled within ``--patience`` seconds is left out and told so. Then both stages of GCL (200 + 30
epochs) are trained on ``--data``, an .npz for ``arrays:``, twice: the second run finds its programs
compiled. ``--only=none`` trains GCL alone. What has been measured is written as it comes.

Needs PyTorch with CUDA beside lt_jax.
"""

import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from absl import app, flags

ONLY = flags.DEFINE_string(
    "only", "", "Names of rows, separated by semicolons, or none; all if empty."
)
ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each row is timed.")
SECONDS = flags.DEFINE_float("seconds", 0.5, "How long each time.")
PATIENCE = flags.DEFINE_float("patience", 600.0, "Seconds that compiling may take.")
LIMIT = flags.DEFINE_float("limit", 3600.0, "Seconds after which the run of GCL is stopped.")
DATA = flags.DEFINE_string("data", "", "An .npz with long-tailed CIFAR-10; without it no GCL.")
OUT = flags.DEFINE_string("out", "results/benchmarks/gpu.json", "JSON to write.")

HERE = Path(__file__).parent
BATCH = {"resnet32": 128, "resnet50": 128}
GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,CONVOLUTION"
XLA = {
    "XLA's defaults": "",
    "no graphs": "--xla_gpu_enable_command_buffer=",
    "graphs with convolutions": f"--xla_gpu_enable_command_buffer={GRAPHS}",
    "graphs of whole loops": f"--xla_gpu_enable_command_buffer={GRAPHS},WHILE",
}
# Kernels of replicas may run at the same time.
CONCURRENT = (
    f"{XLA['graphs with convolutions']} --xla_gpu_command_buffer_scheduling_mode=CONCURRENT"
)


def ours(network="resnet32", dtype="bfloat16", steps=20, seeds=1, mode="sequential", **rest):
    """A row of lt_jax."""
    rest = {"xla": None, "grouped": False, "fused": False, **rest}  # None: as the library has it
    fields = {"network": network, "dtype": dtype, "steps": steps, "seeds": seeds, "mode": mode}
    return {"script": "gpu_jax.py", "batch": BATCH[network], **fields, **rest}


def theirs(mode, network="resnet32"):
    """A row of PyTorch."""
    fields = {"network": network, "mode": mode, "xla": ""}
    return {"script": "gpu_pytorch.py", "batch": BATCH[network], **fields}


ROWS = {
    "lt_jax": ours(),
    **{f"lt_jax, {name}": ours(xla=options) for name, options in XLA.items()},
    "lt_jax, fused": ours(fused=True),
    "lt_jax, fused, 80 steps a call": ours(fused=True, steps=80),
    "lt_jax, fused, batches of 64": ours(fused=True, batch=64),
    "lt_jax, batches of 64": ours(batch=64),
    **{
        f"lt_jax, fused, {r} seeds by vmap": ours(seeds=r, mode="vmap", fused=True)
        for r in (2, 4, 8, 16)
    },
    "lt_jax, float32": ours(dtype="float32"),
    **{f"lt_jax, {k} steps a call": ours(steps=k) for k in (1, 5, 80)},
    "lt_jax, 4 seeds in turn": ours(seeds=4),
    **{f"lt_jax, {r} seeds by vmap": ours(seeds=r, mode="vmap") for r in (2, 4, 8, 16)},
    **{
        f"lt_jax, {r} seeds by vmap, concurrent": ours(seeds=r, mode="vmap", xla=CONCURRENT)
        for r in (4, 16)
    },
    "lt_jax, 4 seeds by vmap, grouped": ours(seeds=4, mode="vmap", grouped=True),
    "pytorch, eager": theirs("eager"),
    "pytorch, compile": theirs("compile"),
    "pytorch, compile, reduce-overhead": theirs("compile, reduce-overhead"),
    "pytorch, compile, one graph a step": theirs("compile, one graph a step"),
    "resnet50 lt_jax": ours("resnet50", steps=1),
    "resnet50 pytorch, compile": theirs("compile", "resnet50"),
    "resnet50 pytorch, one graph a step": theirs("compile, one graph a step", "resnet50"),
}
PROFILED = (
    "lt_jax",
    "lt_jax, fused",
    "lt_jax, no graphs",
    "lt_jax, 4 seeds by vmap",
    "resnet50 lt_jax",
)


class Worker:
    """A process that compiles a row, and times it when it is told to."""

    def __init__(self, row):
        """Starts it."""
        environment = {
            **os.environ,
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "TORCHINDUCTOR_COMPILE_THREADS": "2",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {row['xla'] or ''}".strip(),
            "PYTHONPATH": f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / row["script"]), json.dumps(row)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.answers = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries print too
                self.answers.put(json.loads(line))
        self.answers.put({"error": f"ended with status {self.process.wait()}"})

    def answer(self, seconds):
        """The next one, or an error."""
        try:
            return self.answers.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            self.stop()
            return {"error": f"no answer within {seconds:.0f} s"}

    def ask(self, **question):
        """Asks, and waits for the answer."""
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        except OSError:  # it has ended, which its last answer tells
            return self.answer(1)
        return self.answer(60)

    def stop(self):
        """Ends it."""
        self.process.kill()
        self.process.wait()


def race(rows, found, save):
    """Notes of every row: images a second, to be compiled, and where the time goes.

    Args:
      rows: by name.
      found: what is known of each, to be filled.
      save: called when there is more of it.
    """
    begun = time.monotonic()
    workers = {name: Worker(row) for name, row in rows.items()}
    for name, worker in workers.items():
        found[name] = worker.answer(PATIENCE.value - (time.monotonic() - begun))
        tell(f"{time.monotonic() - begun:4.0f} s  {name}: {found[name]}")
    save()
    rates = {name: [] for name in rows}
    for _ in range(ROUNDS.value):
        for name, worker in workers.items():
            if "error" not in found[name]:
                answer = worker.ask(seconds=SECONDS.value)
                found[name] |= {k: v for k, v in answer.items() if k == "error"}
                rates[name] += [answer["images_per_second"]] if "error" not in answer else []
        for name, measured in rates.items():
            if measured:
                middle, ends = statistics.median(measured), [min(measured), max(measured)]
                found[name] |= {"images_per_second": middle, "range": ends}
        save()
    for name, row in found.items():
        if "images_per_second" in row:
            tell(f"{row['images_per_second']:10,.0f} images/s  {name}")
    for name in PROFILED:
        if "images_per_second" in found.get(name, {}) and "error" not in found[name]:
            found[name]["profile"] = workers[name].ask(profile=True)
            tell(f"{name}: {found[name]['profile']}")
            save()
    for worker in workers.values():
        worker.stop()


def tell(text):
    """For whoever watches."""
    print(text, file=sys.stderr, flush=True)


def best(found, network, script, side_by_side):
    """Images a second of a network's fastest row with seeds side by side, or without."""
    alike = [
        found[name].get("images_per_second", 0)
        for name, row in ROWS.items()
        if name in found
        and (row["network"], row["script"], row["batch"]) == (network, script, BATCH[network])
        and (row["mode"] == "vmap") == side_by_side
    ]
    return max(alike, default=0)


def ratios(found, network):
    """How many times as fast our best rows are as PyTorch's best, which has one seed."""
    theirs = best(found, network, "gpu_pytorch.py", side_by_side=False)
    ours = {
        "one seed": best(found, network, "gpu_jax.py", side_by_side=False),
        "seeds side by side": best(found, network, "gpu_jax.py", side_by_side=True),
    }
    return {name: rate / theirs for name, rate in ours.items() if rate and theirs}


def gcl(cache, name):
    """Wall time of both stages of GCL on long-tailed CIFAR-10, from the command to the summary.

    Args:
      cache: folder for compiled programs, which the first run fills, and for runs.
      name: of the run's folder.
    """
    folder = Path(cache, name)  # a new one: what has finished would take no time
    command = [
        sys.executable, "launch/train.py", "--config=configs/cifar_lt.py:cifar10,100,gcl",
        f"--config.data.source=arrays:{Path(DATA.value).absolute()}", "--config.data.imbalance=0",
        "--config.model.dtype=bfloat16", "--config.model.fused=True",
        "--config.train.checkpoint_every_epochs=100", "--config.train.steps_per_call=193",
        "--config.train.log_every_steps=1000", "--config.train.tensorboard=False",
        "--config.train.picture=False", f"--workdir={folder}",
    ]  # fmt: skip
    start = time.monotonic()
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": f"{cache}/programs",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    process = subprocess.Popen(command, cwd=HERE.parent, env=environment)
    stopped = False
    try:
        process.wait(LIMIT.value)
    except subprocess.TimeoutExpired:
        stopped = True
        process.send_signal(signal.SIGTERM)
        process.wait()
    seconds, status = time.monotonic() - start, process.returncode
    result = {"command": command[1:], "seconds": seconds, "status": status, "stopped": stopped}
    if status or stopped:
        result["error"] = (
            f"ended with status {status}{', stopped' if stopped else ''}: no run of GCL"
        )
    for stage in ("stage1", "stage2"):
        path = folder / stage / "metrics.jsonl"
        if path.exists():
            result[f"{stage}_rows"] = [json.loads(line) for line in path.read_text().splitlines()]
        path = folder / stage / "summary.json"
        if path.exists():
            summary = json.loads(path.read_text())
            result[stage] = {"training": summary["training"], "test": summary["test"]["last"]}
    return result


def main(argv):
    """Times, trains and writes."""
    from lt_jax import environment

    if ONLY.value == "none" and not DATA.value:
        sys.exit("error: --only is 'none' and --data ''; expected images to train GCL on")
    names = [name.strip() for name in ONLY.value.split(";") if name.strip()] or list(ROWS)
    rows = {name: ROWS[name] for name in names if name != "none"}
    report = {"rows": {}}
    path = Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)

    def save():
        for network in BATCH:
            report[f"{network}_over_pytorch"] = ratios(report["rows"], network)
        path.write_text(json.dumps(report, indent=1) + "\n")

    race(rows, report["rows"], save)
    if DATA.value:
        with tempfile.TemporaryDirectory() as cache:
            for name, own in (("gcl", "first"), ("gcl, compiled before", "second")):
                report[name] = gcl(cache, f"gcl_cifar10_lt100_{own}")
                save()
    path.write_text(json.dumps({**environment.stamp(), **report}, indent=1) + "\n")
    tell(json.dumps({k: v for k, v in report.items() if k != "rows"})[:1500])


if __name__ == "__main__":
    app.run(main)
