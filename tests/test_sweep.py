"""Sweeps: shared first stages, real processes that are killed, tables, configs of the papers."""

import copy
import csv
import itertools
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import ROOT, PixelNet, scores, snapshot, tiny

from lt_jax import models, sweep
from lt_jax.configuration import base_config, check_config
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.reported import read_reported
from lt_jax.settings import load_configs, override
from lt_jax.sweep import plan, run_sweep
from lt_jax.tables import write_tables

CIFAR = runpy.run_path(str(ROOT / "configs/cifar_lt.py"))
REPORTED = read_reported(ROOT / "results/reported.csv")


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


# Which first stages are shared.


def test_a_row_of_one_stage_is_the_first_stage_of_others():
    """Trained once, and before the rows that need it, wherever it stands in the table."""
    methods = ("crt", "gcl", "cross_entropy", "tau_norm", "gcl_stage1")
    planned = plan({name: tiny(name) for name in methods})
    assert [(row.name, row.stage1) for row in planned] == [
        ("cross_entropy", ""),
        ("gcl_stage1", ""),
        ("crt", "cross_entropy"),
        ("gcl", "gcl_stage1"),
        ("tau_norm", "cross_entropy"),
    ]


def test_rows_of_two_stages_share_a_first_one():
    """Without a row for it, it has a folder of its own, named after the first that needs it."""
    methods = ("crt", "lws", "gcl", "ncm", "gcl/crt")
    planned = plan({name.replace("/", "_"): tiny(name) for name in methods})
    assert {row.name: row.stage1 for row in planned} == {
        "crt": "crt_stage1",
        "lws": "crt_stage1",
        "ncm": "crt_stage1",
        "gcl": "gcl_stage1",
        "gcl_crt": "gcl_stage1",
    }


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({}, True),
        ({"train__picture": True, "train__progress": True, "train__tensorboard": True}, True),
        ({"train__eval_batch_size": 99}, True),
        ({"retrain__epochs": 3}, True),
        ({"seed": 1}, False),
        ({"replicas": 2}, False),
        ({"train__epochs": 3}, False),
        ({"optimizer__learning_rate": 0.2}, False),
        ({"sampling__scheme": "class"}, False),
        ({"augment__flip": True}, False),
        ({"model__dtype": "bfloat16"}, False),
        ({"data__imbalance": 20.0}, False),
    ],
    ids=str,
)
def test_only_the_same_first_stage_is_shared(fields, shared):
    """Whatever changes its weights makes another one."""
    planned = plan({"cross_entropy": tiny(), "crt": tiny("crt", **fields)})
    assert planned[1].stage1 == ("cross_entropy" if shared else "crt_stage1")


def test_a_row_that_cannot_be_run_is_refused_before_any_is(tmp_path):
    configs = {"cross_entropy": tiny(), "crt": tiny("crt", retrain__epochs=0)}
    with pytest.raises(InputError, match=r"config.retrain.epochs is 0; expected at least 1"):
        run_sweep(configs, tmp_path / "sweep", lambda summaries: None)
    assert not (tmp_path / "sweep").exists()


def test_a_finished_sweep_is_written_anew_without_its_data_or_device(tmp_path, monkeypatch):
    """Also one that was trained on a GPU, with kernels that do not run here."""
    config = tiny(train__epochs=1)
    tables = []
    run_sweep({"a": config}, tmp_path, tables.append)
    for name in ("load_dataset", "prepare"):
        monkeypatch.setattr(sweep, name, None)
    config.model.fused = True  # which may differ, but is refused where it would run
    assert run_sweep({"a": config}, tmp_path, tables.append) == {}
    assert tables[0] == tables[1]


def fake_runs(monkeypatch, outcome):
    """Rows that are not run: `outcome` says by folder name what comes of each."""
    ran = []

    def train(config, folder, **_):
        ran.append(folder.name)
        return outcome(folder.name)

    def retrain(config, folder, before, **_):
        ran.append(f"{folder.name} from {before.name}")
        return outcome(folder.name)

    monkeypatch.setattr(sweep, "train", train)
    monkeypatch.setattr(sweep, "retrain", retrain)
    return ran


