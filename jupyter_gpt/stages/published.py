"""The published figures behind the planner: devices, GPT-3 and LLaMA, the usual sizes of the later stages.

Prices are assumptions (a rented device, mid-2020s, in dollars an hour), there to be overridden. Peaks are the
datasheets' dense figures, without sparsity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from jupyter_gpt.errors import GPTError, nearest


@dataclass(frozen=True)
class Device:
    """An accelerator: dense bf16 (or fp16) TFLOP/s, memory in GB, an assumed price in dollars an hour."""

    name: str
    tflops: float
    memory_gb: float
    dollars_per_hour: float


DEVICES = {
    device.name: device
    for device in (
        Device("T4", 65, 16, 0.35),
        Device("V100", 125, 32, 0.80),
        Device("A10", 125, 24, 0.75),
        Device("L4", 121, 24, 0.70),
        Device("L40S", 362, 48, 1.00),
        Device("RTX 3090", 71, 24, 0.25),
        Device("RTX 4090", 165, 24, 0.45),
        Device("A100", 312, 80, 2.00),
        Device("H100", 989, 80, 2.50),
        Device("H200", 989, 141, 3.00),
        Device("B200", 2250, 180, 5.00),
        Device("MI300X", 1307, 192, 2.50),
    )
}


@dataclass(frozen=True)
class Shape:
    """A transformer's shape; `estimated` when it was guessed from the number of parameters."""

    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int | None = None
    estimated: bool = False

    def attention_flops(self, tokens: float) -> float:
        """FLOPs of the attention scores and their sums: 12·L·T·d a token (PaLM, appendix B)."""
        return 12.0 * self.layers * self.context * self.width * tokens


@dataclass(frozen=True)
class Known:
    """A model whose training was published. What was not published is None."""

    name: str
    year: int
    parameters: float
    tokens: float
    shape: Shape
    source: str
    flops: float | None = None
    device: str | None = None
    device_hours: float | None = None
    count: int | None = None
    days: float | None = None
    dollars: float | None = None
    reported: dict[str, str] = field(default_factory=dict)  # orders of magnitude, in the talk's words


KNOWN = {
    known.name: known
    for known in (
        Known(
            "GPT-3-175B",
            2020,
            175e9,
            300e9,
            Shape(96, 96, 12288, 2048, 50257),
            "Brown et al. 2020, tables 2.1 and D.1; orders of magnitude from the talk",
            flops=3.14e23,
            reported={"devices": "1,000-10,000 V100", "time": "about a month", "dollars": "$1M-10M"},
        ),
        Known(
            "LLaMA-65B",
            2023,
            65.2e9,
            1.4e12,
            Shape(80, 64, 8192, 2048, 32000),
            "Touvron et al. 2023, tables 2 and 15; dollars from the talk",
            device="A100",
            device_hours=1_022_362,
            count=2048,
            days=21,
            dollars=5e6,
        ),
    )
}


@dataclass(frozen=True)
class Stage:
    """One stage of training at its usual size; FLOPs are counted a parameter and token."""

    name: str
    noun: str
    examples: int
    tokens_each: int
    epochs: int = 1
    trained: int = 1  # models with gradients and optimiser states
    frozen: int = 0  # models that are only read
    flops: int = 6  # a parameter and token, at the utilisation of training
    generating: int = 0  # a parameter and token, at the utilisation of decoding
    source: str = ""

    @property
    def tokens(self) -> int:
        return self.examples * self.tokens_each * self.epochs


STAGES = (
    Stage("finetuning", "conversations", 70_000, 1_000, epochs=3, source="Vicuna: 70K conversations, 3 epochs"),
    Stage("reward model", "comparisons", 500_000, 1_200, source="the talk: 100K-1M comparisons"),
    # a token is written by the policy (2), read by reward, reference and value (6), trained on twice (12)
    Stage("RL (PPO)", "episodes", 256_000, 500, 1, 2, 2, flops=18, generating=2, source="InstructGPT: 256K episodes"),
)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_device(name: str | Device) -> Device:
    """The device of that name, spelled freely (`a100`, `A100-80GB`, `4090`). GPTError names the nearest."""
    if isinstance(name, Device):
        return name
    wanted = re.sub(r"(?<=\d)(80|40|32|16)gb?$|sxm\d?$|pcie$", "", _plain(name))
    for device in DEVICES.values():
        if wanted in (_plain(device.name), _plain(device.name).removeprefix("rtx")):
            return device
    raise GPTError(f"unknown device {name!r}{nearest(name, DEVICES)}")


def find_known(name: str) -> Known | None:
    """The built-in model whose name begins so (`gpt3`, `LLaMA`, `llama-65b`), or None."""
    wanted = _plain(name)
    hits = [known for known in KNOWN.values() if len(wanted) > 3 and _plain(known.name).startswith(wanted)]
    return hits[0] if len(hits) == 1 else None
