"""From class counts to per-class vectors, on the host in float64.

Everything a long-tailed method derives from how many images each class has is computed here, with
NumPy and in float64: ``0.9999 ** n`` in float32 has lost all of its digits by the time it is
subtracted from one. The results become float32 constants of the jitted step.

A class without images (count 0) is allowed where the formula has a limit: it gets effective number
0, weight 0 and sampling probability 0, and the normalisation is over the classes that do occur.
Where the formula has none (priors, margins, clouds) a count of 0 is refused.
"""

from lt_jax.longtail.counts import (
    Imbalance,
    Vector,
    check_class_counts,
    long_tailed_counts,
    long_tailed_indices,
    long_tailed_profile,
)
from lt_jax.longtail.measures import (
    FEW,
    GROUPS,
    MANY,
    effective_classes,
    gini_coefficient,
    head_share,
    imbalance_factor,
    shot_groups,
)
from lt_jax.longtail.multilabel import count_classes, multi_label_indices
from lt_jax.longtail.sampling import SCHEMES, Scheme, sampling_probabilities
from lt_jax.longtail.vectors import (
    check_beta,
    class_balanced_weights,
    cloud_sizes,
    effective_number,
    inverse_frequency_weights,
    label_distribution_margins,
    log_prior,
    normalised_inverse,
    positive_weights,
    total_examples,
)

__all__ = [
    "FEW",
    "GROUPS",
    "MANY",
    "SCHEMES",
    "Imbalance",
    "Scheme",
    "Vector",
    "check_beta",
    "check_class_counts",
    "class_balanced_weights",
    "cloud_sizes",
    "count_classes",
    "effective_classes",
    "effective_number",
    "gini_coefficient",
    "head_share",
    "imbalance_factor",
    "inverse_frequency_weights",
    "label_distribution_margins",
    "log_prior",
    "long_tailed_counts",
    "long_tailed_indices",
    "long_tailed_profile",
    "multi_label_indices",
    "normalised_inverse",
    "positive_weights",
    "sampling_probabilities",
    "shot_groups",
    "total_examples",
]
