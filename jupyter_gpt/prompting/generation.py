"""Sending prompts to a model, in this kernel or behind a server, and waiting for its answers.

Sampling is a job of the device's worker, so a prompt during a background run is answered between two of its
micro-batches, with whole weights. A request to an endpoint waits on a thread of its own. Either way the caller gets
what came so far ten times a second, and an interrupt ends the answer and keeps it.

Servers differ in which constraints they enforce, so their answers are validated here, and an invalid one is asked for
once more: a chat is told what was wrong, a base model's document is sampled again. The completion's notes say what
happened.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from jupyter_gpt.data.render import Prompt, Question, end_of_turn, render, render_remote
from jupyter_gpt.errors import GPTError, is_out_of_memory
from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.inference.tool_calls import read_calls
from jupyter_gpt.nn.devices import free, give_back
from jupyter_gpt.runs.worker import aside, worker

Show = Callable[[list[Completion]], None] | None
Answer = Callable[[list[Prompt], Show, float | None], list[Completion]]
REPAIR = "That answer is not valid: {problem}. Answer again, with nothing but {wanted}."
SECOND_SEED = 1_000_003  # added to the seed for a second attempt


class Abandoned(Exception):
    """The wait for an endpoint was interrupted; its request ends by itself."""


class Latest:
    """The newest completions of a job, for the thread that waits."""

    def __init__(self):
        self.completions: list[Completion] | None = None
        self.stopping = threading.Event()

    def job(self, source: Iterator) -> Iterator[None]:
        """The job: stores what `source` yields, and closes it when the waiting thread has given up."""
        for completions in source:
            if completions is not None:
                self.completions = completions
            yield
            if self.stopping.is_set():
                source.close()
                return

    def tick(self, show: Show, deadline: float | None, end: Callable[[], None]) -> Callable[[], None] | None:
        """What the waiting thread calls: shows what is new, and calls `end` after `deadline` (time.monotonic)."""
        if show is None and deadline is None:
            return None
        shown = None

        def tick() -> None:
            nonlocal shown
            if deadline is not None and time.monotonic() > deadline:
                end()
            newest = self.completions
            if show is not None and newest is not None and newest is not shown:
                shown = newest
                show(newest)

        return tick

    def abandon(self) -> None:
        self.stopping.set()
        raise Abandoned


def in_kernel(
    model, questions: Sequence[Question], sampling: Sampling, truncate: bool, rule=None, constraint=None
) -> tuple[list[Prompt], Answer]:
    """The prompts for a model of this kernel, and the function that answers them.

    Raises GPTError for a prompt that does not fit into the context, unless `truncate`.
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
        completions = sample(model, prompts, sampling, show, deadline, rule, constraint)
        for completion in completions if questions[0].tools else ():
            read_calls(completion, model.tokenizer)
        return completions

    return prompts, answer


def sample(
    model,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    show: Show,
    deadline: float | None = None,
    rule=None,
    constraint=None,
) -> list[Completion]:
    """Answer prompts with a model of this kernel, on the device's worker. `rule` constrains all answers; `constraint()`
    makes the engine's constraint of each sample."""
    from jupyter_gpt.inference.answer import answers

    latest, enough = Latest(), threading.Event()
    source = answers(
        model.module,
        model.tokenizer,
        prompts,
        sampling,
        stop_ids(model),
        model.name,
        enough.is_set,
        rule,
        constraint,
    )
    job = worker("torch").submit(latest.job(within_memory(source, model, prompts, sampling)))
    try:
        job.wait(latest.tick(show, deadline, enough.set), enough.set)
    finally:
        enough.set()  # however the wait ended, sampling ends
    return latest.completions


def stop_ids(model) -> frozenset[int]:
    """The tokens that end an answer: those of its generation config, its tokenizer, and its chat template."""
    ids = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    found = {*ids} if isinstance(ids, list | tuple) else {ids}
    found.add(model.tokenizer.eos_token_id)
    if getattr(model.tokenizer, "chat_template", None):
        found.add(end_of_turn(model.tokenizer))
    return frozenset(found - {None})


