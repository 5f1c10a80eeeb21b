"""Losses for long-tailed recognition: pure functions, one value for each example.

In optax's manner: ``logits`` and ``labels`` come first, numbers by keyword, nothing is reduced.
``labels`` are integers ``[B]`` or targets ``[B, C]``, told apart by their rank. Needs jax and numpy
only.
"""

from lt_jax.losses.class_balanced import (
    class_balanced_focal_loss,
    class_balanced_sigmoid_cross_entropy,
    class_balanced_softmax_cross_entropy,
)
from lt_jax.losses.cross_entropy import (
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    softmax_cross_entropy,
    softmax_focal_loss,
)
from lt_jax.losses.equalization import equalization_loss
from lt_jax.losses.margins import gaussian_clouded_cross_entropy, ldam_loss
from lt_jax.losses.partial_label import label_ratio, partial_label_masked_cross_entropy
from lt_jax.losses.positive_weight import weighted_sigmoid_cross_entropy
from lt_jax.losses.priors import (
    balanced_softmax_cross_entropy,
    logit_adjusted_cross_entropy,
    seesaw_loss,
)
from lt_jax.losses.reweighted import asymmetric_loss, distribution_balanced_loss

__all__ = [
    "asymmetric_loss",
    "balanced_softmax_cross_entropy",
    "class_balanced_focal_loss",
    "class_balanced_sigmoid_cross_entropy",
    "class_balanced_softmax_cross_entropy",
    "distribution_balanced_loss",
    "equalization_loss",
    "gaussian_clouded_cross_entropy",
    "label_ratio",
    "ldam_loss",
    "logit_adjusted_cross_entropy",
    "partial_label_masked_cross_entropy",
    "seesaw_loss",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_focal_loss",
    "weighted_sigmoid_cross_entropy",
]
