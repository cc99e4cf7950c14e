"""What is asked of a model and what comes back: sampling settings, and a completion that hides nothing.

The settings are the same for every model: a `generation_config` of its publisher is not read, so that two
models are compared under the same conditions; each completion says which settings made it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from jupyter_gpt.errors import GPTError

TEMPERATURE = 0.7  # cool enough for an assistant of this size to stay on its subject, warm enough to vary


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    `temperature` 0 is greedy. `top_p` 1, `top_k` 0 and `min_p` 0 leave the distribution whole. `stop` are
    strings that end the text before them; sample k draws from the stream of `seed` + k; `logprobs` is the
    number of alternatives to keep for each token (its own log-probability is always kept). `lookup` guesses a
    greedy answer from its prompt, for those that quote it: the same tokens, sooner.
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
        """Raises GPTError for a setting that means nothing."""
        wanted = {
            "samples": (self.samples >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 (all tokens) or more"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "min_tokens": (
                0 <= self.min_tokens <= self.max_tokens,
                f"from 0 to max_tokens ({self.max_tokens})",
            ),
            "logprobs": (0 <= self.logprobs <= 100, "from 0 to 100"),
        }
        for name, (good, text) in wanted.items():
            if not good:
                raise GPTError(f"{name} is {text}, not {getattr(self, name)}")
        if "" in self.stop:
            raise GPTError("an empty text cannot stop an answer: give stop some characters")

    def as_dict(self) -> dict:
        """Plain values, as JSON has them."""
        return asdict(self) | {"stop": list(self.stop)}


@dataclass(frozen=True)
class Usage:
    """What the answer to one prompt took, all its samples together. `seconds` are from when it was sent until the last
    of them
    had ended; of prompts that were sent together each has its own, and they shared that time. `cost` is in dollars,
    None where no price is known.
    """

    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens sampled a second, the reading of the prompt included."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict:
        return asdict(self) | {"tokens_per_second": self.tokens_per_second}


@dataclass(repr=False, eq=False)
class Completion:
    """One answer.

    text: what was sampled, without the token that ended it.  tokens, logprobs: each sampled token, that last
    one included, and its log-probability (nats) under the model itself.  top: per token its likeliest
    alternatives as (id, logprob).  prompt: exactly what was sent, special tokens included; prompt_tokens: how
    many that is. finish_reason: "stop" (it ended, or met a stop text), "length" (it reached max_tokens or the
    context, or was interrupted), None (not asked: a dry run).  samples: all that were drawn, itself the
    first.  form: how the question was put to the model, in words.  messages: the chat, where it was one.
    valid: whether it keeps the constraint it was held to, None where there was none; value: of JSON that does the
    parsed value (or the pydantic object), of a template its holes by name, else the text.
    holes: where the holes of a template stand in its text, as (name, first character, end).
    calls: the tools that it wants called, each with `name` and `arguments`; `text` is then what it said before.
    broken_call: why a call that it began could not be read.
    answer: what a technique read off as the answer, None where none was looked for or found.  trace: what a
    technique asked, as `jupyter_gpt.prompting.trace` has it.
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
        """All of it as JSON has it; the samples without what they share."""
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
