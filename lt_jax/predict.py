"""Predictions of an exported model for image files and arrays, as a CSV file.

Beside JAX it needs flatbuffers, NumPy and, for image files, Pillow: no data set, no folder of a
run, and none of the packages that training takes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from lt_jax.artifact import Artifact, predicted_positives
from lt_jax.data.reading import decoded
from lt_jax.errors import InputError
from lt_jax.examples import Array, Example, find_examples
from lt_jax.files import output_file, write_whole


class Prediction(NamedTuple):
    """What the model says of an example.

    Attributes:
      name: of the example.
      logits: ``[C]``.
      probabilities: ``[C]``.
    """

    name: str
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


class Written(NamedTuple):
    """What a file of predictions has.

    Attributes:
      rows: how many examples.
      skipped: one sentence for each that was left out.
    """

    rows: int
    skipped: tuple[str, ...]


def predict(
    model: Artifact,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    skipped: list[str] | None = None,
) -> Iterator[Prediction]:
    """Predicts examples in batches of one size, the last one filled up, so that one program does.

    Args:
      model: from `lt_jax.artifact.load_artifact`.
      examples: from `lt_jax.examples.find_examples`.
      batch_size: at most as many at once.
      skipped: gets a sentence for each image that cannot be decoded, which is left out; None
        refuses it.

    Yields:
      A `Prediction` for each example, in order.

    Raises:
      InputError: naming an image that cannot be decoded.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; expected at least 1")
    size = max(1, min(batch_size, len(examples)))
    shape, dtype = model.facts["input"]["shape"], model.facts["input"]["dtype"]
    with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        for start in range(0, len(examples), size):
            part = examples[start : start + size]
            read = list(pool.map(partial(_read, refuse=skipped is None), part))
            good = [i for i, one in enumerate(read) if not isinstance(one, str)]
            if skipped is not None:
                skipped += [one for one in read if isinstance(one, str)]
            batch = np.zeros((size, *shape), dtype)
            for place, i in enumerate(good):
                batch[place] = read[i]
            found = jax.device_get(model.outputs(batch))
            for place, i in enumerate(good):
                own = found["logits"][place], found["probabilities"][place]
                yield Prediction(part[i].name, *own)


def _read(example: Example, *, refuse: bool) -> Array | str:
    """The input, or a sentence."""
    try:
        return decoded(example.read, example.name)
    except InputError as error:
        if refuse:
            way_out = "--on_corrupt=skip leaves such images out"
            raise InputError(f"{error}; {way_out}") from error
        return str(error)


def write_predictions(
    model: Artifact,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    top_k: int = 5,
    batch_size: int = 64,
    all_probabilities: bool = False,
    on_corrupt: str = "refuse",
    overwrite: bool = False,
) -> Written:
    """Predicts images into a CSV file, a row for each, which is written whole or not at all.

    Of one label an example the columns are path, class, probability, and class_2, probability_2
    and so on of the next probable classes. Of several they are path, and classes and probabilities
    of those above their thresholds, the most probable first, joined by semicolons as a row of a
    CSV file is by commas.

    Args:
      model: from `lt_jax.artifact.load_artifact`.
      paths: see `lt_jax.examples.find_examples`.
      out: the file.
      top_k: most probable classes of which a row tells; of one label an example.
      batch_size: at most as many images at once.
      all_probabilities: whether a column for each class, called by its name, follows.
      on_corrupt: what an image that cannot be decoded does: ``"refuse"`` ends with its name,
        ``"skip"`` leaves it out.
      overwrite: whether a file that is there already is replaced.

    Returns:
      `Written`.

    Raises:
      InputError: for values that cannot be used, and as `find_examples` and `predict` do.
      StorageError: if there is no room.
    """
    path = output_file(out)
    if top_k < 1:
        raise InputError(f"top_k is {top_k!r}; expected at least 1")
    if on_corrupt not in ("refuse", "skip"):
        raise InputError(f"on_corrupt is {on_corrupt!r}; expected 'refuse' or 'skip'")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; choose another out, or give --overwrite")
    examples, skipped = find_examples(paths, model.facts), list[str]()
    row = partial(_several if model.facts["multi_label"] else _ranked, model.facts, top_k)
    rows = 0

    def write(file: IO[bytes]) -> None:
        nonlocal rows
        # A file name need not be UTF-8.
        text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_header(model.facts, top_k, all_probabilities))
        given = None if on_corrupt == "refuse" else skipped
        for one in predict(model, examples, batch_size=batch_size, skipped=given):
            rest = map(_number, one.probabilities) if all_probabilities else ()
            table.writerow([one.name, *row(one), *rest])
            rows += 1
        text.flush()
        text.detach()

    write_whole(path, write)
    return Written(rows, tuple(skipped))


def _number(value: np.float32) -> str:
    return f"{float(value):.7g}"


def _header(facts: dict[str, Any], top_k: int, all_probabilities: bool) -> list[str]:
    names = ["classes", "probabilities"]
    if not facts["multi_label"]:
        places = range(2, min(top_k, len(facts["class_names"])) + 1)
        names = ["class", "probability"]
        names += [f"{what}_{place}" for place in places for what in ("class", "probability")]
    return ["path", *names, *(facts["class_names"] if all_probabilities else ())]


def _ranked(facts: dict[str, Any], top_k: int, one: Prediction) -> list[str]:
    """The most probable classes and their probabilities, by logits, which saturate less."""
    order = np.argsort(-one.logits, kind="stable")[:top_k]
    return [
        text for c in order for text in (facts["class_names"][c], _number(one.probabilities[c]))
    ]


def _several(facts: dict[str, Any], _: int, one: Prediction) -> list[str]:
    """The classes above their thresholds, and their probabilities."""
    positive = predicted_positives(one.logits, one.probabilities, facts)
    order = [c for c in np.argsort(-one.logits, kind="stable") if positive[c]]
    names = [facts["class_names"][c] for c in order]
    return [_joined(names), _joined([_number(one.probabilities[c]) for c in order])]


def _joined(names: Sequence[str]) -> str:
    """One cell of several; those that have a semicolon themselves stand in quotes."""
    cell = io.StringIO()
    csv.writer(cell, delimiter=";", lineterminator="").writerow(names)
    return cell.getvalue()
