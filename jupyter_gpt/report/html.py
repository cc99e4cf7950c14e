"""A report as HTML that needs no kernel, no script and no trust: inline styles only, every text escaped.

What varies is between `<!--«-->` and `<!--»-->`, which nbval folds and no reader sees. Greys are by opacity and tints
translucent, so that text has a contrast of at least 4.5 (WCAG AA) in both themes of JupyterLab. No text has a colour:
none has that contrast on white and on #111111. Bold and italic are tags, which GitHub keeps too.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from typing import Any

from jupyter_gpt.report.charts import RED, draw, panels, png
from jupyter_gpt.report.markdown import Element, parse
from jupyter_gpt.report.parts import (
    Alarm,
    Bar,
    Boxes,
    Chart,
    Curves,
    Figures,
    Folded,
    Inline,
    Markdown,
    Paragraph,
    Part,
    Samples,
    Span,
    Table,
    Tree,
    Varies,
)
from jupyter_gpt.report.text import number, plain, sides_of

RULE = "1px solid rgba(128,128,128,0.45)"
EDGE = "3px solid rgba(128,128,128,0.3)"
LONGEST_NAME = 40  # characters; what is longer in the first column of a table is a sentence
PROSE = "line-height:1.6;max-width:960px;overflow-wrap:break-word"  # JupyterLab's sanitizer knows no "anywhere"
STYLES = {
    "code": "font-family:monospace;font-size:13px;line-height:1.5",
    "quiet": "opacity:0.75;font-size:90%",
    "large": "font-size:115%",
    "alarm": f"border-left:4px solid {RED};padding-left:8px",
}
COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}|[a-z]+|rgba?\([0-9., ]+\)")
TAGS = {"bold": "b", "italic": "i"}
ROW = '<tr style="background-color:transparent">'
BRANCH = 0.85  # opacity of a quiet branch, in which there is quiet text
PIXELS = 89  # of an inch of a plot
INSIDE = "margin:2px 0 2px 14px"
HEADINGS = {"1": 125, "2": 115, "3": 108}  # percent of the text
CODE_BLOCK = (
    "margin:6px 0;padding:8px 10px;background-color:rgba(128,128,128,0.12);border-radius:4px;white-space:pre-wrap;"
    "overflow-wrap:break-word;font-size:13px;line-height:1.5"
)


def render(title: Inline, parts: Sequence[Part]) -> str:
    return blocks([Paragraph(Span(title, "bold")), *parts] if title else parts)


def escape(text: object) -> str:
    """Text made safe to stand in HTML, also in an attribute and between marks."""
    return html.escape(str(text), quote=True).replace("«", "&laquo;").replace("»", "&raquo;")


def colour(text: str) -> str:
    """A colour for a style, where it is one."""
    return text if COLOUR.fullmatch(text) else "transparent"


def prose(text: str) -> str:
    """Escaped, with its spaces and line breaks kept."""
    return escape(text).replace("  ", "&nbsp; ").replace("\n", "<br>")


def marked(shown: str, marks: bool = True) -> str:
    return f"<!--«-->{shown}<!--»-->" if marks else shown


def blocks(parts: Sequence[Part], marks: bool = True) -> str:
    return "\n".join(shown for part in parts if (shown := block(part, marks)))


def block(part: Part, marks: bool) -> str:
    match part:
        case Paragraph():
            edge = f"margin:6px 0;border-left:{EDGE};padding-left:10px" if "code" in part.style else "margin:6px 0"
            tag = "div" if has_blocks(part.content) else "p"
            return element(tag, part.style, inline(part.content, marks), f"{PROSE};{edge}")
        case Figures(rows):
            return table(Table((), rows, "ll"), marks)
        case Table():
            return table(part, marks)
        case Samples():
            return samples(part, marks)
        case Boxes():
            return f'<div style="max-width:960px">{"".join(map(box, part.boxes))}</div>'
        case Chart():
            return marked(image(draw(part.plot), part.alt, round(PIXELS * part.plot.size[0])), marks)
        case Curves():
            return marked(image(panels(part.panels, part.alarms), part.alt, part.width), marks)
        case Alarm():
            return f'<p style="{STYLES["alarm"]}"><b>{inline(part.content, marks)}</b></p>'
        case Folded():
            summary = f"<summary>{inline(part.title, marks)}</summary>"
            return f"<details>{summary}{blocks(part.parts, marks)}</details>"
        case Tree():
            return f'<div style="{PROSE}">{tree(part, marks)}</div>'
        case Varies(value):
            return marked(blocks(value, False), marks)
    raise TypeError(f"{type(part).__name__} is no part of a report")


def inline(content: Inline, marks: bool = True) -> str:
    match content:
        case None:
            return "–"
        case str():
            return prose(content)
        case int():
            return f"{content:,}"
        case Varies(value, digits):
            shown = number(value, digits)
            return marked(
                inline(str(value) if isinstance(value, float) else value, False) if shown is None else shown, marks
            )
        case Span():
            more = f"background-color:{colour(content.tint)};border-radius:3px" if content.tint else ""
            return element("span", content.style, inline(content.content, marks), more, content.tooltip)
        case Bar():
            return bar(content)
        case Markdown(text, cursor):
            return "".join(map(markdown, parse(text + cursor)))
    return "".join(inline(each, marks) for each in content)


def has_blocks(content: Inline) -> bool:
    """Whether there is Markdown, whose paragraphs stand in no paragraph."""
    match content:
        case Markdown():
            return True
        case Varies(inner) | Span(inner):
            return has_blocks(inner)
        case list() | tuple():
            return any(map(has_blocks, content))
    return False


def markdown(node: Element | str) -> str:
    """An element of Markdown. A heading is no `<h1>`: it belongs to the answer and not to the notebook."""
    if isinstance(node, str):
        return prose(node)
    tag, about, inside = node.tag, node.value, "".join(map(markdown, node.inside))
    match tag:
        case "p":
            return f'<p style="margin:6px 0">{inside}</p>'
        case "h":
            return f'<p style="margin:10px 0 4px;font-size:{HEADINGS.get(about, 100)}%"><b>{inside}</b></p>'
        case "pre":
            return f'<pre style="{CODE_BLOCK}">{escape("".join(map(str, node.inside)))}</pre>'
        case "code":
            return f'<code style="font-size:92%">{inside}</code>'
        case "a":
            return f'<a href="{escape(about)}" title="{escape(about)}" rel="noopener noreferrer">{inside}</a>'
        case "quote":
            return f'<blockquote style="margin:6px 0;border-left:{EDGE};padding-left:10px">{inside}</blockquote>'
        case "ul" | "ol":
            return f'<{tag} style="margin:6px 0">{inside}</{tag}>'
        case "li":
            return f'<li value="{escape(about)}">{inside}</li>' if about else f"<li>{inside}</li>"
        case "table":
            return f'<table style="border-collapse:collapse;table-layout:auto">{inside}</table>'
        case "th" | "td":
            rule = f"border-bottom:{RULE}" if tag == "th" else "line-height:1.5"
            return cell(tag, "right" if about == "r" else "left", inside, rule)
        case "hr" | "br":
            return f"<{tag}>"
    return f"<{tag}>{inside}</{tag}>"  # tr, b, i


def element(tag: str, style: str, shown: str, more: str = "", tooltip: str = "") -> str:
    """`shown` in a tag with the look of the words of `style`."""
    words = style.split()
    for word in words:
        if word in TAGS:
            shown = f"<{TAGS[word]}>{shown}</{TAGS[word]}>"
    css = ";".join(filter(None, [more, *(STYLES.get(word) for word in words)]))
    if tag == "span" and not css and not tooltip:
        return shown
    title = f' title="{escape(tooltip)}"' if tooltip else ""
    return f'<{tag} style="{css}"{title}>{shown}</{tag}>' if css else f"<{tag}{title}>{shown}</{tag}>"


def cell(tag: str, side: str, shown: str, more: str) -> str:
    return f'<{tag} style="text-align:{side};vertical-align:top;padding:2px 14px 2px 4px;{more}">{shown}</{tag}>'


def table(part: Table, marks: bool) -> str:
    width = len(part.header or next(iter(part.rows), ()))
    sides = ["right" if side == "r" else "left" for side in sides_of(part.sides, width)]
    spaces = ["white-space:nowrap"] * width
    if part.wrap:  # between words; the last column, which has the long texts, also inside one
        names = all(len(plain(row[0])) <= LONGEST_NAME for row in part.rows if row)  # stay on a line
        spaces = [
            f"{'white-space:normal' if (n or not names) and side == 'left' else space};line-height:1.6"
            for n, (side, space) in enumerate(zip(sides, spaces, strict=True))
        ]
        spaces[-1] = f"white-space:normal;{PROSE}"

    def row(tag: str, cells: Sequence[Inline], styles: Sequence[str]) -> str:
        each = zip(sides, cells, styles, strict=True)
        return f"<tr>{''.join(cell(tag, side, inline(content, marks), style) for side, content, style in each)}</tr>"

    heads = [f"white-space:{'normal' if part.wrap else 'nowrap'};border-bottom:{RULE}"] * width
    head = f"<thead>{row('th', part.header, heads)}</thead>" if part.header else ""
    body = "".join(row("td", cells, spaces if any(cells) else ["height:8px"] * width) for cells in part.rows)
    return f'<table style="border-collapse:collapse;table-layout:auto">{head}<tbody>{body}</tbody></table>'


def samples(part: Samples, marks: bool) -> str:
    """Each prompt across all columns, beneath it what was written to it."""
    count = len(part.columns)
    share = f"width:{100 // max(1, count)}%"
    wrap = f"white-space:normal;overflow-wrap:break-word;line-height:1.5;{share}"
    named = [inline(name, marks) for name in part.columns]
    head = "".join(cell("th", "left", name, f"{wrap};border-bottom:{RULE}") for name in named)
    rows = []
    for prompt, texts in part.rows:
        if shown := inline(prompt, marks):
            style = "text-align:left;white-space:normal;overflow-wrap:break-word;padding:10px 14px 2px 4px"
            rows.append(f'{ROW}<td colspan="{count}" style="{style}"><i>{shown}</i></td></tr>')
        rows.append(ROW + "".join(cell("td", "left", inline(each, marks), wrap) for each in texts) + "</tr>")
    head = f"<thead>{ROW}{head}</tr></thead>" if any(named) else ""
    full = "border-collapse:collapse;max-width:1200px" + (";width:100%;table-layout:fixed" if count > 1 else "")
    return f'<table style="{full}">{head}<tbody>{"".join(rows)}</tbody></table>'


def box(part: tuple[str, str, str, str] | None) -> str:
    if part is None:
        return "<br>"
    text, note, tint, tooltip = part
    style = f"display:inline-block;text-align:center;padding:1px 2px;margin:1px;background-color:{colour(tint)}"
    beneath = f'<br><span style="{STYLES["quiet"]}">{escape(note)}</span>'
    return f'<span style="{style}" title="{escape(tooltip)}">{escape(text) or "&nbsp;"}{beneath}</span>'


def image(figure: Any, alt: Inline, width: int) -> str:
    source = base64.b64encode(png(figure)).decode()
    return f'<img src="data:image/png;base64,{source}" alt="{escape(plain(alt))}" width="{width}">'


def bar(part: Bar) -> str:
    piece = "display:inline-block;height:10px;width:{:.2f}%;background-color:{}"
    rest = 1 - min(1.0, sum(share for share, *_ in part.segments))
    free = [(rest, "rgba(128,128,128,0.18)", "")] if rest > 0 and part.columns else []
    pieces = "".join(
        f'<span title="{escape(name)}" style="{piece.format(100 * share, colour(shade))}"></span>'
        for share, shade, name in [*part.segments, *free]
    )
    frame = f"display:inline-block;width:{part.width}px;max-width:100%;margin-left:6px"
    return f'<span style="{frame};white-space:nowrap;font-size:0;text-align:left">{pieces}</span>'


def tree(node: Tree, marks: bool, quiet: bool = False) -> str:
    """Nested `<details>`, which fold with no kernel. `quiet` is whether a branch around it is grey already."""
    inside = f'<div style="{INSIDE}">{blocks(node.parts, marks)}</div>' if node.parts else ""
    inside += "".join(tree(child, marks, quiet or node.quiet) for child in node.children)
    style = f"{INSIDE};opacity:{BRANCH}" if node.quiet and not quiet else INSIDE
    head = inline(node.head, marks)
    return f'<details{" open" * node.opened} style="{style}"><summary>{head}</summary>{inside}</details>'
