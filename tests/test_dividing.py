"""DLSA as a second stage: what its runs leave behind, resumption, features in files, bad input."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from exported import assert_scores, exported
from sklearn.metrics import normalized_mutual_info_score
from tiny_runs import Killed, PixelNet, StopAfter, snapshot, tiny

from lt_jax import dividing_blocks, dlsa, features, models
from lt_jax.checkpoint import Checkpoints
from lt_jax.comparison import curves, figures, grouped, read_runs
from lt_jax.comparison.sections import sections_of
from lt_jax.data import load_dataset
from lt_jax.data.feature_files import read_feature_folder, shard_name
from lt_jax.dividing_report import part_rows, tell_division
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.extract import extract_features
from lt_jax.longtail import gini_coefficient
from lt_jax.pictures import new_figure
from lt_jax.retrain import retrain
from lt_jax.stage1 import Frozen
from lt_jax.steps import Split
from lt_jax.summaries import paired_difference, undivided
from lt_jax.tables import write_tables
from lt_jax.train import train

SEEDS = 2
FLOW = {"num_clusters": 8, "hidden": 8, "epochs": 4, "batch_size": 32}
SHORT = {f"retrain__flow__{name}": value for name, value in FLOW.items()} | {
    "retrain__cascade__depth": 2,
    "retrain__cascade__eval_every": 2,
    "retrain__heads__epochs": 3,
}


@pytest.fixture(scope="module", autouse=True)
def _tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "pixels", PixelNet)
        yield


def division(**fields):
    """A run of both stages on digits, two seeds."""
    return tiny("cross_entropy/dlsa", **{"replicas": SEEDS, **SHORT, **fields})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run, with its picture; whatever the tests do with it, it stays as it is."""
    folder = tmp_path_factory.mktemp("dlsa") / "run"
    config = division(train__picture=True)
    yield config, folder, train(config, folder)
    assert json.loads((folder / "summary.json").read_text())["division"]


def second_stage(summary):
    """What must not depend on stops and kills."""
    return {name: summary[name] for name in ("test", "division", "data", "seeds")}


# What it says


def test_parts_make_up_the_whole(done):
    """Samples, correct predictions and classes of the parts add up to those of the splits."""
    _, _, summary = done
    counts = np.array(summary["data"]["class_counts"])
    total = summary["data"]["total_test"]
    for r, replica in enumerate(summary["division"]["replicas"]):
        parts = [*replica["blocks"], replica["rest"]]
        assert sum(p["test"]["samples"] for p in parts) == total
        assert np.array_equal(np.sum([p["taken"] for p in parts], axis=0), counts)
        entering = counts
        for part in parts:
            assert part["entering"] == entering.tolist()
            assert sum(part["groups_entering"].values()) == entering.sum()
            entering = entering - part["taken"]
        assert not entering.any()
        for key, test in (
            ("accuracy", summary["test"]["last"]),
            ("accuracy_without", summary["division"]["without"]),
        ):
            right = [(p["test"][key] or 0) * p["test"]["samples"] for p in parts]
            assert sum(right) / total == pytest.approx(test["replicas"][r]["top1"])
        clusters = replica["blocks"][0]["clusters"]
        assert sum(clusters["size"]) == counts.sum()
        pure = np.dot(clusters["size"], clusters["purity"]) / counts.sum()
        assert replica["blocks"][0]["purity"] == pytest.approx(pure, abs=1e-3)
        for split in ("train", "validation", "test"):
            assert sum(replica["log_likelihood"][split]["share"]) == pytest.approx(1)


def test_blocks_take_their_share_of_validation(done):
    """The threshold is set there: 30 % of what comes to each block."""
    for replica in done[2]["division"]["replicas"]:
        for block in replica["blocks"]:
            found = block["validation"]
            assert abs(found["samples"] - 0.3 * found["came"]) <= 1


