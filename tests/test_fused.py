"""The fused kernels of CIFAR ResNets compute what the layers do, and can be lowered for a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import triton
from tiny_runs import tiny

from lt_jax import build, sharding
from lt_jax.errors import InputError
from lt_jax.models import LinearHead, ResNetCIFAR, create_model

DEPTH = 8  # one block a stage: each kind of layer once
REPLICAS = 2


def network(*, is_fused, dtype=jnp.float32):
    head = LinearHead(ResNetCIFAR.num_features, 5, rngs=nnx.Rngs(1))
    model = ResNetCIFAR(DEPTH, 3, head=head, dtype=dtype, fused=is_fused, rngs=nnx.Rngs(0))
    graph, params, stats = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def results(*, is_fused):
    """Logits, statistics and gradients of two replicas in training mode, by `vmap`."""
    graph, params, stats = network(is_fused=is_fused)
    keys = iter(jax.random.split(jax.random.key(2), 200))

    def other(leaf):  # scales and biases of 1 and 0 would hide mistakes
        noise = jax.random.normal(next(keys), (REPLICAS, *leaf.shape))
        return leaf + 0.1 * noise

    images = jax.random.normal(next(keys), (REPLICAS, 3, 9, 7, 3))
    weights = jax.random.normal(next(keys), (3, 5))

    def total(params, stats, images):
        model = nnx.merge(graph, params, stats)
        logits = model(images, train=True)
        new = nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])
        return (logits * weights).sum(), (logits, new)

    run = jax.vmap(jax.grad(total, argnums=(0, 2), has_aux=True))
    stats = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), stats)
    return jax.jit(run)(jax.tree.map(other, params), stats, images)


def test_values_gradients_and_statistics_are_those_of_the_layers():
    """Also of images whose sides are odd, and of the pixels; every replica its own."""
    own, kernels = results(is_fused=False), results(is_fused=True)
    assert jax.tree.structure(own) == jax.tree.structure(kernels)
    for (path, expected), found in zip(
        jax.tree.leaves_with_path(own), jax.tree.leaves(kernels), strict=True
    ):
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=3e-5 * size, rtol=0, err_msg=str(path))


def test_the_kernels_can_be_lowered_for_a_gpu(monkeypatch):
    """Whether Triton has every operation does not show on a CPU, where they are simulated."""
    if hasattr(triton, "get_gpu_info"):  # newer ones ask for the GPU, and none is here
        from jax._src.pallas.triton import pallas_call_registration as registration

        info = triton.get_gpu_info_from_version(triton.GpuVersion.H100)
        monkeypatch.setattr(registration.gpu_info_lib, "get_gpu_info", lambda: info)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    graph, params, stats = network(is_fused=True, dtype=jnp.bfloat16)

    def total(params, images):
        return nnx.merge(graph, params, stats)(images, train=True).sum()

    images = jnp.zeros((4, 16, 16, 3))
    lowered = jax.jit(jax.grad(total)).trace(params, images).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    # One forward kernel and one for the gradients of each kind of layer.
    assert text.count("triton") >= 2 * 5


def test_evaluation_does_not_need_them():
    """The same weights classify alike, by the layers, wherever they were trained."""
    graph, params, stats = network(is_fused=True)
    plain, *_ = network(is_fused=False)
    images = jax.random.normal(jax.random.key(3), (2, 8, 8, 3))
    one, other = (nnx.merge(g, params, stats)(images, train=False) for g in (graph, plain))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("fields", "backend", "devices", "expected"),
    [
        ({"dtype": "float32"}, "gpu", 1, "expected 'bfloat16'"),
        ({"dtype": "bfloat16"}, "cpu", 1, "on 1 device"),
        ({"dtype": "bfloat16"}, "gpu", 2, "on 2 device"),
    ],
)
def test_they_are_refused_where_they_do_not_run(monkeypatch, fields, backend, devices, expected):
    """One sentence, before data is read."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = tiny(model__fused=True, **{f"model__{k}": v for k, v in fields.items()})
    with pytest.raises(InputError, match=expected):
        build.check_fused(config, sharding.make_mesh(devices))


def test_other_networks_have_none():
    with pytest.raises(InputError, match="no fused kernels"):
        create_model("small", image_shape=(8, 8, 1), num_classes=3, fused=True, rngs=nnx.Rngs(0))
