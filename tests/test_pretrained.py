"""Weights under torchvision's names: the same features as a NumPy ResNet has."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_jax.build import initial_weights
from lt_jax.errors import InputError
from lt_jax.models import create_model, load_pretrained
from lt_jax.models.names import resnet_name
from lt_jax.state import make_network

BLOCKS = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnext50": (True, (3, 4, 6, 3)),
}
GROUPS = {"resnext50": 32}  # of 4 channels in the first stage, twice as many in each after it
IMAGE = (33, 40, 3)  # an odd and an even side: another alignment of the strides would show


def network(name):
    return make_network(
        lambda rngs: create_model(name, image_shape=IMAGE, num_classes=5, rngs=rngs)
    )


def start(made):
    """Shapes of the backbone, whose weights take long to draw, and a head with weights."""
    params, stats = jax.eval_shape(made.init, jax.random.key(0))
    rng = np.random.default_rng(2)
    head = {k: np.float32(rng.normal(size=x.shape)) for k, x in params["head"].items()}
    return params | {"head": head}, stats


def convolutions(name):
    """(convolution, its batch norm, shape OIHW) as torchvision's ResNets are described."""
    bottleneck, num_blocks = BLOCKS[name]
    yield "conv1", "bn1", (64, 3, 7, 7)
    inputs = 64
    for stage, number in enumerate(num_blocks):
        width = 64 * 2**stage
        outputs = 4 * width if bottleneck else width
        for block in range(number):
            place = f"layer{stage + 1}.{block}"
            if name in GROUPS:
                inner = GROUPS[name] * 4 * 2**stage
                sizes = [(inner, inputs, 1), (inner, 4 * 2**stage, 3), (outputs, inner, 1)]
            elif bottleneck:
                sizes = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            else:
                sizes = [(width, inputs, 3), (width, width, 3)]
            for index, (out, into, size) in enumerate(sizes, 1):
                yield f"{place}.conv{index}", f"{place}.bn{index}", (out, into, size, size)
            if block == 0 and (bottleneck or stage > 0):
                yield f"{place}.downsample.0", f"{place}.downsample.1", (outputs, inputs, 1, 1)
            inputs = outputs


def random_weights(name):
    """float32 arrays by name, with running statistics far from those at the start."""
    rng, weights = np.random.default_rng(0), {}
    for conv, norm, shape in convolutions(name):
        channels = shape[:1]
        weights[f"{conv}.weight"] = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{norm}.weight"] = rng.uniform(0.2, 0.8, channels)
        weights[f"{norm}.bias"] = rng.normal(size=channels) / 4
        weights[f"{norm}.running_mean"] = rng.normal(size=channels) / 4
        weights[f"{norm}.running_var"] = rng.uniform(0.5, 2.0, channels)
        weights[f"{norm}.num_batches_tracked"] = np.array(7)
    return {k: np.float32(v) if v.ndim else v for k, v in weights.items()} | {
        "fc.weight": np.zeros((1000, shape[0]), np.float32),
        "fc.bias": np.zeros(1000, np.float32),
    }


