"""Figures of a report where there is little to draw, or what a font does not have."""

from pathlib import Path

import pytest
from compared_runs import several, summary

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


def _with_facts(found):
    found["data"] |= {"split_seed": 0, "total_train": 9}
    return found
