"""The reference of the fields of a config, made of the code; needs no Sphinx."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lt_jax import dlsa
from lt_jax.config_fields import FIELDS
from lt_jax.configuration import base_config, plain
from lt_jax.objectives import BASES, METHODS, TRANSFORMS
from lt_jax.two_stage import ALIASES, KINDS, STAGES, default_fields, stage_fields

TITLES = {
    "": "The run",
    "data": "`data`: images, their split and their tail",
    "data.canvas": "`data.canvas`: composed sets",
    "sampling": "`sampling`: which images an epoch trains on",
    "augment": "`augment`: random changes of images",
    "model": "`model`: the network",
    "objective": "`objective`: the loss",
    "optimizer": "`optimizer`",
    "metrics": "`metrics`: scores with several labels an example",
    "train": "`train`: length, validation, checkpoints, devices",
    "retrain": "`retrain`: the second stage",
}
DIVISION = {
    "cascade": dlsa.CascadeOptions,
    "flow": dlsa.FlowOptions,
    "heads": dlsa.HeadOptions,
}
FROM_DATA = {"class_counts", "num_examples"}
# Fields whose default is another one for each method.
BY_METHOD = {"": {"name"}, "objective": {"base"}, "retrain": {"method"}}
HEAD = """# Fields of a config

Made from the code: every field that a run can have, with its default. A field is changed on the
command line by `--config.GROUP.FIELD=VALUE` (`launch/train.py`), for all rows of a table by
`--set=GROUP.FIELD=VALUE` (`launch/sweep.py`), in Python by `config.group.field = value`. A name
that does not exist, a value of another type or a number out of range ends the run before it starts,
with one sentence that names the field. The defaults here are those of
{{py:func}}`lt_jax.configuration.base_config`; a config file changes some of them
([all configs](configs.md)).
"""


def described(docstring: str | None, section: str) -> dict[str, str]:
    """Names and descriptions of a section, such as ``Args``, of a docstring in Google's style."""
    text = inspect.cleandoc(docstring or "")
    found = re.search(rf"^{section}:\n((?:(?:  .*)?\n)+)", text + "\n", flags=re.MULTILINE)
    entries = re.split(r"^  (?=[*\w])", found[1], flags=re.MULTILINE)[1:] if found else []
    pairs = (entry.partition(": ") for entry in entries)
    return {name: " ".join(rest.split()) for name, _, rest in pairs}


def markdown(text: str) -> str:
    """Text of a docstring in a cell of a Markdown table."""
    text = re.sub(r"``(.+?)``", r"`\1`", text.replace("|", r"\|"))
    return re.sub(r":math:`(.+?)`", r"$\1$", text)


def linked(text: str) -> str:
    """The same, with names of the package in single backticks as links."""
    names = re.sub(r"(?<!`)`(lt_jax\.[\w.]+)`(?!`)", r"{py:obj}`\1`", text)
    return markdown(names)


def shown(value: Any) -> str:
    """A default as a config file would have it."""
    return f"`{tuple(value) if isinstance(value, list) else value!r}`"


def options_of(factory: Callable[..., Any]) -> dict[str, tuple[Any, str]]:
    """Defaults and descriptions of what a config can say to a factory of `lt_jax.objectives`."""
    texts = described(factory.__doc__, "Args")
    return {
        name: (0 if p.default is p.empty else p.default, texts[name])
        for name, p in inspect.signature(factory).parameters.items()
        if name not in FROM_DATA
    }


def defaults(group: str) -> dict[str, Any]:
    """The fields of a group and their defaults; those of all kinds of second stages together."""
    config = plain(base_config())
    if group == "retrain":
        fields = {"method": ""}
        for kind in KINDS:
            fields |= {k: v for k, v in default_fields(kind).items() if k != "method"}
        return fields
    for part in filter(None, group.split(".")):
        config = config[part]
    if group == "objective":
        return config
    return {k: v for k, v in config.items() if not isinstance(v, Mapping)}


def table(group: str) -> Iterator[str]:
    """Rows of the fields of a group."""
    yield from ("| field | default | meaning |", "|---|---|---|")
    values = defaults(group)
    for name, text in FIELDS[group].items():
        default = "" if isinstance(values[name], Mapping) else shown(values[name])
        if name in BY_METHOD.get(group, ()):
            default = "by method"
        full = f"{group}.{name}" if group else name
        yield f"| `{full}` | {default} | {linked(text)} |"


def division_table(group: str) -> Iterator[str]:
    """The same of a group of DLSA's."""
    options = DIVISION[group]
    texts = described(options.__doc__, "Attributes")
    yield from ("| field | default | meaning |", "|---|---|---|")
    for name, value in options()._asdict().items():
        yield f"| `retrain.{group}.{name}` | {shown(value)} | {linked(texts[name])} |"


def factory_table(factories: Mapping[str, Callable[..., Any]], path: str) -> Iterator[str]:
    """Options of all transforms, or of all bases."""
    yield from ("| option | default | meaning |", "|---|---|---|")
    for name, factory in factories.items():
        options = options_of(factory)
        if not options:
            yield f"| `{name}` | | no options |"
        for option, (default, text) in options.items():
            yield f"| `{path.format(name)}.{option}` | {shown(default)} | {linked(text)} |"


def method_table() -> Iterator[str]:
    """What every name of a method stands for."""
    yield from ("| method | base | transforms | source |", "|---|---|---|---|")
    for name, method in METHODS.items():
        changed = {
            t: ", ".join(f"{k}={v}" for k, v in o.items()) for t, o in method.transforms.items()
        }
        transforms = ", ".join(f"`{t}`" + (f" ({o})" if o else "") for t, o in changed.items())
        yield f"| `{name}` | `{method.base}` | {transforms} | {method.paper} |"


def stage_table() -> Iterator[str]:
    """What every name of a second stage stands for."""
    yield from ("| second stage | `retrain.method` | alone | source |", "|---|---|---|---|")
    for name, stage in STAGES.items():
        alone = f"`{ALIASES[name]}`" if name in ALIASES else ""
        yield f"| `{name}` | `{stage.kind}` | {alone} | {stage.paper} |"


def config_page() -> str:
    """The whole page, in MyST Markdown."""
    lines = [HEAD.format()]
    for group, title in TITLES.items():
        lines += [f"## {title}", "", *table(group), ""]
        if group == "objective":
            lines += ["### Options of transforms", "", "Every one has `start_epoch` too.", ""]
            lines += [*factory_table(TRANSFORMS, "objective.transforms.{}"), ""]
            lines += ["### Options of bases", "", "All are `objective.base_options.OPTION`.", ""]
            lines += [*factory_table(BASES, "{}"), ""]
            lines += ["### Names of methods", "", *method_table(), ""]
    for group in DIVISION:
        lines += [f"### `retrain.{group}`", "", *division_table(group), ""]
    lines += ["### Names of second stages", "", *stage_table(), ""]
    gcl = stage_fields("gcl")
    lines += [f"`gcl` has {gcl['epochs']} epochs, batches of {gcl['batch_size']} and its own"]
    lines += ["objective; see [GCL](../methods/gcl.md)."]
    return "\n".join(lines) + "\n"
