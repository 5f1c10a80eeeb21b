"""Axes of pictures can be read, whatever the numbers on them."""

import itertools

import pytest

from lt_jax.pictures import dispensable, literal, log_scale, new_figure, write_figure


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


@pytest.mark.parametrize("name", ["loss_$1_vs_$2", "a$_$b", "costs $", r"\\frac{"])
def test_names_are_written_as_they_are(name, tmp_path):
    """Between two dollars stands mathematics for matplotlib, which here is none."""
    figure, axes = new_figure(1, 1, (4, 3))
    figure.suptitle(literal(name))
    axes.plot([0, 1], [0, 1], label=literal(name))
    axes.set_yticks([0], [literal(name)])
    axes.legend()
    write_figure(figure, tmp_path / "a.png")
    assert figure.texts[0].get_window_extent().width > 20


def test_a_picture_that_cannot_be_drawn_is_told(capsys):
    """What it is of has been trained and saved."""
    with dispensable():
        raise ValueError("unknown symbol")
    assert "a picture is missing: ValueError('unknown symbol')" in capsys.readouterr().err
