"""`%gpt plan`: what a training would cost, as a table of its stages; or the talk's slide of GPT-3 and LLaMA."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.sizes import short
from jupyter_gpt.options import Count, NotNegative, Number, option
from jupyter_gpt.report.parts import Paragraph, Table
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages import planning
from jupyter_gpt.stages.published import DEVICES, KNOWN, Known
from jupyter_gpt.stages.stage import Bound

SLIDE_COUNT = 2048  # devices on which GPT-3 and LLaMA are compared: as many as LLaMA had


class Plan(Bound):
    """what a training run would cost: FLOPs, hours, dollars, memory

    Computes what it takes to pretrain a model and, beside it, the stages after that at their usual sizes: finetuning,
    reward modelling, reinforcement learning. Without a model it compares GPT-3 and LLaMA. With a budget instead of a
    model it finds the compute-optimal size.
    """

    magic: ClassVar[str] = "%gpt plan"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt plan",
        "%gpt plan 124M --tokens 2.5B --device H100 --count 1",
        "%gpt plan --dollars 1000 --device H100",
    )
    BUDGET: ClassVar[str] = "Model or budget"

    model: str | float | None = option(
        None,
        "number of parameters (124M, 7B) or a known model: " + ", ".join(KNOWN),
        place=True,
        hints=tuple(KNOWN),
        group=BUDGET,
    )
    tokens: str | float | None = option(
        None,
        "tokens to pretrain on (default: as published, or 20 per parameter)",
        "N",
        positional=True,
        group=BUDGET,
    )
    flops: str | float | None = option(None, "compute budget, instead of MODEL (1e21)", "F", group=BUDGET)
    dollars: str | float | None = option(None, "budget in dollars, instead of MODEL (1000)", "D", group=BUDGET)
    context: Count | None = option(None, "tokens per row", "T", group=BUDGET)
    optimizer: Literal["adamw", "muon"] = option("adamw", "optimizer whose state needs memory", group=BUDGET)
    device: str = option("A100", "accelerator: " + ", ".join(DEVICES), "NAME", hints=tuple(DEVICES), group="Machine")
    count: Count | None = option(
        None, "devices for pretraining (default: as many as finish in 30 days)", "N", group="Machine"
    )
    utilization: Annotated[Number, Field(gt=0, le=1)] = option(
        planning.UTILIZATION, "share of the device's peak that is reached", "SHARE", group="Machine"
    )
    dollars_per_hour: NotNegative | None = option(
        None, "price of one device (default: an assumption, shown)", "D", group="Machine"
    )


def plan(session, options: Plan):
    """What it costs to train a model, or the compute-optimal one of a budget; without either, GPT-3 and LLaMA, a list.

    Raises GPTError for a size, a device or a model that is unknown.
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
        raise GPTError("%gpt plan --tokens needs a model: its number of parameters (124M), or a known one")
    if model is None:
        return [planning.plan(name, **{"count": SLIDE_COUNT, **chosen}) for name in KNOWN]
    return planning.plan(model, tokens, **chosen)


def plan_report(made: planning.Plan) -> Report:
    """One plan: a column a stage, then what was assumed. All of it is arithmetic, the same everywhere."""
    costs, device = made.costs, made.device
    parts = ("weights", "gradients", "optimizer", "frozen", "activations", "kv_cache")
    names = {"frozen": "frozen models", "kv_cache": "KV cache"}
    rows = [
        ["data", *(cost.data for cost in costs)],
        ["tokens", *(short(cost.tokens) for cost in costs)],
        ["FLOPs", *(exponent(cost.flops) for cost in costs)],
        ["  attention", *(f"+{percent(cost.attention / cost.flops)}" for cost in costs)],
        [f"{device.name}s", *(cost.count for cost in costs)],
        ["  at least", *(cost.least for cost in costs)],
        [f"{device.name}-hours", *(hours(cost.device_hours) for cost in costs)],
        ["time", *(span(cost.days) for cost in costs)],
        ["dollars", *(money(cost.dollars) for cost in costs)],
        ["  of pretraining", *(percent(cost.dollars / (costs[0].dollars or 1)) for cost in costs)],
        [""] * (len(costs) + 1),
        ["memory", *(size(cost.memory.total) for cost in costs)],
        *([f"  {names.get(part, part)}", *(size(getattr(cost.memory, part)) for cost in costs)] for part in parts),
    ]
    title = f"{made.name}: " * bool(made.name) + (
        f"{short(made.parameters)} parameters, {short(made.tokens)} tokens "
        f"({made.tokens / made.parameters:.3g} per parameter)"
    )
    table = Table(["", *(cost.stage for cost in costs)], rows)
    return Report(title, [table, Paragraph("\n".join(_notes(made)), "quiet")], {"view": "plan", "plan": asdict(made)})


