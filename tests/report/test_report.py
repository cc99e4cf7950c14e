"""The three renderers: what each part looks like, and that marks, escapes and figures hold in all of them."""

import re
from html.parser import HTMLParser

import pytest

from helpers.injections import INJECTIONS, everywhere
from helpers.rendered import folded, visible
from jupyter_gpt.report import charts, html
from jupyter_gpt.report.parts import (
    Alarm,
    Bar,
    Boxes,
    Chart,
    Figures,
    Folded,
    Markdown,
    Paragraph,
    Samples,
    Span,
    Table,
    Tree,
    Varies,
    bold,
    joined,
    quiet,
)
from jupyter_gpt.report.report import MIME, Report

ANSWER = "# Title\n\n**b** `c` [d](https://x.org)\n\n- a\n\n3. b\n\n> q\n\n---\n\n```\nx\n```\n\n| a |\n|--:|\n| 1 |"
PLOTS = {
    "scatter": charts.Scatter(
        [
            charts.Group("_a$", [(1, 2), (3, 4)], labels=["_a$"], bounds=[(1, 3), (3, 5)], joined=True, written=True),
            charts.Group("b" * 40, [(2, 2)], charts.RED, sizes=[3], shape="star"),
            charts.Group("hits", [(2, 2)], charts.RED, shape="ring"),
            charts.Group("none", []),
        ],
        "cost, $",
        "accuracy",
        log=True,
    ),
    "bars": charts.BarChart(["a$", "b"], [charts.Bars("x", [1, 2], bounds=[(0, 3), None]), charts.Bars("y$", [3, -1])]),
    "stacked": charts.BarChart(
        ["a", "b"], [charts.Bars("x", [1, 50], ["#0072b2bf"], limit=2, top=5, cut="50 ms")], "token", True
    ),
    "matrix": charts.Matrix(["cat$", "dog"], ["cat$", "dog"], [[3, 1], [0, 4]]),
}
EVIL = '<img src=x onerror="alert(1)">«$x$»'


def every_part(number: float, said: str, many: int = 1) -> Report:
    """A report with one of each, its varying values given."""
    return Report(
        ["run ", bold("a")],
        [
            Paragraph(["loss ", Varies(number), " after ", Varies(many), " steps"]),
            Paragraph(Varies(said), "block"),
            Alarm(["step ", Varies(3), ": ", Varies(said)]),
            Figures([("loss", Varies(number, 2)), ("tokens", 1234), ("none", None)]),
            Table(("name", "value"), [("a", Varies(number)), ("", ""), (EVIL, 5)]),
            Samples(("before", "after"), [("Hi?", (Varies(said), Varies("b\nc")))]),
            Samples(("",), [("Once", (Varies(said),))]),
            Varies([Table((), [(said, str(number))] * many, "ll"), Paragraph(Varies(said))]),
            Tree("root", [Paragraph("hidden")], [Tree("one"), Tree("two", children=[Tree("deep")], quiet=True)]),
            Folded("more", [Paragraph("inside")]),
            Folded("told", [Paragraph("in both")], text=True),
            Boxes([("a", "12", "rgba(1,2,3,0.3)", "tip"), None, ("b", "3", "", "")]),
            Paragraph(["free ", Bar([(0.25, "red", "used"), (0.25, "blue", "kept")], columns=8)]),
        ],
        {"view": "test"},
        {"curve": [number]},
    )


def test_two_machines_agree_once_nbval_has_folded_text_and_html():
    one, other = every_part(0.123, "fox", 2), every_part(-1234.5, "a\nbird «x»", 7)
    assert one.text != other.text
    assert folded(one.text) == folded(other.text)
    assert folded(one.html) == folded(other.html)
    assert one.mime()[MIME] == other.mime()[MIME] == {"title": "run a", "view": "test"}
    assert one._repr_mimebundle_()[1][MIME]["curve"] == [0.123]
    assert one._repr_mimebundle_()[1][MIME]["figures"] == {"loss": "0.12", "tokens": "1,234", "none": "–"}


