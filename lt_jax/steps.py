"""Train and eval steps: pure functions of a state, a key and arrays on the device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lt_jax import augment
from lt_jax.metrics import Scoring
from lt_jax.objectives import Objective, mixed_loss
from lt_jax.packing import packing
from lt_jax.sharding import split_batch
from lt_jax.state import Network, TrainState

Array = jax.Array


class Split(NamedTuple):
    """One split on the device.

    Attributes:
      images: uint8 ``[N, H, W, channels]``; or features, float ``[N, D]``, which go to the network
        as they are; or `lt_jax.data.StreamedImages`, of which steps are handed batches, uint8
        ``[R, B, H, W, channels]`` (see `lt_jax.feeding`).
      labels: int32 ``[N]``, or multi-hot uint8 ``[N, C]``; of such batches ``[R, B]`` or
        ``[R, B, C]``.
      mean: float32 ``[channels]``, of the training pixels divided by 255.
      std: their deviation.
    """

    images: Any
    labels: Any
    mean: Any
    std: Any


# Of the fields `augment`: made while images are read, and after they have been normalised.
NOT_ON_PIXELS = ("random_resized_crop", "mixup_alpha")
# ``(state, key, split, rows [K, B]) -> (state, losses [K])``
Steps = Callable[[TrainState, Array, Split, Array], tuple[TrainState, Array]]
EvalStep = Callable[[Any, Any, Split, Array, Array], Any]


# Folded into the key of a batch for the network; the objective folds in its transforms' numbers.
_OF_NETWORK = 0x6E6574


class Batch(NamedTuple):
    """What an update takes.

    Attributes:
      images: as the network takes them, ``[B, ...]``.
      labels: ``[B]`` or ``[B, C]``; of mixed images those of their partners after them.
      lam: weight of the images' own labels if they are mixed, else None.
      key: for what the objective draws, and the network.
    """

    images: Array
    labels: Array
    lam: Array | None
    key: Array


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One update, in two parts: what needs the weights, and what does not.

    Attributes:
      draw: ``(number of the step, key, split, indices) -> Batch``, indices as for `shared`.
      update: ``(state, batch) -> (state, loss)``.
    """

    draw: Callable[[Array, Array, Split, Array], Batch]
    update: Callable[[TrainState, Batch], tuple[TrainState, Array]]

    def __call__(
        self, state: TrainState, key: Array, split: Split, indices: Array
    ) -> tuple[TrainState, Array]:
        """``(state, key, split, indices) -> (state, loss)``."""
        return self.update(state, self.draw(state.step, key, split, indices))


# Batches of a call are drawn at once, in a few large kernels instead of many small ones a step, if
# those of all replicas take no more than this, without what drawing them needs in between.
_BYTES_AT_ONCE = 1 << 29


def _loss(
    objective: Objective,
    state: TrainState,
    key: Array,
    logits: Array,
    labels: Array,
    lam: Array | None,
) -> tuple[Array, Any]:
    """Mean loss of a batch; if it is mixed, with share `lam`, it has both sets of labels."""
    if lam is None:
        loss, new = objective.apply(state.objective, key, logits, labels)
    else:
        loss, new = mixed_loss(objective, state.objective, key, logits, labels, lam)
    return loss.mean(), new


def _are_pixels(inputs: Array) -> bool:
    return inputs.dtype == jnp.uint8


def shared(indices: Array, mesh: Mesh) -> Array:
    """Indices of a batch as the devices share it; the number of a batch as it is.

    Args:
      indices: which examples of a split in memory, int ``[B]``; or, of streamed images, which of
        the batches that a `Split` holds: a scalar. Their examples lie on the devices already, so
        nothing is gathered.
      mesh: devices that share the batch.

    Returns:
      To index images and labels with.
    """
    return jax.lax.with_sharding_constraint(indices, split_batch(mesh)) if indices.ndim else indices


def plain_inputs(split: Split, indices: Array) -> Array:
    """What the network sees of examples that are not changed: normalised pixels, or features."""
    chosen = split.images[indices]
    if not _are_pixels(chosen):
        return chosen
    return augment.normalize(chosen, split.mean, split.std)


