"""The JupyterLab extension: installed with the package, it draws the reports of a notebook that no kernel runs."""

import csv
import dataclasses
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from helpers.injections import INJECTIONS, everywhere
from jupyter_gpt.report import charts, html
from jupyter_gpt.report.parts import (
    Chart,
    Curves,
    Folded,
    Markdown,
    Paragraph,
    Samples,
    Span,
    Table,
    Tree,
    Varies,
    bold,
    quiet,
)
from jupyter_gpt.report.report import MIME, Report

PREBUILT = Path(__file__).parents[2] / "labextension" / "prebuilt"


def run() -> Report:
    """A run of 5,000 steps beside another one, its samples, and a table."""
    losses = [(step, 5 / (1 + step / 50)) for step in range(1, 5001)]
    other = [("hen", [(step, 6 / (1 + step / 50)) for step in range(1, 301)])]
    names = ("training", "held-out")
    panels = [
        charts.Panel(
            "loss, nats", losses, [(1, 5.0), (5000, 0.06)], [(1, 4.9, 5.1)], names=names, others=other, run="fox"
        ),
        charts.Panel("rate", [(step, 1e-3) for step, _ in losses]),
    ]
    texts = [f"text of step {step}" for step in range(4)]
    return Report(
        "fox: finished",
        [
            Curves(panels, "loss falls", [1000], name="fox"),
            Table(("name", "loss"), [("b", Varies(2.0)), ("a", Varies(10.5)), ("c", Varies(0.25))]),
            Samples([f"step {step}" for step in range(4)], [("Once", [Varies(text) for text in texts])]),
        ],
        {"view": "run"},
    )


ANSWER = "# Title\n\n**2*3*4** is `24`.\n\n```python\nx = 2*3\n```\n\n[docs](https://docs.python.org)"
CLOUD = charts.Scatter(
    [
        charts.Group("leave.md", [(x / 10, x % 7) for x in range(100)]),
        charts.Group("question", [(5, 3)], charts.RED, ["what?"], shape="star"),
    ],
    "cost",
    "accuracy",
)
COUNTS = charts.Matrix(["cat", "dog"], ["cat", "dog"], [[30, 10], [0, 44]])
TIMES = charts.BarChart(
    [f"token{n}" for n in range(30)], [charts.Bars("time, ms", [float(n % 5 + 1) for n in range(30)])], "token", True
)


def answered() -> Report:
    """An answer in Markdown, charts, and a trace."""
    thoughts = [
        Tree([bold("thought 1"), quiet(" · "), Span("score 7", tint="red")], [Paragraph("apples and pears", "code")]),
        Tree("thought 2", [Folded("exact prompt", [Paragraph("count the apples", "code")])], opened=False, quiet=True),
        Tree("thought 3", [Paragraph("plums", "code")], opened=False),
    ]
    return Report(
        "",
        [
            Paragraph(Varies(Markdown(ANSWER)), "block"),
            *(Chart(plot, "a chart") for plot in (CLOUD, COUNTS, TIMES)),
            Tree("root", [Paragraph("said", "code")], thoughts),
        ],
        {"view": "trace"},
        {"trace": {"kind": "root"}},
    )


def output(report: Report) -> dict:
    data, metadata = report._repr_mimebundle_()
    return {"output_type": "display_data", "data": data, "metadata": json.loads(json.dumps(metadata))}


