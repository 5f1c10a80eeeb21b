"""What a step does with a batch: mixed labels, cut-out pixels, transforms that start too late."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import tiny

from lt_jax import objectives, sharding
from lt_jax.errors import InputError
from lt_jax.models.initial import constant, he_normal
from lt_jax.prepare import prepare
from lt_jax.state import Network, init_state
from lt_jax.steps import Batch, Split, make_train_step
from lt_jax.two_stage import augment_fields

CLASSES = 4
LOGITS = np.random.default_rng(0).normal(size=(5, CLASSES)).astype(np.float32)


def step(**augmentation):
    """Of a network whose logits are its inputs plus a bias."""
    objective = objectives.chain(base=objectives.softmax_cross_entropy)
    network = Network(
        init=lambda key: ({"bias": jnp.zeros(CLASSES)}, {}),
        apply=lambda params, stats, x, train, key=None: (x + params["bias"], stats),
        features=lambda params, stats, x: x,
        classify=lambda params, x: x,
    )
    optimizer = optax.sgd(1.0)
    state = init_state(network.init(None), optimizer, objective, keep_best=False)
    fields = {**augment_fields(), **augmentation}
    mesh = sharding.make_mesh(1)
    return make_train_step(network, objective, optimizer, fields, mesh), state


def test_a_start_is_one_program_however_many_shapes_a_network_has(caplog):
    """One for each shape of weights, momenta and best weights took a GPU seconds."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    objective = objectives.chain(base=objectives.softmax_cross_entropy)

    def start(*widths):
        params = {
            width: {
                "kernel": he_normal(jax.random.key(0), (3, width)),
                "bias": constant(0.0, width),
            }
            for width in widths
        }
        return init_state((params, {}), optimizer, objective, keep_best=True)

    start(5)
    with jax.log_compiles():
        state = start(7, 11, 13)
    compiled = [r.message for r in caplog.records if r.message.startswith("Finished XLA comp")]
    assert len(compiled) == 1, compiled
    momenta = jax.tree.leaves(state.optimizer)
    assert [m.shape for m in momenta] == [x.shape for x in jax.tree.leaves(state.params)]
    assert not any(map(np.any, jax.tree.leaves((momenta, state.best.params, state.best.stats))))
    assert state.best.score == -np.inf


@pytest.mark.parametrize("lam", [0.0, 0.2, 1.0])
def test_a_mixed_batch_has_the_share_of_each_loss(lam):
    """Zhang et al., ICLR 2018: lam of an image's own label, the rest of its partner's."""
    own, partner = np.array([0, 1, 2, 3, 0]), np.array([3, 3, 1, 0, 2])
    train_step, state = step()
    batch = Batch(
        jnp.asarray(LOGITS), jnp.concatenate([own, partner]), jnp.float32(lam), jax.random.key(0)
    )
    new, loss = train_step.update(state, batch)
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    targets = lam * np.eye(CLASSES)[own] + (1 - lam) * np.eye(CLASSES)[partner]
    np.testing.assert_allclose(loss, -(targets * log_p).sum(axis=1).mean(), rtol=1e-5)
    gradient = (np.exp(log_p) - targets).mean(axis=0)
    np.testing.assert_allclose(new.params["bias"], -gradient, atol=1e-6)


def test_mixup_pairs_labels_with_the_images_that_were_mixed():
    """Images are one-hot of their labels, so that the mixed ones tell both shares."""
    train_step, state = step(mixup_alpha=1.0)
    labels = np.arange(CLASSES)
    split = Split(jnp.eye(CLASSES), jnp.asarray(labels), None, None)
    for seed in range(5):
        batch = train_step.draw(state.step, jax.random.key(seed), split, jnp.asarray(labels))
        own, partner = np.split(np.asarray(batch.labels), 2)
        expected = batch.lam * np.eye(CLASSES)[own] + (1 - batch.lam) * np.eye(CLASSES)[partner]
        np.testing.assert_allclose(batch.images, expected, atol=1e-6)
        np.testing.assert_array_equal(own, labels)


def test_what_is_cut_out_is_the_mean_pixel():
    """So 0 where the network sees it, whatever the colours."""
    train_step, state = step(cutout_size=16)
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), np.uint8)
    mean, std = np.array([0.2, 0.5, 0.8], np.float32), np.array([0.3, 0.2, 0.1], np.float32)
    split = Split(jnp.asarray(images), jnp.zeros(6, jnp.int32), mean, std)
    batch = train_step.draw(state.step, jax.random.key(0), split, jnp.arange(6))
    # Twice as large as the image, so that all of it is cut out, up to the rounding of a pixel.
    np.testing.assert_allclose(batch.images, np.zeros((6, 8, 8, 3)), atol=0.5 / 255 / std.min())


@pytest.mark.parametrize(("start", "told"), [(0.8, False), (1.0, False), (2.0, True)])
def test_a_transform_that_never_starts_is_told(tmp_path, capsys, start, told):
    """Of two epochs; before anything is trained."""
    config = tiny("ldam_drw", model__name="small")
    config.objective.transforms.class_balanced.start_epoch = start
    prepare(config, tmp_path)
    sentence = f"class_balanced starts with epoch {start:g} of 2, so never; a start_epoch of 0.8"
    assert (sentence in capsys.readouterr().err) == told


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"warmup_epochs": 2.0}, "rises to the end: optimizer.warmup_epochs is 2 of 2 epochs."),
        ({"warmup_epochs": 1.0}, ""),
        (
            {"schedule": "step", "milestones": (1, 160, 180), "factors": (0.1, 0.1, 0.1)},
            "is not lowered at epoch 160 and 180: there are 2; optimizer.milestones are epochs.",
        ),
    ],
)
def test_a_learning_rate_for_longer_runs_is_told(tmp_path, capsys, fields, sentence):
    """As when the epochs of a paper's recipe are fewer; before anything is trained."""
    config = tiny(model__name="small")
    config.optimizer.update(fields)
    prepare(config, tmp_path)
    told = capsys.readouterr().err
    assert sentence in told
    assert ("the learning rate" in told) == bool(sentence)


def test_losses_of_mixed_images_are_those_of_both_labels():
    """Each with its own cloud, without rows of padding, and counted as one step."""
    counts, key = [90, 30, 9, 3], jax.random.key(3)
    objective = objectives.chain(
        objectives.gaussian_cloud(counts, margin=0.1, scale=8.0),
        objectives.deferred(objectives.class_balanced(counts), 1),
        base=objectives.softmax_cross_entropy,
    )
    own, partner = np.array([0, 1, 2, 3, 0]), np.array([3, 3, 1, 0, 2])
    where, lam = np.array([True] * 4 + [False]), np.linspace(0, 1, 5)
    arguments = (objective.init(), key, jnp.tanh(LOGITS), np.concatenate([own, partner]), lam)
    loss, state = objectives.mixed_loss(objective, *arguments, where)
    apart, _ = objective.apply(
        objective.init(), key, jnp.tile(jnp.tanh(LOGITS), (2, 1)), arguments[3], np.tile(where, 2)
    )
    expected = lam * apart[:5] + (1 - lam) * apart[5:]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert loss[4] == 0
    assert state[1].step == 1
    with pytest.raises(InputError, match=r"lam has shape \(5, 1\); expected a scalar, or one"):
        objectives.mixed_loss(objective, *arguments[:4], lam[:, None])
