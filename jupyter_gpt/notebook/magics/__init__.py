"""The doors: each magic parses its line and body, calls one function of the session and shows the result."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from IPython.core.magic import no_var_expand

from jupyter_gpt import store
from jupyter_gpt.errors import in_magic
from jupyter_gpt.notebook.magics import gpt, prompting, ranking, training
from jupyter_gpt.notebook.magics.completion import matcher
from jupyter_gpt.notebook.magics.corpus import corpus
from jupyter_gpt.notebook.magics.notebook import cell_id
from jupyter_gpt.notebook.magics.options import help_text
from jupyter_gpt.runs import provenance

CELLS = {
    "agent": prompting.agent,
    "classify": training.classify,
    "compare": ranking.compare,
    "corpus": corpus,
    "pretrain": training.pretrain,
    "prompt": prompting.prompt,
    "rag": prompting.rag,
    "rank": ranking.rank,
    "rlhf": training.rlhf,
    "sft": training.sft,
}
ALONE = re.compile(rf"%%({'|'.join(CELLS)})(\s|$)")


def load(ip) -> None:
    """Registers magics, completion and the empty-body hook with a shell; twice does no harm."""
    unload(ip)
    for name, cell in CELLS.items():
        magic: Any = _cell_magic(ip, name, cell.run)
        magic.getdoc = lambda cell=cell: help_text(cell.COMMAND)  # what `%%sft?` shows; made when it is asked for
        ip.register_magic_function(magic, "cell", name)
    magic = _line_magic(ip, "gpt", gpt.run)
    magic.getdoc = gpt.overview
    ip.register_magic_function(magic, "line", "gpt")
    ip.input_transformers_cleanup.append(fill_empty_body)
    ip.Completer.custom_matchers.append(matcher(ip.user_ns))
    provenance.running_cell = lambda: cell_id(ip)


def unload(ip) -> None:
    """Takes away all that `load` added."""
    kinds = ip.magics_manager.magics
    for kind, names in (("cell", CELLS), ("line", ("gpt",))):
        for name in names:
            kinds[kind].pop(name, None)
    provenance.running_cell = lambda: None
    for hooks in (ip.input_transformers_cleanup, ip.Completer.custom_matchers):
        hooks[:] = [hook for hook in hooks if not getattr(hook, "__module__", "").startswith("jupyter_gpt.")]


def fill_empty_body(lines: list[str]) -> list[str]:
    """Gives our cell magics a blank line for a body: IPython refuses an empty one before our code runs."""
    if lines and ALONE.match(lines[0]) and not "".join(lines[1:]).strip():
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines


def _cell_magic(ip, name: str, run: Callable) -> Callable:
    @no_var_expand  # IPython would expand the braces of JSON, and drop every $name it does not know
    def magic(line: str, cell: str) -> None:
        with in_magic(), store.writing(f"%%{name}"):
            run(ip, line, cell)

    magic.__name__ = name
    return magic


def _line_magic(ip, name: str, run: Callable) -> Callable:
    @no_var_expand
    def magic(line: str) -> None:
        with in_magic(), store.writing(f"%{name}"):
            run(ip, line)

    magic.__name__ = name
    return magic