def test_the_table_grows_in_its_own_order(tmp_path, monkeypatch):
    """Rows of one stage are run first, but stand where the table has them."""
    tables = []
    ran = fake_runs(monkeypatch, lambda name: name)
    configs = {name: tiny(name) for name in ("crt", "cross_entropy", "gcl")}
    assert run_sweep(configs, tmp_path, tables.append) == {}
    # Fakes leave no summary, so that first stages are asked for again.
    assert ran == [
        *("cross_entropy", "cross_entropy", "crt from cross_entropy"),
        *("gcl_stage1", "gcl from gcl_stage1"),
    ]
    assert tables == [
        ["cross_entropy"],
        ["crt", "cross_entropy"],
        ["crt", "cross_entropy", "gcl"],
    ]


def test_a_signal_ends_the_sweep(tmp_path, monkeypatch):
    """What has been done is in the table; later rows are not started."""
    tables = []
    ran = fake_runs(monkeypatch, lambda name: None if name == "gcl_stage1" else name)
    configs = {name: tiny(name) for name in ("cross_entropy", "gcl", "balanced_softmax")}
    with pytest.raises(InterruptedError):
        run_sweep(configs, tmp_path, tables.append)
    assert ran == ["cross_entropy", "balanced_softmax", "gcl_stage1"]
    assert tables[-1] == ["cross_entropy", "balanced_softmax"]


def test_a_row_that_diverges_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    def outcome(name):
        if name == "gcl_stage1":
            raise NonFiniteError("the loss of seed 1 was not finite at step 3")
        return name

    fake_runs(monkeypatch, outcome)
    tables = []
    configs = {name: tiny(name) for name in ("gcl", "cross_entropy", "gcl/crt", "balanced_softmax")}
    failed = run_sweep(configs, tmp_path, tables.append)
    assert list(failed) == ["gcl", "gcl/crt"]  # both need the stage that diverges
    assert failed["gcl"] == "the loss of seed 1 was not finite at step 3"
    assert tables[-1] == ["cross_entropy", "balanced_softmax"]


