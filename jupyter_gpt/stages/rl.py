"""What PPO, GRPO, DPO and a user's own algorithm share: a policy beside its reference, evaluations, samples, alarms.

An `Algorithm` takes one step; it yields None after each sampled token and each micro-batch, and the `Call`s of a user's
reward. Where a step has several updates, `remember` keeps the state before the first: a run that is stopped among them
goes back to it, so that what is saved is always what a whole step left.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jupyter_gpt.data.prompt_completion import PromptCompletion, check_prompt_lengths, encode_pair, prompt_ids
from jupyter_gpt.inference.answer import Detokenizer, decoder
from jupyter_gpt.inference.decode_forward import release
from jupyter_gpt.nn import devices as machine
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn.devices import resolved
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.modules import context_of, trained_by_name
from jupyter_gpt.nn.optimizer import Optimizers, adamw_of
from jupyter_gpt.nn.preference_loss import Order
from jupyter_gpt.nn.rl_losses import KLController, Moments, group_advantages, kl, masked_mean
from jupyter_gpt.runs.alarms import begun
from jupyter_gpt.runs.events import Alarm, Evaluation, Event, Metric, Progress, Sample
from jupyter_gpt.stages.algorithm import Algorithm, step_result
from jupyter_gpt.stages.alignment_report import EvaluatedModel, measured
from jupyter_gpt.stages.loop import SPEED, Trainer, batch_of
from jupyter_gpt.stages.policy import critic_of, policy_of
from jupyter_gpt.stages.reward_training import held_out_prompts
from jupyter_gpt.stages.rewards import Reward, rewarded
from jupyter_gpt.stages.rollout import EVALUATION, SAMPLES, Asked, Rollout, logprobs_and_entropy, roll_out, stream

CONSTANT = 3  # steps one after another whose rewards do not differ, before it is told
COLLAPSED_IDENTICAL, COLLAPSED_ENTROPY = (
    0.9,
    0.25,
)  # share of identical samples, and share of the first entropy, that are a collapse


def alarms(training, values: Mapping) -> Iterator[Alarm]:
    """Warnings that the `values` of a step or an evaluation give cause for.

    Rewards that do not differ are no reason to end a run: where one completion in a hundred succeeds, half of all steps
    of 64 have none. They are told once a run.
    """
    recipe, step = training.recipe, training.step
    causes = {}
    if values.get("spread") is not None:
        training.constant = training.constant + 1 if float(values["spread"]) == 0.0 else 0
    if training.constant >= CONSTANT or "constant" in training.alarmed:
        alike = "all completions of each prompt" if recipe.algo == "grpo" else "all completions"
        causes["constant"] = (
            f"in the last {CONSTANT} steps {alike} had the same reward, so there was nothing to learn from. The "
            f"run goes on. If "
            f"they all failed: more --samples (now {recipe.samples}) or --prompts-per-step (now "
            f"{recipe.prompts_per_step}), easier "
            "prompts, or a reward that gives partial credit. If they all succeeded: harder prompts, or fewer --steps"
        )
    held = f"--beta (now {recipe.beta:g})" if recipe.algo == "dpo" else f"--kl (now {recipe.kl:g})"
    lower = f"Raise {held}, lower --lr (now {recipe.lr:g}), or keep an earlier model: fewer --steps"
    kl, entropy, identical = (values.get(key) for key in ("kl", "entropy", "identical"))
    if kl is not None and float(kl) > recipe.kl_limit:
        causes["kl"] = (
            f"the KL to the reference is {float(kl):.1f} nats per completion, over the limit of {recipe.kl_limit:g}: "
            f"the policy "
            f"is running away from the model it started from. {lower}"
        )
    entropy = None if entropy is None else float(entropy)
    if identical is not None and identical >= COLLAPSED_IDENTICAL:
        causes["collapse"] = (
            f"the policy has collapsed: {identical:.0%} of its completions of a prompt are the same. {lower}"
        )
    elif entropy is not None and training.first_entropy and entropy < COLLAPSED_ENTROPY * training.first_entropy:
        causes["collapse"] = (
            f"the policy has collapsed: its entropy fell from {training.first_entropy:.2f} to {entropy:.2f} nats per "
            f"token. {lower}"
        )
    yield from begun(step, causes, training.alarmed)
    training.alarmed = list(causes)


EVALUATED = 4  # completions of each evaluated prompt: enough to see whether they are all the same
SHOWN = 3  # prompts whose samples are shown

KL = Metric("kl", "KL to the reference", "nats per completion", format=".2f", summary=True)
ENTROPY = Metric("entropy", "entropy", "nats per token", format=".2f", summary=True)
LENGTH = Metric("length", "length", "tokens", format=".1f", summary=True)
TRUNCATED = Metric("truncated", "truncated at --max-tokens", format=".1%", chart="", summary=True)
IDENTICAL = Metric("identical", "identical samples of a prompt", format=".1%", chart="", summary=True)
CLIP_FRACTION = Metric("clip_fraction", "clip fraction", format=".1%")
METRICS = (  # of every algorithm that samples; an algorithm adds its own to them
    Metric("reward", "reward", format=".2f", summary=True),
    KL,
    ENTROPY,
    LENGTH,
    TRUNCATED,
    IDENTICAL,
    SPEED,
)


@dataclass
class RL(Trainer):
    """A policy on its way. `prompts` are trained on, `watched` evaluated on; `rankings` and `held_out` are DPO's. At
    the end `lineage`, the models from the base to the policy, are evaluated beside each other.

    stop: tokens that end a completion.  whole: the state before a step that is under way.  step_kl: whether steps tell
    the KL.  constant: how many steps up to now had rewards that did not differ.  score_moments: of PPO's rewards.
    """

    recipe: Any
    policy: Reader
    reference: Reader
    tokenizer: object
    optimizers: Optimizers
    prompts: list[Asked]
    watched: list[Asked]
    rewards: list[Reward]
    stop: frozenset[int]
    controller: KLController
    algorithm: Algorithm
    critic: Any = None  # a Reader
    rankings: list = field(default_factory=list, repr=False)
    held_out: list = field(default_factory=list, repr=False)
    lineage: list[EvaluatedModel] = field(default_factory=list, repr=False)
    flops_per_token: float | None = None
    peak_flops: float | None = None
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    first_entropy: float | None = None
    constant: int = 0
    step_kl: bool = True
    score_moments: Moments = field(default_factory=Moments)
    alarmed: list[str] = field(default_factory=list)
    whole: tuple[dict, dict] | None = field(default=None, repr=False)

    @property
    def model(self) -> nn.Module:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What is kept at the end."""
        return self.policy.module

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"policy": self.model} | ({"critic": self.critic.module} if self.critic is not None else {})

    @property
    def metrics(self) -> list[Metric]:  # pyright: ignore[reportIncompatibleVariableOverride]
        limit = self.recipe.kl_limit
        return [replace(metric, limit=limit) if metric.name == "kl" else metric for metric in self.algorithm.METRICS]

    @property
    def about(self) -> str:
        recipe = self.recipe
        by = " + ".join(
            f"{weight:g} × {name}" if weight != 1 else name
            for name, weight in zip(recipe.reward, recipe.weights, strict=True)
        )
        source = f"rewarded by {by}" if by else f"from the rankings {recipe.rankings}"
        if self.rankings:
            size = f"{recipe.prompts_per_step} rankings per step, beta {recipe.beta:g}"
        else:
            held = f" held at {recipe.kl_target:g} nats" if recipe.kl_target else ""
            size = (
                f"{recipe.prompts_per_step} prompts × {recipe.samples} samples of at most {recipe.max_tokens} tokens "
                f"per step, KL coefficient {recipe.kl:g}{held}"
            )
        return f"{recipe.policy}, {source}; {size}"

    @property
    def max_norm(self) -> float:
        return self.recipe.max_norm

    def position(self) -> dict:
        return {
            **super().position(),
            "kl": self.controller.coefficient,
            "alarmed": self.alarmed,
            "first_entropy": self.first_entropy,
            "constant": self.constant,
            "step_kl": self.step_kl,
            "score_moments": self.score_moments,
        }

    def set_position(self, position: Mapping) -> None:
        super().set_position(position)
        self.controller.coefficient, self.alarmed = position["kl"], position["alarmed"]
        self.first_entropy, self.constant = position["first_entropy"], position["constant"]
        self.step_kl = position.get("step_kl", True)  # checkpoints of earlier versions have neither
        self.score_moments = Moments(*position.get("score_moments", ()))

    def state(self) -> tuple[dict, dict, dict]:
        """What a checkpoint of the last whole step holds."""
        self.go_back()
        return super().state()

    def remember(self) -> None:
        """Keep the state, for a step of several updates is about to begin."""

        def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.detach().clone() for name, tensor in tensors.items()}

        self.whole = copied(trained_by_name(self.modules)), copied(self.optimizers.state())

    def go_back(self) -> None:
        """To the state that was remembered, where a step was left in its middle."""
        if self.whole is not None:
            with torch.no_grad():
                for name, parameter in trained_by_name(self.modules).items():
                    parameter.copy_(self.whole[0][name])
                    parameter.grad = None
            self.optimizers.load(self.whole[1])
            self.whole = None

    def loop(self) -> Iterator[Event | None]:
        """The run from where it stands: events, None between pieces, and `Call`s."""
        return run(self)

    def rollout(self) -> Iterator:
        """Completions of the prompts of the next step with their rewards, a `Rollout`."""
        recipe, step = self.recipe, self.step + 1
        prompts = batch_of(self.prompts, step, recipe.prompts_per_step, recipe.seed)
        return (yield from rollout(self, prompts, recipe.samples, stream(self, step)))

    def evaluate(self) -> Iterator[Event | None]:
        return evaluate(self)

    def samples(self) -> Iterator[Event | None]:
        """Samples of the watched prompts as the policy stands."""
        prompts = self.watched[:SHOWN]
        found = yield from rollout(self, prompts, EVALUATED, stream(self, self.step, SAMPLES))
        yield from samples_of(self, found)

    def closing(self, there: Container[str]) -> Iterator[Event | None]:
        """What the run ends with when it is stopped: an evaluation, whose completions are its samples."""
        if "evaluation" not in there or "sample" not in there:
            yield from evaluate(self)


