"""Answers while they are sampled: the engine's tokens become text, end at stop texts, and are collected as
completions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from jupyter_gpt.data.render import Prompt
from jupyter_gpt.inference.completion import Completion, Sampling, Usage

OLD_TOKENS = 8  # decoded along with new ones: two characters at least
MAX_BYTES = 4  # of a character
BROKEN = "\ufffd"  # what a decoder writes for an incomplete character
SLICE = 0.01  # seconds of sampling before other jobs get the device
REFRESH = 0.05  # seconds between two looks at the text so far
SHARED = ("samples", "temperature", "top_p", "top_k", "min_p", "max_tokens", "min_tokens", "seed", "lookup")
Decode = Callable[[list[int]], str]


def decoder(tokenizer) -> Decode:
    """Ids to text, without special tokens and without clean-up."""
    if getattr(tokenizer, "is_fast", False):
        backend = tokenizer.backend_tokenizer
        return lambda ids: backend.decode(ids, skip_special_tokens=True)
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Detokenizer:
    """The text of one sample as far as it is certain: never half a character, never a lost space, exact at the end.

    A byte-level token may hold a part of `é` or of an emoji, and a sentencepiece decoder drops a leading space. So a
    few tokens before the new ones are always decoded with them, and text that ends in a replacement character waits for
    the token that completes it. `prompt` are the ids before the sample.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()):
        self.decode, self.text = decode, ""
        self.window = list(prompt[-OLD_TOKENS:])  # what is decoded each time: some old tokens, then the new
        self.known = len(decode(self.window))  # characters of it that are in `text` already, or belong to the prompt

    def add(self, ids: Sequence[int]) -> str:
        """Add sampled tokens; returns the text that is now certain, which is appended to `text`."""
        self.window += ids
        decoded = self.decode(self.window)
        loose = min(MAX_BYTES - 1, len(decoded) - len(decoded.rstrip(BROKEN)))
        new = self._append(decoded[: len(decoded) - loose])
        if not loose:
            self.window = self.window[-OLD_TOKENS:]
            self.known = len(self.decode(self.window))
        return new

    def end(self) -> str:
        """No more tokens come: incomplete bytes are kept as broken characters. Returns all the text."""
        self._append(self.decode(self.window))
        return self.text

    def _append(self, decoded: str) -> str:
        new = decoded[self.known :]
        self.text += new
        self.known += len(new)
        return new


class PartialAnswer:
    """One sample so far. Text is decoded when somebody asks for it, or at each token if a stop text may end it."""

    def __init__(
        self, decode: Decode, prompt: Prompt, sampling: Sampling, stop_ids: frozenset[int], lead: str | None = None
    ):
        self.lead = lead  # what may precede a constrained answer; None for a free one
        self.detokenizer, self.decoded = Detokenizer(decode, prompt.ids), 0
        self.stop, self.stop_ids = (*sampling.stops, *prompt.stop), stop_ids
        self.trim, self.min_tokens = prompt.trim, sampling.min_tokens
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[tuple] = []
        self.seconds: list[float] = []
        self.finish: str | None = None
        self.drafted = self.accepted = 0  # tokens of speculative decoding
        self.cached = 0  # tokens of the prompt
        self.ended: float | None = None  # time.perf_counter()
        self.ended_by_token = False
        self.cut: int | None = None  # where a stop text begins

    def add(self, token) -> None:
        """Add an engine `Token`."""
        if self.finish:
            return
        self.tokens.append(token.id)
        self.logprobs.append(token.logprob)
        self.top.append(token.top)
        self.seconds.append(token.seconds)
        self.drafted += token.drafted
        self.accepted += token.accepted
        self.cached += token.cached
        self.finish = token.finish
        self.ended_by_token = token.finish == "stop" and token.id in self.stop_ids
        if self.stop and not self.ended_by_token:
            self.find_stop()
        self.ended = time.perf_counter() if self.finish else None

    def find_stop(self) -> None:
        """End the sample at the earliest stop text, unless it has fewer than `min_tokens`."""
        before = len(self.detokenizer.text)
        self.as_text()
        if len(self.tokens) <= self.min_tokens:
            return
        found = [self.detokenizer.text.find(text, max(0, before - len(text) + 1)) for text in self.stop]
        found = [at for at in found if at >= 0]
        if found:
            self.cut, self.finish = min(found), "stop"

    def as_text(self, whole: bool = False) -> str:
        """The text so far; `whole` if no more tokens come."""
        end = len(self.tokens) - self.ended_by_token
        self.detokenizer.add(self.tokens[self.decoded : end])
        self.decoded = end
        text = (self.detokenizer.end() if whole else self.detokenizer.text)[: self.cut]
        if self.lead is not None:
            return text.removeprefix(self.lead)
        return text.strip() if self.trim else text


