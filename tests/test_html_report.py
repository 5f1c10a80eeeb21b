"""The page of a report: its numbers against SciPy, its HTML by a parser, what it must not load."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from compared_runs import CE, CRT, EVIL, PLM, runs  # noqa: F401 (a fixture)
from scipy import stats

from lt_jax.comparison import write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture(scope="module")
def text(runs):
    """The page of both."""
    path = write_report(runs, runs[0].parent / "report.html")
    return path.read_text()


class Reader(HTMLParser):
    """What a page is made of; every element has to be closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.rows = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def having(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    def tags(self, *names):
        return [attrs for tag, attrs in self.elements if tag in names]


# Numbers.


def test_differences_are_those_of_scipy(text):
    """Paired tests of both runs to the baseline, corrected by hand for two comparisons."""
    rows = [row for row in Reader(text).rows if row[1:2] == ["balanced accuracy"]]
    tests = {EVIL: stats.ttest_rel(PLM, CE), "crt": stats.ttest_rel(CRT, CE)}
    smaller, larger = sorted(tests, key=lambda name: tests[name].pvalue)
    corrected = {smaller: 2 * tests[smaller].pvalue}
    corrected[larger] = max(corrected[smaller], tests[larger].pvalue)
    assert corrected[EVIL] < 0.05 < corrected["crt"]  # one of each kind
    expected = []
    for name, values in ((EVIL, PLM), ("crt", CRT)):
        low, high = tests[name].confidence_interval(0.95)
        mean = np.mean(np.subtract(values, CE))
        mark = " *" if corrected[name] < 0.05 else ""
        difference = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]{mark}"
        p = [f"{tests[name].pvalue:.3f}", f"{corrected[name]:.3f}"]
        expected.append([name, "balanced accuracy", difference, "4", *p])
    assert rows == expected


def test_scores_are_mean_and_sample_deviation(text):
    row = next(row for row in Reader(text).rows if row[:2] == ["cross_entropy", "4"])
    mean = f"{100 * np.mean(CE):.1f} ± {100 * np.std(CE, ddof=1):.1f}"
    assert row[2:] == [mean, mean, "100.0 ± 0.0", mean, "-", "10.0 ± 0.0"]


# The page.


def test_the_page_is_well_formed(text):
    """Closed elements, ids used once, links that lead somewhere, headings in order."""
    assert text.lstrip().startswith("<!DOCTYPE html>")
    page = Reader(text)
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    inner = [h[1:] for h in page.having("href") if h.startswith("#")]
    assert inner
    assert set(inner) <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1


def test_nothing_is_loaded(text):
    """No element and no style names an address outside of the page, and none may be asked for."""
    page = Reader(text)
    for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
        assert all(v.startswith(("#", "data:")) for v in page.having(name)), name
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", text))
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert {tag for tag, _ in page.elements}.isdisjoint(
        {"iframe", "object", "embed", "img", "base"}
    )
    policy = next(a["content"] for a in page.tags("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_names_are_text_and_nothing_else(text):
    page = Reader(text)
    assert len(page.tags("script")) == 1
    assert page.tags("b") == []  # of a class's name
    assert {EVIL, "<b>zero</b>"} <= {row[0] for row in page.rows}
    assert "alert('x')</script>" not in text


def test_figures_and_tables_say_what_they_show(text):
    page = Reader(text)
    figures_ = [a for a in page.tags("svg") if a.get("aria-hidden") != "true"]
    assert len(figures_) >= 12
    assert all(a["role"] == "img" and a["aria-label"] for a in figures_)
    assert len(page.tags("caption")) == len(page.tags("table"))
    assert len(page.tags("figcaption")) == len(page.tags("figure"))


def test_what_runs_lack_is_said(text):
    """The run with masks has no bins and no confusion; only it has curves and ratios."""
    assert "No bins of confidence were kept of &lt;script&gt;" in text
    assert text.count('aria-label="Confusion of') == 2
    assert "No curves by epoch of the last stage of cross_entropy, crt." in text
    assert (
        'aria-label="&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&#34;$x^$: ideal' in text
    )


def test_only_fields_that_differ_are_in_the_table_of_fields(text):
    rows = Reader(text).rows
    start = rows.index(["field", "cross_entropy", EVIL, "crt"])
    assert rows[start + 1] == ["objective.base", "softmax", "sigmoid", "softmax"]
    assert rows[start + 2][0] == "method"  # of the next table
    assert "train.epochs" not in {row[0] for row in rows}
