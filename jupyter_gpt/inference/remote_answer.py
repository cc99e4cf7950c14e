"""The answer of an endpoint so far, sample by sample, with every piece checked: a server may send anything.

It reads the chunks of `/chat/completions` and of `/completions`, and answers that come whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jupyter_gpt.inference.remote_errors import Cut, Garbage
from jupyter_gpt.inference.tool_calls import gather

PIECES, CHARACTERS, SPARE = 16, 64, 4096  # of a token at most, and of an answer beyond its tokens
NO_COMPLETION = "with JSON that is no completion"


@dataclass
class Sample:
    """One sample: its text, and if the server offers logprobs its tokens as text, each with its alternatives."""

    text: str = ""
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple] = field(default_factory=list)
    finish: str | None = None
    pieces: int = 0
    size: int = 0  # characters, with those of tool calls
    calls: dict[int, dict] = field(default_factory=dict)  # by their number

    @property
    def tool_calls(self) -> list[dict]:
        """In order."""
        return [call for _, call in sorted(self.calls.items())]


class Answers:
    """The samples of one question by their number. `notes`: what the user should know about them."""

    uncounted = ("the endpoint does not count tokens: the answer's are counted by its pieces, the prompt's not at all",)

    def __init__(self):
        self.samples: dict[int, Sample] = {}
        self.notes: dict[str, str] = {}
        self.spent: list[tuple[int, int]] = []  # (prompt tokens, completion tokens) of each request
        self.requests = 0
        self.chunks = 0  # of the stream
        self.cached = 0  # prompt tokens that the server had in its cache

    def add(self, chunk) -> None:
        """Add a chunk of a stream. Raises Garbage for anything else."""
        data = chunk.model_dump(warnings=False) if hasattr(chunk, "model_dump") else chunk
        if not isinstance(data, dict) or not isinstance(data.get("choices", []) or [], list):
            raise Garbage(NO_COMPLETION)
        for choice in data.get("choices") or []:
            self.choice(choice)
        usage = data.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("prompt_tokens"), int):
            self.spent = [(usage["prompt_tokens"], int(usage.get("completion_tokens") or 0))]
            details = usage.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, dict) else None
            self.cached = cached if isinstance(cached, int) else 0

    def whole(self, data) -> None:
        """Add an answer that came in one piece."""
        if not isinstance(data, dict) or not isinstance(data.get("choices"), list):
            raise Garbage(NO_COMPLETION)
        self.add(data)

    def choice(self, choice) -> None:
        if not isinstance(choice, dict):
            raise Garbage(NO_COMPLETION)
        delta = choice.get("delta") or choice.get("message") or {}
        text = choice.get("text") or delta.get("content") or delta.get("refusal") or ""
        number = choice.get("index") or 0
        if not isinstance(text, str) or not isinstance(number, int):
            raise Garbage(NO_COMPLETION)
        sample = self.samples.setdefault(number, Sample())
        sample.text += text
        sample.pieces += bool(text)
        sample.size += len(text) + len(str(delta.get("tool_calls") or ""))
        gather(sample.calls, delta.get("tool_calls") or [])
        if choice.get("finish_reason"):
            sample.finish = "length" if choice["finish_reason"] == "length" else "stop"
        self.tokens(sample, choice.get("logprobs"))

    def tokens(self, sample: Sample, logprobs) -> None:
        """Add tokens and logprobs (nats), in the format of either interface."""
        if not isinstance(logprobs, dict):
            return
        if isinstance(logprobs.get("content"), list):
            rows = [
                (t["token"], t["logprob"], [(a["token"], a["logprob"]) for a in t.get("top_logprobs") or []])
                for t in logprobs["content"]
            ]
        else:
            tokens, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
            tops = logprobs.get("top_logprobs") or [{}] * len(tokens)
            rows = [
                (token, value, list((top or {}).items()))
                for token, value, top in zip(tokens, values, tops, strict=False)
            ]
        for token, logprob, top in rows:
            sample.tokens.append(token)
            sample.logprobs.append(logprob)
            sample.top.append(tuple(sorted(top, key=lambda pair: -pair[1])))

    def too_long(self, max_tokens: int, samples: int) -> bool:
        """Whether the server goes on after `max_tokens`, as far as that is known: no token has so many characters, or
        comes in so many pieces. Such an answer is cut."""
        self.chunks += 1
        long = self.chunks > SPARE + PIECES * max_tokens * samples
        long |= any(sample.size > SPARE + CHARACTERS * max_tokens for sample in self.samples.values())
        if long:
            self.notes["max_tokens"] = f"the endpoint does not stop at {max_tokens:,} tokens: its answer was cut"
            for sample in self.samples.values():
                sample.finish = sample.finish or "length"
        return long

    def check(self) -> None:
        """At the end of a request. Raises Garbage if nothing came, Cut if it is incomplete."""
        self.requests += 1
        if not self.samples:
            raise Garbage("nothing that is a completion")
        if any(sample.finish is None for sample in self.samples.values()):
            raise Cut("the last piece of it never came")

    def merge(self, number: int, other: Answers) -> None:
        """Add the sample of another request as sample `number`."""
        self.samples[number] = other.samples[min(other.samples)]
        self.spent += other.spent
        self.requests += other.requests
        self.cached += other.cached
        self.notes = {**other.notes, **self.notes}

    @property
    def counted(self) -> bool:
        """Whether the server has counted the tokens of every request."""
        return len(self.spent) == max(1, self.requests)

    def usage(self) -> tuple[int | None, int]:
        """Tokens of the prompts and of the answers; pieces are counted instead if the server does not count tokens."""
        if self.counted:
            return sum(prompt for prompt, _ in self.spent), sum(answer for _, answer in self.spent)
        return None, sum(len(sample.tokens) or sample.pieces for sample in self.samples.values())
