"""How tests read what a report renders to: as nbval compares it, and as a reader sees it."""

import html
import re
from html.parser import HTMLParser

from helpers import TESTS

RULES = re.findall(r"regex: (.*)\nreplace: ?(.*)", (TESTS / "nbval.cfg").read_text("utf-8"))


def folded(text: str) -> str:
    """Text or HTML as nbval compares it."""
    for regex, replace in RULES:
        text = re.sub(regex, replace, text)
    return text


def visible(source: str) -> str:
    """What a reader sees of HTML: its text, each table cell and line apart; there is no ≈ of ours in it and no «»."""
    source = re.sub(r"<(br|/td|/th|/p|/summary)>", "\n", re.sub(r"<!--.*?-->", "", source))
    return html.unescape(re.sub(r"<[^>]*>", "", source)).replace("\xa0", " ")


class Tags(HTMLParser):
    """The tags that HTML has, and its text."""

    def __init__(self, source: str):
        super().__init__()
        self.seen, self.text = set(), ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)

    def handle_data(self, data):
        self.text += data
