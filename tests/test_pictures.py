"""Axes of pictures can be read, whatever the numbers on them."""

import itertools

import pytest

from lt_jax.pictures import log_scale, new_figure


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize(
    "ends",
    [(60, 60), (50, 55), (20, 60), (6, 60), (1, 60), (0.8, 70), (5, 4980), (3, 900_000)],
)
def test_labels_of_a_logarithmic_axis_do_not_overlap(ends, which):
    figure, axes = new_figure(1, 1, (4, 3.5))
    axes.plot(ends, ends, "o")
    log_scale(axes, which)
    figure.canvas.draw()
    low, high = getattr(axes, f"get_{which}lim")()
    axis = getattr(axes, f"{which}axis")
    shown = [
        (label.get_window_extent(), label.get_text(), place)
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if low <= place <= high
    ]
    assert len(shown) >= 2
    for _, text, place in shown:
        assert float(text.replace(",", "").replace("k", "e3")) == pytest.approx(place)
    boxes = [box for box, _, _ in shown]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not [label for label in axis.get_ticklabels(minor=True) if label.get_text()]
