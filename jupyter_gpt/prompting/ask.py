"""What every technique is made of: `Ask`, through which it prompts a model.

A technique is a function `technique(ask, question, options) -> Node` that prompts the model through `ask` and returns
the node of its answer: `text` is what the model wrote last, `answer` what was extracted from it. `question` is a text
or messages. A *solver*, `solve(ask, question, options, samples) -> list[Node]`, can draw many solutions from one
reading of the prompt. They are put together by function composition: `--cot --samples 5 --vote --reflect` is
`reflect(vote(chain_of_thought))`.

Rules for a technique:

- Its prompts are at the top of its file as `TEMPLATES` and are used through `ask.templates("name", TEMPLATES)`, so that
  `%gpt config template` can replace them.
- Every prompt goes through `ask`, which records it in the trace and counts it against the budget; anything else (a
  vote, a tool call) is a node that the technique adds itself.
- `with ask.inside(Node(…)) as node:` puts every call in the block below that node.
- A user's function is called by `ask.user(function, …)`, on the thread that waits for the cell.
- `Stopped` is raised when the budget is spent or a person interrupts: let it pass, after setting `ask.best` to the best
  answer so far (or catch it, finish with what there is, and set `ask.ended`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion
from jupyter_gpt.prompting.options import Budget
from jupyter_gpt.prompting.trace import Node, node_of_call

Asked = str | list[dict]  # a text, or messages
Send = Callable[..., list[Completion]]
HOLE = re.compile(r"\{(\w+)\}")
INTERRUPTED = "stopped by hand"


class Stopped(Exception):
    """The budget is spent, or a person interrupted; the message says which."""


class Ask:
    """Prompts one model and records what it answered.

    send(prompts, show=…, deadline=…, **settings) -> list[Completion]: has all `prompts` answered together. `show` is
      called with the completions so far; at `deadline` (time.monotonic) answers are cut off; `settings` are those of
      `gpt.prompt` (samples, temperature, max_tokens, stop, seed, regex, json, tools, …).
    settings: defaults for every call.
    chat: whether the model takes messages; otherwise it continues documents.
    templates: per technique the texts that replace its own.
    changed(root): called whenever the trace has grown, about ten times a second while a model writes.
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
        self.budget, self.replaced = budget or Budget(), templates or {}
        self.root = root or Node("technique")
        self.best: Node | None = None
        self.solutions: list[Node] = []  # all that were drawn, if there are several
        self.ended = ""  # why it ended early
        self.changed = changed or (lambda root: None)
        self.user = call_user or (lambda function, *args, **more: function(*args, **more))
        self.began = time.monotonic()
        self.calls = self.tokens = self.seeds_used = 0
        self.cost: float | None = 0.0
        self._open = [self.root]
        self._seen: set[str] = set()

    def __call__(self, prompts: Sequence[Asked] | Asked, *, label: str = "", **more) -> list[Completion]:
        """Answer all `prompts` together; their completions in order. The options are those of `nodes`."""
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
        """The same, returning the node of each call, below the open node or `under` (one node for all, or one each).

        `settings` are those of `gpt.prompt`, for these calls. Seeds advance from call to call, so that the same prompt
        is sampled anew. Raises Stopped if the budget allows no call or the answers were cut off (they are then in the
        trace), and GPTError for what cannot be asked.
        """
        asked = [prompts] if isinstance(prompts, str) or (prompts and isinstance(prompts[0], Mapping)) else [*prompts]
        parents = list(under) if isinstance(under, Sequence) else [under or self.here] * len(asked)
        given = self.settings | settings
        samples = given.get("samples") or 1
        given["seed"] = (given.get("seed") or 0) + self.seeds_used
        given["max_tokens"] = self._allowed(len(asked), len(asked) * samples, given.get("max_tokens") or 256)
        self.seeds_used += samples
        nodes = [parent.add(Node(kind, label)) for parent in parents]
        self.changed(self.root)

        def record(completions: Sequence[Completion]) -> None:
            for node, completion in zip(nodes, completions, strict=True):
                node.__dict__.update(node_of_call(label, completion, kind).__dict__)
            self.changed(self.root)

        limit = self.budget.max_seconds
        try:
            done = self.send(asked, show=record, deadline=None if limit is None else self.began + limit, **given)
        except BaseException:
            for parent, node in zip(parents, nodes, strict=True):
                if node.completion is None:
                    parent.children.remove(node)
            raise
        record(done)
        self._count(done)
        return nodes

    def _allowed(self, calls: int, samples: int, max_tokens: int) -> int:
        """The tokens each answer may have. Raises Stopped if the budget allows no such call."""
        budget = self.budget
        if budget.max_calls is not None and self.calls + calls > budget.max_calls:
            raise Stopped(f"--max-calls {budget.max_calls} reached")
        if budget.max_seconds is not None and self.seconds >= budget.max_seconds:
            raise Stopped(f"--max-seconds {budget.max_seconds:g} reached")
        if budget.max_cost is not None and self.cost is not None and self.cost >= budget.max_cost:
            raise Stopped(f"--max-cost {budget.max_cost:g} reached")
        if budget.max_cost is not None and self.cost is None:
            raise Stopped("the price of the last call is not known, so --max-cost cannot be kept")
        if budget.max_tokens_total is None:
            return max_tokens
        left = (budget.max_tokens_total - self.tokens) // samples
        if left < 1:
            raise Stopped(f"--max-tokens-total {budget.max_tokens_total:,} reached")
        return min(max_tokens, left)

    def _count(self, completions: Sequence[Completion]) -> None:
        for usage in (completion.usage for completion in completions):
            self.calls += 1
            self.tokens += usage.prompt_tokens + usage.completion_tokens
            self.cost = None if usage.cost is None or self.cost is None else self.cost + usage.cost
        if any(sample.interrupted for completion in completions for sample in completion.samples):
            limit = self.budget.max_seconds
            late = limit is not None and self.seconds >= limit
            raise Stopped(f"--max-seconds {limit:g} reached" if late else INTERRUPTED)

    @property
    def seconds(self) -> float:
        """Since this Ask was made."""
        return time.monotonic() - self.began

    @property
    def here(self) -> Node:
        """The open node: new calls are added below it."""
        return self._open[-1]

    @contextmanager
    def inside(self, node: Node) -> Iterator[Node]:
        """Open a node below the one that is open, until the end of the block."""
        self.add(node)
        self._open.append(node)
        try:
            yield node
        finally:
            self._open.pop()
            self.changed(self.root)

    def add(self, node: Node) -> Node:
        """Record something that was not asked of the model: a vote, a score, a tool's result."""
        self.here.add(node)
        self.changed(self.root)
        return node

    def templates(self, technique: str, own: Mapping[str, str]) -> Mapping[str, str]:
        """A technique's texts, with those that `%gpt config template` replaced."""
        return {**own, **self.replaced.get(technique, {})}

    def is_repeated(self, key: str) -> bool:
        """Whether this (an action, a revision, a task) came before in this trace, apart from case and spaces."""
        plain = " ".join(key.lower().split())
        seen = plain in self._seen
        self._seen.add(plain)
        return seen

    def stops(self, *more: str) -> list[str]:
        """The texts that end an answer: the user's, and those of a technique."""
        own = self.settings.get("stop") or []
        return [*([own] if isinstance(own, str) else own), *filter(None, more)]


