"""What a training run would cost in FLOPs, device-hours, days, dollars and memory.

- Compute is C = 6·N·D: two FLOPs per parameter and token forward, four backward (Kaplan et al. 2020). GPT-3's
  published FLOPs and LLaMA's hours are reproduced by this term alone, so the attention's 12·L·T·d per token (PaLM:
  Chowdhery et al. 2022, appendix B), a few percent at these shapes, is reported beside it and not added.
- Compute-optimal sizes are Chinchilla's (Hoffmann et al. 2022): about 20 tokens per parameter.
- Memory is bytes per parameter (mixed precision, ZeRO: Rajbhandari et al. 2020), the activations of the rows in flight
  (Korthikanti et al. 2022) and, where text is sampled, the KV cache.
- The three later stages are shown beside pretraining at their usual sizes: thousands of devices for months there,
  1 to 100 for days here.
"""

from __future__ import annotations

import math
import re
from dataclasses import astuple, dataclass, replace
from typing import Any

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.nn import adamw8bit
from jupyter_gpt.nn.sizes import parse_size, short
from jupyter_gpt.stages.published import KNOWN, STAGES, Device, Known, Shape, Stage, find_device, find_known

TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022: N and D grow together, D ≈ 20·N
UTILIZATION = 0.45  # share of the peak that large training runs reach (PaLM: 0.46, LLaMA-65B: 0.48)
GENERATION_UTILIZATION = 0.10  # decoding one token at a time is bound by memory, not arithmetic
USABLE = 0.9  # share of a device's memory left for the model: the rest is buffers and fragmentation
PRETRAINING_DAYS, LATER_DAYS = 30, 3  # what the default number of devices aims at
ROLLOUT_ROWS = 64  # episodes sampled at once in RL, for the size of the KV cache
MOMENTS = {"adamw": 8, "muon": 4, adamw8bit.NAME: adamw8bit.MOMENTS}  # bytes per parameter of the optimizer's


@dataclass(frozen=True)
class Memory:
    """Bytes needed at once, over all devices."""

    weights: float
    gradients: float
    optimizer: float
    frozen: float
    activations: float
    kv_cache: float

    @property
    def total(self) -> float:
        return sum(astuple(self))

    def devices(self, device: Device) -> int:
        """The smallest number of devices that it fits on, spread evenly over them."""
        return max(1, math.ceil(self.total / (device.memory_gb * 1e9 * USABLE)))


@dataclass(frozen=True)
class Cost:
    """What one stage costs: `attention` is not part of `flops`; `memory` fits on `least` devices."""

    stage: str
    data: str
    tokens: float
    flops: float
    attention: float
    device_hours: float
    count: int
    least: int
    days: float
    dollars: float
    memory: Memory
    source: str = ""

    @property
    def fits(self) -> bool:
        return self.count >= self.least


@dataclass(frozen=True)
class Plan:
    """A model, a machine, and the cost of each stage, pretraining first. A bare size has no name."""

    name: str
    parameters: float
    tokens: float
    shape: Shape
    device: Device
    utilization: float
    optimizer: str
    loss: float
    costs: tuple[Cost, ...]
    known: Known | None = None
    devices: Any = None  # the `Devices` of plan_devices.py, if it was asked for

    @property
    def pretraining(self) -> Cost:
        return self.costs[0]


def plan(
    model: str | float,
    tokens: str | float | None = None,
    *,
    device: str | Device = "A100",
    count: int | None = None,
    utilization: float = UTILIZATION,
    dollars_per_hour: float | None = None,
    context: int | None = None,
    optimizer: str = "adamw",
    shape: Shape | None = None,
    name: str = "",
) -> Plan:
    """The cost of pretraining a model, and of the stages after it.

    model: a built-in name (`gpt3`, `llama-65b`) or a number of parameters (`124M`), of a transformer of `shape` (None
    guesses it) and `name`. tokens: of pretraining; None is the
    published number, or 20 per parameter. count: devices of pretraining; None takes as many as finish it in 30 days
    (the later stages always take what finishes them in 3). Raises GPTError for an unknown size or name.
    """
    known = find_known(model) if isinstance(model, str) else None
    if known is None and isinstance(model, str) and not re.match(r"\s*[0-9.]", model):
        raise GPTError(f"{model!r} is neither a size (175B, 124M) nor a known model{nearest(model, KNOWN)}")
    parameters = known.parameters if known else parse_size(model, "parameters")
    if tokens is None:
        tokens = known.tokens if known else parameters * TOKENS_PER_PARAMETER
    tokens = parse_size(tokens, "tokens")
    chip = find_device(device)
    if dollars_per_hour is not None:
        chip = replace(chip, dollars_per_hour=float(dollars_per_hour))
    shape = known.shape if known else shape or guess_shape(parameters, context or 2048)
    shape = replace(shape, context=context or shape.context)
    per_hour = chip.tflops * 1e12 * 3600

    def cost(stage: Stage, data: str, tokens: float, count: int | None, days: float) -> Cost:
        training, generating = (share * parameters * tokens for share in (stage.flops, stage.generating))
        decoding = min(utilization, GENERATION_UTILIZATION)
        hours = training / (per_hour * utilization) + generating / (per_hour * decoding)
        row, sampled = min(shape.context, stage.tokens_each or shape.context), ROLLOUT_ROWS * bool(stage.generating)
        needed = memory(
            parameters, shape, optimizer, trained=stage.trained, frozen=stage.frozen, tokens=row, sampled_rows=sampled
        )
        least = needed.devices(chip)
        used = count or count_for(hours, days, least)
        attention = replace(shape, context=row).attention_flops(tokens) * (stage.flops + stage.generating) / 6
        flops, dollars = training + generating, hours * chip.dollars_per_hour
        each = hours / used / 24
        return Cost(stage.name, data, tokens, flops, attention, hours, used, least, each, dollars, needed, stage.source)

    costs = [cost(Stage("pretraining", "tokens", 0, 0), "raw text", tokens, count, PRETRAINING_DAYS)]
    costs += [cost(stage, f"{short(stage.examples)} {stage.noun}", stage.tokens, None, LATER_DAYS) for stage in STAGES]
    name, loss = known.name if known else name, chinchilla_loss(parameters, tokens)
    return Plan(name, parameters, tokens, shape, chip, utilization, optimizer, loss, tuple(costs), known)


