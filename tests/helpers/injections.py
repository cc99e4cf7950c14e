"""Known ways to smuggle a script, a page or an address into a report. Each sets `window.hacked` where it runs.

After OWASP's cheat sheet on filter evasion and PortSwigger's on cross-site scripting.
"""

from jupyter_gpt.report import charts
from jupyter_gpt.report.parts import (
    Alarm,
    Bar,
    Boxes,
    Chart,
    Curves,
    Figures,
    Folded,
    Markdown,
    Paragraph,
    Samples,
    Span,
    Table,
    Tree,
    Varies,
)
from jupyter_gpt.report.report import Report

JS = "window.hacked=1"
INJECTIONS = (
    f"<script>{JS}</script>",
    f"<SCRIPT>{JS}</SCRIPT>",
    f"<scr<script>ipt>{JS}</scr</script>ipt>",
    f"</script><script>{JS}</script>",
    f"<script\n>{JS}</script\n>",
    f"<img src=x onerror={JS}>",
    f"<img src=x onerror='{JS}'>",
    f'<IMG """><SCRIPT>{JS}</SCRIPT>">',
    f"<img/src='x'/onerror={JS}>",
    f"<image src=x onerror={JS}>",
    f"<body onload={JS}>",
    f"<svg onload={JS}>",
    f"<svg/onload={JS}//",
    f"\"><svg onload='{JS}'>",
    f'\'><svg onload="{JS}">',
    f"<svg><script>{JS}</script></svg>",
    f"<svg><animate onbegin={JS} attributeName=x dur=1s>",
    f"<svg><set attributeName=href to=javascript:{JS} /><a><text>x</text></a></svg>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={JS}>",
    f"<iframe src=javascript:{JS}></iframe>",
    "</style></textarea><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    f"<object data=javascript:{JS}></object>",
    f"<embed src=javascript:{JS}>",
    f"<a href=javascript:{JS} autofocus onfocus={JS}>x</a>",
    f"<a href=' &#14; javascript:{JS}'>x</a>",
    f"<input autofocus onfocus={JS}>",
    f"<details open ontoggle={JS}>",
    f"<video><source onerror={JS}></video>",
    f"<marquee onstart={JS}>",
    f"<form><button formaction=javascript:{JS}>x</button></form>",
    f"<meta http-equiv=refresh content='0;javascript:{JS}'>",
    f"<base href=javascript:{JS}//>",
    f"<link rel=stylesheet href=javascript:{JS}>",
    f"<style>@import 'javascript:{JS}';</style>",
    f"<!--><img src=x onerror={JS}>-->",
    f"--><img src=x onerror={JS}><!--",
    f"<!--«--><img src=x onerror={JS}><!--»-->",
    f"«<img src=x onerror={JS}>»",
    f"javascript:{JS}",
    f"red;background:url(javascript:{JS})",
    f'red" onmouseover="{JS}',
    "expression(window.hacked=1)",
    f"[x](javascript:{JS})",
    f"[x](JaVaScRiPt:{JS} 'y')",
    "[x](data:text/html;base64,PHNjcmlwdD5wYXJlbnQuaGFja2VkPTE8L3NjcmlwdD4=)",
    f"[x](vbscript:{JS})",
    f'[x](https://x.org/"onmouseover="{JS})',
    f"![x](javascript:{JS})",
    f'![x](x" onerror="{JS})',
    f"<javascript:{JS}>",
    f"[x]: javascript:{JS}\n\n[x]",
    f"```html onload={JS}\n<script>{JS}</script>\n```",
    f"`<img src=x onerror={JS}>`",
    f"| <script>{JS}</script> |\n|---|\n| <img src=x onerror={JS}> |",
    f"&lt;script&gt;{JS}&lt;/script&gt;",
    f"\\<script\\>{JS}\\</script\\>",
    f"\x00<script\x00>{JS}</script>",
    f"<img src=x:alert(alt) onerror=eval(src) alt={JS}>",
    "{{constructor.constructor('window.hacked=1')()}}",
    f"<template><script>{JS}</script></template>",
    f"<div style=background:url(javascript:{JS})>",
    f"<x onclick={JS} tabindex=1 id=x>",
)


def everywhere(text: str) -> Report:
    """The text in every field of every part."""
    span = Span([text, Varies(text)], text, text, text)
    inside = [Paragraph([text, span, Bar([(0.5, text, text)], columns=5)], text), Alarm(text), Alarm(span)]
    names = (text, text)
    panel = charts.Panel(text, [(1, 1.0), (2, 2.0)], [(2, 1.0)], names=names, others=[(text, [(1, 2.0)])], run=text)
    shown = charts.Bars(text, [1.0, 9.0], [text], top=3.0, cut=text)
    plots = [
        charts.Scatter([charts.Group(text, [(1, 1)], text, names, written=True)] * 2, text, text),
        charts.BarChart(names, [shown, shown], text, True),
        charts.BarChart(names, [shown]),
        charts.Matrix(names, names, [[1, 2], [3, 4]], text, text),
    ]
    return Report(
        text,
        [
            *inside,
            Paragraph([Markdown(text), Varies(Markdown(f"- {text}\n\n> {text}"))], "block"),
            Figures([(text, span)]),
            Table((text, span), [(text, span), (span, Markdown(text))], "lr", True),
            Samples((text, span), [(text, (text, span))]),
            Boxes([(text, text, text, text), None]),
            *(Chart(plot, text) for plot in plots),
            Curves([panel, panel], text, name=text),
            Folded(text, inside),
            Tree(span, inside, [Tree(text, inside)]),
        ],
        {"view": text},
        {"trace": {text: text}},
    )
