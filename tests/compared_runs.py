"""What tests of the report share: made-up runs, with all that a report reads of them."""

import json

import numpy as np
import pytest

from lt_jax import metrics, summaries

COUNTS = [50, 5]
EVIL = "<script>alert('x')</script>&\"$x^$"
CE, PLM, CRT = [0.50, 0.61, 0.55, 0.58], [0.55, 0.70, 0.59, 0.66], [0.52, 0.60, 0.57, 0.59]


def single(accuracy, *, bins=True):
    """Scores of one seed of a run with one label an example."""
    found = {
        **dict.fromkeys(("top1", "balanced_accuracy", "medium"), accuracy),
        **{"many": 1.0, "few": None, "ece": 0.1, "nll": 0.5},
        "per_class": [1.0, accuracy],
        "confusion": [[5, 0], [1, 4]],
    }
    if bins:
        found["calibration"] = metrics.calibration_bins([0, 4, 6], [0, 2, 6], [0.0, 2.0, 5.4])
    return found


def several(value):
    """Scores of one seed of a run with several labels an example."""
    names = ("map", "map_head", "map_medium", "map_tail", "recall_rarest", "precision_head")
    scores = dict.fromkeys((*names, "cf1", "of1", "exact_match", "ece", "of1_tuned"), value)
    bins = metrics.calibration_bins([4, 6], [1, 5], [1.0, 5.4])
    return {**scores, "per_class_ap": [value] * 2, "per_class_recall": [1.0, value]} | {
        "calibration": bins
    }


def summary(name, replicas, seeds=None, *, multi_label=False, index_hash="a1", **changes):
    """A summary with what a report reads."""
    found = {
        "name": name,
        "finished": "2026-01-01T00:00:00Z",
        "command": f"python launch/train.py --config=x:{name}",
        "commit": "0123abc",
        "versions": {"jax": "0.10.2"},
        "hardware": {"cpu": "a processor", "device": "cpu"},
        "seeds": list(range(len(replicas))) if seeds is None else seeds,
        "test": {"last": summaries.aggregate(replicas)},
        "data": {
            "source": "digits",
            "class_counts": COUNTS,
            "class_names": ["<b>zero</b>", "one"],
            "index_hash": index_hash,
            "multi_label": multi_label,
        },
        "training": {"steps": 3},
        "config": {"name": name, "objective": {"base": "softmax"}, "train": {"epochs": 2}},
    }
    if multi_label:
        shown = ("map", "recall_rarest", "of1")
        found |= {"headline": "map", "columns": list(shown)}
    return found | changes


def write(folder, content, rows=()):
    """A run's folder; without a summary it has not finished."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": folder.name}))
    if content is not None:
        (folder / "summary.json").write_text(json.dumps(content))
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def metric_rows(seeds):
    """Rows of three epochs, with what masks remember."""
    rng = np.random.default_rng(0)
    for epoch in (1.0, 2.0, 3.0):
        row = {"step": int(3 * epoch), "epoch": epoch}
        loss = (rng.random(seeds) + 0.1).tolist()
        yield {**row, "split": "train", "loss": loss, "learning_rate": 0.1 / epoch}
        yield {**row, "split": "validation", "balanced_accuracy": rng.random(seeds).tolist()}
        names = ("ratio", "ideal_ratio", "divergence_positives", "divergence_negatives")
        masks = {name: (rng.random((seeds, 2)) + 0.1).tolist() for name in names}
        yield {**row, "split": "objective", **masks}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a sweep of three runs on the same data, and of one on other data."""
    folder = tmp_path_factory.mktemp("runs")
    sweep = folder / "sweep"
    plm = [single(a, bins=False) for a in PLM]
    for replica in plm:
        del replica["confusion"]
    config = {"name": EVIL, "objective": {"base": "sigmoid"}, "train": {"epochs": 2}}
    write(sweep / "a", summary(EVIL, plm, config=config), list(metric_rows(len(PLM))))
    write(sweep / "b", summary("cross_entropy", [single(a) for a in CE]))
    stage1 = {"name": "c_stage1", "test": {"last": summaries.aggregate([single(a) for a in CE])}}
    write(sweep / "c", summary("crt", [single(a) for a in CRT], stage1=stage1))
    write(sweep / "c_stage1", summary("c_stage1", [single(a) for a in CE]))
    (sweep / "table.csv").write_text(
        'method,seeds\ncross_entropy,4\n"{}",4\ncrt,4\n'.format(EVIL.replace('"', '""'))
    )
    write(folder / "multi", summary("sigmoid", [several(0.3), several(0.4)], multi_label=True))
    return sweep, folder / "multi"
