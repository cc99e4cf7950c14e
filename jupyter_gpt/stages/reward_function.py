"""Rewards that a user's function gives: one completion at a time, `f(prompt, completion)`, or all at once,
`f(prompts, completions)`, and in both ways with those columns of the prompts' rows that it names as parameters. Where
prompt and completion stand elsewhere, as in `f(completion, answer)`, they are passed by name. None stands for a
completion to which a reward does not apply.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jupyter_gpt.errors import GPTError

LARGEST = 1e18  # of a reward: its square is still a number in fp32
SLICE = 0.25  # seconds of a user's function between two looks at the controls of the run
PASSED = ("finish_reason", "completion_ids")  # what is passed beside columns
TOGETHER = ("prompts", "completions", "finish_reasons")  # and to a function that takes all completions at once


class Parameters(NamedTuple):
    """Of a reward function: whether it takes all completions at once; the columns it names, and those of them that it
    cannot do without; whether it takes any others; which of prompt and completion it takes by name, and not as its
    first two."""

    batched: bool
    named: list[str]
    required: list[str]
    every: bool
    asked: tuple[str, ...] = ()


def parameters_of(function: Callable, known: Iterable[str] = ()) -> Parameters:
    """Those of a function, where `known` are the columns there are."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have none
        return Parameters(False, [], [], False)
    every = any(p.kind is p.VAR_KEYWORD for p in found)
    batched = any(p.name == "completions" for p in found)
    names, asked = [p.name for p in found if p.kind is not p.POSITIONAL_ONLY], ()
    elsewhere = "prompt" in names[1:] or "completion" in [*names[:1], *names[2:]]
    if not batched and (elsewhere or (names[1:2] == ["completion"] and names[0] in known)):
        asked = tuple(name for name in ("prompt", "completion") if name in names)
    rest = [p for p in found if p.name not in asked] if batched or asked else found[2:]
    columns = [p for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    passed = (*PASSED, *TOGETHER) if batched else PASSED
    required = [p.name for p in columns if p.default is p.empty and p.name not in passed]
    return Parameters(batched, [p.name for p in columns], required, every, asked)


def check_columns(name: str, function: Callable, columns: Mapping[str, Mapping]) -> None:
    """Raises GPTError for a function that asks for a column that no row has."""
    known = sorted({key for row in columns.values() for key in row})
    if missing := [wanted for wanted in parameters_of(function, known).required if wanted not in known]:
        has = f"have {', '.join(known)}" if known else "are texts alone"
        raise GPTError(f"reward {name} asks for {', '.join(missing)}, but the prompts {has}")


def rewards_of(
    name: str,
    function: Callable,
    columns: Mapping[str, Mapping[str, Any]],
    prompts: Sequence[str],
    completions: Sequence[str],
    finished: Sequence[bool],
    ids: Sequence[Sequence[int]],
) -> list[float]:
    """The rewards of the first completions: as many as SLICE seconds allow, at least one; all at once if the function
    takes them so. `columns` are by prompt, `ids` the tokens of the completions; NaN is for None. Raises GPTError for
    what is not as many finite numbers."""
    known = {key for prompt in prompts for key in columns.get(prompt, ())}
    batched, named, required, every, asked = parameters_of(function, known)
    rows = [
        {**columns.get(prompt, {}), "finish_reason": "stop" if whole else "length", "completion_ids": list(tokens)}
        for prompt, whole, tokens in zip(prompts, finished, ids, strict=True)
    ]
    if batched:
        keys = dict.fromkeys([key for row in rows for key in row] + required)
        given = {"prompts": list(prompts), "completions": list(completions)}
        given |= {key: [row.get(key) for row in rows] for key in keys}
        given["finish_reasons"] = given["finish_reason"]
        answer: Any = function(**{key: value for key, value in given.items() if every or key in named})
        listed = isinstance(answer, Iterable) and not isinstance(answer, str | bytes | Mapping)
        listed = listed and getattr(answer, "ndim", 1) > 0  # an array of no dimension is one number
        found = list(answer) if listed else []
        if len(found) != len(completions):
            count = f"{len(completions)} numbers, one for each completion"
            raise GPTError(f"reward {name} must return {count}, got {len(found) if listed else repr(answer)[:40]}")
        return [number(name, *each) for each in zip(found, prompts, completions, strict=True)]
    rewards, until = [], time.monotonic() + SLICE
    for prompt, completion, row in zip(prompts, completions, rows, strict=True):
        own = row if every else {key: row.get(key) for key in named if key in row or key in required}
        if asked:
            both = {"prompt": prompt, "completion": completion}
            answer = function(**own | {key: both[key] for key in asked})
        else:
            answer = function(prompt, completion, **own)
        rewards.append(number(name, answer, prompt, completion))
        if time.monotonic() > until:
            break
    return rewards


def number(name: str, answer: Any, prompt: str, completion: str) -> float:
    """The answer of a function as a float, NaN for None. Raises GPTError for what is not a finite number."""
    if answer is None:
        return math.nan
    try:
        value = float(answer)
    except (TypeError, ValueError):
        value = math.nan
    if not abs(value) <= LARGEST:
        raise GPTError(
            f"reward {name} must return a finite number, at most {LARGEST:g} in size, got "
            f"{str(answer)[:40]!r} for the completion {completion[:40]!r} of {prompt[:40]!r}"
        )
    return value
