"""What one should know of how a set was cut, which a default may have decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_jax.data.checks import Labels
from lt_jax.data.sources import Source


def left_out(
    source: Source, train: Labels, validation: Labels, kind: str, options: Mapping[str, Any]
) -> tuple[str, ...]:
    """That images of one's own are left out by a default, which one may not know of.

    Args:
      source: the whole set.
      train: labels of what is kept of it.
      validation: labels of validation.
      kind: of the tail.
      options: of `lt_jax.data.load_dataset`.

    Returns:
      A sentence, or nothing.
    """
    left = len(source.train_labels) - len(train)
    if source.validation_labels is None:
        left -= len(validation)
    own = source.name.partition(":")[0] in ("arrays", "folder")
    if not (left and own) or kind in ("explicit", "unchanged"):
        return ()
    cause, as_it_is = f"imbalance {options['imbalance']:g}", "0"
    if kind == "pareto":  # a long tail whatever the imbalance, see `has_tail`
        cause = "imbalance_kind pareto"
        as_it_is = "exponential with config.data.imbalance 0"
    return (
        f"{left} images of {source.name} are left out, as the set is made long-tailed"
        f" (config.data.{cause}); {as_it_is} takes it as it is.",
    )


def other_number(source: Source, validation: Labels, options: Mapping[str, Any]) -> tuple[str, ...]:
    """That a validation split of another size than asked for was cut, by more than a tenth.

    Args:
      source: the whole set.
      validation: labels of validation.
      options: of `lt_jax.data.load_dataset`.

    Returns:
      A sentence with the cause, or nothing.
    """
    size, cut = options["validation_size"], len(validation)
    if source.validation_labels is not None or abs(cut - size) <= size / 10:
        return ()
    why = "each class gives about its share"
    if validation.ndim == 1:
        why = "each class gives its share, rounded, at least one, and never its last"
        each = size // source.num_classes
        if each and (np.bincount(validation, minlength=source.num_classes) == each).all():
            why = "each class gives as many"
    return (f"{cut} images of {source.name} are cut from train to select on, not {size}: {why}.",)
