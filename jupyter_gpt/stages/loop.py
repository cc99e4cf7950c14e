"""The loop of every training on batches of data: evaluate, sample, accumulate, clip, step, report.

A generator of events: whoever iterates stops the run by closing it, has `closing` tell how the model stands then,
pauses it by waiting, and may save, sample or look at `trainer` between any two events. Losses are yielded as device
scalars: reading them is what would block on the GPU, and is left to whoever wants to look.

With several ranks (`nn/distributed.py`) each walks this loop, and the micro-batches of a step are dealt to them. The
first alone evaluates and samples, unless the model lies in pieces on all of them.

A `Trainer` of pretraining, finetuning, a classifier or a reward model says what a micro-batch is, what its loss is, and
how it is evaluated and sampled. Reinforcement learning has its own loop (`rl.py`) and uses the rest of this file.

The stages stand on this file and are read when the extension loads: torch is imported where it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.devices import current_ranks
from jupyter_gpt.nn.schedule import multiplier
from jupyter_gpt.nn.sizes import amount
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.runs.events import Event, Metric, Ready, Start, Step

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from jupyter_gpt.nn.loss_scale import LossScale

LEARNING_RATE = Metric("lr", "learning rate", format=".3g", smooth=False)
SPEED = Metric("tokens_per_second", "speed", "tokens per second", format=",.0f")


def losses(per: str) -> tuple[Metric, Metric]:
    """Training and validation loss, in nats per `per`, in one chart."""
    return (
        Metric("loss", "training loss", f"nats per {per}", summary=True),
        Metric("val_loss", "validation loss", f"nats per {per}", chart="loss", summary=True),
    )


METRICS = (*losses("token"), Metric("bits_per_byte", "bits per byte", chart="", summary=True), LEARNING_RATE, SPEED)


@dataclass(frozen=True, eq=False)
class Micro:
    """A micro-batch on the device: what the loss takes, its share of the step's loss, and its tokens."""

    inputs: Any
    share: float
    tokens: int


