"""What PPO, GRPO, DPO and a user's own algorithm share: a policy beside its reference, evaluations, samples, alarms.

An algorithm, `--algo`, is a module beside this one, or an object of the notebook, `--algo $mine`:

    class Mine:
        METRICS = (*rl.METRICS, Metric("surprisal", "surprisal", "nats per token"))

        def step(self, training):
            rollout = yield from training.rollout()
            ...

The metrics that it declares have their curves in the live view, in the report and in `gpt.runs[NAME].history`. If a
step has several updates, `remember` keeps the state before the first: a run that is stopped between them goes back to
it, so that a checkpoint always holds the state after a whole step.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.errors import GPTError
from jupyter_gpt.inference.decode_forward import release
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.modules import trained_by_name
from jupyter_gpt.nn.preference_loss import Order
from jupyter_gpt.nn.rl_losses import KLController, Moments, group_advantages, leave_one_out, masked_mean
from jupyter_gpt.runs.events import Evaluation, Event, Metric, Ready, Sample
from jupyter_gpt.stages.alignment_report import EvaluatedModel, measured
from jupyter_gpt.stages.loop import SPEED, Trainer, batch_of
from jupyter_gpt.stages.rl_alarms import alarms
from jupyter_gpt.stages.rollout import (
    EVALUATION,
    RESAMPLING,
    SAMPLES,
    Prompt,
    Reward,
    Rollout,
    divergence,
    gathered,
    labels,
    logprobs_and_entropy,
    micro_batches,
    pieces,
    rewarded,
    roll_out,
    rollout_of_completions,
    rollout_values,
    seeds_of,
)

EVALUATED = 4  # completions of each evaluated prompt: enough to see whether they are all the same
SHOWN = 3  # prompts whose samples are shown

KL = Metric("kl", "KL to the reference", "nats per completion", format=".2f", summary=True)
ENTROPY = Metric("entropy", "entropy", "nats per token", format=".2f", summary=True)
LENGTH = Metric("length", "length", "tokens", format=".1f", summary=True)
TRUNCATED = Metric("truncated", "truncated at --max-tokens", format=".1%", chart="", summary=True)
IDENTICAL = Metric("identical", "identical samples of a prompt", format=".1%", chart="", summary=True)
SAMPLER_GAP = Metric(
    "sampler_gap", "log-probability gap to the sampler", "nats per token", format=".2g", chart="", summary=True
)
RESAMPLED = Metric("resampled", "resampled prompts", "per step", format=".1f", summary=True)
CLIP_FRACTION = Metric("clip_fraction", "clip fraction", format=".1%")
REWARD = Metric("reward", "reward", format=".2f", summary=True)
METRICS = (REWARD, KL, ENTROPY, LENGTH, TRUNCATED, IDENTICAL, SPEED)  # of algorithms that sample; each adds its own


class Algorithm(Protocol):
    """A module or an object that takes the steps of a run of reinforcement learning.

    It may also have `advantages(training, rollout)`, the advantage of each token `(B, L)`, which colors the samples;
    `CRITIC = True`, and `training.critic` is trained too; and `evaluation(training)`, a generator that yields None and
    returns further values of an evaluation.
    """

    METRICS: Sequence[Metric]

    def step(self, training: Any) -> Iterator:
        """Take step `training.step + 1` of an `RL`: a generator that yields None after each piece of work, so that a
        stop takes effect, and returns the tokens of the step and its values, `(int, dict)`.

        A value is a float or a scalar on the device, left there. The runner checks `loss` and `grad_norm`, the alarms
        `kl`, `entropy`, `identical` and `spread`, if they are among the values.
        """
        ...


class Preferred(NamedTuple):
    """A ranking as DPO reads it: its completions as ids, and their order, best first."""

    rows: tuple[PromptCompletion, ...]
    order: Order

    @property
    def tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)


class Vote(NamedTuple):
    """A completion that was called good (`label`) or bad, as KTO reads it."""

    row: PromptCompletion
    label: bool

    @property
    def rows(self) -> tuple[PromptCompletion]:
        return (self.row,)

    @property
    def tokens(self) -> int:
        return len(self.row.ids)


@dataclass(kw_only=True, eq=False)
class RL(Trainer):
    """A policy in training. `prompts` are trained on, `watched` evaluated on; `rankings` and `held_out` are DPO's, of
    KTO votes. At
    the end `lineage`, the models from the base to the policy, are evaluated side by side.

    stop: tokens that end a completion.  whole: the state before a step that is under way.  step_kl: whether steps
    report the KL.  constant: how many steps up to now had rewards that did not differ.  score_moments: of PPO's
    rewards.
    """

    policy: Reader
    reference: Reader
    prompts: list[Prompt]
    watched: list[Prompt]
    rewards: list[Reward]
    stop: frozenset[int]
    controller: KLController
    algorithm: Algorithm
    critic: Any = None  # a Reader
    sampler: Any = None  # a RolloutCopy, where a copy of the policy samples
    rankings: list[Preferred] | list[Vote] = field(default_factory=list, repr=False)
    lineage: list[EvaluatedModel] = field(default_factory=list, repr=False)
    first_entropy: float | None = None
    constant: int = 0
    step_kl: bool = True
    score_moments: Moments = field(default_factory=Moments)
    alarmed: list[str] = field(default_factory=list)
    whole: tuple[dict, dict, list[float] | None] | None = field(default=None, repr=False)

    @property
    def modules(self) -> dict:
        return {"policy": self.model} | ({"critic": self.critic.module} if self.critic is not None else {})

    @property
    def metrics(self) -> list[Metric]:  # pyright: ignore[reportIncompatibleVariableOverride]
        limit = self.recipe.kl_limit
        own = [*self.algorithm.METRICS, *([SAMPLER_GAP] if self.sampler else [])]
        if len(self.rewards) > 1:
            names = dict.fromkeys(labels(self.rewards))
            own += [Metric(f"reward/{name}", f"reward {name}", format=".2f") for name in names]
        if self.recipe.dynamic_sampling:
            own.append(RESAMPLED)
        return [replace(metric, limit=limit) if metric.name == "kl" else metric for metric in own]

    @property
    def about(self) -> str:
        recipe = self.recipe
        by = " + ".join(
            f"{weight:g} × {name}" if weight != 1 else name
            for name, weight in zip(recipe.reward, recipe.weights, strict=True)
        )
        learned = f"from the rankings {recipe.rankings}" if recipe.rankings else f"from {len(recipe.votes):,} votes"
        source = f"rewarded by {by}" if by else learned
        if self.rankings:
            what = "votes" if recipe.loss == "kto" else "rankings"
            size = f"{recipe.prompts_per_step} {what} per step, beta {recipe.beta:g}"
        else:
            target = f", adapted to {recipe.kl_target:g} nats" if recipe.kl_target else ""
            size = (
                f"{recipe.prompts_per_step} prompts × {recipe.samples} samples of at most {recipe.max_tokens} tokens "
                f"per step, KL coefficient {recipe.kl:g}{target}"
            )
        return f"{recipe.policy}, {source}; {size}"

    @property
    def max_norm(self) -> float:
        return self.recipe.max_norm

    def position(self) -> dict:
        own = {key: getattr(self, key) for key in ("alarmed", "first_entropy", "constant", "step_kl", "score_moments")}
        return {**super().position(), "kl": self.controller.coefficient, **own}

    def set_position(self, position: Mapping) -> None:
        super().set_position(position)
        self.controller.coefficient, self.alarmed = position["kl"], position["alarmed"]
        self.first_entropy, self.constant = position["first_entropy"], position["constant"]
        self.step_kl, self.score_moments = position["step_kl"], Moments(*position["score_moments"])

    def state(self) -> tuple[dict, dict, dict]:
        """What a checkpoint of the last whole step holds."""
        self.go_back()
        return super().state()

    def remember(self) -> None:
        """Keep the state before a step of several updates."""
        tensors = trained_by_name(self.modules), self.optimizers.state()
        weights, moments = ({name: t.detach().clone() for name, t in each.items()} for each in tensors)
        self.whole = weights, moments, self.loss_scale and self.loss_scale.state()

    def go_back(self) -> None:
        """To the state that was remembered, if a step was interrupted."""
        if self.whole is not None:
            with torch.no_grad():
                for name, parameter in trained_by_name(self.modules).items():
                    parameter.copy_(self.whole[0][name])
                    parameter.grad = None
            self.optimizers.load(self.whole[1])
            if self.loss_scale is not None and self.whole[2] is not None:
                self.loss_scale.load(self.whole[2])
            self.whole = None

    def loop(self) -> Iterator[Event | None]:
        """Steps of the algorithm until `recipe.steps`, with evaluations between them: events, None between pieces of
        work, and `Call`s."""
        recipe = self.recipe
        yield self.start()
        while True:
            if self.evaluates and (self.step % recipe.eval_every == 0 or self.step == recipe.steps):
                yield from self.evaluate()
            if self.step >= recipe.steps:
                if self.evaluates:
                    yield from measured(self, self.lineage)
                return
            if self.ranks is not None:
                yield Ready()
            began = time.perf_counter()
            result = yield from self.algorithm.step(self)
            if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):  # of a user's
                expected = "step(training) must return its tokens and values, (int, dict)"
                raise GPTError(f"--algo {recipe.algo}: {expected}, got {result!r:.60}")
            tokens, values = result
            self.whole, self.step_kl = None, "kl" in values
            if self.first_entropy is None and values.get("entropy") is not None:
                self.first_entropy = float(values["entropy"])
            coefficient = {"kl_coefficient": self.controller.coefficient}
            yield self.stepped(time.perf_counter() - began, tokens, {**values, **coefficient})
            if self.step_kl:
                yield from alarms(self, values)

    def rollout(self) -> Iterator:
        """Completions of the prompts of the next step with their rewards, a `Rollout`."""
        recipe = self.recipe
        prompts = batch_of(self.prompts, self.step + 1, recipe.prompts_per_step, recipe.seed)
        rollout = yield from self.sampled(prompts)
        return (yield from resampled(self, rollout)) if recipe.dynamic_sampling else rollout

    def sampled(self, prompts: Sequence[Prompt], kind: int = 0) -> Iterator:
        """The `Rollout` of prompts in the next step, from random streams of that kind: each rank samples those of its
        share of the prompts, and has all."""
        samples, rollout, own = self.recipe.samples, None, self.numbers(len(prompts))
        if len(own):
            seeds = seeds_of(self, self.step + 1, own, kind)
            rollout = yield from rollout_of(self, [prompts[n] for n in own], samples, seeds, self.sampler)
        return rollout if self.ranks is None else gathered(rollout, samples, self.device, self.ranks)

    def rollout_and_reference(self) -> Iterator:
        """The rollout of the next step, with `old` of the policy as it trains if there are several updates; and the
        reference's log-probabilities `(B, L)` of it."""
        rollout = yield from self.rollout()
        rollout.sampler_logp = rollout.old if self.sampler is not None else None
        reference, _ = yield from logprobs_and_entropy(self.reference, self, rollout.rows, self.ranks)
        if self.recipe.epochs > 1:
            rollout.old, _ = yield from logprobs_and_entropy(self.policy, self, rollout.rows, self.ranks)
        return rollout, reference

    def own_micro_batches(self, rows: Sequence[PromptCompletion]) -> list[list[int]]:
        """Of the places of rows that pass through the models together those that are this rank's."""
        return micro_batches(self, rows, self.ranks)

    def totalled(self, tensor: Tensor) -> Tensor:
        """A tensor of which each rank has filled its own places, with those of all."""
        return tensor if self.ranks is None else self.ranks.total(tensor)

    def evaluate(self) -> Iterator[Event | None]:
        """Fresh completions of the watched prompts, always from the same random streams: how good, how far, how
        varied."""
        began, own = time.perf_counter(), getattr(self.algorithm, "evaluation", None)
        more = (yield from own(self)) if own is not None else {}
        seeds = seeds_of(self, 0, range(len(self.watched)), EVALUATION)
        rollout = yield from rollout_of(self, self.watched, EVALUATED, seeds)
        logp, entropy = yield from logprobs_and_entropy(self.policy, self, rollout.rows)
        reference, _ = yield from logprobs_and_entropy(self.reference, self, rollout.rows)
        values = {
            **{key: float(v) if isinstance(v, Tensor) else v for key, v in rollout_values(rollout).items()},
            "kl": float(divergence(logp, reference, rollout.mask)),
            "entropy": float(masked_mean(entropy, rollout.mask)),
            **more,
        }
        prompts, seconds = {"prompts": len(self.watched)}, time.perf_counter() - began
        yield Evaluation(step=self.step, values=values, seconds=seconds, facts=prompts)
        if self.rankings or not self.step_kl:
            if self.first_entropy is None:
                self.first_entropy = values["entropy"]
            yield from alarms(self, values)
        yield from samples_of(self, rollout)

    def samples(self) -> Iterator[Event | None]:
        """Samples of the watched prompts from the policy as it is now."""
        shown = self.watched[:SHOWN]
        seeds = seeds_of(self, self.step, range(len(shown)), SAMPLES)
        yield from samples_of(self, (yield from rollout_of(self, shown, EVALUATED, seeds)))

    def closing(self, there: Container[str]) -> Iterator[Event | None]:
        """What a run that is stopped ends with: an evaluation, whose completions are its samples."""
        if "evaluation" not in there or "sample" not in there:
            yield from self.evaluate()


