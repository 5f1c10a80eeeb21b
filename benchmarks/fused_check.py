r"""Fused kernels against the layers they replace, on the GPU that is there.

    python benchmarks/fused_check.py --out=results/benchmarks/fused_check.json

Features and gradients of ResNet-32 on 128 images (and of four replicas side by side), as
distances ||found - expected|| / ||expected|| from the layers in float32: of the layers in bfloat16,
and of the fused kernels. Fused kernels are right if they are no further than the layers. They run
twice: their bits must not depend on the order in which programs run.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import nnx

OUT = flags.DEFINE_string("out", "", "JSON to write.")
DEPTH = flags.DEFINE_integer("depth", 32, "Layers of the network.")
BATCH = flags.DEFINE_integer("batch", 128, "Images.")
SIDE = flags.DEFINE_integer("side", 32, "Pixels of an image's side.")


def gradients(dtype, *, fused, replicas):
    """Features and gradients of all weights; by `vmap` for several replicas."""
    from lt_jax.models import LinearHead, ResNetCIFAR

    head = LinearHead(ResNetCIFAR.num_features, 10, rngs=nnx.Rngs(1))
    kind = {"dtype": dtype, "fused": fused, "rngs": nnx.Rngs(0)}
    graph, params, stats = nnx.split(ResNetCIFAR(DEPTH.value, 3, head=head, **kind), nnx.Param, ...)
    stats = nnx.to_pure_dict(stats)
    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def drawn(*shape):
        return jax.random.normal(next(keys), (replicas, *shape))

    params = jax.tree.map(lambda leaf: leaf + 0.1 * drawn(*leaf.shape), nnx.to_pure_dict(params))
    images = drawn(BATCH.value, SIDE.value, SIDE.value, 3)
    weights = drawn(BATCH.value, ResNetCIFAR.num_features)

    def total(params, images, weights):
        features = nnx.merge(graph, params, stats).features(images, train=True)
        return (features * weights).sum(), features

    run = jax.jit(jax.vmap(jax.grad(total, has_aux=True)))
    of_params, features = run(params, images, weights)
    return {"features": features, "gradients": jax.tree.leaves(of_params)}


def norm_of_difference(found, expected):
    """Relative to the expected one."""
    size = jnp.maximum(jnp.linalg.norm(expected), 1e-12)
    return float(jnp.linalg.norm(found - expected) / size)


def distance(found, expected):
    """Of an array, or the mean over those of a list."""
    if not isinstance(found, list):
        return norm_of_difference(found, expected)
    pairs = [pair for pair in zip(found, expected, strict=True) if jnp.any(pair[1])]
    return sum(norm_of_difference(*pair) for pair in pairs) / len(pairs)


def main(argv):
    """Compares, prints and writes."""
    from lt_jax import environment

    report = environment.stamp()
    for replicas in (1, 4):
        with jax.default_matmul_precision("highest"):
            exact = gradients(jnp.float32, fused=False, replicas=replicas)
        runs = {
            "layers": gradients(jnp.bfloat16, fused=False, replicas=replicas),
            "fused": gradients(jnp.bfloat16, fused=True, replicas=replicas),
        }
        again = gradients(jnp.bfloat16, fused=True, replicas=replicas)
        same = jax.tree.map(lambda a, b: bool((a == b).all()), runs["fused"], again)
        report[f"{replicas} replicas"] = {
            "same bits twice": all(jax.tree.leaves(same)),
            **{
                what: {name: distance(run[what], exact[what]) for name, run in runs.items()}
                for what in exact
            },
        }
    print(json.dumps(report, indent=1))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
