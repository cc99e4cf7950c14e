"""`%gpt plan`: what a training would cost, before it is begun."""

from __future__ import annotations

from typing import ClassVar, Literal

from jupyter_gpt.errors import GPTError
from jupyter_gpt.options import Count, Number, Positive, option
from jupyter_gpt.stages import planning
from jupyter_gpt.stages.published import DEVICES, KNOWN
from jupyter_gpt.stages.stage import Bound

SLIDE_COUNT = 2048  # devices on which GPT-3 and LLaMA are set side by side: as many as LLaMA had


class Plan(Bound):
    """what a training would cost: FLOPs, hours, dollars, memory

    Computes what it takes to pretrain a model and, beside it, the stages after that at their usual sizes: finetuning,
    reward modelling, reinforcement. Alone it sets GPT-3 and LLaMA side by side. With a budget instead of a model it
    finds the compute-optimal size.
    """

    magic: ClassVar[str] = "%gpt plan"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt plan",
        "%gpt plan 124M --tokens 2.5B --device H100 --count 1",
        "%gpt plan --dollars 1000 --device H100",
    )

    model: str | float | None = option(
        None,
        "parameters (124M, 7B) or a known model: " + ", ".join(KNOWN),
        place=True,
        hints=tuple(KNOWN),
        group="Model or budget",
    )
    tokens: str | float | None = option(
        None,
        "tokens to pretrain on (default: as published, or 20 a parameter)",
        "N",
        positional=True,
        group="Model or budget",
    )
    flops: str | float | None = option(
        None, "a budget of compute, instead of MODEL (1e21)", "F", group="Model or budget"
    )
    dollars: str | float | None = option(
        None, "a budget of money, instead of MODEL (1000)", "D", group="Model or budget"
    )
    context: Count | None = option(None, "tokens a row", "T", group="Model or budget")
    optimizer: Literal["adamw", "muon"] = option("adamw", "whose state is held", group="Model or budget")
    device: str = option(
        "A100", "which accelerator: " + ", ".join(DEVICES), "NAME", hints=tuple(DEVICES), group="Machine"
    )
    count: Count | None = option(
        None, "how many pretrain (default: as many as end it in 30 days)", "N", group="Machine"
    )
    utilization: Number = option(0.45, "share of its peak that is reached", "SHARE", group="Machine")
    dollars_per_hour: Positive | None = option(
        None, "price of one (default: an assumption, shown)", "D", group="Machine"
    )


def plan(session, options: Plan):
    """What it costs to train a model, or the compute-optimal one of a budget; without either, GPT-3 and LLaMA, a list.

    Raises GPTError, one line, for what makes no sense.
    """
    chosen = options.given
    model, tokens, flops, dollars = (chosen.pop(name, None) for name in ("model", "tokens", "flops", "dollars"))
    budget = next((f"--{name}" for name in ("flops", "dollars") if getattr(options, name) is not None), None)
    fixed = next((name for name, value in (("MODEL", model), ("--tokens", tokens)) if value is not None), None)
    if budget and fixed:
        raise GPTError(f"%gpt plan finds the model and its tokens for {budget}: leave {fixed} out")
    if budget:
        return planning.optimal(flops=flops, dollars=dollars, **chosen)
    if model is None and tokens is not None:
        raise GPTError("%gpt plan wants a model for so many --tokens: its parameters (124M), or a known one")
    if model is None:
        return [planning.plan(name, **{"count": SLIDE_COUNT, **chosen}) for name in KNOWN]
    return planning.plan(model, tokens, **chosen)
