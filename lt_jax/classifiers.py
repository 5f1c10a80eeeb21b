"""Classifiers on frozen features: those that are trained, and those that are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax.longtail import log_prior
from lt_jax.state import Network
from lt_jax.two_stage import NCM_FEATURES

Array = jax.Array
Tree = Any


def frozen_network(
    network: Network, classify: Callable[[Tree, Tree, Array], Array], *, on_features: bool
) -> Network:
    """A network of which only the classifier is trained.

    Its parameters are the classifier's; the whole network of stage 1 is kept, unchanged, where
    batch-norm statistics usually are, so that a checkpoint is complete. Its features are those of
    evaluation mode, so nothing in it is random.

    Args:
      network: of stage 1.
      classify: ``(params, head of stage 1, features) -> logits``.
      on_features: whether its inputs are features computed before, or images.

    Returns:
      A `Network`; its ``init`` is not used.
    """

    def features(params: Tree, stats: Tree, inputs: Array) -> Array:
        if on_features:
            return inputs
        return network.features(stats["params"], stats["stats"], inputs)

    def apply(
        params: Tree, stats: Tree, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Array, Tree]:
        logits = classify(params, stats["params"]["head"], features(params, stats, inputs))
        return logits, stats

    return network._replace(apply=apply, features=features, draws=False)


def scaled_logits(classify: Callable[[Tree, Array], Array]) -> Callable[[Tree, Tree, Array], Array]:
    r"""Learnable weight scaling: the logits of stage 1, each class times a trained factor.

    .. math:: z_j = f_j (w_j^\top x + b_j)

    Source: Kang et al., Decoupling, ICLR 2020.
    """

    def apply(params: Tree, head: Tree, features: Array) -> Array:
        return params["head"]["scale"] * classify(head, features)

    return apply


class PostHoc(NamedTuple):
    """A classifier that is computed, with one knob.

    Attributes:
      knob: its name.
      values: what it may be, as people write it.
      numbers: the same as numbers, float32 ``[K]``.
      memory: of each replica, leading axis R: what `logits` needs.
      logits: ``(number, memory of one replica, features [B, D]) -> [B, C]``.
    """

    knob: str
    values: Sequence[Any]
    numbers: np.ndarray
    memory: Tree
    logits: Callable[[Array, Tree, Array], Array]


def tau_normalised(heads: Tree, tau: Sequence[float]) -> PostHoc:
    r"""The head of stage 1 with shortened weight vectors and without biases.

    .. math:: z_j = x^\top w_j / \|w_j\|^\tau

    Args:
      heads: ``{"kernel": [R, D, C], ...}``, of linear heads.
      tau: candidates; 0 leaves the weights, 1 makes their lengths equal.

    Returns:
      `PostHoc`.

    Source: Kang et al., Decoupling, ICLR 2020.
    """

    def logits(number: Array, memory: Tree, features: Array) -> Array:
        kernel = memory["kernel"]
        norm = jnp.linalg.norm(kernel, axis=0)
        length = jnp.where(norm > 0, norm, 1.0)  # a class whose weights are all zero keeps them
        return jnp.dot(features, kernel / length**number, precision="highest")

    return PostHoc("tau", list(tau), np.asarray(tau, np.float32), heads, logits)


def adjusted(
    heads: Tree,
    classify: Callable[[Tree, Array], Array],
    scale: float,
    class_counts: npt.ArrayLike,
    tau: Sequence[float],
) -> PostHoc:
    r"""The logits of stage 1 less the log priors of the classes.

    .. math:: z_j = s f_j(x) - \tau \log \pi_j

    Args:
      heads: of stage 1, leading axis R.
      classify: ``(head, features) -> logits``.
      scale: s, of cosine logits; 1 otherwise.
      class_counts: training images of each class, ``[C]``, each at least 1.
      tau: candidates.

    Returns:
      `PostHoc`.

    Raises:
      InputError: for a class without images.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021.
    """
    prior = np.asarray(log_prior(class_counts), np.float32)

    def logits(number: Array, memory: Tree, features: Array) -> Array:
        return scale * classify(memory, features) - number * prior

    return PostHoc("tau", list(tau), np.asarray(tau, np.float32), heads, logits)


def _features_of(kind: Array, centre: Array, features: Array) -> Array:
    """Features as they are (0), at length 1 (1), or centred and then at length 1 (2)."""
    moved = features - jnp.where(kind >= 2, 1.0, 0.0) * centre
    length = jnp.maximum(jnp.linalg.norm(moved, axis=-1, keepdims=True), 1e-12)
    return jnp.where(kind >= 1, moved / length, moved)


def nearest_class_mean(
    features: Array, labels: npt.ArrayLike, num_classes: int, kinds: Sequence[str]
) -> PostHoc:
    r"""The class whose mean training feature is nearest.

    .. math:: z_j = -\|x - \mu_j\|^2

    Args:
      features: of the training images, ``[R, N, D]``.
      labels: integers ``[N]``.
      num_classes: C; one without images is never predicted.
      kinds: candidates of what is done to features first: ``"plain"``, ``"unit"`` (length 1) or
        ``"centred_unit"`` (less the mean of all training features, then length 1).

    Returns:
      `PostHoc`.

    Source: Kang et al., Decoupling, ICLR 2020.
    """
    class_counts = np.bincount(np.asarray(labels), minlength=num_classes)
    segments = jnp.asarray(labels, jnp.int32)
    numbers = np.asarray([NCM_FEATURES.index(kind) for kind in kinds], np.float32)

    def means(own: Array) -> Tree:
        centre = own.mean(axis=0)

        def of_kind(kind: Array) -> tuple[Array, Array]:
            changed = _features_of(kind, centre, own)
            # Distances are taken from a point amid the features: far from it they would cancel.
            origin = changed.mean(axis=0)
            total = jax.ops.segment_sum(changed - origin, segments, num_classes)
            return total / jnp.maximum(class_counts, 1)[:, None], origin

        each, origins = jax.vmap(of_kind)(jnp.arange(3.0))
        return {"centre": centre, "means": each, "origins": origins}

    memory = jax.tree.map(np.asarray, jax.lax.map(jax.jit(means), features))
    return PostHoc("features", list(kinds), numbers, memory, class_mean_logits(class_counts))


def class_mean_logits(class_counts: npt.ArrayLike) -> Callable[[Array, Tree, Array], Array]:
    """Logits of `nearest_class_mean`, from the means that it has computed.

    Args:
      class_counts: training images of each class, ``[C]``; one without is never predicted.

    Returns:
      As `PostHoc.logits`.
    """
    seen = np.asarray(class_counts) > 0

    def logits(number: Array, memory: Tree, inputs: Array) -> Array:
        kind = number.astype(jnp.int32)
        x = _features_of(number, memory["centre"], inputs) - memory["origins"][kind]
        mu = memory["means"][kind]
        inner = jnp.dot(x, mu.T, precision="highest")
        square = (x**2).sum(-1, keepdims=True) - 2 * inner + (mu**2).sum(-1)
        return jnp.where(seen, -square, -jnp.inf)

    return logits