def test_nobody_sees_a_mark_in_html_and_every_text_is_escaped():
    html = every_part(0.5, EVIL).html
    shown = visible(html)
    assert not re.search("[≈«»]", shown.replace(EVIL, ""))
    assert EVIL in shown
    assert "<img" not in html
    assert "loss 0.500 after 1 steps" in shown
    assert html.count("<!--«-->") == html.count("<!--»-->")
    assert re.fullmatch(r"(?s)[^«»]*(«[^«»]*»[^«»]*)*", html), "no mark inside another"


def test_text_is_aligned_and_says_each_part():
    text = every_part(0.5, "fox").text
    assert text.startswith("run a\nloss ≈0.500 after ≈1 steps\n\n«fox»\n\n! step ≈3: «fox»\n")
    assert "  loss    ≈0.50\n  tokens  1,234\n  none    –" in text
    assert "Hi?\n  before  «fox»\n  after   «b\n          c»" in text
    assert "  Once «fox»" in text
    assert "«\nfox  0.5\n\nfox\n»" in text
    assert "root\n├─ one\n└─ two\n   └─ deep" in text
    assert "hidden" not in text and "inside" not in text
    assert "told\nin both" in text
    assert "a\n12\n\nb\n3" in text
    assert "free [██▒▒░░░░]" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Varies(None), "≈–"),
        (Varies(1234), "≈1,234"),
        (Varies(0.5), "≈0.500"),
        (Varies(1234.5, 0), "≈1,234"),
        (Varies(float("nan")), "«nan»"),
        (Varies("a «b»"), "«a ‹b›»"),
        (Varies(["a ", Varies(2)]), "«a 2»"),
        (12345, "12,345"),
        (None, "–"),
        (Span("x", tint="red", brackets="⟦⟧"), "⟦x⟧"),
        (joined(" · ", ["a", "", Varies(1)]), "a · ≈1"),
    ],
)
def test_inline_content_as_text(value, shown):
    assert Report("", [Paragraph(value)]).text == shown


