"""Numbers that papers report: the file, and beside which rows they stand."""

import runpy

import pytest
from tiny_runs import ROOT

from lt_jax.configuration import base_config, plain
from lt_jax.errors import InputError
from lt_jax.reported import read_reported, reported_for
from lt_jax.summaries import row_name


@pytest.mark.parametrize("text", [b"a,b\n1,2\n", b"\xff\xfe\x00"])
def test_reported_file_is_checked_when_read(tmp_path, text):
    (tmp_path / "r.csv").write_bytes(text)
    with pytest.raises(InputError):
        reported_for(read_reported(tmp_path / "r.csv"), base_config(), "cross_entropy")


ROW = {
    "paper": "P",
    "dataset": "cifar10",
    "imbalance": "100",
    "method": "gcl",
    "backbone": "resnet32",
    "metric": "top1_accuracy",
    "value": "82.68",
    "note": "",
}


@pytest.mark.parametrize(
    "change",
    [
        {"imbalance_kind": "step"},
        {"max_count": 1000},
        {"class_counts": (9,) * 10},
        {"imbalance": 50.0},
        {"train_split": "train[:20%]"},
        {"train_list": "a.txt"},
    ],
)
def test_reported_numbers_are_of_the_same_data(change):
    config = base_config()
    config.data.source, config.data.imbalance = "tfds:cifar10", 100.0
    config.model.name, config.train.epochs = "resnet32", 200
    assert [r.value for r in reported_for([ROW], config, "gcl")] == [82.68]
    config.data.update(change)
    assert reported_for([ROW], config, "gcl") == []


STRONG = {"augment": {"autoaugment": True, "cutout_size": 16}, "train": {"epochs": 400}}


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({}, [82.68]),
        ({"train": {"epochs": 10}}, []),
        ({"augment": {"cutout_size": 16}}, []),
        ({"optimizer": {"name": "adam"}}, []),
        (STRONG, [85.0]),
        ({**STRONG, "train": {"epochs": 100}}, []),
        ({"model": {"pretrained": "w.npz"}}, []),
    ],
    ids=str,
)
def test_regimes_are_not_mixed(changes, numbers):
    """Docs/protocol.md, 8: AutoAugment and Cutout gain as much as methods do."""
    config = base_config()
    config.data.source, config.data.imbalance = "tfds:cifar10", 100.0
    config.model.name, config.train.epochs = "resnet32", 200
    for group, fields in changes.items():
        config[group].update(fields)
    rows = [ROW, {**ROW, "method": "gcl_strong", "value": "85.0"}]
    assert [r.value for r in reported_for(rows, config, "gcl")] == numbers


@pytest.mark.parametrize(
    "names", [("cross_entropy", "softmax"), ("balanced_softmax", "logit_adjustment")]
)
def test_names_of_one_loss_have_the_same_numbers(names):
    config = base_config()
    config.data.source, config.data.imbalance = "tfds:cifar10", 100.0
    config.model.name, config.train.epochs = "resnet32", 200
    rows = read_reported(ROOT / "results/reported.csv")
    one, other = (reported_for(rows, config, name) for name in names)
    assert one == other
    assert len(one) >= 2


def test_runs_of_earlier_versions_had_fewer_fields():
    config = plain(base_config())
    config["data"] |= {"source": "tfds:cifar10", "imbalance": 100.0}
    config["model"]["name"], config["train"]["epochs"] = "resnet32", 200
    for name in ("train_split", "test_split", "train_list", "image_size"):
        del config["data"][name]
    for name in ("autoaugment", "cutout_size"):
        del config["augment"][name]
    del config["model"]["pretrained"]
    assert [r.value for r in reported_for([ROW], config, "gcl")] == [82.68]


@pytest.mark.parametrize(
    ("sweep", "numbers"),
    [
        # Error rates of the paper's table 4, of ResNet-50, 101 and 152: softmax, then CB.
        ("cb_table,inat2018,224", [42.86, 39.47, 38.61, 38.88, 36.12, 35.21]),
        ("cb_table,ilsvrc2012,320", [21.99, 20.25, 19.72]),
        ("gcl_table,places_lt", [None, None, None, 100 - 34.589, 100 - 40.641]),
    ],
)
def test_reported_numbers_of_photographs_stand_beside_their_rows(sweep, numbers):
    """Rows trained by GCL's longer recipe are not those of the other paper."""
    config = runpy.run_path(str(ROOT / "configs/photographs.py"))
    reported = read_reported(ROOT / "results/reported.csv")
    found = []
    for row in config["get_sweep"](sweep):
        of_row = config["get_config"](row)
        name = row_name({"name": of_row.name, "data": {"source": of_row.data.source}})
        found += [r.value for r in reported_for(reported, of_row, name)] or [None]
        # Of Places-LT those of pretrained networks, elsewhere of others.
        of_row.model.pretrained = "" if of_row.model.pretrained else "w.npz"
        assert reported_for(reported, of_row, name) == []
    if sweep.startswith("gcl"):  # whose numbers are of 224 pixels
        larger = config["get_config"]("places_lt,resnet152,320,gcl")
        assert reported_for(reported, larger, larger.name) == []
    expected = [None if error is None else pytest.approx(100 - error) for error in numbers]
    assert found == expected
