"""What a technique may be told, and which combinations make no sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jupyter_gpt.errors import GPTError
from jupyter_gpt.prompting.answers import ANY, Form
from jupyter_gpt.prompting.tools.act import Acting

SEARCHES = ("bfs", "dfs", "beam")


@dataclass(frozen=True)
class Options:
    """The techniques of one prompt.

    cot: think first.  trigger: the words that start the thinking, in place of the technique's own.
    expert: True, or the field of the expert.
    samples: solutions drawn; vote: the majority of their answers; best_of: `f(prompt, completion) -> float`, the best
      of them by it.
    reflect: rounds of revision at most; check: `f(prompt, answer)`, true where the answer is right, or else words on
      what is wrong with it.
    tree: search over steps; breadth: steps proposed from each state, and states kept on each level; depth: steps at
      most; search: "bfs", "dfs" or "beam"; value: `f(prompt, steps so far) -> float`.
    few_shot: pairs of question and worked answer; with `acting`, of question and worked run (`tools/worked.py`); for an
      agent also of goal and numbered list.
    acting: the tools of `--react`, and how they may be used.
    tasks: of an agent, the tasks that it works off at most; 0 is no agent.  levels: lists within its list, itself one.
    constraint: regex, json, choice or grammar of the answer, as `gpt.prompt` takes them; thinking is free of it.
    form: what the answer is, where that is known (`prompting.answers`).
    """

    cot: bool = False
    trigger: str = ""
    expert: str | bool = False
    samples: int = 1
    vote: bool = False
    best_of: Callable | None = None
    reflect: int = 0
    check: Callable | None = None
    tree: bool = False
    breadth: int = 5
    depth: int = 3
    search: str = "bfs"
    value: Callable | None = None
    few_shot: tuple[tuple[str, str], ...] = ()
    acting: Acting | None = None
    tasks: int = 0
    levels: int = 2
    constraint: Mapping[str, object] = field(default_factory=dict)
    form: Form = ANY

    @property
    def any(self) -> bool:
        """Whether there is a technique at all."""
        return bool(
            self.cot
            or self.expert
            or self.vote
            or self.best_of
            or self.reflect
            or self.tree
            or self.acting
            or self.tasks
        )


def check(options: Options, chat: bool = True, given: frozenset[str] = frozenset()) -> None:
    """Raises GPTError for a combination that makes no sense, saying why. `given` names what the user said; `chat` is
    whether the model takes turns.
    """
    o = options
    wrong = {
        "--vote and --best-of both choose among the samples: leave one out": o.vote and o.best_of,
        f"--{'vote' if o.vote else 'best-of'} chooses among several samples: add --samples 5, say": (
            (o.vote or o.best_of) and o.samples < 2 and not o.tree
        ),
        "--reflect goes on from one answer: add --vote or --best-of, so that the samples become one": (
            o.reflect and o.samples > 1 and not (o.vote or o.best_of)
        ),
        "--check is what --reflect asks: add --reflect": o.check and not o.reflect,
        "--tree thinks step by step already: leave --cot out": o.tree and o.cot,
        "--tree draws by --breadth and chooses by its scores: leave --samples, --vote and --best-of out": (
            o.tree and (o.samples > 1 or o.vote or o.best_of)
        ),
        "there is no tool to act with: --tools calculator,python,search,$function": (
            o.acting and not o.acting.tools and not o.tasks
        ),
        "--react thinks between its actions already: leave --cot out": o.acting and o.cot,
        "--react and --tree are two ways to go about it: leave one out": o.acting and o.tree,
        "an agent answers once: leave --samples, --vote and --best-of out": o.tasks and (o.samples > 1 or o.best_of),
        "an agent plans and acts: leave --cot and --tree out": o.tasks and (o.cot or o.tree),
        "--tasks is 1 or more": "tasks" in given and o.tasks < 1,
        "--levels is 1 or more": o.levels < 1,
        "--breadth is 1 or more": o.breadth < 1,
        "--depth is 1 or more": o.depth < 1,
        "--reflect is 1 round or more": o.reflect < 0,
        f"--search is {', '.join(SEARCHES[:-1])} or {SEARCHES[-1]}, not {o.search!r}": o.search not in SEARCHES,
        "a base model goes on with documents and cannot look back at its answer: --as-assistant asks it as a chat, "
        "or --check $function judges in its place": o.reflect and not chat and not o.check,
        "a base model cannot judge its steps: --value $function does, or --as-assistant asks it as a chat": (
            o.tree and not chat and o.value is None
        ),
    }
    for name in ("breadth", "depth", "search", "value"):
        wrong[f"--{name} belongs to --tree: add --tree"] = name in given and not o.tree
    for name in ("steps", "approve", "allow"):
        wrong[f"--{name} belongs to --react: add --react and --tools"] = name in given and not o.acting
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise GPTError(message)
    for name in ("best_of", "check", "value"):
        function = getattr(o, name)
        if function is not None and not callable(function):
            raise GPTError(f"--{name.replace('_', '-')} wants a function, not a {type(function).__name__}")
