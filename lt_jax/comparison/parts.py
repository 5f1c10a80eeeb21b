"""What sections of a page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup


class Note(NamedTuple):
    """A sentence or two."""

    text: str
    kind: str = "note"


class Table(NamedTuple):
    """A table; the first cell of each row names it.

    Attributes:
      caption: what it is of.
      header: of the columns.
      rows: of text, or of `Markup`.
      sortable: whether its rows can be sorted by a column.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    sortable: bool = False
    kind: str = "table"


class Figure(NamedTuple):
    """Panels side by side, as far as there is room.

    Attributes:
      caption: what they show.
      panels: ``<svg>`` elements.
      legend: numbers in their group and names of the runs whose colours and markers are explained.
      paper: whether colours stay as they are in the dark scheme, on light ground.
    """

    caption: str
    panels: Sequence[Markup]
    legend: Sequence[tuple[int, str]] = ()
    paper: bool = False
    kind: str = "figure"


class Folded(NamedTuple):
    """What is shown when its title is chosen."""

    title: str
    parts: Sequence[Note | Table | Text]
    kind: str = "folded"


class Text(NamedTuple):
    """Text as it is, with its lines."""

    text: str
    kind: str = "text"


Part = Note | Table | Figure | Folded | Text


class Section(NamedTuple):
    """A section of a page, with its heading."""

    title: str
    parts: Sequence[Part]