def test_measures_are_those_of_their_definitions(done):
    """MCC by its formula over the table, NMI by scikit-learn on the clusters found anew."""
    config, folder, summary = done
    block = summary["division"]["replicas"][1]["blocks"][0]
    counts = np.array(summary["data"]["class_counts"])
    head = counts > counts.mean()
    entering, taken = np.array(block["entering"]), np.array(block["taken"])
    tp, fp = taken[head].sum(), taken[~head].sum()
    fn, tn = (entering - taken)[head].sum(), (entering - taken)[~head].sum()
    square = np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    assert block["train"]["mcc"] == pytest.approx((tp * tn - fp * fn) / square)
    dataset = load_dataset(config["data"])
    with np.load(folder / "stage2" / "latents.npz") as points:
        assert points["points"].shape == (len(dataset.test_labels), 2)
        taken_there = int((points["parts"] == 0).sum())
    assert taken_there == summary["division"]["replicas"][0]["blocks"][0]["test"]["samples"]
    labels = np.repeat([0, 1], 5)
    assert normalized_mutual_info_score(labels, labels) == 1.0
    assert 0 <= block["train"]["nmi"] <= 1


def test_gini_against_its_definition():
    """Half the mean absolute difference, divided by the mean."""
    counts = np.random.default_rng(0).integers(0, 50, 12)
    pairs = np.abs(counts[:, None] - counts[None]).mean()
    assert gini_coefficient(counts) == pytest.approx(pairs / (2 * counts.mean()))
    assert gini_coefficient(np.zeros(3)) == 0.0


