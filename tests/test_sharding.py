"""What devices hold and tell each other: weights split on request, one sum of gradients a step."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import Killed, PixelNet, dying, leaves, rows, tiny

from lt_jax import assembly, models, programs, sharding
from lt_jax.errors import InputError
from lt_jax.models import VisionTransformer
from lt_jax.prepare import prepare
from lt_jax.run import evaluate
from lt_jax.train import train


class Wide(VisionTransformer):
    """Large enough to be worth splitting, at one block."""

    num_features, num_heads, depth, patch_size = 64, 2, 1, 4


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setitem(models.MODELS, "wide", Wide)
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


def config_of(**fields):
    """A few steps on all eight devices."""
    return tiny(**{"train__num_devices": 8, "augment__flip": True, **fields})


def of_transformer(**fields):
    return config_of(model__name="wide", optimizer__learning_rate=0.02, **fields)


def test_split_weights_train_like_whole_ones(tmp_path):
    """FSDP for an epoch, killed, and whole weights from its checkpoint on, end as whole ones do."""
    whole = train(of_transformer(), tmp_path / "whole")
    with dying(1), pytest.raises(Killed):
        train(of_transformer(train__fsdp=True), tmp_path / "split")
    split = train(of_transformer(), tmp_path / "split")
    losses = [
        [row["loss"] for row in rows(tmp_path / name) if row["split"] == "train"]
        for name in ("whole", "split")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for one, other in zip(leaves(tmp_path / "whole"), leaves(tmp_path / "split"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-4)
    assert split["training"]["parameters"] == whole["training"]["parameters"]


def test_each_device_holds_its_share(tmp_path):
    run = prepare(of_transformer(train__fsdp=True), tmp_path)
    keys = jax.random.split(jax.random.key(0), 1)
    states = run.replicas.init(keys)
    order = np.asarray(run.replicas.order(keys, 0))[:, :1]
    after, _ = run.replicas.advance(states, keys, run.splits["train"], order)
    for state in (run.replicas.init(keys), after):
        for tree in (state.params, state.optimizer, state.best.params):
            large = [leaf for leaf in jax.tree.leaves(tree) if leaf.size >= 1 << 14]
            assert large
            for leaf in large:
                assert leaf.addressable_shards[0].data.size * 8 == leaf.size


def test_what_the_host_reads_is_whole_everywhere(tmp_path, monkeypatch):
    """Also the confusions of a thousand classes, or processes could not read each other's part."""
    monkeypatch.setattr(sharding, "_SMALL", 1)
    fields = {"train__num_devices": 5, "train__batch_size": 60}  # five share ten classes
    run = prepare(of_transformer(train__fsdp=True, **fields), tmp_path)
    states = run.replicas.init(jax.random.split(jax.random.key(0), 1))
    counts = evaluate(run, states, "validation")
    assert counts.confusion.shape == (1, 10, 10)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(counts))


def test_split_weights_are_for_one_replica(tmp_path):
    with pytest.raises(InputError, match=r"config.train.fsdp is True and config.replicas 2; expec"):
        train(of_transformer(train__fsdp=True, replicas=2), tmp_path)


def test_the_longest_axis_that_can_be_shared_is_split():
    mesh = sharding.make_mesh(8)
    spec = sharding.split_largest(mesh, (1, 100, 512, 300), first=1).spec
    assert tuple(spec) == (None, None, "batch")
    for shape in ((1, 8, 8), (8, 99_999)):  # too small, and not to be shared evenly
        assert tuple(sharding.split_largest(mesh, shape, first=1).spec) == ()


def compiled_step(config, tmp_path):
    """The compiled text of a step of all replicas side by side."""
    config.replica_mode = "vmap"
    run = prepare(config, tmp_path)
    keys = jax.random.split(jax.random.key(0), config.replicas)
    order = np.asarray(run.replicas.order(keys, 0))[:, :1]
    advance: Any = run.replicas.advance
    lowered = advance.lower(run.replicas.init(keys), keys, run.splits["train"], order)
    return lowered.compile().as_text()


def collectives(text):
    """Kinds and the shapes of what they carry."""
    found = re.findall(
        r" = (\(?[^()]*(?:\([^()]*\))?[^()]*?\)?) "
        r"(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(",
        text,
    )
    return [(kind, re.findall(r"\w+\[([\d,]*)\]", shapes)) for shapes, kind in found]


