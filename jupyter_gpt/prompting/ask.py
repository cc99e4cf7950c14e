"""Ask: how a technique talks to a model. It records every call in the trace and keeps the budget.

A technique is a function

    technique(ask, question, options) -> Node

that puts prompts to the model through `ask` and returns the node of its answer: `text` is what the model said last,
`answer` what was extracted from it. `question` is a text or messages. One that can draw many solutions from one
reading of the prompt (`solve(ask, question, options, samples) -> list[Node]`, a *solver*) does so; `compose.py` puts
solvers and techniques together by function composition: `--cot --samples 5 --vote --reflect` is
`reflect(vote(chain_of_thought))`.

The rules of the house for a technique:
- its prompts stand at the top of its file as `TEMPLATES`, and it uses them by `ask.words("name", TEMPLATES)`, so that
  `%gpt config template` can replace them;
- everything it asks goes through `ask`, so it is seen; what else it does (a vote, a tool) is a node it adds itself;
- `with ask.inside(Node(…)) as node:` puts all that is asked in there beneath that node;
- a user's function is called by `ask.user(function, …)`, on the thread that waits for the cell;
- `Enough` is raised when the budget is spent or a person pressed ■: let it pass, after making `ask.best` the best
  answer there is (or catch it, finish with what there is, and set `ask.ended`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.prompting.trace import Node, called

Asked = str | list[dict]  # a text, or messages
Send = Callable[..., list[Completion]]
HOLE = re.compile(r"\{(\w+)\}")


class Enough(Exception):
    """The budget is spent, or a person stopped it: the message says which."""


@dataclass(frozen=True)
class Budget:
    """What a technique may use; None is no limit. max_cost is in dollars."""

    max_calls: int | None = None
    max_tokens_total: int | None = None
    max_seconds: float | None = None
    max_cost: float | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise GPTError(f"--{name.replace('_', '-')} is above 0, not {value}")


class Ask:
    """Asks one model and writes down what it said.

    send(prompts, show=…, deadline=…, **settings) -> list[Completion]: has all `prompts` answered together. `show` is
      called with the completions so far; `deadline` (time.monotonic) is when answers are cut off; `settings` are
      those of `gpt.prompt` (samples, temperature, max_tokens, stop, seed, regex, json, tools, …).
    settings: those that hold for every call unless it says otherwise.
    chat: whether the model takes messages; otherwise it goes on with documents.
    templates: per technique the texts that replace its own.
    changed(root): called whenever there is something new to see, about ten times a second while a model writes.
    """

    def __init__(
        self,
        send: Send,
        settings: Mapping[str, object] | None = None,
        budget: Budget | None = None,
        *,
        chat: bool = True,
        root: Node | None = None,
        templates: Mapping[str, Mapping[str, str]] | None = None,
        changed: Callable[[Node], None] | None = None,
        call_user: Callable[..., object] | None = None,
    ):
        self.send, self.settings, self.chat = send, dict(settings or {}), chat
        self.budget, self.templates = budget or Budget(), templates or {}
        self.root = root or Node("technique")
        self.best: Node | None = None
        self.solutions: list[Node] = []  # all that were drawn, where there are several
        self.ended = ""  # why it ended before it was done
        self.changed = changed or (lambda root: None)
        self.call_user = call_user or (lambda function, *args, **more: function(*args, **more))
        self.began = time.monotonic()
        self.calls = self.tokens = self.drawn = 0
        self.cost: float | None = 0.0
        self._inside = [self.root]
        self._seen: set[str] = set()

    def __call__(self, prompts: Sequence[Asked] | Asked, *, label: str = "", **more) -> list[Completion]:
        """Ask all `prompts` together; their completions in order. The options are those of `nodes`."""
        return [node.completion for node in self.nodes(prompts, label=label, **more)]

    def nodes(
        self,
        prompts: Sequence[Asked] | Asked,
        *,
        label: str = "",
        kind: str = "call",
        under: Node | Sequence[Node] | None = None,
        **settings,
    ) -> list[Node]:
        """The same, giving the node of each call, which stands beneath the node that is open, or beneath `under`
        (one node for all prompts, or one for each).

        `settings` are those of `gpt.prompt`, for these calls. Seeds move on from call to call, so that asking the
        same again draws anew. Raises Enough when nothing may be asked any more, or the answers were broken off
        (they are then in the trace), and GPTError for what cannot be asked.
        """
        asked = [prompts] if is_one(prompts) else list(prompts)
        above = list(under) if isinstance(under, Sequence) else [under or self.here] * len(asked)
        given = self.settings | settings
        samples = given.get("samples") or 1
        given["seed"] = (given.get("seed") or 0) + self.drawn
        given["max_tokens"] = self._room(len(asked), len(asked) * samples, given.get("max_tokens") or 256)
        self.drawn += samples
        places = [parent.add(Node(kind, label)) for parent in above]
        self.changed(self.root)

        def record(found: Sequence[Completion]) -> None:
            for place, completion in zip(places, found, strict=True):
                place.__dict__.update(called(label, completion, kind).__dict__)
            self.changed(self.root)

        limit = self.budget.max_seconds
        try:
            found = self.send(asked, show=record, deadline=None if limit is None else self.began + limit, **given)
        except BaseException:
            for parent, place in zip(above, places, strict=True):
                if place.completion is None:
                    parent.children.remove(place)
            raise
        record(found)
        self._count(found)
        return places

    def _room(self, calls: int, rows: int, max_tokens: int) -> int:
        """How many tokens each answer may have. Raises Enough when the budget allows no such call."""
        budget = self.budget
        if budget.max_calls is not None and self.calls + calls > budget.max_calls:
            raise Enough(f"--max-calls {budget.max_calls} reached")
        if budget.max_seconds is not None and self.seconds >= budget.max_seconds:
            raise Enough(f"--max-seconds {budget.max_seconds:g} reached")
        if budget.max_cost is not None and self.cost is not None and self.cost >= budget.max_cost:
            raise Enough(f"--max-cost {budget.max_cost:g} reached")
        if budget.max_cost is not None and self.cost is None:
            raise Enough("the price of the last call is not known, so --max-cost cannot be kept")
        if budget.max_tokens_total is None:
            return max_tokens
        left = (budget.max_tokens_total - self.tokens) // rows
        if left < 1:
            raise Enough(f"--max-tokens-total {budget.max_tokens_total:,} reached")
        return min(max_tokens, left)

    def _count(self, found: Sequence[Completion]) -> None:
        for completion in found:
            usage = completion.usage
            self.calls += 1
            self.tokens += usage.prompt_tokens + usage.completion_tokens
            self.cost = None if usage.cost is None or self.cost is None else self.cost + usage.cost
        if any(sample.interrupted for completion in found for sample in completion.samples):
            limit = self.budget.max_seconds
            late = limit is not None and self.seconds >= limit
            raise Enough(f"--max-seconds {limit:g} reached" if late else "stopped by hand")

    @property
    def seconds(self) -> float:
        """Since this Ask was made."""
        return time.monotonic() - self.began

    @property
    def here(self) -> Node:
        """The node that is open: what is asked now stands beneath it."""
        return self._inside[-1]

    @contextmanager
    def inside(self, node: Node, under: Node | None = None) -> Iterator[Node]:
        """Open a node beneath the one that is open (or `under`), until the end of the block."""
        (under or self.here).add(node)
        self._inside.append(node)
        self.changed(self.root)
        try:
            yield node
        finally:
            self._inside.pop()
            self.changed(self.root)

    def add(self, node: Node, under: Node | None = None) -> Node:
        """Write down something that was not asked of the model: a vote, a score, a tool's result."""
        (under or self.here).add(node)
        self.changed(self.root)
        return node

    def user(self, function: Callable, *args, **more):
        """What a function of the user's returns; called on the thread that waits for the cell. Its errors are its
        own."""
        return self.call_user(function, *args, **more)

    def words(self, name: str, templates: Mapping[str, str]) -> Mapping[str, str]:
        """A technique's texts, those that `%gpt config template` replaced among them."""
        return {**templates, **self.templates.get(name, {})}

    def again(self, key: str) -> bool:
        """Whether this was said before in this trace (an action, a revision, a task), apart from case and spaces."""
        plain = " ".join(key.lower().split())
        seen = plain in self._seen
        self._seen.add(plain)
        return seen


