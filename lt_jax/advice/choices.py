"""Which method to start with, and which to try next: by what was measured on sets like these.

Differences are of balanced accuracy (mAP of multi-label sets, where nothing else is said) to plain
cross-entropy, in points, with their paired 95 % interval over five seeds.
"""

from __future__ import annotations

from typing import NamedTuple

from lt_jax.advice import evidence
from lt_jax.advice.measured import Measures
from lt_jax.advice.settings import SMALL

MILD = 2.0  # an imbalance factor below which nothing is gained
MANY_CLASSES = 50
THOUSANDS = 1000
LARGE = 20_000  # images; as many classes as above with fewer are few images each

Value = float | str


class Choice(NamedTuple):
    """A method, and why.

    Attributes:
      method: a name for `lt_jax.configuration.base_config`.
      reason: what speaks for it on a set like this.
      source: of the reason.
      fields: of its config, that are not the method's own.
    """

    method: str
    reason: str
    source: str
    fields: dict[str, Value]


def _choice(method: str, reason: str, *sources: str, **fields: Value) -> Choice:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return Choice(method, reason, "; ".join(sources), named)


def choose(measures: Measures, multi_label: bool) -> tuple[Choice, ...]:
    """Methods for a set, the one to start with first.

    Args:
      measures: of its counts.
      multi_label: whether an example may have several labels, or none.

    Returns:
      Two or three.
    """
    if multi_label:
        return _EVEN_MULTI_LABEL if measures.factor < MILD else _MULTI_LABEL
    if measures.factor < MILD:
        return _EVEN
    if measures.absent:
        return _ABSENT
    if measures.num_classes == 2:
        return _TWO_CLASSES
    if measures.num_classes >= THOUSANDS:
        return _THOUSANDS
    if measures.num_classes >= MANY_CLASSES and measures.num_examples < LARGE:
        return _MANY_CLASSES
    return _SMALL if measures.num_examples < SMALL else _LARGE


