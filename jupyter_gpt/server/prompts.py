"""The engine's requests for an API request: the very prompts that `%%prompt` would send.

A chat goes through the model's chat template. A base model has none: a single message is a document to continue, a
longer chat becomes a document in which an assistant is about to speak.
"""

from __future__ import annotations

import threading

from jupyter_gpt.data.render import Prompt, Question, encode, opening_token, render
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.answer import decoder, stop_criterion
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.prompting.generation import stop_ids


class ContextExceeded(GPTError):
    """A prompt that leaves no room for an answer."""

    code = "context_length_exceeded"


def render_prompt(model, prompt: str | list) -> Prompt:
    """A string, token ids or a list of messages as the model reads it. Raises GPTError."""
    tokenizer = model.tokenizer
    if isinstance(prompt, list) and isinstance(prompt[0], dict):
        if model.has_chat or len(prompt) > 1:
            return render(model.name, tokenizer, Question(prompt, as_assistant=not model.has_chat))
        prompt = prompt[0]["content"]
    if isinstance(prompt, str):
        first = opening_token(tokenizer)
        ids = [*([] if first is None else [first]), *(encode(tokenizer, prompt) if prompt else [])]
        return Prompt(tuple(ids), tokenizer.decode(ids), "continuing the document")
    unknown = next((i for i in prompt if not 0 <= i < len(tokenizer)), None)
    if unknown is not None:
        raise GPTError(f"prompt has the token {unknown}, but the ids of {model.name} are 0 to {len(tokenizer) - 1}")
    return Prompt(tuple(prompt), tokenizer.decode(prompt), "token ids")


def engine_request(model, prompt: Prompt, sampling, rule, cancelled: threading.Event) -> Request:
    """Its samples end early once `cancelled` is set. Raises GPTError for a prompt that is empty or exceeds the context:
    in the engine it would end the whole batch.
    """
    from jupyter_gpt.nn.modules import context_of

    context = context_of(model.module)
    room = context - len(prompt.ids)
    if not prompt.ids:
        raise GPTError("the prompt is empty")
    if room <= 0:
        raise ContextExceeded(
            f"the prompt has {len(prompt.ids):,} tokens, {1 - room:,} more than fit: the context of "
            f"{model.name} is {context:,}, and one must be left for the answer"
        )
    ends, stop, constraint = stop_ids(model), (*sampling.stops, *prompt.stop), None
    if rule:
        from jupyter_gpt.inference.constrain import constraint_of

        constraint = constraint_of(model.tokenizer, rule, ends, prompt.ids, () if sampling.min_tokens else stop)
    stopped = stop_criterion(decoder(model.tokenizer), stop, sampling.min_tokens)
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
        stop_ids=ends,
        top_logprobs=sampling.logprobs,
        until=lambda ids: cancelled.is_set() or (stopped is not None and stopped(ids)),
        constraint=constraint,
    )