# Settings and rows from the command line.


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train.epochs=2", 2),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning_rate=1e-3", 1e-3),
        ("augment.flip=true", True),
        ("augment.flip=True", True),
        ("train.picture=False", False),
        ("model.name=resnet20", "resnet20"),
        ('model.name="resnet20"', "resnet20"),
        ("data.source=arrays:a=b.npz", "arrays:a=b.npz"),
        ("data.class_counts=[5,4,3]", (5, 4, 3)),
        ("retrain.tau=[0,0.5,1]", (0, 0.5, 1)),
        ("objective.transforms.focal.gamma=2", 2.0),
    ],
)
def test_setting_is_read_as_its_field_has_it(setting, value):
    config = base_config("focal/tau_norm")
    override(config, [setting])
    found = config
    for name in setting.partition("=")[0].split("."):
        found = found[name]
    assert found == value
    assert type(found) is type(value)
    check_config(config)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.epochs", r"setting is 'train.epochs'; expected such as 'train.epochs=2'"),
        ("train.epoch=2", r"config has no field 'train.epoch'; did you mean train.epochs"),
        ("training.epochs=2", r"config has no field 'training.epochs'; did you mean train.epochs"),
        ("=2", r"config has no field ''"),
        ("train.epochs=two", r"'train.epochs=two'; expected a value such as "),
        ("train.epochs=2.5", r"'train.epochs=2.5'; expected a value such as "),
        ("train.epochs=", r"'train.epochs='; expected a value such as "),
        ("train=2", r"'train=2', but train is a group; expected train.FIELD"),
        ("augment.flip=1", r"'augment.flip=1'; expected a value such as False"),
        ("retrain.tau=0.5", r"'retrain.tau=0.5'; expected a value such as "),
        ("retrain.epochs=2", r"config has no field 'retrain.epochs'"),
    ],
)
def test_setting_that_does_not_fit_is_refused(setting, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        override(base_config("tau_norm"), [setting])
    assert "\n" not in str(error.value)


DIGITS = runpy.run_path(str(ROOT / "configs/digits.py"))


def test_configs_of_rows_and_of_a_sweep():
    """Settings and seeds reach every row; those of the second stage the rows that have them."""
    settings = ["train.epochs=2", "retrain.epochs=3", "retrain.tau=[1]"]
    rows = ["cross_entropy", "crt", "tau_norm"]
    configs = load_configs(DIGITS, None, rows, settings, 3)
    assert list(configs) == rows
    assert [c.train.epochs for c in configs.values()] == [2, 2, 2]
    assert [c.replicas for c in configs.values()] == [3, 3, 3]
    assert configs["crt"].retrain.epochs == 3
    assert configs["tau_norm"].retrain.tau == (1,)
    table = load_configs(CIFAR, "gcl_table,cifar10,100", [], [], 1)
    assert list(table) == [f"cifar10_lt100_{m}" for m in CIFAR["SWEEPS"]["gcl_table"]]


def test_every_combination_of_values_is_a_row():
    """Fields vary in the rows that have them; the other rows stay one."""
    gamma = "objective.transforms.focal.gamma=0.5,1"
    over = ["optimizer.milestones=[1, 2],[3]", gamma, "optimizer.name=sgd,adam"]
    rows = load_configs(DIGITS, None, ["focal"], ["train.epochs=2"], 3, over)
    assert len(rows) == 8
    row = rows["focal_milestones_1_2_gamma_1_name_adam"]
    assert row.optimizer.milestones == (1, 2)
    assert row.objective.transforms.focal.gamma == 1.0
    assert (row.optimizer.name, row.train.epochs, row.replicas) == ("adam", 2, 3)
    both = load_configs(DIGITS, None, ["cross_entropy", "focal"], [], 1, [gamma])
    assert list(both) == ["cross_entropy", "focal_gamma_0.5", "focal_gamma_1"]


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ("train.epochs", r"--over is 'train.epochs'; expected such as 'train.epochs=10,20'"),
        ("=1,2", r"--over is '=1,2'"),
        ("train.epochs=1,two", r"'train.epochs=two'; expected a value such as"),
        ("train.epoch=1,2", r"'train.epoch=1,2' is of a field that none of the rows has"),
        ("train.epochs=1,1", r"two rows are called 'crt_epochs_1'"),
    ],
)
def test_values_that_cannot_be_swept_are_refused(over, sentence):
    with pytest.raises(InputError, match=sentence):
        load_configs(DIGITS, None, ["crt"], [], 1, [over])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((None, [], []), r"expected either --sweep or --row"),
        (("x", ["crt"], []), r"expected either --sweep or --row"),
        (("gcl_table", [], []), r"the config file has no get_sweep; name the rows by --row"),
        ((None, ["crt", "ncm", "crt"], []), r"two rows are called 'crt'; expected different names"),
        ((None, ["crtt"], []), r"method is 'crtt'|objective 'crtt'"),
        ((None, ["crt"], ["train.epoch=2"]), r"config has no field 'train.epoch'"),
        ((None, ["crt"], ["retrain.epochs=x"]), r"'retrain.epochs=x'; expected a value such as 20"),
        (
            (None, ["cross_entropy", "tau_norm"], ["retrain.epochs=2"]),
            r"setting 'retrain.epochs=2' is of a field that none of the rows has",
        ),
        ((None, ["crt"], ["retrain.epochs"]), r"setting is 'retrain.epochs'; expected such as"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(arguments, sentence):
    name, rows, settings = arguments
    with pytest.raises(InputError, match=sentence) as error:
        load_configs(DIGITS, name, rows, settings, 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["gcl_table", "none,cifar10,100", "gcl_table,cifar11,100", "gcl_table,cifar10,ten"]
)
def test_sweep_that_does_not_exist_is_refused(name):
    with pytest.raises(InputError, match=r"expected"):
        load_configs(CIFAR, name, [], [], 1)


# Real processes.

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


def pretend(summary: dict, name: str, **config) -> dict:
    """A real summary as if it were of another row."""
    made = copy.deepcopy(summary)
    made["name"] = name
    made["config"]["data"] |= {"source": "tfds:cifar10", "imbalance": 100.0, "max_count": 0}
    made["config"]["model"]["name"] = "resnet32"
    for path, value in config.items():
        group, field = path.split("__")
        made["config"][group][field] = value
    return made


def test_reported_numbers_stand_beside_measured_ones(whole, tmp_path):
    """Of the same data, imbalance and network; errors as accuracies; with source and note."""
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
    ]
    header, *lines = markdown(tmp_path)
    assert [line[header.index("reported")] for line in lines] == cells
    text = (tmp_path / "table.md").read_text()
    assert "- Reported, gcl: from memory, unconfirmed." in text
    assert "- Reported, cb_best: paper; whether the epoch was chosen on test is not said" in text