@pytest.mark.parametrize(("objective", "replicas"), [("plm", 1), ("cross_entropy", 3)])
def test_a_step_sums_all_gradients_at_once_and_gathers_nothing(tmp_path, objective, replicas):
    """Beside them devices share only sums by channel, of batch norm, and by class, of PLM."""
    config = tiny(objective, train__num_devices=8, model__name="small", replicas=replicas)
    config.augment.crop_padding = 1
    found = collectives(compiled_step(config, tmp_path))
    assert {kind for kind, _ in found} == {"all-reduce"}
    kernels = [[s for s in shapes if s.count(",") >= 3] for _, shapes in found]
    # Those of three layers, in one group.
    assert [len(group) for group in kernels if group] == [3 * replicas]
    for shape in (s for _, shapes in found for s in shapes if s.count(",") < 3):
        assert np.prod([int(n) for n in shape.split(",") if n]) <= 10 * 64 * replicas


def test_what_is_found_in_a_step_would_be_a_gather(tmp_path):
    """The same search finds one where there is one: mixup's partners are on other devices."""
    config = tiny(train__num_devices=8, model__name="small", augment__mixup_alpha=1.0)
    kinds = {kind for kind, _ in collectives(compiled_step(config, tmp_path))}
    assert kinds > {"all-reduce"}


def test_many_programs_in_a_row_do_not_wait_for_each_other_for_ever():
    """Forty products that eight CPU devices sum; queued at once XLA would end the process."""
    mesh = sharding.make_mesh(8)
    program = jax.jit(
        lambda x: jnp.sum(x @ x.swapaxes(1, 2)), out_shardings=sharding.replicated(mesh)
    )
    ones = jax.device_put(np.ones((8, 300, 300), np.float32), sharding.split_batch(mesh))
    results = [sharding.awaited(program, mesh)(ones) for _ in range(40)]
    assert {float(result) for result in results} == {8 * 300.0**3}
    assert sharding.awaited(program, sharding.make_mesh(1)) is program


def test_gpus_compute_a_convolution_before_programs_with_graphs_of_them(monkeypatch):
    """Each of them, once: XLA cannot start cuDNN while it records a graph."""
    seen = []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 0))
    monkeypatch.setattr(programs, "conv2d", lambda x, _: seen.extend(x.devices()) or x)
    programs._start_cudnn.cache_clear()
    for _ in range(2):
        assert programs.compiler_options() == programs.GPU_COMPILER_OPTIONS
    programs._start_cudnn.cache_clear()
    assert seen == jax.local_devices()


@pytest.mark.parametrize(
    ("backend", "devices", "chosen", "found"),
    [
        ("gpu", 1, None, [True]),
        ("gpu", 8, None, [False]),  # each would draw the numbers of all; also after a run on one
        ("cpu", 1, None, []),
        ("gpu", 1, "0", []),  # as the user said
    ],
)
def test_one_gpu_draws_random_bits_by_kernels(backend, devices, chosen, found, monkeypatch):
    """Programs are quicker to compile; JAX has the same bits either way."""
    name, settings = "jax_threefry_gpu_kernel_lowering", []
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax.config, "update", lambda *pair: settings.append(pair))
    monkeypatch.delenv(name.upper(), raising=False)
    if chosen:
        monkeypatch.setenv(name.upper(), chosen)
    programs.Compiler(sharding.make_mesh(devices), vmapped=False, fsdp=False)
    assert settings == [(name, value) for value in found]


@pytest.mark.parametrize(
    ("steps_per_epoch", "many"),
    [(96, 24), (97, 97), (193, 193), (200, 20), (389, 20), (7, 20)],
)
def test_an_epoch_on_an_accelerator_is_calls_of_one_program(monkeypatch, steps_per_epoch, many):
    """About 20 steps each; a second program only where an epoch cannot be divided."""
    assert assembly.updates_per_call(0, steps_per_epoch) == 1  # on a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert assembly.updates_per_call(0, steps_per_epoch) == many
    assert assembly.updates_per_call(3, steps_per_epoch) == 3
