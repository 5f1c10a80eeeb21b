"""The fused kernels of CIFAR ResNets compute what the layers do, and can be lowered for a GPU."""

from types import SimpleNamespace

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
from lt_jax.models.fused.convolutions import Running, Weights, forward
from lt_jax.models.fused.tiles import Conv

DEPTH = 8  # one block a stage: each kind of layer once
REPLICAS = 2


def network(*, is_fused, dtype=jnp.float32):
    head = LinearHead(ResNetCIFAR.num_features, 5, rngs=nnx.Rngs(1))
    model = ResNetCIFAR(DEPTH, 3, head=head, dtype=dtype, fused=is_fused, rngs=nnx.Rngs(0))
    graph, params, stats = nnx.split(model, nnx.Param, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def results(*, is_fused, sides):
    """Logits, statistics and gradients of two replicas in training mode, by `vmap`."""
    graph, params, stats = network(is_fused=is_fused)
    rng = np.random.default_rng(2)

    def drawn(*shape):
        return rng.standard_normal(shape, np.float32)

    def other(leaf):  # scales and biases of 1 and 0 would hide mistakes
        return np.asarray(leaf) + 0.1 * drawn(REPLICAS, *leaf.shape)

    images, weights = drawn(REPLICAS, 3, *sides, 3), drawn(3, 5)

    def total(params, stats, images):
        model = nnx.merge(graph, params, stats)
        logits = model(images, train=True)
        new = nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])
        return (logits * weights).sum(), (logits, new)

    run = jax.vmap(jax.grad(total, argnums=(0, 2), has_aux=True))
    stats = jax.tree.map(lambda leaf: np.stack([leaf, leaf + 1]), stats)
    return jax.jit(run)(jax.tree.map(other, params), stats, images)


@pytest.mark.parametrize("sides", [(9, 7), (6, 12)], ids=["pixel by pixel", "in pairs"])
def test_values_gradients_and_statistics_are_those_of_the_layers(sides):
    """Also of images whose sides are odd, and of the pixels; every replica its own."""
    own, kernels = (results(is_fused=is_fused, sides=sides) for is_fused in (False, True))
    assert jax.tree.structure(own) == jax.tree.structure(kernels)
    for (path, expected), found in zip(
        jax.tree.leaves_with_path(own), jax.tree.leaves(kernels), strict=True
    ):
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=3e-5 * size, rtol=0, err_msg=str(path))


@pytest.fixture
def lowered(monkeypatch):
    """Lowers a function for a GPU, here."""
    if hasattr(triton, "get_gpu_info"):  # newer versions ask for the GPU, and none is here
        from jax._src.pallas.triton import pallas_call_registration as registration

        info = triton.get_gpu_info_from_version(triton.GpuVersion.H100)
        monkeypatch.setattr(registration.gpu_info_lib, "get_gpu_info", lambda: info)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    return lambda f, *arguments: (
        jax.jit(f).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    )


def test_the_kernels_can_be_lowered_for_a_gpu(lowered):
    """Whether Triton has every operation does not show on a CPU, where they are simulated."""
    graph, params, stats = network(is_fused=True, dtype=jnp.bfloat16)

    def total(params, images):
        return nnx.merge(graph, params, stats)(images, train=True).sum()

    text = lowered(jax.grad(total), params, jnp.zeros((4, 16, 16, 3)))
    # One forward kernel and one for the gradients of each kind of layer.
    assert text.count("triton") >= 2 * 5


def test_a_large_batch_can_be_lowered(lowered):
    """Triton bounds the size of a tile: sums over the programs are read in pieces."""
    conv = Conv(512, 224, 224, 16, 16, 1)
    images = jax.ShapeDtypeStruct((conv.pixels * 16,), jnp.bfloat16)
    weights = Weights(jnp.zeros(9 * 16 * 16), jnp.zeros(32), jnp.zeros(2, jnp.int32))
    running = Running(jnp.zeros(16), jnp.ones(16))
    counter = jnp.zeros(1, jnp.int32)
    text = lowered(
        lambda images: forward(images, weights, running, counter, conv=conv, interpret=False),
        images,
    )
    assert "triton" in text


def test_evaluation_does_not_need_them():
    """The same weights classify alike, by the layers, wherever they were trained."""
    graph, params, stats = network(is_fused=True)
    plain, *_ = network(is_fused=False)
    images = jax.random.normal(jax.random.key(3), (2, 8, 8, 3))
    one, other = (nnx.merge(g, params, stats)(images, train=False) for g in (graph, plain))
    np.testing.assert_array_equal(one, other)


def devices_like(*, count=1, **facts):
    """What `check_fused` sees of a mesh."""
    return SimpleNamespace(size=count, devices=np.array([SimpleNamespace(**facts)] * count))


H200 = {"device_kind": "NVIDIA H200", "compute_capability": "9.0"}
T4 = {"device_kind": "Tesla T4", "compute_capability": "7.5"}
MI300 = {"device_kind": "MI300", "compute_capability": "gfx942"}


@pytest.mark.parametrize(
    ("dtype", "mesh", "expected"),
    [
        ("float32", devices_like(**H200), "expected 'bfloat16'"),
        ("bfloat16", sharding.make_mesh(1), "1 device.*, cpu; expected one NVIDIA GPU"),
        ("bfloat16", devices_like(**T4), "Tesla T4; expected .*8.0"),
        ("bfloat16", devices_like(**MI300), "MI300; expected one NVIDIA"),
        ("bfloat16", devices_like(**H200, count=2), "on 2 device"),
    ],
)
def test_they_are_refused_where_they_do_not_run(dtype, mesh, expected):
    """One sentence, before data is read."""
    config = tiny(model__fused=True, model__dtype=dtype)
    with pytest.raises(InputError, match=expected):
        build.check_fused(config, mesh)


def test_they_are_not_refused_where_they_run():
    build.check_fused(tiny(model__fused=True, model__dtype="bfloat16"), devices_like(**H200))
    build.check_fused(tiny(model__fused=False), sharding.make_mesh(8))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [("small", (8, 8, 1), "only CIFAR"), ("resnet20", (8, 8, 17), "at most 16 channels")],
)
def test_networks_without_them_are_refused(name, shape, expected):
    with pytest.raises(InputError, match=expected):
        create_model(name, image_shape=shape, num_classes=3, fused=True, rngs=nnx.Rngs(0))
