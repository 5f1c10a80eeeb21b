"""The report of runs: its numbers against SciPy, its HTML by a parser, what it must not load."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from scipy import stats

from lt_jax import comparison, metrics, summaries
from lt_jax.comparison import curves, figures, grouped, holm, paired_test, read_runs, write_report
from lt_jax.comparison.svg import style_of
from lt_jax.errors import InputError

COUNTS = [50, 5]
EVIL = "<script>alert('x')</script>&\"$x^$"
CE, PLM, CRT = [0.50, 0.61, 0.55, 0.58], [0.55, 0.70, 0.59, 0.66], [0.52, 0.60, 0.57, 0.59]
VOID = {"meta", "link", "br", "img", "input", "hr"}


def single(accuracy, *, bins=True):
    """Scores of one seed of a run with one label an example."""
    found = {
        **dict.fromkeys(("top1", "balanced_accuracy", "medium"), accuracy),
        **{"many": 1.0, "few": None, "ece": 0.1, "nll": 0.5},
        "per_class": [1.0, accuracy],
        "confusion": [[5, 0], [1, 4]],
    }
    if bins:
        found["calibration"] = metrics.calibration_bins([0, 4, 6], [0, 2, 6], [0.0, 2.0, 5.4])
    return found


def several(value):
    """Scores of one seed of a run with several labels an example."""
    names = ("map", "map_head", "map_medium", "map_tail", "recall_rarest", "precision_head")
    scores = dict.fromkeys((*names, "cf1", "of1", "exact_match", "ece", "of1_tuned"), value)
    bins = metrics.calibration_bins([4, 6], [1, 5], [1.0, 5.4])
    return {**scores, "per_class_ap": [value] * 2, "per_class_recall": [1.0, value]} | {
        "calibration": bins
    }


def summary(name, replicas, seeds=None, *, multi_label=False, index_hash="a1", **changes):
    """A summary with what a report reads."""
    found = {
        "name": name,
        "finished": "2026-01-01T00:00:00Z",
        "command": f"python launch/train.py --config=x:{name}",
        "commit": "0123abc",
        "versions": {"jax": "0.10.2"},
        "hardware": {"cpu": "a processor", "device": "cpu"},
        "seeds": list(range(len(replicas))) if seeds is None else seeds,
        "test": {"last": summaries.aggregate(replicas)},
        "data": {
            "source": "digits",
            "class_counts": COUNTS,
            "class_names": ["<b>zero</b>", "one"],
            "index_hash": index_hash,
            "multi_label": multi_label,
        },
        "training": {"steps": 3},
        "config": {"name": name, "objective": {"base": "softmax"}, "train": {"epochs": 2}},
    }
    if multi_label:
        shown = ("map", "recall_rarest", "of1")
        found |= {"headline": "map", "columns": list(shown)}
    return found | changes


def write(folder, content, rows=()):
    """A run's folder; without a summary it has not finished."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": folder.name}))
    if content is not None:
        (folder / "summary.json").write_text(json.dumps(content))
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def metric_rows(seeds):
    """Rows of three epochs, with what masks remember."""
    rng = np.random.default_rng(0)
    for epoch in (1.0, 2.0, 3.0):
        row = {"step": int(3 * epoch), "epoch": epoch}
        loss = (rng.random(seeds) + 0.1).tolist()
        yield {**row, "split": "train", "loss": loss, "learning_rate": 0.1 / epoch}
        yield {**row, "split": "validation", "balanced_accuracy": rng.random(seeds).tolist()}
        names = ("ratio", "ideal_ratio", "divergence_positives", "divergence_negatives")
        masks = {name: (rng.random((seeds, 2)) + 0.1).tolist() for name in names}
        yield {**row, "split": "objective", **masks}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a sweep of three runs on the same data, and of one on other data."""
    folder = tmp_path_factory.mktemp("runs")
    sweep = folder / "sweep"
    plm = [single(a, bins=False) for a in PLM]
    for replica in plm:
        del replica["confusion"]
    config = {"name": EVIL, "objective": {"base": "sigmoid"}, "train": {"epochs": 2}}
    write(sweep / "a", summary(EVIL, plm, config=config), list(metric_rows(len(PLM))))
    write(sweep / "b", summary("cross_entropy", [single(a) for a in CE]))
    stage1 = {"name": "c_stage1", "test": {"last": summaries.aggregate([single(a) for a in CE])}}
    write(sweep / "c", summary("crt", [single(a) for a in CRT], stage1=stage1))
    write(sweep / "c_stage1", summary("c_stage1", [single(a) for a in CE]))
    (sweep / "table.csv").write_text(
        'method,seeds\ncross_entropy,4\n"{}",4\ncrt,4\n'.format(EVIL.replace('"', '""'))
    )
    write(folder / "multi", summary("sigmoid", [several(0.3), several(0.4)], multi_label=True))
    return sweep, folder / "multi"


@pytest.fixture(scope="module")
def text(runs):
    """The page of both."""
    path = write_report(runs, runs[0].parent / "report.html")
    return path.read_text()


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time of a page."""
    for module in (figures, curves, comparison.scores):
        monkeypatch.setattr(module, "panel", lambda *_, **__: Markup())


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