def is_one(prompts: object) -> bool:
    """Whether this is one prompt: a text, or messages; not a list of prompts."""
    return isinstance(prompts, str) or (bool(prompts) and isinstance(prompts[0], Mapping))


def filled(template: str, **values: object) -> str:
    """`template` with its `{holes}` filled; any other brace, and whatever stands in a value, stays as it is."""
    return HOLE.sub(lambda hole: str(values.get(hole[1], hole[0])), template)


def text_of(question: Asked) -> str:
    """The words of a question: of a chat its last turn."""
    return question if isinstance(question, str) else question[-1]["content"]


def reworded(question: Asked, text: str) -> Asked:
    """The same question in other words: of a chat its last turn."""
    return text if isinstance(question, str) else [*question[:-1], {**question[-1], "content": text}]


def go_on(ask: Ask, question: Asked, said: str, then: str) -> Asked:
    """The prompt after `question` was answered by `said`: `then` is the next turn of the chat; a document goes on with
    it."""
    if not ask.chat:
        return text_of(question) + said + then
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return [*turns, {"role": "assistant", "content": said}, {"role": "user", "content": then.strip()}]


def run(ask: Ask, technique: Callable, question: Asked, options: object) -> Node:
    """Apply a technique and close its trace: `ask.root` gets the answer, the seconds, and why it ended early.

    Returns the node of the answer; where the budget ran out first, the best there is, perhaps an empty one.
    """
    try:
        answer = technique(ask, question, options)
    except (Enough, KeyboardInterrupt) as reason:  # ■ may also have come while a function of the user's ran
        ask.ended = str(reason) or "stopped by hand"
        calls = [node for node in ask.root.walk() if node.completion is not None and node.text]
        answer = ask.best or (calls[-1] if calls else Node("call"))
    root = ask.root
    root.text, root.answer, root.seconds = answer.text, answer.answer, ask.seconds
    root.note = "; ".join(filter(None, (root.note, ask.ended)))
    ask.changed(root)
    return answer
