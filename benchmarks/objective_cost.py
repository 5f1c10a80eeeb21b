"""Cost of each objective inside the jitted training step, against plain cross-entropy, in one run.

python benchmarks/objective_cost.py --model=resnet32 --batch_size=128 --rounds=7

Rounds go through all methods in turn, so that what else the machine does hits them alike; each
method's time is divided by that of cross-entropy in the same round, and the median is told. Plain
cross-entropy is compiled a second time under another name: its ratio to itself is the noise.
"""

import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from lt_jax import environment, sharding
from lt_jax.longtail import long_tailed_counts
from lt_jax.models import create_model
from lt_jax.objectives import METHODS, build_objective, method_spec
from lt_jax.programs import compiler_options
from lt_jax.state import init_state, make_network
from lt_jax.steps import Split, make_train_step
from lt_jax.writers import say

MODEL = flags.DEFINE_string("model", "resnet32", "Network.")
BATCH = flags.DEFINE_integer("batch_size", 128, "Images in a step.")
ROUNDS = flags.DEFINE_integer("rounds", 7, "How often each method is timed.")
STEPS = flags.DEFINE_integer("steps", 1, "Steps in each timing.")
CHOSEN = flags.DEFINE_list("methods", sorted(set(METHODS) - {"cross_entropy"}), "Methods.")
OUT = flags.DEFINE_string("out", "results/benchmarks/objective_cost.json", "JSON to write.")
NOISE = "cross_entropy again"
AUGMENT = {"crop_padding": 4, "flip": True, "mixup_alpha": 0.0}


def compiled_step(method, mesh, counts):
    """The compiled step of a method with its state, as a function of nothing."""
    spec = method_spec("cross_entropy" if method == NOISE else method)
    objective = build_objective(spec, counts, steps_per_epoch=100, epochs=200)
    head = "cosine" if objective.wants_cosines else "linear"
    network = make_network(
        lambda rngs: create_model(
            MODEL.value, image_shape=(32, 32, 3), num_classes=len(counts), head=head, rngs=rngs
        )
    )
    optimizer = optax.sgd(0.01, momentum=0.9)
    key = jax.random.key(0)
    state = init_state(network.init(key), optimizer, objective, keep_best=False)
    step = jax.jit(
        make_train_step(network, objective, optimizer, AUGMENT, mesh),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )
    rng = np.random.default_rng(0)
    split = Split(
        jnp.asarray(rng.integers(0, 256, (1024, 32, 32, 3), dtype=np.uint8)),
        jnp.asarray(rng.integers(0, len(counts), 1024, dtype=np.int32)),
        jnp.full(3, 0.5),
        jnp.full(3, 0.25),
    )
    rows = jnp.arange(BATCH.value, dtype=jnp.int32)
    carried = [state]

    def run():
        carried[0], loss = step(carried[0], key, split, rows)
        return loss

    run().block_until_ready()
    return run


def seconds(run):
    """Time of a step."""
    start = time.perf_counter()
    for _ in range(STEPS.value):
        loss = run()
    loss.block_until_ready()
    return (time.perf_counter() - start) / STEPS.value


def main(argv):
    """Compiles, times in turn, writes."""
    mesh = sharding.make_mesh(1)
    counts = long_tailed_counts(5000, 10, 100)
    names = ["cross_entropy", NOISE, *CHOSEN.value]
    runs = {}
    for name in names:
        start = time.perf_counter()
        runs[name] = compiled_step(name, mesh, counts)
        say(f"{name}: compiled and ran once in {time.perf_counter() - start:.1f} s")
    times = {name: [] for name in names}
    for _ in range(ROUNDS.value):
        for name in names:
            times[name].append(seconds(runs[name]))
    base = times["cross_entropy"]
    results = {}
    for name in names:
        ratios = [t / b for t, b in zip(times[name], base, strict=True)]
        fastest = min(times[name]) / min(base)
        results[name] = {
            "ratio_median": statistics.median(ratios),
            "ratio_of_fastest": fastest,
            "seconds": times[name],
        }
        print(f"{name:24s} median ratio {statistics.median(ratios):.3f}  of fastest {fastest:.3f}")
    path = Path(OUT.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        **environment.stamp(1),
        "model": MODEL.value,
        "batch_size": BATCH.value,
        "methods": results,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
