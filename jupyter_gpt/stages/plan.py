"""`%gpt plan`: what a training would cost, as a table of its stages; or the talk's slide of GPT-3 and LLaMA."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.sizes import short
from jupyter_gpt.options import Count, NotNegative, Number, option
from jupyter_gpt.report.parts import Paragraph, Part, Table, bold
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages import plan_devices, planning
from jupyter_gpt.stages.plan_devices import Devices
from jupyter_gpt.stages.pretrain import SIZES, Pretrain, model_shape, parameter_count, shape_of
from jupyter_gpt.stages.published import DEVICES, KNOWN, Known, Shape
from jupyter_gpt.stages.stage import Bound

SLIDE_COUNT = 2048  # devices on which GPT-3 and LLaMA are compared: as many as LLaMA had


class Plan(Bound):
    """what a training run would cost: FLOPs, hours, dollars, memory

    Computes what it takes to pretrain a model and, beside it, the stages after that at their usual sizes: finetuning,
    reward modelling, reinforcement learning. Without a model it compares GPT-3 and LLaMA. With a budget instead of a
    model it finds the compute-optimal size. With --devices it also estimates what the devices exchange in a step of
    pretraining, and the memory of each, with data parallelism and with --shard.
    """

    magic: ClassVar[str] = "%gpt plan"
    examples: ClassVar[tuple[str, ...]] = (
        "%gpt plan",
        "%gpt plan 124M --tokens 2.5B --device H100 --count 1",
        "%gpt plan gpt2-xl --device H100",
        "%gpt plan --dollars 1000 --device H100",
        "%gpt plan 7B --device H100 --devices 64",
    )
    BUDGET: ClassVar[str] = "Model or budget"
    PARALLEL: ClassVar[str] = "Several devices"

    model: str | float | None = option(
        None,
        f"number of parameters (124M, 7B), a model that was published ({', '.join(KNOWN)}), one of yours, or a --size "
        f"of %%pretrain: {', '.join(SIZES)}",
        place=True,
        hints=(*KNOWN, *SIZES),
        complete="models",
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
    optimizer: Literal["adamw", "adamw8bit", "muon"] = option(
        "adamw", "optimizer whose state needs memory", group=BUDGET
    )
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
    devices: Count | None = option(
        None,
        f"devices that pretrain together, in nodes of {plan_devices.NODE}; with --nodes those of each node",
        "N",
        group=PARALLEL,
    )
    nodes: Count | None = option(None, "nodes with --devices each", "M", group=PARALLEL)
    shard: bool = option(
        False, "shard weights, gradients and moments over the devices, as %%pretrain --shard", group=PARALLEL
    )
    network: Literal["infiniband", "ethernet"] | None = option(
        None, "network between nodes (default: InfiniBand for devices with NVLink, else Ethernet)", group=PARALLEL
    )
    batch_tokens: Count | None = option(
        None,
        f"tokens of one optimizer step on all devices (default: {plan_devices.BATCH_TOKENS:,})",
        "N",
        group=PARALLEL,
    )


def plan(session, options: Plan):
    """What it costs to train a model, or the compute-optimal one of a budget; without either, GPT-3 and LLaMA, a list.

    Raises GPTError for a size, a device or a model that is unknown.
    """
    together = ("devices", "nodes", "shard", "network", "batch_tokens")
    chosen = {key: value for key, value in options.given.items() if key not in together}
    if options.devices is None and (extra := next((name for name in together if getattr(options, name)), None)):
        raise GPTError(f"%gpt plan --{extra.replace('_', '-')} needs --devices: how many train together")
    if options.devices is not None:
        if options.count is not None:
            raise GPTError("--count and --devices both say how many devices pretrain: leave --count out")
        nodes, each = plan_devices.layout(options.devices, options.nodes)
        chosen["count"] = nodes * each
    made = plans(session, options, chosen)
    if options.devices is None:
        return made
    if isinstance(made, list):
        raise GPTError("%gpt plan --devices needs a model: its number of parameters (7B), or its name")
    on = plan_devices.on_devices(
        made, options.devices, options.nodes, network=options.network, batch_tokens=options.batch_tokens
    )
    return replace(made, devices=replace(on, ways=on.ways[1:]) if options.shard else on)


def plans(session, options: Plan, chosen: dict):
    """The plan, or those of GPT-3 and LLaMA; `chosen` are the options that `planning` takes."""
    model, tokens, flops, dollars = (chosen.pop(name, None) for name in ("model", "tokens", "flops", "dollars"))
    budget = next((f"--{name}" for name in ("flops", "dollars") if getattr(options, name) is not None), None)
    fixed = next((name for name, value in (("MODEL", model), ("--tokens", tokens)) if value is not None), None)
    if budget and fixed:
        raise GPTError(f"%gpt plan finds the model and its tokens for {budget}: leave {fixed} out")
    if budget:
        return planning.optimal(flops=flops, dollars=dollars, **chosen)
    if model is None and tokens is not None:
        raise GPTError("%gpt plan --tokens needs a model: its number of parameters (124M), or its name")
    if model is None:
        return [planning.plan(name, **{"count": SLIDE_COUNT, **chosen}) for name in KNOWN]
    return planning.plan(**(described(session, model) or {"model": model}), tokens=tokens, **chosen)


def described(session, model: str | float) -> dict | None:
    """The parameters, shape and name of a `--size` of %%pretrain, or of a model of the session; None for any other."""
    if model in SIZES:
        sizes = model_shape(Pretrain.of(name=model, size=model))
        parameters = parameter_count(**sizes)
    elif model in session.models and (own := session.models.about(model)).kind != "endpoint":
        sizes = shape_of(session.models.about(session.models.base_of(own)) if own.base else own)
        parameters = own.parameters - own.trained * bool(own.base)
    else:
        return None
    shape = Shape(*(sizes[size] for size in ("layers", "heads", "width", "context", "vocab_size")))
    return {"model": parameters, "shape": shape, "name": model}


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
    shown: list[Part] = [Table(["", *(cost.stage for cost in costs)], rows)]
    shown.append(Paragraph("\n".join(_notes(made)), "quiet"))
    data = asdict(made)
    if made.devices:
        shown += _together(made, made.devices)
    else:
        del data["devices"]
    return Report(title, shown, {"view": "plan", "plan": data})


def _together(made: planning.Plan, on: Devices) -> list[Part]:
    """Pretraining on several devices: a column each for data parallelism and sharding, and what was assumed."""
    chip, ways = made.device, on.ways
    parts = {"weights": "weights", "gradients": "gradients", "optimizer": "optimizer"}
    parts |= {"gathered": "computed with (bf16)", "activations": "activations"}
    rows = [
        ["memory of each device", *(size(way.memory.total) for way in ways)],
        *([f"  {name}", *(size(getattr(way.memory, part)) for way in ways)] for part, name in parts.items()),
        [""] * (len(ways) + 1),
        ["rows of a micro-batch", *(way.rows for way in ways)],
        ["micro-batches per step", *(way.passes for way in ways)],
        ["activations are", *("recomputed" if way.recomputed else "kept" for way in ways)],
        ["each device sends per step", *(size(way.sent) for way in ways)],
        ["  which takes", *(seconds(way.communication) for way in ways)],
        ["  not overlapped", *(seconds(way.exposed) for way in ways)],
        ["computation per step", *(seconds(way.compute) for way in ways)],
        ["step", *(seconds(way.step) for way in ways)],
        ["share of the step computed", *(percent(way.efficiency) for way in ways)],
        ["largest model that fits", *(short(way.largest) if way.largest else "–" for way in ways)],
    ]
    where = f"{on.nodes:,} nodes of {on.each}" if on.nodes > 1 else "one node"
    title = Paragraph(bold(f"pretraining on {on.world:,} {chip.name}s ({where})"))
    table = Table(["", *("--shard" if way.sharded else "data parallel" for way in ways)], rows)
    return [title, table, Paragraph("\n".join(_advice(made, on)), "quiet")]


def _advice(made: planning.Plan, on: Devices) -> list[str]:
    """Whether the model has to be sharded, and what the estimate rests on, one sentence a line."""
    chip, shape = made.device, made.shape
    notes = []
    for way in on.ways:
        if not way.fits:
            name, needed = "--shard" if way.sharded else "data parallelism", size(way.memory.total)
            room = size(plan_devices.usable_memory(chip))
            notes.append(f"{name} does not fit: each {chip.name} would need {needed} of its {room}")
    least = plan_devices.least_devices(made)
    if least is None:
        notes.append(f"one row of {shape.context:,} tokens does not fit on a {chip.name}, however many there are")
    elif not on.ways[-1].fits:
        notes.append(f"--shard needs {least:,} of them or more")
    data = plan_devices.largest_model(chip, shape.context, made.optimizer, 1, sharded=False)
    notes.append(
        f"data parallelism holds up to {short(data)} parameters on one {chip.name} of {chip.memory_gb:g} GB "
        f"({made.optimizer}, one row of {shape.context:,} tokens); larger models need --shard"
    )
    return [
        *notes,
        f"assumed: {on.batch_tokens:,} tokens per step; the slowest link is {on.link}, "
        f"{plan_devices.BANDWIDTH_SHARE:.0%} of {on.bandwidth / 1e9:,.4g} GB/s in one direction; no latencies",
        "trained in fp32: gradients of 4 bytes are exchanged; data parallelism overlaps that with the backward pass of "
        "the last micro-batch, --shard with all passes",
    ]


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


def seconds(number: float) -> str:
    """`4.2 s`, `38 ms`, `120 µs`; none at all is `–`."""
    if not number:
        return "–"
    for unit, scale in (("s", 1), ("ms", 1e-3)):
        if number >= scale:
            return f"{number / scale:,.3g} {unit}"
    return f"{number / 1e-6:.3g} µs"


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
