"""Completions that the policy samples, with their log-probabilities under the policy that sampled them; and their
rewards: a reward model's score, a user's function, or several of them, weighted.

Rewards read text, so a reward model may have another tokenizer than the policy. A function is called where an interrupt
can reach it (`runs/worker.py`), once per completion, and a stop takes effect between two calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jupyter_gpt.data.prompt_completion import PromptCompletion, batches
from jupyter_gpt.data.render import Question
from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.metrics import identical
from jupyter_gpt.inference.answer import Detokenizer, decoder
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.models.scoring import row_of, scored
from jupyter_gpt.nn.logprobs import Reader, laid_out, logprobs, mask_of
from jupyter_gpt.nn.modules import context_of
from jupyter_gpt.nn.rl_losses import kl
from jupyter_gpt.runs.worker import Call
from jupyter_gpt.stages.reward_function import rewards_of

STREAMS = 1 << 10  # random streams reserved for the samples of one prompt
EVALUATION, SAMPLES = 1 << 40, 1 << 41  # streams that training does not use
RESAMPLING = 1 << 42  # and those of each turn of dynamic sampling


class Prompt(NamedTuple):
    """A prompt as text, and as the ids that the model reads."""

    text: str
    ids: tuple[int, ...]


class Completion(NamedTuple):
    """One completion of a rollout; see there."""

    row: PromptCompletion
    prompt: str
    text: str
    finish_reason: str
    old: list[float]
    reward: float | None
    parts: dict[str, float]


@dataclass
class Rollout:
    """`samples` completions of each prompt, those of one prompt side by side: B rows of at most L tokens.

    rows: the ids, with the end token of each that has one.  prompts, texts: as text.  finish_reasons: "stop", or
    "length" of those cut at the token limit.  old: `(B, L)` log-probabilities in nats when they were sampled, at
    temperature 1.  rewards: `(B,)`, once they are known.  parts: of several rewards each by its name, NaN where it does
    not apply.  sampler_logp: where a copy of the policy sampled, its log-probabilities `(B, L)`.  With
    dynamic sampling first: the completions of the step's own prompts; resampled: how many prompts were replaced;
    discarded: tokens of completions that are not among these.
    """

    samples: int
    rows: list[PromptCompletion]
    prompts: list[str]
    texts: list[str]
    finish_reasons: list[str]
    old: Tensor
    rewards: Any = None  # a tensor
    parts: dict[str, list[float]] = field(default_factory=dict)
    sampler_logp: Tensor | None = None
    first: Rollout | None = None
    resampled: int | None = None
    discarded: int = 0

    @property
    def mask(self) -> Tensor:
        return mask_of(self.rows, self.old.device)

    def completions(self) -> list[Completion]:
        """Its completions one by one."""
        old = [row[: len(each.completion)] for row, each in zip(self.old.tolist(), self.rows, strict=True)]
        rewards = [None] * len(old) if self.rewards is None else self.rewards.tolist()
        parts = [dict(zip(self.parts, each, strict=True)) for each in zip(*self.parts.values(), strict=True)]
        texts = zip(self.rows, self.prompts, self.texts, self.finish_reasons, strict=True)
        numbers = zip(old, rewards, parts or [{}] * len(old), strict=True)
        return [Completion(*text, *number) for text, number in zip(texts, numbers, strict=True)]

    @property
    def finished(self) -> list[bool]:
        """Whether each completion ended by itself."""
        return [reason != "length" for reason in self.finish_reasons]

    @property
    def truncated(self) -> Tensor:
        """`(B,)`, True where a completion was cut at the token limit."""
        return ~torch.tensor(self.finished, device=self.old.device)

    @property
    def tokens(self) -> int:
        """Tokens sampled."""
        return self.discarded + sum(len(row.completion) for row in self.rows)

    @property
    def length(self) -> float:
        """Mean length of a completion, in tokens."""
        return sum(len(row.completion) for row in self.rows) / len(self.rows)

    @property
    def identical(self) -> float | None:
        """Share of pairs of completions of one prompt that are the same text; None where there are no pairs."""
        return identical([self.texts[n : n + self.samples] for n in range(0, len(self.texts), self.samples)])


def roll_out(
    policy: nn.Module,
    tokenizer,
    prompts: Sequence[Prompt],
    samples: int,
    max_tokens: int,
    stop: frozenset[int],
    seeds: Sequence[int],
) -> Iterator[None]:
    """Sample; yields after each token, returns the `Rollout` without rewards. The seed of a prompt decides its
    samples."""
    requests = [
        Request(each.ids, samples=samples, max_tokens=max_tokens, temperature=1.0, stop_ids=stop, seed=seed * STREAMS)
        for each, seed in zip(prompts, seeds, strict=True)
    ]
    ids: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    nats: list[list[float]] = [[] for _ in ids]
    reasons = ["length"] * len(ids)
    for token in generate(policy, requests):
        if token is not None:
            place = token.request * samples + token.sample
            ids[place].append(token.id)
            nats[place].append(token.logprob)
            reasons[place] = token.finish or reasons[place]
        yield
    device, decode = next(policy.parameters()).device, decoder(tokenizer)
    rows = [PromptCompletion(prompts[place // samples].ids, tuple(row)) for place, row in enumerate(ids)]
    texts = [decode(row[:-1] if row[-1] in stop else row) for row in ids]
    old = laid_out(torch.tensor([x for row in nats for x in row], device=device), rows)
    return Rollout(samples, rows, [each.text for each in prompts for _ in range(samples)], texts, reasons, old)


def rollout_of_completions(samples: int, completions: Sequence[Completion], device: torch.device) -> Rollout:
    """The `Rollout` of completions, those of one prompt side by side."""
    pairs, prompts, texts, reasons, nats, rewards, parts = (list(each) for each in zip(*completions, strict=True))
    rows = [PromptCompletion(tuple(prompt), tuple(ids)) for prompt, ids in pairs]
    old = laid_out(torch.tensor([x for row in nats for x in row], device=device), rows)
    found = Rollout(samples, rows, prompts, texts, reasons, old)
    if rewards[0] is not None:
        found.rewards = torch.tensor(rewards, device=device)
    found.parts = {name: [each[name] for each in parts] for name in parts[0]}
    return found


def gathered(rollout: Rollout | None, samples: int, device: torch.device, ranks: Any) -> Rollout:
    """The rollouts of all ranks as one, in the order of the prompts, which were dealt to them; None is a rank's that
    had no prompt."""
    shares = [list(map(Completion._make, share)) for share in ranks.gather(rollout.completions() if rollout else [])]
    every: list[Completion] = []
    for n in range(sum(map(len, shares)) // samples):
        first = n // ranks.size * samples
        every += shares[n % ranks.size][first : first + samples]
    return rollout_of_completions(samples, every, device)


def rollout_values(rollout: Rollout) -> dict:
    """What every step that samples reports of its completions, with dynamic sampling of those of its own prompts."""
    values: dict = {} if rollout.resampled is None else {"resampled": rollout.resampled}
    own = rollout.first or rollout
    for name, every in own.parts.items():
        known = [value for value in every if not math.isnan(value)]
        values[f"reward/{name}"] = sum(known) / len(known) if known else None
    return {
        "reward": None if own.rewards is None else own.rewards.mean(),
        "length": own.length,
        "identical": own.identical,
        "truncated": own.truncated.float().mean(),
        **values,
    }


def divergence(logp: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Mean over the completions of their k3 estimates summed: nats per completion."""
    return (kl(logp, reference) * mask).sum(dim=1).mean()


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a character made of several tokens is its last token's."""
    reader = Detokenizer(decoder(tokenizer))
    added = [reader.add([token]) for token in ids]
    before = len(reader.text)
    return [*added[:-1], added[-1] + reader.end()[before:]]


