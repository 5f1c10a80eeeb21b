"""DLSA as a second stage: what its runs leave behind is right, told, drawn and exported."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import json
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest
from divisions import done  # noqa: F401 (a fixture)
from exported import assert_scores, exported
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from sklearn.metrics import normalized_mutual_info_score

from lt_jax.checkpoint import Checkpoints
from lt_jax.comparison import curves, figures, grouped, read_runs
from lt_jax.comparison.sections import sections_of
from lt_jax.data import load_dataset
from lt_jax.dividing_report import part_rows, tell_division
from lt_jax.errors import InputError
from lt_jax.joining import can_join, joined
from lt_jax.longtail import gini_coefficient
from lt_jax.pictures import new_figure
from lt_jax.summaries import aggregate, paired_difference, undivided
from lt_jax.tables import write_tables

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


def test_divisions_of_other_seeds_are_joined(done):
    """Both stages, both classifiers, what each part did; as one run of both seeds has them."""
    whole = done[2]

    def of_seed(r):
        def test(both):
            lists = {name: [v[r]] for name, v in both.items() if isinstance(v, list)}
            return {**lists, **aggregate(lists["replicas"])}

        part = json.loads(json.dumps(whole))
        part["seeds"], part["config"]["seed"], part["config"]["replicas"] = [r], r, 1
        for stage in (part, part["stage1"]):
            stage["test"] = {name: test(both) for name, both in stage["test"].items()}
        division = part["division"]
        found = {name: [values[r]] for name, values in division["validation"].items()}
        division |= {"without": test(division["without"]), "validation": found}
        division["replicas"] = [division["replicas"][r]]
        return part

    parts = [of_seed(r) for r in range(2)]
    assert can_join(*parts)
    assert joined(parts) == whole
