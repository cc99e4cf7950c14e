"""Answers on their way: the engine's tokens gathered into completions, with stop texts and text that can be
read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from jupyter_gpt.data.render import Prompt
from jupyter_gpt.inference.completion import Completion, Sampling, Usage
from jupyter_gpt.inference.constraint_validation import settle
from jupyter_gpt.inference.detokenize import LONGEST as BYTES
from jupyter_gpt.inference.detokenize import Detokenizer, decoder
from jupyter_gpt.inference.rules import Rule

SLICE = 0.01  # seconds of sampling between two looks at whoever else wants the device
LOOK = 0.05  # seconds between two looks at the text so far
Decode = Callable[[list[int]], str]


class Draft:
    """One sample so far. Text is made when somebody looks, or at each token where a stop text may end it."""

    def __init__(
        self, decode: Decode, prompt: Prompt, sampling: Sampling, stop_ids: frozenset[int], lead: str | None = None
    ):
        self.lead = lead  # what may stand before an answer held to a rule; None for one that is not
        self.reader, self.read = Detokenizer(decode, prompt.ids), 0
        self.stop, self.stop_ids = (*sampling.stop, *prompt.stop), stop_ids
        self.trim, self.min_tokens = prompt.trim, sampling.min_tokens
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[tuple] = []
        self.seconds: list[float] = []
        self.finish: str | None = None
        self.ended: float | None = None  # time.perf_counter() when it did
        self.ended_by_token = False
        self.cut: int | None = None  # where a stop text begins

    def add(self, token) -> None:
        """One `engine.Token` of this sample."""
        if self.finish:
            return
        self.tokens.append(token.id)
        self.logprobs.append(token.logprob)
        self.top.append(token.top)
        self.seconds.append(token.seconds)
        self.finish = token.finish
        self.ended_by_token = token.finish == "stop" and token.id in self.stop_ids
        if self.stop and not self.ended_by_token:
            self.look_for_stop()
        self.ended = time.perf_counter() if self.finish else None

    def look_for_stop(self) -> None:
        """End the sample where the earliest stop text stands in it, unless it has to go on for
        `min_tokens`.
        """
        before = len(self.reader.text)
        self.written()
        if len(self.tokens) <= self.min_tokens:
            return
        found = [self.reader.text.find(text, max(0, before - len(text) + 1)) for text in self.stop]
        found = [at for at in found if at >= 0]
        if found:
            self.cut, self.finish = min(found), "stop"

    def written(self, whole: bool = False) -> str:
        """The text so far; `whole` when no more comes."""
        end = len(self.tokens) - self.ended_by_token
        self.reader.add(self.tokens[self.read : end])
        self.read = end
        text = (self.reader.end() if whole else self.reader.text)[: self.cut]
        if self.lead is not None:
            return text.removeprefix(self.lead)
        return text.strip() if self.trim else text


def until(decode: Decode, stop: tuple[str, ...], min_tokens: int) -> Callable[[Sequence[int]], bool] | None:
    """What the engine asks after each token: has it completed a stop text? So a finished sample leaves its
    batch.
    """
    if not stop:
        return None
    reach = BYTES * max(map(len, stop)) + 1  # tokens: each character may be as many as it has bytes

    def ended(ids: Sequence[int]) -> bool:
        tail = list(ids[-reach:])
        if len(ids) <= min_tokens:
            return False
        now, before = decode(tail), decode(tail[:-1])
        return any(text in now and text not in before for text in stop)

    return ended


def answers(
    module,
    tokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    stop_ids: frozenset[int],
    name: str,
    enough: Callable[[], bool] = lambda: False,
    rule: Rule | None = None,
    constraint: Callable | None = None,
) -> Iterator[list[Completion] | None]:
    """Sample answers to all prompts together.

    Yields them so far about twenty times a second, None in between, and last the whole of them. Ends early,
    with what came, when `enough()`. With `rule`, each is held to it;
    `constraint` makes the engine's constraint of each sample.
    """
    from jupyter_gpt.inference.engine import generate
    from jupyter_gpt.inference.sequence import Request

    decode = decoder(tokenizer)
    constraints, leads = [constraint] * len(prompts), [None] * len(prompts)
    if rule:
        from jupyter_gpt.inference.constrain import held, lead_of

        leads = [lead_of(tokenizer, rule, prompt.ids) for prompt in prompts]
        tails = [() if sampling.min_tokens else (*sampling.stop, *prompt.stop) for prompt in prompts]
        constraints = [
            held(tokenizer, rule, stop_ids, prompt.ids, tail) for prompt, tail in zip(prompts, tails, strict=True)
        ]
    asked = [
        Request(
            ids=prompt.ids,
            samples=sampling.samples,
            max_tokens=sampling.max_tokens,
            min_tokens=sampling.min_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=sampling.seed,
            stop_ids=stop_ids,
            top_logprobs=sampling.logprobs,
            lookup=sampling.lookup,
            until=until(decode, (*sampling.stop, *prompt.stop), sampling.min_tokens),
            constraint=held_to,
        )
        for prompt, held_to in zip(prompts, constraints, strict=True)
    ]
    drafts = [
        [Draft(decode, prompt, sampling, stop_ids, lead) for _ in range(sampling.samples)]
        for prompt, lead in zip(prompts, leads, strict=True)
    ]
    open_drafts = sum(map(len, drafts))
    began = turn = looked = time.perf_counter()
    tokens, interrupted = generate(module, asked), False

    def so_far(whole: bool) -> list[Completion]:
        made = zip(prompts, drafts, strict=True)
        found = [completion(p, d, sampling, name, began, whole, interrupted) for p, d in made]
        for answer, ds in zip(found if rule and whole else (), drafts, strict=False):
            settle(answer.samples, rule, [draft.cut is not None for draft in ds])
        return found

    try:
        for token in tokens:
            if token is not None:
                draft = drafts[token.request][token.sample]
                was_open = draft.finish is None
                draft.add(token)
                open_drafts -= was_open and draft.finish is not None
                if not open_drafts:
                    break
            now = time.perf_counter()
            if token is None or now - turn > SLICE:
                look = now - looked > LOOK
                yield so_far(False) if look else None
                turn = time.perf_counter()
                looked = turn if look else looked
                if enough():
                    interrupted = True
                    break
    finally:
        tokens.close()
    yield so_far(True)


def completion(
    prompt: Prompt,
    drafts: Sequence[Draft],
    sampling: Sampling,
    name: str,
    began: float,
    whole: bool,
    interrupted: bool,
) -> Completion:
    """The answer to one prompt as it stands, all samples with it. It takes until the last of them has ended, whatever
    is
    still sampled beside them."""
    now = time.perf_counter()
    seconds = max(now if d.ended is None else d.ended for d in drafts) - began
    usage = Usage(len(prompt.ids), sum(len(d.tokens) for d in drafts), seconds)
    samples = [
        Completion(
            text=d.written(whole),
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
        for d in drafts
    ]
    samples[0].samples = samples
    return samples[0]
