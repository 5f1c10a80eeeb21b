"""Sweeps: which first stages are shared, the order of rows, what one that fails does to others."""

import pytest
from tiny_runs import PixelNet, tiny

from lt_jax import models, sweep
from lt_jax.errors import InputError, NonFiniteError
from lt_jax.sweep import plan, run_sweep


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
        ({"train__eval_every_epochs": 2}, False),  # the best weights on validation are others
        ({"metrics__groups": "counts"}, False),
        ({"data__imbalance": 20.0}, False),
    ],
    ids=str,
)
def test_only_the_same_first_stage_is_shared(fields, shared):
    """Whatever changes its weights makes another one."""
    planned = plan({"cross_entropy": tiny(), "crt": tiny("crt", **fields)})
    assert planned[1].stage1 == ("cross_entropy" if shared else "crt_stage1")


# What is run, and what is not.


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
    for name in ("load", "prepare"):
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
