"""Objective and `chain`: what turns logits and labels into one loss per example.

A transform acts on one of three things, always in this order, whatever the order it is listed in:

1. ``logits``: cosines are scaled, with their clouds and margins; then priors;
2. ``weights``: class balance, focal modulation (which reads the adjusted logits);
3. ``mask``: labels left out of the loss.

Then the base loss is taken of the adjusted logits, with those weights and that mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lt_jax.errors import InputError
from lt_jax.losses._inputs import as_float, prepare, zero_outside

Array = jax.Array
State = Any  # a pytree
Stage = Literal["logits", "weights", "mask"]
STAGES: tuple[Stage, ...] = ("logits", "weights", "mask")
Report = dict[str, Array]


class Terms(NamedTuple):
    """What the transforms of a chain hand on to each other.

    Attributes:
      logits: ``[B, C]``, as adjusted so far.
      targets: ``[B, C]``.
      weights: weight of each entry, broadcastable to ``[B, C]``.
      keep: which entries count, bool ``[B, C]``.
      predicted: the network's own probabilities, without clouds, margins or priors, ``[B, C]``.
      where: which rows count, bool ``[B]``.
      single_label: whether labels were given as integers.
      competing: whether the base loss is a softmax.
    """

    logits: Array
    targets: Array
    weights: Array
    keep: Array
    predicted: Array
    where: Array
    single_label: bool
    competing: bool


class Transform(NamedTuple):
    """A pair of pure functions, like an `optax.GradientTransformation`, on one stage of the loss.

    Attributes:
      name: for messages.
      stage: which of the three things it changes.
      init: gives its state, a pytree.
      apply: ``(state, key, terms) -> (terms, state)``.
      scale: what it multiplies the logits by; other than 1 only for cosines.
      wants_cosines: whether it only makes sense on cosine logits.
      balances: whether it makes up for the class counts by a prior or weights, so that images drawn
        by class would do it twice; see `lt_jax.two_stage.stage_fields`.
      refuses: names of bases and transforms it does not combine with, each with the reason.
      only_single_label: why it means nothing where an example may have several labels; empty if it
        does.
      report: ``state -> {name: [C] or [C, bins]}``, what it remembers that is worth looking at;
        names are those of this transform alone.
    """

    name: str
    stage: Stage
    init: Callable[[], State]
    apply: Callable[[State, Array, Terms], tuple[Terms, State]]
    scale: float = 1.0
    wants_cosines: bool = False
    balances: bool = False
    refuses: tuple[tuple[str, str], ...] = ()
    only_single_label: str = ""
    report: Callable[[State], Report] = lambda state: {}


class Base(NamedTuple):
    """A base loss.

    Attributes:
      name: for messages.
      competing: True for a softmax over the classes, False for independent sigmoids.
      loss: ``(logits, targets, *, weights, keep) -> [B]``.
    """

    name: str
    competing: bool
    loss: Callable[..., Array]

    def probabilities(self, logits: Array) -> Array:
        """Probabilities of the classes, ``[B, C]``."""
        return jax.nn.softmax(logits) if self.competing else jax.nn.sigmoid(logits)


class Apply(Protocol):
    """Signature of `Objective.apply`."""

    def __call__(
        self,
        state: State,
        key: Array,
        logits: ArrayLike,
        labels: ArrayLike,
        where: ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Loss of each example, ``[B]``, and the new state."""
        ...


class Objective(NamedTuple):
    """A loss with everything random coming in by key and everything remembered in a state.

    Attributes:
      init: ``() -> state``, a pytree that is checkpointed with the weights.
      apply: ``(state, key, logits, labels, where=None) -> (loss [B], state)``. Under `jax.jit` with
        the batch sharded over devices every batch statistic is that of the global batch.
      probabilities: ``logits -> [B, C]``, the network's own prediction: scaled as in training,
        without clouds, margins, priors or masks.
      scale: what the logits are multiplied by; other than 1 only for cosines.
      wants_cosines: whether the logits must be cosines, so that the model needs a cosine head.
      competing: whether the base loss is a softmax.
      only_single_label: why it means nothing where an example may have several labels; empty if it
        does (`check_multi_label`).
      report: ``state -> {name: [C] or [C, bins]}``, what the transforms remember that is worth
        looking at, such as the ratios of partial label masking; empty if they remember nothing.
    """

    init: Callable[[], State]
    apply: Apply
    probabilities: Callable[[ArrayLike], Array]
    scale: float
    wants_cosines: bool
    competing: bool
    only_single_label: str
    report: Callable[[State], Report]


def stateless(apply: Callable[[Array, Terms], Terms], **fields: Any) -> Transform:
    """A transform that remembers nothing, from ``(key, terms) -> terms``."""
    return Transform(
        init=lambda: (), apply=lambda state, key, terms: (apply(key, terms), state), **fields
    )


