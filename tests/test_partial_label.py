"""Partial label masking as a whole: its facts, what it reports, and the traps of other ports."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compiling import optimised_jit
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lt_jax import losses, objectives
from lt_jax.losses import partial_label
from lt_jax.objectives import build_objective, chain, method_spec, partial_label_mask

SIGMOID = objectives.sigmoid_cross_entropy
NUM_EXAMPLES = 64
# Of 64 examples: the first class is always there, the second never, the last in one alone.
COUNTS = np.array([64, 0, 30, 12, 5, 1])
CLASSES, BATCH = len(COUNTS), 16
EVERY = NUM_EXAMPLES // BATCH
VARIABLE = (COUNTS > 0) & (COUNTS < NUM_EXAMPLES)


@cache
def examples():
    """Logits, worse for rarer classes, and multi-hot labels, in an order that stays."""
    rng = np.random.default_rng(8)
    labels = np.argsort(rng.random((NUM_EXAMPLES, CLASSES)), axis=0) < COUNTS
    logits = rng.normal(size=labels.shape) * 2 + np.where(labels, np.linspace(2, -2, CLASSES), -1)
    return logits.astype(np.float32), labels.astype(np.uint8)


def masked(**options):
    options = {"update_every": EVERY, "num_examples": NUM_EXAMPLES, **options}
    return chain(partial_label_mask(COUNTS, **options), base=SIGMOID)


def run(objective, steps, step=None, place=lambda x, rows: x):
    """The states after each of so many steps over the examples, the first not counted."""
    logits, labels = examples()
    step = step or jax.jit(objective.apply)
    state, states = place(objective.init(), False), []
    for n in range(steps):
        rows = np.arange(n * BATCH, (n + 1) * BATCH) % NUM_EXAMPLES
        # Each epoch other logits, as if the network had learnt.
        z = logits[rows] * np.float32(1 + n // EVERY)
        _, state = step(state, jax.random.key(n), *place((z, labels[rows]), True))
        states.append(state)
    return states


def data_ratio():
    with np.errstate(divide="ignore"):
        return np.where(VARIABLE, COUNTS / (NUM_EXAMPLES - COUNTS), np.nan)


# Expected ratios


@pytest.mark.parametrize("kind", ["odds", "share"])
def test_ratio_of_kept_labels_in_expectation(kind):
    """Counted by the gradient at logit 0, which is one half of a kept entry and 0 of a masked."""
    labels = np.arange(1000)[:, None] < np.array([200, 200, 500, 40])
    positives = labels.sum(0)
    share = positives / len(labels)
    ideal = np.array([0.1, 0.6, 0.4, 0.5])
    transform = partial_label_mask(positives, update_every=1, ratio=kind, num_examples=len(labels))
    objective = chain(transform, base=SIGMOID)
    state = (objective.init()[0]._replace(ideal_ratio=jnp.asarray(ideal, jnp.float32)),)

    @jax.jit
    @jax.vmap
    def kept(key):
        def loss(z):
            return objective.apply(state, key, z, jnp.float32(labels))[0].sum()

        return 2 * jnp.abs(jax.grad(loss)(jnp.zeros(labels.shape)))

    keep = np.asarray(kept(jax.random.split(jax.random.key(0), 200))).sum(0)
    kept_positives = np.where(labels, keep, 0).sum(0)
    kept_negatives = np.where(labels, 0, keep).sum(0)
    # One of the two is not masked; the relative error of the other, binomial one is at most
    # 1 / sqrt(its mean), and 5 of these are allowed.
    tolerance = 5 / np.sqrt(np.minimum(kept_positives, kept_negatives).min())
    assert tolerance < 0.06
    odds = kept_positives / kept_negatives
    if kind == "odds":
        np.testing.assert_allclose(odds, ideal, rtol=tolerance)
    else:
        np.testing.assert_allclose(odds, ideal / (1 - share), rtol=tolerance)
        # Which is neither the ideal share nor its odds.
        assert (abs(odds / (1 + odds) / ideal - 1) > 1.5 * tolerance).all()
        assert (abs(odds / (ideal / (1 - ideal)) - 1) > 1.5 * tolerance).all()


def test_shares_are_masked_and_updated_as_ratios():
    """With shares the start is the share, a constant class is left alone, the rest is the same."""
    objective = masked(ratio="share", rate=0.3)
    share = np.where(VARIABLE, COUNTS / NUM_EXAMPLES, 1.0)
    np.testing.assert_allclose(objective.init()[0].ideal_ratio, share, rtol=1e-6)
    state = run(objective, EVERY)[-1][0]
    expected = reference.updated_ideal_ratio(
        share, np.where(VARIABLE, share, np.nan), state.last_positives, state.last_negatives, 0.3
    )
    np.testing.assert_allclose(state.ideal_ratio, expected, rtol=1e-5)
    assert (expected[VARIABLE] != share[VARIABLE]).all()
    odds = run(masked(ratio="odds", rate=0.3), EVERY)[-1][0].ideal_ratio / data_ratio()
    np.testing.assert_allclose((state.ideal_ratio / share)[VARIABLE], odds[VARIABLE], rtol=1e-5)


# The first epoch

# With a focal factor the compiler may fuse another product with another sum once a mask lies
# between them, which rounds differently; at level 0 it fuses none.
PAIRS = (
    ("plm", "sigmoid", optimised_jit),
    ("plm+class_balanced", "cb_sigmoid", optimised_jit),
    ("plm+class_balanced+focal", "cb_focal", jax.jit),
    ("plm_softmax", "cross_entropy", optimised_jit),
)


@pytest.mark.parametrize("kind", ["integers", "multi-hot"])
def test_first_epoch_is_unmasked_to_the_last_bit(kind):
    """A linear model trained for an epoch by a jitted step has the same weights and losses."""
    labels = np.random.default_rng(0).integers(CLASSES, size=NUM_EXAMPLES)
    counts, num_examples = np.bincount(labels, minlength=CLASSES), None
    if kind == "multi-hot":
        labels, counts, num_examples = examples()[1], COUNTS, NUM_EXAMPLES
    x = np.random.default_rng(1).normal(size=(NUM_EXAMPLES, 7)).astype(np.float32)

    def trained(name, jit):
        spec = method_spec(name)
        if name.startswith("plm"):
            spec["transforms"]["partial_label_mask"]["rate"] = 2.0
        objective = build_objective(spec, counts, steps_per_epoch=EVERY, num_examples=num_examples)

        @jit
        def step(weights, state, key, x, y):
            def mean(w):
                loss, new = objective.apply(state, key, x @ w, y)
                return loss.mean(), (loss, new)

            gradient, (loss, state) = jax.grad(mean, has_aux=True)(weights)
            return weights - 0.5 * gradient, state, loss

        weights, state, history = jnp.zeros((7, CLASSES)), objective.init(), []
        for n in range(2 * EVERY):
            rows = np.arange(n * BATCH, (n + 1) * BATCH) % NUM_EXAMPLES
            weights, state, loss = step(weights, state, jax.random.key(n), x[rows], labels[rows])
            history.append((np.asarray(weights), np.asarray(loss)))
        return history

    for with_mask, without, jit in PAIRS:
        if kind == "multi-hot" and without == "cross_entropy":
            continue
        one, other = trained(with_mask, jit), trained(without, jit)
        for n in range(EVERY):
            for a, b in zip(one[n], other[n], strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{with_mask}, step {n}")
        assert (one[-1][0] != other[-1][0]).any(), with_mask


def test_equal_ratios_keep_everything_whatever_the_ratio():
    """Also where a ratio divided by itself might round to less than 1, as by a reciprocal."""
    ratio = np.exp(np.random.default_rng(0).uniform(-12, 12, 20_000)).astype(np.float32)
    targets = np.arange(2, dtype=np.float32)[:, None] * np.ones_like(ratio)
    keep = optimised_jit(lambda ideal: partial_label.keep_probabilities(targets, ratio, ideal))
    assert (keep(ratio) == 1).all()
    assert (keep(np.nextafter(ratio, 0)) < 1).any(-1).tolist() == [False, True]


# State and report


def test_classes_that_none_or_all_have_are_left_alone():
    """They keep their ratio, join no statistic and lose no label; the others' steps sum to 0."""
    options = {"update_every": EVERY, "num_examples": NUM_EXAMPLES, "rate": 0.2, "bound": 1e6}
    objective = chain(partial_label_mask(COUNTS, **options), base=SIGMOID)
    step = jax.jit(objective.apply)
    states = run(objective, 3 * EVERY, step)
    before = states[0][0].ideal_ratio
    assert before[~VARIABLE].tolist() == [1, 1]
    for n in range(EVERY - 1, 3 * EVERY, EVERY):
        moved = np.log(states[n][0].ideal_ratio / before)
        before = states[n][0].ideal_ratio
        assert abs(moved.sum()) < 1e-5
        assert (moved[~VARIABLE] == 0).all()
        assert (moved[VARIABLE] != 0).all()
    without = chain(partial_label_mask(COUNTS[VARIABLE], **options), base=SIGMOID)
    narrow = jax.jit(without.apply)
    alone = run(without, 3 * EVERY, lambda s, k, z, y: narrow(s, k, z[:, VARIABLE], y[:, VARIABLE]))
    np.testing.assert_allclose(before[VARIABLE], alone[-1][0].ideal_ratio, rtol=1e-6)
    # An ideal of nearly 0 masks every positive, but not that of a class which all have.
    none_left = (states[-1][0]._replace(ideal_ratio=jnp.full(CLASSES, 1e-30)),)
    logits, labels = np.zeros((BATCH, CLASSES), np.float32), np.ones((BATCH, CLASSES), np.uint8)
    loss, _ = step(none_left, jax.random.key(0), logits, labels)
    np.testing.assert_allclose(loss, 2 * np.log(2), rtol=1e-6)