def seeds_of(training, step: int, places: Iterable[int], kind: int = 0) -> list[int]:
    """The seeds of the prompts at these places of a step."""
    return [kind + (training.recipe.seed << 24) + step * 4096 + place for place in places]


def micro_batches(training, rows: Sequence[PromptCompletion], ranks: Any = None) -> list[list[int]]:
    """Of the places of rows that pass through the models together, those that are dealt to this rank."""
    lengths = [len(row.ids) for row in rows]
    if ranks is None:
        return batches(lengths, training.recipe.micro_tokens)
    every = batches(lengths, training.at_once(max(lengths) * len(lengths)))
    return [every[n] for n in ranks.numbers(len(every))]


def logprobs_and_entropy(reader: Reader, training, rows: Sequence[PromptCompletion], ranks: Any = None) -> Iterator:
    """Log-probabilities and entropies `(B, L)` of all completions, without gradients; yields between micro-batches.
    The `ranks` that are given share the work."""
    both = torch.zeros(2, *mask_of(rows).shape, device=training.device)
    for places in micro_batches(training, rows, ranks):
        with torch.no_grad():
            some, nats = logprobs(reader, [rows[p] for p in places])
            both[0, places, : some.shape[1]], both[1, places, : some.shape[1]] = some, nats
        yield
    logp, entropy = both if ranks is None else ranks.total(both)
    return logp, entropy


