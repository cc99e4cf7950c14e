"""From sampled tokens to the JSON of OpenAI's responses, whole or streamed.

A stop string may arrive in pieces: the end of a text that could begin one waits, with the log probabilities of its
tokens, until it is certain that it does not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from jupyter_gpt.inference.answer import Detokenizer, decoder
from jupyter_gpt.inference.rules import Rule


@dataclass
class TokenLogprob:
    """A token's text, its log probability (nats), its most probable alternatives, its place in the text."""

    text: str
    logprob: float
    top: list[tuple[str, float]]
    offset: int


@dataclass
class Delta:
    """New text of a choice, its tokens, and at the end why it ended."""

    text: str = ""
    tokens: list[TokenLogprob] = field(default_factory=list)
    finish: str | None = None


class Choice:
    """One sample of one prompt as it grows. `request` is the engine's; `finish` is None until it has ended. A
    constrained sample that stopped before it satisfied its `rule` ends with "length".
    """

    def __init__(self, tokenizer, prompt, request, stop: Sequence[str], logprobs: bool, rule: Rule | None = None):
        self.tokenizer, self.stop, self.logprobs = tokenizer, (*stop, *prompt.stop), logprobs
        self.rule, self.lead = rule, ""
        if rule:
            from jupyter_gpt.inference.constrain import lead_of

            self.lead = lead_of(tokenizer, rule, prompt.ids)
        self.trim = prompt.trim and not rule  # the space around the answer belongs to the form of the prompt
        self.stop_ids, self.min_tokens = request.stop_ids, request.min_tokens
        self.detokenizer = Detokenizer(decoder(tokenizer), prompt.ids)
        self.floor = 0  # stop strings count from this character on
        self.sent = 0  # characters
        self.waiting: list[TokenLogprob] = []
        self.count = 0  # tokens sampled, the one that ended it included
        self.cached = 0  # tokens of the prompt that were not read again
        self.finish: str | None = None

    def add(self, token) -> Delta:
        """Add a Token of the engine; returns what can be sent now. Tokens after the end are ignored."""
        if self.finish:
            return Delta()
        self.count += 1
        self.cached += token.cached
        if not (token.finish == "stop" and token.id in self.stop_ids):
            if self.logprobs:
                top = [(self.decode(id), logprob) for id, logprob in token.top]
                offset = len(self.detokenizer.text)
                self.waiting.append(TokenLogprob(self.decode(token.id), token.logprob, top, offset))
            self.detokenizer.add([token.id])
        if self.count == self.min_tokens:
            self.floor = len(self.detokenizer.text)
        return self.delta(token.finish)

    def end(self) -> Delta:
        """No more tokens come."""
        return Delta() if self.finish else self.delta("length")

    def delta(self, finish: str | None) -> Delta:
        """What can be sent: the text up to a stop string."""
        text = self.detokenizer.end() if finish else self.detokenizer.text
        stops = [at for stop in self.stop if (at := text.find(stop, self.floor)) >= 0]
        if self.count < self.min_tokens:
            stops = []
        if stops:
            finish = "stop"
        end = min(stops) if stops else len(text) - (0 if finish else partial_stop(text, self.stop))
        if self.trim:
            end = len(text[:end].rstrip())
            self.sent = max(self.sent, min(end, len(text) - len(text.lstrip())))
        if self.lead and text.startswith(self.lead):
            self.sent = max(self.sent, min(end, len(self.lead)))
        if self.rule and finish == "stop" and not stops and self.rule.problem(text[:end].removeprefix(self.lead)):
            finish = "length"
        self.finish, start = finish, self.sent
        self.sent = max(start, end)
        tokens = [t for t in self.waiting if t.offset < self.sent or (finish and not stops)]
        self.waiting = self.waiting[len(tokens) :]
        return Delta(text[start : self.sent], tokens, finish)

    def decode(self, id: int) -> str:
        return self.tokenizer.decode([id], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def partial_stop(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may begin a stop string."""
    ends = (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n]))
    return max(ends, default=0)


class Writer:
    """The JSON around the choices of one request, a chat's or a completion's."""

    def __init__(self, chat: bool, request, prompt_tokens: int):
        self.chat, self.prompt_tokens, self.samples = chat, prompt_tokens, request.n
        self.logprobs, self.usage_chunk = request.alternatives is not None, request.stream_options.include_usage
        kind = "chatcmpl" if chat else "cmpl"
        self.head = {"id": f"{kind}-{time.time_ns():x}", "created": int(time.time()), "model": request.model}

    def response(self, choices: Sequence[Choice], deltas: Sequence[Sequence[Delta]]) -> dict:
        """The whole response; `deltas[i]` are those of choice i."""
        result = []
        for index, (choice, parts) in enumerate(zip(choices, deltas, strict=True)):
            text = "".join(part.text for part in parts)
            body = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
            logprobs = self.logprobs_of([token for part in parts for token in part.tokens])
            result.append({"index": index, "finish_reason": choice.finish, "logprobs": logprobs} | body)
        kind = "chat.completion" if self.chat else "text_completion"
        return self.head | {"object": kind, "choices": result, "usage": self.usage(choices)}

    def first_chunk(self, index: int) -> dict:
        """A chat's first chunk of a choice has its role."""
        delta = {"role": "assistant", "content": ""}
        return self.chunk([{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}])

    def chunks(self, index: int, delta: Delta) -> list[dict]:
        """The chunks of a delta: one for its text, in a chat one more for its end; none if there is nothing new."""
        chunks = []
        end = None if self.chat else delta.finish
        if delta.text or delta.tokens or end:
            body = {"delta": {"content": delta.text}} if self.chat else {"text": delta.text}
            chunks.append({"index": index, **body, "logprobs": self.logprobs_of(delta.tokens), "finish_reason": end})
        if self.chat and delta.finish:
            chunks.append({"index": index, "delta": {}, "logprobs": None, "finish_reason": delta.finish})
        return [self.chunk([chunk]) for chunk in chunks]

    def last_chunks(self, choices: Sequence[Choice]) -> list[dict]:
        """The usage, if the client asked for it."""
        return [self.chunk([]) | {"usage": self.usage(choices)}] if self.usage_chunk else []

    def chunk(self, choices: list[dict]) -> dict:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return self.head | {"object": kind, "choices": choices} | ({"usage": None} if self.usage_chunk else {})

    def usage(self, choices: Sequence[Choice]) -> dict:
        sampled = sum(choice.count for choice in choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": sampled,
            "total_tokens": self.prompt_tokens + sampled,
            "prompt_tokens_details": {"cached_tokens": sum(choice.cached for choice in choices) // self.samples},
        }

    def logprobs_of(self, tokens: Sequence[TokenLogprob]) -> dict | None:
        if not self.logprobs:
            return None
        if self.chat:
            content = [entry(t.text, t.logprob) | {"top_logprobs": [entry(*a) for a in t.top]} for t in tokens]
            return {"content": content, "refusal": None}
        return {
            "tokens": [t.text for t in tokens],
            "token_logprobs": [t.logprob for t in tokens],
            "top_logprobs": [dict(t.top) for t in tokens],
            "text_offset": [t.offset for t in tokens],
        }


def entry(text: str, logprob: float) -> dict:
    """A token in a chat's log probabilities. A part of a character has no bytes: its text does not determine them."""
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}
