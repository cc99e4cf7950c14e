"""The magics: each parses its line and body, calls one function of the session and shows the result."""

from __future__ import annotations

import re
from collections.abc import Callable

from IPython.core.magic import no_var_expand

from jupyter_gpt import store
from jupyter_gpt.errors import in_magic
from jupyter_gpt.imports import import_ahead
from jupyter_gpt.notebook import panel
from jupyter_gpt.notebook.magics import inspection, verbs
from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.completion import matcher
from jupyter_gpt.notebook.magics.notebook import cell_id
from jupyter_gpt.notebook.magics.options import help_text
from jupyter_gpt.notebook.views import busy
from jupyter_gpt.runs import provenance

ALONE = re.compile(rf"%%({'|'.join(CELLS)})(\s|$)")
VERB_HELP = re.compile(r"^[ \t]*(?:%gpt[ \t]+(\w+)[ \t]*\?{1,2}|\?{1,2}[ \t]*%gpt[ \t]+(\w+))[ \t]*$", re.MULTILINE)


def load(ip) -> None:
    """Registers magics, completion, inspection, the empty-body hook and the panel's comm; twice does no harm."""
    unload(ip)
    for name, cell in CELLS.items():
        register(ip, "cell", name, cell.run, lambda cell=cell: help_text(cell.COMMAND))
    register(ip, "line", "gpt", verbs.run, verbs.overview)
    ip.input_transformers_cleanup.extend((fill_empty_body, verb_help))
    ip.Completer.custom_matchers.append(matcher(ip.user_ns))
    provenance.running_cell = lambda: cell_id(ip)
    panel.load(ip, command=verbs.describe)
    inspection.load(ip)
    cell = busy.running_cell(ip)
    if cell is not None and cell_id(ip):  # somebody watches
        import_ahead(lambda: cell.request is None)


def unload(ip) -> None:
    """Takes away all that `load` added."""
    panel.unload(ip)
    inspection.unload(ip)
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


def verb_help(lines: list[str]) -> list[str]:
    """Turns `%gpt VERB?` and `?%gpt VERB` into `%gpt help VERB`: IPython would look the verb up as a Python name."""
    return [VERB_HELP.sub(lambda match: f"%gpt help {match[1] or match[2]}", line) for line in lines]


def register(ip, kind: str, name: str, run: Callable, help: Callable[[], str]) -> None:
    """Registers `run(ip, line)`, of a cell magic `run(ip, line, cell)`; `%%name?` shows `help()`."""

    @no_var_expand  # IPython would expand the braces of JSON, and drop every $name it does not know
    def magic(line: str, *cell: str) -> None:
        with in_magic(), store.writing(f"{'%%' if kind == 'cell' else '%'}{name}"):
            run(ip, line, *cell)

    magic.__name__ = name
    magic.getdoc = help  # pyright: ignore[reportFunctionMemberAccess]
    ip.register_magic_function(magic, kind, name)
