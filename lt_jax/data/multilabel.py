"""What is particular to multi-label sets: the validation cut, and what is told about labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
MOST_NAMES = 10  # in a sentence


def stratified_split(
    labels: npt.NDArray[np.uint8], wanted: Indices, size: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Splits examples so that each class gives about its share to validation.

    Iterative stratification: the class with the fewest examples that are not yet in a part is
    shared out first, because later there would be no choice. Each of its examples goes to the part
    that lacks more of the class; if both lack as many, to the one that lacks more examples. Those
    without labels fill up what validation lacks.

    Args:
      labels: multi-hot uint8 ``[N, C]``.
      wanted: positives of each class that validation should get, ``[C]``.
      size: examples that it should get.
      seed: which split to draw.

    Returns:
      Which examples are validation, bool ``[N]``.

    Example:
      >>> labels = np.array([[1, 0], [1, 0], [1, 1], [1, 1], [0, 0], [0, 0]], np.uint8)
      >>> given = stratified_split(labels, np.array([2, 1]), 3, seed=0)
      >>> labels[given].sum(axis=0), int(given.sum())
      (array([2, 1], dtype=uint64), 3)

    Source: Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011.
    """
    rng = np.random.default_rng([seed, 1])
    labels = labels.astype(np.int64)
    lacks = np.stack([labels.sum(axis=0) - wanted, wanted])
    room = np.array([len(labels) - size, size])
    given = np.zeros(len(labels), bool)
    is_open = np.asarray(labels.any(axis=1))
    while is_open.any():
        remaining = labels[is_open].sum(axis=0)
        c = int(np.argmin(np.where(remaining > 0, remaining, len(labels) + 1)))
        members = rng.permutation(np.flatnonzero(is_open & (labels[:, c] == 1)))
        for i in members:
            part = int((lacks[1, c], room[1]) > (lacks[0, c], room[0]))
            given[i] = bool(part)
            lacks[part] -= labels[i]
            room[part] -= 1
        is_open[members] = False
    unlabelled = rng.permutation(np.flatnonzero(~labels.any(axis=1)))
    given[unlabelled[: max(room[1], 0)]] = True
    return given


def label_notes(train: np.ndarray, test: np.ndarray, class_names: Sequence[str]) -> tuple[str, ...]:
    """What one should know about the labels of a set before training on it.

    Args:
      train: multi-hot labels ``[N, C]``, or integers ``[N]``.
      test: those of test.
      class_names: C names.

    Returns:
      Phrases, each with the classes or the number of examples that it is about.

    Example:
      >>> label_notes(np.array([[1, 1, 0], [1, 0, 0]]), np.array([[1, 1, 1]]), ("a", "b", "c"))[0]
      "classes without positives in train, which cannot be learned: 'c'"
    """
    if train.ndim == 1:
        there = [np.bincount(labels, minlength=len(class_names)) for labels in (train, test)]
        return tuple(
            f"classes without images in {name}: {_listed(class_names, counts == 0)}"
            for name, counts in zip(("train", "test"), there, strict=True)
            if not counts.all()
        )
    positives, unlabelled = train.sum(axis=0), int((~train.any(axis=1)).sum())
    cases = {
        "classes without positives in train, which cannot be learned": positives == 0,
        "classes that every training example has, which cannot be learned": positives == len(train),
        "classes without positives in test, which have no score there": test.sum(axis=0) == 0,
    }
    notes = [
        f"{what}: {_listed(class_names, which)}" for what, which in cases.items() if which.any()
    ]
    if (train.sum(axis=1) == 1).all() and (test.sum(axis=1) == 1).all():
        notes.append(
            "every example has one label, in a set for several; integers [N] as labels make it one"
            " for methods with a softmax"
        )
    if unlabelled:
        notes.append(f"training examples without a label, negatives of every class: {unlabelled}")
    return tuple(notes)


def _listed(class_names: Sequence[str], which: np.ndarray) -> str:
    names = [repr(str(class_names[c])) for c in np.flatnonzero(which).tolist()]
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
