"""Numbers that the methods take, chosen from class counts, each with its reason."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lt_jax import longtail
from lt_jax.advice import evidence
from lt_jax.advice.measured import Measures
from lt_jax.longtail import Vector

SMALL = 10_000  # images; what this project's own measurements were made with
FEW_FOR_COSINES = 2_400  # images; with 2,478 a scale of 30 trained, after a warm-up
SURE = 0.99


class Numbers(NamedTuple):
    """What goes into a config.

    Attributes:
      beta: of class-balanced weights.
      scale: s of cosine logits, in stage 1.
      scale2: the same in stage 2 of GCL.
      noise: k of GCL's clouds, in stage 1.
      noise2: the same in stage 2.
      rate: of partial label masking's updates.
    """

    beta: float
    scale: float
    scale2: float
    noise: float
    noise2: float
    rate: float


class Setting(NamedTuple):
    """One line of advice.

    Attributes:
      name: what is set.
      value: what to, as text.
      reason: why.
      source: of the reason.
    """

    name: str
    value: str
    reason: str
    source: str


class Vectors(NamedTuple):
    """What follows for each class; of a class without images weight 0, the others NaN.

    Attributes:
      weights: class-balanced weights with the advised beta, float64 ``[C]``.
      cloud_sizes: of GCL's clouds, in [0, 1], float64 ``[C]``.
      margins: of LDAM, at most 0.5, float64 ``[C]``.
    """

    weights: Vector
    cloud_sizes: Vector
    margins: Vector


def least_scale(num_classes: int, probability: float = SURE) -> float:
    r"""Scale of cosine logits that lets a softmax be this sure.

    .. math:: s = \frac{C - 1}{C} \log \frac{(C - 1) P}{1 - P}

    with the vectors of the classes as far apart as C vectors can be, and the feature on its own.

    Args:
      num_classes: C, at least 2.
      probability: P.

    Returns:
      The scale s.

    Example:
      >>> round(least_scale(2), 2), round(least_scale(1000), 2)
      (2.3, 11.49)

    Source: Wang et al., CosFace, CVPR 2018, equation 6.
    """
    others = num_classes - 1
    return others / num_classes * float(np.log(others * probability / (1 - probability)))


def numbers_for(counts: Vector, measures: Measures) -> Numbers:
    """The numbers of the methods.

    Args:
      counts: images of each class, float64 ``[C]``.
      measures: of them.

    Returns:
      `Numbers`.

    Example:
      >>> from lt_jax.advice.measured import measure
      >>> counts = np.array([90.0, 9.0])
      >>> numbers_for(counts, measure(counts)).scale
      10.0
    """
    if measures.num_classes == 2:
        scale = 10.0
    else:
        few = measures.num_examples < FEW_FOR_COSINES or measures.num_classes < 10
        scale = 15.0 if few else 30.0
    return Numbers(
        beta=evidence.nearest_beta(counts).beta,
        scale=scale,
        scale2=round(scale * 2 / 3, 1),
        noise=0.5,
        noise2=0.25 if measures.num_examples < SMALL else 0.5,
        rate=0.05,
    )


def vectors_for(counts: Vector, numbers: Numbers) -> Vectors:
    """One number for each class, of each kind.

    Args:
      counts: images of each class, float64 ``[C]``.
      numbers: with the beta.

    Returns:
      `Vectors`.

    Example:
      >>> numbers = Numbers(0.9, 30.0, 20.0, 0.5, 0.25, 0.05)
      >>> vectors_for(np.array([160.0, 10.0, 0.0]), numbers).margins
      array([0.25, 0.5 ,  nan])
    """
    present = counts > 0

    def of_present(values: Vector) -> Vector:
        vector = np.full(counts.size, np.nan)
        vector[present] = values
        return vector

    return Vectors(
        longtail.class_balanced_weights(counts, numbers.beta),
        of_present(longtail.cloud_sizes(counts[present])),
        of_present(longtail.label_distribution_margins(counts[present])),
    )


def settings_for(
    counts: Vector, measures: Measures, numbers: Numbers, vectors: Vectors, multi_label: bool
) -> tuple[Setting, ...]:
    """The numbers with their reasons, as they are printed.

    Args:
      counts: images of each class, float64 ``[C]``.
      measures: of them.
      numbers: from `numbers_for`.
      vectors: from `vectors_for`.
      multi_label: whether an example may have several labels, or none.

    Returns:
      Settings, of every method that fits such labels.
    """
    beta = _beta(counts, measures, numbers, vectors)
    if multi_label:
        return beta, _positive_weights(counts, measures), _rate()
    return (
        beta,
        _scale(measures, numbers),
        _noise(vectors, numbers),
        _margins(vectors),
        _sampler(counts, measures),
    )


def _beta(counts: Vector, measures: Measures, numbers: Numbers, vectors: Vectors) -> Setting:
    use = evidence.nearest_beta(counts)
    weights = vectors.weights[counts > 0]
    return Setting(
        "beta of class-balanced weights",
        f"{numbers.beta:g}",
        f"weights from {weights.min():.3g} to {weights.max():.3g}, a factor of"
        f" {weights.max() / weights.min():.3g} (by inverse frequency {measures.factor:.3g}). beta ="
        f" (N - 1) / N says that a class has N = {1 / (1 - numbers.beta):,.0f} different images;"
        f" further ones count little. It is that of {use.name} ({use.num_classes:,} classes of"
        f" {use.largest:,} to {use.smallest:,} images), of the sets known nearest to these counts."
        " On CIFAR-100-LT 100 the error of 0.9999 was 66.0 %, that of no weights 61.7 %.",
        use.source if evidence.CUI in use.source else f"{evidence.CUI}; {use.source}",
    )


def _scale(measures: Measures, numbers: Numbers) -> Setting:
    if measures.num_classes == 2:
        why = "two classes take 5 to 15, with 30 training may fail"
    elif measures.num_classes < 10:
        why = "between the 5 to 15 of two classes and the 30 of ten; nothing was measured there"
    elif numbers.scale < 30:
        why = "with 30 training diverged on 312 digits, with 15 it did not"
    elif measures.num_examples < SMALL:
        why = "with 2,478 images of ten classes 30 trained, after a warm-up of 5 epochs"
    else:
        why = "the paper's, from 10 to 8,142 classes"
    return Setting(
        "scale s of cosine logits (GCL, LDAM)",
        f"{numbers.scale:g}, in stage 2 of GCL {numbers.scale2:g}",
        f"{why}; with less than {least_scale(measures.num_classes):.2g} not all of"
        f" {measures.num_classes:,} classes can reach a probability of {SURE:.0%}. Stage 2 takes"
        " two thirds, as the paper's 20 of 30.",
        "Li, Cheung and Lu, CVPR 2022; README; Wang et al., CVPR 2018",
    )


def _noise(vectors: Vectors, numbers: Numbers) -> Setting:
    small = (
        "stage 2 draws rare classes as often already, 0.25 was better there on validation"
        if numbers.noise2 < numbers.noise
        else "the paper's; on small sets 0.25 was better in stage 2"
    )
    return Setting(
        "noise k of GCL's clouds",
        f"{numbers.noise:g}, in stage 2 {numbers.noise2:g}",
        f"cloud sizes are {np.nanmin(vectors.cloud_sizes):g} for the largest class to"
        f" {np.nanmax(vectors.cloud_sizes):g} for the smallest, the median class has"
        f" {np.nanmedian(vectors.cloud_sizes):.2g}; {small}.",
        f"Li, Cheung and Lu, CVPR 2022; {evidence.STUDIES}",
    )


def _margins(vectors: Vectors) -> Setting:
    return Setting(
        "margins of LDAM",
        f"{np.nanmin(vectors.margins):.2g} to {np.nanmax(vectors.margins):.2g}",
        "of cosines, in proportion to n ** (-1/4), 0.5 for the smallest class.",
        "Cao et al., NeurIPS 2019",
    )


def _sampler(counts: Vector, measures: Measures) -> Setting:
    repeats = measures.num_examples / ((measures.num_classes - measures.absent) * measures.smallest)
    effective = longtail.sampling_probabilities(counts, "class_based_effective_number")
    class_balanced = longtail.sampling_probabilities(counts, "class")
    elsewhere = np.abs(effective - class_balanced).sum() / 2
    present = effective[counts > 0]
    return Setting(
        "sampler",
        "instance in stage 1, class in stage 2",
        f"class-balanced draws take an image of the smallest class {repeats:.3g} times an epoch,"
        f" one of the largest {repeats / measures.factor:.2g} times. Class-based effective numbers"
        f" (beta 0.9999 to 0.99991, GCL's own) draw the likeliest class"
        f" {present.max() / present.min():.3g} times as often as the least likely,"
        f" {elsewhere:.1%} of the draws fall on other classes: no better in anything measured.",
        f"Kang et al., ICLR 2020; {evidence.STUDIES}",
    )


def _positive_weights(counts: Vector, measures: Measures) -> Setting:
    weights = longtail.positive_weights(counts, measures.num_examples)
    return Setting(
        "weights of positives (weighted_sigmoid)",
        f"{weights.min():.3g} to {weights.max():.3g}",
        "negatives for each positive of a class; 1 where it has none of either.",
        "common practice",
    )


def _rate() -> Setting:
    return Setting(
        "rate of partial label masking",
        "0.05 for 30 to 60 epochs, one update each",
        "rate times the number of updates is what counts: for 200 epochs take 0.01. A larger one"
        " moves operating points further and costs mAP of the rare classes; bound 2 to 20 limits"
        " it.",
        f"Duarte et al., CVPRW 2021; {evidence.STUDIES}",
    )
