"""Objectives: losses that compose, with state and randomness made explicit."""

from lt_jax.objectives.alternatives import Alternative, alternatives
from lt_jax.objectives.bases import (
    asymmetric,
    negative_tolerant,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from lt_jax.objectives.core import Base, Objective, Terms, Transform, chain
from lt_jax.objectives.deferred import deferred
from lt_jax.objectives.logits import (
    gaussian_cloud,
    label_distribution_margin,
    logit_adjustment,
    scale_logits,
    seesaw,
)
from lt_jax.objectives.masks import PartialLabelState, equalization, partial_label_mask
from lt_jax.objectives.methods import METHODS, Method
from lt_jax.objectives.mixing import mixed_loss
from lt_jax.objectives.registry import (
    BASES,
    TRANSFORMS,
    build_objective,
    check_multi_label,
    method_spec,
)
from lt_jax.objectives.weights import (
    class_balanced,
    focal,
    inverse_frequency,
    positive_weight,
    rebalanced,
)

__all__ = [
    "BASES",
    "METHODS",
    "TRANSFORMS",
    "Alternative",
    "Base",
    "Method",
    "Objective",
    "PartialLabelState",
    "Terms",
    "Transform",
    "alternatives",
    "asymmetric",
    "build_objective",
    "chain",
    "check_multi_label",
    "class_balanced",
    "deferred",
    "equalization",
    "focal",
    "gaussian_cloud",
    "inverse_frequency",
    "label_distribution_margin",
    "logit_adjustment",
    "method_spec",
    "mixed_loss",
    "negative_tolerant",
    "partial_label_mask",
    "positive_weight",
    "rebalanced",
    "scale_logits",
    "seesaw",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
]