_EVEN = (
    _choice(
        "cross_entropy",
        "the classes are about equally frequent: weights, clouds, margins and priors change next to"
        " nothing, and class-balanced weights of equal counts are all 1.",
        evidence.CUI,
    ),
    _choice(
        "sigmoid",
        "one-vs-rest, with biases at their prior: reported errors on balanced CIFAR-10 are 6.36"
        " against 6.61 %, on CIFAR-100 28.39 against 29.07 %. With few images it was behind: on 312"
        " long-tailed digits by -3.3 [-4.3, -2.3].",
        evidence.CUI,
        evidence.DIGITS,
    ),
)
_ABSENT = (
    _choice(
        "crt",
        "a class without images has no prior, margin or cloud, so that GCL, LDAM and balanced"
        " softmax refuse these counts; class-balanced sampling leaves such classes out. Where all"
        " classes occur it gained +10.7 [+9.9, +11.4] on Fashion-MNIST and +9.9 [+9.1, +10.7] on"
        " CIFAR-10 (2,478 images each).",
        "Kang et al., ICLR 2020",
        evidence.FASHION,
        evidence.CIFAR10,
    ),
    _choice(
        "cb_focal",
        "one stage; gives classes without images the weight 0. +7.9 [+7.2, +8.7] and"
        " +4.7 [+3.6, +5.7] on the same sets.",
        evidence.CUI,
        evidence.FASHION,
        evidence.CIFAR10,
    ),
)
_TWO_CLASSES = (
    _choice(
        "balanced_softmax",
        "one line, no scale to choose: with two classes it adds the log odds of the counts to the"
        " difference of the logits while training.",
        "Ren et al., NeurIPS 2020; nothing was measured with two classes",
    ),
    _choice(
        "posthoc_logit_adjustment",
        "with two classes this is moving the threshold, by tau, which validation chooses; nothing"
        " is trained for it.",
        "Menon et al., ICLR 2021",
    ),
)
_SMALL = (
    _choice(
        "gcl",
        "two stages, the second on frozen features. Best or nearly so on three small sets: digits"
        " +3.3 [+2.5, +4.1], Fashion-MNIST +11.9 [+11.3, +12.4], CIFAR-10 +11.6 [+10.9, +12.3].",
        "Li, Cheung and Lu, CVPR 2022",
        evidence.DIGITS,
        evidence.FASHION,
        evidence.CIFAR10,
    ),
    _choice(
        "balanced_softmax",
        "one stage, one line, nothing to choose: +2.9 [+2.2, +3.6], +10.6 [+9.6, +11.5] and"
        " +9.8 [+8.7, +10.8] on the same sets.",
        "Ren et al., NeurIPS 2020",
        evidence.DIGITS,
        evidence.FASHION,
        evidence.CIFAR10,
    ),
    _choice(
        "cross_entropy",
        "with progressive sampling, no other loss: +12.3 [+11.0, +13.5] on Fashion-MNIST, level"
        " with GCL, and +10.5 [+9.5, +11.5] on CIFAR-10, behind it.",
        "Kang et al., ICLR 2020",
        evidence.FASHION,
        evidence.CIFAR10,
        sampling__scheme="progressive",
    ),
)
_MANY_CLASSES = (
    _choice(
        "gcl_stage1",
        "stage 1 alone: +2.2 [+1.1, +3.3] on long-tailed CIFAR-100 with 8,809 images; re-training"
        " its classifier by cRT gained nothing more there (-0.3 [-0.8, +0.1]).",
        "Li, Cheung and Lu, CVPR 2022",
        evidence.CIFAR100,
    ),
    _choice(
        "cross_entropy/crt/balanced_softmax",
        "a classifier of balanced softmax on features of cross-entropy: +2.0 [+1.6, +2.3] there,"
        " class-balanced weights -1.0 [-1.8, -0.2].",
        "Ren et al., NeurIPS 2020",
        evidence.CIFAR100,
        retrain__sampling__scheme="instance",
    ),
)
_LARGE = (
    _choice(
        "gcl",
        "reported accuracies are 54.9 % on ImageNet-LT (its first stage 52.9 %) and 40.6 % on"
        " Places-LT (34.6 %), after 200 epochs; the best method measured here on 2,478 images of"
        " long-tailed CIFAR-10: +11.6 [+10.9, +12.3].",
        "Li, Cheung and Lu, CVPR 2022",
        evidence.REPORTED,
        evidence.CIFAR10,
    ),
    _choice(
        "balanced_softmax",
        "one stage, one line, nothing to choose: +9.8 [+8.7, +10.8] there; reported 77.5 % on"
        " CIFAR-10-LT 100, where reports of cross-entropy lie from 70.4 to 71.9 %.",
        "Ren et al., NeurIPS 2020",
        evidence.CIFAR10,
        evidence.REPORTED,
    ),
)
_THOUSANDS = (
    _choice(
        "gcl",
        "reported accuracies are 72.0 % on iNaturalist 2018 (its first stage 70.3 %) and 54.9 % on"
        " ImageNet-LT (52.9 %), after 200 epochs.",
        "Li, Cheung and Lu, CVPR 2022",
        evidence.REPORTED,
    ),
    _choice(
        "cb_focal",
        "one stage of 90 epochs: reported errors on iNaturalist 2018 are 38.88 against 42.86 % of"
        " the softmax, on iNaturalist 2017 41.92 against 45.38 % (ResNet-50, 224 px, gamma 0.5).",
        evidence.CUI,
        evidence.REPORTED,
        objective__transforms__focal__gamma=0.5,
    ),
)
_EVEN_MULTI_LABEL = (
    _choice(
        "sigmoid",
        "the classes are about equally frequent. On such a set (124 to 208 positives among 907)"
        " no method gained mAP, and PLM changed nothing: +0.0 [-0.1, +0.2].",
        evidence.SCENE,
    ),
    _choice(
        "weighted_sigmoid",
        "finds more positives: there recall of the rarest classes +8.1 [+7.0, +9.2], OF1"
        " +1.1 [+0.7, +1.6], precision of the frequent ones -5.6 [-6.5, -4.6].",
        evidence.SCENE,
    ),
)
_MULTI_LABEL = (
    _choice(
        "distribution_balanced",
        "for the ranking. mAP on canvases of digits: +2.4 [+0.9, +3.9] at imbalance 100,"
        " +1.9 [+1.2, +2.7] at 50, +1.4 [+0.7, +2.1] with few images; on feature vectors nothing:"
        " -0.2 [-0.6, +0.2].",
        "Wu et al., ECCV 2020",
        evidence.MNIST100,
        evidence.MNIST50,
        evidence.CANVASES,
        evidence.YEAST,
    ),
    _choice(
        "plm",
        "for operating points without tuning thresholds: finds more of the rare and claims the"
        " frequent with more precision. Recall of the rarest +7.1 [+2.7, +11.6], precision of the"
        " frequent +3.0 [+2.3, +3.8] at imbalance 100; on yeast +22.9 [+20.6, +25.2] and"
        " +9.1 [+7.7, +10.5] for an OF1 of -23.2 [-23.6, -22.8]. mAP does not gain.",
        "Duarte et al., CVPRW 2021",
        evidence.MNIST100,
        evidence.YEAST,
        evidence.STUDIES,
    ),
    _choice(
        "weighted_sigmoid",
        "for the recall of the rare: +19.7 [+17.9, +21.4] at imbalance 100, +21.4 [+18.6, +24.3]"
        " on yeast for an OF1 of -7.0 [-7.8, -6.3].",
        "common practice",
        evidence.MNIST100,
        evidence.YEAST,
    ),
)
