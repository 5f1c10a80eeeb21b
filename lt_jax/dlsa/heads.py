"""Classifiers of the parts of a divided set, trained together on frozen features."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lt_jax.data import Members, draw, epoch_order
from lt_jax.errors import InputError
from lt_jax.optimizers import make_optimizer, make_schedule

Array = jax.Array
Tree = Any
LOSSES = ("balanced_softmax", "cross_entropy")
SAMPLING = ("instance", "class")
HEADS = ("linear", "cosine")


class HeadOptions(NamedTuple):
    """How the classifiers are made and trained.

    Attributes:
      head: "linear", or "cosine", whose products with the features are of unit vectors.
      scale: of cosines.
      own: how much of a part's classifier is its own, a factor of what it adds to the shared one; 1
        in the paper. Below 1 steps and reach are smaller, and parts with few samples of a class
        stay near what all know of it; 0 leaves the clusters' shares alone to tell parts apart.
      loss: "balanced_softmax" or "cross_entropy".
      sampling: "instance", or "class" for every class equally often.
      epochs: how many.
      batch_size: samples in a step.
      learning_rate: of SGD with momentum 0.9, falling to 0 along a cosine.
      weight_decay: of the kernels, added to the gradient.
    """

    head: str = "linear"
    scale: float = 16.0
    own: float = 0.3
    loss: str = "balanced_softmax"
    sampling: str = "instance"
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4


class Inputs(NamedTuple):
    """What classifiers see of samples.

    Attributes:
      features: float ``[N, D]``.
      part: which part each sample is in, int32 ``[N]``.
      cluster: its cluster there, int32 ``[N]``; 0 in the last part, which has none.
      own: the class of training samples, which count in the table of their own cluster, int32
        ``[N]``; -1 for other samples.
    """

    features: Array
    part: Array
    cluster: Array
    own: Array


def class_shares(tables: Array, inputs: Inputs) -> Array:
    """Share of each class among the training samples of each sample's cluster.

    A training sample is part of its own cluster, and alone in it would tell its label. It is left
    out, as the clusters of test samples do not have them either.

    Args:
      tables: training samples by part, cluster and class, float ``[G, K, C]``; zeros for the last
        part.
      inputs: see `Inputs`.

    Returns:
      Shares, float32 ``[N, C]``: those of the whole part where a cluster has no other samples,
      zeros in the last part.

    Example:
      >>> tables = jnp.array([[[1.0, 2], [1, 0]], [[0, 0], [0, 0]]])
      >>> part, cluster = jnp.array([0, 0, 1]), jnp.array([0, 1, 0])
      >>> class_shares(tables, Inputs(part, part, cluster, jnp.full(3, -1)))[1:].tolist()
      [[1.0, 0.0], [0.0, 0.0]]
      >>> class_shares(tables, Inputs(part, part, cluster, jnp.array([1, 0, 0])))[:2].tolist()
      [[0.5, 0.5], [0.5, 0.5]]

    Source: Xu et al., ECCV 2022; leaving the sample out is ours.
    """
    counts = tables[inputs.part, inputs.cluster]
    counts = counts - jax.nn.one_hot(inputs.own, counts.shape[-1])
    total = counts.sum(axis=-1, keepdims=True)
    whole = tables.sum(axis=1)
    whole = whole / jnp.maximum(whole.sum(axis=-1, keepdims=True), 1)
    return jnp.where(total > 0, counts / jnp.maximum(total, 1), whole[inputs.part])


def check_head_options(options: HeadOptions) -> None:
    """Refuses unknown names and numbers out of range.

    Args:
      options: see `HeadOptions`.

    Raises:
      InputError: with the name of the first.
    """
    for name, known in (("head", HEADS), ("loss", LOSSES), ("sampling", SAMPLING)):
        value = getattr(options, name)
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}")
    if options.sampling == "class" and options.loss == "balanced_softmax":
        raise InputError(
            "sampling is 'class' and loss is 'balanced_softmax', which make up for the frequency of"
            " classes twice; expected sampling 'instance' or loss 'cross_entropy'"
        )
    for name in ("own", "weight_decay"):
        value = getattr(options, name)
        if not value >= 0:
            raise InputError(f"{name} is {value!r}; expected at least 0")
    for name in ("epochs", "batch_size", "learning_rate", "scale"):
        value = getattr(options, name)
        if not value > 0:
            raise InputError(f"{name} is {value!r}; expected a positive number")


def init_heads(key: Array, dim: int, num_classes: int, num_parts: int) -> Tree:
    """Fresh classifiers: one that all parts share, and what each part adds to it.

    Args:
      key: PRNG key.
      dim: D.
      num_classes: C.
      num_parts: G; 1 for a set that is not divided.

    Returns:
      Nested dictionary of float32 arrays.

    Example:
      >>> heads = init_heads(jax.random.key(0), 4, 3, 2)
      >>> heads["shared"]["kernel"].shape, heads["own"]["kernel"].shape
      ((4, 3), (2, 4, 3))
      >>> heads["shared"]["bias"].shape, heads["shares"]["kernel"].shape
      ((3,), (2, 3, 3))
    """
    one, two = jax.random.split(key)
    shape = (num_parts, dim, num_classes)
    # float32 by name: in float64 mode the default would draw other numbers.
    return {
        "shared": {
            "kernel": 0.01 * jax.random.normal(one, (dim, num_classes), jnp.float32),
            "bias": jnp.zeros(num_classes, jnp.float32),
        },
        "own": {"kernel": 0.01 * jax.random.normal(two, shape, jnp.float32)},
        "shares": {"kernel": jnp.zeros((num_parts, num_classes, num_classes), jnp.float32)},
    }


def part_logits(heads: Tree, tables: Array, inputs: Inputs, options: HeadOptions) -> Array:
    r"""Logits of each sample by the classifier of its part.

    .. math:: z = W_1 x + b + s W_2^{(g)} x + V^{(g)} P

    W1 is shared by all parts, which learn what is particular to them: a part with few samples of a
    class falls back on what the others know of it. P are the class shares of the sample's cluster,
    and s is `HeadOptions.own`.

    Args:
      heads: from `init_heads`.
      tables: see `class_shares`.
      inputs: see `Inputs`.
      options: for the kind of head.

    Returns:
      ``[N, C]``.

    Source: Xu et al., ECCV 2022 (cluster-aided classifier).
    """

    def product(x: Array, kernel: Array) -> Array:
        if options.head == "linear":
            return x @ kernel
        unit = kernel / (jnp.linalg.norm(kernel, axis=0) + 1e-12)
        return options.scale * (x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)) @ unit

    # Of all parts, then one of each sample: G is small, and gathering kernels would be [N, D, C].
    own = jax.vmap(lambda kernel: product(inputs.features, kernel))(heads["own"]["kernel"])
    aided = jnp.einsum("nk,gkc->gnc", class_shares(tables, inputs), heads["shares"]["kernel"])
    each = options.own * own + aided
    chosen = jnp.take_along_axis(each, inputs.part[None, :, None], axis=0)[0]
    return product(inputs.features, heads["shared"]["kernel"]) + heads["shared"]["bias"] + chosen


def _optimizer(options: HeadOptions, total_steps: int) -> optax.GradientTransformation:
    rate = {"learning_rate": options.learning_rate, "schedule": "cosine", "warmup_epochs": 0.0}
    rule = {"name": "sgd", "momentum": 0.9, "nesterov": False}
    decay = {"weight_decay": options.weight_decay, "decay": "kernels"}
    return make_optimizer({**rule, **decay}, make_schedule(rate, 1, total_steps))


def _epoch_order(key: Array, members: Members, size: int, sampling: str) -> Array:
    """Samples of an epoch, ``[steps, size]``."""
    count = members.indices.size
    if sampling == "instance":
        return epoch_order(key, count, size)
    there = members.counts > 0
    steps = count // size
    return draw(key, jnp.cumsum(there) / there.sum(), members, steps * size).reshape(steps, size)


def fit_heads(
    key: Array,
    inputs: Inputs,
    labels: Array,
    members: Members,
    log_prior: Array,
    tables: Array,
    options: HeadOptions,
) -> Tree:
    """Trains classifiers from scratch; jit and vmap it as a whole.

    Args:
      key: PRNG key.
      inputs: of all training samples.
      labels: of them, int32 ``[N]``.
      members: from `lt_jax.dlsa.members_of`, for sampling by class.
      log_prior: logarithm of each class's share of the training samples, ``[C]``; of all of them
        in every part: which part a sample is in depends on its features alone, so that what
        balanced softmax takes away is the same everywhere.
      tables: see `class_shares`; ``[1, 1, C]`` of zeros for a set that is not divided.
      options: see `HeadOptions`, checked by `check_head_options`.

    Returns:
      Heads for `part_logits`.
    """
    count, dim = inputs.features.shape
    size = min(options.batch_size, count)
    optimizer = _optimizer(options, count // size * options.epochs)
    heads = init_heads(jax.random.fold_in(key, 0), dim, log_prior.size, len(tables))
    shift = log_prior if options.loss == "balanced_softmax" else jnp.zeros_like(log_prior)

    def loss(heads: Tree, batch: Inputs, labels: Array) -> Array:
        logits = part_logits(heads, tables, batch, options) + shift
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry: tuple[Tree, Tree], rows: Array) -> tuple[tuple[Tree, Tree], None]:
        heads, state = carry
        batch = jax.tree.map(lambda leaf: leaf[rows], inputs)
        updates, state = optimizer.update(jax.grad(loss)(heads, batch, labels[rows]), state, heads)
        return (optax.apply_updates(heads, updates), state), None

    def epoch(carry: tuple[Tree, Tree], number: Array) -> tuple[tuple[Tree, Tree], None]:
        drawn = jax.random.fold_in(key, number)
        return lax.scan(step, carry, _epoch_order(drawn, members, size, options.sampling))

    start = heads, optimizer.init(heads)
    (heads, _), _ = lax.scan(epoch, start, jnp.arange(1, options.epochs + 1))
    return heads