def optimal(
    *,
    flops: str | float | None = None,
    dollars: str | float | None = None,
    device: str | Device = "A100",
    utilization: float = UTILIZATION,
    dollars_per_hour: float | None = None,
    **options,
) -> Plan:
    """The compute-optimal plan of a budget: C = 6·N·D with D = 20·N, so N = √(C/120) (Hoffmann et al. 2022).

    Exactly one of `flops` and `dollars`; the other options are those of `plan`. Raises GPTError otherwise.
    """
    if (flops is None) == (dollars is None):
        raise GPTError("a budget is either --flops or --dollars: give one of the two")
    if dollars is not None:
        chip = find_device(device)
        price = chip.dollars_per_hour if dollars_per_hour is None else dollars_per_hour
        if not price > 0:
            raise GPTError("a budget in dollars needs --dollars-per-hour above 0")
        flops = parse_size(dollars, "dollars") / price * 3600 * chip.tflops * 1e12 * utilization
    spent = parse_size(flops or 0.0, "flops")
    budget = f"{spent:.3g} FLOPs" if dollars is None else f"${parse_size(dollars, 'dollars'):,.0f}"
    parameters = math.sqrt(spent / (6 * TOKENS_PER_PARAMETER))
    machine = {"device": device, "utilization": utilization, "dollars_per_hour": dollars_per_hour}
    made = plan(parameters, parameters * TOKENS_PER_PARAMETER, **machine, **options)
    return replace(made, name=f"compute-optimal for {budget}")


def guess_shape(parameters: float, context: int = 2048) -> Shape:
    """A usual shape for so many parameters: N ≈ 12·L·d², the width 64 to 128 times the depth."""
    aspect = min(128.0, max(64.0, 64.0 * (parameters / 1e8) ** 0.1))
    width = max(64, round((parameters * aspect / 12) ** (1 / 3) / 64) * 64)
    layers = max(1, round(parameters / (12 * width**2)))
    return Shape(layers, width // (128 if width >= 2048 else 64), width, context, None, estimated=True)


def chinchilla_loss(parameters: float, tokens: float) -> float:
    """Nats per token on Chinchilla's data: 1.69 + 406.4/N^0.34 + 410.7/D^0.28 (Hoffmann et al. 2022)."""
    return 1.69 + 406.4 / parameters**0.34 + 410.7 / tokens**0.28


def memory(
    parameters: float,
    shape: Shape,
    optimizer: str = "adamw",
    *,
    trained: int = 1,
    frozen: int = 0,
    rows: int = 1,
    tokens: int | None = None,
    sampled_rows: int = 0,
) -> Memory:
    """Bytes needed at once by `trained` models with their optimizer and `frozen` ones in bf16.

    Mixed precision: bf16 weights and gradients (2 + 2), an fp32 master copy (4), Adam's two moments (8) or Muon's one
    (4): 16 or 12 bytes per parameter; fp32 gradients would make it 18 or 14. Activations: 34·s·b·d per layer, attention
    scores recomputed or never stored (Korthikanti et al. 2022): `rows` is b, `tokens` is s (None: the context), and
    each trained model has its own. The KV cache is 2·L·d·2 bytes per token of `sampled_rows` rows.
    """
    tokens = tokens or shape.context
    return Memory(
        weights=2 * parameters * trained,
        gradients=2 * parameters * trained,
        optimizer=(4 + MOMENTS[optimizer]) * parameters * trained,
        frozen=2 * parameters * frozen,
        activations=34.0 * tokens * rows * shape.width * shape.layers * trained,
        kv_cache=4.0 * shape.layers * shape.width * tokens * sampled_rows,
    )


def count_for(device_hours: float, days: float, least: int = 1) -> int:
    """How many devices finish within `days`: at least `least`, in whole nodes of 8 when more than 8."""
    count = max(least, math.ceil(device_hours / (24 * days)))
    return count if count <= 8 else math.ceil(count / 8) * 8
