"""Named combinations of transforms and a base loss."""

from __future__ import annotations

from typing import Any, NamedTuple


class Method(NamedTuple):
    """A named combination: its base, its transforms with the options that differ, its paper."""

    base: str
    transforms: dict[str, dict[str, Any]]
    paper: str


_CB = "Cui et al., CVPR 2019"
METHODS: dict[str, Method] = {
    "cross_entropy": Method("softmax", {}, "the baseline"),
    "sigmoid": Method("sigmoid", {}, "one-vs-rest baseline"),
    "cosine": Method("softmax", {"scale_logits": {}}, "baseline of the cosine methods"),
    "focal": Method("sigmoid", {"focal": {}}, "Lin et al., ICCV 2017"),
    "softmax_focal": Method("softmax", {"focal": {}}, "Lin et al., ICCV 2017"),
    "inverse_frequency": Method("softmax", {"inverse_frequency": {}}, "re-weighting baseline"),
    "weighted_sigmoid": Method("sigmoid", {"positive_weight": {}}, "re-weighting baseline"),
    "cb_softmax": Method("softmax", {"class_balanced": {}}, _CB),
    "cb_sigmoid": Method("sigmoid", {"class_balanced": {}}, _CB),
    "cb_focal": Method("sigmoid", {"class_balanced": {}, "focal": {}}, _CB),
    "logit_adjustment": Method("softmax", {"logit_adjustment": {}}, "Menon et al., ICLR 2021"),
    "balanced_softmax": Method("softmax", {"logit_adjustment": {}}, "Ren et al., NeurIPS 2020"),
    "ldam": Method("softmax", {"label_distribution_margin": {}}, "Cao et al., NeurIPS 2019"),
    "ldam_drw": Method(
        "softmax",
        {
            "label_distribution_margin": {},
            "class_balanced": {"start_epoch": 0.8, "normalize": True},
        },
        "Cao et al., NeurIPS 2019",
    ),
    "gcl": Method("softmax", {"gaussian_cloud": {}}, "Li, Cheung and Lu, CVPR 2022 (stage 1)"),
    "gcl_angular": Method(
        "softmax", {"gaussian_cloud": {"angular": True}}, "Li et al., arXiv 2305.10648"
    ),
    "plm": Method("sigmoid", {"partial_label_mask": {}}, "Duarte et al., CVPRW 2021"),
    "plm_softmax": Method("softmax", {"partial_label_mask": {}}, "Duarte et al., CVPRW 2021"),
    "equalization": Method("softmax", {"equalization": {}}, "Tan et al., CVPR 2020"),
    "seesaw": Method("softmax", {"seesaw": {}}, "Wang et al., CVPR 2021"),
    "asymmetric": Method("asymmetric", {}, "Ridnik et al., ICCV 2021"),
    "distribution_balanced": Method(
        "negative_tolerant", {"rebalanced": {}}, "Wu et al., ECCV 2020"
    ),
}
