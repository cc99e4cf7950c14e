"""Tab completion inside our magics: options, choices, names on disk, sources in a body.

Reads nothing but the line, the notebook's variables and directory listings: no import of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from jupyter_gpt.notebook.magics.cells import CELLS
from jupyter_gpt.notebook.magics.options import Command, Option, due
from jupyter_gpt.notebook.magics.verbs import VERBS, command

MIXTURES = ("%%corpus", "%%pretrain", "%%sft")  # whose bodies name sources


def matcher(variables: Mapping[str, object]):
    """A completion matcher for a notebook whose variables are these; silent outside our magics."""

    @context_matcher(identifier="jupyter_gpt")
    def complete(context: CompletionContext) -> SimpleMatcherResult:
        before = context.line_with_cursor[: context.cursor_position]
        fragment, found = candidates(context.full_text, context.cursor_line, before, variables)
        matches = [SimpleCompletion(text, type=kind) for text, kind in found if text.startswith(fragment)]
        return SimpleMatcherResult(completions=matches, matched_fragment=fragment, suppress=True)

    return complete


def candidates(cell: str, line: int, before: str, variables: Mapping[str, object]) -> tuple[str, list[tuple[str, str]]]:
    """What is being typed, and all that could stand there as (text, type).

    cell: the whole cell; line: the cursor's line, from 0; before: that line up to the cursor.
    """
    fragment = re.split(r"[\s=]", before)[-1]
    top = next((i for i, text in enumerate(cell.split("\n")) if text.strip()), 0)
    magic = cell.split("\n")[top].split(" ")[0].strip()
    cell_magic = CELLS.get(magic.removeprefix("%%")) if magic.startswith("%%") else None
    words = before[: len(before) - len(fragment)].replace("=", " ").split()
    if cell_magic and line > top:
        at_start = not words and "=" not in before and magic in MIXTURES
        return fragment, _sources(magic, fragment, variables) if at_start else []
    if cell_magic and line == top and words[:1] == [magic]:
        return fragment, _options(cell_magic.COMMAND, words[1:], fragment, variables)
    if words[:1] == ["%gpt"]:
        return fragment, _verb(words[1:], fragment, variables)
    return fragment, []


def _verb(words: list[str], fragment: str, variables: Mapping[str, object]) -> list[tuple[str, str]]:
    if not words or words == ["help"]:
        return _typed((*VERBS, *(() if words else ("help",))), "verb")
    return _options(command(words[0]), words[1:], fragment, variables) if words[0] in VERBS else []


def _options(
    command: Command, words: list[str], fragment: str, variables: Mapping[str, object]
) -> list[tuple[str, str]]:
    """The values of the option at the cursor; otherwise the options not given yet, or the next positional argument."""
    option = due(command, words)
    wanted = option is not None and option.name in words[-1:]
    if fragment.startswith("-") and not wanted:
        options = [o.name for o in command.flags.values() if o.many or o.name not in words]
        return _typed([*options, "--help"], "option")
    return _values(option, fragment, variables) if option else []


def _values(option: Option, fragment: str, variables: Mapping[str, object]) -> list[tuple[str, str]]:
    if fragment.startswith("$"):
        return _variables(variables, functions=option.kept and option.complete in ("models", "tools"))
    if option.complete == "files":
        return _files(fragment)
    return _typed((*option.choices, *option.hints), "choice") + _typed(names(option.complete), "name")


def names(what: str) -> list[str]:
    """The names of the "models", "runs", "corpora", "rankings" or "indexes" on disk, or of "everything" but corpora;
    pulled models and endpoints are models too.
    """
    from jupyter_gpt.models.models import Models
    from jupyter_gpt.store import home

    if what == "models":
        return list(Models(before_use=None))  # to list them loads none
    if what == "everything":
        return sorted({name for kind in ("models", "runs", "rankings", "indexes") for name in names(kind)})
    folder = home() / what if what else None
    if folder is None or not folder.is_dir():
        return []
    if what in ("corpora", "rankings"):
        return sorted(path.stem for path in folder.glob("*.yaml" if what == "corpora" else "*.jsonl"))
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _sources(magic: str, fragment: str, variables: Mapping[str, object]) -> list[tuple[str, str]]:
    if fragment.startswith("$"):
        return _variables(variables)
    from jupyter_gpt.data.conversations import GENERATED
    from jupyter_gpt.data.sources import EMBEDDED

    known = GENERATED if magic == "%%sft" else EMBEDDED
    return _typed([*(f"{name}: " for name in known), "hf:"], "source") + _files(fragment)


def _variables(variables: Mapping[str, object], functions: bool = False) -> list[tuple[str, str]]:
    """`$name` of every variable that is data, or with `functions` can be called: no module, nothing of IPython's."""
    usual = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    return _typed(
        [
            f"${name}"
            for name, value in variables.items()
            if not (name.startswith("_") or name in usual or isinstance(value, ModuleType))
            and callable(value) == functions
        ],
        "variable",
    )


def _files(fragment: str) -> list[tuple[str, str]]:
    """Folders and text files that continue a path; only what is typed decides where to look."""
    from jupyter_gpt.data.files import SUFFIXES

    folder = fragment[: fragment.rfind("/") + 1]
    found = []
    try:
        for path in Path(folder or ".").expanduser().iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                found.append(f"{folder}{path.name}/")
            elif path.suffix.lower() in SUFFIXES:
                found.append(f"{folder}{path.name}")
    except OSError:  # no such folder, or not ours to read: nothing to offer
        return []
    return _typed(sorted(found), "path")


def _typed(texts: Iterable[str], kind: str) -> list[tuple[str, str]]:
    return [(text, kind) for text in texts]