def test_it_is_told_and_drawn(done, capsys, tmp_path):
    _, folder, summary = done
    assert (folder / "stage2" / "division.png").stat().st_size > 20_000
    header, *rows = part_rows(summary["division"]["replicas"])
    assert [row[0] for row in rows] == ["block 1", "block 2", "rest"]
    assert all(len(row) == len(header) for row in rows)
    tell_division(summary)
    captured = capsys.readouterr()
    difference = paired_difference(summary, undivided(summary))["mean"]
    assert f"divided against undivided: {100 * difference:+.1f}" in captured.err
    assert "block 2" in captured.out
    tell_division(None)
    write_tables([summary], tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "| undivided | against undivided |" in table
    assert f"{100 * difference:+.1f}" in table.splitlines()[2]


def test_a_report_shows_it(done, monkeypatch):
    """Both stages' files are found, and what is in them is drawn and compared."""
    _, folder, summary = done

    def quick(draw, alt, **_):  # what becomes of a drawing is shown by other tests
        draw(new_figure(1, 1, (3, 3))[1])
        return alt

    monkeypatch.setattr(figures, "panel", lambda *_, **__: "")
    monkeypatch.setattr(curves, "panel", quick)
    (group,) = grouped(read_runs([folder]))
    parts = {section.title: section.parts for section in sections_of(group)}
    table, drawn = parts["Divided features"]
    assert [table.header, *table.rows] == part_rows(summary["division"]["replicas"])
    assert len(drawn.panels) == 7
    for name in ("map of the latents", "loss of the flows by block"):
        assert f"cross_entropy_dlsa: {name}" in drawn.panels
    rows = parts["Second stages"][0].rows
    assert [row[1] for row in rows] == ["its stage 1", "undivided"]
    difference = paired_difference(summary, undivided(summary))["mean"]
    assert rows[1][-1].startswith(f"{100 * difference:+.1f}")
    of_stage1, note = parts["Training"]
    assert len(of_stage1.panels) == 3
    assert "the last stage" in note.text


def test_stage_1_and_the_rest_of_a_summary_are_there(done):
    _, folder, summary = done
    assert summary["stage1"]["name"].endswith("stage1")
    assert summary["training"]["steps"] == 2 * 4 * summary["training"]["steps_per_epoch"]
    lines = [json.loads(s) for s in (folder / "stage2" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines] == [2, 4, 6, 8]
    assert [row["block"] for row in lines] == [0, 0, 1, 1]


# Stopped, killed, resumed


def start_from(done, folder, **fields):
    """The stage-1 run copied, and the config to go on with."""
    config, source, _ = done
    shutil.copytree(source / "stage1", folder / "stage1")
    with config.unlocked():
        given = config.copy_and_resolve_references()
    given.train.picture = False
    for name, value in fields.items():
        given.train[name] = value
    return given


def test_killed_anywhere_and_resumed_ends_the_same(done, tmp_path, monkeypatch):
    """In the first block, between the blocks and in the second; and after a stop by a signal."""
    config = start_from(done, tmp_path)
    original = dividing_blocks.BlockTraining._row
    for epoch in (3, 5, 8):

        def dying(self, number, at, facts, epoch=epoch):
            if at == epoch:
                raise Killed
            return original(self, number, at, facts)

        monkeypatch.setattr(dividing_blocks.BlockTraining, "_row", dying)
        with pytest.raises(Killed):
            train(config, tmp_path)
    monkeypatch.undo()
    summary = train(config, tmp_path)
    expected = done[2]
    assert second_stage(summary) == second_stage(expected)
    rows = (tmp_path / "stage2" / "metrics.jsonl").read_text()
    assert rows == (done[1] / "stage2" / "metrics.jsonl").read_text()


def test_stopped_by_a_signal_it_saves_and_goes_on(done, tmp_path, monkeypatch):
    config = start_from(done, tmp_path)
    monkeypatch.setattr("lt_jax.dividing.Stop", StopAfter)
    monkeypatch.setattr(StopAfter, "step", 0)
    assert train(config, tmp_path) is None
    saved = tmp_path / "stage2" / "checkpoints" / "block_0"
    assert [p.name for p in saved.iterdir() if p.name.isdigit()] == ["1"]
    monkeypatch.undo()
    assert second_stage(train(config, tmp_path)) == second_stage(done[2])


def test_a_finished_run_is_left_alone_and_another_config_refused(done, tmp_path):
    config, folder, summary = done
    before = snapshot(folder)
    assert second_stage(train(config, folder)) == second_stage(summary)
    other = division(retrain__flow__purity=0.5)
    with pytest.raises(InputError, match=r"retrain\.flow\.purity"):
        train(other, folder)
    assert snapshot(folder) == before


def test_on_eight_devices_it_is_the_same_and_both_stages_can_be_moved(done, tmp_path, monkeypatch):
    """Stage 1 of one device, features computed by eight; it is found again where both lie now."""
    here = tmp_path / "here"
    config = start_from(done, here, num_devices=8)
    monkeypatch.chdir(here)
    summary = retrain(config, "tables/second", "stage1")
    found, expected = (s["test"]["last"]["mean"]["top1"] for s in (summary, done[2]))
    assert found == pytest.approx(expected, abs=0.02)
    monkeypatch.chdir(tmp_path)
    here.rename("moved")
    model = exported(tmp_path / "moved/tables/second", tmp_path / "out", seed=1)
    assert_scores(model, load_dataset(config.data), summary["test"]["last"]["replicas"][1])


def test_a_loss_that_is_not_finite_stops_it(done, tmp_path):
    config = start_from(done, tmp_path)
    config.retrain.flow.update(learning_rate=1e30, clip=0.0)
    with pytest.raises(NonFiniteError, match=r"the loss of block 1 is not finite in epoch"):
        retrain(config, tmp_path / "second", tmp_path / "stage1")


# Refused, before anything is trained


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"retrain__flow__num_clusters": 5000},
            r"config\.retrain\.flow\.num_clusters is 5000; expected at most \d+",
        ),
        (
            {"retrain__flow__num_clusters": 150, "retrain__cascade__depth": 3},
            r"num_clusters is 150, but about \d+ of \d+ training examples come to the last of 3",
        ),
        ({"retrain__cascade__thresholds": (1.0, np.nan)}, r"thresholds holds nan; expected finite"),
        ({"retrain__flow__weight_power": np.inf}, r"flow\.weight_power is inf; expected a finite"),
        ({"retrain__heads__sampling": "class"}, r"make up for the frequency of classes twice"),
        ({"data__validation_size": 0}, r"there are no validation features"),
        ({"retrain__cascade__take": 1.5}, r"config\.retrain\.cascade\.take is 1\.5; expected a nu"),
        ({"retrain__cascade__thresholds": (1.0,)}, r"thresholds is \(1\.0,\); expected one for"),
        ({"retrain__flow__optimizer": "lamb"}, r"config\.retrain\.flow\.optimizer is 'lamb'; exp"),
        ({"retrain__flow__momentum": 1.0}, r"config\.retrain\.flow\.momentum is 1\.0; expected"),
        ({"retrain__flow__separation": 0.0}, r"flow\.separation is 0\.0; expected a positive"),
        ({"retrain__flow__epochs": 0}, r"config\.retrain\.flow\.epochs is 0; expected at least 1"),
        ({"retrain__heads__own": -1.0}, r"config\.retrain\.heads\.own is -1\.0; expected at leas"),
        ({"retrain__weights": "first"}, r"config\.retrain\.weights is 'first'; expected one of"),
        (
            {"data__class_counts": (60, 9, 9, 9, 9, 9, 9, 9, 9, 0)},
            r"class_counts\[9\] is 0; expected at least 1",
        ),
    ],
)
def test_bad_configs_are_refused(fields, sentence, tmp_path):
    config = division()
    for name, value in fields.items():
        target = config
        *groups, last = name.split("__")
        for group in groups:
            target = target[group]
        target[last] = value
    with pytest.raises(InputError, match=sentence):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Features