def run(training: RL) -> Iterator[Event | None]:
    """Steps of the algorithm until `recipe.steps`, with evaluations between them."""
    recipe = training.recipe
    yield training.start()
    while True:
        if training.step % recipe.eval_every == 0 or training.step == recipe.steps:
            yield from evaluate(training)
        if training.step >= recipe.steps:
            yield from measured(training, training.lineage)
            return
        began = time.perf_counter()
        tokens, values = step_result(recipe.algo, (yield from training.algorithm.step(training)))
        training.whole, training.step_kl = None, "kl" in values
        if training.first_entropy is None and values.get("entropy") is not None:
            training.first_entropy = float(values["entropy"])
        coefficient = {"kl_coefficient": training.controller.coefficient}
        yield training.stepped(time.perf_counter() - began, tokens, {**values, **coefficient})
        if training.step_kl:
            yield from alarms(training, values)


def rollout(training: RL, prompts: Sequence[Asked], samples: int, seed: int) -> Iterator:
    """Completions of `prompts` with their rewards; returns the `Rollout`."""
    found = yield from roll_out(
        training.model, training.tokenizer, prompts, samples, training.recipe.max_tokens, training.stop, seed
    )
    release(training.model)  # a second copy of the base, just when the activations of an update want the room
    if training.rewards:
        values = yield from rewarded(training.rewards, found.prompts, found.texts, found.finished)
        found.rewards = torch.tensor(values, dtype=torch.float32, device=found.old.device)
    return found


