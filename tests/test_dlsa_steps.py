"""DLSA: what a step of a flow's training does, against its formulas written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_jax import dlsa
from lt_jax.dlsa import block, fit

DIM, CLASSES, CLUSTERS, BATCH = 5, 4, 6, 16
LABELS = np.repeat(np.arange(CLASSES), [40, 12, 6, 4])
# Plain gradient descent, whose rate hardly falls in so long a training.
OPTIONS = dlsa.FlowOptions(
    num_clusters=CLUSTERS, hidden=7, likelihood=0.7, balance=1.3, purity=0.4, purity_floor=2.0,
    weight_power=2.0, batch_size=BATCH, optimizer="sgd", learning_rate=0.05, momentum=0.0, clip=0.0,
)  # fmt: skip
FOREVER = 10**6


def features(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(len(LABELS), DIM)) + LABELS[:, None]).astype(np.float32)


def loss_by_hand(params, stats, centres, running, step, both, weights):
    """The three terms as written in the paper and in docs/methods/dlsa.md."""
    latents, log_det, _ = dlsa.forward(dlsa.Flow(params, stats), both, train=True, bound=3.0)
    squares = ((latents[:, None] - centres) ** 2).sum(axis=-1)
    log_p = log_det[:, None] - DIM / 2 * np.log(2 * np.pi) - squares / 2
    own, other = log_p[:BATCH], log_p[BATCH:]
    likelihood = jnp.log(jnp.exp(own).mean(axis=1)) / DIM
    posterior = jnp.exp(own) / jnp.exp(own).sum(axis=1, keepdims=True)
    mean = 0.7 * running + 0.3 * (posterior.mean(axis=0) + 1e-7)
    q = mean / (1 - 0.7**step)
    other = jnp.log(jnp.exp(other) / jnp.exp(other).sum(axis=1, keepdims=True))
    purity = (jax.lax.stop_gradient(posterior) * jnp.maximum(other, -2.0)).sum(axis=1).mean()
    balance = np.log(CLUSTERS) + (q * jnp.log(q)).sum()
    terms = jnp.stack([-(weights * likelihood).mean(), balance, purity])
    return (terms * np.array([0.7, 1.3, 0.4])).sum(), (terms, mean)


def test_steps_are_those_of_the_formulas():
    """Terms, the average of the balance term with its correction, and the weights after."""
    x, members = jnp.asarray(features()), dlsa.members_of(LABELS, CLASSES)
    by_class = np.array([0.5, 1.0, 3.0, 7.0])  # unlike each other, as those of classes are
    epoch = jax.jit(fit.make_epoch(OPTIONS, 1, FOREVER))
    key = jax.random.key(1)
    state, centres = fit.init_fit(key, DIM, OPTIONS, FOREVER)
    running = np.zeros(CLUSTERS)
    for step in range(1, 4):
        pairs = dlsa.draw_pairs(jax.random.fold_in(key, step - 1), members, BATCH)
        positives, negatives = (np.asarray(rows) for rows in pairs)
        grads, (terms, running) = jax.grad(loss_by_hand, has_aux=True)(
            state.flow.params,
            state.flow.stats,
            centres,
            running,
            step,
            x[np.concatenate([positives, negatives])],
            by_class[LABELS[positives]],
        )
        expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.flow.params, grads)
        state, found = epoch(
            state, key, centres, x, jnp.asarray(LABELS), members, jnp.float32(by_class)
        )
        np.testing.assert_allclose(found, terms, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.running, running, rtol=1e-4)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            state.flow.params,
            expected,
        )


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_a_gradient_is_clipped_to_its_largest_norm(clip):
    """A step of descent is then as long as the rate times that norm; a short one stays."""
    lengths = {}
    for name, options in {"free": OPTIONS, "clipped": OPTIONS._replace(clip=clip)}.items():
        key = jax.random.key(2)
        state, centres = fit.init_fit(key, DIM, options, FOREVER)
        after, _ = fit.make_epoch(options, 1, FOREVER)(
            state, key, centres, jnp.asarray(features()), jnp.asarray(LABELS),
            dlsa.members_of(LABELS, CLASSES), jnp.ones(CLASSES),
        )  # fmt: skip
        moved = jax.tree.map(lambda a, b: np.sum((a - b) ** 2.0), after.flow, state.flow).params
        lengths[name] = np.sqrt(sum(jax.tree.leaves(moved)))
    expected = min(lengths["free"], 0.05 * clip)
    np.testing.assert_allclose(lengths["clipped"], expected, rtol=1e-3)


def task_of(where):
    whole = jnp.stack([jnp.asarray(features(seed)) for seed in range(len(where))])
    none = jnp.zeros((len(where), 0, DIM)), np.zeros((len(where), 0), bool)
    return dlsa.Task(whole, LABELS, where, *none, CLASSES)


def test_a_block_trains_on_what_is_left_to_it():
    """Pairs and weights of each replica are those of its own samples, not of the whole set."""
    rng = np.random.default_rng(3)
    where = np.stack([rng.random(len(LABELS)) < 0.7, LABELS != 0])
    task, keys = task_of(where), jax.random.split(jax.random.key(4), 2)
    before = block.start_fit(keys, task, OPTIONS)
    alone = jax.tree.map(jnp.copy, before.state)  # as its buffers are given up
    found, terms = block.make_advance(task, OPTIONS)(before, keys)
    steps = round(len(LABELS) / BATCH)
    epoch = jax.jit(fit.make_epoch(OPTIONS, steps, steps * OPTIONS.epochs))
    for r in range(2):
        counts = np.bincount(LABELS[where[r]], minlength=CLASSES)
        raw = np.divide(counts.max(), counts, out=np.zeros(CLASSES), where=counts > 0) ** 2
        weights = raw / raw[counts > 0].mean()
        one, expected = epoch(
            jax.tree.map(lambda leaf, r=r: leaf[r], alone),
            keys[r],
            before.centres[r],
            task.features[r],
            jnp.asarray(LABELS),
            dlsa.members_of(LABELS, CLASSES, where[r]),
            jnp.float32(weights),
        )
        np.testing.assert_allclose(terms[r], expected, rtol=1e-3, atol=1e-4)
        jax.tree.map(
            lambda a, b, r=r: np.testing.assert_allclose(a[r], b, rtol=5e-3, atol=5e-4),
            found.state.flow,
            one.flow,
        )


def test_of_epochs_with_equal_scores_the_later_is_kept():
    """It has been trained for longer; a worse one is not kept."""
    task = task_of(np.ones((1, len(LABELS)), bool))
    start = block.start_fit(jax.random.split(jax.random.key(5), 1), task, OPTIONS)
    later = jax.tree.map(lambda leaf: leaf + 1, start.state.flow)
    fit_now = start._replace(state=start.state._replace(flow=later))

    def placed(*_):  # each class is a cluster of its own
        return dlsa.block.Placed(np.zeros((1, len(LABELS))), LABELS[None].astype(np.int64))

    pure_ones = 2  # those of 40 and of 12 samples, which are larger than 10
    for score, kept in ((pure_ones, later), (pure_ones + 1, start.best), (0, later)):
        before = fit_now._replace(score=np.array([float(score)]))
        after, found = block.chosen(before, task, placed, "pure_clusters")
        assert found.tolist() == [pure_ones]
        jax.tree.map(np.testing.assert_array_equal, after.best, kept)
        assert after.score.tolist() == [max(score, pure_ones)]


def test_running_statistics_move_by_a_tenth():
    flow = dlsa.init_flow(jax.random.key(6), DIM)
    x = jnp.asarray(features())
    first, settled = dlsa.forward(flow, x, train=True)[2], flow
    for _ in range(400):
        settled = settled._replace(stats=dlsa.forward(settled, x, train=True)[2])
    for once, always in zip(first, settled.stats, strict=True):
        np.testing.assert_allclose(once["mean"], 0.1 * always["mean"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(once["var"], 0.9 + 0.1 * always["var"], rtol=1e-4)
