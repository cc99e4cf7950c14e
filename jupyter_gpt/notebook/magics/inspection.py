"""Shift+Tab inside our magics: what the word at the cursor means, and what is wrong in its line."""

from __future__ import annotations

import re

from jupyter_gpt.errors import GPTError
from jupyter_gpt.notebook.lexer import QUOTES, split
from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.options import Command, due, explanation, help_text, parse
from jupyter_gpt.notebook.magics.verbs import VERBS

CELL = re.compile(rf"%%({'|'.join(CELLS)})(?!\S)")
LINE = re.compile(r"[ \t]*(?:[A-Za-z_][\w, \t]*=[ \t]*)?%gpt[ \t]+(\w+)")


def load(ip) -> None:
    """Has the kernel of a shell, if it has one, answer for our magics: IPython inspects nothing but names."""
    kernel = getattr(ip, "kernel", None)
    if kernel is None:
        return
    usual = kernel.do_inspect

    def do_inspect(code: str, cursor_pos: int, *more, **keywords):
        text = explained(code, cursor_pos)
        if text is None:
            return usual(code, cursor_pos, *more, **keywords)
        return {"status": "ok", "found": True, "data": {"text/plain": text}, "metadata": {}}

    kernel.do_inspect = do_inspect


def unload(ip) -> None:
    kernel = getattr(ip, "kernel", None)
    if kernel is not None:
        vars(kernel).pop("do_inspect", None)


def explained(cell: str, cursor: int) -> str | None:
    """Of a magic its help; of an option, or its value, the lines of the help about it. None outside our magics."""
    start = cell.rfind("\n", 0, cursor) + 1
    line = cell[start:].split("\n", 1)[0]
    found = CELL.match(line) if not cell[:start].strip() else None
    magic = CELLS[found[1]] if found else VERBS.get(found[1]) if (found := LINE.match(line)) else None
    if found is None or magic is None:
        return None
    rest, column = line[found.end() :], cursor - start - found.end()
    problem = problem_of(magic.COMMAND, rest)
    word = word_of(magic.COMMAND, rest, column) if column > 0 else help_text(magic.COMMAND)
    return "\n\n".join(filter(None, (problem, word))) or help_text(magic.COMMAND)


def problem_of(command: Command, line: str) -> str:
    """The error that running the line would raise; empty for none, and for a line that asks for help."""
    if re.search(r"(?<!\S)(--help|-h)(?!\S)", line):
        return ""
    try:
        parse(command, line)
    except GPTError as error:
        return str(error)
    return ""


def word_of(command: Command, line: str, column: int) -> str:
    """The explanation of the word at a column of what follows the magic; empty where there is none."""
    end = re.compile(r"[^\s=]*").match(line, column)
    words = words_of(line[: end.end() if end else column])
    name = words[-1].partition("=")[0] if words else ""
    option = command.flags.get(name) if name.startswith("--") else due(command, words[:-1])
    return "\n".join(explanation(option)) if option and words else ""


def words_of(line: str) -> list[str]:
    """The words of the beginning of a line, which may end within quotes or brackets."""
    for close in ("", *QUOTES.values(), "}", "]"):
        try:
            return [word.text for word in split(line + close)]
        except GPTError:
            continue
    return []
