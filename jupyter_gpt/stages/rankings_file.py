"""Rankings that were made elsewhere: a file of one a line, as kept here or as pairs of `chosen` and `rejected`.

The pairs are the preference format of the field (datasets for DPO and reward models): `prompt` a text or messages of
one turn, `chosen` and `rejected` texts or the one message that answered.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.rankings import Ranking, from_line, scan


def read(file: str | Path) -> tuple[list[Ranking], str | None]:
    """The rankings of `file`, and what there is to say of it: that its last line was cut off.

    Raises GPTError when there is no such file, nothing in it, or a line anywhere else is no ranking.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise GPTError(f"--rankings {file}: there is no such file")
    found, torn = scan(path, path.stem, partial(line, by=path.stem))
    if not found:
        raise GPTError(f"--rankings {file}: there is no whole ranking in it")
    note = f"{file} was cut off in the middle of its line {torn}: the {len(found)} before it were taken"
    return found, note if torn else None


def line(text: str, by: str) -> Ranking:
    """The ranking of one line. Raises ValueError, KeyError or TypeError when it is none."""
    found = json.loads(text)
    if "chosen" not in found:
        return from_line(text)
    texts = [content(found["chosen"]), content(found["rejected"])]
    completions = tuple({"model": "", "text": each, "seed": 0} for each in texts)
    return Ranking(content(found["prompt"]), completions, ((0,), (1,)), (0, 1), by)


def content(said: str | list) -> str:
    """A text, or that of a list with one message."""
    if isinstance(said, str):
        return said
    [message] = said
    return message["content"]
