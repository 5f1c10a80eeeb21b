"""The same logits as torchvision's and timm's own networks, from the weights that they save.

Not part of `make test`, since PyTorch takes gigabytes: `make test-torch` installs it and runs this.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_jax.models import create_model, load_pretrained
from lt_jax.state import make_network

WHY = "PyTorch is not installed; make test-torch installs it"
torch = pytest.importorskip("torch", reason=WHY)
torchvision = pytest.importorskip("torchvision", reason=WHY)
timm = pytest.importorskip("timm", reason=WHY)
save_file = pytest.importorskip("safetensors.torch", reason=WHY).save_file

TOLERANCE = 1e-4
CASES = [
    (name, library, theirs)
    for name, of_torchvision, of_timm in (
        ("resnet18", "resnet18", "resnet18"),
        ("resnet50", "resnet50", "resnet50"),
        ("resnext50", "resnext50_32x4d", "resnext50_32x4d"),
        ("vit_b16", "vit_b_16", "vit_base_patch16_224"),
    )
    for library, theirs in (("torchvision", of_torchvision), ("timm", of_timm))
]


def theirs(library, name, **options):
    """Their network without published weights, which would have to be fetched."""
    if library == "timm":
        return timm.create_model(name, **options)
    return getattr(torchvision.models, name)(**options)


def randomized(model):
    """Weights, and batch statistics, far from those at the start, and so that nothing vanishes."""
    generator = torch.Generator().manual_seed(0)

    def normal(tensor, deviation, mean=0.0):
        tensor.copy_(mean + deviation * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            fan_in = tensor[0].numel() if tensor.ndim else 0
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif name.endswith(("running_mean", "bias")):
                normal(tensor, 0.25)
            elif "token" in name or "pos_embed" in name:
                normal(tensor, 0.5)
            elif tensor.ndim == 1:  # scales
                tensor.uniform_(0.2, 0.8, generator=generator)
            elif tensor.ndim > 1:
                normal(tensor, (2 / fan_in) ** 0.5)
    return model.eval()


def outputs(model, images):
    """Logits of images ``[B, H, W, C]``."""
    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def ours(name, path, model, shape):
    """Our logits as a function of images: their backbone from the file, their head by hand."""
    network = make_network(
        lambda rngs: create_model(name, image_shape=shape, num_classes=1000, rngs=rngs)
    )
    start = jax.eval_shape(network.init, jax.random.key(0))
    params, stats = load_pretrained(path, name, *start)
    head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    weight, bias = (jnp.asarray(x.detach().numpy()) for x in (head.weight, head.bias))
    params = params | {"head": {"kernel": weight.T, "bias": bias}}
    return jax.jit(lambda images: network.apply(params, stats, images, False)[0])


@pytest.mark.parametrize(("name", "library", "published"), CASES)
def test_logits_are_those_of_pytorch(name, library, published, tmp_path):
    model = randomized(theirs(library, published))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    images = np.float32(np.random.default_rng(1).normal(size=(2, 224, 224, 3)))
    expected = outputs(model, images)
    assert expected.std() > 0.3
    logits = ours(name, tmp_path / "w.safetensors", model, images.shape[1:])(images)
    difference = np.abs(logits - expected).max()
    print(f"{name}, {library}: {difference:.1e} of {np.abs(expected).max():.1f}")
    assert difference < TOLERANCE


@pytest.mark.parametrize("size", [(160, 160), (224, 320)])
def test_logits_at_another_size_are_those_of_timm(size, tmp_path):
    """The positions of 14x14 patches are resized by either library on its own."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    published = randomized(theirs("timm", "vit_tiny_patch16_224"))
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    model = theirs("timm", "vit_tiny_patch16_224", img_size=size).eval()
    model.load_state_dict(checkpoint_filter_fn(published.state_dict(), model))
    images = np.float32(np.random.default_rng(1).normal(size=(2, *size, 3)))
    expected = outputs(model, images)
    logits = ours("vit_tiny16", tmp_path / "w.safetensors", model, images.shape[1:])(images)
    difference = np.abs(logits - expected).max()
    print(f"vit_tiny16 at {size}: {difference:.1e} of {np.abs(expected).max():.1f}")
    assert difference < TOLERANCE