def stop_criterion(decode: Decode, stop: tuple[str, ...], min_tokens: int) -> Callable[[Sequence[int]], bool] | None:
    """The engine's `until`: whether the last token completed a stop text, so that the sample leaves its batch."""
    if not stop:
        return None
    reach = MAX_BYTES * max(map(len, stop)) + 1  # tokens: a character may take as many as it has bytes

    def ended(ids: Sequence[int]) -> bool:
        tail = list(ids[-reach:])
        if len(ids) <= min_tokens:
            return False
        now, before = decode(tail), decode(tail[:-1])
        return any(text in now and text not in before for text in stop)

    return ended


def request_of(tokenizer, prompt: Prompt, sampling: Sampling, stop_ids: frozenset[int], rule=None, constraint=None):
    """The engine's `Request` of a prompt. `rule` constrains the answer; `constraint()` makes the engine's constraint of
    each sample."""
    from jupyter_gpt.inference.sampling import Request

    stop = (*sampling.stops, *prompt.stop)
    if rule:
        from jupyter_gpt.inference.constrain import constraint_of

        constraint = constraint_of(tokenizer, rule, stop_ids, prompt.ids, () if sampling.min_tokens else stop)
    return Request(
        ids=tuple(prompt.ids),
        **{name: getattr(sampling, name) for name in SHARED},
        stop_ids=stop_ids,
        top_logprobs=sampling.logprobs,
        until=stop_criterion(decoder(tokenizer), stop, sampling.min_tokens),
        constraint=constraint,
    )


def answers(
    module,
    tokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    stop_ids: frozenset[int],
    name: str,
    enough: Callable[[], bool] = lambda: False,
    rule=None,
    constraint: Callable | None = None,
) -> Iterator[list[Completion] | None]:
    """Sample answers to all prompts together.

    Yields the answers so far about twenty times a second, None in between, and at last all of them whole. Ends early,
    with what came, when `enough()`. `rule` constrains each answer; `constraint()` makes the engine's constraint of each
    sample.
    """
    from jupyter_gpt.inference.engine import generate

    decode, leads = decoder(tokenizer), [None] * len(prompts)
    if rule:
        from jupyter_gpt.inference.constrain import lead_of, settle

        leads = [lead_of(tokenizer, rule, prompt.ids) for prompt in prompts]
    requests = [request_of(tokenizer, prompt, sampling, stop_ids, rule, constraint) for prompt in prompts]
    partial_answers = [
        [PartialAnswer(decode, prompt, sampling, stop_ids, lead) for _ in range(sampling.samples)]
        for prompt, lead in zip(prompts, leads, strict=True)
    ]
    unfinished = sum(map(len, partial_answers))
    began = turn = refreshed = time.perf_counter()
    tokens, interrupted = generate(module, requests, True), False

    def so_far(whole: bool) -> list[Completion]:
        pairs = zip(prompts, partial_answers, strict=True)
        done = [completion(p, d, sampling, name, began, whole, interrupted) for p, d in pairs]
        if rule and whole:
            for answer, ds in zip(done, partial_answers, strict=True):
                settle(answer.samples, rule, [partial.cut is not None for partial in ds])
        return done

    try:
        for token in tokens:
            if token is not None:
                partial = partial_answers[token.request][token.sample]
                was_open = partial.finish is None
                partial.add(token)
                unfinished -= was_open and partial.finish is not None
                if not unfinished:
                    break
            now = time.perf_counter()
            if token is None or now - turn > SLICE:
                refresh = now - refreshed > REFRESH
                yield so_far(False) if refresh else None
                turn = time.perf_counter()
                refreshed = turn if refresh else refreshed
                if enough():
                    interrupted = True
                    break
    finally:
        tokens.close()
    yield so_far(True)


def completion(
    prompt: Prompt,
    partial_answers: Sequence[PartialAnswer],
    sampling: Sampling,
    name: str,
    began: float,
    whole: bool,
    interrupted: bool,
) -> Completion:
    """The answer to one prompt so far, with all its samples; its seconds count until the last of them has ended."""
    now = time.perf_counter()
    seconds = max(now if d.ended is None else d.ended for d in partial_answers) - began
    sizes = ((len(d.tokens), d.drafted, d.accepted) for d in partial_answers)
    count, drafted, accepted = map(sum, zip(*sizes, strict=True))
    cached = max(d.cached for d in partial_answers)
    usage = Usage(len(prompt.ids), count, seconds, drafted=drafted, accepted=accepted, cached_tokens=cached)
    samples = [
        Completion(
            text=d.as_text(whole),
            tokens=list(d.tokens),
            logprobs=list(d.logprobs),
            top=list(d.top),
            prompt=prompt.text,
            prompt_tokens=len(prompt.ids),
            usage=usage,
            finish_reason=d.finish or ("length" if whole else None),
            model=name,
            seconds_per_token=list(d.seconds),
            form=prompt.form,
            messages=prompt.messages,
            sampling=sampling,
            notes=prompt.notes,
            interrupted=interrupted and d.finish is None,
        )
        for d in partial_answers
    ]
    samples[0].samples = samples
    return samples[0]
