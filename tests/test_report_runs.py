"""Which runs a report is of: sweeps, groups on the same data, names; folders that are refused."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import json
from pathlib import Path

import pytest
from compared_runs import (  # noqa: F401 (a fixture)
    CE,
    EVIL,
    runs,
    several,
    single,
    summary,
    write,
)
from markupsafe import Markup

from lt_jax import comparison
from lt_jax.comparison import curves, figures, grouped, read_runs, write_report
from lt_jax.errors import InputError


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time of a page."""
    for module in (figures, curves, comparison.scores):
        monkeypatch.setattr(module, "panel", lambda *_, **__: Markup())


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


def test_names_are_unique(tmp_path, monkeypatch):
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
    monkeypatch.chdir(tmp_path / "x")
    (tmp_path / "link").symlink_to(tmp_path / "y")
    ways = ("../y/ce", "./../y/ce/", f"{tmp_path}/y/ce", "../link/ce", "y/ce")
    for way in ways:
        assert grouped(found, way)[0].baseline.path == tmp_path / "y/ce", way
    assert grouped(found, "./ce")[0].baseline.path == tmp_path / "x/ce"
    with pytest.raises(InputError, match="baseline is 'z/ce'; expected one of"):
        grouped(found, "z/ce")


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
        (["sweep"], {}, "no run in .*sweep has finished"),
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


def test_a_table_that_still_grows_is_reported_without_what_has_not_finished(tmp_path, capsys):
    """Which the page says, as it may be sent to others."""
    write(tmp_path / "done", summary("ce", [single(0.5)]))
    write(tmp_path / "running", None)
    write(tmp_path / "seeds_1" / "done", summary("ce", [single(0.7)], seeds=[1]))
    write(tmp_path / "seeds_1" / "other", None)
    text = write_report([tmp_path], tmp_path / "report.html").read_text()
    note, told = text[text.index("Left out, as they had no test") :], capsys.readouterr().err
    for path in (tmp_path / "running", tmp_path / "seeds_1" / "other"):
        assert f"<code>{path}</code>" in note
        assert str(path) in told
    write(tmp_path / "more" / "done", summary("ce", [single(0.5)]))
    (tmp_path / "more" / "seeds_1-2").mkdir()  # whose first run has not begun
    assert len(read_runs([tmp_path / "more"])) == 1
    write(tmp_path / "begun" / "done", summary("ce", [single(0.5)]))
    write(tmp_path / "begun" / "seeds_1" / "done", None)
    assert len(read_runs([tmp_path / "begun"])) == 1
    assert "Left out" not in write_report([tmp_path / "more"], tmp_path / "b.html").read_text()
