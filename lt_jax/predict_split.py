"""What a finished run says of each example of its own test or validation split, in one file.

Two runs on the same images have their examples in the same order, so that McNemar's test, a
bootstrap over images, a list of errors or an ensemble is a line of NumPy on such files.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from lt_jax import processes, sharding
from lt_jax.artifact import predicted_positives
from lt_jax.data import Dataset, load_dataset
from lt_jax.data.identity import (
    OF_IMAGES,
    check_can_move,
    data_fingerprint,
    different,
    only_moved,
)
from lt_jax.errors import InputError
from lt_jax.export import facts_of
from lt_jax.feeding import evaluation_batches
from lt_jax.files import output_file, write_whole
from lt_jax.metrics import average_precision, balanced_accuracy, count
from lt_jax.prepare import put_split
from lt_jax.programs import compiler_options
from lt_jax.steps import Split, plain_inputs, shared
from lt_jax.summaries import headline
from lt_jax.trained import Chosen, Trained, load_trained

Array = jax.Array
Floats = npt.NDArray[np.float32]
SPLITS = ("test", "validation")
ENDINGS = (".npz", ".csv")
_NOWHERE = ("digits", "multi_digits", "made_features")  # come with scikit-learn, or are drawn


class SplitPredictions(NamedTuple):
    """What a run says of the examples of a split, in the order of the split.

    Attributes:
      labels: the true ones, int32 ``[N]``, or multi-hot uint8 ``[N, C]``.
      predicted: likewise: the class of the largest logit, or those above their thresholds.
      probabilities: ``[N, C]``.
      logits: ``[N, C]``; their softmax or sigmoid is the probability.
      paths: of the files, relative to the folder of the data; None where the data are no folder.
      facts: those of `lt_jax.export.facts_of`, the ``split``, and what tells its ``images`` from
        others, see `lt_jax.data.identity.data_fingerprint`.
      headline: the score by which the run selects, recomputed from these predictions.
      in_summary: the same score of the same seed and weights in the run's summary.
    """

    labels: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: Floats
    logits: Floats
    paths: list[str] | None
    facts: dict[str, Any]
    headline: float
    in_summary: float | None


def predict_split(
    workdir: str | Path,
    split: str = "test",
    *,
    seed: int | None = None,
    weights: str = "last",
    source: str = "",
    data_dir: str = "",
) -> SplitPredictions:
    """Predicts a whole split of a run, evaluated as the run did, on all devices.

    The data are loaded as the config of the run says; streamed images are read while they are
    predicted.

    Args:
      workdir: of a finished run of one stage or of two, whose second is then taken, or of one of
        its stages.
      split: ``"test"`` or ``"validation"``.
      seed: of the replica; None for the first.
      weights: ``"last"`` or ``"best_on_validation"``.
      source: where the data are, if not where they were, of the same kind: ``"folder:PATH"``.
      data_dir: likewise, of what has no absolute path.

    Returns:
      `SplitPredictions`.

    Raises:
      InputError: for a run that cannot be read or has no such split, seed or weights, or for data
        that are not those of the run.

    Example::

        one, other = (predict_split(run) for run in ("runs/ce", "runs/cb_focal"))
        right, too = (p.predicted == p.labels for p in (one, other))
        only_one, only_other = (right & ~too).sum(), (too & ~right).sum()  # McNemar's test
    """
    processes.check_alone("the prediction of a split")
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; expected 'test' or 'validation'")
    trained = load_trained(workdir, seed=seed, weights=weights)
    run = trained.run
    if split == "validation" and not len(run.dataset.validation_labels):
        raise InputError(f"split is 'validation', but the run in {run.folder} has none")
    dataset = _dataset_of(run, source, data_dir)
    logits, probabilities = _outputs(trained, dataset, split)
    labels = getattr(dataset, f"{split}_labels")
    images = data_fingerprint(run.summary["data"])
    facts = {**facts_of(trained), "split": split, "images": images}
    if dataset.multi_label:
        predicted = predicted_positives(logits, probabilities, facts).astype(np.uint8)
    else:
        predicted = logits.argmax(axis=1).astype(np.int32)
    paths = dataset.paths.get(split)
    return SplitPredictions(
        labels if dataset.multi_label else labels.astype(np.int32),
        predicted,
        probabilities,
        logits,
        None if paths is None else [os.fsdecode(path) for path in paths.tolist()],
        facts,
        _headline(labels, logits, probabilities),
        _in_summary(run, split),
    )


def _dataset_of(run: Chosen, source: str, data_dir: str) -> Dataset:
    """The data of a run, if they are still the same."""
    data, before = run.config["data"], run.config["data"]["source"]
    if source and source != before:
        if not only_moved("data.source", before, source):
            raise InputError(f"source is {source!r}, and the run had {before!r}; expected its kind")
        check_can_move(run.summary["data"], before, f"the run in {run.folder}")
        data = {**data, "source": source}
    if data_dir:
        _check_data_dir(data, data_dir)
        data = {**data, "data_dir": data_dir}
    dataset = load_dataset(data)
    name = different(run.summary["data"], dataset.info())
    if name:
        raise InputError(
            f"{dataset.source} has other {OF_IMAGES[name]} now than the run in {run.folder} had"
            f" ({name} differs); expected the same images; source or data_dir says where they are"
        )
    return dataset


def _check_data_dir(data: Mapping[str, Any], data_dir: str) -> None:
    """Refuses a folder in which nothing would be looked for."""
    form, _, rest = data["source"].partition(":")
    if form in _NOWHERE:
        why = "is in no folder"
    elif os.path.isabs(os.path.expanduser(rest)) and not data.get("train_list"):
        why = "has an absolute path"
    else:
        return
    raise InputError(f"data_dir is {data_dir}, but {data['source']} {why}; expected none")


def _outputs(trained: Trained, dataset: Dataset, name: str) -> tuple[Floats, Floats]:
    """Logits and probabilities ``[N, C]``, on the host as soon as a batch is done."""
    mesh = sharding.make_mesh()
    everywhere = sharding.replicated(mesh)
    squash = jax.nn.softmax if trained.competing else jax.nn.sigmoid

    def outputs(weights: Any, split: Split, indices: Array) -> tuple[Array, Array]:
        inputs = plain_inputs(split, shared(indices, mesh))
        logits = trained.logits(weights, inputs)
        return logits, squash(logits)

    compiled = jax.jit(outputs, out_shardings=everywhere, compiler_options=compiler_options())
    program = sharding.awaited(compiled, mesh)
    weights = sharding.to_devices(trained.weights, everywhere)
    size = trained.run.config["train"]["eval_batch_size"]
    batches = evaluation_batches(put_split(dataset, name, mesh), size, mesh)
    parts = [jax.device_get(program(weights, part, rows)) for part, rows, _ in batches]
    count = len(getattr(dataset, f"{name}_labels"))
    logits, probabilities = (np.concatenate(each)[:count] for each in zip(*parts, strict=True))
    return logits, probabilities


def _headline(labels: npt.NDArray[Any], logits: Floats, probabilities: Floats) -> float:
    """Mean average precision, or mean accuracy of the classes that occur."""
    if labels.ndim == 2:
        return float(np.nanmean(average_precision(logits, labels)))
    return float(balanced_accuracy(count(logits, probabilities, labels)))


def _in_summary(run: Chosen, split: str) -> float | None:
    name = headline(run.summary)
    if split == "test":
        found = run.test[name]
    else:
        each = run.summary["test"][run.which].get(f"validation_{name}")
        found = each[run.row] if each else None
    return None if found is None else float(found)


def write_split_predictions(
    workdir: str | Path,
    out: str | Path,
    *,
    split: str = "test",
    seed: int | None = None,
    weights: str = "last",
    source: str = "",
    data_dir: str = "",
    overwrite: bool = False,
) -> SplitPredictions:
    """Predicts a split of a run into a file, which is written whole or not at all.

    An .npz file has ``index``, ``label``, ``predicted``, ``probabilities``, ``logits`` and
    ``path`` (those of `SplitPredictions`), ``class_names``, and ``run``: JSON of the facts. A CSV
    file has a row for each example: of one label the names of the true class and of the predicted
    one, of several 0 and 1 for each class; then a probability and a logit for each class, in as
    many digits as they have.

    Args:
      workdir: as for `predict_split`.
      out: the file, ending in .npz or .csv.
      split: as for `predict_split`.
      seed: likewise.
      weights: likewise.
      source: likewise.
      data_dir: likewise.
      overwrite: whether a file that is there already is replaced.

    Returns:
      What `predict_split` does.

    Raises:
      InputError: for a file that cannot be written, and as `predict_split` does.
      StorageError: if there is no room.
    """
    path = output_file(out)
    if path.suffix not in ENDINGS:
        raise InputError(f"out is {path}; expected a name that ends in .npz or .csv")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; choose another out, or give --overwrite")
    found = predict_split(
        workdir, split, seed=seed, weights=weights, source=source, data_dir=data_dir
    )
    write_whole(path, partial(_write_npz if path.suffix == ".npz" else _write_csv, found))
    return found


def _write_npz(found: SplitPredictions, file: IO[bytes]) -> None:
    arrays: dict[str, Any] = {
        "index": np.arange(len(found.labels)),
        **({} if found.paths is None else {"path": np.array(found.paths)}),
        "label": found.labels,
        "predicted": found.predicted,
        "probabilities": found.probabilities,
        "logits": found.logits,
        "class_names": np.array(found.facts["class_names"]),
        "run": np.array(json.dumps(found.facts, allow_nan=False)),
    }
    np.savez(file, allow_pickle=False, **arrays)


def _write_csv(found: SplitPredictions, file: IO[bytes]) -> None:
    # A file name need not be UTF-8.
    text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    csv.writer(text, lineterminator="\n").writerows(_rows(found))
    text.flush()
    text.detach()


def _rows(found: SplitPredictions) -> Iterator[list[Any]]:
    """A header, and a row for each example."""
    names = found.facts["class_names"]
    several = found.labels.ndim == 2
    path = [] if found.paths is None else ["path"]
    kinds = ("label", "predicted", "probability", "logit")
    columns = [f"{kind}_{name}" for kind in kinds[0 if several else 2 :] for name in names]
    yield ["index", *path, *([] if several else kinds[:2]), *columns]
    for i, (label, predicted) in enumerate(zip(found.labels, found.predicted, strict=True)):
        said = [*label, *predicted] if several else [names[label], names[predicted]]
        numbers = [f"{x:.9g}" for x in (*found.probabilities[i], *found.logits[i])]
        yield [i, *([found.paths[i]] if found.paths else []), *said, *numbers]
