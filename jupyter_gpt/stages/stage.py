"""What the stages that train have in common: the options that mean the same on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import Count, Number, Options, Positive, Share, option

Optimizer = Literal["muon", "adamw"]
Dtype = Literal["float32", "bfloat16"]
OVERWRITE = (
    "replace what something else made under this NAME; the same cell, and the same options on the same data, may do so "
    "without"
)
PROMPT_TEXTS = "texts in quotes, a $variable with a list of them, or a text file with one per line"  # of --prompts
OpenShare = Annotated[Number, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
LENGTH, RUNNING = "Length", "Running"
MICRO_TOKENS = 65536  # tokens of pretraining in one pass, where the memory holds them


class Bound(Options):
    """What every magic has: its result can be bound to a variable."""

    out: str | None = option(None, "bind the result to this variable of the notebook", "VAR", only="magic")


class Training(Options):
    """Options of every stage that trains."""

    groups: ClassVar[tuple[str, ...]] = ("Name and data", LENGTH, "Optimization", "Evaluation", RUNNING)

    name: str = option(..., "name of the model and its run", place=True, group="Name and data")
    steps: Count | None = option(
        None, "optimizer steps; the one to use in a notebook that is shared", "N", group=LENGTH
    )
    dtype: Dtype | None = option(
        None,
        "number format of the activations; the trained weights stay float32 (default: bfloat16 where the hardware "
        "is fast in "
        "it, else float32, as on a T4 or V100)",
        group="Optimization",
    )
    seed: Seed = option(0, "decides data order, initial weights and sampling", "S", group=RUNNING)
    checkpoint_every: Count | None = option(
        None,
        "steps between checkpoints on disk (default: one a minute, fewer where they would cost over 1% of the time)",
        "N",
        group=RUNNING,
    )
    background: bool = option(False, "return at once; a later cell that needs the model waits for it", group=RUNNING)
    overwrite: bool = option(False, OVERWRITE, group=RUNNING)
    out: str | None = option(
        None, "bind the result to this variable of the notebook", "VAR", group=RUNNING, only="magic"
    )
    beside: list[str] | None = option(
        None, "earlier runs, drawn into the same charts", "RUN", complete="runs", group="Evaluation", only="magic"
    )
    variables: Mapping | None = option(None, "values of `$name` sources, by name", only="python")


class Finetuning(Training):
    """Options of the stages that train on from a model."""

    lora: Count | None = option(
        None, "rank of a LoRA adapter that is trained instead of all weights", "R", group="Adapter"
    )
    lora_targets: list[str] | None = option(
        None,
        "names of the layers it adapts (default: all linear layers but the head)",
        "LAYER",
        hints=("all-linear", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        group="Adapter",
    )


class Schedule(Training):
    """Length and learning-rate schedule of next-token training."""

    tokens: Count | None = option(
        None, "train on this many tokens in all, instead of --steps (10M, 1.5B)", "N", group=LENGTH
    )
    minutes: Positive | None = option(
        None,
        "train for about this long, instead of --steps; how many steps that is depends on the machine",
        "M",
        group=LENGTH,
    )
    lr: Positive | None = option(None, "peak learning rate", "X", group="Optimization")
    batch_tokens: Count | None = option(None, "tokens of one optimizer step", "N", group="Optimization")
    warmup: Share | None = option(
        None, "share of the steps in which the learning rate rises", "SHARE", group="Optimization"
    )
    decay: Share | None = option(None, "share of the steps in which it falls to zero", "SHARE", group="Optimization")
    weight_decay: Number | None = option(None, "weight decay", "X", group="Optimization")
    clip: Positive = option(1.0, "maximum gradient norm (gradient clipping)", "X", group="Optimization")
    checkpointing: bool | None = option(
        None,
        "recompute activations in the backward pass (gradient checkpointing): less memory, a third more work "
        "(default: where "
        "the free memory asks for it)",
        group="Optimization",
    )
    eval_every: Count | None = option(
        None, "steps between validations (default: ten in a run)", "N", group="Evaluation"
    )
    eval_tokens: Count | None = option(None, "held-out tokens read by each validation", "N", group="Evaluation")
    sample_every: Count | None = option(None, "steps between samples (default: six in a run)", "N", group="Evaluation")


def one_length(options: Any, *names: str) -> None:
    """Raises GPTError where more than one option sets the length of the run."""
    given = [f"--{name}" for name in names if getattr(options, name) is not None]
    if len(given) > 1:
        raise GPTError(f"{' and '.join(given)} both set the length of the run: give one")


def schedule(options: Any, warmup: float, decay: float) -> dict[str, float]:
    """Warm-up and decay as shares of the steps: as given, else these, or what the other leaves of the run.

    Raises GPTError where together they are longer than the run.
    """
    first, last = options.warmup, options.decay
    if first is not None and last is not None and first + last > 1 + 1e-9:
        raise GPTError(f"--warmup {first:g} and --decay {last:g} are shares of the steps: together they are at most 1")
    first = min(warmup, 1 - (last or 0.0)) if first is None else first
    return {"warmup": first, "decay": min(decay, 1 - first) if last is None else last}
