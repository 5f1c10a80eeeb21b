"""A finished run as an artifact that plain JAX serves: see `lt_jax.artifact`.

The weights are arguments of the program and lie beside it. As constants in it, that of a ResNet-50
was 102 MB instead of 0.05, and took three times as long to write and twice as long to compile. And
they would end with it: JAX reads programs for half a year, NumPy files for good.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from lt_jax import augment, environment, processes
from lt_jax.artifact import FACTS, FORMAT, PROGRAM, WEIGHTS, check_serialisation, file_hash
from lt_jax.errors import InputError
from lt_jax.files import PARTIAL, folder_of, is_remote, write_bytes, writing
from lt_jax.metrics import TABLES
from lt_jax.summaries import row_name
from lt_jax.trained import Trained, load_trained

Array = jax.Array
PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN = (*PLATFORMS, "rocm")


def export_run(
    workdir: str | Path,
    out: str | Path,
    *,
    seed: int | None = None,
    weights: str = "last",
    platforms: Sequence[str] = PLATFORMS,
    overwrite: bool = False,
) -> Path:
    """Writes what a finished run has trained as a folder from which plain JAX predicts.

    Images go in as uint8 ``[B, H, W, C]``, feature vectors as float32 ``[B, D]``, both as they are
    before the run normalises them; logits and probabilities ``[B, C]`` come out, for any B. The
    data of the run are not needed.

    Args:
      workdir: of a run of one stage or of two, whose second is then taken, or of one of its stages.
      out: folder to write, whole or not at all.
      seed: of the replica; None for the first.
      weights: ``"last"`` or ``"best_on_validation"``.
      platforms: that the program is for: some of ``"cpu"``, ``"cuda"``, ``"tpu"``, ``"rocm"``.
      overwrite: whether an exported model that is there already is replaced.

    Returns:
      The folder.

    Raises:
      InputError: for a run that cannot be read or has no such seed or weights, unknown platforms,
        or a folder that is there already.
      StorageError: if there is no room.
    """
    path = folder_of(out)
    _check(path, platforms, overwrite)
    trained = load_trained(workdir, seed=seed, weights=weights)
    arrays, program = lowered(trained, platforms)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    files = {PROGRAM: bytes(program.serialize()), WEIGHTS: buffer.getvalue()}
    facts = facts_of(trained) | {
        "platforms": list(platforms),
        "sha256": {name: file_hash(content) for name, content in files.items()},
    }
    files[FACTS] = (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode()
    _write(path, files)
    return path


def _check(path: Path, platforms: Sequence[str], overwrite: bool) -> None:
    """Refuses what would fail, or overwrite something, at the end."""
    processes.check_alone("the export of a model")
    check_serialisation()
    unknown = [name for name in platforms if name not in _KNOWN]
    if unknown or not platforms:
        found = repr(unknown[0]) if unknown else "empty"
        raise InputError(f"platforms has {found}; expected some of {', '.join(_KNOWN)}")
    if is_remote(path):
        raise InputError(f"out is {path}; expected a local folder, to be copied once it is whole")
    if not path.exists():
        return
    if not overwrite:
        raise InputError(f"{path} is there already; choose another out, or give --overwrite")
    if not (path / FACTS).is_file():
        raise InputError(f"{path} is no exported model, and is not overwritten; choose another out")


def lowered(
    trained: Trained, platforms: Sequence[str]
) -> tuple[dict[str, np.ndarray], export.Exported]:
    """The program of a model, for batches of any size.

    Args:
      trained: the model.
      platforms: that it is for.

    Returns:
      The arrays that it takes by name, and ``(arrays, inputs) -> {"logits", "probabilities"}``.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(trained.weights)
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
    names, data = list(arrays), trained.run.dataset
    mean, std = data.mean.astype(np.float32), data.std.astype(np.float32)
    squash = jax.nn.softmax if trained.competing else jax.nn.sigmoid

    def outputs(given: dict[str, Array], inputs: Array) -> dict[str, Array]:
        weights = jax.tree.unflatten(structure, [given[name] for name in names])
        pixels = inputs.dtype == jnp.uint8
        plain = augment.normalize(inputs, mean, std) if pixels else (inputs - mean) / std
        logits = trained.logits(weights, plain)
        return {"logits": logits, "probabilities": squash(logits)}

    (batch,) = export.symbolic_shape("batch")
    images = data.train_images
    inputs = jax.ShapeDtypeStruct((batch, *images.shape[1:]), images.dtype)
    given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    return arrays, export.export(jax.jit(outputs), platforms=platforms)(given, inputs)


def facts_of(trained: Trained) -> dict[str, Any]:
    """What ``model.json`` says of a model.

    Args:
      trained: the model.

    Returns:
      A dictionary that JSON can hold.
    """
    run = trained.run
    config, summary, data = run.config, run.summary, run.dataset
    thresholds = run.test.get("per_class_threshold")  # of several labels, chosen on validation
    if thresholds is not None:
        thresholds = [None if t is None else trained.scale * t for t in thresholds]
    return {
        "format": FORMAT,
        "name": summary["name"],
        "method": row_name(summary),
        "seed": summary["seeds"][run.row],
        "weights": run.which,
        "class_names": list(data.class_names),
        "input": {
            "shape": list(data.train_images.shape[1:]),
            "dtype": str(data.train_images.dtype),
            "resize": config["data"]["resize"],
        },
        "normalization": {
            "of": "pixels / 255" if data.train_images.ndim == 4 else "features",
            "mean": data.mean.tolist(),
            "std": data.std.tolist(),
        },
        "probabilities": "softmax" if trained.competing else "sigmoid",
        "multi_label": data.multi_label,
        "threshold": config["metrics"]["threshold"] if data.multi_label else None,
        "logit_thresholds": thresholds,
        "test": {name: value for name, value in run.test.items() if name not in TABLES},
        "trained": {name: summary.get(name) for name in ("finished", "commit", "versions")},
        "exported": {"commit": environment.commit(), "versions": environment.versions()},
        "config": config,
    }


def _write(path: Path, files: dict[str, bytes]) -> None:
    """Writes a folder beside the place where it belongs, and moves it there when it is whole."""
    new, old = (path.with_name(f"{path.name}{kind}{PARTIAL}") for kind in ("", ".old"))
    with writing(path.parent):
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            for name, content in files.items():
                write_bytes(new / name, content)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            new.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                if old.exists() and not path.exists():
                    old.rename(path)
            shutil.rmtree(new, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)