def _check(transforms: tuple[Transform, ...], base: Base) -> None:
    if not isinstance(base, Base):
        raise InputError(
            f"base is {base!r}; expected a Base, such as objectives.softmax_cross_entropy or"
            " objectives.asymmetric()"
        )
    for t in transforms:
        if not isinstance(t, Transform):
            raise InputError(f"{t!r} is not a loss transform; call its factory with class counts")
        if t.stage not in STAGES:
            raise InputError(f"{t.name} has stage {t.stage!r}; expected one of {', '.join(STAGES)}")
    names = [t.name for t in transforms]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is in the chain {names.count(name)} times; expected once")
    scaling = [t.name for t in transforms if t.wants_cosines]
    if len(scaling) > 1:
        raise InputError(
            f"{' and '.join(scaling)} do not combine: each takes cosines and scales them"
        )
    for t in transforms:
        for other, reason in t.refuses:
            if other in (*names, base.name):
                raise InputError(f"{t.name} does not combine with {other}: {reason}")


def _check_state(state: State, transforms: tuple[Transform, ...]) -> None:
    if not isinstance(state, (tuple, list)) or len(state) != len(transforms):
        raise InputError(
            f"state is {state!r}; expected that of the objective's init(), or of its last call"
        )


def _only_single_label(transforms: tuple[Transform, ...], base: Base) -> str:
    if base.competing:
        return f"base {base.name} lets classes compete, so that no two can both be probable"
    reasons = [f"{t.name}: {t.only_single_label}" for t in transforms if t.only_single_label]
    return "; ".join(reasons)


def chain(*transforms: Transform, base: Base) -> Objective:
    r"""Composes transforms and a base loss into an objective.

    .. math:: \ell_i = \text{base}(\text{logits}(z_i), t_i;\ \text{weights}, \text{mask})

    Args:
      *transforms: in any order; the stages run in the documented one. Within a stage those come
        first that scale cosines, as priors are of the scaled logits, then the others as listed.
      base: `softmax_cross_entropy`, `sigmoid_cross_entropy`, `asymmetric(...)` or
        `negative_tolerant(...)` of this package.

    Returns:
      An `Objective`.

    Raises:
      InputError: for a pair that means nothing, with the reason.

    Example:
      >>> from lt_jax import objectives
      >>> objective = chain(
      ...     objectives.class_balanced([900, 100], beta=0.999),
      ...     objectives.focal(gamma=1.0),
      ...     base=objectives.sigmoid_cross_entropy)
      >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
      >>> loss, state = objective.apply(objective.init(), jax.random.key(0), logits, labels)
      >>> loss.round(3)
      Array([0.192, 1.195], dtype=float32)
    """
    _check(transforms, base)
    ordered = tuple(sorted(transforms, key=lambda t: (STAGES.index(t.stage), not t.wants_cosines)))
    scale = 1.0
    for t in ordered:
        scale = scale * t.scale

    def apply(
        state: State,
        key: Array,
        logits: ArrayLike,
        labels: ArrayLike,
        where: ArrayLike | None = None,
    ) -> tuple[Array, State]:
        _check_state(state, ordered)
        single_label = jnp.ndim(labels) == 1
        z, targets = prepare(logits, labels, where)
        terms = Terms(
            logits=z,
            targets=targets,
            weights=jnp.ones((1, 1), z.dtype),
            keep=jnp.ones(z.shape, bool),
            predicted=jax.lax.stop_gradient(base.probabilities(scale * z)),
            where=jnp.ones(z.shape[0], bool) if where is None else jnp.asarray(where),
            single_label=single_label,
            competing=base.competing,
        )
        new_states = []
        for i, (transform, own) in enumerate(zip(ordered, state, strict=True)):
            terms, own = transform.apply(own, jax.random.fold_in(key, i), terms)
            new_states.append(own)
        masked = any(t.stage == "mask" for t in ordered)
        loss = base.loss(
            terms.logits, targets, weights=terms.weights, keep=terms.keep if masked else None
        )
        return zero_outside(loss, where), tuple(new_states)

    def report(state: State) -> Report:
        reports = [t.report(own) for t, own in zip(ordered, state, strict=True)]
        return {name: value for each in reports for name, value in each.items()}

    return Objective(
        init=lambda: tuple(t.init() for t in ordered),
        apply=apply,
        probabilities=lambda logits: base.probabilities(scale * as_float(jnp.asarray(logits))),
        scale=scale,
        wants_cosines=any(t.wants_cosines for t in ordered),
        competing=base.competing,
        only_single_label=_only_single_label(ordered, base),
        report=report,
    )
