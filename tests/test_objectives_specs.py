"""Objectives as fields of a config: specs of methods, names that join, bad names and fields."""

import numpy as np
import pytest
from every_method import COUNTS

from lt_jax.errors import InputError
from lt_jax.objectives import METHODS, build_objective, method_spec
from lt_jax.objectives.registry import completed_spec


def test_specs_write_every_option_out():
    for name in METHODS:
        spec = method_spec(name)
        assert set(spec) == {"base", "base_options", "transforms"}
        assert "class_counts" not in str(spec)
    assert method_spec("plm")["transforms"]["partial_label_mask"]["update_every"] == 0
    spec = method_spec("cb_focal")
    spec["transforms"]["focal"]["gamma"] = 9.0
    assert method_spec("cb_focal")["transforms"]["focal"]["gamma"] == 1.0


def test_methods_and_transforms_join():
    spec = method_spec("cb_focal+partial_label_mask+gaussian_cloud")
    assert spec["base"] == "sigmoid"
    assert list(spec["transforms"]) == [
        "class_balanced",
        "focal",
        "partial_label_mask",
        "gaussian_cloud",
    ]
    assert list(method_spec("sigmoid+plm")["transforms"]) == ["partial_label_mask"]
    # Names that are both a method and a transform: first a method, later a transform.
    assert method_spec("focal")["base"] == "sigmoid"
    assert method_spec("cb_softmax+focal")["base"] == "softmax"
    assert method_spec("logit_adjustment+class_balanced")["base"] == "softmax"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cross_entrpy", "method is 'cross_entrpy'; expected one of asymmetric, balanced_softmax"),
        ("gaussian_cloud", "method is 'gaussian_cloud'; expected one of"),
        ("plm+fokal", "method is 'fokal'; expected one of"),
        ("gcl+plm", "plm has base sigmoid and gcl has base softmax; name the transform instead"),
        ("", "method is ''; expected one of"),
    ],
)
def test_bad_method_names(name, sentence):
    with pytest.raises(InputError, match=sentence):
        method_spec(name)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"transform": {}}, "objective has no field 'transform'; it has base, base_options and"),
        (
            {"transforms": {"fokal": {}}},
            "loss transform is 'fokal'; expected one of class_balanced",
        ),
        ({"base": "tanh"}, "base loss is 'tanh'; expected one of asymmetric, negative_tolerant"),
        (
            {"transforms": {"focal": {"gama": 1}}},
            "focal has no option 'gama'; it has differentiate_modulator, gamma",
        ),
        (
            {"transforms": {"class_balanced": {"class_counts": [1]}}},
            "class_balanced has no option 'class_counts'; it has beta",
        ),
        ({"base_options": {"clip": 0}}, "softmax has no option 'clip'; it has none"),
        ({"transforms": {"class_balanced": {"beta": 1}}}, "beta is 1; expected a number in"),
        (
            {"transforms": {"focal": {"start_epoch": -1}}},
            r"start_epoch of focal is -1; expected a number in \[0, inf\)",
        ),
        (
            {"transforms": {"gaussian_cloud": {"start_epoch": 1}}},
            "gaussian_cloud cannot be deferred",
        ),
        (
            {"transforms": {"scale_logits": {}, "gaussian_cloud": {}}},
            "gaussian_cloud and scale_logits do not combine: each takes cosines and scales them",
        ),
    ],
)
def test_bad_specs(spec, sentence):
    with pytest.raises(InputError, match=sentence):
        build_objective(spec, COUNTS, steps_per_epoch=4)


@pytest.mark.parametrize("options", [None, {}, {"gamma": 2.0}, 3])
def test_specs_of_earlier_versions_are_completed(options):
    """What cannot be read stays as it is, for whoever tells of it."""
    spec = {"base": "sigmoid", "transforms": {"focal": options}}
    found = completed_spec(spec)["transforms"]["focal"]
    if options == 3:
        assert found == 3
    else:
        assert found == {"gamma": 1.0, "differentiate_modulator": True, "start_epoch": 0.0} | (
            options or {}
        )
    assert completed_spec({"base": "softmax"})["transforms"] == {}


def test_num_examples_reach_the_ratios():
    objective = build_objective(method_spec("plm"), COUNTS, num_examples=1000)
    np.testing.assert_allclose(objective.init()[0].ideal_ratio, COUNTS / (1000 - COUNTS), rtol=1e-6)
