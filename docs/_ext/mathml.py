r"""Formulas as MathML, which browsers draw themselves: no JavaScript, no fonts, no network.

The converter is that of docutils, which Sphinx brings along. MathJax would have to be fetched from
a server by each reader, or be carried in the repository.
"""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

# The converter takes the index of an accented letter for a limit, and would put it underneath.
ACCENT_WITH_INDEX = re.compile(r"(\\(?:hat|tilde|bar)\s*(?:\{\w+\}|\w))\s*_")
# Browsers leave no room after "log" unless told, and much around bars that are not known as such.
APPLIED = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()")
BARS = (('<mo class="mathopen">', '<mo form="prefix">'), ("<mo>|", '<mo form="postfix">|'))


def to_mathml(tex: str, *, block: bool = False) -> str:
    """MathML of a formula in LaTeX."""
    made = tex2mathml(ACCENT_WITH_INDEX.sub(r"\1{}_", tex), as_block=block)
    for known_as, form in BARS:
        made = made.replace(known_as, form)
    return APPLIED.sub('<mspace width="0.17em"></mspace>', made)


def visit_inline(self: Any, node: nodes.math) -> None:
    """Writes a formula in a line."""
    self.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """Writes a formula of its own; a wide one can be scrolled."""
    self.body.append(f'<div class="math-block">{to_mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
