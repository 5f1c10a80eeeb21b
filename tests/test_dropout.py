"""Networks of users that are random in training: dropout, and noise of their own.

What they draw depends on the seed and the number of the step alone, as all else that is random in
a run; nothing of it is saved, and no other draw moves because of it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from divisions import SHORT
from exported import assert_scores, exported
from flax import nnx
from second_stages import assert_refused, assert_same
from tiny_runs import PixelNet, assert_resumes, checkpoint, rows, tiny

from lt_jax import models, objectives, sharding
from lt_jax.data import load_dataset
from lt_jax.errors import InputError
from lt_jax.extract import extract_features
from lt_jax.models import create_model
from lt_jax.retrain import retrain
from lt_jax.state import init_state, make_network
from lt_jax.steps import Split, make_train_step
from lt_jax.train import train
from lt_jax.two_stage import augment_fields


class Dropping(PixelNet):
    """Dropout of pixels and of features."""

    rate = 0.5

    def __init__(self, num_channels, *, head, dtype, rngs):
        super().__init__(num_channels, head=head, dtype=dtype, rngs=rngs)
        self.of_pixels = nnx.Dropout(self.rate, rngs=rngs)
        self.of_features = nnx.Dropout(self.rate, rngs=rngs)

    def features(self, images, *, train):
        kept = self.of_pixels(images, deterministic=not train)
        return super().features(kept, train=train)

    def __call__(self, images, *, train):
        features = self.features(images, train=train)
        return self.head(self.of_features(features, deterministic=not train))


class NeverDropping(Dropping):
    """It has all that is needed for dropout, and drops nothing."""

    rate = 0.0


class Noisy(PixelNet):
    """Noise by hand, of a stream that its initial weights came from too."""

    def __init__(self, num_channels, *, head, dtype, rngs):
        super().__init__(num_channels, head=head, dtype=dtype, rngs=rngs)
        self.rngs = rngs

    def features(self, images, *, train):
        noise = self.rngs.noise.normal(images.shape) if train else 0.0
        return super().features(images + noise, train=train)


class Mask(PixelNet):
    """Its logits are what dropout makes of ones, of several layers: ``[B, 3]``."""

    def __init__(self, num_channels, *, head, dtype, rngs):
        super().__init__(num_channels, head=head, dtype=dtype, rngs=rngs)
        self.dropouts = nnx.List([nnx.Dropout(0.25, rngs=rngs) for _ in range(2)])
        self.again = self.dropouts[1]  # shared, so drawn from twice

    def __call__(self, images, *, train):
        ones = jnp.ones(len(images))
        layers = (*self.dropouts, self.again)
        return jnp.stack([layer(ones, deterministic=not train) for layer in layers], axis=1)


class Recording(PixelNet):
    """It keeps what it has drawn last among its statistics."""

    def __init__(self, num_channels, *, head, dtype, rngs):
        super().__init__(num_channels, head=head, dtype=dtype, rngs=rngs)
        self.rngs, self.drawn = rngs, nnx.BatchStat(jnp.zeros(4))

    def __call__(self, images, *, train):
        if train:
            self.drawn[...] = self.rngs.noise.normal(4)
        return super().__call__(images, train=train)


class Forgetful(Dropping):
    """It leaves it to dropout to know when it is off."""

    def features(self, images, *, train):
        return PixelNet.features(self, self.of_pixels(images), train=train)

    def __call__(self, images, *, train):
        return self.head(self.of_features(self.features(images, train=train)))


class AlwaysRandom(Forgetful):
    """It drops when it is tested too."""

    def features(self, images, *, train):
        return PixelNet.features(self, self.of_pixels(images, deterministic=False), train=train)


NETWORKS = {
    "pixels": PixelNet,
    "dropping": Dropping,
    "never_dropping": NeverDropping,
    "noisy": Noisy,
    "mask": Mask,
    "recording": Recording,
    "forgetful": Forgetful,
    "always_random": AlwaysRandom,
}


@pytest.fixture(autouse=True)
def _networks(monkeypatch):
    for name, network in NETWORKS.items():
        monkeypatch.setitem(models.MODELS, name, network)


def network_of(name):
    """The pure functions of such a network for digits, and its weights."""
    network = make_network(
        lambda rngs: create_model(name, image_shape=(8, 8, 1), num_classes=10, rngs=rngs)
    )
    return network, *jax.jit(network.init)(jax.random.key(0))


def dropping(method="cross_entropy", **fields):
    """A run with dropout, and with all else that is random."""
    return tiny(
        method,
        **{
            "model__name": "dropping",
            "augment__mixup_alpha": 0.4,
            "augment__crop_padding": 1,
            **fields,
        },
    )


def train_losses(folder):
    return np.array([row["loss"] for row in rows(folder) if row["split"] == "train"])


# The functions of a network


def test_a_mask_is_drawn_anew_by_every_key_and_layer():
    """Against the binomial distribution; kept values grow by as much as others are lost."""
    network, params, stats = network_of("mask")
    images = jnp.zeros((4000, 8, 8, 1))
    masks = [network.apply(params, stats, images, True, jax.random.key(k))[0] for k in range(2)]
    columns = np.concatenate(masks, axis=1)
    assert set(np.unique(columns)) == {0, np.float32(1 / 0.75)}
    kept = columns > 0
    deviation = np.sqrt(0.25 * 0.75 / 4000)
    assert np.abs(kept.mean(axis=0) - 0.75).max() < 4 * deviation
    assert np.abs(np.corrcoef(kept.T) - np.eye(6)).max() < 4 / np.sqrt(4000)
    again, _ = network.apply(params, stats, images, True, jax.random.key(1))
    np.testing.assert_array_equal(again, masks[1])


def test_masks_of_mapped_keys_are_those_of_one_after_another():
    network, params, stats = network_of("mask")
    images, keys = jnp.zeros((50, 8, 8, 1)), jax.random.split(jax.random.key(3), 4)

    def mask(key):
        return network.apply(params, stats, images, True, key)[0]

    np.testing.assert_array_equal(jax.jit(jax.vmap(mask))(keys), jnp.stack(list(map(mask, keys))))


@pytest.mark.parametrize("name", ["dropping", "noisy", "forgetful"])
def test_nothing_is_random_in_evaluation(name):
    """Also where a network does not tell dropout whether it is trained."""
    network, params, stats = network_of(name)
    plain, _, _ = network_of("pixels")
    images = jax.random.normal(jax.random.key(1), (5, 8, 8, 1))
    assert network.draws
    assert not plain.draws
    for key in (None, jax.random.key(4)):
        found = network.apply(params, stats, images, False, key)
        assert_same(found, plain.apply(params, stats, images, False))
    np.testing.assert_array_equal(
        network.features(params, stats, images), plain.features(params, stats, images)
    )
    trained, _ = network.apply(params, stats, images, True, jax.random.key(4))
    assert not np.allclose(trained, plain.apply(params, stats, images, True)[0])


def test_streams_of_several_keys_keep_their_shape(monkeypatch):
    """As of layers that are mapped over, each with a key of its own."""

    class Layers(Mask):
        def __init__(self, num_channels, *, head, dtype, rngs):
            PixelNet.__init__(self, num_channels, head=head, dtype=dtype, rngs=rngs)
            self.streams = rngs.noise.split(3)

        def __call__(self, images, *, train):
            draw = nnx.vmap(lambda stream: stream.normal(()), in_axes=0)
            return draw(self.streams) if train else jnp.zeros(3)

    monkeypatch.setitem(models.MODELS, "mask", Layers)
    network, params, stats = network_of("mask")
    images = jnp.zeros((1, 8, 8, 1))
    drawn, _ = network.apply(params, stats, images, True, jax.random.key(0))
    assert len(set(drawn.tolist())) == 3


# Runs


def test_what_is_drawn_depends_on_seed_and_step_alone():
    """On neither the weights nor the images, nor on what was drawn before."""
    network, params, stats = network_of("recording")
    objective, optimizer = objectives.chain(base=objectives.softmax_cross_entropy), optax.sgd(0.1)
    step = make_train_step(network, objective, optimizer, augment_fields(), sharding.make_mesh(1))
    state = init_state((params, stats), optimizer, objective, keep_best=False)
    labels, step = jnp.arange(4), jax.jit(step)

    def drawn(seed, number, images=0, after=state):
        split = Split(jnp.full((4, 8, 8, 1), images, jnp.uint8), labels, jnp.ones(1), jnp.ones(1))
        at = after._replace(step=jnp.int32(number))
        new, _ = step(at, jax.random.key(seed), split, labels)
        return new, tuple(new.stats["drawn"].tolist())

    later, first = drawn(0, 0)
    assert len({first, drawn(0, 1)[1], drawn(1, 0)[1], drawn(1, 1)[1]}) == 4
    assert drawn(0, 0, images=200, after=later)[1] == first


def test_only_what_the_network_draws_is_new(tmp_path):
    """A network that could drop but does not ends as one that cannot, to the last bit.

    So no other draw has moved: weights, order, crops, mixup, what a loss draws.
    """
    found = []
    for name in ("pixels", "never_dropping", "dropping", "noisy"):
        config = dropping("gcl_stage1", model__name=name, train__epochs=1)
        train(config, tmp_path / name)
        found.append(checkpoint(tmp_path / name))
    assert_same(found[0], found[1])
    for other in found[2:]:
        assert jax.tree.structure(other) == jax.tree.structure(found[0])
        assert not np.allclose(
            other["params"]["head"]["kernel"], found[0]["params"]["head"]["kernel"]
        )


@pytest.mark.parametrize(("mode", "per_call"), [("sequential", 1), ("vmap", 2)])
def test_stopped_and_resumed_is_bit_exact(tmp_path, monkeypatch, mode, per_call):
    config = dropping(replicas=2, replica_mode=mode, train__steps_per_call=per_call)
    assert_resumes(lambda folder: train(config, folder), 4, tmp_path, monkeypatch)


def test_the_same_masks_however_a_run_is_carried_out(tmp_path, monkeypatch):
    """Side by side, several steps a call, on eight devices that may share weights, or alone."""
    monkeypatch.setattr(sharding, "_SMALL", 1)
    ways = {
        "turns": {"replicas": 2, "replica_mode": "sequential"},
        "vmap": {"replicas": 2, "replica_mode": "vmap"},
        "several": {"replicas": 2, "replica_mode": "sequential", "train__steps_per_call": 3},
        "devices": {"replicas": 2, "train__num_devices": 8},
        "alone": {"seed": 1},
        "fsdp": {"seed": 1, "train__num_devices": 8, "train__fsdp": True},
    }
    found = {}
    for name, fields in ways.items():
        train(dropping(train__epochs=1, **fields), tmp_path / name)
        found[name] = train_losses(tmp_path / name)
    for name in ("vmap", "several", "devices"):
        np.testing.assert_allclose(found[name], found["turns"], rtol=2e-3)
    np.testing.assert_allclose(found["fsdp"], found["alone"], rtol=2e-3)
    np.testing.assert_array_equal(found["alone"][:, 0], found["turns"][:, 1])
    assert not np.allclose(found["turns"][:, 0], found["turns"][:, 1], rtol=2e-3)


@pytest.mark.parametrize("stage", ["crt", "tau_norm", "dlsa"])
def test_second_stages_and_exported_models_drop_nothing(stage, tmp_path, monkeypatch):
    """What is exported gives the scores of the run; features are those of one without dropout."""
    short = SHORT if stage == "dlsa" else {}
    config = dropping(train__epochs=1)
    first = train(config, tmp_path / "first")
    two = tiny(
        f"cross_entropy/{stage}",
        **{"model__name": "dropping", "train__epochs": 1, **short},
        augment__mixup_alpha=0.4,
        augment__crop_padding=1,
    )
    summary = retrain(two, tmp_path / "second", tmp_path / "first")
    dataset = load_dataset(config["data"])
    for name, found in (("first", first), ("second", summary)):
        model = exported(tmp_path / name, tmp_path / f"exported_{name}")
        assert_scores(model, dataset, found["test"]["last"]["replicas"][0])
    if stage != "dlsa":
        return
    kept = {}
    for name in ("dropping", "pixels"):
        monkeypatch.setitem(models.MODELS, "dropping", NETWORKS[name])
        (folder,) = extract_features(tmp_path / "first", tmp_path / f"features_{name}")
        kept[name] = [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]
    assert_same(kept["dropping"], kept["pixels"])


# Refusals


def test_one_that_is_random_in_evaluation_is_refused(tmp_path):
    assert_refused(
        lambda: train(tiny(model__name="always_random"), tmp_path / "run"),
        r"'always_random' draws random numbers in evaluation mode; expected .*not train",
        tmp_path / "run",
    )


def test_a_key_that_is_no_stream_is_refused(monkeypatch):
    """It would be saved, and the same in every step."""

    class Keeping(PixelNet):
        def __init__(self, num_channels, *, head, dtype, rngs):
            super().__init__(num_channels, head=head, dtype=dtype, rngs=rngs)
            self.key = nnx.Variable(rngs.noise())

    monkeypatch.setitem(models.MODELS, "pixels", Keeping)
    with pytest.raises(InputError, match="the network Keeping keeps a random key in a variable"):
        network_of("pixels")
