"""Which images an epoch trains on: all of them once, or drawn by class.

The indices of an epoch are a function of a key, the labels and the epoch's number, computed on the
device: they are the same however many devices share the batches, and after a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from lt_jax.data.device import check_batch_size, epoch_order
from lt_jax.errors import InputError
from lt_jax.longtail import SCHEMES, count_classes, sampling_probabilities

Array = jax.Array
Order = Callable[[Array, Any], Array]


class Members(NamedTuple):
    """The images of each class.

    Attributes:
      indices: of all images, sorted by class, int32 ``[N]``, those that take no part last; of
        multi-label images each as often as it has labels.
      starts: where each class begins among them, int32 ``[C]``.
      counts: images of each class, int32 ``[C]``.
    """

    indices: Array
    starts: Array
    counts: Array


def members_of(
    labels: npt.ArrayLike, num_classes: int, where: npt.ArrayLike | None = None
) -> Members:
    """The images of each class.

    Args:
      labels: integers ``[N]``, or multi-hot ``[N, C]``.
      num_classes: C.
      where: which images take part, bool ``[N]``; all if None. Of labels that are integers the
        shapes are the same whichever do, so that `Members` of several replicas can be stacked.

    Returns:
      `Members`.

    Example:
      >>> members_of([1, 0, 1], 2).indices.tolist()
      [1, 0, 2]
    """
    labels = np.asarray(labels)
    taken = np.ones(len(labels), bool) if where is None else np.asarray(where)
    count = count_classes(labels[taken], num_classes)
    start = np.cumsum(count) - count
    if labels.ndim == 2:
        order = np.nonzero((labels * taken[:, None]).T)[1]
    else:
        # In a small integer type the number of classes may be a class.
        order = np.argsort(np.where(taken, labels.astype(np.int64), num_classes), kind="stable")
    return Members(*(jnp.asarray(a, jnp.int32) for a in (order, start, count)))


def cumulative(probabilities: npt.ArrayLike) -> np.ndarray:
    """Cumulative probabilities, float32 ``[C]``, whose last step is exactly 1.

    Rounding could leave a gap below 1, through which a class without images would be drawn.
    """
    p = np.asarray(probabilities, np.float64)
    result = np.cumsum(p).astype(np.float32)
    result[np.flatnonzero(p)[-1] :] = 1.0
    return result


def one_of_each(key: Array, members: Members, classes: Array) -> Array:
    """One image of each of some classes, every one of its images equally likely.

    Args:
      key: PRNG key.
      members: the images of each class.
      classes: int ``[M]``, none without images.

    Returns:
      Indices of images, int32 ``[M]``.
    """
    place = jax.random.randint(key, classes.shape, 0, members.counts[classes])
    return members.indices[members.starts[classes] + place]


def draw(key: Array, cumulative_probabilities: Array, members: Members, size: int) -> Array:
    """Draws images with replacement: a class by its probability, then one of its images.

    Args:
      key: PRNG key.
      cumulative_probabilities: of the classes, float32 ``[C]``, see `cumulative`.
      members: the images of each class; a class of probability 0 may have none.
      size: how many to draw.

    Returns:
      Indices of images, int32 ``[size]``.

    Example:
      >>> both = members_of([0, 0, 0, 1], 2)
      >>> draw(jax.random.key(0), jnp.asarray(cumulative([0.0, 1.0])), both, 3).tolist()
      [3, 3, 3]
    """
    class_key, image_key = jax.random.split(key)
    uniform = jax.random.uniform(class_key, (size,))
    classes = jnp.searchsorted(cumulative_probabilities, uniform, side="right")
    return one_of_each(image_key, members, classes)


def make_order(
    sampling: Mapping[str, Any],
    labels: npt.ArrayLike,
    num_classes: int,
    batch_size: int,
    epochs: int,
) -> Order:
    """The batches of an epoch under a sampling scheme.

    ``instance`` takes every image once, in a new order each epoch. The other schemes draw as many
    images with replacement, see `lt_jax.longtail.sampling_probabilities`; ``progressive`` goes from
    instance towards class sampling, epoch by epoch. Of multi-label images, a class is drawn and
    then one of the images that have it: an image of several classes comes more often, one without
    a label never.

    Args:
      sampling: ``scheme``, and those of ``beta``, ``beta_spread`` and ``power`` that it has; what
        is not there is as in `lt_jax.longtail.sampling_probabilities`.
      labels: integers ``[N]``, or multi-hot ``[N, C]``.
      num_classes: C.
      batch_size: B, at most N.
      epochs: of the run, for ``progressive``.

    Returns:
      ``(key of the run, epoch) -> int32 [N // B, B]``.

    Raises:
      InputError: for an unknown scheme, a number outside its range or a batch larger than N.

    Source: Kang et al., Decoupling, ICLR 2020 (progressive: p(t) = (1 - t/T) p_instance + t/T
    p_class with t the epoch from 0 on).
    """
    scheme = sampling["scheme"]
    if scheme not in SCHEMES:
        raise InputError(f"sampling.scheme is {scheme!r}; expected one of {', '.join(SCHEMES)}")
    labels = np.asarray(labels)
    num_examples = len(labels)
    check_batch_size(batch_size, num_examples)
    if scheme == "instance":

        def shuffled(key: Array, epoch: Any) -> Array:
            return epoch_order(jax.random.fold_in(key, epoch), num_examples, batch_size)

        return shuffled
    counts = count_classes(labels, num_classes)
    first, last = (
        jnp.asarray(cumulative(probabilities))
        for probabilities in _from_start_to_end(sampling, counts)
    )
    members, steps = members_of(labels, num_classes), num_examples // batch_size

    def drawn(key: Array, epoch: Any) -> Array:
        progress = jnp.minimum(jnp.asarray(epoch, jnp.float32) / epochs, 1.0)
        mixed = (1.0 - progress) * first + progress * last
        flat = draw(jax.random.fold_in(key, epoch), mixed, members, steps * batch_size)
        return flat.reshape(steps, batch_size)

    return drawn


_OPTIONS = {
    "effective_number": ("beta",),
    "class_based_effective_number": ("beta", "beta_spread"),
    "power": ("power",),
}


def _from_start_to_end(sampling: Mapping[str, Any], counts: np.ndarray) -> list[np.ndarray]:
    """Class probabilities at the beginning and at the end of a run."""
    scheme = sampling["scheme"]
    if scheme == "progressive":
        return [sampling_probabilities(counts, scheme, progress=share) for share in (0.0, 1.0)]
    options = {k: sampling[k] for k in _OPTIONS.get(scheme, ()) if k in sampling}
    return [sampling_probabilities(counts, scheme, **options)] * 2
