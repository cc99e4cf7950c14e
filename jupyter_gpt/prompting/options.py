"""The options of techniques: those of `gpt.prompt` and `gpt.agent`, and the same as a technique reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import InstanceOf

from jupyter_gpt import options
from jupyter_gpt.options import Count, Positive, Rank, option
from jupyter_gpt.prompting.answers import ANY, Form
from jupyter_gpt.prompting.tools.approval import Toolset


def rounds(text: str) -> int:
    """The value of --reflect: 1 if none is given. Raises ValueError that says what is expected instead."""
    if text and not text.isdecimal():
        raise ValueError("a whole number (such as 2)")
    return int(text or 1)


class Techniques(options.Options):
    """Techniques of prompting."""

    group: ClassVar[str] = "Techniques"

    cot: bool = option(
        False,
        "chain of thought: the model writes its steps first, then the answer is extracted; --few-shot gives worked "
        "examples. A constraint such as --regex applies to the answer only, not to the steps",
    )
    vote: bool = option(False, "self-consistency, with --samples N: the answer that most samples reach")
    best_of: Callable | str | None = option(
        None,
        "with --samples N: the answer scored highest, by f(prompt, completion) or by a reward model",
        "$REWARD|MODEL",
        variable=True,
        complete="models",
    )
    reflect: Rank = option(
        0,
        "rounds of reflection (1 without N): the model is asked whether the answer does what was asked, and revises "
        "it. Without --check the model judges itself, which often makes answers to questions with a right answer worse",
        "N",
        kind=rounds,
        optional=True,
    )
    check: Callable | None = option(
        None,
        "with --reflect: f(prompt, answer) returns True if the answer is right, else what is wrong in words",
        "$FUNCTION",
        variable=True,
    )
    tree: bool = option(False, "tree of thoughts: propose steps, score them, keep the best, backtrack from dead ends")
    breadth: Count = option(5, "with --tree: steps proposed from each state, and states kept on each level", "B")
    depth: Count = option(3, "with --tree: maximum number of steps", "D")
    search: Literal["bfs", "dfs", "beam"] = option(
        "bfs",
        "with --tree: level by level by each state's score (bfs), by the sum of scores (beam), or the best step "
        "first (dfs)",
    )
    value: Callable | None = option(
        None,
        "with --tree: f(prompt, steps so far), higher is better, 0 is a dead end (default: the model says sure, likely "
        "or impossible)",
        "$FUNCTION",
        variable=True,
    )
    expert: str | bool = option(
        False,
        "ask the model to answer as a leading expert (in FIELD), step by step to be sure",
        "FIELD",
        kind=lambda text: text or True,
        optional=True,
    )


class Budget(options.Options):
    """Limits of a technique; None: no limit."""

    group: ClassVar[str] = "Budgets"

    max_calls: Count | None = option(None, "maximum number of requests", "N")
    max_tokens_total: Count | None = option(None, "maximum number of tokens, prompts and answers together", "N")
    max_seconds: Positive | None = option(None, "time limit in seconds", "S")
    max_cost: Positive | None = option(None, "maximum cost in dollars; for endpoints with a known price", "DOLLARS")


class Options(Techniques):
    """The options of one prompt as its techniques read them.

    few_shot: pairs of question and worked answer; with tools, of question and ReAct run; for an agent also of goal and
    numbered list. toolset: the tools of `--react`. tasks: maximum number of tasks of an agent; 0: no agent. levels:
    maximum depth of its lists. trigger: the words that start a chain of thought, in place of its template. constraint:
    regex, json, choice or grammar of the answer, as `gpt.prompt` takes them; it does not apply to reasoning. form: the
    kind of answer, if known (`prompting.answers`).
    """

    samples: Count = 1
    few_shot: Any = ()
    toolset: InstanceOf[Toolset] | None = None
    tasks: Rank = 0
    levels: Count = 2
    trigger: str = ""
    constraint: Mapping = {}
    form: InstanceOf[Form] = ANY

    @cached_property
    def rule(self):
        """The constraint as a `Rule`, None if there is none."""
        from jupyter_gpt.inference.rules import rule

        return rule(**self.constraint) if self.constraint else None
