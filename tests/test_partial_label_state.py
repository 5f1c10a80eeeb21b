"""What partial label masking remembers and reports: of all classes, deferred, on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import reference
from compiling import optimised_jit
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from masked_labels import (
    BATCH,
    CLASSES,
    COUNTS,
    EVERY,
    NUM_EXAMPLES,
    SIGMOID,
    VARIABLE,
    data_ratio,
    examples,
    masked,
    run,
)

from lt_jax import objectives
from lt_jax.objectives import build_objective, chain, method_spec, partial_label_mask


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
        stateless = build_objective(method_spec(name), [5, 2], epochs=5)
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
