"""What an endpoint has sent so far, sample by sample, with every piece checked: a server may send anything.

Works on the chunks of `/chat/completions` and of `/completions`, and on a whole answer that came at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jupyter_gpt.inference.remote_errors import Cut, Garbage
from jupyter_gpt.inference.tool_calls import gather


@dataclass
class Sample:
    """One sample: its text, and where logprobs are offered its tokens as text, each with its alternatives."""

    text: str = ""
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple] = field(default_factory=list)
    finish: str | None = None
    pieces: int = 0
    calls: dict[int, dict] = field(default_factory=dict)  # by their number, in pieces as they come

    @property
    def made(self) -> list[dict]:
        """The tools that it wants called, in order."""
        return [call for _, call in sorted(self.calls.items())]


class Answers:
    """The samples of one question by their number. `notes`: what is to be told about how they were drawn."""

    uncounted = ("the endpoint does not count tokens: the answer's are counted by its pieces, the prompt's not at all",)

    def __init__(self):
        self.samples: dict[int, Sample] = {}
        self.notes: dict[str, str] = {}
        self.spent: list[tuple[int, int]] = []  # (prompt tokens, completion tokens) of each request
        self.requests = 0

    def add(self, chunk) -> None:
        """Take one chunk of a stream. Raises Garbage when it is none."""
        data = chunk.model_dump(warnings=False) if hasattr(chunk, "model_dump") else chunk
        if not isinstance(data, dict) or not isinstance(data.get("choices", []) or [], list):
            raise Garbage("with JSON that is no completion")
        for choice in data.get("choices") or []:
            self.choice(choice)
        usage = data.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("prompt_tokens"), int):
            self.spent = [(usage["prompt_tokens"], int(usage.get("completion_tokens") or 0))]

    def whole(self, data) -> None:
        """Take an answer that came in one piece."""
        if not isinstance(data, dict) or not isinstance(data.get("choices"), list):
            raise Garbage("with JSON that is no completion")
        self.add(data)

    def choice(self, choice) -> None:
        if not isinstance(choice, dict):
            raise Garbage("with JSON that is no completion")
        delta = choice.get("delta") or choice.get("message") or {}
        text = choice.get("text") or delta.get("content") or delta.get("refusal") or ""
        number = choice.get("index") or 0
        if not isinstance(text, str) or not isinstance(number, int):
            raise Garbage("with JSON that is no completion")
        sample = self.samples.setdefault(number, Sample())
        sample.text += text
        sample.pieces += bool(text)
        gather(sample.calls, delta.get("tool_calls") or [])
        if choice.get("finish_reason"):
            sample.finish = "length" if choice["finish_reason"] == "length" else "stop"
        self.tokens(sample, choice.get("logprobs"))

    def tokens(self, sample: Sample, told) -> None:
        """Tokens and logprobs in nats, in the form of either interface."""
        if not isinstance(told, dict):
            return
        if isinstance(told.get("content"), list):
            rows = [
                (t["token"], t["logprob"], [(a["token"], a["logprob"]) for a in t.get("top_logprobs") or []])
                for t in told["content"]
            ]
        else:
            tokens, values = told.get("tokens") or [], told.get("token_logprobs") or []
            tops = told.get("top_logprobs") or [{}] * len(tokens)
            rows = [
                (token, value, list((top or {}).items()))
                for token, value, top in zip(tokens, values, tops, strict=False)
            ]
        for token, logprob, top in rows:
            sample.tokens.append(token)
            sample.logprobs.append(logprob)
            sample.top.append(tuple(sorted(top, key=lambda pair: -pair[1])))

    def check(self) -> None:
        """At the end of a request. Raises Garbage when nothing came, or not all."""
        self.requests += 1
        if not self.samples:
            raise Garbage("nothing that is a completion")
        if any(sample.finish is None for sample in self.samples.values()):
            raise Cut("the last piece of it never came")

    def merge(self, number: int, other: Answers) -> None:
        """Take the one sample of another request as the sample `number` of this question."""
        self.samples[number] = other.samples[min(other.samples)]
        self.spent += other.spent
        self.requests += other.requests
        self.notes = {**other.notes, **self.notes}

    @property
    def counted(self) -> bool:
        """Whether the server has told the tokens of every request."""
        return len(self.spent) == max(1, self.requests)

    def usage(self) -> tuple[int | None, int]:
        """Tokens of the prompts and of the answers; pieces stand for tokens where the server does not
        count."""
        if self.counted:
            return sum(prompt for prompt, _ in self.spent), sum(answer for _, answer in self.spent)
        return None, sum(len(sample.tokens) or sample.pieces for sample in self.samples.values())
