"""What launch scripts say of themselves, read from their source; needs no Sphinx."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

FLAG = re.compile(r"(?<![`\w-])(--\w+(?:[.=]\w+)*)")
COMMANDS = ("    python ", "    pip ", "    sbatch ")
NO_DEFAULT = {"None": "", "''": "", "[]": ""}


def flags_of(source: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of every flag that a script defines."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr.startswith("DEFINE_") and node.func.attr != "DEFINE_config_file":
            name, default, *rest = (ast.unparse(arg) for arg in node.args)
            yield name.strip("'"), NO_DEFAULT.get(default, default), ast.literal_eval(rest[-1])


def flag_rows(path: Path) -> list[tuple[str, str, str]]:
    """Flags of a script, with those that `config_flag` or `run_with_config` of the cli gives it."""
    source = path.read_text()
    rows = list(flags_of(source))
    if "run_with_config" in source:
        rows.insert(0, ("workdir", "", "Folder of the run."))
    if "run_with_config" in source or "config_flag(" in source:
        rows.insert(0, ("config", "", "FILE[:STRING]; ``--config.FIELD=VALUE`` changes a field."))
    return rows


def flags_as_code(text: str) -> str:
    """Flags that a text names become code, or their hyphens would be joined."""
    return FLAG.sub(r"``\1``", text)


def commands_as_code(lines: list[str]) -> list[str]:
    """Indented commands become code blocks, and flags in the text code."""
    made: list[str] = []
    for line in lines:
        line = f"    {line}" if line.startswith(COMMANDS[0].lstrip()) else line
        before = made[-1] if made else ""
        last = next((text for text in reversed(made) if text.strip()), "")
        if line.startswith(COMMANDS) and not before.strip() and not last.endswith("::"):
            made += [".. code-block:: bash", ""]
        made.append(line if line.startswith("    ") else flags_as_code(line))
    return made
