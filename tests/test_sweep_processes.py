"""Sweeps in real processes: one that is killed ends as an undisturbed one; its tables, by hand."""

import copy
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import ROOT, scores, snapshot

from lt_jax.reported import read_reported
from lt_jax.tables import write_tables

ROWS = ("cross_entropy", "crt", "gcl")
SETTINGS = (
    "model.name=pixels",
    "data.max_count=60",
    "data.imbalance=10",
    "train.epochs=2",
    "train.checkpoint_every_epochs=1",
    "train.log_every_steps=3",
    "train.num_devices=1",
    "train.tensorboard=false",
    "train.progress=false",
    "train.picture=false",
    "retrain.epochs=4",
)


class Sweeps:
    """Sweeps of configs/digits.py by launch/sweep.py, with a network that compiles in no time."""

    def __init__(self, folder: Path):
        self.config = folder / "digits.py"
        self.config.write_text(
            "import runpy, sys\n"
            f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
            "from tiny_runs import PixelNet\n"
            "from lt_jax import models\n"
            "models.MODELS['pixels'] = PixelNet\n"
            f"get_config = runpy.run_path({str(ROOT / 'configs/digits.py')!r})['get_config']\n"
        )
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1"),
            # What a program computes is not the matter here, and compiling it takes the time.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def start(self, workdir: Path, *more: str, rows=ROWS) -> subprocess.Popen:
        flags = [f"--row={row}" for row in rows] + [f"--set={setting}" for setting in SETTINGS]
        flags += [f"--config={self.config}", "--seeds=2", f"--workdir={workdir}", *more]
        return subprocess.Popen(
            [sys.executable, "launch/sweep.py", *flags],
            cwd=ROOT,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, workdir: Path, *more: str, rows=ROWS, status: int = 0) -> str:
        """To the end; what was said."""
        process = self.start(workdir, *more, rows=rows)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == status, errors
        assert "Traceback" not in errors
        return errors

    def kill_when(self, workdir: Path, happened: Callable[[], bool]) -> None:
        """Starts, and kills as soon as something has happened."""
        process = self.start(workdir)
        deadline = time.monotonic() + 300
        while not happened():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    return Sweeps(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture(scope="module")
def whole(sweeps, tmp_path_factory):
    """The folder of an undisturbed sweep."""
    folder = tmp_path_factory.mktemp("whole")
    sweeps.run(folder, f"--reported={ROOT / 'results/reported.csv'}")
    return folder


def read(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# Killed, and diverging.


def test_sweep_killed_twice_ends_as_an_undisturbed_one(sweeps, whole, tmp_path):
    """In the middle of a first stage and of a second one; what had finished is left alone."""

    def rows_are_written() -> bool:
        rows = tmp_path / "cross_entropy/metrics.jsonl"
        return rows.exists() and rows.stat().st_size > 0

    def a_checkpoint_is_there() -> bool:
        return any(p.name.isdigit() for p in tmp_path.glob("gcl/checkpoints/*"))

    sweeps.kill_when(tmp_path, rows_are_written)
    assert not (tmp_path / "cross_entropy/summary.json").exists()
    sweeps.kill_when(tmp_path, a_checkpoint_is_there)
    assert not (tmp_path / "gcl/summary.json").exists()
    finished = ("cross_entropy", "crt", "gcl_stage1")
    before = [snapshot(tmp_path / name) for name in finished]
    told = sweeps.run(tmp_path)
    assert told.count("has finished already; nothing was changed") == 2
    assert "going on from step" in told
    assert [snapshot(tmp_path / name) for name in finished] == before
    for name in (*ROWS, "gcl_stage1"):
        assert scores(read(tmp_path / name)) == scores(read(whole / name))
    for name in ("crt", "gcl"):
        assert read(tmp_path / name)["stage1"]["test"] == read(whole / name)["stage1"]["test"]
    assert (tmp_path / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()
    assert (tmp_path / "table.png").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_row_that_diverges_leaves_the_others_and_gives_status_3(sweeps, whole, tmp_path):
    """A second stage whose rate is absurd; the others are in the table, the process says which."""
    shutil.copytree(whole / "cross_entropy", tmp_path / "cross_entropy")
    before = snapshot(tmp_path / "cross_entropy")
    told = sweeps.run(
        tmp_path,
        "--set=retrain.optimizer.learning_rate=1e38",
        rows=("cross_entropy", "crt", "ncm"),
        status=3,
    )
    assert "rows that failed: crt." in told
    assert "of seed" in told
    assert "was not finite at step" in told
    assert [row["method"] for row in table(tmp_path)] == ["cross_entropy", "ncm"]
    assert not (tmp_path / "crt/summary.json").exists()
    assert read(tmp_path / "ncm")["stage1"]["test"] == scores(read(whole / "cross_entropy"))
    assert snapshot(tmp_path / "cross_entropy") == before


# Tables.


def by_hand(a: list[float], b: list[float]) -> str:
    """Paired difference of two seeds in points, with the 95 % interval of t with 1 degree."""
    one, two = (100 * (x - y) for x, y in zip(a, b, strict=True))
    mean = (one + two) / 2
    half = 12.7062047 * abs(one - two) / 2  # deviation |d| / sqrt 2, error |d| / 2
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def each_seed(summary: dict) -> list[float]:
    return [r["balanced_accuracy"] for r in summary["test"]["last"]["replicas"]]


def markdown(folder: Path) -> list[list[str]]:
    """Cells of the table's lines, header first, without the rule."""
    lines = [x for x in (folder / "table.md").read_text().splitlines() if x.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


def test_tables_have_a_row_per_row_and_differences_as_by_hand(whole):
    """Against the first row and against its own first stage, paired over seeds."""
    found = {row["method"]: row for row in table(whole)}
    assert tuple(found) == ROWS
    header, *lines = markdown(whole)
    assert header == list(found["gcl"])
    assert lines == [list(row.values()) for row in found.values()]
    baseline = each_seed(read(whole / "cross_entropy"))
    for name in ROWS:
        summary, row = read(whole / name), found[name]
        own = each_seed(summary)
        score = f"{100 * np.mean(own):.1f} ± {100 * np.std(own, ddof=1):.1f}"
        assert row["balanced accuracy"] == score
        assert row["seeds"] == "2"
        assert row["against the first"] == (
            "" if name == "cross_entropy" else by_hand(own, baseline)
        )
        if name == "cross_entropy":
            assert row["its stage 1"] == row["against its stage 1"] == ""
            continue
        first = each_seed(read(whole / ("cross_entropy" if name == "crt" else "gcl_stage1")))
        score = f"{100 * np.mean(first):.1f} ± {100 * np.std(first, ddof=1):.1f}"
        assert row["its stage 1"] == score
        assert row["against its stage 1"] == by_hand(own, first)
    assert "reported" not in header  # no paper has numbers for the digits
    text = (whole / "table.md").read_text()
    assert "seeds [0, 1]" in text
    assert "launch/sweep.py" in text
    assert read(whole / "gcl")["data"]["index_hash"] in text


REPORTED = read_reported(ROOT / "results/reported.csv")


def pretend(summary: dict, name: str, **config) -> dict:
    """A real summary as if it were of another row."""
    made = copy.deepcopy(summary)
    made["name"] = name
    made["config"]["data"] |= {"source": "tfds:cifar10", "imbalance": 100.0, "max_count": 0}
    made["config"]["model"]["name"] = "resnet32"
    made["config"]["train"]["epochs"] = 200
    for path, value in config.items():
        group, field = path.split("__")
        made["config"][group][field] = value
    return made


def test_reported_numbers_stand_beside_measured_ones(whole, tmp_path):
    """Of the same data, imbalance, network and regime; errors as accuracies; with sources."""
    real = {name: read(whole / name) for name in ROWS}
    ce, gcl = real["cross_entropy"], real["gcl"]
    summaries = [
        pretend(ce, "cifar10_lt100_cross_entropy"),
        pretend(ce, "cifar10_lt100_focal_0.5"),
        pretend(ce, "cifar10_lt100_cb_best"),
        pretend(gcl, "cifar10_lt100_gcl"),
        pretend(gcl, "cifar10_lt100_gcl_stage1"),
        pretend(gcl, "cifar10_lt50_gcl", data__imbalance=50.0),
        pretend(gcl, "cifar10_lt20_gcl", data__imbalance=20.0),
        pretend(gcl, "cifar10_lt100_gcl", model__name="small"),
        pretend(gcl, "cifar100_lt100_gcl", data__source="tfds:cifar100"),
        pretend(gcl, "cifar10_lt100_gcl", train__epochs=40),
    ]
    write_tables(summaries, tmp_path, reported=REPORTED)
    cells = [row["reported"] for row in table(tmp_path)]
    assert cells == [
        "70.4 (CB 1901.05555); 70.4 (other); 71.9 (other)",
        "70.2 (CB 1901.05555)",
        "74.6 (CB 1901.05555)",
        "82.7 (GCL 2305.11733)",
        "",
        "85.5 (GCL 2305.11733)",
        "",
        "",
        "48.7 (GCL 2305.11733)",
        "",
    ]
    header, *lines = markdown(tmp_path)
    assert [line[header.index("reported")] for line in lines] == cells
    text = (tmp_path / "table.md").read_text()
    assert "- Reported, gcl: from memory, unconfirmed." in text
    assert "- Reported, cb_best: paper; whether the epoch was chosen on test is not said" in text
