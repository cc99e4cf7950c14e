"""Pretraining on several devices: the memory of each, the bytes they exchange, and what a step waits for them.

A collective of ring type moves, for a tensor of S bytes on P devices, 2(P-1)/P·S bytes out of each device in an
all-reduce and (P-1)/P·S in an all-gather or a reduce-scatter (Patarasu and Yuan 2009). Its rings pass every link once:
the slowest link, or all ports of a node together, decides its speed, the bus bandwidth of nccl-tests.

- Data parallel: each device has all weights, gradients and moments. The fp32 gradients are all-reduced once a step
  while the backward pass of the last micro-batch runs (Li et al. 2020, PyTorch Distributed).
- `--shard` (FSDP2; ZeRO-3: Rajbhandari et al. 2020): each has 1/P of them. Every micro-batch gathers the weights twice,
  for the forward and the backward pass, and reduce-scatters the gradients, while the blocks before are computed.
- Muon orthogonalizes matrices on different devices. Its updates are gathered in bf16; with `--shard` the fp32 pieces of
  a matrix go to one device and those of its update come back (all-to-all). Nothing overlaps that.

Bandwidths are those that are published, in one direction: NVLink 2, 3, 4 and 5 have 300, 600, 900 and 1,800 GB/s for
both directions together (NVIDIA's datasheets of V100, A100, H100 and B200), an MI300X has 7 Infinity Fabric links of
128 GB/s (AMD's datasheet); PCIe 3.0 and 4.0 x16 have 15.75 and 31.5 GB/s (PCI-SIG). InfiniBand EDR, HDR and NDR ports
have 100, 200 and 400 Gb/s, one for each device in a DGX-2, DGX A100 and DGX H100 or B200 (NVIDIA's datasheets); the
Ethernet assumed here has one port of 100 Gb/s in each node (IEEE 802.3ba). Latencies are left out: the
estimate is too low for small models on many devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jupyter_gpt.stages.planning import MOMENTS, USABLE, Plan, guess_shape, memory
from jupyter_gpt.stages.published import Device, Shape
from jupyter_gpt.stages.stage import MICRO_TOKENS

NODE = 8  # devices that stand in one node, where the number of nodes is not given
BANDWIDTH_SHARE = 0.8  # of a link's published bandwidth that collectives of large tensors reach (nccl-tests)
BATCH_TOKENS = 524288  # tokens of one optimizer step, as pretraining takes for large models
WEIGHT, GRADIENT, GATHERED = 4, 4, 2  # bytes of a parameter: trained and reduced in fp32, computed with in bf16
BACKWARD = 2 / 3  # of the FLOPs of a step
BLOCKS_IN_FLIGHT = 2  # of a sharded model: the one that is computed and the one that is fetched meanwhile

# Between the devices of a node, GB/s in one direction.
LINKS = {
    "T4": ("PCIe 3.0", 15.75),
    "V100": ("NVLink 2", 150),
    "A10": ("PCIe 4.0", 31.5),
    "L4": ("PCIe 4.0", 31.5),
    "L40S": ("PCIe 4.0", 31.5),
    "RTX 3090": ("PCIe 4.0", 31.5),
    "RTX 4090": ("PCIe 4.0", 31.5),
    "A100": ("NVLink 3", 300),
    "H100": ("NVLink 4", 450),
    "H200": ("NVLink 4", 450),
    "B200": ("NVLink 5", 900),
    "MI300X": ("Infinity Fabric", 448),
}
# Between nodes: name, Gb/s of a port, whether each device has one.
INFINIBAND = {"V100": ("InfiniBand EDR", 100), "A100": ("InfiniBand HDR", 200)}
ETHERNET = ("100 Gb Ethernet", 100)


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one device. `gathered` are the weights in bf16, all of them or, sharded, of the blocks in flight."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float

    @property
    def state(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.gathered

    @property
    def total(self) -> float:
        return self.state + self.activations


@dataclass(frozen=True)
class Parallel:
    """Pretraining on `world` devices in one of the two ways.

    rows, passes: rows of a micro-batch on each device, and micro-batches of a step.  recomputed: activations are made
    again in the backward pass, for else not even one row fits.  sent: bytes a step that each device sends, and as many
    that it receives.  compute, exposed: seconds of a step; those of the communication that nothing overlaps.  largest:
    parameters that would fit on as many of these devices.
    """

    sharded: bool
    memory: RankMemory
    fits: bool
    rows: int
    passes: int
    recomputed: bool
    sent: float
    communication: float
    compute: float
    exposed: float
    largest: float

    @property
    def step(self) -> float:
        """Seconds."""
        return self.compute + self.exposed

    @property
    def efficiency(self) -> float:
        """Share of the step that is computed."""
        return self.compute / self.step


@dataclass(frozen=True)
class Devices:
    """Devices in nodes, what links them, and both ways of training on them."""

    nodes: int
    each: int
    link: str
    bandwidth: float  # bytes a second of the slowest link of a ring, as published
    batch_tokens: int
    ways: tuple[Parallel, ...]

    @property
    def world(self) -> int:
        return self.nodes * self.each


def layout(devices: int, nodes: int | None) -> tuple[int, int]:
    """Nodes, and devices in each: `devices` are those of a node if `nodes` is given, as in training, else all."""
    if nodes is not None:
        return nodes, devices
    nodes = math.ceil(devices / NODE)
    return nodes, math.ceil(devices / nodes)


def on_devices(
    made: Plan,
    devices: int,
    nodes: int | None = None,
    *,
    network: str | None = None,
    batch_tokens: int | None = None,
) -> Devices:
    """Both ways of pretraining the model of a plan on `devices`, by estimate.

    network: `infiniband` or `ethernet` between nodes; None is InfiniBand where devices have links of their own, else
    Ethernet.
    """
    nodes, each = layout(devices, nodes)
    link, bandwidth = slowest_link(made.device, nodes, each, network)
    world = nodes * each
    batch = max(batch_tokens or BATCH_TOKENS, world * made.shape.context)
    ways = tuple(parallel(made, world, batch, bandwidth, sharded) for sharded in (False, True))
    return Devices(nodes, each, link, bandwidth, batch, ways)


def slowest_link(device: Device, nodes: int, each: int, network: str | None = None) -> tuple[str, float]:
    """The link that limits a ring through all devices, and its bytes a second in one direction.

    Rings leave a node through all of its ports side by side, so these count together.
    """
    name, inside = LINKS[device.name]
    if nodes == 1:
        return name, inside * 1e9
    fast = "PCIe" not in name
    if network == "infiniband" or (network is None and fast):
        port, gigabits = INFINIBAND.get(device.name, ("InfiniBand NDR", 400))
        outside = each * gigabits / 8
    else:
        port, gigabits = ETHERNET
        outside = gigabits / 8
    return (port, outside * 1e9) if outside < inside or each == 1 else (name, inside * 1e9)


def parallel(made: Plan, world: int, batch: int, bandwidth: float, sharded: bool) -> Parallel:
    """One way of training: see `Parallel`. `batch` tokens are those of a step on all devices."""
    parameters, shape, device, optimizer = made.parameters, made.shape, made.device, made.optimizer
    usable, share = usable_memory(device), batch / world / shape.context  # rows of a step on each device
    recomputed = rank_memory(parameters, shape, optimizer, world, sharded).total > usable
    one = rank_memory(parameters, shape, optimizer, world, sharded, recomputed=recomputed)
    most = max(1, int(min(share, MICRO_TOKENS / shape.context)))
    rows = min(most, max(1, int((usable - one.state) / one.activations)))
    passes = math.ceil(share / rows)
    memory = rank_memory(parameters, shape, optimizer, world, sharded, rows, recomputed)

    flops = (8 if recomputed else 6) * parameters * batch
    compute = flops / (world * device.tflops * 1e12 * made.utilization)
    part, speed = (world - 1) / world, bandwidth * BANDWIDTH_SHARE
    update = part * GATHERED * parameters if optimizer == "muon" else 0.0
    if sharded:
        overlapping, hidden = passes * part * (2 * GATHERED + GRADIENT) * parameters, compute
        update *= (
            (GRADIENT + GATHERED) / GATHERED / world
        )  # a rank sends away the pieces that it has, and gets them back
    else:
        overlapping, hidden = 2 * part * GRADIENT * parameters, BACKWARD * compute / passes
    sent = overlapping + update
    exposed = max(0.0, overlapping / speed - hidden) + update / speed
    largest = largest_model(device, shape.context, optimizer, world, sharded)
    fits = memory.total <= usable
    return Parallel(sharded, memory, fits, rows, passes, recomputed, sent, sent / speed, compute, exposed, largest)


def usable_memory(device: Device) -> float:
    """Bytes of a device that are left for the model."""
    return device.memory_gb * 1e9 * USABLE


def rank_memory(
    parameters: float,
    shape: Shape,
    optimizer: str,
    world: int,
    sharded: bool,
    rows: int = 1,
    recomputed: bool = False,
) -> RankMemory:
    """Bytes of one device: fp32 weights, gradients and moments, weights in bf16 for the computation, activations of
    `rows` rows. Of a sharded model the blocks in flight have their weights in bf16 and their gradients whole.

    Recomputed, a layer keeps its input, 2·s·b·d, and one layer at a time has all activations (Korthikanti et al. 2022).
    """
    part, block = (1 / world if sharded else 1.0), parameters / shape.layers
    flight = min(parameters, BLOCKS_IN_FLIGHT * block)
    activations = memory(parameters, shape, optimizer, rows=rows).activations
    if recomputed:
        activations = activations / shape.layers + 2.0 * shape.context * rows * shape.width * shape.layers
    return RankMemory(
        weights=WEIGHT * parameters * part,
        gradients=GRADIENT * parameters * part,
        optimizer=MOMENTS[optimizer] * parameters * part,
        gathered=(GATHERED + GRADIENT) * flight if sharded else GATHERED * parameters,
        activations=activations,
    )


def largest_model(device: Device, context: int, optimizer: str, world: int, sharded: bool) -> float:
    """Parameters of the largest model of a usual shape of which one row at a time, recomputed, fits on each device."""
    usable = usable_memory(device)

    def fits(parameters: float) -> bool:
        shape = guess_shape(parameters, context)
        return rank_memory(parameters, shape, optimizer, world, sharded, recomputed=True).total <= usable

    low, high = 1e6, 1e15
    if not fits(low):
        return 0.0
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def least_devices(made: Plan) -> int | None:
    """How many devices hold the model of a plan with `--shard`; None where its blocks and activations fill one."""
    needed = rank_memory(made.parameters, made.shape, made.optimizer, 1, sharded=True, recomputed=True)
    shared = needed.weights + needed.gradients + needed.optimizer
    room = usable_memory(made.device) - (needed.total - shared)
    return math.ceil(shared / room) if room > 0 else None
