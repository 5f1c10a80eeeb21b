"""Images per second of a ResNet-32 training step: lt_jax against eager PyTorch, in one run.

Both train the same network from the same weights on the same batch: forward, softmax
cross-entropy, backward, SGD with momentum 0.9 and weight decay. Before any timing the script
checks that they have the same number of parameters and the same loss. Timings are interleaved, so
that a busy machine slows all of them; compare the ratios, not the milliseconds. Not even the
ratios hold on several cores shared with other work, where PyTorch's threads lose most by waiting
for each other: then use one core, as the recorded result does.

    taskset -c 0 python benchmarks/step_vs_pytorch.py --repeats 10

Rows: "lt_jax" is `jax.jit` with XLA's defaults, "lt_jax, options" adds `CPU_COMPILER_OPTIONS`,
"flax layers" is the same network of `nnx.Conv`, `nnx.BatchNorm` and `nnx.relu`.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx

from lt_jax.models import create_model
from lt_jax.models.conv import CPU_COMPILER_OPTIONS
from lt_jax.models.resnet_cifar import shortcut

RESULT = Path(__file__).parents[1] / "results/benchmarks/step_vs_pytorch.json"
RATE, MOMENTUM, DECAY = 0.1, 0.9, 2e-4
STAGES = [(16, 1), *[(16, 1)] * 4, (32, 2), *[(32, 1)] * 4, (64, 2), *[(64, 1)] * 4]


class FlaxConvNorm(nnx.Module):
    """`ConvBatchNorm` of flax's own layers."""

    def __init__(self, num_inputs, num_outputs, stride, rngs):
        """Draws the weights."""
        pads = ((1, 1), (1, 1))
        options = {"strides": stride, "padding": pads, "use_bias": False, "rngs": rngs}
        self.conv = nnx.Conv(num_inputs, num_outputs, (3, 3), **options)
        self.norm = nnx.BatchNorm(num_outputs, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x, train):
        """Convolves and normalises."""
        return self.norm(self.conv(x), use_running_average=not train)


class FlaxNet(nnx.Module):
    """ResNet-32 of flax's own layers."""

    def __init__(self, rngs):
        """Draws the weights."""
        self.stem, self.head = FlaxConvNorm(3, 16, 1, rngs), nnx.Linear(64, 10, rngs=rngs)
        widths = [16, *[width for width, _ in STAGES]]
        self.blocks = nnx.List(
            [
                nnx.List(
                    [FlaxConvNorm(before, width, stride, rngs), FlaxConvNorm(width, width, 1, rngs)]
                )
                for before, (width, stride) in zip(widths, STAGES, strict=False)
            ]
        )

    def __call__(self, x, *, train):
        """Logits."""
        x = nnx.relu(self.stem(x, train))
        for (first, second), (width, stride) in zip(self.blocks, STAGES, strict=True):
            hidden = second(nnx.relu(first(x, train)), train)
            x = nnx.relu(hidden + shortcut(x, stride=stride, num_channels=width))
        return self.head(jnp.mean(x, (1, 2)))


def torch_conv_norm(num_inputs, num_outputs, stride):
    """`ConvBatchNorm` in PyTorch."""
    conv = torch.nn.Conv2d(num_inputs, num_outputs, 3, stride, 1, bias=False)
    return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(num_outputs))


class TorchNet(torch.nn.Module):
    """ResNet-32 in PyTorch."""

    def __init__(self):
        """Draws the weights."""
        super().__init__()
        self.stem, self.head = torch_conv_norm(3, 16, 1), torch.nn.Linear(64, 10)
        widths = [16, *[width for width, _ in STAGES]]
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleList([torch_conv_norm(a, b, s), torch_conv_norm(b, b, 1)])
            for a, (b, s) in zip(widths, STAGES, strict=False)
        )

    def forward(self, x):
        """Logits."""
        x = F.relu(self.stem(x))
        for (first, second), (width, stride) in zip(self.blocks, STAGES, strict=True):
            pad = (width - x.shape[1]) // 2
            around = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, pad, pad)) if pad else x
            x = F.relu(second(F.relu(first(x))) + around)
        return self.head(x.mean((2, 3)))


def copy_weights(model, net):
    """Gives the PyTorch network the convolutions and the head of ours; norms start alike."""
    ours = [model.stem, *[layer for b in model.blocks for layer in (b.first, b.second)]]
    theirs = [net.stem, *[layer for block in net.blocks for layer in block]]
    with torch.no_grad():
        for layer, (conv, _) in zip(ours, theirs, strict=True):
            conv.weight.copy_(torch.tensor(np.array(layer.kernel[...]).transpose(3, 2, 0, 1)))
        net.head.weight.copy_(torch.tensor(np.array(model.head.kernel[...]).T))
        net.head.bias.copy_(torch.tensor(np.array(model.head.bias[...])))