def windows(x, size, stride, fill):
    """``[B, C, H, W, size, size]`` of padded images ``[B, C, H, W]``."""
    pad = (size // 2, size // 2)
    padded = np.pad(x, ((0, 0), (0, 0), pad, pad), constant_values=fill)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    return seen[:, :, ::stride, ::stride]


def features_numpy(weights, name, images):
    """float64, in PyTorch's layout, every array looked up by its name."""
    w = {key: np.float64(value) for key, value in weights.items()}

    def layer(x, conv, norm, stride=1):
        kernel = w[f"{conv}.weight"]
        seen = windows(x, kernel.shape[2], stride, 0.0)
        groups = seen.shape[1] // kernel.shape[1]  # one, but for a ResNeXt's 3x3
        parts = zip(np.split(seen, groups, 1), np.split(kernel, groups), strict=True)
        parts = [np.tensordot(x, k, ((1, 4, 5), (1, 2, 3))) for x, k in parts]
        x = np.moveaxis(np.concatenate(parts, -1), -1, 1)
        mean, var, scale, bias = (
            w[f"{norm}.{what}"][:, None, None]
            for what in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    bottleneck, num_blocks = BLOCKS[name]
    x = np.maximum(layer(np.moveaxis(np.float64(images), -1, 1), "conv1", "bn1", 2), 0)
    x = windows(x, 3, 2, -np.inf).max((4, 5))
    for stage, number in enumerate(num_blocks):
        for block in range(number):
            place, stride = f"layer{stage + 1}.{block}", 2 if stage and not block else 1
            hidden, last = x, 3 if bottleneck else 2
            for index in range(1, last + 1):
                own = stride if index == last - 1 else 1  # the 3x3 that may have a stride
                hidden = layer(hidden, f"{place}.conv{index}", f"{place}.bn{index}", own)
                hidden = np.maximum(hidden, 0) if index < last else hidden
            if f"{place}.downsample.0.weight" in w:
                x = layer(x, f"{place}.downsample.0", f"{place}.downsample.1", stride)
            x = np.maximum(hidden + x, 0)
    return x.mean((2, 3))


def saved(path, weights):
    """A file of that kind."""
    if path.suffix == ".npz":
        np.savez(path, **weights)
    else:
        pytest.importorskip("safetensors.numpy").save_file(weights, path)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet18", ".npz"), ("resnet50", ".safetensors"), ("resnext50", ".safetensors")],
)
def test_features_and_logits_against_numpy(name, kind, tmp_path):
    weights, images = random_weights(name), np.random.default_rng(1).normal(size=(2, *IMAGE))
    made = network(name)
    path = saved(tmp_path / f"w{kind}", weights)
    params, stats = load_pretrained(path, name, *start(made))
    features = jax.jit(made.features)(params, stats, jnp.float32(images))
    expected = features_numpy(weights, name, images)
    assert expected.std() > 0.3
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)
    head = start(made)[0]["head"]
    logits = expected @ np.float64(head["kernel"]) + head["bias"]
    np.testing.assert_allclose(
        made.classify(params["head"], features), logits, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_has_its_published_name_and_shape(name):
    ours = {
        resnet_name(tuple(key.key for key in keys)): leaf.shape
        for tree in start(network(name))
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    assert ours.pop(None)
    expected = {}
    for conv, norm, (out, into, size, _) in convolutions(name):
        expected[f"{conv}.weight"] = (size, size, into, out)
        for what in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{norm}.{what}"] = (out,)
    assert ours == expected


def norm_of(channels):
    return {"scale": np.ones(channels, np.float32), "bias": np.zeros(channels, np.float32)}


def tiny_start():
    """Trees of a network of one block, and arrays that fit it."""
    block = {0: {"kernel": np.zeros((3, 3, 2, 2), np.float32), **norm_of(2)}}
    params = {
        "stem": {"kernel": np.zeros((7, 7, 3, 2), np.float32), **norm_of(2)},
        "stages": {0: {0: {"layers": block}}},
        "head": {"kernel": np.full((2, 5), 9, np.float32)},
    }
    moments = {"mean": np.zeros(2, np.float32), "var": np.ones(2, np.float32)}
    stats = {"stem": dict(moments), "stages": {0: {0: {"layers": {0: dict(moments)}}}}}
    rng = np.random.default_rng(0)
    names = {"conv1.weight": (2, 3, 7, 7), "layer1.0.conv1.weight": (2, 2, 3, 3)}
    for norm in ("bn1", "layer1.0.bn1"):
        names |= {f"{norm}.{x}": (2,) for x in ("weight", "bias", "running_mean", "running_var")}
    return (params, stats), {k: np.float32(rng.normal(size=v)) for k, v in names.items()}


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16])
@pytest.mark.parametrize("wrapper", ["", "module.", "backbone.", "model."])
def test_any_float_dtype_and_wrapped_names(dtype, wrapper, tmp_path):
    (params, stats), weights = tiny_start()
    wrapped = {wrapper + k: v.astype(dtype) for k, v in weights.items()}
    path = saved(tmp_path / "w.safetensors", wrapped | {"fc.bias": np.zeros(3, np.float32)})
    loaded, loaded_stats = load_pretrained(path, "resnet50", params, stats)
    assert {x.dtype for x in jax.tree.leaves((loaded, loaded_stats))} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(loaded["head"]["kernel"], 9)
    kernel = weights["conv1.weight"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(loaded["stem"]["kernel"], kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        loaded_stats["stages"][0][0]["layers"][0]["var"],
        weights["layer1.0.bn1.running_var"].astype(dtype).astype(np.float32),
    )
    assert not params["stem"]["kernel"].any()  # what was given stays as it was


def without(weights, key):
    return {k: v for k, v in weights.items() if k != key}


CHANGES = {
    r"lacks 'layer1.0.conv1.weight' of resnet50; it holds 'bn1.bias'": lambda w: without(
        w, "layer1.0.conv1.weight"
    ),
    r"'conv1.weight' of .* has shape \(2, 1, 7, 7\); expected \(2, 3, 7, 7\)": lambda w: (
        w | {"conv1.weight": w["conv1.weight"][:, :1].copy()}
    ),
    r"'bn1.running_var' of .* has shape \(3,\); expected \(2,\)": lambda w: (
        w | {"bn1.running_var": np.ones(3, np.float32)}
    ),
    r"holds 'layer1.1.conv1.weight', which resnet50 does not have": lambda w: (
        w | {"layer1.1.conv1.weight": w["layer1.0.conv1.weight"]}
    ),
    r"'bn1.bias' of .* is int32; expected floats": lambda w: (
        w | {"bn1.bias": np.zeros(2, np.int32)}
    ),
    r"'bn1.bias' of .* holds NaN or infinity": lambda w: w | {"bn1.bias": np.float32([0, np.nan])},
}


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
@pytest.mark.parametrize("sentence", CHANGES)
def test_a_file_of_another_network_is_refused(sentence, kind, tmp_path):
    trees, weights = tiny_start()
    path = saved(tmp_path / f"w{kind}", CHANGES[sentence](weights))
    with pytest.raises(InputError, match=sentence):
        load_pretrained(path, "resnet50", *trees)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("none.npz", None, "there is no file .*none.npz"),
        ("none.safetensors", None, "there is no file .*none.safetensors"),
        ("w.h5", b"", "ends in '.h5'; expected .safetensors or .npz"),
        ("w.pth", b"", r"torch.load\('.*w.pth', weights_only=True\), '.*w.safetensors'"),
        ("w.npz", b"PK\x03\x04 and then nothing", "damaged or not an .npz"),
        ("w.npz", b"", "damaged or not an .npz"),
        ("w.safetensors", b"0123456789 nothing", "damaged or not a safetensors"),
        ("w.safetensors", b"", "damaged or not a safetensors"),
    ],
)
def test_an_unusable_file_is_refused(file, content, sentence, tmp_path):
    pytest.importorskip("safetensors")
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        load_pretrained(tmp_path / file, "resnet50", *tiny_start()[0])