# The tables of the papers.

TABLES = sorted(CIFAR["SWEEPS"])


@pytest.mark.parametrize(
    ("data", "imbalance"), itertools.product(("cifar10", "cifar100"), ("10", "50", "100", "200"))
)
def test_every_row_of_the_papers_tables_is_a_config(data, imbalance):
    """One that can be run, as far as can be seen without images; with a name of its own."""
    for name in TABLES:
        configs = load_configs(CIFAR, f"{name},{data},{imbalance}", [], [], 3)
        assert len(configs) == len(CIFAR["SWEEPS"][name])
        for row, config in configs.items():
            check_config(config)
            assert row.startswith(f"{data}_lt{imbalance}_")
            assert config.data.source == f"tfds:{data}"
            assert config.data.imbalance == float(imbalance)
            assert config.data.validation_size == 0  # all of train, as in the papers
            assert config.model.name == "resnet32"
            # Without validation there is nothing to choose a knob on.
            assert len(config.retrain.get("tau", (0,))) == 1
        plan(configs)


def test_first_stages_of_the_gcl_table_are_trained_once():
    configs = load_configs(CIFAR, "gcl_table,cifar10,100", [], [], 5)
    stages = {row.name: row.stage1 for row in plan(configs) if row.stage1}
    name = "cifar10_lt100_{}".format
    rows = ("posthoc_logit_adjustment", "crt", "lws", "tau_norm")
    assert stages == {
        **{name(row): name("cross_entropy") for row in rows},
        name("gcl"): name("gcl_stage1"),
    }


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_gcl_row_has_the_settings_of_the_paper(data):
    """Li, Cheung and Lu, CVPR 2022: clouds, margins, scales, focal, sampler, recipe, warm-ups."""
    config = CIFAR["get_config"](f"{data},100,gcl")
    optimizer = {
        "name": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 2e-4,
        "warmup_epochs": 5.0,
    }
    # Stage 1: softmax of clouds, every image once an epoch, mixup.
    assert config.objective.base == "softmax"
    assert list(config.objective.transforms) == ["gaussian_cloud"]
    cloud = config.objective.transforms.gaussian_cloud
    assert (cloud.noise, cloud.margin, cloud.scale, cloud.angular) == (0.5, 0.0, 30.0, False)
    assert config.sampling.scheme == "instance"
    assert config.augment.mixup_alpha == 1.0
    assert (config.train.epochs, config.train.batch_size) == (200, 64)
    found = config.optimizer.to_dict()
    assert {name: found[name] for name in optimizer} == optimizer
    assert found["schedule"] == "step"
    assert (found["milestones"], found["factors"]) == ((160.0, 180.0), (0.1, 0.1))
    # Stage 2: from the classifier of stage 1.
    second = config.retrain
    assert (second.method, second.weights) == ("finetune", "last")
    assert second.objective.base == "softmax"
    assert sorted(second.objective.transforms) == ["focal", "gaussian_cloud"]
    cloud, focal = second.objective.transforms.gaussian_cloud, second.objective.transforms.focal
    assert (cloud.noise, cloud.margin, cloud.scale, cloud.angular) == (0.5, 0.1, 20.0, False)
    assert (focal.gamma, focal.differentiate_modulator) == (1.0, False)
    assert second.sampling.scheme == "class_based_effective_number"
    assert (second.sampling.beta, second.sampling.beta_spread) == (0.9999, 1e-5)
    assert second.augment.mixup_alpha == 1.0
    assert (second.epochs, second.batch_size) == (30, 64)
    found = second.optimizer.to_dict()
    assert {name: found[name] for name in optimizer} == optimizer
    assert found["schedule"] == "constant"  # after the warm-up; no milestone within 30 epochs


def test_first_stage_of_gcl_alone_is_that_of_both():
    """The row `gcl_stage1` is what the row `gcl` starts from."""
    alone, both = (CIFAR["get_config"](f"cifar100,200,{name}") for name in ("gcl_stage1", "gcl"))
    assert plan({"a": alone, "b": both})[1].stage1 == "a"
    assert not alone.retrain.method
