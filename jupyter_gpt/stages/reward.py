"""`%gpt reward`: a reward model, trained on rankings to score the better completion higher.

It is a language model with a head of one number, read at the last token, where the model has seen prompt and completion
whole. The loss is the likelihood of the ranker's order (`nn/preference_loss.py`); accuracy, with its interval, is that
on rankings of held-out prompts.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters
from jupyter_gpt.models.models import REWARD_LABEL
from jupyter_gpt.options import Count, NotNegative, Positive, Rank, Recipe, option
from jupyter_gpt.runs.events import Evaluation, Event, Metric, Note, Progress, Sample, Table
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch
from jupyter_gpt.stages.loop import LEARNING_RATE, Micro, Trainer, batch_of, losses
from jupyter_gpt.stages.stage import LENGTH, OpenShare, Training, keep_model, one_length

if TYPE_CHECKING:
    from torch import Tensor

NEEDED = 4  # rankings that order some completions: one to hold out, and some to learn from
SHOWN = 3  # held-out rankings whose scores are shown during training
TRAINED = (2048, 16384)  # tokens of a micro-batch on a CPU and on a GPU, where the memory holds them
METRICS = (
    *losses("choice"),
    Metric("accuracy", "accuracy on pairs", format=".1%", interval=("low", "high"), summary=True),
    LEARNING_RATE,
)


class RewardModel(Training):
    """train a reward model on rankings

    Puts a head of one number on a language model and trains it on the order of the rankings (Plackett-Luce, for two
    Bradley-Terry). A completion that was truncated at its token limit is read without an end-of-turn token. Shows the
    loss, the accuracy on held-out rankings with its interval, calibration, and scores of held-out completions.
    gpt.models[NAME].score(prompt, completion) scores a completion; %%rlhf --reward NAME trains against it.
    """

    magic: ClassVar[str] = "%gpt reward"
    examples: ClassVar[tuple[str, ...]] = ("%gpt reward judge --rankings taste",)

    rankings: str = option(..., "rankings made by %%rank", "NAME", complete="rankings", group="Name and data")
    base: str | None = option(
        None,
        "the language model to start from (default: the one whose completions were ranked)",
        "MODEL",
        complete="models",
        group="Name and data",
    )
    held_out: OpenShare = option(0.1, "share of the prompts held out for validation", "SHARE", group="Name and data")
    max_tokens: Count | None = option(
        None, "maximum tokens of prompt and completion together (default: the context)", "N", group="Name and data"
    )
    epochs: Positive | None = option(
        None, "passes over the rankings, instead of --steps (default: 2)", "N", group=LENGTH
    )
    batch: Count = option(8, "rankings of one step", "N", group="Optimization")
    lora: Rank = option(16, "rank of the LoRA adapter; 0 trains a copy of the whole model", "R", group="Optimization")
    lr: Positive | None = option(
        None, "peak learning rate (default: 3e-4, a tenth of that without LoRA)", "X", group="Optimization"
    )
    margin: NotNegative = option(
        0.0, "margin by which the better score must exceed the other", "X", group="Optimization"
    )
    centring: NotNegative = option(
        0.01, "coefficient of the loss that centers scores at zero", "X", group="Optimization"
    )
    eval_every: Count | None = option(
        None, "steps between validations (default: eight in a run)", "N", group="Evaluation"
    )

    def check_together(self) -> None:
        one_length(self, "steps", "epochs")


class RewardRecipe(Recipe, RewardModel):
    """`batch` rankings a step, `epochs` passes over them all unless `steps` is given (0 until the rankings are
    counted). `max_tokens` bounds prompt and completion together; `held_out` is a share of the prompts. `marks` are
    hashes of the base and the rankings, by what they are. `micro_tokens` is the size of a micro-batch, a ranking at
    least.
    """

    name: str = ""
    base: str
    steps: int = 0
    epochs: float = 2.0
    lr: float
    warmup: float = 0.05
    decay: float = 0.7
    clip: float = 1.0
    eval_every: int = 0
    dtype: str = "auto"
    marks: dict[str, str] | None = None
    micro_tokens: int = 0
    checkpointing: bool | None = None


RECIPE = RewardRecipe


def reward(session, options: RewardModel) -> Run:
    """Train a reward model; it is `gpt.models[name]`, and `gpt.models[name].score(prompt, completion)` asks it.

    Raises GPTError, one line, for rankings that are too few or all ties, saying how many there are and how many more
    are needed.
    """
    store.check_name(options.name)
    rankings = session.rankings[options.rankings].need(NEEDED)
    base = options.base or ranked_model(session, options.rankings, rankings)
    check_base(session, base)
    recipe = recipe_of(options, base)
    recipe = recipe.replace(marks=marks_of(session, recipe))
    return launch(session, options, "reward", recipe, {**options.given, "base": base}, options.variables)


def recipe_of(options: RewardModel, base: str) -> RewardRecipe:
    """The recipe of these options; the learning rate of an adapter is ten times that of the whole model."""
    return RewardRecipe.from_options(options, base=base, lr=options.lr or (3e-4 if options.lora else 3e-5))


def ranked_model(session, name: str, rankings) -> str:
    """The one model of the store whose completions were ranked. Raises GPTError if there is none, or more than one."""
    names = list(dict.fromkeys(each["model"] for ranking in rankings for each in ranking.completions))
    here = [name for name in names if name in session.models and session.models.about(name).kind != "endpoint"]
    if len(here) != 1:
        whose = f"are of {', '.join(filter(None, names))}" if any(names) else "do not say whose completions they are of"
        raise GPTError(f"say which model the reward model is made from, --base MODEL: rankings {name} {whose}")
    return here[0]


def check_base(session, base: str) -> None:
    """Raises GPTError for a model that is not here, is behind a server, or has a head of scores already."""
    model = session.models.about(base)
    if model.kind == "endpoint":
        raise GPTError(f"{base} is behind a server: its weights cannot be trained here, pull it or choose another")
    if model.labels:
        raise GPTError(f"{base} is a {model.kind} model, which writes no text: choose a language model")


def mark_of_model(session, name: str) -> dict[str, str]:
    """The hash of a model's weights; of an adapter's, that of its base too."""
    model = session.models.about(name)
    base = mark_of_model(session, session.models.base_of(model)) if model.base else {}
    return {f"model {name}": adapters.mark(model.folder), **base}


def mark_of_rankings(session, name: str) -> dict[str, str]:
    """The hash of a file of rankings."""
    return {f"rankings {name}": hashlib.sha256(session.rankings[name].path.read_bytes()).hexdigest()[:32]}


def marks_of(session, recipe) -> dict[str, str]:
    """The hashes of what the run learns from."""
    return mark_of_model(session, recipe.base) | mark_of_rankings(session, recipe.rankings)


def check_marks(run: Run, before: Mapping[str, str] | None, now: Mapping[str, str]) -> None:
    """Raises GPTError for what has changed since the run began."""
    for what, mark in now.items():
        if (before or {}).get(what) != mark:
            raise GPTError(f"{what}: changed since {run.name} began, so it cannot be resumed; run its cell again")


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events; returns the `RewardTraining` at step 0."""
    check_marks(run, recipe.marks, marks_of(session, recipe))
    rankings = session.rankings[recipe.rankings]
    usable = rankings.need(NEEDED)
    yield from (Note(text=note) for note in rankings.notes)
    base = session.models[recipe.base]
    return (yield from prepare(recipe, base, usable, session.models.to_train(base, not recipe.lora, recipe.dtype)))