def rollout_values(found: Rollout) -> dict:
    """What every step that samples tells of its completions."""
    return {
        "reward": found.rewards.mean(),
        "length": found.length,
        "identical": found.identical,
        "truncated": found.truncated.float().mean(),
    }


def divergence(logp: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Mean over the completions of their k3 estimates summed: nats per completion."""
    return (kl(logp, reference) * mask).sum(dim=1).mean()


def evaluate(training: RL) -> Iterator[Event | None]:
    """Fresh completions of the watched prompts, always from the same random streams: how good, how far, how varied."""
    began, own = time.perf_counter(), getattr(training.algorithm, "evaluation", None)
    more = (yield from own(training)) if own is not None else {}
    found = yield from rollout(training, training.watched, EVALUATED, stream(training, 0, EVALUATION))
    logp, entropy = yield from logprobs_and_entropy(training.policy, training, found.rows)
    reference, _ = yield from logprobs_and_entropy(training.reference, training, found.rows)
    values = {
        "reward": None if found.rewards is None else float(found.rewards.mean()),
        "kl": float(divergence(logp, reference, found.mask)),
        "entropy": float(masked_mean(entropy, found.mask)),
        "length": found.length,
        "identical": found.identical,
        "truncated": float(found.truncated.float().mean()),
        **more,
    }
    prompts, seconds = {"prompts": len(training.watched)}, time.perf_counter() - began
    yield Evaluation(step=training.step, values=values, seconds=seconds, facts=prompts)
    if training.rankings or not training.step_kl:
        if training.first_entropy is None:
            training.first_entropy = values["entropy"]
        yield from alarms(training, values)
    yield from samples_of(training, found)


def samples_of(training: RL, found: Rollout) -> Iterator[Event | None]:
    """The first sample of each of the first prompts, its tokens with the advantage each would be trained with."""
    advantages: Any = None
    if found.rewards is not None:
        advantages = getattr(training.algorithm, "advantages", group_advantages_of)(training, found)
    for n in range(min(SHOWN, len(found.rows) // found.samples)):
        place = n * found.samples
        event = Sample(step=training.step, prompt=found.prompts[place], text=found.texts[place])
        if found.rewards is not None:
            ids = found.rows[place].completion
            event.reward = float(found.rewards[place])
            event.pieces = pieces(training.tokenizer, ids)
            event.advantages = [round(a, 4) for a in advantages[place, : len(ids)].tolist()]
        yield event


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a character that was cut in the middle is its last token's."""
    reader = Detokenizer(decoder(tokenizer))
    found = [reader.add([token]) for token in ids]
    before = len(reader.text)
    return [*found[:-1], found[-1] + reader.end()[before:]]


def group_advantages_of(training: RL, found: Rollout) -> Tensor:
    """Each completion's advantage over the others of its prompt, at each of its tokens, `(B, L)`."""
    return group_advantages(found.rewards.view(-1, found.samples)).flatten()[:, None].expand(found.old.shape)


FEW = 5  # prompts: with fewer none is held out
WATCHED = 16  # prompts evaluated at most


def prepare(
    recipe,
    name: str,
    start,
    algorithm: Algorithm,
    rewards: Sequence[Reward],
    rankings: Sequence = (),
    stop: frozenset[int] = frozenset(),
    base=None,
    weights: Any = None,
) -> Iterator[Event | None]:
    """Yields progress events, returns the `RL` at step 0.

    `start` is a model of the session, `algorithm` what takes a step, `rankings` the `Ranking`s that DPO learns from,
    `stop` the tokens that end an answer; `base` is the first model of its lineage, where that is another one, and
    `name` what the policy is called in the end. `weights` is what policy and critic begin with, where that is not the
    module of `start`: its weights in fp32. Raises GPTError for prompts that leave no room for a completion, and where
    nothing can be held out.
    """
    yield Progress(stage="building the policy", unit="models")
    if start.module.device.type == "cpu":
        machine.keep_freed_memory()
    context = context_of(start.module)
    texts = list(dict.fromkeys(recipe.prompts or [ranking.prompt for ranking in rankings]))
    prompts = [Asked(text, prompt_ids(start.name, start.tokenizer, text)) for text in texts]
    check_prompt_lengths(start.name, [one.ids for one in prompts], texts, context, recipe.max_tokens)
    learned, watched = split(prompts, recipe.held_out, recipe.seed)
    train, held_out = [], []
    if recipe.algo == "dpo":
        train, held_out = preferred(recipe, start, rankings, context)
        learned = prompts
    yield None
    dtype = resolved(recipe.dtype, start.module)
    recipe, low = recipe.replace(prompts=texts, dtype=dtype), getattr(torch, dtype)
    weights = start.module if weights is None else weights
    yield from machine.notes(weights.device.type, dtype)
    critic = getattr(algorithm, "CRITIC", False)
    recipe = yield from with_micro_batch(recipe, critic, start.name, weights, prompts, [*train, *held_out])
    policy = policy_of(weights, recipe.lora, recipe.seed)
    modules = {"policy": policy}
    if critic:
        modules["critic"] = critic_of(weights, recipe.lora, start.tokenizer.pad_token_id, recipe.seed + 1)
    optimizers = adamw_of(modules, {"policy": recipe.lr, "critic": recipe.value_lr})
    lineage = [
        EvaluatedModel(start.name, "start", start.module, start.tokenizer, watched, stop),
        EvaluatedModel(name, "aligned", policy, start.tokenizer, watched, stop),
    ]
    if base is not None:
        sent = [Asked(one.text, prompt_ids(base.name, base.tokenizer, one.text)) for one in watched]
        lineage.insert(0, EvaluatedModel(base.name, "base", base.module, base.tokenizer, sent, stop))
    return RL(
        recipe=recipe,
        policy=Reader(policy, low, bool(recipe.checkpointing)),
        reference=Reader(start.module, low),
        tokenizer=start.tokenizer,
        optimizers=optimizers,
        prompts=learned,
        watched=watched,
        rewards=list(rewards),
        stop=stop,
        controller=KLController(recipe.kl, recipe.kl_target),
        algorithm=algorithm,
        critic=Reader(modules["critic"], low, bool(recipe.checkpointing)) if critic else None,
        rankings=train,
        held_out=held_out,
        lineage=lineage,
    )


def with_micro_batch(
    recipe, critic: bool, name: str, weights: nn.Module, prompts: Sequence[Asked], rankings: Sequence[Preferred]
) -> Iterator[Event]:
    """See `memory.with_micro_batch`. DPO reads all completions of a ranking at once; a critic is trained beside the
    policy, and several updates on one batch keep what there was before the first.
    """
    together = [one.tokens for one in rankings] or [len(one.ids) + recipe.max_tokens for one in prompts]
    longest = max(len(row.ids) for one in rankings for row in one.rows) if rankings else max(together)
    step, adapter = (
        memory.finetuning(
            weights,
            recipe.dtype,
            longest,
            rank=rank,
            whole=max(together),
            models=2 if critic else 1,
            remembered=critic or recipe.epochs > 1,
        )
        for rank in (recipe.lora, 16)
    )
    usual = (
        16384 if weights.device.type == "cuda" else 512 if recipe.dtype == "float32" else 2048
    )  # bf16 casts weights anew
    least, device = max(together), str(weights.device)
    return (
        yield from memory.with_micro_batch(recipe, name, usual, least, step, device, None if recipe.lora else adapter)
    )


def split(prompts: list[Asked], share: float, seed: int) -> tuple[list[Asked], list[Asked]]:
    """Prompts to train on and prompts to watch: the same where they are few."""
    if len(prompts) < FEW or not share:
        return prompts, prompts[:WATCHED]
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
    held = set(order[: max(1, round(share * len(prompts)))])
    kept = [one for n, one in enumerate(prompts) if n not in held]
    return kept, [one for n, one in enumerate(prompts) if n in held][:WATCHED]


def preferred(recipe, start, rankings: Sequence, context: int) -> tuple[list[Preferred], list[Preferred]]:
    """Rankings to learn from and rankings held out, those of one prompt on the same side."""
    telling = [ranking for ranking in rankings if ranking.pairs]
    held = held_out_prompts([ranking.prompt for ranking in telling], recipe.held_out or 0.1, recipe.seed)
    train, held_out = [], []
    for ranking in telling:
        rows = tuple(
            encode_pair(start.name, start.tokenizer, ranking.prompt, each["text"], context, finished)[0]
            for each, finished in zip(ranking.completions, ranking.finished, strict=True)
        )
        (held_out if ranking.prompt in held else train).append(Preferred(rows, ranking.order))
    return train, held_out


class Preferred(NamedTuple):
    """A ranking as DPO reads it: its completions in ids, and their order, best first."""

    rows: tuple[PromptCompletion, ...]
    order: Order

    @property
    def tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)
