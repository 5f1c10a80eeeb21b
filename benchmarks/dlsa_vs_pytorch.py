"""Training of DLSA's flow on the CPU: lt_jax against eager PyTorch, in one run.

Both train the same flow (two masked autoregressive blocks, each with an invertible batch norm) with
the same fixed centres on the same features: pairs of two classes, three terms, SGD with momentum.
PyTorch computes log-densities in two ways: "released" by the differences u - mu of shape [B, K, D]
of positives and of negatives, "matmul" by |u|^2 - 2 u mu^T + |mu|^2, as lt_jax does.

Before any timing the script checks on a small case that the terms agree, and so do the weights
after three steps of lt_jax's compiled program. It then measures

 1. pairs per second of lt_jax and "matmul" over whole epochs, interleaved with a few steps of
    "released", which would take minutes for an epoch (`timed_steps` in the JSON);
 2. seconds per epoch of lt_jax against K, D and N, with a straight line through each. The hidden
    width is fixed, as with that of D the layers would grow with D squared;
 3. memory of one training step at the paper's size: the most a fresh process had less what it had
    after importing and making the features, and XLA's own count of its program's temporaries.
    "released" needs about 2.6 times [2 B, K, D]; without room for 3 its batch is halved until there
    is, and the JSON says so.

Where cores are shared with other work use one; compare ratios rather than seconds. Linux only.

    taskset -c 0 python benchmarks/dlsa_vs_pytorch.py

`--quick` takes tiny sizes, to see that the script runs; it writes only where `--out` is given.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from dlsa_pytorch import TorchTraining

from lt_jax import dlsa, environment
from lt_jax.dlsa.fit import init_fit, make_epoch

AXES = ("clusters", "dim", "samples")  # of `Size`: K, D and N
FORMS = ("matmul", "released")
RESULT = Path(__file__).parents[1] / "results/benchmarks/dlsa_vs_pytorch.json"
KINDS = ("temp", "argument", "output", "alias")  # of memory that XLA counts
TOTAL = 10**9  # steps of the whole training: so many that the learning rate stays what it is


class Size(NamedTuple):
    """N samples of C classes and D features, K clusters, pairs in a step, hidden width (0: D)."""

    samples: int
    dim: int
    clusters: int
    batch: int
    hidden: int = 0
    classes: int = 100

    def options(self, **changes):
        """The flow's training, every field given, so that other defaults change nothing here."""
        fields = {"num_clusters": self.clusters, "hidden": self.hidden, "batch_size": self.batch}
        fields |= {"likelihood": 1.0, "balance": 1.0, "purity": 0.02, "purity_floor": 10.0}
        fields |= {"separation": 3.2, "num_blocks": 2, "bound": 3.0, "weight_power": 2.0}
        fields |= {"epochs": 1, "optimizer": "sgd", "learning_rate": 1e-3, "momentum": 0.9}
        return dlsa.FlowOptions(**(fields | {"clip": 0.0} | changes))


PLANS = {
    "full": {
        "speed": Size(20_000, 512, 500, 512),
        "memory": Size(4_096, 2048, 500, 1024),
        "sweep": Size(20_000, 512, 500, 512, hidden=256),
        "clusters": (125, 250, 500, 1000, 2000),
        "dim": (128, 256, 512, 1024),
        "samples": (5_000, 10_000, 20_000, 40_000),
    },
    "quick": {
        "speed": Size(2_000, 64, 50, 100),
        "memory": Size(1_000, 256, 100, 256),
        "sweep": Size(2_000, 64, 50, 100, hidden=32),
        "clusters": (50, 100),
        "dim": (64, 128),
        "samples": (2_000, 4_000),
    },
}


def make_data(size):
    """Features ``[N, D]`` around a mean of each class, long-tailed labels, weights of classes."""
    rng = np.random.default_rng(0)
    share = 0.02 ** (np.arange(size.classes) / (size.classes - 1))
    drawn = rng.choice(size.classes, size.samples - size.classes, p=share / share.sum())
    labels = np.concatenate([np.arange(size.classes), drawn])  # no class without samples
    features = rng.standard_normal((size.samples, size.dim), np.float32)
    features += rng.standard_normal((size.classes, size.dim), np.float32)[labels]
    return features, labels, dlsa.likelihood_weights(np.bincount(labels)).astype(np.float32)


class JaxTraining:
    """lt_jax's compiled program of some steps, and its state, whose buffers are donated."""

    def __init__(self, size, options, steps, data):
        """Compiles."""
        self.state, self.centres = init_fit(jax.random.key(0), size.dim, options, TOTAL)
        self.members, self.key = dlsa.members_of(data[1], size.classes), jax.random.key(1)
        features, labels, weights = map(jnp.asarray, data)
        self.rest = self.key, self.centres, features, labels, self.members, weights
        epoch = jax.jit(make_epoch(options, steps, TOTAL), donate_argnums=0)
        self.program = epoch.lower(self.state, *self.rest).compile()

    def run(self):
        """Trains; the mean terms."""
        self.state, terms = self.program(self.state, *self.rest)
        return np.asarray(terms)


