"""The directive ``script``: what a launch script says of itself, and its flags."""

import ast
from pathlib import Path

from docutils import nodes
from flags import commands_as_code, flag_rows, flags_as_code
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]


class Script(SphinxDirective):
    """``.. script:: launch/train.py``: its docstring and a table of its flags."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parses RST made of the script."""
        path = ROOT / self.arguments[0]
        self.env.note_dependency(str(path))
        head, *text = ast.get_docstring(ast.parse(path.read_text())).splitlines()
        lines = [head, *text, "", ".. list-table::", "   :header-rows: 1", ""]
        for flag, default, meaning in (("flag", "default", "meaning"), *flag_rows(path)):
            name = flag if flag == "flag" else f"``--{flag}``"
            value = f"``{default}``" if default and flag != "flag" else default
            lines += [f"   * - {name}", f"     - {value}", f"     - {flags_as_code(meaning)}"]
        return self.parse_text_to_nodes("\n".join(commands_as_code(lines)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("script", Script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
