"""Training of a flow with its mixture: one program an epoch, over features on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lt_jax.data import Members
from lt_jax.dlsa.flow import Flow, forward, init_flow
from lt_jax.dlsa.mixture import draw_centres, log_densities, log_likelihood
from lt_jax.dlsa.pairs import draw_pairs
from lt_jax.dlsa.terms import balance_term, likelihood_term, purity_term
from lt_jax.errors import InputError
from lt_jax.optimizers import make_optimizer, make_schedule

Array = jax.Array
Tree = Any


class FlowOptions(NamedTuple):
    """How a flow is made and trained.

    Attributes:
      num_clusters: K.
      separation: typical distance of two centres, in deviations of a Gaussian. Their coordinates
        have deviation separation / sqrt(2 D), in the paper 0.05 at D = 2048.
      num_blocks: of the flow.
      hidden: width of the blocks' hidden layers; 0 for D.
      bound: the largest log-scale; 0 for none.
      likelihood: coefficient of the likelihood term, whose log-likelihood is divided by D and whose
        weights have mean 1 over the classes.
      balance: coefficient of the balance term.
      purity: coefficient of the purity term.
      purity_floor: of the purity term's logarithms; 0 for none.
      weight_power: p of the likelihood's class weights, see `likelihood_weights`. As pairs have
        every class equally often, -1 weighs samples equally: then head classes are the most
        likely, and blocks take them first. The paper has 2, with which ours took tail classes.
      epochs: how many; one has as many pairs as there are samples, rounded to batches.
      batch_size: pairs in a step.
      optimizer: "sgd" or "adam".
      learning_rate: at first; it falls to 0 along a cosine.
      momentum: of SGD, or Adam's first.
      clip: largest norm of a gradient; 0 for none.
    """

    num_clusters: int = 100
    separation: float = 3.2
    num_blocks: int = 2
    hidden: int = 0
    bound: float = 3.0
    likelihood: float = 1.0
    balance: float = 1.0
    purity: float = 1.0
    purity_floor: float = 10.0
    weight_power: float = -1.0
    epochs: int = 60
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 0.003
    momentum: float = 0.9
    clip: float = 1.0


_POSITIVE = ("separation", "learning_rate")
_AT_LEAST_0 = (*("hidden", "bound", "likelihood", "balance", "purity", "purity_floor", "clip"),)
_AT_LEAST_1 = ("num_blocks", "epochs", "batch_size")


def check_flow_options(options: FlowOptions) -> None:
    """Refuses numbers out of range and unknown names.

    Args:
      options: see `FlowOptions`.

    Raises:
      InputError: with the name of the first.
    """
    for name, value in options._asdict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} is {value!r}; expected a finite number")
    if options.optimizer not in ("sgd", "adam"):
        raise InputError(f"optimizer is {options.optimizer!r}; expected 'sgd' or 'adam'")
    if not 0 <= options.momentum < 1:
        raise InputError(f"momentum is {options.momentum!r}; expected a number in [0, 1)")
    if options.num_clusters < 2:
        raise InputError(f"num_clusters is {options.num_clusters!r}; expected at least 2")
    for name in _POSITIVE:
        if not getattr(options, name) > 0:
            raise InputError(f"{name} is {getattr(options, name)!r}; expected a positive number")
    for names, low in ((_AT_LEAST_0, 0), (_AT_LEAST_1, 1)):
        for name in names:
            if not getattr(options, name) >= low:
                raise InputError(f"{name} is {getattr(options, name)!r}; expected at least {low}")


class Mixture(NamedTuple):
    """A flow with the centres in its latent space.

    Attributes:
      flow: see `Flow`.
      centres: ``[K, D]``.
    """

    flow: Flow
    centres: Array


class FitState(NamedTuple):
    """What training changes.

    Attributes:
      flow: see `Flow`.
      optimizer: its state.
      running: running average of the balance term, ``[K]``.
      step: steps done, int32 scalar.
    """

    flow: Flow
    optimizer: Tree
    running: Array
    step: Array


def place(
    mixture: Mixture, features: Array, bound: float, *, batch_size: int = 1024
) -> tuple[Array, Array]:
    """Log-likelihood and cluster of every sample, by the running statistics.

    Args:
      mixture: see `Mixture`.
      features: float ``[N, D]``.
      bound: of the flow.
      batch_size: samples at once, so that not even ``[N, K]`` is held.

    Returns:
      Log-likelihoods ``[N]``, and the most probable Gaussian of each sample, int32 ``[N]``.
    """

    def one(x: Array) -> tuple[Array, Array]:
        latents, log_det, _ = forward(mixture.flow, x[None], train=False, bound=bound)
        density = log_densities(latents, log_det, mixture.centres)[0]
        return log_likelihood(density), jnp.argmax(density)

    return lax.map(one, features, batch_size=batch_size)


def _optimizer(options: FlowOptions, total_steps: int) -> optax.GradientTransformation:
    """SGD or Adam whose rate falls to 0 along a cosine, with gradients clipped."""
    rate = {"learning_rate": options.learning_rate, "schedule": "cosine", "warmup_epochs": 0.0}
    rule = {"name": options.optimizer, "momentum": options.momentum, "nesterov": False}
    no_decay = {"weight_decay": 0.0, "decay": "all"}
    made = make_optimizer({**rule, **no_decay}, make_schedule(rate, 1, total_steps))
    return optax.chain(optax.clip_by_global_norm(options.clip), made) if options.clip else made


def init_fit(
    key: Array, dim: int, options: FlowOptions, total_steps: int
) -> tuple[FitState, Array]:
    """A state to start from, and the centres.

    Args:
      key: PRNG key.
      dim: D.
      options: see `FlowOptions`.
      total_steps: of the whole training.

    Returns:
      The state and centres ``[K, D]``.
    """
    for_flow, for_centres = jax.random.split(key)
    flow = init_flow(for_flow, dim, num_blocks=options.num_blocks, hidden=options.hidden)
    spread = options.separation / (2 * dim) ** 0.5
    centres = draw_centres(for_centres, options.num_clusters, dim, spread=spread)
    optimizer = _optimizer(options, total_steps).init(flow.params)
    return FitState(
        flow, optimizer, jnp.zeros(options.num_clusters), jnp.zeros((), jnp.int32)
    ), centres


def make_epoch(
    options: FlowOptions, steps: int, total_steps: int
) -> Callable[[FitState, Array, Array, Array, Array, Members, Array], tuple[FitState, Array]]:
    """The function that trains for one epoch.

    Args:
      options: see `FlowOptions`.
      steps: in an epoch.
      total_steps: of the whole training.

    Returns:
      ``(state, key, centres, features, labels, members, weights) -> (state, terms)`` with the mean
      of the three terms, ``[3]``; `weights` are those of the classes in the likelihood, ``[C]``.
    """
    optimizer = _optimizer(options, total_steps)

    def loss(
        params: Tree,
        state: FitState,
        centres: Array,
        both: Array,
        weights: Array,
    ) -> tuple[Array, Any]:
        latents, log_det, stats = forward(
            state.flow._replace(params=params), both, train=True, bound=options.bound
        )
        own, other = jnp.split(log_densities(latents, log_det, centres), 2)
        per_dimension = log_likelihood(own) / both.shape[-1]
        balance, running = balance_term(own, state.running, state.step + 1)
        purity = purity_term(own, other, floor=options.purity_floor)
        terms = jnp.stack([likelihood_term(per_dimension, weights), balance, purity])
        coefficients = jnp.array([options.likelihood, options.balance, options.purity])
        return (coefficients * terms).sum(), (terms, running, stats)

    def epoch(
        state: FitState,
        key: Array,
        centres: Array,
        features: Array,
        labels: Array,
        members: Members,
        weights: Array,
    ) -> tuple[FitState, Array]:
        def step(state: FitState, _: None) -> tuple[FitState, Array]:
            drawn = jax.random.fold_in(key, state.step)
            positives, negatives = draw_pairs(drawn, members, options.batch_size)
            both = features[jnp.concatenate([positives, negatives])]
            grads, (terms, running, stats) = jax.grad(loss, has_aux=True)(
                state.flow.params, state, centres, both, weights[labels[positives]]
            )
            updates, inner = optimizer.update(grads, state.optimizer, state.flow.params)
            params = optax.apply_updates(state.flow.params, updates)
            return FitState(Flow(params, stats), inner, running, state.step + 1), terms

        state, terms = lax.scan(step, state, None, length=steps)
        return state, terms.mean(axis=0)

    return epoch
