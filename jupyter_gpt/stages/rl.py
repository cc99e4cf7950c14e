"""What PPO, GRPO and DPO share: a policy beside the reference it started from, evaluations, samples, and alarms.

Each algorithm is a generator of events in a file of its own. It yields None after each sampled token and each
micro-batch and the `Call`s of a user's reward. Where a step has several updates, `training.whole` remembers the state
before the
first: a run that is stopped among them goes back to it, so that what is saved is always what a whole step left.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from jupyter_gpt.inference.answer import Detokenizer, decoder
from jupyter_gpt.inference.weight_prepacking import release
from jupyter_gpt.nn.logprobs import Reader
from jupyter_gpt.nn.optimizer import Optimizers
from jupyter_gpt.nn.rl_losses import KLController, Moments, group_advantages, kl, masked_mean
from jupyter_gpt.runs import resumable
from jupyter_gpt.stages.alignment_report import Party, measured
from jupyter_gpt.stages.rewards import Reward, rewarded
from jupyter_gpt.stages.rl_alarms import alarms
from jupyter_gpt.stages.rollout import EVALUATION, SAMPLES, Asked, Rollout, known, roll_out, stream

EVALUATED = 4  # completions of each evaluated prompt: enough to see whether they are all the same
SHOWN = 3  # prompts whose samples are shown


@dataclass
class RL:
    """A policy on its way. `prompts` are trained on, `watched` evaluated on; `rankings` and `held_out` are DPO's. At
    the end `parties`, the models of the lineage, are measured beside each other.

    stop: tokens that end a completion.  algorithm: the module of PPO, GRPO or DPO: `step(training)`, a generator of the
    events of one step, and `advantages(training, rollout)`.  whole: the state before a step that is under way.
    constant: how many steps up to now had rewards that did not differ.  score_moments: of all of PPO's rewards so far.
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
    algorithm: ModuleType
    critic: Reader | None = None
    rankings: list = field(default_factory=list, repr=False)
    held_out: list = field(default_factory=list, repr=False)
    parties: list[Party] = field(default_factory=list, repr=False)
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    first_entropy: float | None = None
    constant: int = 0
    score_moments: Moments = field(default_factory=Moments)
    alarmed: list[str] = field(default_factory=list)
    whole: dict | None = field(default=None, repr=False)

    @property
    def model(self) -> nn.Module:
        """What is kept at the end."""
        return self.policy.module

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"policy": self.model} | ({"critic": self.critic.module} if self.critic is not None else {})

    @property
    def device(self) -> torch.device:
        return self.policy.device

    def state(self) -> tuple[dict, dict, dict]:
        """What a checkpoint of the last whole step holds: the weights that are trained, optimizers and position."""
        self.go_back()
        position = {
            "seconds": self.seconds,
            "tokens": self.tokens,
            "kl": self.controller.coefficient,
            "alarmed": self.alarmed,
            "first_entropy": self.first_entropy,
            "constant": self.constant,
            "score_moments": self.score_moments,
        }
        return resumable.moving(self.modules), self.optimizers.state(), position

    def load(self, folder: Path) -> None:
        """Go back to a checkpoint."""
        position = resumable.load(folder, self.modules, self.optimizers)
        self.step, self.seconds, self.tokens = position["step"], position["seconds"], position["tokens"]
        self.controller.coefficient, self.alarmed = position["kl"], position["alarmed"]
        self.first_entropy, self.constant = position["first_entropy"], position["constant"]
        self.score_moments = Moments(*position.get("score_moments", ()))  # checkpoints of earlier versions have none

    def remember(self) -> None:
        """Keep the state, for a step of several updates is about to begin."""
        self.whole = {name: p.detach().clone() for name, p in resumable.moving(self.modules).items()}
        self.whole_optimizer = {name: tensor.detach().clone() for name, tensor in self.optimizers.state().items()}

    def go_back(self) -> None:
        """To the state that was remembered, where a step was left in its middle."""
        if self.whole is not None:
            with torch.no_grad():
                for name, parameter in resumable.moving(self.modules).items():
                    parameter.copy_(self.whole[name])
                    parameter.grad = None
            self.optimizers.load(self.whole_optimizer)
            self.whole = None

    def loop(self) -> Iterator[dict | None]:
        """The run from where it stands: events, None between pieces, and `Call`s."""
        return run(self)

    def samples(self) -> Iterator[dict | None]:
        """Samples of the watched prompts as the policy stands."""
        return shown(self)

    def closing(self, there: Container[str]) -> Iterator[dict | None]:
        """What the run ends with when it is stopped: an evaluation, whose completions are its samples."""
        if "evaluation" not in there or "sample" not in there:
            yield from evaluate(self)


def run(training: RL) -> Iterator[dict | None]:
    """Steps of the algorithm until `recipe.steps`, with evaluations between them."""
    recipe = training.recipe
    yield {
        "event": "start",
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "trained": sum(p.numel() for p in resumable.moving(training.modules).values()),
        "device": training.device.type,
        "dtype": str(next(training.model.parameters()).dtype).removeprefix("torch."),
        "steps": recipe.steps,
        "step": training.step,
        "tokens_per_step": None,
        "flops_per_token": None,
        "peak_flops": None,
    }
    while True:
        if training.step % recipe.eval_every == 0 or training.step == recipe.steps:
            yield from evaluate(training)
        if training.step >= recipe.steps:
            yield from measured(training, training.parties)
            return
        yield from training.algorithm.step(training)


