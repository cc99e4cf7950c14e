"""Plain text: what a model or a document wrote steers no terminal."""

from jupyter_gpt.report.parts import Figures, Paragraph, Samples, Table, Tree, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.report.text import printable

EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\rb\x08\x7f\x00\tc\nd"
SHOWN = "a␛[2J␛]0;title␇\ufffd31m␍b␈␡␀\tc\nd"


def test_control_characters_are_signs():
    assert printable(EVIL) == SHOWN
    assert printable("Zoë: 三毛, 🙂\t«x»\n") == "Zoë: 三毛, 🙂\t«x»\n"


def test_no_part_of_a_report_lets_them_through():
    parts = [
        Paragraph(Varies(EVIL), "block"),
        Table((EVIL,), [(EVIL,)]),
        Samples(("",), [(EVIL, (EVIL,))]),
        Figures([(EVIL, EVIL)]),
        Tree(EVIL, [], [Tree(EVIL)]),
    ]
    text = Report(EVIL, parts).text
    assert text.count("␛") == 2 * (2 + 2 + 2 + 2 + 2) and not any(
        (c < " " and c not in "\t\n") or "\x7f" <= c < "\xa0" for c in text
    )