def _notes(made: planning.Plan) -> list[str]:
    """What the numbers rest on, one sentence a line."""
    device, shape = made.device, made.shape
    best = (made.pretraining.flops / 120) ** 0.5
    notes = [
        f"assumed: ${device.dollars_per_hour:.2f} per hour, {device.memory_gb:g} GB, {made.utilization:.0%} "
        f"of the {device.name}'s {device.tflops:,g} TFLOP/s ({planning.GENERATION_UTILIZATION:.0%} sampling)",
        f"shape: {shape.layers} layers, {shape.heads} heads, width {shape.width:,}, context {shape.context:,}"
        + (" (guessed from the parameters)" if shape.estimated else ""),
        "FLOPs: 6 per parameter and token (PPO: 20, of which 2 for sampling); attention is added on top and not priced",
        f"compute-optimal for these FLOPs (Chinchilla): {short(best)} parameters and {short(20 * best)} tokens",
        f"Chinchilla's fit predicts a loss of {made.loss:.2f} nats per token on its own data",
        "later stages: " + "; ".join(cost.source for cost in made.costs if cost.source),
    ]
    tight = [cost for cost in made.costs if not cost.fits]
    return [f"{c.stage} does not fit on {c.count:,} {device.name}: it needs {c.least:,}" for c in tight] + notes


def slide_report(*, device: str = "A100", count: int = SLIDE_COUNT, **options) -> Report:
    """The talk's slide: GPT-3-175B and LLaMA-65B, what was published beside what `plan` computes.

    Both are computed on the same `count` devices; `options` are `plan`'s.
    """
    plans = [planning.plan(name, device=device, count=count, **options) for name in KNOWN]
    header = [""]
    for known in KNOWN.values():
        header += [known.name, "computed"]
    columns = [_slide_column(known, made) for known, made in zip(KNOWN.values(), plans, strict=True)]
    rows = [[label, *(cell for column in columns for cell in column[label])] for label in columns[0]]
    chip = plans[0].device
    notes = [
        f"computed on {count:,} {chip.name}s at {plans[0].utilization:.0%} of {chip.tflops:,g} TFLOP/s, "
        f"assuming ${chip.dollars_per_hour:.2f} per hour",
        *(f"{known.name}: {known.source}" for known in KNOWN.values()),
        "loss: nats per token by Chinchilla's fit; the smaller model saw more tokens and is the better one",
    ]
    return Report(
        "GPT-3 and LLaMA, published and computed",
        [Table(header, rows), Paragraph("\n".join(notes), "quiet")],
        {"view": "slide", "plans": [asdict(made) for made in plans]},
    )


def _slide_column(known: Known, made: planning.Plan) -> dict[str, tuple[str, str]]:
    """Label -> (published, computed) of one model."""
    shape, cost, reported = known.shape, made.pretraining, known.reported
    devices = reported.get("devices") or f"{known.count:,} {known.device}"
    rate, implied = "–", "–"
    if known.device_hours and known.device == made.device.name:
        implied = f"{cost.flops / (known.device_hours * 3600 * made.device.tflops * 1e12):.0%}"
    if known.dollars and known.device_hours:
        rate = f"${known.dollars / known.device_hours:.2f}"
    return {
        "year": (str(known.year), ""),
        "parameters": (short(known.parameters), ""),
        "layers": (str(shape.layers), ""),
        "heads": (str(shape.heads), ""),
        "width": (f"{shape.width:,}", ""),
        "vocabulary": (f"{shape.vocabulary:,}", ""),
        "context": (f"{shape.context:,}", ""),
        "tokens": (short(known.tokens), ""),
        "tokens per parameter": ("", f"{made.tokens / made.parameters:.3g}"),
        "FLOPs": (exponent(known.flops) if known.flops else "–", exponent(cost.flops)),
        "hardware use (MFU)": (implied, f"{made.utilization:.0%}"),
        "devices": (devices, f"{cost.count:,} {made.device.name}"),
        "device-hours": (hours(known.device_hours) if known.device_hours else "–", hours(cost.device_hours)),
        "time": (reported.get("time") or span(known.days or 0), span(cost.days)),
        "dollars": (reported.get("dollars") or money(known.dollars or 0), money(cost.dollars)),
        "  per device-hour": (rate, f"${made.device.dollars_per_hour:.2f}"),
        "memory to train it": ("", size(cost.memory.total)),
        "loss": ("", f"{made.loss:.2f}"),
    }


def exponent(number: float) -> str:
    """`3.14e23`."""
    return f"{number:.2e}".replace("e+", "e")


def hours(number: float) -> str:
    """Hours with a digit where it matters: `1,083,571`, `163`, `0.4`."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def span(days: float) -> str:
    """`22.0 days`, `10 hours`, `12 minutes`, whichever reads best."""
    if days >= 1:
        return f"{days:,.1f} days" if days < 365 else f"{days / 365.25:,.1f} years"
    return f"{days * 24:.2g} hours" if days * 24 >= 1 else f"{days * 1440:.2g} minutes"


def money(dollars: float) -> str:
    """`$2.17M`, `$325`, `$0.42`."""
    if dollars < 10:
        return f"${dollars:.2f}"
    if dollars < 1e6:
        return f"${dollars:,.0f}"
    return f"${dollars / 1e6:.3g}M" if dollars < 1e9 else f"${dollars / 1e9:.3g}B"


def size(count: float) -> str:
    """Bytes as `2.88 TB`, `45.6 GB`, `318 MB`; none at all is `–`."""
    if not count:
        return "–"
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e6:.3g} MB"


def percent(share: float) -> str:
    """`100%`, `4.1%`, `0.015%`: two digits, whatever the size."""
    return f"{share:.0%}" if share >= 0.995 else f"{100 * share:.2g}%"