def test_only_common_seeds_are_paired():
    ours = summary("a", [single(a) for a in PLM], seeds=[3, 0, 1, 7])
    found = paired_test(ours, summary("b", [single(a) for a in CE]))
    expected = stats.ttest_rel(PLM[:3], [CE[3], CE[0], CE[1]])
    assert found.seeds == 3
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize(
    ("seeds", "values", "reason"),
    [
        ([7, 8], [0.1, 0.2], "no common seeds"),
        ([1, 9], [0.1, 0.2], "1 common seed: no"),
        ([0, 1], [CE[0] + 0.1, CE[1] + 0.1], "the same for all seeds"),
        ([0, 1], [None, 0.2], "not scored in both"),
    ],
)
def test_no_test_is_invented(seeds, values, reason):
    ours = summary("a", [single(v) for v in values], seeds=seeds)
    found = paired_test(ours, summary("b", [single(a) for a in CE]))
    assert found.p is found.low is found.high is None
    assert reason in found.reason


def test_holm_by_hand():
    """0.005 * 4, 0.01 * 3, 0.03 * 2; 0.04 * 1 may not be below the one before."""
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_reliability_is_of_all_seeds_together():
    """Against the predictions themselves, in float64; bins without any are left out."""
    rng = np.random.default_rng(0)
    confidence, hit = rng.uniform(0.4, 1, (2, 50)), rng.random((2, 50)) < 0.7
    index = (confidence * 10).astype(int)
    replicas = [
        {
            "calibration": metrics.calibration_bins(
                np.bincount(i, minlength=10),
                np.bincount(i, h, minlength=10),
                np.bincount(i, c, minlength=10),
            )
        }
        for i, h, c in zip(index, hit, confidence, strict=True)
    ]
    found = figures.reliability({"test": {"last": {"replicas": replicas}}})
    members = [index == b for b in range(4, 10)]
    expected = [[confidence[m].mean(), hit[m].mean(), m.mean()] for m in members]
    np.testing.assert_allclose(np.transpose(found), 100 * np.array(expected))


def test_classes_of_about_equal_frequency_are_drawn_together():
    counts = [*range(1, 38), 0]
    scores = np.linspace(0.9, 0.1, 38).tolist()
    scores[3] = None  # has no test images
    test = {"mean": {"per_class": scores}, "std": {"per_class": [None] * 38}}
    made = {"test": {"last": test}, "data": {"class_counts": counts}}
    x, y, deviation = figures.by_frequency(made, "per_class")
    assert len(x) == figures.FREQUENCIES
    assert deviation is None
    assert (np.diff(x) > 0).all()
    rarest = [scores[i] for i in (37, 0, 1, 2)]  # the first of 12 parts of 37 classes
    assert y[0] == pytest.approx(100 * np.mean(rarest))


def test_curves_are_mean_and_deviation_over_seeds():
    rows = list(metric_rows(3))
    found = curves.curve(rows, "train", "loss")
    loss = np.array([row["loss"] for row in rows if row["split"] == "train"])
    assert found.place.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found.mean, loss.mean(axis=1))
    np.testing.assert_allclose(found.deviation, loss.std(axis=1, ddof=1))
    long = [{"split": "train", "epoch": i / 10, "loss": [float(i)]} for i in range(1000)]
    thin = curves.curve(long, "train", "loss")
    assert len(thin.place) == curves.POINTS
    np.testing.assert_allclose(thin.mean, 10 * thin.place)
    assert curves.curve(rows, "train", "accuracy") is None


