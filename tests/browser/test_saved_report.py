"""The JupyterLab extension: installed with the package, it draws the reports of a notebook that no kernel runs."""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_gpt.report import charts
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

PREBUILT = Path(__file__).parents[2] / "labextension" / "prebuilt"
EVIL = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "\"><svg onload='window.hacked = 1'>",
    "javascript:window.hacked=1",
    "red;background:url(javascript:window.hacked=1)",
    "</style></textarea><iframe srcdoc='<script>parent.hacked = 1</script>'>",
)


def run() -> Report:
    """A run of 5,000 steps, its samples, and a table."""
    losses = [(step, 5 / (1 + step / 50)) for step in range(1, 5001)]
    panels = [
        charts.Panel("loss, nats", losses, [(1, 5.0), (5000, 0.06)], [(1, 4.9, 5.1)], names=("training", "held-out")),
        charts.Panel("rate", [(step, 1e-3) for step, _ in losses]),
    ]
    texts = [f"text of step {step}" for step in range(4)]
    return Report(
        "fox: finished",
        [
            Curves(panels, "loss falls", [1000]),
            Table(("name", "loss"), [("b", Varies(2.0)), ("a", Varies(10.5)), ("c", Varies(0.25))]),
            Samples([f"step {step}" for step in range(4)], [("Once", [Varies(text) for text in texts])]),
            Tree("root", [Paragraph("said", "code")], [Tree("leaf")]),
        ],
        {"view": "run"},
        {"trace": {"kind": "root"}},
    )


def evil(text: str) -> Report:
    """The text in every field of every part."""
    span = Span([text, Varies(text)], text, text, text)
    inside = [Paragraph([text, span, Bar([(0.5, text, text)], columns=5)], text), Alarm(text), Alarm(span)]
    panel = charts.Panel(text, [(1, 1.0), (2, 2.0)], [(2, 1.0)], names=(text, text))
    return Report(
        text,
        [
            *inside,
            Figures([(text, span)]),
            Table((text, span), [(text, span), (span, text)], "lr", True),
            Samples((text, span), [(text, (text, span))]),
            Boxes([(text, text, text, text), None]),
            Chart(lambda: charts.figure(2, 1)[0], text),
            Curves([panel, panel], text),
            Folded(text, inside),
            Tree(span, inside, [Tree(text, inside)]),
        ],
        {"view": text},
        {"trace": {text: text}},
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
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.goto(f"{lab.url}/{where}/{path.name}?token={lab.token}&reset")
        page.locator(".jp-Dialog button", has_text=re.compile("No Kernel")).click(timeout=90_000)
        page.locator(".jp-OutputArea-output").first.wait_for(timeout=60_000)
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
    report.locator(".gpt-main canvas").wait_for(timeout=20_000)
    session = "window.jupyterapp.shell.currentWidget.context.sessionContext.session"
    assert page.evaluate(f"() => {session}") is None
    assert page.locator(".jp-RenderedHTML").count() == 0
    assert re.search(r"\d,\d\d\d of 5,000 steps", report.inner_text())

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
    report.get_by_role("button", name="Copied").wait_for(timeout=5000)
    assert page.evaluate("navigator.clipboard.readText()") == "name,loss\r\nc,0.25\r\nb,2\r\na,10.5"

    slider = report.get_by_label("Which samples are shown")
    assert "text of step 3" in report.inner_text()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert "text of step 2" in report.inner_text() and "text of step 3" not in report.inner_text()

    with page.expect_download() as got:
        report.get_by_role("button", name="Download JSON").click()
    assert json.loads(got.value.path().read_text()) == {"kind": "root"}
    with page.expect_download() as got:
        report.get_by_role("button", name="Download PNG").click()
    assert got.value.path().read_bytes().startswith(b"\x89PNG")


def test_what_a_model_wrote_is_text_in_every_field(open_saved):
    broken = output(evil(EVIL[0]))
    broken["metadata"][MIME]["parts"]["parts"][0]["kind"] = EVIL[1]
    broken["data"]["text/html"] += "".join(EVIL)
    page = open_saved(*(output(evil(text)) for text in EVIL), broken)
    page.locator(".gpt-report").nth(len(EVIL) - 1).wait_for(timeout=20_000)
    page.evaluate("() => document.querySelectorAll('.gpt-report details').forEach(each => { each.open = true; })")
    page.locator(".gpt-unread").wait_for(timeout=5000)
    shown = page.locator(".gpt-report")
    for i, text in enumerate(EVIL):
        assert shown.nth(i).text_content().count(text) > 20
    assert page.locator(".gpt-report :is(script, iframe, svg, object, embed, style)").count() == 0
    for source in page.locator(".gpt-report img").evaluate_all("all => all.map(each => each.src)"):
        assert source.startswith("data:image/png;base64,")
    urls = "all => all.filter(each => /url|javascript/.test(each.getAttribute('style') ?? '')).length"
    assert page.locator(".gpt-report *").evaluate_all(urls) == 0
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.hacked") is None


def test_what_cannot_be_drawn_is_shown_as_html(open_saved):
    newer, old, bare = (output(run()) for _ in range(3))
    newer["metadata"][MIME]["parts"]["format"] += 1
    old["metadata"] = {}
    bare["metadata"][MIME]["parts"]["parts"] = 5
    del bare["data"]["text/html"]
    page = open_saved(newer, old, bare)
    outputs = page.locator(".jp-OutputArea-output")
    outputs.nth(2).locator("pre", has_text="fox: finished").wait_for(timeout=20_000)
    assert "saved by a newer version" in outputs.nth(0).inner_text()
    assert "cannot be drawn" in outputs.nth(2).inner_text()
    for i in (0, 1):
        assert outputs.nth(i).locator("img[src^='data:image/png']").count() == 1
        assert outputs.nth(i).locator("td", has_text="10.5").count() == 1
    assert page.locator(".gpt-report").count() == 0
    assert outputs.nth(1).inner_text().startswith("fox: finished")


def test_notebook_7_draws_it_too_on_a_narrow_page(open_saved):
    page = open_saved(output(run()), where="notebooks", width=800)
    page.locator(".gpt-report .gpt-main canvas").wait_for(timeout=20_000)
    wide = "() => document.querySelector('.gpt-report').scrollWidth - document.querySelector('.gpt-report').clientWidth"
    assert page.evaluate(wide) <= 0