def jax_terms(flow, centres, options, both, weights):
    """The three terms by lt_jax's own functions, outside of any program."""
    latents, log_det, _ = dlsa.forward(flow, both, train=True, bound=options.bound)
    own, other = jnp.split(dlsa.log_densities(latents, log_det, centres), 2)
    likelihood = dlsa.likelihood_term(dlsa.log_likelihood(own) / both.shape[1], weights)
    balance, _ = dlsa.balance_term(own, jnp.zeros(len(centres)), 1)
    return np.array([likelihood, balance, dlsa.purity_term(own, other, floor=options.purity_floor)])


def difference(net, flow, kind):
    """Largest of a net's weights ("params") or running statistics ("stats") from a flow's."""
    each = zip(net.blocks, getattr(flow, kind), strict=True)
    pairs = [(getattr(b, n).detach().numpy(), v.T) for b, p in each for n, v in p.items()]
    return max(float(np.max(np.abs(t - v) / np.maximum(1, np.abs(v)))) for t, v in pairs)


def check():
    """Largest differences of terms, and of weights after three steps, from lt_jax's, by form."""
    size, steps, found = Size(200, 8, 5, 16, classes=4), 3, {}
    # A floor that is met, and coefficients under which every term matters.
    options, data = size.options(purity_floor=2.0, purity=1.0, learning_rate=0.1), make_data(size)
    ours, noise = JaxTraining(size, options, steps, data), np.random.default_rng(1)
    keys = [jax.random.fold_in(ours.key, step) for step in range(steps)]
    pairs = [np.concatenate(dlsa.draw_pairs(key, ours.members, size.batch)) for key in keys]
    weights = data[2][data[1][pairs[0][: size.batch]]]
    # Far from the first weights, which nearly are the identity's.
    moved = [
        {n: v + 0.7 * noise.standard_normal(v.shape, np.float32) for n, v in block.items()}
        for block in ours.state.flow.params
    ]
    start = dlsa.Flow(moved, jax.tree.map(np.array, ours.state.flow.stats))
    terms = jax_terms(start, ours.centres, options, data[0][pairs[0]], weights)
    ours.state = ours.state._replace(flow=jax.tree.map(jnp.array, start))
    mean_terms = ours.run()
    for form in FORMS:
        net = TorchTraining(start, ours.centres, options, data, form)
        seen = [net.step(torch.from_numpy(each)) for each in pairs]
        found[form] = {kind: difference(net, ours.state.flow, kind) for kind in ("params", "stats")}
        found[form]["terms"] = float(np.abs(seen[0] - terms).max())
        found[form]["mean_terms"] = float(np.abs(np.mean(seen, 0) - mean_terms).max())
    assert max(v for row in found.values() for v in row.values()) < 1e-4, found
    return found


def measure(rows, repeats):
    """Seconds of every row, interleaved, after a first run of each: ``[repeats]`` by name."""
    for run in rows.values():
        run()
    times = {name: [] for name in rows}
    for _ in range(repeats):
        for name, run in rows.items():
            start = time.perf_counter()
            values = run()
            times[name].append(time.perf_counter() - start)
            assert np.isfinite(values).all(), name
    return {name: np.array(seconds) for name, seconds in times.items()}


def speed(size, repeats, released_steps):
    """Pairs per second of all three, and how many times as fast as each lt_jax is."""
    options, data, steps = size.options(), make_data(size), round(size.samples / size.batch)
    ours = JaxTraining(size, options, steps, data)
    counts = {"lt_jax": steps, "matmul": steps, "released": released_steps}
    rows = {"lt_jax": ours.run}
    for form in FORMS:
        net = TorchTraining(ours.state.flow, ours.centres, options, data, form)
        rows[form] = lambda net=net, count=counts[form]: [net.step() for _ in range(count)]
    times = measure(rows, repeats)
    rates = {name: counts[name] * size.batch / seconds for name, seconds in times.items()}
    result = {"size": size._asdict(), "repeats": repeats, "timed_steps": counts}
    result["note"] = f"rates of released are of {released_steps} steps, the others' of whole epochs"
    for name, rate in rates.items():
        quartiles = np.percentile(rates["lt_jax"] / rate, [25, 50, 75]).tolist()
        row = {"pairs_per_s_median": np.median(rate), "pairs_per_s": rate.tolist()}
        result[name] = row | {"lt_jax_ratio_quartiles": quartiles}
    return result


def line(values, seconds):
    """Medians over repeats of seconds ``[V, repeats]``, and their straight line over values."""
    x, y = np.array(values, float), np.median(seconds, axis=1)
    slope, intercept = np.polyfit(x, y, 1)
    unexplained = ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    result = {"values": values, "seconds_per_epoch": y.tolist(), "seconds": seconds.tolist()}
    return result | {"slope": slope, "intercept": intercept, "r_squared": 1 - unexplained}