class Ranked(NamedTuple):
    """A ranking as it is learned from: prompt and completions as text, their ids, and their order, best first."""

    prompt: str
    texts: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    order: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows))


def prepare(recipe, base, rankings: Sequence, weights: Any = None) -> Iterator[Event | None]:
    """Yields progress events, returns the `RewardTraining` at step 0.

    `base` is a model of the session, `rankings` its `Ranking`s; `weights` is the module to start from, if that is not
    the module of `base`: its weights in fp32. Raises GPTError if nothing can be held out.
    """
    import torch

    from jupyter_gpt.models.scoring import row_of
    from jupyter_gpt.nn import devices, training_memory
    from jupyter_gpt.nn.logprobs import Reader
    from jupyter_gpt.nn.modules import context_of
    from jupyter_gpt.nn.optimizer import adamw_of
    from jupyter_gpt.stages.policy import scorer_of

    yield Progress(stage="reading the rankings", total=len(rankings), unit="rankings")
    tokenizer = copy.deepcopy(base.tokenizer)
    most = min(recipe.max_tokens or 1 << 30, context_of(base.module))
    ranked, cut = [], 0
    for number, ranking in enumerate(rankings):
        if ranking.pairs:
            texts = tuple(each["text"] for each in ranking.completions)
            rows = [
                row_of(base.name, tokenizer, ranking.asked, text, most, *how)
                for text, *how in zip(texts, ranking.finished, ranking.sampled, strict=True)
            ]
            cut += any(shortened for _, shortened in rows)
            ranked.append(Ranked(ranking.prompt, texts, tuple(row for row, _ in rows), ranking.order))
        if number % 100 == 99:
            yield Progress(stage="reading the rankings", done=number + 1, total=len(rankings), unit="rankings")
    held_out = held_out_prompts([each.prompt for each in ranked], recipe.held_out, recipe.seed)
    train = [each for each in ranked if each.prompt not in held_out]
    steps = recipe.steps or max(1, math.ceil(recipe.epochs * len(train) / recipe.batch))
    recipe = recipe.replace(
        steps=steps,
        eval_every=recipe.eval_every or max(1, steps // 8),
        max_tokens=most,
        dtype=devices.resolved(recipe.dtype, base.module),
    )
    weights = base.module if weights is None else weights
    device = weights.device.type
    yield from devices.notes(device, recipe.dtype)
    recipe = yield from training_memory.with_micro_batch(
        recipe,
        base.name,
        weights,
        TRAINED[device == "cuda"],
        text=max(len(row) for each in train for row in each.rows),
        least=max(each.tokens for each in train),
        rank=recipe.lora,
        logits=False,
    )
    model = scorer_of(weights, recipe.lora, tokenizer.pad_token_id, recipe.seed)
    return RewardTraining(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        optimizers=adamw_of({"reward": model}, {"reward": recipe.lr}),
        rankings=train,
        held_out=[each for each in ranked if each.prompt in held_out],
        cut=cut,
        reader=Reader(model, getattr(torch, recipe.dtype), bool(recipe.checkpointing)),
    )


def held_out_prompts(prompts: Sequence[str], share: float, seed: int) -> set[str]:
    """The prompts to hold out: that share of the different ones, one at least and never all, drawn from the seed.

    Raises GPTError if all rankings are of one prompt.
    """
    import torch

    different = list(dict.fromkeys(prompts))
    if len(different) < 2:
        raise GPTError("all rankings are of one prompt, and some must be held out: rank completions of another one too")
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(seed)).tolist()
    return {different[place] for place in order[: min(max(1, round(share * len(different))), len(order) - 1)]}


