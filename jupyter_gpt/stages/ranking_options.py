"""The options of what asks models the same prompts and a person or a judge for an order: rank, compare and arena."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from jupyter_gpt.options import option
from jupyter_gpt.stages.prompt_options import PromptOptions
from jupyter_gpt.stages.stage import PROMPT_TEXTS

PROMPTS = """
One prompt a line; empty lines are skipped. {variable} is filled from the notebook.
"""


class Ranking(PromptOptions):
    """What rank, compare and arena have in common."""

    group: ClassVar[str] = "Models and rankings"

    groups: ClassVar[tuple[str, ...]] = ("Models and rankings", "Sampling", "Prompt")

    no_form: bool = option(False, "ask for no rankings: only those there are", only="magic")
    tick: Callable | None = option(None, "called with (what, done, total, tokens)", only="python")


class Judged(Ranking):
    """What rank and arena have in common: a judge may take the place of a person."""

    group: ClassVar[str] = "Models and rankings"

    judge: str | Callable | None = option(
        None,
        "a $function(prompt, completion) that scores, higher is better, or a model that is asked for the order, twice, "
        "in opposite orders",
        "JUDGE",
        complete="models",
        variable=True,
    )
    by: str = option("person", "name of the annotator; %%rank shows the agreement of several annotators", "WHO")
    overwrite: bool = option(
        False,
        "ask these prompts in place of those that another cell asked under the same name; rankings given so far are "
        "kept",
    )


class Rank(Judged):
    """a model's answers to each prompt, to be ranked by a person or a judge

    Samples several completions of each prompt and asks in a form which are better: by dragging, by number keys or by
    buttons, ties allowed. Their order is shuffled, and their models are not shown. Each ranking is saved at once, and
    the cell does not wait for a person: the same cell, run again, continues where it stopped, also in a new kernel. A
    reward model is trained on the rankings, and %%rlhf uses that. With --judge or --rankings nobody is asked, so the
    notebook runs without a person.
    """

    group: ClassVar[str] = "Models and rankings"

    magic: ClassVar[str] = "%%rank"
    body_help: ClassVar[str] = (
        PROMPTS
        + """
Keys of the form: 1 … 9 put a completion next in the order (or remove it again), = ties the
next one with the last, 0 ties all the rest, Enter saves the ranking, Backspace removes the
last completion, u undoes the last ranking, r is for a reason, s or → skips, ← goes back;
on a completion that has the focus ↑ and ↓ move it.
"""
    )
    body_sketch: ClassVar[tuple[str, ...]] = ("prompt", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%rank taste --model assistant --samples 4 --max-tokens 60",
        "Tell me about the fox.",
        "Why was Anna sad?",
        "",
        "%%rank taste --model assistant --judge $polite",
        "Tell me about the fox.",
        "",
        "%%rank pairs --rankings ./pairs.parquet",
    )

    name: str = option(..., "name under which the rankings are saved", place=True, complete="rankings")
    prompts: list[str | list[dict]] = option((), "the prompts", positional=True, body=True, only="python")
    model: str | list[str] | None = option(
        None, "whose completions; of several, each writes --samples of them", "MODEL", complete="models"
    )
    samples: int = option(4, "completions of each prompt", "K")
    rankings_file: Any = option(
        None,
        "import rankings of the prompts (of all its own if there are none) from a file, hf:owner/name or $rows: "
        "rankings as saved here, or preference data for DPO, rows of prompt, chosen and rejected (texts, or messages, "
        "also of several turns and with a system prompt)",
        "FILE",
        variable=True,
        flag="--rankings",
        complete="files",
    )


class Compare(Ranking):
    """several models' answers to the same prompts, side by side

    Gives each prompt to each model, with the same seeds, and shows the completions in columns, differing words
    highlighted. With --blind the columns are folded and a form asks which completion is better, without showing whose
    it is; each vote is saved at once under the rankings' name, on which a reward model can be trained. The cell does
    not wait for a person: run it again to continue voting.
    """

    group: ClassVar[str] = "Models and rankings"

    magic: ClassVar[str] = "%%compare"
    body_help: ClassVar[str] = PROMPTS
    body_sketch: ClassVar[tuple[str, ...]] = ("prompt", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%compare storyteller smollm2 --max-tokens 60",
        "Once upon a time",
        "The capital of France is",
    )

    model: Any = option(None, "the models take its place", only="none")
    models: list[str] = option(..., "the models to compare, two or more", place="MODEL", many=True, complete="models")
    prompts: list[str | list[dict]] = option(..., "the prompts", positional=True, body=True, only="python")
    rankings: str | None = option(
        None, "name under which the votes are saved (default: MODEL-vs-MODEL)", "NAME", complete="rankings"
    )
    blind: bool = option(False, "ask in a form which answer is better, without naming the models", only="magic")


class Arena(Judged):
    """blind votes between models, and a leaderboard of Elo

    Every two of the models answer each prompt, and a form asks which answer is better, without showing whose it is; or
    a judge votes. Each vote is saved at once, and the same line continues where it stopped. The leaderboard has Elo
    ratings from a Bradley-Terry model of all votes, with intervals by bootstrap over prompts. Endpoints (%gpt config
    endpoint) may take part.
    """

    group: ClassVar[str] = "Models and rankings"

    magic: ClassVar[str] = "%gpt arena"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt arena base assistant aligned --prompts $questions --max-tokens 60",
        "%gpt arena assistant aligned --judge $polite",
    )

    model: Any = option(None, "the models take its place", only="none")
    samples: Any = option(None, "one completion of each model", only="none")
    models: list[str] = option(..., "the models, two or more", place="MODEL", many=True, complete="models")
    prompts: list[str] = option(
        (), f"{PROMPT_TEXTS} (default: eight of our own)", "TEXT", positional=True, complete="files", lines=True
    )
    name: str | None = option(
        None,
        "name under which the votes are saved (default: arena-MODEL-MODEL)",
        "NAME",
        flag="--rankings",
        complete="rankings",
    )
