"""What autodoc shows of the package, put the way its docstrings are meant."""

from typing import Any

from flags import commands_as_code
from sphinx.application import Sphinx


def skip_fields(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Leaves out the fields of named tuples, which the docstrings of their classes describe."""
    return skip or type(obj).__name__ == "_tuplegetter"


def mark_commands(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Commands in the docstrings of configs become code."""
    if what == "module":
        lines[:] = commands_as_code(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", mark_commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
