"""Pictures can be read, whatever the numbers on them; legends hide nothing."""

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from compared_runs import single, summary

from lt_jax import pictures
from lt_jax.dividing_pictures import division_panels
from lt_jax.picture_axes import log_scale
from lt_jax.pictures import dispensable, literal, new_figure, write_figure

RESULTS = Path(__file__).parent.parent / "results"


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


def test_characters_that_the_font_lacks_are_told_once(tmp_path, capsys):
    pictures._tell_missing_glyphs.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("日本", "中文"):
            figure, axes = new_figure(1, 1, (4, 3))
            axes.set_title(name)
            write_figure(figure, tmp_path / "a.png")
    assert capsys.readouterr().err.count("lacks characters") == 1


def test_other_warnings_of_a_picture_are_not_lost(tmp_path):
    class Figure:
        def savefig(self, file, **_):
            file.write(b"a")
            warnings.warn("tight layout not applied", stacklevel=1)

    with pytest.warns(UserWarning, match="tight layout"):
        write_figure(Figure(), tmp_path / "a.png")


def test_a_picture_that_cannot_be_drawn_is_told(capsys):
    """What it is of has been trained and saved."""
    with dispensable():
        raise ValueError("unknown symbol")
    assert "a picture is missing: ValueError('unknown symbol')" in capsys.readouterr().err


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been written, laid out."""
    figures = []

    def keep(figure, path):
        figure.canvas.draw()
        figures.append(figure)

    monkeypatch.setattr(pictures, "write_figure", keep)
    return figures


def run_of(name, counts, per_class, confusion=None):
    """A run without metrics: its curves are not looked at."""
    scores = single(0.5) | {"per_class": per_class, "confusion": confusion}
    found = summary(name, [scores, scores], retrain={"knob": KNOB})
    found["data"]["class_counts"] = counts
    return found


KNOB = {"name": "tau", "values": [0.0, 1.0], "validation_balanced_accuracy": None}


def inside_ticks(axis):
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_ticklocs() if low <= tick <= high]


@pytest.mark.parametrize("classes", [2, 3, 13])
def test_classes_are_whole_numbers(classes, drawn):
    """On the axes of class counts and confusion; each bar in full, the rarest's too."""
    counts = list(range(classes + 2, 2, -1))
    confusion = np.eye(classes, dtype=int).tolist()
    run = run_of("a", counts, [0.5] * classes, confusion)
    pictures.save_picture(run, Path("none"), Path("none"))
    bars, _, _, last = drawn[0].axes[:4]
    for axis in (bars.xaxis, last.xaxis, last.yaxis):
        assert len(inside_ticks(axis)) >= 2
        assert all(tick == round(tick) for tick in inside_ticks(axis))
    assert bars.get_xlim() == (-0.5, classes - 0.5)
    assert bars.get_ylim()[0] < counts[-1] < counts[0] < bars.get_ylim()[1]


def test_classes_that_nothing_has_in_training_have_a_picture(drawn):
    """As of several labels, where no example has any."""
    pictures.save_picture(run_of("a", [0, 0], [0.5, 0.5], np.eye(2)), Path("none"), Path("none"))
    assert len(drawn) == 1


def test_a_class_without_test_images_has_no_zeros(drawn):
    """Two seeds; the second class has images in none."""
    run = run_of("a", [9, 3, 2], [0.5, None, 1.0], [[3, 1, 0], [0, 0, 0], [0, 0, 2]])
    pictures.save_picture(run, Path("none"), Path("none"))
    last = drawn[0].axes[3]
    shown = last.images[0].get_array()
    np.testing.assert_array_equal(shown.mask[:, 0], [False, True, False])
    np.testing.assert_allclose(shown[[0, 2]], [[0.75, 0.25, 0], [0, 0, 1]])
    grey = last.images[0].to_rgba(shown)[1, 0]
    assert grey[0] == grey[1] == grey[2]
    assert "grey: no test images" in last.get_title()


def test_legends_hide_nothing(drawn):
    runs = [run_of(f"method_{i}", [9, 3, 2], [0.01 * i] * 3, np.eye(3)) for i in range(4)]
    pictures.save_picture(runs[0], Path("none"), Path("none"))
    pictures.save_comparison(runs, Path("none"))
    for figure in drawn:
        legends = [axes for axes in figure.axes if axes.get_legend()]
        assert len(legends) == 1
        for axes in legends:
            box = axes.get_legend().get_window_extent()
            assert not box.overlaps(axes.get_window_extent())
            assert not box.overlaps(axes.title.get_window_extent())
            assert figure.bbox.containsx(box.x0)
            assert figure.bbox.containsx(box.x1)


def test_a_comparison_goes_from_head_to_tail(drawn):
    """Whatever the order of the labels; ties stay in theirs."""
    pictures.save_comparison([run_of("a", [5, 50, 5, 90], [0.1, 0.2, 0.3, 0.4])], Path("none"))
    lines = drawn[0].axes[1]
    assert lines.lines[0].get_ydata().tolist() == [0.4, 0.2, 0.1, 0.3]
    assert [t.get_text() for t in lines.get_xticklabels()] == [
        "3\n(90)",
        "1\n(50)",
        "0\n(5)",
        "2\n(5)",
    ]
    assert "most frequent" in lines.get_xlabel()


def test_many_methods_are_told_apart(drawn):
    pictures.save_comparison([run_of(f"m{i}", [5, 3], [0.1, 0.2]) for i in range(25)], Path("none"))
    _, lines = drawn[0].axes
    for look in ("get_marker", "get_linestyle"):
        looks = {(line.get_color(), getattr(line, look)()) for line in lines.lines}
        assert len(looks) == 25


def test_a_score_that_no_run_has_takes_no_room(drawn):
    pictures.save_comparison([run_of("a", [5, 3], [0.1, 0.2])], Path("none"))  # few is None
    names = [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()]
    assert names == ["balanced\naccuracy", "many", "medium"]


def test_legends_of_a_division_are_above_its_panels():
    run = json.loads((RESULTS / "dlsa_fashion_pixels/fashion_pixels_dlsa.json").read_text())
    for draw in division_panels(run, None).values():
        figure, axes = new_figure(1, 1, (4.8, 3.5))  # as in a report
        draw(axes)
        figure.canvas.draw()
        box, title = axes.get_legend().get_window_extent(), axes.title.get_window_extent()
        assert axes.get_window_extent().y1 <= box.y0
        assert box.y1 <= title.y0 + 1
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
