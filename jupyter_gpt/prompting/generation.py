"""Putting prompts to a model and waiting for its answers, be it in this kernel or behind a server.

Sampling is a job of the device's worker, so a prompt during a background run is answered between two of its
micro-batches, and the weights it sees are whole. A request to an endpoint waits on a thread of its own.
Either way the caller is shown what came so far ten times a second, and an interrupt ends the answer and keeps
it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from jupyter_gpt.data.render import Prompt, Question, end_of_turn, render, render_remote
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.completion import Completion, Sampling
from jupyter_gpt.inference.rules import Rule
from jupyter_gpt.inference.tool_calls import found_in
from jupyter_gpt.models import memory
from jupyter_gpt.prompting.constraint_retry import repaired
from jupyter_gpt.runs.worker import aside, worker

Show = Callable[[list[Completion]], None] | None
Answer = Callable[[list[Prompt], Show, float | None], list[Completion]]


class Abandoned(Exception):
    """The wait for an endpoint was broken off; its request ends by itself, unheard."""


class Box:
    """Where a job leaves its newest completions for the thread that waits."""

    def __init__(self):
        self.latest: list[Completion] | None = None
        self.stopping = threading.Event()

    def keep(self, source: Iterator) -> Iterator[None]:
        """The job: takes all that `source` yields, and closes it when nobody waits any more."""
        for found in source:
            if found is not None:
                self.latest = found
            yield
            if self.stopping.is_set():
                source.close()
                return

    def look(self, show: Show, deadline: float | None, end: Callable[[], None]) -> Callable[[], None] | None:
        """What the waiting thread calls: shows what is new, and calls `end` after `deadline` (time.monotonic)."""
        if show is None and deadline is None:
            return None
        shown = [None]

        def tick() -> None:
            if deadline is not None and time.monotonic() > deadline:
                end()
            found = self.latest
            if show is not None and found is not None and found is not shown[0]:
                shown[0] = found
                show(found)

        return tick

    def abandon(self) -> None:
        self.stopping.set()
        raise Abandoned


def in_kernel(
    model,
    questions: Sequence[Question],
    sampling: Sampling,
    truncate: bool,
    rule: Rule | None = None,
    constraint: Callable | None = None,
) -> tuple[list[Prompt], Answer]:
    """The prompts for a model of this kernel, and the function that has them answered.

    Raises GPTError for a prompt that the context cannot hold, unless `truncate`.
    """
    from jupyter_gpt.nn.modules import context_of

    context = context_of(model.module)
    room = context - min(sampling.max_tokens, context // 2) if truncate else None
    prompts = [render(model.name, model.tokenizer, question, room) for question in questions]
    for prompt in prompts:
        over = len(prompt.ids) + 1 - context
        if over > 0:
            raise GPTError(
                f"the prompt is {len(prompt.ids):,} tokens, {over:,} too many for {model.name}, whose "
                f"context of {context:,} has to hold the answer too: shorten it, or --truncate cuts its front"
            )

    def answer(prompts: list[Prompt], show: Show, deadline: float | None = None) -> list[Completion]:
        done = sampled(model, prompts, sampling, show, deadline, rule, constraint)
        for found in done if questions[0].tools else ():
            found_in(found, model.tokenizer)
        return done

    return prompts, answer


def sampled(
    model,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    show: Show,
    deadline: float | None = None,
    rule: Rule | None = None,
    constraint: Callable | None = None,
) -> list[Completion]:
    """Have a model of this kernel answer on the device's worker. `constraint` makes the engine's for each sample."""
    from jupyter_gpt.inference.answer import answers

    box, enough = Box(), threading.Event()
    source = answers(
        model.module, model.tokenizer, prompts, sampling, ends(model), model.name, enough.is_set, rule, constraint
    )
    job = worker("torch").submit(box.keep(within_memory(source, model, prompts, sampling)))
    try:
        job.wait(box.look(show, deadline, enough.set), enough.set)
    finally:
        enough.set()  # whatever broke the wait: nothing goes on sampling unheard
    return box.latest


def ends(model) -> frozenset[int]:
    """The tokens that end an answer: those its publisher names, its tokenizer's, and its template's end of
    turn.
    """
    named = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    found = {*named} if isinstance(named, list | tuple) else {named}
    found.add(model.tokenizer.eos_token_id)
    if getattr(model.tokenizer, "chat_template", None):
        found.add(end_of_turn(model.tokenizer))
    return frozenset(found - {None})


def within_memory(source: Iterator, model, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator:
    """The same, and where memory runs out a GPTError that says what would fit; what was taken is given
    back.
    """
    try:
        yield from source
        return
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
    memory.give_back(model.device)
    rows = len(prompts) * sampling.samples
    longest = max(len(prompt.ids) for prompt in prompts) + sampling.max_tokens
    what = f"{rows:,} answer{'s' * (rows != 1)} of {longest:,} tokens, prompt included, do not fit into memory"
    fit = fitting(model, longest)
    fewer = "lower --samples or --max-tokens" if sampling.samples > 1 else "lower --max-tokens"
    rest = f"about {fit:,} would" if 0 < fit < rows else f"{fewer}, or %gpt unload a model"
    raise GPTError(f"{what}: {rest}")


def fitting(model, longest: int) -> int:
    """How many rows of keys and values of `longest` tokens the free memory would hold; 0 where nobody can
    say.
    """
    config = model.module.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row = 2 * config.num_hidden_layers * heads * size * longest * model.module.dtype.itemsize
    return int(0.7 * (memory.free(model.device) or 0) // row)


def at_endpoint(
    endpoint, questions: Sequence[Question], sampling: Sampling, truncate: bool, rule: Rule | None = None
) -> tuple[list[Prompt], Answer]:
    """The same for a model behind a server. Its context is not known here: nothing is cut, the server may
    refuse.
    """
    prompts = [render_remote(endpoint.name, endpoint.has_chat, question) for question in questions]

    def answer(prompts: list[Prompt], show: Show, deadline: float | None = None) -> list[Completion]:
        from jupyter_gpt.inference import remote

        asked = [prompt.messages if endpoint.has_chat else prompt.text for prompt in prompts]
        if questions[0].tools:
            asked = [{"messages": messages, "tools": questions[0].tools} for messages in asked]
        settings = replace(sampling, stop=(*sampling.stop, *prompts[0].stop))
        box, broken_off = Box(), False
        if len(asked) == 1:
            source = ([found] for found in remote.complete(endpoint, asked[0], settings, rule))
        else:
            source = (remote.complete_all(endpoint, asked, settings, rule=rule) for _ in range(1))
        try:
            aside(box.keep(source)).wait(box.look(show, deadline, box.abandon), box.abandon)
        except Abandoned:
            broken_off = True
        found = box.latest or [Completion("", finish_reason="length", model=endpoint.name) for _ in prompts]
        for completion, prompt in zip(found, prompts, strict=True):
            for sample in completion.samples:
                sample.form, sample.messages, sample.sampling = prompt.form, prompt.messages, sampling
                sample.prompt, sample.notes = prompt.text, (*prompt.notes, *sample.notes)
                sample.text = sample.text.strip() if prompt.trim else sample.text
                sample.interrupted, sample.remote = broken_off, True
        if rule:
            repaired(endpoint, prompts, found, settings, rule, once_more)
        return found

    def once_more(asked: list, settings: Sampling) -> list[Completion]:
        from jupyter_gpt.inference import remote

        box = Box()
        try:
            aside(box.keep(remote.complete_all(endpoint, asked, settings, rule=rule) for _ in range(1))).wait(
                None, box.abandon
            )
        except Abandoned:
            return []
        return box.latest or []

    return prompts, answer
