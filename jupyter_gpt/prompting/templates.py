"""The texts of the techniques, those that were replaced for the notebooks of this folder among them.

`templates.json` in the store holds what was replaced: technique -> name -> text. A text keeps its `{holes}`: one that
the technique does not fill, or that lacks one it needs, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.prompting.ask import HOLE

FILE = "templates.json"
WHERE = {
    "cot": "chain_of_thought",
    "expert": "expert",
    "reflection": "reflection",
    "tree": "tree_of_thoughts",
    "react": "react",
    "agent": "task_list",
}


def own(technique: str) -> Mapping[str, str]:
    """A technique's texts as its file has them. Raises GPTError for an unknown technique."""
    if technique not in WHERE:
        raise GPTError(f"no technique {technique} has templates{nearest(technique, WHERE)}")
    return import_module(f"jupyter_gpt.prompting.{WHERE[technique]}").TEMPLATES


def file() -> Path:
    return store.home() / FILE


def all_of() -> dict[str, dict[str, str]]:
    """All that was replaced, by technique. Raises GPTError for a file that somebody wrote something else into."""
    if not file().exists():
        return {}
    try:
        found = json.loads(file().read_text(encoding="utf-8"))
        return {technique: {name: str(text) for name, text in texts.items()} for technique, texts in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise GPTError(
            f"{file()} is damaged ({error}): repair it, or delete it to have the own templates back"
        ) from error


def current(technique: str) -> dict[str, str]:
    """A technique's texts as they are used now."""
    return {**own(technique), **all_of().get(technique, {})}


def replace(technique: str, name: str, text: str | None) -> None:
    """Use `text` for the template `name` of a technique in this folder; None goes back to its own.

    Raises GPTError for an unknown name, an unknown hole, or a hole that is missing.
    """
    texts = own(technique)
    if name not in texts:
        raise GPTError(f"{technique} has no template {name}{nearest(name, texts)}")
    if text is not None:
        check(technique, name, texts[name], text)
    kept = all_of()
    mine = {**kept.pop(technique, {}), name: text}
    mine = {key: value for key, value in mine.items() if value is not None}
    store.write_text(file(), json.dumps(kept | ({technique: mine} if mine else {}), ensure_ascii=False, indent=1))


def check(technique: str, name: str, original: str, text: str) -> None:
    """Raises GPTError where a text's holes are not those of the template it replaces."""
    known, used = set(HOLE.findall(original)), set(HOLE.findall(text))
    unknown = sorted(used - known)
    if unknown:
        has = ", ".join(f"{{{hole}}}" for hole in sorted(known)) or "no holes"
        raise GPTError(f"the template {name} of {technique} has {has}, and nothing fills {{{unknown[0]}}}")
    if text and "question" in known - used:
        raise GPTError(f"the template {name} of {technique} wants {{question}} somewhere: the question would be lost")