def format_template(template: str, **values: object) -> str:
    """`template` with its `{holes}` filled; any other brace, and braces inside a value, stay as they are."""
    return HOLE.sub(lambda hole: str(values.get(hole[1], hole[0])), template)


def text_of(question: Asked) -> str:
    """The words of a question: of a chat its last message."""
    return question if isinstance(question, str) else question[-1]["content"]


def with_text(question: Asked, text: str) -> Asked:
    """The same question in other words: of a chat its last message is replaced."""
    return text if isinstance(question, str) else [*question[:-1], {**question[-1], "content": text}]


def follow_up(ask: Ask, question: Asked, answer: str, then: str) -> Asked:
    """The prompt after `question` was answered: `then` is the next message of a chat, or continues the document."""
    if not ask.chat:
        return text_of(question) + answer + then
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": then.strip()}]


def run(ask: Ask, technique: Callable, question: Asked, options: object) -> Node:
    """Apply a technique and complete its trace: `ask.root` gets the answer, the seconds, and why it ended early.

    Returns the node of the answer; if the budget ran out first, the best so far, perhaps an empty one.
    """
    try:
        answer = technique(ask, question, options)
    except (Stopped, KeyboardInterrupt) as reason:  # the interrupt may come while a user's function runs
        ask.ended = str(reason) or INTERRUPTED
        calls = [node for node in ask.root.walk() if node.completion is not None and node.text]
        answer = ask.best or (calls[-1] if calls else Node("call"))
    root = ask.root
    root.text, root.answer, root.seconds = answer.text, answer.answer, ask.seconds
    root.note = "; ".join(filter(None, (root.note, ask.ended)))
    ask.changed(root)
    return answer


def templates_file() -> Path:
    """Where the texts that `%gpt config template` replaced are kept: technique -> name -> text."""
    return store.home() / "templates.json"


def replaced_templates() -> dict[str, dict[str, str]]:
    """All replaced texts by technique. Raises GPTError for a damaged file."""
    file = templates_file()
    if not file.exists():
        return {}
    try:
        texts = json.loads(file.read_text(encoding="utf-8"))
        return {technique: {name: str(text) for name, text in own.items()} for technique, own in texts.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise GPTError(
            f"{file} is damaged ({error}): repair it, or delete it to restore the default templates"
        ) from error
