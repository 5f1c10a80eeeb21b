"""Axes of pictures that can be read: whole numbers, logarithms without clutter, legends beside."""

from __future__ import annotations

from typing import Any


def log_scale(axes: Any, which: str) -> None:
    """Makes an axis logarithmic, with plain numbers that do not overlap; after what is drawn.

    Matplotlib labels every tick of an axis that spans less than a decade, each as ``2 x 10^2``.

    Args:
      axes: of matplotlib.
      which: ``"x"`` or ``"y"``.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    low, high = getattr(axes, f"get_{which}lim")()
    labelled = ((10, (1, 2, 3, 5, 7)), (100, (1, 2, 5)), (1000, (1, 3)))
    steps = next((steps for span, steps in labelled if high < span * low), (1,))
    axis.set_major_locator(MaxNLocator(5) if high < 3 * low else LogLocator(subs=steps))
    axis.set_major_formatter(
        FuncFormatter(lambda n, _: f"{n / 1000:,g}k" if n >= 10_000 else f"{n:,g}")
    )
    axis.set_minor_formatter(NullFormatter())


def whole_numbers(*axes: Any) -> None:
    """Ticks of these axes, as ``axes.xaxis`` of matplotlib, are at whole numbers: of classes."""
    for axis in axes:
        axis.get_major_locator().set_params(integer=True)


def legend_above(axes: Any, columns: int = 3) -> None:
    """A legend between title and axes, after the title has been set: inside it would hide data."""
    rows = -(-len(axes.get_legend_handles_labels()[0]) // columns)
    axes.legend(
        fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=columns,
        frameon=False,
        borderaxespad=0.1,
    )
    axes.set_title(axes.get_title(), pad=8 + 13 * rows)