def sweep(plan, repeats):
    """lt_jax's seconds per epoch against K, D and N, interleaved."""
    sizes = {a: [plan["sweep"]._replace(**{a: value}) for value in plan[a]] for a in AXES}
    rows = {}
    for size in {size for row in sizes.values() for size in row}:
        steps = round(size.samples / size.batch)
        rows[size] = JaxTraining(size, size.options(), steps, make_data(size)).run
    times = measure(rows, repeats)
    return {a: line(plan[a], np.stack([times[size] for size in sizes[a]])) for a in AXES}


def proc(path, name):
    """Bytes of a line of a file in /proc that counts in kB."""
    lines = Path(path).read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def memory_of(row, size):
    """Bytes that one training step adds to this process, which has to be a fresh one."""
    options, data, result = size.options(), make_data(size), {}
    state, centres = jax.eval_shape(lambda k: init_fit(k, size.dim, options, 1), jax.random.key(0))
    shapes = state.flow, centres
    before = proc("/proc/self/status", "VmRSS")
    if row == "lt_jax":
        ours = JaxTraining(size, options, 1, data)
        counted = ours.program.memory_analysis()
        result = {f"xla_{n}_bytes": getattr(counted, f"{n}_size_in_bytes") for n in KINDS}
        result["peak_of_compiling_bytes"] = proc("/proc/self/status", "VmHWM") - before
        ours.run()
    else:  # drawn by NumPy, so that JAX adds nothing
        rng = np.random.default_rng(0)
        flow, centres = jax.tree.map(
            lambda shape: 0.01 * rng.standard_normal(shape.shape, np.float32), shapes
        )
        net = TorchTraining(flow, centres, options, data, row)
        del flow
        net.step()
    return result | {"peak_bytes": proc("/proc/self/status", "VmHWM") - before}


def memory(size):
    """`memory_of` lt_jax and both forms; of "released" with as large a batch as there is room."""
    differences = 2 * size.batch * size.clusters * size.dim * 4
    result = {"size": size._asdict(), "differences_bytes": differences}
    for row in ("lt_jax", *FORMS):
        batch, room = size.batch, proc("/proc/meminfo", "MemAvailable") / 3
        while row == "released" and batch > 1 and differences * batch / size.batch > room:
            batch //= 2
        child = json.dumps([row, *size._replace(batch=batch)])
        command = [sys.executable, __file__, f"--child={child}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        result[row] = {"batch": batch, **json.loads(done.stdout)}
    return result


def show(report):
    """Prints the most important of the JSON."""
    print("largest differences from lt_jax:", report["differences"])
    for row in ("lt_jax", *FORMS):
        rate, most = report["speed"][row], report["memory"][row]
        ratio = rate["lt_jax_ratio_quartiles"][1]
        print(f"{row:9s}{rate['pairs_per_s_median']:9.0f} pairs/s, lt_jax {ratio:.2f} as many; "
              f"{most['peak_bytes'] / 2**20:.0f} MiB for a step of {most['batch']}")  # fmt: skip
    ours, differences = report["memory"]["lt_jax"], report["memory"]["differences_bytes"]
    compiling, own = ours["peak_of_compiling_bytes"] / 2**20, ours["xla_temp_bytes"] / 2**20
    print(f"lt_jax: {compiling:.0f} MiB to compile, of temporaries {own:.0f} MiB; "
          f"[2 B, K, D] is {differences / 2**20:.0f} MiB")  # fmt: skip
    for axis, row in report["sweep"].items():
        times = "  ".join(f"{s:.3f}" for s in row["seconds_per_epoch"])
        print(f"{axis:9s}{row['values']}: {times} s, slope {row['slope']:.3g}, "
              f"intercept {row['intercept']:.3g}, R^2 {row['r_squared']:.4f}")  # fmt: skip


def main():
    """Checks, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--released-steps", type=int, default=3, help="of each repeat")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help=f"JSON to write; else {RESULT.name}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    if arguments.child:
        row, *size = json.loads(arguments.child)
        print(json.dumps(memory_of(row, Size(*size))))
        return
    plan = PLANS["quick" if arguments.quick else "full"]
    report = environment.stamp()
    report["versions"]["torch"] = torch.__version__
    report["hardware"] |= {"cores_used": cores, "load_average": os.getloadavg()[0]}
    report["differences"] = check()
    report["memory"] = memory(plan["memory"])
    report["speed"] = speed(plan["speed"], arguments.repeats, arguments.released_steps)
    report["sweep"] = sweep(plan, arguments.repeats)
    report["sweep_size"] = plan["sweep"]._asdict()
    show(report)
    out = arguments.out or (None if arguments.quick else RESULT)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
