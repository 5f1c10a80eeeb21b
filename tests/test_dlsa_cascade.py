"""DLSA's cascade on made features, on which it is known what it has to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_jax import dlsa
from lt_jax.data.made import made_features
from lt_jax.dlsa import cascade, heads
from lt_jax.dlsa.fit import init_fit
from lt_jax.errors import InputError

CLASSES, SEEDS = 6, (0, 1)
FLOW = dlsa.FlowOptions(
    num_clusters=30, separation=3.5, hidden=32, purity=3.0, likelihood=1.0, weight_power=1.0,
    epochs=30, batch_size=64, optimizer="adam", learning_rate=0.005,
)  # fmt: skip
OPTIONS = dlsa.CascadeOptions(depth=2, take=0.5, eval_every=10, select="last")
HEADS = dlsa.HeadOptions(epochs=40, learning_rate=0.1)
MADE = {"num_classes": CLASSES, "dim": 6, "modes": 3, "max_count": 600, "imbalance": 20.0}


@functools.cache
def splits(modes=3):
    """Standardised features ``[R, N, D]`` and labels of each split."""
    made = made_features(0, held_out=50, **{**MADE, "modes": modes})
    mean, std = made.train[0].mean(axis=0), made.train[0].std(axis=0)
    return {
        name: (jnp.stack([jnp.asarray((part[0] - mean) / std)] * len(SEEDS)), part[1])
        for name, part in made._asdict().items()
    }


def whole(modes=3):
    (train, labels), (validation, held_out) = splits(modes)["train"], splits(modes)["validation"]
    every = np.ones((len(SEEDS), len(labels)), bool)
    held = np.ones((len(SEEDS), len(held_out)), bool)
    return dlsa.Task(train, labels, every, validation, held, CLASSES)


def keys(number):
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), number))(jnp.array(SEEDS))


def fitted(modes=3):
    """Two blocks of two replicas."""
    made = []
    for number in range(OPTIONS.depth):
        task = dlsa.rest_of(made, whole(modes), FLOW.bound)
        fit = dlsa.fit_block(keys(number), task, FLOW, OPTIONS)
        made.append(dlsa.closed(fit, task, number, FLOW, OPTIONS))
    return made


@pytest.fixture(scope="module")
def blocks():
    """Of classes with several modes."""
    return fitted()


@pytest.fixture(scope="module")
def divided(blocks):
    return {
        name: dlsa.divide(blocks, features, FLOW.bound) for name, (features, _) in splits().items()
    }


def test_every_sample_is_in_one_part_and_each_block_takes_its_share(blocks, divided):
    for split in divided.values():
        assert set(np.unique(split.part)) == {0, 1, 2}
    # Of the validation samples that come to it a block takes the share that it was told.
    part = divided["validation"].part
    np.testing.assert_allclose((part == 0).mean(axis=1), OPTIONS.take, atol=0.01)
    left = (part > 0).sum(axis=1)
    np.testing.assert_allclose((part == 1).sum(axis=1) / left, OPTIONS.take, atol=0.02)
    # What a block is fitted to is what those before it have not taken.
    second = dlsa.rest_of(blocks[:1], whole(), FLOW.bound)
    np.testing.assert_array_equal(second.where, divided["train"].part > 0)
    assert (blocks[1].table.sum(axis=(1, 2)) == second.where.sum(axis=1)).all()


def test_training_samples_are_left_out_of_the_tables_of_their_clusters(blocks, divided):
    """They are all in them, in each block that they came to; other samples are in none."""
    features, labels = splits()["train"]
    inputs = dlsa.inputs_of(divided["train"], features, labels)
    tables = dlsa.tables_of(blocks, len(SEEDS), CLASSES)
    shares = np.asarray(jax.vmap(dlsa.class_shares)(tables, inputs))
    rest = divided["train"].part == OPTIONS.depth
    assert not shares[rest].any()
    np.testing.assert_allclose(shares[~rest].sum(axis=-1), 1, rtol=1e-5)
    r, i = 1, int(np.flatnonzero(divided["train"].part[1] == 1)[0])
    came = divided["train"].part[r] >= 1
    cluster = divided["train"].cluster[1, r]
    others = came & (cluster == cluster[i]) & (np.arange(len(labels)) != i)
    counts = np.bincount(labels[others], minlength=CLASSES)
    np.testing.assert_allclose(shares[r, i], counts / counts.sum(), rtol=1e-5)
    assert (dlsa.inputs_of(divided["test"], splits()["test"][0]).own == -1).all()


def heads_program():
    """Training of the classifiers, and the classes they give to other samples."""
    labels = jnp.asarray(splits()["train"][1])
    prior = jnp.log(jnp.asarray(np.bincount(labels) / len(labels), jnp.float32))
    members = dlsa.members_of(labels, CLASSES)

    def one(key, tables, train, test):
        made = heads.fit_heads(key, train, labels, members, prior, tables, HEADS)
        return dlsa.part_logits(made, tables, test, HEADS).argmax(axis=-1)

    return jax.jit(jax.vmap(one))


def gain(blocks, modes, program):
    """Balanced accuracy with the parts less that of balanced softmax on the same features."""
    tables = dlsa.tables_of(blocks, len(SEEDS), CLASSES)
    train, test = (
        dlsa.inputs_of(dlsa.divide(blocks, x, FLOW.bound), x, y if name == "train" else None)
        for name, (x, y) in splits(modes).items()
        if name != "validation"
    )
    expected = splits(modes)["test"][1]
    found = []
    for factor in (1, 0):  # at 0 all samples are in one part without clusters
        parts = [
            i._replace(part=factor * i.part, cluster=factor * i.cluster) for i in (train, test)
        ]
        right = np.asarray(program(keys(9), factor * tables, *parts)) == expected
        found.append(np.mean([right[:, expected == c].mean() for c in range(CLASSES)]))
    return found[0] - found[1]


def test_dividing_helps_where_a_linear_classifier_cannot_and_costs_nothing_where_it_can(blocks):
    """More than ten points with several modes a class, within one with a Gaussian each."""
    program = heads_program()
    assert gain(blocks, 3, program) > 0.1
    assert abs(gain(fitted(modes=1), 1, program)) < 0.01


def test_the_distance_of_centres_does_not_depend_on_the_dimension():
    """Coordinates of deviation 0.05 at D = 2048, as published, are 0.28 at D = 64."""
    for dim, spread in ((256, 0.05 * 8**0.5), (64, 0.05 * 32**0.5)):
        options = FLOW._replace(separation=3.2, num_clusters=200, hidden=4)
        _, centres = init_fit(jax.random.key(0), dim, options, 10)
        assert abs(float(centres.std()) - spread) < 0.02 * spread
        distance = np.linalg.norm(centres[:100] - centres[100:], axis=1).mean()
        assert abs(distance - 3.2) < 0.1


def test_stopped_and_resumed_is_the_same_to_the_last_bit():
    flow = FLOW._replace(epochs=4)
    options = OPTIONS._replace(eval_every=2, select="pure_clusters")
    undisturbed = dlsa.fit_block(keys(0), whole(), flow, options)
    kept = []

    def stop_after_two(fit, facts):
        assert facts["terms"].shape == (len(SEEDS), 3)
        assert ("score" in facts) == (fit.epoch % 2 == 0)
        kept.append(jax.tree.map(np.asarray, fit))  # as a checkpoint has it
        return fit.epoch < 2

    assert dlsa.fit_block(keys(0), whole(), flow, options, after_epoch=stop_after_two) is None
    stopped = kept[-1]
    again = jax.tree.map(jnp.asarray, stopped)._replace(epoch=2, score=stopped.score)
    resumed = dlsa.fit_block(keys(0), whole(), flow, options, fit=again)
    jax.tree.map(np.testing.assert_array_equal, resumed, undisturbed)


def test_the_best_epoch_is_kept_for_each_replica_by_itself():
    task = whole()
    fit = cascade.block.start_fit(keys(0), task, FLOW)
    place = cascade.block.make_place(FLOW.bound)
    other = jax.tree.map(lambda x: x + 1.0, fit.best)
    fit = fit._replace(best=other, score=np.array([1e9, -np.inf]))
    found, score = cascade.block.chosen(fit, task, place, "validation_likelihood")
    held_out = place(fit.state.flow, fit.centres, task.validation).log_likelihood
    np.testing.assert_allclose(score, held_out.mean(axis=1))
    np.testing.assert_allclose(found.score, [1e9, score[1]])
    for new, mine, theirs in zip(
        *(jax.tree.leaves(t) for t in (found.best, fit.state.flow, other)), strict=True
    ):
        np.testing.assert_array_equal(new[0], theirs[0])
        np.testing.assert_array_equal(new[1], mine[1])


@pytest.mark.parametrize(
    ("change", "has_validation", "sentence"),
    [
        ({"depth": 0}, True, r"depth is 0; expected at least 1"),
        ({"take": 1.0}, True, r"take is 1.0; expected a number between 0 and 1"),
        ({"eval_every": 0}, True, r"eval_every is 0; expected at least 1"),
        ({"measured_on": "test"}, True, r"measured_on is 'test'; expected 'validation' or 'train'"),
        ({"select": "test_accuracy"}, True, r"select is 'test_accuracy'; expected one of 'pure_cl"),
        ({"thresholds": (1.0,)}, True, r"thresholds is \(1.0,\); expected one for each of the 2"),
        ({}, False, r"there are no validation features"),
        (
            {"measured_on": "train", "select": "validation_likelihood"},
            False,
            r"there are no validation features",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(change, has_validation, sentence):
    def check(options):
        dlsa.check_cascade_options(options)
        dlsa.check_validation(options, has_validation)

    with pytest.raises(InputError, match=sentence):
        check(OPTIONS._replace(**change))
    given = OPTIONS._replace(thresholds=(-10.0, -12.0), select="pure_clusters")
    dlsa.check_cascade_options(given)
    dlsa.check_validation(given, has_validation=False)


def test_fewer_samples_than_clusters_are_refused():
    with pytest.raises(InputError, match=r"a block has 1293 samples for 2000 clusters; expected"):
        cascade.block.start_fit(keys(0), whole(), FLOW._replace(num_clusters=2000))


def test_made_features_are_what_they_are_said_to_be():
    made = made_features(3, held_out=40, **MADE)
    labels = made.train[1]
    assert np.bincount(labels).tolist() == [600, 329, 181, 99, 54, 30]
    assert [len(part[1]) for part in made] == [1293, 40 * CLASSES, 200 * CLASSES]
    again = made_features(4, held_out=40, **MADE)
    assert not np.array_equal(again.test[0], made.test[0])
    # The mean of a rare class is in the middle of two modes: within the frequent class's hull.
    rare = made.test[0][made.test[1] == 3].mean(axis=0)
    assert np.linalg.norm(rare) < 0.9 * 6
    one = made_features(0, **{**MADE, "modes": 1})
    radii = [np.linalg.norm(one.test[0][one.test[1] == c].mean(axis=0)) for c in range(CLASSES)]
    np.testing.assert_allclose(radii, 6, atol=0.4)
    for wrong, sentence in (({"num_classes": 5}, "num_classes is 5"), ({"modes": 0}, "modes is 0")):
        with pytest.raises(InputError, match=sentence):
            made_features(0, **{**MADE, **wrong})