def test_report_is_of_the_last_finished_interval():
    objective = masked(rate=0.3)
    report = jax.jit(objective.report)
    start = report(objective.init())
    ratio = np.where(VARIABLE, data_ratio(), 1.0)
    for name, value in start.items():
        if "ratio" in name:
            np.testing.assert_allclose(value, ratio, rtol=1e-6)
        else:
            assert value.shape == ((CLASSES, 10) if "histogram" in name else (CLASSES,))
            assert (value == 0).all()
    logits, labels = examples()
    states = run(objective, 2 * EVERY + 2)
    for n, state in enumerate(states):
        now = report(state)
        assert now.keys() == start.keys()
        finished = (n + 1) // EVERY
        if not finished:
            jax.tree.map(np.testing.assert_array_equal, now, start)
            continue
        histograms = reference.probability_histograms(reference.sigmoid(logits * finished), labels)
        for i, side in enumerate(("positives", "negatives")):
            np.testing.assert_array_equal(now[f"histogram_{side}"], histograms[i])
            expected = [reference.divergence(h, i - 1) if h.any() else 0 for h in histograms[i]]
            np.testing.assert_allclose(now[f"divergence_{side}"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(now["ideal_ratio"], state[0].ideal_ratio)
    # Of replicas, side by side.
    together = jax.vmap(objective.report)(jax.tree.map(lambda *x: jnp.stack(x), *states))
    for n, state in enumerate(states):
        for name, value in report(state).items():
            np.testing.assert_allclose(together[name][n], value, rtol=1e-6, atol=1e-7)


def test_report_passes_through_deferral_and_is_empty_elsewhere():
    inner = partial_label_mask(COUNTS, update_every=2, num_examples=NUM_EXAMPLES)
    objective = chain(
        objectives.deferred(inner, 3),
        objectives.deferred(objectives.class_balanced(COUNTS), 1),
        objectives.focal(),
        base=SIGMOID,
    )
    states = run(objective, 5)
    one, other = objective.report(states[-1]), inner.report(states[-1][-1].inner)
    assert one.keys() == other.keys() != set()
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert one["histogram_positives"].sum() + one["histogram_negatives"].sum() == (
        2 * BATCH * CLASSES
    )
    for name in ("cross_entropy", "ldam_drw", "distribution_balanced"):
        stateless = build_objective(method_spec(name), [5, 2])
        assert stateless.report(stateless.init()) == {}


def test_same_state_on_one_and_on_eight_devices():
    """To the last bit, over five updates; the losses but for the rounding of their sums."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 8
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    spec = method_spec("plm+class_balanced+focal")
    spec["transforms"]["partial_label_mask"]["rate"] = 0.4
    objective = build_objective(spec, COUNTS, steps_per_epoch=EVERY, num_examples=NUM_EXAMPLES)
    step = optimised_jit(objective.apply)
    one = run(objective, 5 * EVERY, step)
    many = run(
        objective, 5 * EVERY, step, lambda x, split: jax.device_put(x, rows if split else whole)
    )
    assert len(many[-1][-1].ideal_ratio.sharding.device_set) == 8
    jax.tree.map(np.testing.assert_array_equal, one, many)
    ideal = np.array([state[-1].ideal_ratio[2] for state in one])
    assert np.unique(ideal).size == 6


# Traps of other ports


def check_facts(base=SIGMOID):
    """What each trap breaks: the histograms, the update of the ratios, and which labels count."""
    logits, labels = examples()
    transform = partial_label_mask(COUNTS, update_every=2, rate=0.3, num_examples=NUM_EXAMPLES)
    objective, shift = chain(transform, base=base), np.linspace(0.3, 3.0, CLASSES)
    first = objective.init()[0]
    state, key = (first._replace(ideal_ratio=first.ideal_ratio * shift),), jax.random.key(0)

    @jax.jit
    def gradient(z, state):
        def mean(z):
            loss, new = objective.apply(state, key, z, labels)
            return loss.mean(), new

        return jax.grad(mean, has_aux=True)(z)

    slope, after = gradient(logits, state)
    histograms = reference.probability_histograms(reference.sigmoid(logits), labels)
    np.testing.assert_array_equal(after[0].positives, histograms[0])
    np.testing.assert_array_equal(after[0].negatives, histograms[1])

    _, updated = gradient(logits, after)
    doubled = [2 * h for h in histograms]
    expected = reference.updated_ideal_ratio(
        np.asarray(state[0].ideal_ratio), data_ratio(), *doubled, 0.3
    )
    np.testing.assert_allclose(updated[0].ideal_ratio, expected, rtol=1e-5)

    uniform = np.asarray(jax.random.uniform(jax.random.fold_in(key, 0), logits.shape))
    ratio = np.where(VARIABLE, data_ratio(), 1.0)
    keep = ~VARIABLE | (uniform < reference.keep_probabilities(labels, ratio, ratio * shift))
    assert 0.2 < keep.mean() < 0.9
    whole = (reference.sigmoid(logits) - labels) / NUM_EXAMPLES
    np.testing.assert_allclose(slope, np.where(keep, whole, 0.0), rtol=1e-4, atol=1e-8)


def of_logits(histograms, probabilities, *rest):
    return histograms(jax.scipy.special.logit(probabilities), *rest)


def swapped(histograms, *arguments):
    return histograms(*arguments)[::-1]


def collapsed(divergence, histogram, *, positives):
    value = divergence(histogram, positives=positives)
    return jnp.full_like(value, value.sum())


def mask_on_a_reduced_loss(logits, targets, *, weights, keep):
    loss = losses.sigmoid_cross_entropy(logits, targets, weights=weights).mean()
    return (loss * keep).sum(-1) / keep.mean() / keep.shape[1]


def test_the_facts_hold():
    check_facts()


@pytest.mark.parametrize(
    ("function", "trap", "broken"),
    [
        ("probability_histograms", of_logits, "not equal"),
        ("probability_histograms", swapped, "not equal"),
        ("histogram_divergence", collapsed, "rtol=1e-05"),
    ],
)
def test_wrong_histograms_and_divergences_are_found(function, trap, broken, monkeypatch):
    right = getattr(partial_label, function)
    monkeypatch.setattr(partial_label, function, partial(trap, right))
    with pytest.raises(AssertionError, match=broken):
        check_facts()


def test_a_mask_on_a_reduced_loss_is_found():
    """Which masks nothing: here the gradient is even that of the unmasked mean."""
    with pytest.raises(AssertionError, match=r"rtol=0\.0001"):
        check_facts(SIGMOID._replace(loss=mask_on_a_reduced_loss))
