"""One registry from a name or a config to an objective.

A *spec* is a mapping that a config file can hold and a command line can override::

    {"base": "sigmoid",
     "base_options": {},
     "transforms": {"class_balanced": {"beta": 0.9999}, "focal": {"gamma": 1.0}}}

Besides the options of its factory every transform takes ``start_epoch``: from which it acts (see
`deferred`), an epoch, or below 1 a share of the training. To add a loss, write one factory in one
file of this package and name it in `TRANSFORMS` or `BASES`; to give a combination a name, add it to
`METHODS` of `lt_jax.objectives.methods`. The registry-wide tests then cover it.
"""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy.typing as npt

from lt_jax.errors import InputError
from lt_jax.losses._inputs import check_number
from lt_jax.objectives import bases, logits, masks, weights
from lt_jax.objectives.core import Base, Objective, Transform, chain
from lt_jax.objectives.deferred import deferred
from lt_jax.objectives.methods import METHODS

Spec = dict[str, Any]

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "scale_logits": logits.scale_logits,
    "gaussian_cloud": logits.gaussian_cloud,
    "label_distribution_margin": logits.label_distribution_margin,
    "logit_adjustment": logits.logit_adjustment,
    "seesaw": logits.seesaw,
    "class_balanced": weights.class_balanced,
    "inverse_frequency": weights.inverse_frequency,
    "focal": weights.focal,
    "positive_weight": weights.positive_weight,
    "rebalanced": weights.rebalanced,
    "partial_label_mask": masks.partial_label_mask,
    "equalization": masks.equalization,
}

BASES: dict[str, Callable[..., Base]] = {
    "softmax": lambda: bases.softmax_cross_entropy,
    "sigmoid": lambda: bases.sigmoid_cross_entropy,
    "asymmetric": bases.asymmetric,
    "negative_tolerant": bases.negative_tolerant,
}

ONE_LABEL = "the objective is for one label an example"
# What the data decide, not the config.
_FROM_DATA = ("class_counts", "num_examples")