@dataclass(kw_only=True, eq=False)
class RewardTraining(Trainer):
    """A reward model in training. `cut` rankings were truncated to `recipe.max_tokens`."""

    rankings: list[Ranked]
    cut: int
    reader: Any = field(repr=False)
    pairs: tuple[int, int] = (0, 0)  # of the step under way: those in the ranker's order, and all
    metrics = METRICS

    @property
    def modules(self) -> dict:
        return {"reward": self.model}

    @property
    def sample_every(self) -> int:
        return self.recipe.eval_every

    @property
    def about(self) -> str:
        how = f"LoRA of rank {self.recipe.lora}" if self.recipe.lora else "all weights"
        return f"from {self.recipe.base} and the rankings {self.recipe.rankings}, {how}"

    @property
    def figures(self) -> dict[str, str]:
        from jupyter_gpt.nn.preference_loss import pairs_of

        pairs = sum(len(pairs_of(ranked.order)) for ranked in self.held_out)
        return {
            "trained on": f"{len(self.rankings):,} rankings, {self.cut:,} of them truncated",
            "held out": f"{pairs:,} pairs of {len(self.held_out):,} rankings",
        }

    @property
    def facts(self) -> dict:
        return {"rankings": len(self.rankings), "held_out": len(self.held_out), "cut": self.cut}

    def parts(self, step: int) -> list[list[Ranked]]:
        """The rankings of a step in micro-batches of at most `micro_tokens`, or of one ranking: a function of the step
        alone."""
        parts: list[list[Ranked]] = []
        batch = batch_of(self.rankings, step, self.recipe.batch, self.recipe.seed)
        most = self.at_once(sum(ranked.tokens for ranked in batch))
        for ranked in batch:
            if parts and sum(each.tokens for each in parts[-1]) + ranked.tokens <= most:
                parts[-1].append(ranked)
            else:
                parts.append([ranked])
        return parts

    def micro_batches(self, step: int) -> int:
        return len(self.parts(step))

    def micro_batch(self, step: int, number: int) -> Micro:
        part = self.parts(step)[number]
        return Micro(part, len(part) / self.recipe.batch, sum(ranked.tokens for ranked in part))

    def loss(self, inputs: Sequence[Ranked]) -> Tensor:
        """The mean loss of these rankings."""
        from jupyter_gpt.models.scoring import scores
        from jupyter_gpt.nn.preference_loss import ranking_loss, right

        orders = [ranked.order for ranked in inputs]
        every = scores(self.reader, [row for ranked in inputs for row in ranked.rows])
        split = every.split([len(ranked.rows) for ranked in inputs])
        for own, order in zip(split, orders, strict=True):
            correct, pairs = right(own.tolist(), order)
            self.pairs = self.pairs[0] + correct, self.pairs[1] + pairs
        return ranking_loss(split, orders, self.recipe.margin, self.recipe.centring)

    def step_values(self) -> dict:
        (right, pairs), self.pairs = self.sums(*self.pairs), (0, 0)
        return {"accuracy": right / pairs}

    def evaluate(self) -> Iterator[Event | None]:
        """Loss and accuracy on the held-out rankings, and calibration."""
        import torch

        from jupyter_gpt.evaluation.metrics import wilson
        from jupyter_gpt.models.scoring import scored
        from jupyter_gpt.nn.preference_loss import pairs_of, ranking_loss

        began = time.perf_counter()
        every = iter((yield from scored(self.reader, [row for ranked in self.held_out for row in ranked.rows])))
        nats, confidences = [], []
        for ranked in self.held_out:
            own = [next(every) for _ in ranked.rows]
            nats.append(float(ranking_loss([torch.tensor(own, dtype=torch.float64)], [ranked.order])))
            confidences += [confidence(own[best], own[worse]) for best, worse in pairs_of(ranked.order)]
        accuracy = sum(correct for _, correct in confidences) / len(confidences)
        low, high = wilson(accuracy, len(self.held_out))  # the pairs of one ranking are not independent
        yield Evaluation(
            step=self.step,
            values={"val_loss": sum(nats) / len(nats), "accuracy": accuracy, "low": low, "high": high},
            seconds=time.perf_counter() - began,
            facts={"pairs": len(confidences), "rankings": len(self.held_out)},
        )
        yield calibration_table(self.step, calibration(confidences))

    def samples(self) -> Iterator[Event | None]:
        """The scores of some held-out completions, the ranker's best first."""
        from jupyter_gpt.models.scoring import scored

        for ranked in self.held_out[:SHOWN]:
            scores = yield from scored(self.reader, ranked.rows)
            for place in (place for group in ranked.order for place in group):
                yield Sample(step=self.step, prompt=ranked.prompt, text=ranked.texts[place], reward=scores[place])