@pytest.fixture
def open_saved(lab, browser) -> Iterator[Callable]:
    """Opens a notebook of these outputs, a cell each, in JupyterLab or Notebook: not trusted, and with no kernel."""
    contexts = []

    def open_it(*outputs: dict, where: str = "lab/tree", width: int = 1280):
        path = lab.root / f"{secrets.token_hex(4)}.ipynb"
        cells = [
            {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": "", "outputs": [each], "execution_count": 1}
            for i, each in enumerate(outputs)
        ]
        path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
        context = browser.new_context(viewport={"width": width, "height": 1000})
        context.set_default_timeout(60_000)
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.goto(f"{lab.url}/{where}/{path.name}?token={lab.token}&reset")
        page.locator(".jp-Dialog button", has_text=re.compile("No Kernel")).click(timeout=90_000)
        page.locator(".jp-OutputArea-output").first.wait_for()
        return page

    yield open_it
    for context in contexts:
        context.close()


def test_the_extension_is_installed_enabled_and_small_at_start():
    listed = subprocess.run([sys.executable, "-m", "jupyterlab.labextensions", "list"], capture_output=True, text=True)
    found = [line for line in (listed.stdout + listed.stderr).splitlines() if "jupyter-gpt " in line]
    assert found and "enabled" in found[0] and "OK" in found[0], "run pip install -e '.[test]' again"
    entry = json.loads((PREBUILT / "package.json").read_text())["jupyterlab"]["_build"]["load"]
    assert (PREBUILT / entry).stat().st_size < 50_000


def test_a_saved_run_can_be_looked_into_with_no_kernel(open_saved):
    page = open_saved(output(run()))
    report = page.locator(".gpt-report")
    report.locator(".gpt-main canvas").wait_for()
    session = "window.jupyterapp.shell.currentWidget.context.sessionContext.session"
    assert page.evaluate(f"() => {session}") is None
    assert page.locator(".jp-RenderedHTML").count() == 0
    assert re.search(r"fox: \d,\d\d\d of 5,000 steps", report.inner_text())

    reset = report.get_by_role("button", name="reset zoom")
    report.locator(".gpt-main").focus()
    page.keyboard.press("+")
    assert reset.is_visible()
    page.keyboard.press("Escape")
    assert not reset.is_visible()

    names = lambda: report.locator("tbody tr td:first-child").all_inner_texts()  # noqa: E731
    header = report.get_by_role("button", name="loss", exact=True)
    assert names() == ["b", "a", "c"]
    header.focus()
    page.keyboard.press("Enter")
    assert names() == ["a", "b", "c"]
    assert report.locator("th[aria-sort=descending]").inner_text().startswith("loss")
    header.click()
    assert names() == ["c", "b", "a"]
    report.get_by_role("button", name="Copy CSV").click()
    report.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "name,loss\r\nc,0.25\r\nb,2\r\na,10.5"

    slider = report.get_by_label("Which samples are shown")
    assert "text of step 3" in report.inner_text()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert "text of step 2" in report.inner_text() and "text of step 3" not in report.inner_text()

    hen = report.locator(".gpt-main-legend, .gpt-legend").get_by_role("button", name="hen")
    assert hen.get_attribute("aria-pressed") == "true"
    both = saved_as(page, report, "SVG").read_text()
    hen.click()
    assert hen.get_attribute("aria-pressed") == "false"
    one = saved_as(page, report, "SVG").read_text()
    assert both.startswith("<svg ") and ElementTree.fromstring(one).tag.endswith("svg")
    assert both.count("<path") > one.count("<path") > 2 and "loss, nats" in one and "held-out" in one
    assert saved_as(page, report, "PNG").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.reader(saved_as(page, report, "CSV").open()))
    assert rows[0] == ["run", "step", "loss, nats", "held-out", "rate"] and ["hen", "300", "0.857143", "", ""] in rows
    report.get_by_role("button", name="Show as table").click()
    assert not report.locator(".gpt-main").is_visible()
    assert report.locator(".gpt-figure tbody tr").first.inner_text().split("\t")[:3] == ["fox", "1", "4.90196"]


