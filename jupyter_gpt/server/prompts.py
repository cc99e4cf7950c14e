"""From what a client asks to what the engine is given: the very prompt that `%%prompt` would send.

A model with a chat template is asked through it. A base model continues a document: a single message is that
document; a longer chat becomes a conversation in which an assistant is about to speak.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from jupyter_gpt.data.render import Prompt, Question, encode, opening_token, render
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.answer import decoder
from jupyter_gpt.prompting.generation import stop_ids
from jupyter_gpt.server.requests import Ask


class TooLong(GPTError):
    """A prompt that leaves no room for an answer."""

    code = "context_length_exceeded"


def put(models, name: str, ask: Ask, gone: threading.Event):
    """The model, in memory, and for each prompt of `ask` what is sent and the engine's Request.

    Its samples end early once `gone` is set. Raises GPTError for a model that cannot be loaded, a chat it
    cannot be asked, and a prompt longer than its context.
    """
    model = resident(models, name)
    prompts = [prompt_of(model, asked) for asked in ask.prompts]
    return model, prompts, [request(model, prompt, ask, gone) for prompt in prompts]


def resident(models, name: str):
    """The model as it is in memory, also while a run makes it anew; else loaded."""
    model = models.about(name)
    return model if model.resident else models[name]


def prompt_of(model, asked) -> Prompt:
    if isinstance(asked, list) and isinstance(asked[0], int):
        return given_as_ids(model, asked)
    if isinstance(asked, str) or (not model.has_chat and len(asked) == 1):
        text = asked if isinstance(asked, str) else asked[0]["content"]
        return as_document(model, text)
    return render(model.name, model.tokenizer, Question(asked, as_assistant=not model.has_chat))


def as_document(model, text: str) -> Prompt:
    """A raw document, also for a model that has a chat template: `/completions` asks for just that."""
    first = opening_token(model.tokenizer)
    ids = [*([] if first is None else [first]), *(encode(model.tokenizer, text) if text else [])]
    return Prompt(tuple(ids), model.tokenizer.decode(ids), "continuing the document")


def given_as_ids(model, ids: list[int]) -> Prompt:
    size = len(model.tokenizer)
    bad = next((i for i in ids if not 0 <= i < size), None)
    if bad is not None:
        raise GPTError(f"prompt has the token {bad}, but {model.name} knows 0 to {size - 1}")
    return Prompt(tuple(ids), model.tokenizer.decode(ids), "token ids")


def request(model, prompt: Prompt, ask: Ask, gone: threading.Event):
    """The engine's Request. Raises TooLong here already, lest one long prompt end the batch it is in."""
    from jupyter_gpt.inference.sequence import Request
    from jupyter_gpt.nn.modules import context_of

    room, sampling = context_of(model.module) - len(prompt.ids), ask.sampling
    if not prompt.ids:
        raise GPTError("the prompt is empty")
    if room <= 0:
        raise TooLong(
            f"the prompt has {len(prompt.ids):,} tokens, {1 - room:,} more than fit: the context of "
            f"{model.name} is {room + len(prompt.ids):,}, and one must be left for the answer"
        )
    stop, constraint = (*sampling.stop, *prompt.stop), None
    if ask.rule:
        from jupyter_gpt.inference.constrain import constraint_of

        tails = () if sampling.min_tokens else stop
        constraint = constraint_of(model.tokenizer, ask.rule, stop_ids(model), prompt.ids, tails)
    return Request(
        ids=tuple(prompt.ids),
        samples=sampling.samples,
        max_tokens=min(sampling.max_tokens, room),
        min_tokens=min(sampling.min_tokens, room),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=sampling.seed,
        stop_ids=stop_ids(model),
        top_logprobs=sampling.logprobs,
        until=ending(model.tokenizer, stop, sampling.min_tokens, gone),
        constraint=constraint,
    )


def ending(tokenizer, stop: tuple[str, ...], least: int, gone: threading.Event) -> Callable[[list[int]], bool]:
    """Whether a sample with these ids is at its end: its client has gone, or its last token completes a stop
    text.

    A token spells one byte at least, so a stop text of n bytes lies within the last n tokens.
    """
    decode, window = decoder(tokenizer), max((len(text.encode()) for text in stop), default=0) + 4

    def ended(ids: list[int]) -> bool:
        if gone.is_set():
            return True
        end = decode(ids[-window:]) if stop and len(ids) > least else ""
        return any(text in end for text in stop)

    return ended
