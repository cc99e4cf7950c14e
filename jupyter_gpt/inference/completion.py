"""Sampling settings, and the completion that comes back.

The defaults are the same for every model: its publisher's `generation_config` is not read, so that models are compared
under the same conditions; each completion has the settings that made it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import Count, NotNegative, Number, Options, Rank, Share, option

TEMPERATURE = 0.7  # default: low enough for a small assistant to stay on its subject, high enough to vary


def unescaped(text: str) -> str:
    r"""A text in which `\n` and `\t` mean a new line and a tab. Raises ValueError that says what is expected."""
    if not text:
        raise ValueError("some text")
    return text.replace("\\n", "\n").replace("\\t", "\t")


class Sampling(Options):
    """How tokens are sampled. Sample k uses the random stream of `seed` + k."""

    group: ClassVar[str] = "Sampling"

    samples: Count = option(
        1,
        "number of answers; in float32 sample k is the answer of --seed S+k, except for a token whose draw falls on a "
        "rounding of its logits (one in tens of thousands); in bfloat16 the two only share their random numbers",
        "N",
    )
    temperature: NotNegative | None = option(TEMPERATURE, "sampling temperature; 0 is greedy decoding", "T")
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = option(
        1.0, "nucleus sampling: only the most likely tokens whose probabilities add up to P", "P"
    )
    top_k: Rank | None = option(0, "only the K most likely tokens; 0 is all", "K")
    min_p: Share | None = option(0.0, "only tokens at least P times as likely as the most likely one", "P")
    max_tokens: Count = option(256, "maximum number of tokens in an answer", "N")
    min_tokens: Rank = option(0, "minimum number of tokens in an answer", "N")
    stop: str | list[str] | None = option(
        None, r"texts that end the answer before them, each in quotes; \n is a new line", "TEXT", kind=unescaped
    )
    seed: int = option(0, "random seed of the sampling", "S")
    logprobs: Annotated[int, Field(ge=0, le=100)] = option(
        0, "show each token's probability and its K most likely alternatives", "K"
    )
    lookup: bool | None = option(
        None,
        "draft a single answer's tokens from its context (prompt-lookup decoding): faster where it quotes or repeats "
        "(default: in float32 on a CPU, where the tokens are those of plain decoding)",
        only="python",
    )

    @field_validator("temperature", "top_p", "top_k", "min_p", mode="before")
    @classmethod
    def _default_of_none(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].default if value is None else value

    def check_together(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise GPTError(f"--min-tokens {self.min_tokens} must be at most --max-tokens {self.max_tokens}")
        if "" in self.stops:
            raise GPTError("--stop must not be an empty text")

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def as_dict(self) -> dict:
        """Plain JSON values."""
        return {**super().as_dict(), "stop": self.stops}


@dataclass(frozen=True)
class Usage:
    """Usage of one prompt, all its samples together. `seconds`: from sending it until its last sample ended; prompts
    sent together share that time. `cost`: dollars, None if no price is known. `drafted`: tokens proposed by speculative
    decoding, of which the model `accepted` some; those are among the completion tokens. `cached_tokens`: how many of
    the prompt tokens were in the prefix cache, or the server's, and were not read again."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None = None
    drafted: int = 0
    accepted: int = 0
    cached_tokens: int = 0

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
