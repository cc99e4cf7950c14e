"""Replacing the texts of techniques for the notebooks of this folder (`%gpt config template`).

A text keeps its `{holes}`: one that the technique does not fill, or that lacks one it needs, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.prompting.ask import HOLE, replaced_templates, templates_file

MODULES = {
    "cot": "chain_of_thought",
    "expert": "expert",
    "reflection": "reflection",
    "tree": "tree_of_thoughts",
    "react": "react",
    "agent": "task_list",
}


def defaults(technique: str) -> Mapping[str, str]:
    """A technique's texts as its file has them. Raises GPTError for an unknown technique."""
    if technique not in MODULES:
        raise GPTError(f"no technique {technique} has templates{nearest(technique, MODULES)}")
    return import_module(f"jupyter_gpt.prompting.{MODULES[technique]}").TEMPLATES


def current(technique: str) -> dict[str, str]:
    """A technique's texts as they are used now."""
    return {**defaults(technique), **replaced_templates().get(technique, {})}


def replace(technique: str, name: str, text: str | None) -> None:
    """Use `text` for the template `name` of a technique in this folder; None restores the default.

    Raises GPTError for an unknown name, an unknown hole, or a missing one.
    """
    texts = defaults(technique)
    if name not in texts:
        raise GPTError(f"{technique} has no template {name}{nearest(name, texts)}")
    if text is not None:
        check(technique, name, texts[name], text)
    replaced = replaced_templates()
    mine = {**replaced.pop(technique, {}), name: text}
    mine = {key: value for key, value in mine.items() if value is not None}
    everything = replaced | ({technique: mine} if mine else {})
    store.write_text(templates_file(), json.dumps(everything, ensure_ascii=False, indent=1))


def check(technique: str, name: str, original: str, text: str) -> None:
    """Raises GPTError if a text's holes are not those of the template it replaces."""
    known, used = set(HOLE.findall(original)), set(HOLE.findall(text))
    unknown = sorted(used - known)
    if unknown:
        has = ", ".join(f"{{{hole}}}" for hole in sorted(known)) or "no holes"
        raise GPTError(f"the template {name} of {technique} has {has}, and nothing fills {{{unknown[0]}}}")
    if text and "question" in known - used:
        raise GPTError(f"the template {name} of {technique} needs {{question}}: without it the question would be lost")