@dataclass(frozen=True)
class Reward:
    """One reward: a `function`, or a reward `model` with its `tokenizer`; `name` as the user wrote it. The function is
    given those of the `columns`, which are by prompt, that it names as parameters; the model reads what is `asked`,
    of a prompt that has turns or a system prompt."""

    name: str
    weight: float = 1.0
    function: Any = None
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    asked: Mapping[str, Question] = field(default_factory=dict, repr=False)
    model: Any = None  # a Reader
    tokenizer: object = field(default=None, repr=False)


class Scores(NamedTuple):
    """The weighted sum of all rewards of each completion, and if there are several, each by its label."""

    total: list[float]
    parts: dict[str, list[float]]


def labels(rewards: Sequence[Reward]) -> list[str]:
    """What the figures of rewards are called: a function by its name, unless a reward model has that too."""
    names = [reward.name for reward in rewards]
    return [name if name.removeprefix("$") in names else name.removeprefix("$") for name in names]


def rewarded(rewards: Sequence[Reward], rollout: Rollout) -> Iterator[Call | None]:
    """Returns the `Scores`; yields `Call`s and None.

    A reward that is None for a completion is left out of its sum. A reward model reads the end token only after
    completions that are finished, not after truncated ones. Raises GPTError if a function does not return a finite
    number, if no reward applies to a completion, and whatever a function raises.
    """
    prompts, texts, finished = rollout.prompts, rollout.texts, rollout.finished
    ids = [row.completion for row in rollout.rows]
    total, parts, known = [0.0] * len(texts), {}, [False] * len(texts)
    for reward, label in zip(rewards, labels(rewards), strict=True):
        if reward.function is not None:
            values: list[float] = []
            while len(values) < len(texts):
                done = len(values)
                rest = prompts[done:], texts[done:], finished[done:], ids[done:]
                values += yield Call(
                    lambda reward=reward, rest=rest: rewards_of(reward.name, reward.function, reward.columns, *rest)
                )
        else:
            most = context_of(reward.model.module)
            rows = [
                row_of(reward.name, reward.tokenizer, reward.asked.get(prompt, prompt), text, most, whole)[0]
                for prompt, text, whole in zip(prompts, texts, finished, strict=True)
            ]
            values = yield from scored(reward.model, rows)
        parts[label] = values
        there = [not math.isnan(value) for value in values]
        known = [before or now for before, now in zip(known, there, strict=True)]
        total = [t + reward.weight * v if now else t for t, v, now in zip(total, values, there, strict=True)]
    if not all(known):
        place = known.index(False)
        raise GPTError(
            f"reward {', '.join(reward.name for reward in rewards)} must return a finite number, got None for the "
            f"completion {texts[place][:40]!r} of {prompts[place][:40]!r}: one reward at least has to apply"
        )
    return Scores(total, parts if len(rewards) > 1 else {})