def _lookup(table: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in table:
        close = difflib.get_close_matches(name, list(table), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        if not close and table is TRANSFORMS:
            hint = "; one's own is registered before, in scripts by --import=FILE"
        raise InputError(f"{what} is {name!r}; expected one of {', '.join(sorted(table))}{hint}")
    return table[name]


def _options(factory: Callable[..., Any]) -> dict[str, Any]:
    """The options of a factory with their defaults; 0 for one that has none."""
    parameters = inspect.signature(factory).parameters.values()
    return {
        p.name: 0 if p.default is inspect.Parameter.empty else p.default
        for p in parameters
        if p.name not in _FROM_DATA
    }


def _transform(name: str) -> dict[str, Any]:
    """The options of a transform in a spec: those of its factory, and when it starts."""
    return {**_options(TRANSFORMS[name]), "start_epoch": 0.0}


def _preset(name: str) -> Spec:
    method = _lookup(METHODS, name, "method")
    transforms = {t: {**_transform(t), **o} for t, o in method.transforms.items()}
    options = _options(BASES[method.base])
    return {"base": method.base, "base_options": options, "transforms": transforms}


def method_spec(name: str) -> Spec:
    """The spec of a method, with every option written out so that it can be overridden.

    Args:
      name: a method, or several methods and transforms joined by ``+``; the first gives the base.

    Returns:
      A new spec.

    Raises:
      InputError: for an unknown name, or methods joined whose bases differ.

    Example:
      >>> method_spec("cb_focal+partial_label_mask")["transforms"]["focal"]["gamma"]
      1.0
    """
    first, *others = name.split("+")
    spec = _preset(first)
    for other in others:
        # A name that is both (focal, seesaw) means the transform here: the first gives the base.
        added: Spec = (
            {"transforms": {other: _transform(other)}} if other in TRANSFORMS else _preset(other)
        )
        if added.get("base", spec["base"]) != spec["base"]:
            raise InputError(
                f"{other} has base {added['base']} and {first} has base {spec['base']};"
                " name the transform instead of the method"
            )
        spec["transforms"] |= added["transforms"]
    return copy.deepcopy(spec)


def completed_spec(spec: Mapping[str, Any]) -> Spec:
    """A spec with every option of its transforms: those that came later have their defaults.

    Args:
      spec: as an earlier version wrote it.

    Returns:
      A new spec.

    Example:
      >>> completed_spec({"base": "softmax", "transforms": {"focal": {"gamma": 2.0}}})["transforms"]
      {'focal': {'gamma': 2.0, 'differentiate_modulator': True, 'start_epoch': 0.0}}
    """
    transforms = dict(spec.get("transforms", {}))
    for name, options in transforms.items():
        if name in TRANSFORMS and isinstance(options or {}, Mapping):
            transforms[name] = {**_transform(name), **(options or {})}
    return copy.deepcopy({**spec, "transforms": transforms})


def _call(factory: Callable[..., Any], name: str, options: dict[str, Any], data: Spec) -> Any:
    known = inspect.signature(factory).parameters
    fitting = sorted(set(known) - set(_FROM_DATA))
    unknown = sorted(set(options) - set(fitting))
    if unknown:
        has = ", ".join(fitting) or "none"
        raise InputError(f"{name} has no option {unknown[0]!r}; it has {has}")
    return factory(**options, **{k: v for k, v in data.items() if k in known})


def _built(name: str, options: Spec, data: Spec, steps_per_epoch: int) -> Transform:
    """The transform of that name, as if it acted from the start."""
    factory = _lookup(TRANSFORMS, name, "loss transform")
    options = {option: value for option, value in options.items() if option != "start_epoch"}
    if "update_every" in inspect.signature(factory).parameters:
        options["update_every"] = options.get("update_every") or steps_per_epoch
    return _call(factory, name, options, data)


def balances(spec: Mapping[str, Any]) -> bool:
    """Whether an objective makes up for the class counts by itself, by a prior or by weights.

    Each transform says so; its factory is asked with made-up counts, as there need not be data yet.

    Args:
      spec: see the top of this module.

    Returns:
      True if one of its transforms `balances`.

    Raises:
      InputError: for an unknown name or option, or a number outside its range.

    Example:
      >>> [balances(method_spec(name)) for name in ("softmax_focal", "ldam_drw")]
      [False, True]
    """
    return any(transform.balances for transform in _of_made_up_counts(spec))


def cosine_scale(spec: Mapping[str, Any]) -> float | None:
    """What an objective multiplies cosines by; None if it does not take cosines.

    Args:
      spec: see the top of this module.

    Returns:
      The scale.

    Raises:
      InputError: as `balances`.

    Example:
      >>> cosine_scale(method_spec("gcl")), cosine_scale(method_spec("cross_entropy"))
      (30.0, None)
    """
    return next((t.scale for t in _of_made_up_counts(spec) if t.wants_cosines), None)


def _of_made_up_counts(spec: Mapping[str, Any]) -> Iterator[Transform]:
    data = {"class_counts": (2, 1), "num_examples": None}
    for name, options in spec.get("transforms", {}).items():
        yield _built(name, dict(options or {}), data, steps_per_epoch=1)


def build_objective(
    spec: Mapping[str, Any],
    class_counts: npt.ArrayLike,
    *,
    steps_per_epoch: int = 1,
    epochs: int | None = None,
    num_examples: int | None = None,
) -> Objective:
    """The objective that a spec describes.

    Args:
      spec: see the top of this module.
      class_counts: training images of each class, ``[C]``.
      steps_per_epoch: what an ``update_every`` of 0 and ``start_epoch`` mean in steps.
      epochs: of the training, of which a ``start_epoch`` below 1 is a share.
      num_examples: training examples of multi-label data, where a class may then have no positives
        or nothing else; None for single-label data, where they are the sum of the counts.

    Returns:
      An `Objective`.

    Raises:
      InputError: for an unknown name or option, a number outside its range, or a combination that
        means nothing.

    Example:
      >>> objective = build_objective(method_spec("plm"), [900, 100], steps_per_epoch=10)
      >>> objective.init()[0].ideal_ratio.round(1)
      Array([9. , 0.1], dtype=float32)
    """
    for key in spec:
        if key not in ("base", "base_options", "transforms"):
            raise InputError(
                f"objective has no field {key!r}; it has base, base_options and transforms"
            )
    data = {"class_counts": class_counts, "num_examples": num_examples}
    transforms = []
    # By name, as a ConfigDict has them: a spec means the same in a config and outside.
    for name, given in sorted(spec.get("transforms", {}).items()):
        options = dict(given or {})
        transform = _built(name, options, data, steps_per_epoch)
        start = _start(name, options.get("start_epoch", 0), epochs)
        if start:
            transform = deferred(transform, round(start * steps_per_epoch))
        transforms.append(transform)
    base_name = spec.get("base", "softmax")
    factory = _lookup(BASES, base_name, "base loss")
    base = _call(factory, base_name, dict(spec.get("base_options", {})), data)
    return chain(*transforms, base=base)


def _start(name: str, start_epoch: float, epochs: int | None) -> float:
    """The epoch from which a transform acts."""
    check_number(f"start_epoch of {name}", start_epoch, 0.0)
    if not 0 < start_epoch < 1:
        return start_epoch
    if epochs is None:
        raise InputError(
            f"start_epoch of {name} is {start_epoch!r}, a share of the training; expected the"
            " argument epochs, how long that is"
        )
    return start_epoch * epochs


def check_multi_label(objective: Objective) -> None:
    """Refuses an objective that means nothing where an example may have several labels or none.

    That is one with a softmax, in which the labels of one image would compete, and one with
    `logit_adjustment`, whose priors are those of a softmax. The others act on each class by itself:
    weights, masks and focal factors; clouds, margins and scales of cosines, which move the logit of
    a class against its own threshold.

    Args:
      objective: from `build_objective` or `chain`.

    Raises:
      InputError: saying why, and which methods to use instead.

    Example:
      >>> check_multi_label(build_objective(method_spec("plm"), [60, 10], num_examples=100))
    """
    if objective.only_single_label:
        fitting = ", ".join(sorted(n for n, m in METHODS.items() if m.base != "softmax"))
        raise InputError(
            f"{ONE_LABEL}: {objective.only_single_label}; for multi-label data use a method such as"
            f" {fitting}"
        )