def rollout_of(training: RL, prompts: Sequence[Prompt], samples: int, seeds: Sequence[int], sampler=None) -> Iterator:
    """Completions of `prompts`, by the policy or by `sampler`, with their rewards; returns the `Rollout`."""
    if sampler is not None:
        rollout = yield from sampler.roll_out(training, prompts, samples, seeds)
    else:
        rollout = yield from roll_out(
            training.model, training.tokenizer, prompts, samples, training.recipe.max_tokens, training.stop, seeds
        )
    release(training.model)  # a second copy of the base, just when an update needs the memory for activations
    if training.rewards:
        total, rollout.parts = yield from rewarded(training.rewards, rollout)
        rollout.rewards = torch.tensor(total, dtype=torch.float32, device=rollout.old.device)
    return rollout


def resampled(training: RL, first: Rollout) -> Iterator:
    """Dynamic sampling (Yu et al. 2025, section 3.2): prompts whose completions all have the same score teach nothing,
    and other prompts take their place, up to `recipe.dynamic_sampling` times. What is alike then stays.

    Which prompts these are, the seed and the step decide. Returns the `Rollout`.
    """
    recipe, samples = training.recipe, first.samples
    found, replaced, tokens, asked = first, 0, first.tokens, set(first.prompts)
    for turn in range(1, recipe.dynamic_sampling + 1):
        groups = scores_of(training, found).view(-1, samples)
        alike = (groups.amax(dim=1) == groups.amin(dim=1)).nonzero()[:, 0].tolist()
        if not alike:
            break
        generator = torch.Generator().manual_seed((recipe.seed * 100_003 + training.step + 1) * 1009 + turn)
        every = [training.prompts[n] for n in torch.randperm(len(training.prompts), generator=generator).tolist()]
        every.sort(key=lambda prompt: prompt.text in asked)  # those that were not asked yet come first
        others = [every[n % len(every)] for n in range(len(alike))]
        more = yield from training.sampled(others, RESAMPLING * turn)
        completions, new = found.completions(), more.completions()
        for number, group in enumerate(alike):
            completions[group * samples : (group + 1) * samples] = new[number * samples : (number + 1) * samples]
        found = rollout_of_completions(samples, completions, first.old.device)
        replaced, tokens, asked = replaced + len(alike), tokens + more.tokens, asked | set(more.prompts)
    kept = found.tokens
    return replace(found, first=first, resampled=replaced, discarded=tokens - kept)


