"""DLSA: head and tail progressively divided, on frozen features, by a flow and a Gaussian mixture.

Source: Xu et al., "Constructing Balance from Imbalance for Long-Tailed Image Recognition", ECCV
2022.
"""

from lt_jax.dlsa.flow import Flow, autoregressive_masks, forward, init_flow, inverse
from lt_jax.dlsa.mixture import draw_centres, log_densities, log_likelihood
from lt_jax.dlsa.pairs import Members, draw_pairs, members_of
from lt_jax.dlsa.terms import balance_term, likelihood_term, likelihood_weights, purity_term

__all__ = [
    "Flow",
    "Members",
    "autoregressive_masks",
    "balance_term",
    "draw_centres",
    "draw_pairs",
    "forward",
    "init_flow",
    "inverse",
    "likelihood_term",
    "likelihood_weights",
    "log_densities",
    "log_likelihood",
    "members_of",
    "purity_term",
]