def frozen_identity(replicas=1):
    """A network whose features are its inputs."""

    class Identity:
        @staticmethod
        def features(params, stats, inputs):
            return inputs * params["one"]

    params = {"one": np.ones((replicas, 1), np.float32)}
    return Frozen(Identity(), None, params, {})


def standardised(train_features, test_features):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    splits = {
        name: Split(jax.numpy.asarray(x), jax.numpy.zeros(len(x), np.int32), 0.0, 1.0)
        for name, x in (("train", train_features), ("test", test_features))
    }
    return features.standardised_splits(frozen_identity(), splits, mesh, {"eval_batch_size": 16})


def test_features_are_standardised_and_constant_ones_say_nothing(capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 5.0, size=(50, 3)).astype(np.float32)
    x[:, 1] = 7.0
    other = x[:5] + 1.0
    found = standardised(x, other)
    train_features = np.asarray(found["train"].images)[0]
    np.testing.assert_allclose(train_features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train_features.std(axis=0), [1, 0, 1], atol=1e-5)
    assert not np.asarray(found["test"].images)[0, :, 1].any()
    assert "of 3 features [1] (by seed) are constant on train" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "sentence"), [(np.nan, "is nan"), (np.inf, "is inf")])
def test_features_that_are_not_finite_are_refused(value, sentence):
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    bad = x.copy()
    bad[3, 1] = value
    with pytest.raises(InputError, match=rf"feature 1 of test example 3 {sentence}; expected fin"):
        standardised(x, bad)
    with pytest.raises(InputError, match=r"all features are constant on train"):
        standardised(np.ones((4, 2), np.float32), x)


def test_extracted_features_are_those_of_the_run_and_a_data_source(done, tmp_path, capsys):
    _, folder, summary = done
    made = extract_features(folder, tmp_path / "out", shard_size=100)
    assert len(list(made[1].glob("train-*"))) == 3
    assert [path.name for path in made] == ["seed_0", "seed_1"]
    missing = made[1] / shard_name("train", 1, 3)
    before = snapshot(tmp_path / "out")
    missing.unlink()
    extract_features(folder, tmp_path / "out", shard_size=100)  # killed, started again
    after = snapshot(tmp_path / "out")
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in before.items()}
    assert "train: 2 of 3 parts were there already" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"features with shard_size = 100, and these would have"):
        extract_features(folder, tmp_path / "out", shard_size=50)

    config = tiny("cross_entropy", model__name="linear")
    config.data.update(source=f"features:{made[0]}", imbalance=0.0, max_count=0)
    dataset = load_dataset(config["data"])
    assert dataset.class_counts.tolist() == summary["data"]["class_counts"]
    assert dataset.train_images.shape[1] == PixelNet.num_features
    assert len(dataset.validation_labels) == summary["data"]["total_validation"]
    assert train(config, tmp_path / "linear")["test"]["last"]["mean"]["top1"] > 0.25