def centre(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def saved_as(page, report, kind: str, which: int = 0) -> Path:
    """The file of a chart."""
    button = report.get_by_role("button", name=f"Download {kind}", exact=True).nth(which)
    with page.expect_download() as got:
        button.click()
    assert got.value.suggested_filename.endswith(f".{kind.lower()}")
    return got.value.path()


def test_an_answer_its_charts_and_its_trace_can_be_looked_into(open_saved):
    page = open_saved(output(answered()))
    report = page.locator(".gpt-report")
    answer = report.locator(".gpt-markdown")
    answer.wait_for()
    assert answer.get_by_role("heading", name="Title").count() == 1 and answer.locator("b").inner_text() == "2*3*4"
    link = answer.locator("a")
    assert (link.get_attribute("href"), link.get_attribute("target")) == ("https://docs.python.org", "_blank")
    for button, copied in (("Copy code", "x = 2*3"), ("Copy", ANSWER)):
        answer.get_by_role("button", name=button, exact=True).click()
        page.wait_for_function("text => navigator.clipboard.readText().then(got => got === text)", arg=copied)

    page.mouse.move(*centre(answer.get_by_role("button", name="Copy", exact=True)))
    page.mouse.down()
    renewed = "data => window.jupyterapp.shell.currentWidget.content.widgets[0].model.outputs.set(0, data)"
    page.evaluate(renewed, output(dataclasses.replace(answered(), title="renewed")))  # as while an answer is written
    page.evaluate("navigator.clipboard.writeText('')")
    page.mouse.up()
    page.wait_for_function("text => navigator.clipboard.readText().then(got => got === text)", arg=ANSWER)
    report.get_by_text("renewed").wait_for()
    for event in ("pointerdown", "pointercancel"):  # a finger that begins to scroll
        report.dispatch_event(event)
    page.evaluate(renewed, output(dataclasses.replace(answered(), title="once more")))
    report.get_by_text("once more").wait_for()

    prompt = report.locator("details", has_text="exact prompt").last  # what is unfolded stays so when all is drawn anew
    prompt.locator("summary").dispatch_event("click")
    page.evaluate(renewed, output(dataclasses.replace(answered(), title="the last time")))
    report.get_by_text("the last time").wait_for()
    assert prompt.get_attribute("open") is not None and report.locator("details[open]").count() == 3
    prompt.locator("summary").dispatch_event("click")

    cloud, counts, times = (report.locator(".gpt-plot-canvas").nth(i) for i in range(3))
    place = lambda chart, x, y: (  # noqa: E731
        (box := chart.bounding_box())["x"] + x * box["width"],
        box["y"] + y * box["height"],
    )
    counts.scroll_into_view_if_needed()
    page.mouse.move(*place(counts.locator("svg"), 0.7, 0.2))
    assert counts.locator(".gpt-tip").inner_text().split("\n") == ["10 of 40 (25.0%)", "true: cat", "predicted: dog"]
    times.scroll_into_view_if_needed()
    page.mouse.move(*place(times, 0.5, 0.6))
    assert "time, ms:" in times.locator(".gpt-tip").inner_text()
    cloud.scroll_into_view_if_needed()
    shown = lambda: cloud.locator("text").all_inner_texts()  # noqa: E731
    before, reset = shown(), report.get_by_role("button", name="reset zoom").first
    page.mouse.move(*place(cloud, 0.4, 0.3))
    page.mouse.down()
    page.mouse.move(*place(cloud, 0.6, 0.6), steps=3)
    page.mouse.up()
    assert reset.is_visible() and shown() != before
    cloud.focus()
    page.keyboard.press("Escape")
    assert not reset.is_visible() and shown() == before
    leave = report.get_by_role("button", name="leave.md")
    leave.click()
    assert leave.get_attribute("aria-pressed") == "false"
    assert "question" in (saved := saved_as(page, report, "SVG").read_text()) and "leave.md" not in saved
    assert saved_as(page, report, "PNG", 1).read_bytes().startswith(b"\x89PNG")
    assert saved_as(page, report, "CSV", 1).read_text().splitlines()[1:] == ["cat,30,10", "dog,0,44"]

    field, node = report.get_by_label("Search the trace"), lambda name: report.locator(".gpt-node", has_text=name).last
    field.fill("APPLES")
    assert "2 found" in report.inner_text()
    assert report.locator("pre, .gpt-code", has_text="count the apples").is_visible()
    assert not node("thought 3").is_visible() and node("thought 1").get_attribute("class").endswith("gpt-hit")
    assert page.evaluate("() => [...CSS.highlights.get('gpt-found')].map(String)") == ["apples", "apples"]
    field.fill("")
    assert node("thought 3").is_visible() and not report.locator(".gpt-code", has_text="count the apples").is_visible()
    with page.expect_download() as got:
        report.get_by_role("button", name="Download JSON").click()
    assert json.loads(got.value.path().read_text()) == {"kind": "root"}


def test_no_injection_comes_through(open_saved, browser, monkeypatch):
    for name in ("draw", "panels", "png"):  # what is in the pictures is no markup
        monkeypatch.setattr(html, name, lambda *_: b"")
    broken = output(everywhere(INJECTIONS[0]))
    broken["metadata"][MIME]["parts"]["parts"][0]["kind"] = INJECTIONS[1]
    reports = [everywhere(text) for text in INJECTIONS]
    broken["data"]["text/html"] += "".join(INJECTIONS)
    page = open_saved(*map(output, reports), broken)
    page.locator(".gpt-report").nth(len(INJECTIONS) - 1).wait_for()
    page.evaluate("() => document.querySelectorAll('.gpt-report details').forEach(each => { each.open = true; })")
    page.locator(".gpt-unread").wait_for()
    for text, shown in zip(INJECTIONS, page.locator(".gpt-report").all(), strict=True):
        assert shown.text_content().count(text.replace("\x00", "")) > 20 or "\x00" in text, text
    no_tags = "script, iframe, object, embed, style, link, meta, base, template, form, math, use, image, animate, set"
    assert page.locator(f".gpt-report :is({no_tags}), .gpt-report svg:not(.gpt-plot svg)").count() == 0
    bad = """all => all.flatMap(each => [...each.attributes].filter(({ name, value }) =>
          name.startsWith("on")
          || ["style", "fill", "stroke", "clip-path"].includes(name) && /javascript|url\\((?!#gpt-clip)/.test(value)
          || /href|src|action/.test(name) && !/^(https?:|mailto:|data:image.png)/.test(value))
      .map(({ name, value }) => `${name}=${value}`))"""
    assert page.locator(".gpt-report *").evaluate_all(bad) == []
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.hacked") is None

    alone = browser.new_page()
    alone.set_content("".join(report.html for report in reports))
    assert alone.locator(f":is({no_tags}), svg").count() == 0
    assert alone.locator("body *").evaluate_all(bad) == []
    assert alone.evaluate("() => window.hacked") is None
    alone.close()


def test_what_cannot_be_drawn_is_shown_as_html(open_saved):
    newer, old, bare = (output(run()) for _ in range(3))
    newer["metadata"][MIME]["parts"]["format"] += 1
    old["metadata"] = {}
    bare["metadata"][MIME]["parts"]["parts"] = 5
    del bare["data"]["text/html"]
    page = open_saved(newer, old, bare)
    outputs = page.locator(".jp-OutputArea-output")
    outputs.nth(2).locator("pre", has_text="fox: finished").wait_for()
    assert "saved by a newer version" in outputs.nth(0).inner_text()
    assert "cannot be drawn" in outputs.nth(2).inner_text()
    for i in (0, 1):
        assert outputs.nth(i).locator("img[src^='data:image/png']").count() == 1
        assert outputs.nth(i).locator("td", has_text="10.5").count() == 1
    assert page.locator(".gpt-report").count() == 0
    assert outputs.nth(1).inner_text().startswith("fox: finished")


FAR, NEAR, NAN = 9e29, 1e-300, float("nan")
ODD = (
    charts.Scatter([]),
    charts.Scatter([charts.Group("", [])], "x", "y", log=True, diagonal=True),
    charts.Scatter([charts.Group("a", [(0, 0)]), charts.Group("b", [(NAN, 1)])], "x", "y", log=True),
    charts.Scatter([charts.Group("a", [(1, 1)] * 3, joined=True, sizes=[0, 0, 0])], "x", "y", diagonal=True),
    charts.Scatter([charts.Group("a", [(-FAR, FAR), (FAR, NEAR)], bounds=[(-FAR, FAR), (NAN, 1)])], "x", "y"),
    charts.Scatter([charts.Group("a", [(NEAR, 1), (FAR, 1)])], "x", "y", log=True),
    charts.BarChart([], [charts.Bars("none", [])]),
    charts.BarChart(["a", "b", "c"], [charts.Bars("odd", [NAN, -FAR, FAR], [], limit=NEAR)], "x", True),
    charts.BarChart(["a"], [charts.Bars("zero", [0.0], top=0.0, cut="c", bounds=[None])] * 20),
    charts.Matrix([], [], []),
    charts.Matrix(["a"], ["b"], [[0]]),
    charts.Matrix(["a" * 99] * 60, ["b" * 99] * 60, [[10**15] * 60] * 60),
)
ODD_CURVES = (
    Curves([charts.Panel("none", [])], "none"),
    Curves([charts.Panel("one", [(0, 0.0)])], "one"),
    Curves([charts.Panel("same", [(1, NAN), (2, 1.0), (3, 1.0)], [(-5, 1.0), (9**9, FAR)], limit=-FAR)], "same"),
    Curves([charts.Panel("far", [(-(10**15), -FAR), (0, FAR), (10**15, NEAR)], others=[("none", [])])], "far", [-1]),
)


def test_odd_numbers_are_drawn_without_an_error(open_saved, monkeypatch):
    for name in ("draw", "panels", "png"):
        monkeypatch.setattr(html, name, lambda *_: b"")
    page = open_saved(output(Report("odd", [*(Chart(plot, "odd") for plot in ODD), *ODD_CURVES])))
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.locator(".gpt-report .gpt-main canvas").nth(len(ODD_CURVES) - 1).wait_for()
    assert page.locator(".gpt-plot-canvas > svg").count() == len(ODD)
    page.evaluate("""() => {
      document.querySelectorAll(".gpt-plot").forEach(each => { each.style.width = "300px"; });
      for (const key of ["+", "ArrowLeft", "-"])
        for (const each of document.querySelectorAll(".gpt-plot-canvas, .gpt-main"))
          each.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      for (const each of document.querySelectorAll(".gpt-report button"))
        if (/^log|^Show as/.test(each.textContent)) each.click();
    }""")
    page.wait_for_timeout(300)
    assert errors == []
    spoilt = "all => all.filter(each => [...each.attributes].some(({ value }) => /NaN|Infinity/.test(value))).length"
    assert page.locator(".gpt-plot-canvas svg *").evaluate_all(spoilt) == 0


def test_notebook_7_draws_it_too_on_a_narrow_page(open_saved):
    page = open_saved(output(run()), where="notebooks", width=800)
    page.locator(".gpt-report .gpt-main canvas").wait_for()
    wide = "() => document.querySelector('.gpt-report').scrollWidth - document.querySelector('.gpt-report').clientWidth"
    assert page.evaluate(wide) <= 0
