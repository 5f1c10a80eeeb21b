"""Networks of users: what is needed of them, said in a sentence before anything is trained."""

import functools

import jax.numpy as jnp
import pytest
from flax import nnx
from second_stages import _no_training, assert_refused  # noqa: F401 (a fixture)
from tiny_runs import PixelNet, tiny

from lt_jax import models
from lt_jax.export import export_run
from lt_jax.extract import extract_features
from lt_jax.models import create_model
from lt_jax.retrain import retrain
from lt_jax.train import train


class Plain(nnx.Module):
    """The least that a first stage needs: no features of its own."""

    num_features = 64

    def __init__(self, num_channels, *, head, dtype, rngs):
        self.head = head

    def __call__(self, images, *, train):
        return self.head(images.reshape(images.shape[0], -1))


class WithoutWidth(Plain):
    @property
    def num_features(self):
        return 64


class OfKnownClasses(Plain):
    def __init__(self, num_channels, num_classes, *, rngs):
        self.head = nnx.Linear(64, num_classes, rngs=rngs)


class Headless(Plain):
    def __init__(self, num_channels, *, head, dtype, rngs):
        self.classifier = head


class Modeless(Plain):
    def __call__(self, images):
        return self.head(images.reshape(images.shape[0], -1))


class Callless(nnx.Module):
    num_features = 64
    __init__ = Plain.__init__


class FeaturesByLayers(Plain):
    """Features as torchvision's networks have them: layers, which take no mode."""

    def __init__(self, num_channels, *, head, dtype, rngs):
        super().__init__(num_channels, head=head, dtype=dtype, rngs=rngs)
        self.features = nnx.Linear(64, 64, rngs=rngs)


class Planes(Plain):
    def features(self, images, *, train):
        return images


class Wider(Plain):
    def features(self, images, *, train):
        return jnp.ones((images.shape[0], 65))


class Compiled(Plain):
    """A method that is wrapped takes what it is written with."""

    @nnx.jit(static_argnames="train")
    def __call__(self, images, *, train):
        return self.head(images.reshape(images.shape[0], -1))


def by_function(num_channels, **given):
    """A network need not be named by its class."""
    return PixelNet(num_channels, **given)


by_function.num_features = 64


def unnumbered(num_channels, **given):
    return PixelNet(num_channels, **given)


def with_options(num_inputs, depth, *, width=64, head, dtype, rngs):
    return PixelNet(num_inputs, head=head, dtype=dtype, rngs=rngs)


with_options.num_features = 64


@pytest.fixture(autouse=True)
def register(monkeypatch):
    """Makes ``own`` the name of a network."""
    return lambda network: monkeypatch.setitem(models.MODELS, "own", network)


def own(method="cross_entropy", **fields):
    return tiny(method, model__name="own", train__epochs=1, **fields)


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (unnumbered, r"'own' has no num_features: a network is a class with num_features, made by"),
        (WithoutWidth, r"'own' has num_features <property.*expected the number of its features"),
        (OfKnownClasses, r"'own' cannot be made \(.*'num_classes'\): .*\*, head, dtype, rngs"),
        (with_options, r"'own' cannot be made \(.*'depth'\)"),
        (Headless, r"'own' keeps no head: .* keeps the head as self.head"),
        (Modeless, r"'own' cannot be called \(.*'train'\): .*__call__\(images, \*, train\)"),
        (Callless, r"'own' gives no logits"),
    ],
)
def test_what_a_network_lacks_is_said_before_it_is_trained(network, sentence, register, tmp_path):
    register(network)
    assert_refused(lambda: train(own(), tmp_path / "run"), sentence, tmp_path / "run")


@pytest.mark.parametrize(
    "network", [Plain, Compiled, by_function, functools.partial(with_options, depth=3)]
)
def test_whatever_fits_is_made(network, register):
    register(network)
    model = create_model("own", image_shape=(8, 8, 1), num_classes=3, rngs=nnx.Rngs(0))
    assert model(jnp.zeros((2, 8, 8, 1)), train=True).shape == (2, 3)


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("stage", ["crt", "ncm", "dlsa"])
@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Plain, r"network Plain gives no features: .*second stage, .*features\(images, \*, train"),
        (FeaturesByLayers, r"network FeaturesByLayers gives no features \(.*'train'\)"),
        (Planes, r"'own' gives features of shape \(2, 8, 8, 1\) for 2 images; expected \(2, 64\)"),
        (Wider, r"features of shape \(2, 65\) for 2 images; expected \(2, 64\)"),
    ],
)
def test_features_that_a_second_stage_lacks_are_missed_before_the_first(
    network, sentence, stage, register, tmp_path
):
    register(network)
    config = own(f"cross_entropy/{stage}")
    assert_refused(lambda: train(config, tmp_path / "run"), sentence, tmp_path / "run")


def test_one_stage_needs_no_features(register, tmp_path):
    """It is trained and exported; only what needs them is refused, and writes nothing."""
    register(Plain)
    first = tmp_path / "first"
    train(own(), first)
    assert (export_run(first, tmp_path / "exported", platforms=["cpu"]) / "model.json").exists()
    sentence = "the network Plain gives no features"
    for call in (
        lambda out: retrain(own("cross_entropy/crt"), out, first),
        lambda out: extract_features(first, out),
    ):
        assert_refused(lambda call=call: call(tmp_path / "out"), sentence, tmp_path / "out", first)
