"""An exported model: a folder with a program, its weights, and what there is to know about both.

``model.stablehlo`` is the program, as `jax.export` writes it; ``weights.npz`` holds the arrays that
it takes beside its inputs; ``model.json`` has the classes, the inputs, the outputs and where the
model comes from. Whoever reads them needs JAX, flatbuffers and NumPy, no part of this package::

    import json, jax, numpy as np
    from jax import export
    from pathlib import Path

    folder = Path("exported/digits")
    program = export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    weights = jax.device_put(dict(np.load(folder / "weights.npz")))
    classes = json.loads((folder / "model.json").read_text())["class_names"]
    images = np.zeros((3, 8, 8, 1), np.uint8)  # as many as there are
    outputs = jax.jit(program.call)(weights, images)
    print([classes[c] for c in outputs["probabilities"].argmax(axis=-1)])
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax import export

from lt_jax.errors import InputError, first_line
from lt_jax.files import folder_of, is_remote
from lt_jax.npz import read_npz

PROGRAM, WEIGHTS, FACTS = "model.stablehlo", "weights.npz", "model.json"
FORMAT = "lt_jax model 1"
_GPUS = {"cuda", "rocm"}


class Artifact(NamedTuple):
    """An exported model that is ready to be used.

    Attributes:
      folder: where it is.
      facts: those of ``model.json``.
      outputs: ``inputs [B, ...] -> {"logits": [B, C], "probabilities": [B, C]}``, of any B; each
        new B is compiled once.
    """

    folder: Path
    facts: dict[str, Any]
    outputs: Callable[[npt.NDArray[Any]], dict[str, jax.Array]]


def check_serialisation() -> None:
    """Refuses to go on without the package that `jax.export` reads and writes files with.

    Raises:
      InputError: if it is not installed.
    """
    if not importlib.util.find_spec("flatbuffers"):
        raise InputError("exported models need flatbuffers: pip install 'lt_jax[export]'")


def file_hash(content: bytes) -> str:
    """SHA-256 in hex digits, by which a damaged file is noticed."""
    return hashlib.sha256(content).hexdigest()


def load_artifact(folder: str | Path) -> Artifact:
    """Reads an exported model.

    Args:
      folder: that `lt_jax.export.export_run` has written.

    Returns:
      An `Artifact`, its weights on the device.

    Raises:
      InputError: if the folder is none, a file is damaged, or the model was not exported for the
        platform of this machine.
    """
    path = folder_of(folder)
    if is_remote(path):
        raise InputError(f"model is {path}; expected a local folder, to which it has been copied")
    facts = read_facts(path)
    check_serialisation()
    content = {name: _undamaged(path / name, facts) for name in (PROGRAM, WEIGHTS)}
    _check_platform(path, facts["platforms"])
    try:
        program = export.deserialize(bytearray(content[PROGRAM]))
    except Exception as error:  # JAX raises many kinds for what it no longer reads
        raise InputError(
            f"{path / PROGRAM} cannot be read by JAX {jax.__version__} ({first_line(error)[:200]});"
            " expected one exported within half a year: export the run again"
        ) from error
    weights, call = jax.device_put(read_npz(path / WEIGHTS)), jax.jit(program.call)
    return Artifact(path, facts, lambda inputs: call(weights, inputs))


def _undamaged(path: Path, facts: dict[str, Any]) -> bytes:
    """What is in a file, if it is the one that was exported."""
    if not path.is_file():
        raise InputError(
            f"{path.parent} lacks {path.name}; expected all files of an exported model"
        )
    content = path.read_bytes()
    if file_hash(content) != facts["sha256"][path.name]:
        raise InputError(f"{path} is damaged: it is not the file that was exported")
    return content


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``model.json`` says.

    Args:
      folder: of an exported model.

    Returns:
      The dictionary of `lt_jax.export.facts_of`, with platforms and hashes.

    Raises:
      InputError: if there is none, or it is not that of an exported model.
    """
    path = folder / FACTS
    if not path.is_file():
        raise InputError(
            f"{folder} is not an exported model, as it holds no {FACTS}; expected a folder that"
            " launch/export.py has written"
        )
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)})") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise InputError(f"{path} has format {found!r}; expected {FORMAT!r}")
    return facts


def _check_platform(folder: Path, platforms: list[str]) -> None:
    backend = jax.default_backend()
    names = _GPUS if backend == "gpu" else {backend}
    if not names & set(platforms):
        wanted = ",".join([*platforms, "cuda" if backend == "gpu" else backend])
        raise InputError(
            f"{folder} was exported for {', '.join(platforms)}, and JAX runs on {backend} here;"
            f" export the run again with --platforms={wanted}"
        )


def predicted_positives(
    logits: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32], facts: dict[str, Any]
) -> npt.NDArray[np.bool_]:
    """Which classes examples have, where there may be several.

    Args:
      logits: ``[..., C]``.
      probabilities: ``[..., C]``.
      facts: of the model: with the threshold of each class that validation chose, or one of all.

    Returns:
      ``[..., C]``.

    Example:
      >>> facts = {"threshold": 0.5, "logit_thresholds": [1.0, None]}
      >>> predicted_positives(np.array([0.5, -9.0]), np.array([0.6, 0.0]), facts)
      array([False,  True])
    """
    chosen = facts["logit_thresholds"]
    if chosen is None:
        return probabilities > facts["threshold"]
    return logits > np.array([-np.inf if t is None else t for t in chosen])