def test_pickled_objects_are_never_loaded(tmp_path):
    trees, weights = tiny_start()
    path = saved(tmp_path / "w.npz", weights | {"conv1.weight": np.array([{}], object)})
    with pytest.raises(InputError, match=r"w\.npz holds pickled objects; expected plain arrays"):
        load_pretrained(path, "resnet50", *trees)


def test_a_truncated_file_is_refused(tmp_path):
    trees, weights = tiny_start()
    for kind in (".npz", ".safetensors"):
        path = saved(tmp_path / f"w{kind}", weights)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match="damaged"):
            load_pretrained(path, "resnet50", *trees)


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "w.npy", np.zeros(3))
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    with pytest.raises(InputError, match="single array"):
        load_pretrained(tmp_path / "w.npz", "resnet50", *tiny_start()[0])


@pytest.mark.parametrize(("name", "shape"), [("small", IMAGE), ("resnet32", IMAGE), ("mlp", (4,))])
def test_models_without_published_weights_are_refused(name, shape, tmp_path):
    made = make_network(
        lambda rngs: create_model(name, image_shape=shape, num_classes=5, rngs=rngs)
    )
    with pytest.raises(InputError, match=f"model '{name}' takes no pretrained weights"):
        load_pretrained(tmp_path / "w.npz", name, *start(made))


def test_missing_safetensors_is_told(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("safetensors"):
            raise ImportError("no safetensors")
        return real(name, *args, **kwargs)

    (tmp_path / "w.safetensors").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"pip install 'lt_jax\[pretrained\]'"):
        load_pretrained(tmp_path / "w.safetensors", "resnet50", *tiny_start()[0])


def test_replicas_start_from_one_file_with_heads_and_buffers_of_their_own(tmp_path):
    """A step gives up the buffers of its replica; the other one must still have its weights."""
    made = network("resnet18")
    path = saved(tmp_path / "w.npz", random_weights("resnet18"))
    weights = initial_weights({"model": {"name": "resnet18", "pretrained": str(path)}}, made)
    path.unlink()  # it has been read
    first, second = (weights(jax.random.key(seed), seed)[0] for seed in (0, 1))
    kernels = [params["stem"]["kernel"] for params in (first, second)]
    np.testing.assert_array_equal(*kernels)
    kernels[0].delete()
    assert np.isfinite(np.asarray(kernels[1])).all()
    heads = [np.asarray(params["head"]["kernel"]) for params in (first, second)]
    assert not np.array_equal(*heads)
