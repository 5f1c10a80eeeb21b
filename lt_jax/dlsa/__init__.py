"""DLSA: head and tail progressively divided, on frozen features, by a flow and a Gaussian mixture.

Source: Xu et al., "Constructing Balance from Imbalance for Long-Tailed Image Recognition", ECCV
2022.
"""

from lt_jax.dlsa.block import Fit, Task, start_fit, steps_per_epoch
from lt_jax.dlsa.cascade import (
    Block,
    CascadeOptions,
    Divided,
    check_cascade_options,
    check_validation,
    closed,
    divide,
    fit_block,
    inputs_of,
    rest_of,
    tables_of,
)
from lt_jax.dlsa.clusters import (
    check_finite,
    cluster_table,
    pure_clusters,
    threshold_for,
)
from lt_jax.dlsa.fit import FlowOptions, Mixture, check_flow_options, init_fit, place
from lt_jax.dlsa.flow import Flow, autoregressive_masks, forward, init_flow, inverse
from lt_jax.dlsa.heads import (
    HeadOptions,
    Inputs,
    check_head_options,
    class_shares,
    fit_heads,
    init_heads,
    part_logits,
)
from lt_jax.dlsa.mixture import draw_centres, log_densities, log_likelihood
from lt_jax.dlsa.pairs import draw_pairs, members_of
from lt_jax.dlsa.terms import balance_term, likelihood_term, likelihood_weights, purity_term

__all__ = [
    "Block",
    "CascadeOptions",
    "Divided",
    "Fit",
    "Flow",
    "FlowOptions",
    "HeadOptions",
    "Inputs",
    "Mixture",
    "Task",
    "autoregressive_masks",
    "balance_term",
    "check_cascade_options",
    "check_finite",
    "check_flow_options",
    "check_head_options",
    "check_validation",
    "class_shares",
    "closed",
    "cluster_table",
    "divide",
    "draw_centres",
    "draw_pairs",
    "fit_block",
    "fit_heads",
    "forward",
    "init_fit",
    "init_flow",
    "init_heads",
    "inputs_of",
    "inverse",
    "likelihood_term",
    "likelihood_weights",
    "log_densities",
    "log_likelihood",
    "members_of",
    "part_logits",
    "place",
    "pure_clusters",
    "purity_term",
    "rest_of",
    "start_fit",
    "steps_per_epoch",
    "tables_of",
    "threshold_for",
]
