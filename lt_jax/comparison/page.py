"""The page: everything in one file, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

import lt_jax
from lt_jax import environment
from lt_jax.comparison.parts import Section
from lt_jax.comparison.runs import Group, grouped, read_runs, unfinished
from lt_jax.comparison.sections import sections_of
from lt_jax.comparison.svg import swatch
from lt_jax.errors import InputError
from lt_jax.files import output_file, write_text
from lt_jax.writers import say

HERE = Path(__file__).parent


class Shown(NamedTuple):
    """A group as the page has it."""

    title: str
    about: str
    sections: Sequence[Section]


def write_report(names: Iterable[str | Path], out: str | Path, *, baseline: str = "") -> Path:
    """Compares finished runs in one HTML page, which is whole in itself.

    Runs on other data, or with other scores (one label an example, or several), are shown in a
    group of their own, each compared with its own baseline: nothing is paired across groups.

    Args:
      names: of folders of runs or sweeps, or files of summaries; see
        `lt_jax.comparison.read_runs`.
      out: the file to write, which ends with ``.html``.
      baseline: name of the run that others are compared with; empty for the first of each group.

    Returns:
      The path of the page.

    Raises:
      InputError: for a run that is missing or has not finished, a baseline that no run is called
        by, or a file that is no place for a page, before anything is written.
      StorageError: if the page cannot be written.
    """
    path = output_file(out)
    if path.suffix != ".html":
        raise InputError(f"out is {str(out)!r}; expected a file that ends with .html")
    names = list(names)
    groups, left_out = grouped(read_runs(names), baseline), unfinished(names)
    write_text(path, page(groups, left_out))
    if left_out:
        say(f"left out, as they have no test scores yet: {', '.join(map(str, left_out))}.")
    return path


def page(groups: Sequence[Group], left_out: Sequence[Path] = ()) -> str:
    """The page of groups of runs.

    Args:
      groups: from `lt_jax.comparison.grouped`.
      left_out: runs that had no test scores yet.

    Returns:
      HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (HERE / "page.js").read_text()
    return templates.get_template("page.html").render(
        title=_title(groups),
        left_out=left_out,
        groups=[Shown(_name(g), _about(g), sections_of(g)) for g in groups],
        style=Markup((HERE / "page.css").read_text()),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        swatch=swatch,
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        version=lt_jax.__version__,
        command=environment.command_line(),
    )


def _title(groups: Sequence[Group]) -> str:
    count = sum(len(group.runs) for group in groups)
    return (
        f"{count} run{'s' if count > 1 else ''} on {', '.join(dict.fromkeys(map(_source, groups)))}"
    )


def _source(group: Group) -> str:
    return str(group.baseline.summary["data"]["source"])


def _name(group: Group) -> str:
    data: dict[str, Any] = group.baseline.summary["data"]
    tail = f", imbalance {data['imbalance']:g}" if data.get("imbalance") else ""
    return f"{_source(group)}{tail}"


def _about(group: Group) -> str:
    data = group.baseline.summary["data"]
    counts = data["class_counts"]
    unit = "positives" if group.multi_label else "images"
    kind = ", several labels an example" if group.multi_label else ""
    sizes = [
        f"{data[f'total_{name}']} {shown}"
        for name, shown in (
            ("train", "training examples"),
            ("validation", "validation"),
            ("test", "test"),
        )
        if f"total_{name}" in data
    ]
    classes = f"{len(counts)} classes with {max(counts)} to {min(counts)} training {unit}{kind}"
    hashed = f"index hash {data['index_hash']}"
    return "; ".join(filter(None, [classes, ", ".join(sizes), hashed]))
