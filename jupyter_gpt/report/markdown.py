"""Markdown of models' answers as a small tree of elements, which html.py and the renderer in JupyterLab draw.

CommonMark with tables, read so that nothing an answer says is lost or changed where it meant no markup:

- emphasis is by asterisks and never inside a word: `2*3*4`, `x**2`, `__init__` and `a_b_c` stand as they are;
- a single line break is one, and the spaces at the beginning of a line stay;
- a backslash escapes only an asterisk and a backtick, so that LaTeX keeps its own; `&lt;` is five characters;
- a heading has a letter, and its first one is no small one (`#### 72` is an answer of GSM8K, `# of apples` a count);
- a list item says something (`12.` alone is a number), and keeps the number that it was given;
- HTML is text, images are links, and a link leads to http, https or mailto.

markdown-it is imported where something is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

MOST = 100_000  # characters; a longer text stays as it is
DEEP = 15  # levels: beyond 20 markdown-it leaves out what is there
LINK = re.compile(r"(https?://|mailto:)[^\s]+", re.IGNORECASE)
LETTER = r"0-9A-Za-z\u00c0-\u024f"  # not of Chinese and Japanese, which have no spaces between words
INSIDE_WORD = re.compile(rf"(?<=[{LETTER}])\*+(?=[{LETTER}])")
HEADING = re.compile(r" {0,3}#{1,6}[ \t][^a-z]*[A-Z\u00c0-\U0010ffff]")
ITEM = re.compile(r"[ \t]*(?:[-+*]|\d{1,9}[.)])[ \t]+\S")


class Element(NamedTuple):
    """A tag of `TAGS`, and what is in it. value: of `h` its level, of `a` the address, of `pre` the language, of `li`
    its number, of `th` and `td` the side (l or r).
    """

    tag: str
    inside: tuple[Element | str, ...] = ()
    value: str = ""


Tree: TypeAlias = "tuple[Element | str, ...]"
TAGS = {
    "paragraph": "p",
    "heading": "h",
    "bullet_list": "ul",
    "ordered_list": "ol",
    "list_item": "li",
    "blockquote": "quote",
    "hr": "hr",
    "table": "table",
    "tr": "tr",
    "th": "th",
    "td": "td",
    "strong": "b",
    "em": "i",
    "link": "a",
    "hardbreak": "br",
}


@lru_cache(maxsize=64)
def parse(text: str) -> Tree:
    """The blocks of a text."""
    from markdown_it.tree import SyntaxTreeNode

    if len(text) > MOST:
        return verbatim(text)
    tokens = parser().parse(text)
    if any(token.level > DEEP for token in tokens):
        return verbatim(text)
    return tuple(elements(SyntaxTreeNode(tokens).children))


def verbatim(text: str) -> Tree:
    lines = [part for line in text.split("\n") for part in (Element("br"), line)][1:]
    return (Element("p", tuple(lines)),)


def elements(nodes: Any) -> Iterator[Element | str]:
    for node in nodes:
        match node.type:
            case "text":
                if node.content:
                    yield node.content
            case "code_inline":
                yield Element("code", (node.content,))
            case "fence" | "code_block":
                yield Element("pre", (node.content.removesuffix("\n"),), (node.info.split() or [""])[0])
            case "inline" | "thead" | "tbody":
                yield from elements(node.children)
            case "paragraph" if node.hidden:  # of a tight list
                yield from elements(node.children)
            case _:
                yield Element(TAGS[node.type], tuple(elements(node.children)), value_of(node))


def value_of(node: Any) -> str:
    match node.type:
        case "heading":
            return node.tag[1]
        case "link":
            return str(node.attrs["href"])
        case "list_item":
            return node.info
        case "th" | "td":
            return "r" if "right" in str(node.attrs.get("style", "")) else "l"
    return ""


@cache
def parser() -> Any:
    from markdown_it import MarkdownIt

    found = MarkdownIt("commonmark", {"html": False}).enable("table")
    found.disable(["image", "entity", "html_block", "html_inline", "reference", "lheading"])
    found.validateLink = lambda url: LINK.fullmatch(url) is not None
    block, inline = found.block.ruler, found.inline.ruler
    for name, wanted in (("heading", HEADING), ("list", ITEM)):
        [rule] = [rule for rule in block.__rules__ if rule.name == name]
        block.at(name, only_where(wanted, rule.fn), {"alt": rule.alt})
    inline.at("newline", newline)
    inline.at("escape", escape)
    inline.before("emphasis", "verbatim", no_emphasis)
    return found


def only_where(wanted: re.Pattern[str], rule: Any) -> Any:
    """A rule of blocks, for lines that look like `wanted`."""

    def narrowed(state: Any, start: int, end: int, silent: bool) -> bool:
        line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
        return wanted.match(line) is not None and rule(state, start, end, silent)

    return narrowed


def newline(state: Any, silent: bool) -> bool:
    if state.src[state.pos] != "\n":
        return False
    if not silent:
        state.pending = state.pending.rstrip(" ")
        state.push("hardbreak", "br", 0)
    state.pos += 1
    return True


def escape(state: Any, silent: bool) -> bool:
    if state.src[state.pos] != "\\" or state.src[state.pos + 1 : state.pos + 2] not in ("*", "`"):
        return False
    if not silent:
        state.pending += state.src[state.pos + 1]
    state.pos += 2
    return True


def no_emphasis(state: Any, silent: bool) -> bool:
    """Underscores, and asterisks inside a word."""
    found = INSIDE_WORD.match(state.src, state.pos)
    if found is None and state.src[state.pos] != "_":
        return False
    text = found[0] if found else "_"
    if not silent:
        state.pending += text
    state.pos += len(text)
    return True