def test_runs_are_told_apart_without_colours():
    styles = [tuple(style_of(i).items()) for i in range(42)]
    assert len(set(styles)) == 42
    assert len({(s["marker"], s["linestyle"]) for s in map(style_of, range(6))}) == 6


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


# Which runs.


def test_a_sweep_is_its_rows_in_order(runs):
    """Without the first stage that is no row."""
    assert [run.name for run in read_runs([runs[0], runs[0] / "a"])] == [
        "cross_entropy",
        EVIL,
        "crt",
    ]


def test_runs_on_other_data_have_groups_of_their_own(tmp_path, no_figures):
    for name, hash_ in (("a", "1"), ("b", "1"), ("c", "2"), ("d", "2")):
        method = "gcl" if name in "bd" else "ce"
        content = summary(method, [single(a) for a in CE], index_hash=hash_)
        write(tmp_path / name, content)
    multi = [several(0.1), several(0.2)]
    write(tmp_path / "e", summary("ce", multi, multi_label=True, index_hash="1"))
    found = read_runs(tmp_path / name for name in "abcde")
    groups = grouped(found, "gcl")
    assert [[run.path.name for run in g.runs] for g in groups] == [["a", "b"], ["c", "d"], ["e"]]
    assert [g.baseline.path.name for g in groups] == ["b", "d", "e"]  # or the first
    assert "no comparison" in comparison.page(groups)


def test_older_runs_are_compared_as_far_as_they_noted_their_data():
    """Earlier versions had no hash of the test images."""
    old = summary("a", [single(a) for a in CE])
    new, other = (json.loads(json.dumps(old)) for _ in range(2))
    new["data"]["test_hash"], other["data"]["test_hash"] = "1", "2"
    made = [comparison.Finished("a", Path(str(i)), s) for i, s in enumerate((new, old, other))]
    assert [len(group.runs) for group in grouped(made)] == [2, 1]


def test_names_are_unique(tmp_path):
    for folder in ("x/ce", "x/b", "y/ce"):
        write(tmp_path / folder, summary("ce", [single(a) for a in CE]))
    found = read_runs(tmp_path / folder for folder in ("x/ce", "x/b", "y/ce"))
    (group,) = grouped(found)
    assert [run.name for run in group.runs] == [
        f"ce ({tmp_path}/x/ce)",
        "ce (b)",
        f"ce ({tmp_path}/y/ce)",
    ]
    with pytest.raises(InputError, match="'ce' is the name of several runs"):
        grouped(found, "ce")
    assert grouped(found, "b")[0].baseline.path == tmp_path / "x/b"


def test_a_file_with_a_summary_will_do(tmp_path, no_figures):
    """And a folder of such, as in results/."""
    (tmp_path / "a.json").write_text(json.dumps(summary("ce", [single(0.5, bins=False)])))
    page = comparison.page(grouped(read_runs([tmp_path])))
    assert "No bins of confidence were kept of any run here" in page
    assert "Differences to" not in page


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "no WORKDIR was given"),
        (["done", "missing"], {}, "workdir .*missing does not exist"),
        (["done", "unfinished"], {}, "unfinished has not finished"),
        (["sweep"], {}, "unfinished has not finished"),
        (["tuned"], {}, "compared values on validation and has no test scores"),
        (["empty"], {}, "holds no run"),
        (["other"], {}, "other/summary.json is not the summary of a finished run"),
        (["damaged"], {}, "cannot be read as the summary"),
        (["done"], {"baseline": "gcl"}, "baseline is 'gcl'; expected one of ce"),
        (["done"], {"out": "summary.json"}, "ends with .html"),
        (["done"], {"out": "no/such/report.html"}, "a folder that exists"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(names, options, message, tmp_path):
    write(tmp_path / "done", summary("ce", [single(0.5)]))
    write(tmp_path / "unfinished", None)
    write(tmp_path / "sweep" / "done", summary("ce", [single(0.5)]))
    write(tmp_path / "sweep" / "unfinished", None)
    write(tmp_path / "other", {"rows": [1]})
    write(tmp_path / "damaged", None)
    (tmp_path / "damaged" / "summary.json").write_text("{")
    write(tmp_path / "tuned", None)
    (tmp_path / "tuned" / "tuning.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.html").write_text("an earlier one")
    out = tmp_path / options.pop("out", "report.html")
    with pytest.raises(InputError, match=message) as raised:
        write_report([tmp_path / name for name in names], out, **options)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "report.html").read_text() == "an earlier one"
    assert out.name == "report.html" or not out.exists()
