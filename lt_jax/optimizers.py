"""The optimizer and learning-rate schedule that a config describes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lt_jax.errors import InputError

DECAY = ("all", "kernels", "all_but_head_bias")


def weight_decay_mask(params: Any, which: str) -> Any:
    """Which parameters take weight decay, as a tree of booleans.

    Args:
      params: nested dictionaries of arrays; the classifier is under ``head``.
      which: ``"all"``; ``"kernels"`` (no bias, no batch-norm scale); or ``"all_but_head_bias"``,
        as in the class-balanced loss, whose sigmoid prior must not decay.

    Returns:
      A tree like `params`.

    Raises:
      InputError: for an unknown choice.

    Example:
      >>> weight_decay_mask({"head": {"kernel": 1, "bias": 1}}, "kernels")
      {'head': {'bias': False, 'kernel': True}}
    """
    if which not in DECAY:
        raise InputError(f"optimizer.decay is {which!r}; expected one of {', '.join(DECAY)}")

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        names = [str(getattr(p, "key", p)) for p in path]
        if which == "kernels":
            return names[-1] == "kernel"
        return which == "all" or not (names[0] == "head" and names[-1] == "bias")

    return jax.tree_util.tree_map_with_path(decays, params)


def make_schedule(
    config: Mapping[str, Any], steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
    """Learning rate as a function of the step.

    Args:
      config: ``learning_rate``, ``schedule`` (``"constant"``, ``"step"`` or ``"cosine"``),
        ``warmup_epochs`` (linear, from 0), ``milestones`` (epochs at which the rate is multiplied)
        and ``factors`` (by what, one for each milestone).
      steps_per_epoch: steps in an epoch.
      total_steps: steps of the run.

    Returns:
      An optax schedule.

    Raises:
      InputError: for an unknown schedule or numbers that do not fit.
    """
    rate, kind = config["learning_rate"], config["schedule"]
    if not rate > 0:
        raise InputError(f"optimizer.learning_rate is {rate!r}; expected a positive number")
    if not 0 <= config["warmup_epochs"] < 1e9:
        raise InputError(
            f"optimizer.warmup_epochs is {config['warmup_epochs']!r}; expected 0 or more"
        )
    warmup = round(config["warmup_epochs"] * steps_per_epoch)
    if kind == "constant":
        main = optax.constant_schedule(rate)
    elif kind == "cosine":
        main = optax.cosine_decay_schedule(rate, max(total_steps - warmup, 1))
    elif kind == "step":
        milestones, factors = tuple(config["milestones"]), tuple(config["factors"])
        numbers = all(
            isinstance(v, (int, float)) and math.isfinite(v) and v >= 0
            for v in milestones + factors
        )
        if not numbers or len(milestones) != len(factors) or list(milestones) != sorted(milestones):
            raise InputError(
                f"optimizer.milestones are {milestones} and factors {factors}; expected rising"
                " epochs with one factor of at least 0 for each"
            )
        changes: dict[int, float] = {}
        for epoch, factor in zip(milestones, factors, strict=True):
            # join_schedules restarts the count after the warm-up.
            step = round(epoch * steps_per_epoch) - warmup
            changes[step] = changes.get(step, 1.0) * factor
        main = optax.piecewise_constant_schedule(rate, changes)
    else:
        raise InputError(f"optimizer.schedule is {kind!r}; expected constant, step or cosine")
    if not warmup:
        return main
    # The first step already moves: with a rate of 0 it would be lost.
    start = optax.linear_schedule(rate / warmup, rate, max(warmup - 1, 1))
    return optax.join_schedules([start, main], [warmup])


def make_optimizer(
    config: Mapping[str, Any], schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optax transformation of a run.

    Args:
      config: ``name`` (``"sgd"`` or ``"adam"``), ``momentum``, ``nesterov``, ``weight_decay`` (for
        SGD added to the gradient, for Adam decoupled) and ``decay`` (see `weight_decay_mask`).
      schedule: learning rate by step.

    Returns:
      An optax transformation.

    Raises:
      InputError: for an unknown name or a number outside its range.
    """
    decay, which = config["weight_decay"], config["decay"]
    if not decay >= 0:
        raise InputError(f"optimizer.weight_decay is {decay!r}; expected 0 or more")
    if not 0 <= config["momentum"] < 1:
        raise InputError(f"optimizer.momentum is {config['momentum']!r}; expected [0, 1)")
    weight_decay_mask({}, which)  # refuses an unknown choice before anything is built

    def mask(params: Any) -> Any:
        return weight_decay_mask(params, which)

    if config["name"] == "sgd":
        return optax.chain(
            optax.add_decayed_weights(decay, mask=mask),
            optax.sgd(schedule, momentum=config["momentum"], nesterov=config["nesterov"]),
        )
    if config["name"] == "adam":
        return optax.adamw(schedule, b1=config["momentum"], weight_decay=decay, mask=mask)
    raise InputError(
        f"optimizer.name is {config['name']!r}; expected sgd, or adam, whose weight decay is"
        " decoupled (AdamW)"
    )


class OptimizerChoice(NamedTuple):
    """Which of several optimizers is meant, int32 scalar, and its state."""

    number: jax.Array
    state: Any


def alternative_optimizers(
    optimizers: Sequence[optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Optimizers that differ in their numbers as one, whose state says which is meant; for tuning.

    Under `jax.vmap` replicas with different numbers run side by side in one program.

    Args:
      optimizers: of the same kind, such as of `make_optimizer` with other rates.

    Returns:
      An optax transformation; its state, an `OptimizerChoice`, begins with the first.

    Example:
      >>> both = alternative_optimizers([optax.sgd(0.1), optax.sgd(2.0)])
      >>> state = both.init({"w": jnp.ones(1)})._replace(number=jnp.array(1))
      >>> both.update({"w": jnp.ones(1)}, state)[0]
      {'w': Array([-2.], dtype=float32)}
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, OptimizerChoice]:
        each = [optimizer.update for optimizer in optimizers]
        changed, inner = jax.lax.switch(state.number, each, updates, state.state, params)
        return changed, OptimizerChoice(state.number, inner)

    def init(params: Any) -> OptimizerChoice:
        return OptimizerChoice(jnp.zeros((), jnp.int32), optimizers[0].init(params))

    return optax.GradientTransformation(init, update)
