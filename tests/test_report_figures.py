"""Figures of a report where there is little to draw, or what a font does not have."""

import warnings
from pathlib import Path

import pytest
from compared_runs import several, single, summary

from lt_jax.comparison import Finished, Group, page
from lt_jax.tables import write_tables


def group_of(*summaries):
    runs = tuple(Finished(s["name"], Path(s["name"]), s) for s in summaries)
    return Group(runs, runs[0])


def unlabelled(name):
    """A run whose test split has no positive label."""
    scores = several(0.5) | {"of1_tuned": None, "per_class_ap": [None] * 2}
    scores |= dict.fromkeys(("map", "recall_rarest", "precision_head")) | {
        "per_class_recall": [None] * 2
    }
    return summary(name, [scores, scores | {"of1": 0.6}], multi_label=True)


def test_runs_without_a_test_label_have_a_report():
    text = page([group_of(unlabelled("sigmoid"), unlabelled("plm"))])
    assert "against training" not in text
    assert "mAP of every run" not in text
    assert "Test recall of each class against" not in text
    assert "Reliability diagram" in text  # of what there is


@pytest.mark.parametrize("baseline", [0, 1])
def test_a_run_without_the_score_leaves_the_others_their_figures(baseline):
    scored = summary("sigmoid", [several(0.3), several(0.4)], multi_label=True)
    group = group_of(scored, unlabelled("plm"))
    text = page([group._replace(baseline=group.runs[baseline])])
    assert "mAP of every run" in text
    assert "Test recall of each class against" in text


def test_tables_name_the_score_that_is_compared(tmp_path):
    """Which is not mAP where there is none."""
    write_tables([_with_facts(unlabelled(name)) for name in ("sigmoid", "plm")], tmp_path)
    header = (tmp_path / "table.md").read_text().splitlines()[0]
    assert header.endswith("| OF1 against the first |")


def test_names_in_any_script_are_no_matter_of_the_font_here():
    """The text of a page is drawn by the reader's fonts."""
    run = summary("日本", [single(0.5), single(0.6)])
    run["data"]["class_names"] = ["犬", "猫"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = page([group_of(run)])
    assert "DejaVu" not in text
    assert "犬" in text[text.index('aria-label="Confusion of') :]


def test_a_class_without_test_images_is_said_to_be_grey():
    confusion = {"confusion": [[3, 1], [0, 0]], "per_class": [0.75, None]}
    text = page([group_of(summary("a", [single(0.5) | confusion]))])
    assert "per cent went where; a class without is grey" in text


def _with_facts(found):
    found["data"] |= {"split_seed": 0, "total_train": 9}
    return found