def within_memory(source: Iterator, model, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator:
    """The same; where memory runs out it is freed, and a GPTError says what would fit."""
    try:
        yield from source
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    give_back(model.device)
    count = len(prompts) * sampling.samples
    longest = max(len(prompt.ids) for prompt in prompts) + sampling.max_tokens
    fit = answers_that_fit(model, longest)
    fewer = "lower --samples or --max-tokens" if sampling.samples > 1 else "lower --max-tokens"
    remedy = f"about {fit:,} would" if 0 < fit < count else f"{fewer}, or %gpt unload a model"
    what = f"{count:,} answer{'s' * (count != 1)} of {longest:,} tokens, prompt included, do not fit into memory"
    raise GPTError(f"{what}: {remedy}")


def answers_that_fit(model, tokens: int) -> int:
    """How many KV caches of so many tokens fit into free memory; 0 if that is not known."""
    config = model.module.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * size * tokens * model.module.dtype.itemsize
    return int(0.7 * (free(model.device) or 0) // each)


def at_endpoint(
    endpoint, questions: Sequence[Question], sampling: Sampling, truncate: bool, rule=None
) -> tuple[list[Prompt], Answer]:
    """The same for a model behind a server. Its context is not known here: nothing is cut, the server may refuse."""
    from jupyter_gpt.inference import remote

    prompts = [render_remote(endpoint.name, endpoint.has_chat, question) for question in questions]

    def wait(source: Iterator, show: Show = None, deadline: float | None = None) -> tuple[list | None, bool]:
        """What came from the server, and whether the wait was interrupted."""
        latest = Latest()
        try:
            aside(latest.job(source)).wait(latest.tick(show, deadline, latest.abandon), latest.abandon)
        except Abandoned:
            return latest.completions, True
        return latest.completions, False

    def answer(prompts: list[Prompt], show: Show, deadline: float | None = None) -> list[Completion]:
        asked = [prompt.messages if endpoint.has_chat else prompt.text for prompt in prompts]
        if questions[0].tools:
            asked = [{"messages": messages, "tools": questions[0].tools} for messages in asked]
        settings = sampling.replace(stop=[*sampling.stops, *prompts[0].stop])
        if len(asked) == 1:
            source = ([found] for found in remote.complete(endpoint, asked[0], settings, rule))
        else:
            source = (remote.complete_all(endpoint, asked, settings, rule=rule) for _ in range(1))
        completions, interrupted = wait(source, show, deadline)
        completions = completions or [Completion("", finish_reason="length", model=endpoint.name) for _ in prompts]
        for completion, prompt in zip(completions, prompts, strict=True):
            for sample in completion.samples:
                sample.form, sample.messages, sample.sampling = prompt.form, prompt.messages, sampling
                sample.prompt, sample.notes = prompt.text, (*prompt.notes, *sample.notes)
                sample.text = sample.text.strip() if prompt.trim else sample.text
                sample.interrupted, sample.remote = interrupted, True
        if rule:
            validate(endpoint, prompts, completions, settings, rule, ask_again)
        return completions

    def ask_again(asked: list, settings: Sampling, rule) -> list[Completion]:
        completions, interrupted = wait(remote.complete_all(endpoint, asked, settings, rule=rule) for _ in range(1))
        return [] if interrupted else completions or []

    return prompts, answer


def validate(
    endpoint, prompts: Sequence[Prompt], completions: Sequence[Completion], sampling: Sampling, rule, ask_again
) -> None:
    """Set `valid` and `value` of the completions, after a second attempt at the invalid ones.

    `ask_again(asked, sampling, rule)` sends again; it returns fewer answers if it was interrupted. Answers that were
    cut off are not asked for again.
    """
    from jupyter_gpt.inference.constrain import settle

    invalid = [
        (prompt, completion, sample, problem)
        for prompt, completion in zip(prompts, completions, strict=True)
        for sample in completion.samples
        if (problem := rule.problem(sample.text)) and sample.finish_reason == "stop" and not sample.interrupted
    ]
    asked = [repair_prompt(endpoint, prompt, sample.text, problem, rule) for prompt, _, sample, problem in invalid]
    settings = sampling.replace(samples=1, seed=sampling.seed + SECOND_SEED)
    second = ask_again(asked, settings, rule) if asked else []
    for (_, completion, sample, problem), sent, new in zip(invalid, asked, second, strict=False):
        in_vain = "" if rule.problem(new.text) is None else " without success"
        sample.notes += (f"the endpoint did not enforce it ({problem}) and was asked again{in_vain}",)
        usage = added(completion.usage, new.usage)
        for each in completion.samples:
            each.usage = usage
        for name in ("text", "tokens", "logprobs", "top", "finish_reason"):
            setattr(sample, name, getattr(new, name))
        if isinstance(sent, list):
            sample.messages, sample.prompt = sent, json.dumps(sent, ensure_ascii=False, indent=1)
    for completion in completions:
        settle(completion.samples, rule, [True] * len(completion.samples))


def added(one: Usage, other: Usage) -> Usage:
    """The sum of two usages."""
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.seconds + other.seconds,
        None if None in (one.cost, other.cost) else one.cost + other.cost,
        one.drafted + other.drafted,
        one.accepted + other.accepted,
        one.cached_tokens + other.cached_tokens,
    )


def repair_prompt(endpoint, prompt: Prompt, text: str, problem: str, rule) -> list[dict] | str:
    """The prompt of the second attempt."""
    if not endpoint.has_chat:
        return prompt.text
    wanted = rule.words
    if rule.kind == "json":
        wanted = f"JSON of this schema: {json.dumps(rule.what, ensure_ascii=False)}" if rule.what else "JSON"
    repair = REPAIR.format(problem=problem, wanted=wanted)
    return [*prompt.messages, {"role": "assistant", "content": text}, {"role": "user", "content": repair}]