def make_train_step(
    network: Network,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    augmentation: Mapping[str, Any],
    mesh: Mesh,
) -> TrainStep:
    """One update: gather, augment, forward, loss, backward, update, in one program.

    Args:
      network: pure functions of the model.
      objective: the loss.
      optimizer: an optax transformation.
      augmentation: of images: ``crop_padding``, ``flip``, ``color_jitter``, ``autoaugment``,
        ``cutout_size``, ``mixup_alpha``; 0 is off. ``random_resized_crop`` has happened by then.
      mesh: devices that share the batch.

    Returns:
      A `TrainStep`. What is random depends on the key and on the number of the step alone, so that
      a resumed run needs no other memory.
    """
    geometric = {k: v for k, v in augmentation.items() if k not in NOT_ON_PIXELS}
    alpha = augmentation["mixup_alpha"]

    def inputs(key: Array, split: Split, indices: Array) -> Array:
        chosen = split.images[indices]
        if not _are_pixels(chosen):
            return chosen
        fill = 255.0 * split.mean
        changed = augment.augment(key, chosen, cutout_fill=fill, **geometric)
        return augment.normalize(changed, split.mean, split.std)

    def draw(step: Array, key: Array, split: Split, indices: Array) -> Batch:
        keys = jax.random.split(jax.random.fold_in(key, step), 3)
        indices = shared(indices, mesh)
        labels = split.labels[indices]
        images = inputs(keys[0], split, indices)
        lam = None
        if alpha:
            images, order, lam = augment.mixup(keys[1], images, alpha)
            labels = jnp.concatenate([labels, labels[order]])
        return Batch(images, labels, lam, keys[2])

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Array]:
        images, labels, lam, loss_key = batch
        own_key = jax.random.fold_in(loss_key, _OF_NETWORK) if network.draws else None

        def loss_of(params: Any) -> tuple[Array, tuple[Any, Any]]:
            logits, stats = network.apply(params, state.stats, images, True, own_key)
            loss, memory = _loss(objective, state, loss_key, logits, labels, lam)
            return loss, (stats, memory)

        (loss, (stats, memory)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.optimizer, state.params)
        new_state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            stats=stats,
            optimizer=opt_state,
            objective=memory,
        )
        return new_state, loss

    return TrainStep(draw, update)


def several(step: TrainStep, copies: int = 1, *, packed: bool = False) -> Steps:
    """The step over rows of indices ``[K, B]`` in one program.

    Args:
      step: one update.
      copies: how many of the program run side by side.
      packed: whether the steps pass on small weights and what the optimizer keeps of them as a
        few arrays, see `packing`: the same numbers, in fewer kernels.

    Returns:
      ``(state, key, split, rows) -> (state, losses [K])``.
    """
    loop = _packed_scan if packed else jax.lax.scan

    def run(state: TrainState, key: Array, split: Split, rows: Array) -> tuple[TrainState, Array]:
        numbers_each = sum(math.prod(x.shape[1:]) for x in (split.images, split.labels))
        if copies * rows.size * numbers_each * 4 > _BYTES_AT_ONCE:
            return loop(lambda s, row: step(s, key, split, row), state, rows)
        numbers = state.step + jnp.arange(len(rows))
        batches = jax.vmap(step.draw, in_axes=(0, None, None, 0))(numbers, key, split, rows)
        return loop(step.update, state, batches)

    return run


def _packed_scan(
    update: Callable[[TrainState, Any], tuple[TrainState, Array]], state: TrainState, inputs: Any
) -> tuple[TrainState, Array]:
    """`jax.lax.scan`, between whose steps small weights lie together."""
    (pack, unpack), (pack_memory, unpack_memory) = packing(state.params), packing(state.optimizer)

    def packed(state: TrainState) -> TrainState:
        return state._replace(params=pack(state.params), optimizer=pack_memory(state.optimizer))

    def unpacked(state: TrainState) -> TrainState:
        return state._replace(params=unpack(state.params), optimizer=unpack_memory(state.optimizer))

    def body(state: TrainState, row: Any) -> tuple[TrainState, Array]:
        state, loss = update(unpacked(state), row)
        return packed(state), loss

    state, losses = jax.lax.scan(body, packed(state), inputs)
    return unpacked(state), losses


def one_row(step: TrainStep) -> Steps:
    """The step over a single row of indices ``[1, B]``, without a loop around it."""

    def run(state: TrainState, key: Array, split: Split, rows: Array) -> tuple[TrainState, Array]:
        state, loss = step(state, key, split, rows[0])
        return state, loss[None]

    return run


def make_eval_step(
    network: Network, objective: Objective, scoring: Scoring, mesh: Mesh
) -> EvalStep:
    """Counts of one batch in evaluation mode.

    Args:
      network: pure functions of the model.
      objective: gives the probabilities that its logits mean.
      scoring: what is counted.
      mesh: devices that share the batch.

    Returns:
      ``(params, stats, split, indices, where [B]) -> counts``, indices as for `shared`.
    """

    def step(params: Any, stats: Any, split: Split, indices: Array, where: Array) -> Any:
        indices = shared(indices, mesh)
        logits, _ = network.apply(params, stats, plain_inputs(split, indices), False)
        probabilities = objective.probabilities(logits)
        return scoring.count(logits, probabilities, split.labels[indices], where)

    return step