def confidence(better: float, worse: float) -> tuple[float, bool]:
    """How sure two scores are of their favourite, 0.5 to 1, and whether that is the ranker's."""
    return 1 / (1 + math.exp(-min(abs(better - worse), 500.0))), better > worse


def calibration(confidences: Sequence[tuple[float, bool]], bins: int = 5) -> list[list[float]]:
    """Pairs by confidence: `[mean confidence, share correct, pairs]` of each fifth of the range 0.5 to 1 that has any
    (a reliability diagram, Niculescu-Mizil and Caruana 2005).
    """
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for p, correct in confidences:
        if not math.isnan(p):  # of a model that diverged: the loss shows it
            groups[min(bins - 1, int((p - 0.5) * 2 * bins))].append((p, correct))
    return [[sum(p for p, _ in g) / len(g), sum(hit for _, hit in g) / len(g), len(g)] for g in groups if g]


def calibration_table(step: int, bins: Sequence[Sequence[float]]) -> Table:
    """What `calibration` returns, as a table."""
    rows = [[f"{n}", *row] for n, row in enumerate(bins, start=1)]
    title = "calibration: share of pairs ordered correctly, by confidence"
    return Table(step=step, title=title, columns=["bin", "confidence", "correct", "pairs"], rows=rows, chart="curve")


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    keep_as(session, run, run.name, run.provenance, training)


def keep_as(session, run: Run, name: str, made: Provenance, training) -> None:
    """Register a reward model that `run` trained under `name`."""
    base = session.models.about(training.recipe.base)
    below = (base.base or base.name) if training.recipe.lora else None
    keep_model(session, run, training, base, name, made, base=below, labels=[REWARD_LABEL])
