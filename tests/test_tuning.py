"""Tuning: every value is the run it would be alone, validation alone is read, bad input is told."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tiny_runs import Killed, PixelNet, dying, rows, snapshot, tiny

from lt_jax import models, objectives
from lt_jax.data import load_dataset
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.objectives import alternatives, build_objective, method_spec
from lt_jax.retrain import retrain
from lt_jax.settings import override
from lt_jax.train import train
from lt_jax.tuning import tune, tune_rows
from lt_jax.tuning_report import conclusions

GAMMA = "objective.transforms.focal.gamma"
COUNTS = [50, 10, 3]


@pytest.fixture(scope="module", autouse=True)
def _pixel_net():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "pixels", PixelNet)
        yield


@pytest.fixture(scope="module", autouse=True)
def dataset():
    return load_dataset(tiny().data)


# One objective that is several.


@pytest.mark.parametrize(
    ("method", "transform", "option", "values"),
    [
        ("cb_focal", "class_balanced", "beta", (0.9, 0.999)),
        ("logit_adjustment", "logit_adjustment", "tau", (0.5, 2.0)),
        ("gcl", "gaussian_cloud", "noise", (0.1, 0.5)),
        ("plm", "partial_label_mask", "rate", (0.01, 1.0)),
    ],
)
def test_each_alternative_is_the_objective_itself(method, transform, option, values):
    """Losses, gradients and what is remembered, over updates, side by side as alone."""
    own = []
    for value in values:
        spec = method_spec(method)
        spec["transforms"][transform][option] = value
        own.append(build_objective(spec, COUNTS, steps_per_epoch=2))
    one, starts = alternatives(own)
    keys = jax.random.split(jax.random.key(0), 5)
    logits = jnp.clip(jax.random.normal(keys[0], (16, 3)), -1, 1)  # cosines are at most 1
    labels = jax.random.randint(keys[1], (16,), 0, 3)

    def step(objective, state, key):
        def total(z):
            loss, new = objective.apply(state, key, z, labels)
            return loss.sum(), (loss, new)

        gradient, (loss, new) = jax.grad(total, has_aux=True)(logits)
        return new, (loss, gradient)

    def run(objective, state):
        state, results = jax.lax.scan(lambda s, key: step(objective, s, key), state, keys[2:])
        return results, objective.report(state)

    def all_of_it():
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[start() for start in starts])
        together = jax.vmap(lambda state: run(one, state))(stacked)
        return [run(o, o.init()) for o in own], together

    alone, together = jax.jit(all_of_it)()
    for number, expected in enumerate(alone):
        found = jax.tree.map(lambda leaf, n=number: leaf[n], together)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), found, expected
        )
    assert not np.allclose(alone[0][0][1], alone[1][0][1])  # the values do differ


def test_alternatives_that_no_program_can_hold_are_refused():
    def chained(*transforms, base=objectives.softmax_cross_entropy):
        return objectives.chain(*transforms, base=base)

    plain, masked = chained(), chained(objectives.partial_label_mask(COUNTS, update_every=1))
    scaled = [chained(objectives.scale_logits(scale=s)) for s in (1.0, 2.0)]
    with pytest.raises(InputError, match=r"scale 1\.0 and 2\.0"):
        alternatives(scaled)
    with pytest.raises(InputError, match="competing"):
        alternatives([plain, chained(base=objectives.sigmoid_cross_entropy)])
    with pytest.raises(InputError, match="different shapes"):
        alternatives([plain, masked])


def test_alternatives_mean_something_for_several_labels_only_if_all_of_them_do():
    single, both = (
        objectives.chain(transform, base=objectives.sigmoid_cross_entropy)
        for transform in (objectives.logit_adjustment(COUNTS), objectives.focal())
    )
    for order in ([single, both], [both, single]):
        together, _ = alternatives(order)
        with pytest.raises(InputError, match="logit_adjustment"):
            objectives.check_multi_label(together)


# Whole runs.


@pytest.fixture(scope="module")
def tuned(dataset, tmp_path_factory):
    """Two values and two seeds, and what was found."""
    folder = tmp_path_factory.mktemp("tuned")
    return folder, tune(tiny("focal", replicas=2), [f"{GAMMA}=0,2"], folder, dataset=dataset)


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """The same by ordinary runs: validation scores after the last step, by value."""
    scores = {}
    for gamma in (0, 2):
        config = tiny("focal", replicas=2)
        override(config, [f"{GAMMA}={gamma}"])
        summary = train(config, tmp_path_factory.mktemp("alone"), dataset=dataset)
        scores[gamma] = summary["test"]["last"]["validation_balanced_accuracy"]
    return scores


def test_every_value_scores_as_an_ordinary_run(tuned, alone):
    _, found = tuned
    assert found["validation"]["balanced_accuracy"] == [alone[0], alone[2]]
    assert found["points"] == [[0], [2]]
    assert found["seeds"] == [0, 1]


def test_side_by_side_is_one_after_another(dataset, tuned, tmp_path):
    config = tiny("focal", replicas=2, replica_mode="vmap")
    found = tune(config, [f"{GAMMA}=0,2"], tmp_path, dataset=dataset)
    np.testing.assert_allclose(
        found["validation"]["balanced_accuracy"],
        tuned[1]["validation"]["balanced_accuracy"],
        atol=0.02,  # rounding may move an image across the border
    )


def test_what_was_killed_goes_on(dataset, tuned, tmp_path):
    config = tiny("focal", replicas=2)
    with dying(1), pytest.raises(Killed):
        tune(config, [f"{GAMMA}=0,2"], tmp_path, dataset=dataset)
    assert not (tmp_path / "tuning.json").exists()
    found = tune(config, [f"{GAMMA}=0,2"], tmp_path, dataset=dataset)
    assert found["validation"] == tuned[1]["validation"]


def test_what_has_finished_is_left_alone(dataset, tuned):
    folder, found = tuned
    before = snapshot(folder)
    assert {"tuning.json", "tuning.md", "tuning.png"} <= set(before)
    again = tune(tiny("focal", replicas=2), [f"{GAMMA}=0,2"], folder, dataset=dataset)
    assert again == json.loads(json.dumps(found))
    sentence = rf"compares {GAMMA} = 0, 2, and this is to compare {GAMMA} = 0, 1, 2; a comparison"
    with pytest.raises(InputError, match=sentence):
        tune(tiny("focal", replicas=2), [f"{GAMMA}=0,1,2"], folder, dataset=dataset)
    with pytest.raises(
        InputError, match=rf"compares {GAMMA} = 0, 2, and this is to be a run; choo"
    ):
        train(tiny("focal", replicas=2), folder, dataset=dataset)
    assert snapshot(folder) == before


def test_the_test_set_is_not_read(dataset, tuned, tmp_path):
    """With other test images the same comes out."""

    class Unreadable(np.ndarray):
        def __getitem__(self, index):
            assert np.size(index) == 0, "the test set was read"
            return np.asarray(self)[index]

    other = dataclasses.replace(dataset, test_images=dataset.test_images.view(Unreadable))
    found = tune(tiny("focal", replicas=2), [f"{GAMMA}=0,2"], tmp_path, dataset=other)
    assert found["validation"] == tuned[1]["validation"]


def test_second_stage_is_tuned_on_one_first(dataset, tmp_path):
    """Each value as the second stage alone on that first stage."""
    field = "retrain.objective.transforms.focal.gamma"
    config = tiny("cross_entropy/crt/softmax_focal", replicas=2, retrain__epochs=2)
    found = tune(config, [f"{field}=0,2"], tmp_path / "tuned", dataset=dataset)
    override(config, [f"{field}=2"])
    first = tmp_path / "tuned/stage1"
    summary = retrain(config, tmp_path / "alone", first, dataset=dataset)
    np.testing.assert_allclose(
        found["validation"]["balanced_accuracy"][1],
        summary["test"]["last"]["validation_balanced_accuracy"],
        atol=0.02,
    )


@pytest.mark.parametrize(
    ("field", "values", "options"),
    [
        ("optimizer.learning_rate", (0.02, 0.2), {"optimizer__schedule": "cosine"}),
        ("optimizer.weight_decay", (0.0, 0.05), {}),
        ("optimizer.momentum", (0.0, 0.9), {"replica_mode": "vmap"}),
        ("optimizer.learning_rate", (1e-3, 1e-2), {"optimizer__name": "adam"}),
    ],
)
def test_rates_score_as_ordinary_runs(field, values, options, dataset, tmp_path):
    """And the file of metrics has the rate of each, not that of the first."""
    listed = ",".join(map(str, values))
    config = tiny(**options)
    found = tune(config, [f"{field}={listed}"], tmp_path / "tuned", dataset=dataset)
    for value, score in zip(values, found["validation"]["balanced_accuracy"], strict=True):
        own = tiny(**options)
        override(own, [f"{field}={value}"])
        summary = train(own, tmp_path / str(value), dataset=dataset)
        alone = summary["test"]["last"]["validation_balanced_accuracy"]
        np.testing.assert_allclose(score, alone, atol=0 if "replica_mode" not in options else 0.02)
    if field == "optimizer.learning_rate":
        each = [rows(tmp_path / name) for name in ("tuned", *map(str, values))]
        for row, *others in zip(*each, strict=True):
            if row["split"] == "train":
                assert row["learning_rate"] == [other["learning_rate"] for other in others]


def test_a_rate_and_an_option_of_the_objective_make_a_map(dataset, tmp_path):
    """Of a second stage; each combination as the second stage alone."""
    rate, gamma = "retrain.optimizer.learning_rate", "retrain.objective.transforms.focal.gamma"
    config = tiny("cross_entropy/crt/softmax_focal", retrain__epochs=2)
    over = [f"{rate}=0.01,0.3", f"{gamma}=0,2"]
    found = tune(config, over, tmp_path / "tuned", dataset=dataset)
    assert found["points"] == [[0.01, 0], [0.01, 2], [0.3, 0], [0.3, 2]]
    override(config, [f"{rate}=0.3", f"{gamma}=0"])
    summary = retrain(config, tmp_path / "alone", tmp_path / "tuned/stage1", dataset=dataset)
    np.testing.assert_allclose(
        found["validation"]["balanced_accuracy"][2],
        summary["test"]["last"]["validation_balanced_accuracy"],
        atol=0.02,
    )


def test_two_fields_make_a_map(dataset, tmp_path):
    config = tiny("cb_focal", train__epochs=1)
    beta = "objective.transforms.class_balanced.beta"
    found = tune(config, [f"{GAMMA}=0,1", f"{beta}=0.9,0.99,0.999"], tmp_path, dataset=dataset)
    assert found["points"] == [[g, b] for g in (0, 1) for b in (0.9, 0.99, 0.999)]
    assert (tmp_path / "tuning.png").stat().st_size > 10_000
    assert any("one seed" in sentence for sentence in conclusions(found))


def test_table_and_choice_are_those_of_numpy_and_scipy(tuned):
    folder, found = tuned
    scores = np.array(found["validation"]["balanced_accuracy"])
    best = scores.mean(axis=1).argmax()
    assert list(found["chosen"].values()) == found["points"][best]
    other = 1 - best
    interval = stats.ttest_rel(scores[other], scores[best]).confidence_interval()
    assert found["differences"][other]["low"] == pytest.approx(interval.low)
    assert found["differences"][best] == {"mean": 0.0, "low": None, "high": None}
    text = (folder / "tuning.md").read_text()
    for row in scores:
        assert f"{100 * row.mean():.1f} ± {100 * row.std(ddof=1):.1f}" in text
    assert found["at_the_end"] == [GAMMA]  # of two values either is at an end
    assert "at the end of what was tried" in text
    assert f"--config.{GAMMA}={found['points'][best][0]}" in text


def test_value_that_diverges_is_named(dataset, tmp_path):
    config = tiny("cb_focal", optimizer__learning_rate=1e30)
    with pytest.raises(NonFiniteError, match=r"of seed 0 with gamma (0|1) was not finite"):
        tune(config, [f"{GAMMA}=0,1"], tmp_path, dataset=dataset)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([], "given 0 fields"),
        ([f"{GAMMA}=0,1"] * 2, "two fields of the same stage"),
        ([f"{GAMMA}=1"], "two or more different numbers"),
        ([f"{GAMMA}=1,1.0"], "two or more different numbers"),
        ([f"{GAMMA}=one,two"], "two or more different numbers"),
        ([GAMMA], "two or more different numbers"),
        ([f"{GAMMA}=0,-1"], "gamma"),
        (["optimizer.warmup_epochs=1,2"], "compared by launch/sweep.py --over"),
        (["optimizer.learning_rate=0.1,0"], "learning_rate is 0.0; expected a positive number"),
        (["optimizer.weight_decay=0.1,-1"], "weight_decay is -1"),
        (["objective.transforms.focal.beta=0,1"], "no field"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(dataset, tmp_path, over, message):
    with pytest.raises(InputError, match=message):
        tune(tiny("focal"), over, tmp_path / "new", dataset=dataset)
    assert not (tmp_path / "new").exists()


def test_second_stages_that_no_program_holds_are_refused_before_the_first(dataset, tmp_path):
    field = "retrain.objective.transforms.gaussian_cloud.scale"
    with pytest.raises(InputError, match=r"scale 5\.0 and 10\.0"):
        tune(tiny("gcl"), [f"{field}=5,10"], tmp_path / "new", dataset=dataset)
    assert not (tmp_path / "new").exists()


def test_every_row_is_checked_before_the_first_is_tuned(tmp_path):
    rows = {"a": tiny("focal"), "b": tiny("focal", data__validation_size=0)}
    with pytest.raises(InputError, match=r"row 'b': there is no validation split"):
        tune_rows(rows, [f"{GAMMA}=0,1"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_values_that_score_the_same_are_level(tuned):
    scores = {"balanced_accuracy": [[0.5, 0.7]] * 2}
    same = [{"mean": 0.0, "low": None, "high": None}] * 2
    found = {**tuned[1], "validation": scores, "differences": same, "chosen": {GAMMA: 0}}
    assert any(s.startswith("level with it") and "gamma 2" in s for s in conclusions(found))


def test_without_validation_nothing_can_be_chosen(tmp_path):
    with pytest.raises(InputError, match=r"config\.data\.validation_size"):
        tune(tiny("focal", data__validation_size=0), [f"{GAMMA}=0,1"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
