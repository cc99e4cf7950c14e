"""`gpt.rag`: a question answered from an index, with the sources of every sentence.

Find the chunks, stuff those that fit into the prompt, ask, and hold each sentence of the answer against its sources.
Nothing is asked where nothing near the question was found: the answer is then "I don't know".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from jupyter_gpt.data.render import fill, special_tokens
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Usage
from jupyter_gpt.retrieval import cite, stuff
from jupyter_gpt.retrieval.search import Hit
from jupyter_gpt.stages.prompt import latest

REWRITTEN = 64  # tokens of a rewritten question at most
REMEMBERED = 3  # exchanges that a follow-up is read with


@dataclass(frozen=True)
class Meter:
    """How the context window is filled, in tokens of the model; None for what nobody here can count.

    sources: of each that went in, in order.  rest: instructions, question and chat template.  answer: what is kept for
    it.
    """

    context: int | None
    sources: tuple[int, ...]
    rest: int | None
    answer: int

    @property
    def free(self) -> int | None:
        if self.context is None or self.rest is None:
            return None
        return self.context - sum(self.sources) - self.rest - self.answer


@dataclass(repr=False, eq=False)
class Answer:
    """What was asked, what was found, what was answered, and what of that stands in the sources.

    asked: the question as it was searched and put, rewritten where it followed up on another.  hits: the chunks in the
    prompt, [1] first; left: those that did not fit.  near: the cosine below which nothing is near; best: of the best
    hit. checks: each sentence with the sources that support it.  completion: what the model said, None where it was not
    asked; rewriting: the completion that rewrote the question.  stuffed: the prompt as it was handed to `gpt.prompt`.
    """

    question: str
    asked: str
    index: str
    hits: list[Hit]
    left: list[Hit]
    near: float
    best: float
    text: str = ""
    checks: list[cite.Checked] = field(default_factory=list)
    completion: Completion | None = None
    rewriting: Completion | None = None
    meter: Meter | None = None
    stuffed: str = ""

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    @property
    def known(self) -> bool:
        """Whether anything near the question was found."""
        return self.best >= self.near and bool(self.hits or self.left)

    @property
    def prompt(self) -> str:
        return self.completion.prompt if self.completion else ""

    @property
    def usage(self) -> Usage:
        return self.completion.usage if self.completion else Usage(0, 0, 0.0)

    @property
    def samples(self) -> list[Completion]:
        return self.completion.samples if self.completion else []

    @property
    def supported(self) -> float | None:
        """The share of its sentences that a source supports; None where it says nothing."""
        said = [check for check in self.checks if check.verdict != cite.NOTHING]
        return sum(bool(check.by) for check in said) / len(said) if said else None

    def as_dict(self) -> dict:
        return {
            "question": self.question,
            "asked": self.asked,
            "index": self.index,
            "text": self.text,
            "near": self.near,
            "best": self.best,
            "hits": [hit.as_dict() for hit in self.hits],
            "left": [hit.as_dict() for hit in self.left],
            "checks": [check.as_dict() for check in self.checks],
            "completion": self.completion.as_dict() if self.completion else None,
        }


def rag(
    session,
    question: str,
    index: str,
    *,
    model: str | None = None,
    k: int = 4,
    keyword: bool = False,
    hybrid: bool | float = False,
    rerank: str | None = None,
    mmr: bool = False,
    filter: str | None = None,
    near: float | None = None,
    history: bool = False,
    max_tokens: int = 256,
    temperature: float | None = None,
    samples: int = 1,
    dry_run: bool = False,
    variables: Mapping | None = None,
    on_token: Callable[[Completion], None] | None = None,
    **options,
) -> Answer:
    """Answer `question` from `index`; what `gpt.rag` does. `options` are those of `gpt.prompt`."""
    question = fill(question.strip(), variables)[0] if variables else question.strip()  # never what a document says
    if not question:
        raise GPTError("the question is empty: write it in the cell, under the magic")
    kept, name = session.indexes[index], model or latest(session.models, session.prompting)
    chat = session.models.about(name).has_chat or options.get("as_assistant", False)
    said = session.answered.setdefault((index, name), [])
    if temperature is None and samples == 1:
        temperature = 0.0
    rewriting = rewritten(session, question, said, name, chat, options) if history and said else None
    asked = rewriting.text.strip().split("\n")[0].strip(' "') if rewriting else question
    found = kept.search(asked or question, k, keyword=keyword, hybrid=hybrid, rerank=rerank, mmr=mmr, filter=filter)
    near = kept.about["near"] if near is None else near
    answer = Answer(
        question,
        asked or question,
        index,
        [],
        found,
        near,
        max((h.cosine for h in found), default=-1.0),
        rewriting=rewriting,
    )
    if answer.known:
        ask(session, answer, name, chat, max_tokens, options)
        answer.completion = done = session.prompt(
            answer.stuffed,
            model=name,
            max_tokens=max_tokens,
            temperature=temperature,
            samples=samples,
            dry_run=dry_run,
            on_token=on_token,
            **{"lookup": True, **options},
        )
        answer.text = done.text.strip()
    else:
        answer.text = stuff.UNKNOWN
    if answer.completion is not None and not dry_run:
        answer.checks = cite.check(answer.text, [h.text for h in answer.hits], answer.asked)
    if not dry_run:
        said.append((answer.asked, answer.text))
    return answer


def ask(session, answer: Answer, name: str, chat: bool, max_tokens: int, options: Mapping) -> None:
    """Decide which hits go into the prompt; sets `hits`, `left`, `stuffed` and `meter`. Raises GPTError when none
    fits.
    """
    model = session.models[name]
    special = () if model.kind == "endpoint" else special_tokens(model.tokenizer)
    count, context = counter(model, options)
    room = None if context is None else context - max_tokens
    answer.hits, answer.left = stuff.fitting(
        answer.asked, answer.left, lambda text: room is None or count(text) <= room, special, chat
    )
    if not answer.hits:
        raise GPTError(
            f"none of the {len(answer.left)} chunks fits the context of {name}, {context:,} tokens with "
            f"{max_tokens:,} kept "
            "for the answer: lower --max-tokens, or index with smaller --chunk-tokens"
        )
    answer.stuffed = stuff.prompt(answer.asked, answer.hits, special, chat)
    if context is None:
        answer.meter = Meter(None, (), None, max_tokens)
        return
    sizes = [count(stuff.prompt(answer.asked, answer.hits[:n], special, chat)) for n in range(len(answer.hits) + 1)]
    answer.meter = Meter(context, tuple(b - a for a, b in pairwise(sizes)), sizes[0], max_tokens)


def counter(model, options: Mapping) -> tuple[Callable[[str], int], int | None]:
    """A function that says how many tokens a text makes as a prompt, and the model's context; None for an
    endpoint's.
    """
    if model.kind == "endpoint":
        return len, None
    from jupyter_gpt.data.render import Question, pairs_of, render
    from jupyter_gpt.nn.modules import context_of

    shots = pairs_of(options["few_shot"]) if options.get("few_shot") is not None else ()
    assistant = options.get("as_assistant", False)

    def count(text: str) -> int:
        question = Question(text, options.get("system"), None, shots, assistant)
        return len(render(model.name, model.tokenizer, question).ids)

    return count, context_of(model.module)


def rewritten(session, question: str, said: list, name: str, chat: bool, options: Mapping) -> Completion:
    """The follow-up as a question that stands by itself, by the model that will answer it."""
    lines = "\n".join(f"Question: {q}\nAnswer: {a}" for q, a in said[-REMEMBERED:])
    text = stuff.REWRITE.format(said=lines, question=question)
    kept = {key: options[key] for key in ("system", "as_assistant") if key in options}
    return session.prompt(
        text, model=name, temperature=0.0, max_tokens=REWRITTEN, stop=["\n"] if not chat else None, **kept
    )
