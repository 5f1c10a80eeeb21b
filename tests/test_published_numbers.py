"""Defaults are the numbers of the papers: who calls a loss by its name gets the published one."""

import inspect

import numpy as np
import pytest

from lt_jax import losses, objectives
from lt_jax.data.statistics import IMAGENET
from lt_jax.objectives import METHODS, method_spec

# Of the loss, and of the transform or base that has the same options.
PUBLISHED = {
    # Ridnik et al., ICCV 2021; gamma 1 of the positives is the setting of their code.
    "asymmetric_loss": ("asymmetric", {"gamma_positive": 1, "gamma_negative": 4, "clip": 0.05}),
    # Cui et al., CVPR 2019, the values tried that were best most often.
    "class_balanced_softmax_cross_entropy": ("class_balanced", {"beta": 0.9999}),
    "class_balanced_sigmoid_cross_entropy": ("class_balanced", {"beta": 0.9999}),
    "class_balanced_focal_loss": ("class_balanced", {"beta": 0.9999}),
    # Wu et al., ECCV 2020, as for COCO.
    "distribution_balanced_loss": ("rebalanced", {"alpha": 0.1, "beta": 10, "mu": 0.2}),
    # Tan et al., CVPR 2020.
    "equalization_loss": ("equalization", {"probability": 0.9}),
    # Li, Cheung and Lu, CVPR 2022, stage 1.
    "gaussian_clouded_cross_entropy": (
        "gaussian_cloud",
        {"noise": 0.5, "margin": 0, "scale": 30, "angular": False},
    ),
    # Cao et al., NeurIPS 2019.
    "ldam_loss": ("label_distribution_margin", {"max_margin": 0.5, "scale": 30}),
    # Menon et al., ICLR 2021.
    "logit_adjusted_cross_entropy": ("logit_adjustment", {"tau": 1}),
    # Wang et al., CVPR 2021.
    "seesaw_loss": ("seesaw", {"mitigation": 0.8, "compensation": 2}),
    "weighted_sigmoid_cross_entropy": ("positive_weight", {"power": 1}),
    "sigmoid_focal_loss": ("focal", {"gamma": 1}),
    "softmax_focal_loss": ("focal", {"gamma": 1}),
}


def defaults(function):
    return {name: p.default for name, p in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_of_losses_and_of_transforms(name):
    same, numbers = PUBLISHED[name]
    for function in (getattr(losses, name), getattr(objectives, same)):
        found = defaults(function)
        assert {option: found[option] for option in numbers} == numbers


def test_defaults_of_what_only_an_objective_has():
    tolerant = {"kappa": 0.05, "negative_scale": 2}  # Wu et al., ECCV 2020
    for function in (losses.distribution_balanced_loss, objectives.negative_tolerant):
        assert {k: defaults(function)[k] for k in tolerant} == tolerant
    masking = {"rate": 0.01, "bins": 10, "bound": 100, "ratio": "odds"}
    found = defaults(objectives.partial_label_mask)
    assert {k: found[k] for k in masking} == masking
    # Cao et al., NeurIPS 2019: weights from epoch 160 of 200 on.
    # Then a weighted mean, as PyTorch's cross_entropy takes it.
    deferred = method_spec("ldam_drw")["transforms"]["class_balanced"]
    assert (deferred["start_epoch"], deferred["normalize"]) == (160 / 200, True)


def test_a_method_changes_no_default_but_what_it_says():
    """Those with other options than their transforms have by themselves."""
    changed = {n: m.transforms for n, m in METHODS.items() if any(m.transforms.values())}
    assert changed == {
        "ldam_drw": {
            "label_distribution_margin": {},
            "class_balanced": {"start_epoch": 0.8, "normalize": True},
        },
        "gcl_angular": {"gaussian_cloud": {"angular": True}},
    }


def test_pixels_of_photographs_are_normalised_as_everywhere():
    """Mean and deviation of ImageNet's training images, as in torchvision and timm."""
    np.testing.assert_array_equal(IMAGENET, [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