def finish_step(training: RL, began: float, tokens: int, told: dict) -> Iterator[dict]:
    """Count the step, report it, and raise the alarms that it gives cause for."""
    training.whole = None
    busy = time.perf_counter() - began
    training.step, training.seconds, training.tokens = (
        training.step + 1,
        training.seconds + busy,
        training.tokens + tokens,
    )
    if training.first_entropy is None and told.get("entropy") is not None:
        training.first_entropy = float(told["entropy"])
    yield {
        "event": "step",
        "step": training.step,
        **told,
        "kl_coefficient": training.controller.coefficient,
        "tokens": training.tokens,
        "seconds": training.seconds,
        "tokens_per_second": tokens / busy,
        "mfu": None,
    }
    if "kl" in told:  # what a step of DPO does not know its evaluations tell
        yield from alarms(training, told)


def chosen(items: Sequence, step: int, size: int, seed: int) -> list:
    """The items of one step: a function of its place in the run alone; each comes once in a pass over all."""
    found = []
    for n in range((step - 1) * size, step * size):
        turn, place = divmod(n, len(items))
        order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed * 100_003 + turn))
        found.append(items[int(order[place])])
    return found


def drawn(training: RL, asked: Sequence[Asked], samples: int, seed: int) -> Iterator:
    """Completions of `asked` with their rewards; returns the `Rollout`."""
    recipe = training.recipe
    found = yield from roll_out(
        training.model, training.tokenizer, asked, samples, recipe.max_tokens, training.stop, seed
    )
    release(training.model)  # a second copy of the base, just when the activations of an update want the room
    if training.rewards:
        values = yield from rewarded(training.rewards, found.prompts, found.texts, found.finished)
        found.rewards = torch.tensor(values, dtype=torch.float32, device=found.old.device)
    return found


def divergence(logp: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Mean over the completions of their k3 estimates summed: nats a completion."""
    return (kl(logp, reference) * mask).sum(dim=1).mean()


def evaluate(training: RL) -> Iterator[dict | None]:
    """Fresh completions of the watched prompts, always from the same random streams: how good, how far, how varied."""
    began = time.perf_counter()
    more = (yield from training.algorithm.evaluation(training)) if training.rankings else {}
    found = yield from drawn(training, training.watched, EVALUATED, stream(training, 0, EVALUATION))
    logp, entropy = yield from known(training.policy, training, found.rows)
    reference, _ = yield from known(training.reference, training, found.rows)
    mask = found.mask
    event = {
        "event": "evaluation",
        "step": training.step,
        "reward": None if found.rewards is None else float(found.rewards.mean()),
        "kl": float(divergence(logp, reference, mask)),
        "entropy": float(masked_mean(entropy, mask)),
        "length": found.length,
        "identical": found.identical,
        "truncated": float(found.truncated.float().mean()),
        "prompts": len(training.watched),
        **more,
        "seconds": time.perf_counter() - began,
    }
    yield event
    if training.rankings:
        if training.first_entropy is None:
            training.first_entropy = event["entropy"]
        yield from alarms(training, event)
    yield from told(training, found)


def shown(training: RL) -> Iterator[dict | None]:
    """Samples on demand."""
    asked = training.watched[:SHOWN]
    found = yield from drawn(training, asked, EVALUATED, stream(training, training.step, SAMPLES))
    yield from told(training, found)


def told(training: RL, found: Rollout) -> Iterator[dict | None]:
    """The first sample of each of the first prompts, its tokens with the advantage each would be trained with."""
    advantages = None
    if found.rewards is not None:
        advantages = training.algorithm.advantages(training, found)
    for n in range(min(SHOWN, len(found.rows) // found.samples)):
        place = n * found.samples
        event = {"event": "sample", "step": training.step, "prompt": found.prompts[place], "text": found.texts[place]}
        if found.rewards is not None:
            event["reward"] = float(found.rewards[place])
            ids = found.rows[place].completion
            event["pieces"] = pieces(training.tokenizer, ids)
            event["advantages"] = [round(a, 4) for a in advantages[place, : len(ids)].tolist()]
        yield event


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a character that was cut in the middle is its last token's."""
    reader = Detokenizer(decoder(tokenizer))
    found = [reader.add([token]) for token in ids]
    told = len(reader.text)
    return [*found[:-1], found[-1] + reader.end()[told:]]


def clipped(module: nn.Module, most: float) -> Tensor:
    """The norm of the gradient of what is trained of `module`, which is scaled down to `most` where it is longer."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.nn.utils.clip_grad_norm_(trained, most, foreach=True)


def group_of(found: Rollout) -> Tensor:
    """Each completion's advantage over the others of its prompt, `(B,)`."""
    return group_advantages(found.rewards.view(-1, found.samples)).flatten()
