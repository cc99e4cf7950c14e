"""The parts of a report in the metadata: the renderer in JupyterLab loses nothing of what the HTML shows."""

import json
import re

import pytest

from jupyter_gpt.report import charts, parts
from jupyter_gpt.report.json import FORMAT, encoded, whole
from jupyter_gpt.report.parts import (
    Alarm,
    Bar,
    Boxes,
    Chart,
    Curves,
    Figures,
    Folded,
    Paragraph,
    Samples,
    Span,
    Table,
    Tree,
    Varies,
)
from jupyter_gpt.report.report import MIME, Report

EVIL = '<img src=x onerror="alert(1)">«$x$»\x1b'
PANEL = charts.Panel("loss", [(0, 2.5), (1, 2.0), (2, 1.5)], [(2, 1.75)], [(2, 1.5, 2.0)], 3.0, ("a", "b"), False)
OTHER = charts.Panel("rate", [(1, 0.5)])
NODE = Tree("root", [Paragraph("in")], [Tree("one", opened=False), Tree("two", quiet=True)])
CASES = {
    "paragraph": Paragraph(["a ", Varies(0.5), 1234, None, Span(EVIL, "bold quiet", "rgba(1,2,3,0.2)", EVIL)], "block"),
    "numbers": Paragraph([Varies(1234.5, 0), Varies(7), Varies(7, 2), Varies(None), Varies(float("nan")), 2**60]),
    "figures": Figures([("loss", Varies(0.25, 2)), (EVIL, EVIL)]),
    "table": Table(("name", EVIL), [(EVIL, Varies(1.0)), ("", "")], "lr", True),
    "headless": Table((), [("a", "b")]),
    "samples": Samples(("before", ["step ", Varies(3)]), [(EVIL, (Varies("x"), "y"))]),
    "boxes": Boxes([("a", "12", "rgba(1,2,3,0.3)", EVIL), None, (EVIL, "", "", "")]),
    "bar": Paragraph(["free ", Bar([(0.25, "red", EVIL), (0.25, "blue", "kept")], 90, 8)]),
    "alarm": Alarm(["step ", Varies(3)]),
    "folded": Folded(EVIL, [Paragraph("inside"), Folded("deeper", [], True)]),
    "tree": NODE,
    "curves": Curves([PANEL, OTHER], ["loss ", Varies(1.5)], [1], 500),
    "markdown": Paragraph(["a", Varies(parts.Markdown("- *b*\n- `c`"))]),
    "varies": Varies([Paragraph("a"), Varies([Table((), [("x", Varies("y"))])])]),
}


def decoded(value):
    """Parts and inline content again."""
    match value:
        case list():
            return [decoded(each) for each in value]
        case {"kind": "curves", **held}:
            points = [list(zip(held["steps"], column, strict=True)) for column in held["columns"]]
            panels = [
                charts.Panel(
                    each["title"],
                    [point for point in own if point[1] is not None],
                    [tuple(row[:2]) for row in each["evaluated"]],
                    [(row[0], *row[2:]) for row in each["evaluated"] if row[2:]],
                    each["limit"],
                    tuple(each["names"]),
                    each["smoothed"],
                )
                for each, own in zip(held["panels"], points, strict=True)
            ]
            return Curves(panels, held["alt"], held["alarms"], held["width"])
        case {"kind": "markdown", "text": text}:
            return parts.Markdown(text)
        case {"kind": kind, **held}:
            made = {name: decoded(each) for name, each in held.items()}
            return getattr(parts, kind.title())(**made)
        case {"value": number, "text": text}:
            assert isinstance(number, int | float)
            return text
    return value


def flat(found: list) -> list:
    """Parts without the lists that stand for what varies."""
    return [part for each in found for part in (flat(each) if isinstance(each, list) else [each])]


def seen(report: Report) -> str:
    return re.sub("<!--.*?-->", "", report.html)


@pytest.mark.parametrize("part", CASES.values(), ids=CASES)
def test_what_the_parts_hold_is_what_the_html_shows(part):
    report = Report(["run ", Varies("a")], [part])
    held = json.loads(json.dumps(report._repr_mimebundle_()[1][MIME]["parts"], allow_nan=False))
    assert held["format"] == FORMAT
    assert seen(Report(decoded(held["title"]), flat(decoded(held["parts"])))) == seen(report)


def test_a_chart_has_its_numbers_and_says_what_it_shows():
    plot = charts.Scatter([charts.Group("a", [(1, 2.0000001)], bounds=[(float("nan"), 3)], joined=True)], "x", log=True)
    assert encoded(Chart(plot, ["loss ", Varies(0.5)])) == {
        "kind": "chart",
        "plot": {
            "kind": "scatter",
            "groups": [{"kind": "group", "name": "a", "points": [[1, 2.0]], "bounds": [[None, 3]], "joined": True}],
            "x": "x",
            "log": True,
        },
        "alt": ["loss ", {"value": 0.5, "text": "0.500"}],
    }
    assert encoded(Tree("a", opened=False)) == {"kind": "tree", "head": "a", "opened": False}


def test_other_runs_keep_steps_of_their_own():
    panel = PANEL._replace(others=[("b", [(5, 1.0), (9, 0.5)])], run="a")
    part = encoded(Curves([panel, OTHER], "two runs", name="a"))
    assert part["name"] == "a" and part["panels"][0]["names"] == ["a", "b"]
    assert part["others"] == [{"name": "b", "of": 2, "steps": [5, 9], "columns": [[1.0, 0.5], [None, None]]}]


def test_of_a_long_run_the_spikes_are_kept_and_the_number_is_said():
    losses = [(step, 1 / (1 + step) + (5 if step == 54_321 else 0)) for step in range(100_000)]
    rates = [(step, float(step % 7)) for step in range(0, 100_000, 3)] + [(99_999, float("inf"))]
    panels = [charts.Panel(f"metric {i}", losses if i % 2 else rates) for i in range(8)]
    part = encoded(Curves(panels, "eight metrics"))
    assert part["of"] == 100_000 and len(part["steps"]) <= 3000
    assert len(json.dumps(part)) < 1_000_000
    assert part["steps"][0] == 0 and part["steps"][-1] == 99_999
    assert part["columns"][1][part["steps"].index(54_321)] == pytest.approx(5, abs=1e-3)
    assert part["columns"][0][-1] is None, "infinity is no number of JSON"


def test_a_report_too_large_for_a_notebook_leaves_its_parts_out():
    assert whole("", [Paragraph("x" * 5_000_000)]) is None
    assert "parts" not in Report("", [Paragraph("x" * 5_000_000)])._repr_mimebundle_()[1].get(MIME, {})