@dataclass(kw_only=True, eq=False)
class Trainer:
    """What a run consists of between two steps; what a checkpoint holds is here.

    `step` is the last that was taken; `seconds`, of training alone, and `tokens` count from the beginning. `held_out`
    is what `evaluate` reads; a run without it is not evaluated. The parameters of `modules` that require a gradient are
    trained, and are kept in checkpoints. `ranks` are those that train together, None for one: `gradients` sums theirs,
    or the model lies in pieces on all, `sharded`.
    """

    recipe: Any
    model: Any
    optimizers: Any
    tokenizer: Any = None
    held_out: Any = ()
    flops_per_token: float | None = None
    peak_flops: float | None = None
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    ranks: Any = field(default_factory=current_ranks, repr=False)
    gradients: Any = field(default=None, repr=False)
    sharded: Any = field(default=None, repr=False)
    own_loss: Any = field(default=None, repr=False)  # the user's, in the place of cross-entropy
    metrics: ClassVar[Any] = METRICS  # a sequence of Metric

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"": self.model}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def loss_scale(self) -> LossScale | None:
        """That of float16; the other formats hold every gradient."""
        if self.recipe.dtype != "float16":
            return None
        from jupyter_gpt.nn.loss_scale import LossScale

        return LossScale()

    @property
    def max_norm(self) -> float:
        """Maximum gradient norm (clipping)."""
        return self.recipe.clip

    @property
    def sample_every(self) -> int:
        return self.recipe.sample_every

    @property
    def about(self) -> str:
        """What is trained on what, in one line, without anything that depends on the machine."""
        raise NotImplementedError

    @property
    def figures(self) -> Mapping[str, str]:
        """Further figures of the report, by name."""
        return {}

    @property
    def facts(self) -> Mapping:
        """Further values of the start event, for programs."""
        return {}

    def micro_batches(self, step: int) -> int:
        """How many there are in a step."""
        raise NotImplementedError

    def micro_batch(self, step: int, number: int) -> Micro:
        """A function of its place in the run alone."""
        raise NotImplementedError

    def loss(self, inputs) -> Tensor:
        """The mean loss of a micro-batch."""
        raise NotImplementedError

    def loss_of_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The user's own loss of logits `(N, V)` before targets `(N,)`. Raises GPTError where that is no number."""
        loss = self.own_loss(logits.float(), targets)
        if getattr(loss, "numel", int)() != 1 or not getattr(loss, "requires_grad", False):
            raise GPTError(f"--loss {self.recipe.loss} must return a tensor of one number, the mean, not {loss!r:.60}")
        return loss.reshape(())

    def evaluate(self) -> Iterator[Event | None]:
        raise NotImplementedError

    def samples(self) -> Iterator[Event | None]:
        """Samples of the fixed prompts, from the model as it is now."""
        raise NotImplementedError

    def step_values(self) -> Mapping:
        """Further values of the step that was just taken."""
        return {}

    def position(self) -> dict:
        """Where the run stands, as JSON: what `set_position` takes back from a checkpoint."""
        scale = {} if self.loss_scale is None else {"loss_scale": self.loss_scale.state()}
        return {"seconds": self.seconds, "tokens": self.tokens, **scale}

    def set_position(self, position: Mapping) -> None:
        self.step, self.seconds, self.tokens = position["step"], position["seconds"], position["tokens"]
        if self.loss_scale is not None:
            self.loss_scale.load(position["loss_scale"])

    def state(self) -> tuple[dict, dict, dict]:
        """What a checkpoint holds: the weights that are trained, optimizer and position."""
        from jupyter_gpt.nn.modules import trained_by_name

        weights, optimizer = trained_by_name(self.modules), self.optimizers.state()
        if self.sharded is not None:
            weights, optimizer = self.sharded.state(weights), self.sharded.state(optimizer)
        return weights, optimizer, self.position()

    def load(self, folder: Path) -> None:
        """Go back to the state of a checkpoint."""
        self.set_position(checkpoint.restore(folder, self.modules, self.optimizers))

    def start(self) -> Start:
        from jupyter_gpt.nn.modules import trained_by_name

        return Start(
            parameters=sum(p.numel() for p in self.model.parameters()),
            trained=sum(p.numel() for p in trained_by_name(self.modules).values()),
            device=self.device.type,
            dtype=self.recipe.dtype,
            steps=self.recipe.steps,
            step=self.step,
            about=self.about,
            metrics=self.metrics,
            figures={**self.figures, **devices_figure(self.among)},
            tokens_per_step=getattr(self.recipe, "batch_tokens", None),
            flops_per_token=self.flops_per_token,
            peak_flops=self.peak,
            facts={**self.facts, **self.among},
        )

    @property
    def peak(self) -> float | None:
        """Peak FLOP/s of all devices."""
        return self.peak_flops and self.peak_flops * (1 if self.ranks is None else self.ranks.size)

    @property
    def among(self) -> dict:
        """How many ranks there are, and about how many bytes each sends in a step."""
        if self.ranks is None:
            return {}
        muon = getattr(self.optimizers, "muon", None)
        if self.sharded is not None:
            sent = self.sharded.bytes(len(self.numbers(self.micro_batches(1))))
        else:
            sent = self.gradients.bytes
        return {
            "ranks": self.ranks.size,
            "shard": self.ranks.shard,
            "sent": int(sent + (muon.exchanged if muon else 0)),
        }

    def spread(self) -> None:
        """Share the run with the other ranks, if there are any: before a checkpoint is loaded or a step taken."""
        if self.ranks is None:
            return
        self.ranks.prepared()
        if self.ranks.shard:
            from jupyter_gpt.nn.sharded import Sharded

            self.sharded = Sharded(self.model, self.sharded_trunk(), self.optimizers, self.ranks)
        else:
            from jupyter_gpt.nn.distributed import GradientSum
            from jupyter_gpt.nn.modules import trained_by_name

            self.gradients = GradientSum(self.ranks, trained_by_name(self.modules).values())
            self.optimizers.spread(self.ranks)

    def sharded_trunk(self) -> Any:
        """The `Trunk` of a model that is to be cut into pieces."""
        raise NotImplementedError

    def reads(self, function: Callable[[], Any]) -> Any:
        """`function()`, which goes through the model; on all ranks where that lies in pieces."""
        return function() if self.sharded is None else self.sharded.run(function)

    def whole(self) -> AbstractContextManager:
        """The model, with all its weights, to sample from; None on a rank that has not got them."""
        return nullcontext(self.model) if self.sharded is None else self.sharded.whole()

    def gather(self) -> None:
        """After the last step: `model` is whole on the first rank."""
        if self.sharded is not None:
            self.model = self.sharded.gather()

    @property
    def evaluates(self) -> bool:
        """Whether this rank takes part in what changes nothing of the training: the first does, or all together."""
        return self.ranks is None or self.ranks.rank == 0 or self.ranks.shard

    def numbers(self, count: int) -> range:
        """Those of the `count` micro-batches of a step that are this rank's."""
        if self.ranks is None:
            return range(count)
        if self.ranks.shard:  # all ranks go through the model equally often
            count += -count % self.ranks.size
        return self.ranks.numbers(count)

    def micro(self, step: int, number: int) -> Micro:
        """The micro-batch of that number; beyond the last, one that counts for nothing."""
        if self.ranks is None or number < self.micro_batches(step):
            return self.micro_batch(step, number)
        return replace(self.micro_batch(step, 0), share=0.0, tokens=0)

    def at_once(self, total: int) -> int:
        """The tokens of a micro-batch where a step has `total`: as the recipe says, or fewer for each rank to have
        one."""
        most = self.recipe.micro_tokens
        return most if self.ranks is None else min(most, -(-total // self.ranks.size))

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of a micro-batch; after the `last` of this rank in a step, gradients go to the others."""
        if last and self.gradients is not None:
            self.gradients.arm()
        (loss if self.loss_scale is None else self.loss_scale.scaled(loss)).backward()

    def summed(self, loss: Tensor, *values: float) -> tuple:
        """The step's loss, its gradients and other values of it: the sums of what each rank had."""
        if self.gradients is not None:
            self.gradients.finish()
            if self.loss_scale is not None:
                self.loss_scale.pending = True  # also on a rank that had no micro-batch of its own
        self.unscale()
        if self.ranks is None:
            return loss, *values
        return self.ranks.total(loss), *self.sums(*values)

    def unscale(self) -> None:
        """Before the gradients of a step are clipped."""
        if self.loss_scale is not None:
            from jupyter_gpt.nn.modules import trained_by_name

            self.loss_scale.unscale(trained_by_name(self.modules).values())

    def sums(self, *values: float) -> Sequence[float]:
        """The sums over the ranks of numbers of the host's."""
        return values if self.ranks is None else self.ranks.sum(values)

    def loop(self) -> Iterator[Event | None]:
        """The run from here to its end."""
        return train(self)

    def closing(self, there: Container[str]) -> Iterator[Event | None]:
        """What a run that is stopped ends with: an evaluation and samples of the model as it stands.

        `there` are the kinds of events that its last step has already, an evaluation perhaps.
        """
        if self.held_out and "evaluation" not in there:
            yield from self.evaluate()
        yield from self.samples()

    def update(self, step: int) -> dict:
        """Clip the gradient and take a step of the optimizers, at the learning rate of the schedule; both as values.

        In float16 a step whose gradient is not finite is left out; it has no norm.
        """
        self.unscale()
        norm = clip(self.model, self.max_norm)
        factor = multiplier(step, self.recipe.steps, self.recipe.warmup, self.recipe.decay)
        rate = self.recipe.lr * factor
        if self.loss_scale is not None and self.loss_scale.skips:
            self.optimizers.clear_gradients()
            return {"grad_norm": None, "lr": rate}
        self.optimizers.step(factor)
        return {"grad_norm": norm, "lr": rate}

    def stepped(self, seconds: float, tokens: int, values: Mapping) -> Step:
        """Count a step of so many seconds and tokens; its event."""
        self.step, self.seconds, self.tokens = self.step + 1, self.seconds + seconds, self.tokens + tokens
        rate = tokens / seconds
        mfu = rate * (self.flops_per_token or 0.0) / self.peak if self.peak else None
        return Step(
            step=self.step, values=values, tokens=self.tokens, seconds=self.seconds, tokens_per_second=rate, mfu=mfu
        )


def devices_figure(among: Mapping) -> dict[str, str]:
    """What the report says of several ranks."""
    if not among:
        return {}
    how = "weights, gradients and optimizer state divided among them (FSDP2)" if among["shard"] else "data parallel"
    return {"devices": f"{among['ranks']}, {how}; each sends about {amount(among['sent'])} per step"}


def train(trainer: Trainer) -> Iterator[Event | None]:
    """Train until `recipe.steps`, from wherever `trainer` stands.

    Yields events (loss and gradient norm are device scalars) and None after each micro-batch, evaluation batch and
    sampled token, so that a stop is felt at once. The state is whole whenever a `Step` has just been yielded.
    """
    import torch

    recipe = trainer.recipe
    yield trainer.start()
    fences, upcoming = [], None
    while True:
        last = trainer.step >= recipe.steps
        if trainer.evaluates and trainer.held_out and (trainer.step % recipe.eval_every == 0 or last):
            yield from trainer.evaluate()
        if trainer.evaluates and (trainer.step % trainer.sample_every == 0 or last):
            yield from trainer.samples()
        if last:
            return
        if trainer.ranks is not None:
            yield Ready()
        step, began = trainer.step + 1, time.perf_counter()
        busy, tokens, parts = 0.0, 0, []
        numbers = trainer.numbers(trainer.micro_batches(step))
        for number in numbers:
            micro = upcoming if upcoming is not None else trainer.micro(step, number)
            loss = trainer.reads(lambda micro=micro: trainer.loss(micro.inputs)) * micro.share
            trainer.backward(loss, number == numbers[-1])
            parts.append(loss.detach())
            tokens += micro.tokens
            upcoming = following(trainer, step, number + numbers.step, numbers)  # assembled while the device works
            busy += time.perf_counter() - began
            yield None
            began = time.perf_counter()
        loss = torch.stack(parts).sum() if parts else torch.zeros((), device=trainer.device)
        loss, tokens = trainer.summed(loss, tokens)
        updated = trainer.update(step)
        wait_for_device(trainer, fences)
        busy += time.perf_counter() - began
        yield trainer.stepped(busy, int(tokens), {"loss": loss, **updated, **trainer.step_values()})


def following(trainer: Trainer, step: int, number: int, numbers: range) -> Micro | None:
    """This rank's micro-batch after one of a step whose are `numbers`; None where it has none, or at the end of the
    run."""
    if number < numbers.stop:
        return trainer.micro(step, number)
    if step >= trainer.recipe.steps or not trainer.numbers(trainer.micro_batches(step + 1)):
        return None
    return trainer.micro(step + 1, numbers.start)


def wait_for_device(trainer: Trainer, fences: list) -> None:
    """Let the host run at most two steps ahead, so that a stop is near and the clock is honest."""
    import torch

    if trainer.device.type in ("cuda", "mps"):
        fence = getattr(torch, trainer.device.type).Event()
        fence.record()
        fences.append(fence)
        if len(fences) > 2:
            fences.pop(0).synchronize()


def clip(module: nn.Module, most: float) -> Tensor:
    """The norm of the gradient of what is trained of `module`, which is scaled down to `most` where it is longer."""
    import torch

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    norm: Any = torch.nn.utils.clip_grad_norm_(trained, most, foreach=True)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def batch_of(items: Sequence, step: int, size: int, seed: int) -> list:
    """The items of one step: a function of its place in the run alone; each comes once in a pass over all."""
    import torch

    batch, orders = [], {}
    for n in range((step - 1) * size, step * size):
        turn, place = divmod(n, len(items))
        if turn not in orders:
            generator = torch.Generator().manual_seed(seed * 100_003 + turn)
            orders[turn] = torch.randperm(len(items), generator=generator).tolist()
        batch.append(items[orders[turn][place]])
    return batch