def jax_parts(model, labels):
    """Forward, forward and backward, update, and the whole step, as pure functions."""
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    def loss(parameters, rest, images):
        model = nnx.merge(graph, parameters, rest, copy=True)
        logits = jax.nn.log_softmax(model(images, train=True))
        picked = jnp.take_along_axis(logits, labels[:, None], axis=1)
        return -jnp.mean(picked), nnx.state(model, nnx.Not(nnx.Param))

    def backward(parameters, rest, images):
        return jax.value_and_grad(loss, has_aux=True)(parameters, rest, images)

    def update(parameters, momenta, grads):
        momenta = jax.tree.map(
            lambda m, g, p: MOMENTUM * m + g + DECAY * p, momenta, grads, parameters
        )
        return jax.tree.map(lambda p, m: p - RATE * m, parameters, momenta), momenta

    def step(parameters, momenta, rest, images):
        (value, rest), grads = backward(parameters, rest, images)
        return *update(parameters, momenta, grads), rest, value

    return (
        (parameters, jax.tree.map(jnp.zeros_like, parameters), rest),
        loss,
        backward,
        update,
        step,
    )


def runner(function, *arguments, options=None):
    """A compiled call with fixed arguments."""
    compiled = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    return lambda: jax.block_until_ready(compiled(*arguments))


def step_runner(step, state, images, options=None):
    """A compiled training step that carries its state, whose buffers are donated."""
    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    state = jax.tree.map(jnp.copy, state)  # the other runners keep theirs
    compiled = jitted.lower(*state, images).compile(compiler_options=options)

    def run():
        nonlocal state
        *state, value = compiled(*state, images)
        return float(value)

    return run


def torch_runner(net, images, labels):
    """An eager PyTorch training step."""
    net = net.to(memory_format=torch.channels_last).train()
    pixels = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    targets = torch.tensor(labels, dtype=torch.int64)
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def run():
        optimizer.zero_grad()
        value = F.cross_entropy(net(pixels), targets)
        value.backward()
        optimizer.step()
        return value.item()

    return run


def build(batch):
    """Checked, warmed-up callables by row name, and the two first losses."""
    rng = np.random.default_rng(0)
    images, labels = (
        rng.normal(size=(batch, 32, 32, 3)).astype(np.float32),
        rng.integers(10, size=batch),
    )
    model = create_model("resnet32", image_shape=(32, 32, 3), num_classes=10, rngs=nnx.Rngs(0))
    net = TorchNet()
    copy_weights(model, net)
    state, loss, backward, update, step = jax_parts(model, labels)
    flax_state, _, _, _, flax_step = jax_parts(FlaxNet(nnx.Rngs(0)), labels)
    counts = [sum(x.size for x in jax.tree.leaves(s[0])) for s in (state, flax_state)]
    assert {*counts, sum(p.numel() for p in net.parameters())} == {464_154}, counts
    rows = {
        "pytorch": torch_runner(net, images, labels),
        "lt_jax": step_runner(step, state, images),
        "lt_jax, options": step_runner(step, state, images, CPU_COMPILER_OPTIONS),
        "flax layers": step_runner(flax_step, flax_state, images),
        "flax layers, options": step_runner(flax_step, flax_state, images, CPU_COMPILER_OPTIONS),
    }
    losses = {name: rows[name]() for name in ("pytorch", "lt_jax", "lt_jax, options")}
    assert np.ptp(list(losses.values())) < 1e-4, losses
    arguments, fast = (state[0], state[2], images), CPU_COMPILER_OPTIONS
    rows["part: forward"] = runner(loss, *arguments, options=fast)
    rows["part: forward, backward"] = runner(backward, *arguments, options=fast)
    rows["part: update"] = runner(update, state[0], state[1], state[0], options=fast)
    return rows, losses


def measure(rows, repeats):
    """Wall seconds and processor seconds of every row, interleaved."""
    for run in rows.values():
        run()
    times = {name: [] for name in rows}
    for _ in range(repeats):
        for name, run in rows.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: np.array(pairs) for name, pairs in times.items()}


def summary(times, batch):
    """Medians, spread and the median of the paired ratios to PyTorch."""
    peer, result = times["pytorch"], {}
    for name, pairs in times.items():
        wall = pairs[:, 0] * 1e3
        result[name] = {
            "images_per_s": batch / np.median(pairs[:, 0]),
            "ms_median": np.median(wall),
            "ms_quartiles": np.percentile(wall, [25, 75]).tolist(),
            "ms_min": wall.min(),
            "cpu_ms_median": np.median(pairs[:, 1]) * 1e3,
            "speed_over_pytorch": np.median(peer[:, 0] / pairs[:, 0]),
            "speed_over_pytorch_quartiles": np.percentile(
                peer[:, 0] / pairs[:, 0], [25, 75]
            ).tolist(),
        }
    return result


def hardware():
    """The processor and how many of its cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": names[0] if names else platform.processor(), "cores": cores}


def main():
    """Checks, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    machine = hardware()
    torch.set_num_threads(machine["cores"])
    rows, losses = build(arguments.batch)
    result = summary(measure(rows, arguments.repeats), arguments.batch)
    titles = ("", "images/s", "ms", "quartiles", "CPU ms", "speed / PyTorch")
    print("{:26s}{:>9s}{:>8s}{:>15s}{:>8s}{:>17s}".format(*titles))
    for name, row in result.items():
        low, high = row["ms_quartiles"]
        print(f"{name:26s}{row['images_per_s']:9.0f}{row['ms_median']:8.0f}{low:8.0f}-{high:<6.0f}"
              f"{row['cpu_ms_median']:8.0f}{row['speed_over_pytorch']:17.2f}")  # fmt: skip
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "torch", "numpy")}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    report = {"hardware": machine, "load_average": load, "versions": packages, "losses": losses}
    report |= {"batch": arguments.batch, "repeats": arguments.repeats, "rows": result}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