def write(folder: Path, suffix=".npz", **changes):
    """A folder of made features; a change is an array, or None to leave it out."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name, count in (("train", 40), ("test", 20)):
        arrays = {
            "features": rng.normal(size=(count, 3)),
            "labels": np.arange(count) % 2,
            **(changes if name == "train" else {}),
        }
        arrays = {key: value for key, value in arrays.items() if value is not None}
        if suffix == ".npz":
            np.savez(folder / f"{name}.npz", **arrays)
            continue
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / f"{name}{suffix}", "w") as file:
            file.update(arrays)
    return folder


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5"])
def test_features_in_files_are_read(suffix, tmp_path):
    folder = write(tmp_path / "own", suffix)
    found = read_feature_folder("own", str(tmp_path))
    assert found.validation is None
    assert found.train[0].shape == (40, 3)
    assert found.test[1].tolist() == [0, 1] * 10
    dataset = load_dataset({"source": f"features:{folder}", "validation_size": 10})
    assert len(dataset.validation_labels) == 10
    assert dataset.class_counts.tolist() == [15, 15]


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": None}, r"lacks labels; expected features \[N, D\] and labels \[N\]"),
        ({"labels": None, "features": None}, r"lacks features and labels; expected"),
        ({"features": np.zeros((40, 2, 2))}, r"features of .* are float64 \[40, 2, 2\]; expected"),
        ({"features": np.full((40, 3), np.nan)}, r"holds nan in row 0, column 0; expected finite"),
        ({"features": np.zeros((40, 4))}, r"train images are \(4,\), but test images are \(3,\)"),
        ({"labels": np.zeros(39, int)}, r"39 labels for 40 images"),
    ],
)
def test_files_that_cannot_be_used(changes, sentence, suffix, tmp_path):
    folder = write(tmp_path / "own", suffix, **changes)
    with pytest.raises(InputError, match=sentence):
        load_dataset({"source": f"features:{folder}"})


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; expected one with"):
        read_feature_folder("nowhere", str(tmp_path))
    folder = write(tmp_path / "own")
    (folder / "test.npz").rename(folder / shard_name("test", 0, 2))
    with pytest.raises(InputError, match=r"lacks test-00001-of-00002\.npz; expected all 2 parts"):
        read_feature_folder(str(folder))
    (folder / shard_name("test", 0, 2)).unlink()
    with pytest.raises(InputError, match=r"has no test\.npz or test\.h5; expected"):
        read_feature_folder(str(folder))
    test = {"features": np.zeros((4, 3)), "labels": np.arange(4) % 2}
    np.savez(folder / "test-others-00000-of-00001.npz", **test)  # of no split
    np.savez(folder / shard_name("test", 0, 2), **test)
    np.savez(folder / shard_name("test", 1, 2), **{**test, "features": np.zeros((4, 5))})
    with pytest.raises(InputError, match=r"have shape \[4, 5\], and those of test-00000-of-00002"):
        read_feature_folder(str(folder))
    np.savez(folder / shard_name("test", 1, 2), **test)
    assert len(read_feature_folder(str(folder)).test[1]) == 8
    np.savez(folder / shard_name("test", 0, 1), **test)
    with pytest.raises(InputError, match=r"has test in 1 and in 2 parts; expected one of the"):
        read_feature_folder(str(folder))
    for left in folder.glob("test-*"):
        left.unlink()
    (folder / "test.h5").write_bytes(b"not HDF5")
    pytest.importorskip("h5py")
    with pytest.raises(InputError, match=r"test\.h5 is damaged or not an HDF5 file"):
        read_feature_folder(str(folder))


def test_made_features_are_a_data_source():
    dataset = load_dataset(
        {"source": "made_features:3", "max_count": 100, "imbalance": 10.0, "validation_size": 50}
    )
    assert dataset.class_counts.tolist()[0] == 100
    assert dataset.class_counts.tolist()[-1] == 10
    assert np.bincount(dataset.validation_labels).tolist() == [5] * 10
    with pytest.raises(InputError, match=r"made_features:x has no number of modes"):
        load_dataset({"source": "made_features:x"})


def test_flow_options_of_the_paper_are_accepted():
    """The released settings, which presets use."""
    dlsa.check_flow_options(
        dlsa.FlowOptions(optimizer="sgd", learning_rate=0.2, purity=0.02, weight_power=2.0)
    )


# What is exported of it


def test_an_exported_division_scores_as_it_was_tested(done, tmp_path):
    """Every test image goes through the blocks to the classifier of its part, in one program."""
    config, folder, summary = done
    dataset, test = load_dataset(config.data), summary["test"]["last"]
    for r, seed in enumerate(summary["seeds"]):
        model = exported(folder, tmp_path / str(seed), seed=seed)
        assert_scores(model, dataset, test["replicas"][r])


def test_a_division_without_the_statistics_of_its_features_is_refused(done, tmp_path):
    """One of an earlier version."""
    shutil.copytree(done[1], tmp_path / "run")
    heads = tmp_path / "run" / "stage2" / "checkpoints" / "heads"
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(heads / "0" / "state")
    del saved["features"]
    shutil.rmtree(heads)
    earlier = Checkpoints(heads, 2)
    earlier.save(0, saved, {})
    earlier.close()
    with pytest.raises(InputError, match="an earlier version saved no mean and deviation"):
        exported(tmp_path / "run", tmp_path / "out")