def samples_of(training: RL, rollout: Rollout) -> Iterator[Event | None]:
    """The first sample of each of the first prompts, its tokens with the advantage each would be trained with."""
    advantages: Any = None
    if rollout.rewards is not None:
        advantages = getattr(training.algorithm, "advantages", group_advantages_of)(training, rollout)
    for place in range(0, min(SHOWN * rollout.samples, len(rollout.rows)), rollout.samples):
        event = Sample(step=training.step, prompt=rollout.prompts[place], text=rollout.texts[place])
        if rollout.rewards is not None:
            ids = rollout.rows[place].completion
            event.reward = float(rollout.rewards[place])
            event.pieces = pieces(training.tokenizer, ids)
            event.advantages = [round(a, 4) for a in advantages[place, : len(ids)].tolist()]
        yield event


def scores_of(training: RL, rollout: Rollout) -> Tensor:
    """The rewards `(B,)`, less `missing_eos_penalty` where a completion was cut."""
    return rollout.rewards - (training.recipe.missing_eos_penalty or 0.0) * rollout.truncated


def group_advantages_of(training: RL, rollout: Rollout) -> Tensor:
    """Each completion's advantage over the others of its prompt, at each of its tokens, `(B, L)`."""
    recipe, rewards = training.recipe, scores_of(training, rollout).view(-1, rollout.samples)
    advantages = leave_one_out(rewards) if recipe.loss == "rloo" else group_advantages(rewards, not recipe.no_std)
    return advantages.flatten()[:, None].expand(rollout.old.shape)
