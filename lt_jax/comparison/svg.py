"""Figures as SVG inside a page: its colours and its font, and names that nothing else has."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from lt_jax.pictures import MISSING_GLYPH, new_figure

# Told apart with any colour vision, in this order; the page has brighter ones for its dark scheme.
COLOURS = ("#0072b2", "#d55e00", "#008f68", "#aa4499", "#b07d00", "#4aa3d8", "#6b6b6b")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
SIZE = (4.8, 3.5)  # inches of one panel

# What pictures of runs are drawn with, as the page names it.
_OTHERS = {
    "#1f77b4": 0,
    "#ff7f0e": 1,
    "#2ca02c": 2,
    "#d62728": 3,
    "#9467bd": 4,
    "#8c564b": 5,
    "#7f7f7f": 6,
}
_VARIABLES = {
    **{colour: f"var(--c{i})" for i, colour in enumerate(COLOURS)},
    **{colour: f"var(--c{i})" for colour, i in _OTHERS.items()},
    "#000000": "currentColor",
    "#ffffff": "var(--page)",
    "#cccccc": "var(--line)",
    "#b0b0b0": "var(--line)",
}
_RC: dict[Any, Any] = {
    "svg.hashsalt": "lt_jax",  # or ids would differ from one time to the next
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#cccccc",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "font.size": 9.5,
}


def style_of(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the run of that number: no two of the first 42 are alike.

    Example:
      >>> style_of(1)["color"], style_of(1)["marker"], style_of(8)["marker"]
      ('#d55e00', 's', '^')
    """
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": (0, dashes) if dashes else "-",
    }


def panel(
    draw: Callable[..., None], alt: str, *, size: tuple[float, float] = SIZE, figure: bool = False
) -> Markup:
    """One panel, drawn and turned into markup.

    Args:
      draw: called with the axes, or with figure and axes.
      alt: what it shows, for those who cannot see it.
      size: in inches.
      figure: whether `draw` takes the figure too.

    Returns:
      An ``<svg>`` element.
    """
    import matplotlib

    with matplotlib.rc_context(_RC):
        made, axes = new_figure(1, 1, size)
        draw(*((made, axes) if figure else (axes,)))
        file = io.BytesIO()
        with warnings.catch_warnings():  # its text is drawn by the reader's font
            warnings.filterwarnings("ignore", MISSING_GLYPH)
            made.savefig(file, format="svg", transparent=True, dpi=144, metadata=_NO_METADATA)
    return inline(file.getvalue().decode(), alt)


_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_numbers = itertools.count(1)


def inline(text: str, alt: str) -> Markup:
    """An SVG document as an element of a page.

    Its ids get a prefix of its own, its colours become those of the page, its font the page's.

    Args:
      text: the document, as matplotlib writes it.
      alt: what it shows.

    Returns:
      The element.
    """
    prefix = f"f{next(_numbers)}-"
    text = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S
    )
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    text = re.sub(r'font: [^"]*?([\d.]+)px [^;"]+', r"font-size: \1px", text)
    text = re.sub(r'font-family: [^;"]+;? ?', "", text)  # as matplotlib 3.11 writes it
    text = re.sub(
        r"\b(fill|stroke): (#[0-9a-f]{6})",
        lambda m: f"{m[1]}: {_VARIABLES.get(m[2], m[2])}",
        text,
    )
    opening, _, rest = text.partition(">")
    box = re.search(r'viewBox="[^"]*"', opening)
    own = Markup('<svg role="img" aria-label="{}" {}>').format(alt, Markup(box[0] if box else ""))
    # What is inside has been escaped by matplotlib.
    return own + Markup(re.sub(r"\s*\n\s*", "\n", rest))


def swatch(number: int) -> Markup:
    """A short line with the marker of a run, for a legend."""
    style, dashes = style_of(number), DASHES[number // len(COLOURS) % len(DASHES)]
    return Markup(
        '<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true" style="color: var(--c{})">'
        '<path d="M1 6H33" fill="none" stroke="currentColor" stroke-width="2"'
        ' stroke-dasharray="{}"/><path d="{}" fill="currentColor"/></svg>'
    ).format(
        number % len(COLOURS),
        " ".join(str(1.6 * d) for d in dashes) or "none",
        _OUTLINES[style["marker"]],
    )


_OUTLINES = {
    "o": "M13 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M13.5 2.5h7v7h-7z",
    "^": "M17 1.5l4.5 8.5h-9z",
    "D": "M17 1l5 5l-5 5l-5 -5z",
    "v": "M17 10.5l4.5 -8.5h-9z",
    "P": "M15.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
}
