"""Markdown of answers: what it makes of them, and what it leaves as it is."""

import re

import pytest
from markdown_it import MarkdownIt

from jupyter_gpt.report.markdown import DEEP, MOST, Element, parse
from jupyter_gpt.report.parts import Markdown, Paragraph, Varies
from jupyter_gpt.report.report import Report


def html(text: str, cursor: str = "") -> str:
    """The HTML without its styles."""
    found = re.sub("<!--.*?-->", "", Report("", [Paragraph(Markdown(text, cursor))]).html)
    return re.sub(r' (style|rel|title)="[^"]*"', "", found).removeprefix("<div>").removesuffix("</div>")


@pytest.mark.parametrize(
    "text",
    [
        "2*3*4 = 24",
        "2 * 3 * 4",
        "x**2 + y**2 = (2*3)*4",
        "*2*3",
        "__init__ and a_b_c and _private_",
        "#### 72",
        "# of apples: 5",
        "#hashtag",
        "12.",
        "-",
        "1.5",
        r"\(x^2\), \[y\], \frac{a}{b} and $a_1 * b_2$",
        "text\n===",
        "def f(x):\n    return x\nend",
        "&lt;b&gt; and &amp;",
        "<b>bold</b> <script>alert(1)</script>",
        "[1]: http://x.org",
        "[x](javascript:alert(1)) [y](data:text/html,z) [z](file:///etc/passwd) [w](//x.org)",
        "**Note:**that",
        "> " * (DEEP + 20) + "deep",
        "# x\n" + "*a* " * MOST,
    ],
)
def test_what_is_no_markup_stays_as_it_is(text):
    assert "".join(each if isinstance(each, str) else "\n" for each in parse(text)[0].inside) == text
    assert len(parse(text)) == 1 and {each.tag for each in parse(text)[0].inside if isinstance(each, Element)} <= {"br"}
    assert Report("", [Paragraph(Markdown(text))]).text == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**bold**, *it* and `2*3*4`", "<p><b>bold</b>, <i>it</i> and <code>2*3*4</code></p>"),
        ("a\nb\n\nc", "<p>a<br>b</p><p>c</p>"),
        ("**粗体**文字", "<p><b>粗体</b>文字</p>"),
        (r"2\*3\`", "<p>2*3`</p>"),
        ("## 1. Title\nx", "<p><b>1. Title</b></p><p>x</p>"),
        ("1. a\n3. b", '<ol><li value="1">a</li><li value="3">b</li></ol>'),
        ("- a\n  - b", "<ul><li>a<ul><li>b</li></ul></li></ul>"),
        ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("> *q*\n---", "<blockquote><p><i>q</i></p></blockquote><hr>"),
        ("```python\nif a < b:\n    x*y*z\n\n\n```", "<pre>if a &lt; b:\n    x*y*z\n\n</pre>"),
        ("```\nunfinished", "<pre>unfinished</pre>"),
        ("[a](https://x.org/?q=\"'b)", '<p><a href="https://x.org/?q=%22\'b">a</a></p>'.replace("'", "&#x27;")),
        ("![alt](http://x.org/y.png)", '<p>!<a href="http://x.org/y.png">alt</a></p>'),
        (
            "| a | b |\n|---|--:|\n| 1 | *2* |",
            "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td><i>2</i></td></tr></table>",
        ),
    ],
)
def test_what_is_markup_is_drawn(text, shown):
    assert html(text) == shown


def test_the_cursor_stands_in_the_block_that_grows():
    assert html("**a** b", " ▌") == "<p><b>a</b> b ▌</p>"
    assert html("```\nx", " ▌") == "<pre>x ▌</pre>"
    assert Report("", [Paragraph(Varies(Markdown("«a»", " ▌")))]).text == "«‹a› ▌»"


def test_what_no_rule_of_ours_touches_reads_as_commonmark_has_it():
    text = "# Title\n\nA *b* **c** `d` [e](http://f.org).\n\n- g\n- h\n\n> i\n\n```\nj\n```\n\n***\n\n* k\n    * l\n"
    expected = MarkdownIt().render(text).replace("<h1>Title</h1>", "<p><b>Title</b></p>").replace(" /", "")
    expected = expected.replace("strong>", "b>").replace("em>", "i>")
    expected = expected.replace("<pre><code>", "<pre>").replace("</code></pre>", "</pre>")
    assert re.sub(r"\s*\n\s*", "", html(text)) == re.sub(r"\s*\n\s*", "", expected)
