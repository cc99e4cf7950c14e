"""Sampling settings, and the completion that comes back.

The defaults are the same for every model: its publisher's `generation_config` is not read, so that models are compared
under the same conditions; each completion has the settings that made it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from jupyter_gpt.errors import GPTError

TEMPERATURE = 0.7  # default: low enough for a small assistant to stay on its subject, high enough to vary


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled.

    `temperature` 0 is greedy. `top_p` 1, `top_k` 0 and `min_p` 0 filter nothing. `stop` strings end the text before
    them; sample k uses the random stream of `seed` + k; `logprobs` is the number of alternatives to keep for each token
    (its own log-probability is always kept). `lookup` decodes a greedy answer that quotes its prompt faster.
    """

    samples: int = 1
    temperature: float = TEMPERATURE
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 256
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    seed: int = 0
    logprobs: int = 0
    lookup: bool = False

    def __post_init__(self):
        """Raises GPTError for a value out of range."""
        ranges = {
            "samples": (self.samples >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 (all tokens) or more"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "min_tokens": (0 <= self.min_tokens <= self.max_tokens, f"from 0 to max_tokens ({self.max_tokens})"),
            "logprobs": (0 <= self.logprobs <= 100, "from 0 to 100"),
        }
        for name, (good, text) in ranges.items():
            if not good:
                raise GPTError(f"{name} is {text}, not {getattr(self, name)}")
        if "" in self.stop:
            raise GPTError("an empty text cannot stop an answer: give stop some characters")

    def as_dict(self) -> dict:
        """Plain JSON values."""
        return asdict(self) | {"stop": list(self.stop)}


@dataclass(frozen=True)
class Usage:
    """Usage of one prompt, all its samples together. `seconds`: from sending it until its last sample ended; prompts
    sent together share that time. `cost`: dollars, None if no price is known."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens sampled per second, prefill included."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict:
        return asdict(self) | {"tokens_per_second": self.tokens_per_second}


@dataclass(repr=False, eq=False)
class Completion:
    """One answer.

    text: what was sampled, without the token that ended it.  tokens, logprobs: each sampled token, that last one
    included, and its log-probability (nats) under the model.  top: the most probable alternatives per token as (id,
    logprob). prompt: exactly what was sent, special tokens included; prompt_tokens: its length.  finish_reason: "stop"
    (it ended, or met a stop text), "length" (max_tokens, the context, or an interrupt), None (a dry run). samples: all
    samples, itself the first.  form: how the question was laid out.  messages: the chat, if it was one. valid: whether
    it satisfies its constraint, None without one; value: of valid JSON the parsed value (or the pydantic object), of a
    template its holes by name, else the text.  holes: the holes of a template in its text, as (name, first character,
    end). calls: the tools to be called, each with `name` and `arguments`; `text` is then what precedes them.
    broken_call: why a call could not be parsed. answer: what a technique extracted as the answer, None if there is
    none.  trace: its calls, as `prompting.trace` has them.
    """

    text: str
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple] = field(default_factory=list)
    prompt: str = ""
    prompt_tokens: int = 0
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0.0))
    finish_reason: str | None = None
    samples: list[Completion] = field(default_factory=list)
    trace: dict | None = None
    model: str = ""
    seconds_per_token: list[float] = field(default_factory=list)
    form: str = ""
    messages: list[dict] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    history: bool = False
    remote: bool = False
    valid: bool | None = None
    value: object = None
    holes: list[tuple[str, int, int]] = field(default_factory=list)
    answer: str | None = None
    calls: list[dict] = field(default_factory=list)
    broken_call: str = ""

    def __post_init__(self):
        self.samples = self.samples or [self]

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    def as_dict(self) -> dict:
        """Everything as plain JSON values; the samples without what they share."""
        return {
            "model": self.model,
            "form": self.form,
            "prompt": self.prompt,
            "messages": self.messages,
            "sampling": self.sampling.as_dict(),
            "usage": self.usage.as_dict(),
            "notes": list(self.notes),
            "interrupted": self.interrupted,
            "answer": self.answer,
            "trace": self.trace,
            "samples": [
                {
                    "text": s.text,
                    "finish_reason": s.finish_reason,
                    "valid": s.valid,
                    "holes": [list(hole) for hole in s.holes],
                    "tokens": s.tokens,
                    "logprobs": s.logprobs,
                    "top": [[list(pair) for pair in top] for top in s.top],
                    "seconds_per_token": s.seconds_per_token,
                }
                for s in self.samples
            ],
        }
