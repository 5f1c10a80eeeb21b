r"""Formulas as MathML, which browsers draw themselves: no JavaScript, no fonts, no network.

The converter is that of docutils, which Sphinx brings along. MathJax would have to be fetched from
a server by each reader, or be carried in the repository.
"""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

# The converter takes the index of an accented letter for a limit, and would put it underneath.
ACCENT_WITH_INDEX = re.compile(r"(\\(?:hat|tilde|bar)\s*(?:\{\w+\}|\w))\s*_")
SIZES = re.compile(r"\\(?:big|Big|bigg|Bigg)[lr]?(?![a-zA-Z])")  # brackets grow by themselves
# Browsers leave no room after "log" unless told, and much around bars.
APPLIED = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()")
ACCENTS = str.maketrans("ˆˉ", "^¯")  # in fonts without these as accents they overlap the letter
BAR = re.compile(r"<mo[^>]*>([|‖])</mo>")


def to_mathml(tex: str, *, block: bool = False) -> str:
    """MathML of a formula in LaTeX."""
    made = tex2mathml(ACCENT_WITH_INDEX.sub(r"\1{}_", SIZES.sub("", tex)), as_block=block)
    made = BAR.sub(r'<mo lspace="0" rspace="0" stretchy="false">\1</mo>', made)
    made = made.translate(ACCENTS)
    return APPLIED.sub('<mspace width="0.17em"></mspace>', made)


def written(self: Any, node: nodes.Element, *, block: bool = False) -> str:
    """The formula of a node; one that cannot be converted is shown as it is, with a warning."""
    try:
        return to_mathml(node.astext(), block=block)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return f"<code>{self.encode(node.astext())}</code>"


def visit_inline(self: Any, node: nodes.math) -> None:
    """Writes a formula in a line."""
    self.body.append(written(self, node))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """Writes a formula of its own; a wide one can be scrolled."""
    self.body.append(f'<div class="math-block">{written(self, node, block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