TAGS = {"p", "b", "i", "br", "div", "span", "img", "details", "summary"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
TAGS |= {"a", "blockquote", "code", "hr", "li", "ol", "pre", "ul"}
ATTRIBUTES = {"style", "title", "src", "alt", "width", "colspan", "open", "href", "rel", "value"}


def tags_of(html: str) -> list[tuple[str, dict]]:
    parser, seen = HTMLParser(), []
    parser.handle_starttag = lambda tag, given: seen.append((tag, dict(given)))
    parser.feed(html)
    return seen


def test_html_holds_nothing_that_a_sanitizer_of_jupyterlab_takes_away():
    html = every_part(0.5, EVIL).html + Report("", [Chart(PLOTS["matrix"], EVIL), Paragraph(Markdown(ANSWER))]).html
    seen = tags_of(html)
    assert {tag for tag, _ in seen} <= TAGS
    assert {name for _, given in seen for name in given} <= ATTRIBUTES
    assert not re.search(r"var\(|url\(|expression|javascript:|overflow-wrap:anywhere", html)


@pytest.fixture
def no_pictures(monkeypatch):
    for name in ("draw", "panels", "png"):
        monkeypatch.setattr(html, name, lambda *_: b"")


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_injection_is_markup(text, no_pictures):
    seen = tags_of(everywhere(text).html)
    assert {tag for tag, _ in seen} <= TAGS
    for _, given in seen:
        assert set(given) <= ATTRIBUTES
        assert not re.search(r"url\(|expression|javascript", given.get("style", ""))
        assert re.match(r"(https?://|mailto:)", given.get("href", "http://"))
        assert given.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")


def test_styles_and_tints_of_spans():
    html = Report("", [Paragraph(Span(["a", quiet("b")], "bold", "rgba(1,2,3,0.2)", 'say "x"'))]).html
    assert '<b>a<span style="opacity:0.75;font-size:90%">b</span></b>' in html
    assert "background-color:rgba(1,2,3,0.2)" in html
    assert 'title="say &quot;x&quot;"' in html


def test_a_chart_is_drawn_once_it_is_shown_and_told_in_words(monkeypatch):
    drawn, draw = [], charts.matrix
    monkeypatch.setattr(charts, "matrix", lambda plot: drawn.append(1) or draw(plot))
    report = Report("", [Chart(PLOTS["matrix"], ["loss of ", Varies("«a»")])])
    assert report.text == ""
    assert not drawn
    assert 'alt="loss of ‹a›"' in report.html
    assert "data:image/png;base64," in report.html
    assert report.html and drawn == [1]


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_every_plot_has_a_picture(plot):
    made = charts.draw(plot)
    assert charts.png(made).startswith(b"\x89PNG")
    written = [text.get_text() for axes in made.axes for text in axes.texts]
    assert {"scatter": ["_a\\$"], "bars": [], "stacked": ["50 ms"], "matrix": ["3", "1", "0", "4"]}[
        next(name for name in PLOTS if PLOTS[name] is plot)
    ] == written


def test_panels_of_curves():
    panel = charts.Panel("loss, $", [(n, 1 / n) for n in range(1, 200)], [(100, 0.5)], [(100, 0.4, 0.6)], 0.9)
    for shown in ([panel], [panel, charts.Panel("empty"), panel, panel]):
        made = charts.panels(shown, alarms=[50])
        assert len(made.axes) == len(shown)
        assert charts.png(made).startswith(b"\x89PNG")
    assert len(charts.thinned(list(range(5000)))) == charts.POINTS
    assert charts.points([{"step": 1, "x": None}, {"step": 2, "x": 3}], "x") == [(2, 3)]


def test_a_report_shows_itself():
    report = Report("a", [], {"view": "x"})
    assert repr(report) == report.text == "a"
    data, metadata = report._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", MIME}
    assert metadata == {}


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def mixed(text: float, ground: float, alpha: float) -> str:
    """The grey of white (1) or black (0) text of an opacity on a ground (0 to 1)."""
    value = round(255 * (alpha * text + (1 - alpha) * ground))
    return f"#{value:02x}{value:02x}{value:02x}"


def test_grey_text_has_the_contrast_of_wcag_aa_in_both_themes():
    from jupyter_gpt.report import charts
    from jupyter_gpt.report.html import BRANCH, STYLES

    quiet = float(re.search(r"opacity:([0-9.]+)", STYLES["quiet"])[1])
    for alpha in (quiet, quiet * BRANCH):
        assert contrast(mixed(0, 1, 0.87 * alpha), "#ffffff") > 4.5  # JupyterLab's text is black of 87%
        assert contrast(mixed(1, 0x11 / 255, alpha), "#111111") > 4.5  # white on its dark ground
    assert contrast(charts.GREY, "#ffffff") > 4.5 and contrast(charts.RED, "#ffffff") > 4.5
    assert charts.figure()[0].get_facecolor() == (1, 1, 1, 1), "whatever the theme"
    assert not any(re.search(r"(^|;)color:", style) for style in STYLES.values())


def test_greys_of_a_tree_do_not_add_up():
    leaf = Tree("leaf", quiet=True)
    html = Report("", [Tree("root", children=[Tree("branch", children=[leaf], quiet=True)])]).html
    assert html.count("opacity:") == 1


def test_columns_break_between_words_only():
    rows = [("[1]", "0.434, cosine 0.43", "handbook/office.md", "3 MB", "a long text")]
    html = Report("", [Table(("", "score", "source", "size", "text"), rows, "lllrl", wrap=True)]).html
    cells = re.findall(r'<td style="([^"]*)">', html)
    assert ["white-space:nowrap" in cell for cell in cells] == [True, False, False, True, False]
    assert ["overflow-wrap" in cell for cell in cells] == [False] * 4 + [True]
