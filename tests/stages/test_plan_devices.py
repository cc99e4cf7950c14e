"""Pretraining on several devices, held to numbers computed by hand."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages import plan_devices
from jupyter_gpt.stages.plan import Plan, plan, plan_report, seconds
from jupyter_gpt.stages.plan_devices import LINKS, on_devices, rank_memory, slowest_link
from jupyter_gpt.stages.planning import plan as planned
from jupyter_gpt.stages.published import DEVICES, Shape, find_device

A100, H100 = DEVICES["A100"], DEVICES["H100"]
SESSION = SimpleNamespace(models={})  # without models of its own


def both(model, **options):
    made = plan(SESSION, Plan.of(model=model, **options))
    return made, made.devices


def test_data_parallel_sends_a_ring_all_reduce_of_fp32_gradients():
    _, on = both("1B", device="A100", devices=8)
    data, sharded = on.ways
    assert data.sent == pytest.approx(2 * 7 / 8 * 4e9)
    assert data.communication == pytest.approx(7e9 / (0.8 * 300e9))  # NVLink 3: 600 GB/s in both directions
    # two gathers of bf16 weights and a reduce-scatter of fp32 gradients, for each micro-batch
    assert sharded.sent == pytest.approx(sharded.passes * 7 / 8 * (2 + 2 + 4) * 1e9)


def test_muon_gathers_the_updates_too_and_nothing_hides_them():
    adamw, muon = (both("1B", device="A100", devices=8, optimizer=name)[1].ways for name in ("adamw", "muon"))
    assert muon[0].sent - adamw[0].sent == pytest.approx(7 / 8 * 2e9)
    assert muon[0].exposed >= 7 / 8 * 2e9 / (0.8 * 300e9)
    # an all-to-all: 1/8 of the gradients (fp32) and of the updates (bf16) of all matrices
    assert muon[1].sent - adamw[1].sent == pytest.approx(7 / 8 * (4 + 2) * 1e9 / 8)


def test_one_device_exchanges_nothing():
    for way in both("124M", device="A100", devices=1, optimizer="muon")[1].ways:
        assert way.sent == way.communication == way.exposed == 0
        assert way.efficiency == 1


def test_a_step_is_its_computation_and_what_no_computation_hides():
    made, on = both("1B", device="H100", devices=16, batch_tokens=65536, utilization=0.4, context=2048)
    data = on.ways[0]
    assert on.batch_tokens == 65536 and data.rows * data.passes == 2
    assert data.compute == pytest.approx(6 * 1e9 * 65536 / (16 * 989e12 * 0.4))
    backward = data.compute * 2 / 3 / data.passes
    assert data.exposed == pytest.approx(max(0.0, 2 * 15 / 16 * 4e9 / (0.8 * 400e9) - backward))
    assert data.step == data.compute + data.exposed and 0 < data.efficiency <= 1
    assert made.pretraining.count == 16


def test_memory_of_a_rank_by_hand():
    shape = Shape(layers=4, heads=4, width=8, context=16)
    own = rank_memory(1000, shape, "adamw", 5, sharded=False, rows=3)
    assert (own.weights, own.gradients, own.optimizer, own.gathered) == (4000, 4000, 8000, 2000)
    assert own.activations == 34 * 16 * 3 * 8 * 4
    part = rank_memory(1000, shape, "muon", 5, sharded=True, rows=3)
    assert (part.weights, part.gradients, part.optimizer) == (800, 800, 800)
    assert part.gathered == 2 * 250 * (2 + 4)  # two blocks: weights in bf16, gradients in fp32
    assert part.total == 800 * 3 + 3000 + own.activations
    again = rank_memory(1000, shape, "adamw", 5, sharded=False, rows=3, recomputed=True)
    assert again.activations == 34 * 16 * 3 * 8 + 2 * 16 * 3 * 8 * 4  # one layer whole, the inputs of all


def test_the_slowest_link_is_the_one_with_the_least_published_bandwidth():
    assert slowest_link(H100, 1, 8) == ("NVLink 4", 450e9)
    assert slowest_link(H100, 8, 8) == ("InfiniBand NDR", 400e9)  # 8 ports of 400 Gb/s
    assert slowest_link(A100, 2, 8) == ("InfiniBand HDR", 200e9)
    assert slowest_link(A100, 2, 8, "ethernet") == ("100 Gb Ethernet", 12.5e9)
    assert slowest_link(find_device("4090"), 2, 8) == ("100 Gb Ethernet", 12.5e9)
    assert slowest_link(find_device("4090"), 1, 2) == ("PCIe 4.0", 31.5e9)
    assert slowest_link(find_device("T4"), 2, 8, "infiniband")[0] == "PCIe 3.0"
    assert slowest_link(H100, 64, 1)[0] == "InfiniBand NDR"  # a node of one has no link inside
    assert set(LINKS) == set(DEVICES)


def test_devices_are_all_of_them_or_those_of_each_node():
    assert plan_devices.layout(64, None) == (8, 8)
    assert plan_devices.layout(4, None) == (1, 4)
    assert plan_devices.layout(8, 4) == (4, 8)
    assert both("1B", devices=8, nodes=4)[1].world == 32


def test_where_sharding_begins_to_be_needed():
    _, on = both("1B", device="H100", devices=8)
    most = on.ways[0].largest
    for size, fits in ((0.97 * most, True), (1.03 * most, False)):
        data, sharded = both(size, device="H100", devices=8)[1].ways
        assert data.fits is fits and sharded.fits
    assert 18 * most < 72e9 < 18 * 1.1 * most  # 4 + 4 + 8 + 2 bytes of each parameter, and the activations
    report = plan_report(plan(SESSION, Plan.of(model="7B", device="H100", devices=8))).text
    assert "data parallelism does not fit" in report and "larger models need --shard" in report


def test_how_many_devices_hold_it():
    made = planned("llama", device="H100")
    least = plan_devices.least_devices(made)
    assert on_devices(made, least, 1).ways[1].fits and not on_devices(made, least - 1, 1).ways[1].fits
    report = plan_report(plan(SESSION, Plan.of(model="llama", device="H100", devices=8, shard=True))).text
    assert f"--shard needs {least} of them or more" in report and "data parallel " not in report
    endless = plan_report(plan(SESSION, Plan.of(model="llama", device="T4", devices=8, context=131072))).text
    assert "does not fit on a T4, however many there are" in endless


def test_activations_are_recomputed_where_else_no_row_fits():
    kept, recomputed = (on_devices(planned(size, device="H100"), 24).ways[1] for size in ("7B", "65B"))
    assert (kept.recomputed, recomputed.recomputed) == (False, True)
    flops = 8 * 65e9 * 524288
    assert recomputed.compute == pytest.approx(flops / (24 * 989e12 * 0.45))


def test_the_report_is_plain_data_and_without_devices_as_before():
    made, _ = both("7B", device="H100", devices=64)
    data = json.loads(json.dumps(plan_report(made).data))
    assert data["plan"]["devices"]["nodes"] == 8
    assert json.loads(json.dumps(asdict(made)))["devices"]["ways"][1]["sharded"] is True
    assert "devices" not in plan_report(planned("7B")).data["plan"]
    assert [seconds(x) for x in (0, 5e-5, 0.0123, 4.2)] == ["–", "50 µs", "12.3 ms", "4.2 s"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "7B", "nodes": 2}, "--nodes needs --devices"),
        ({"model": "7B", "batch_tokens": 4096}, "--batch-tokens needs --devices"),
        ({"model": "7B", "devices": 8, "count": 8}, "leave --count out"),
        ({"devices": 8}, "needs a model"),
    ],
)
def test_mistakes_are_one_clear_line(options, says):
    with pytest.raises(GPTError, match=says) as caught:
        plan(SESSION, Plan.of(**options))
    assert "\n" not in str(caught.value)


def test_the_bytes_are_those_that_the_trainer_tells():
    import torch

    from jupyter_gpt.nn.distributed import GradientSum, Ranks

    weights = [torch.nn.Parameter(torch.zeros(100, 300)) for _ in range(3)]
    data = on_devices(planned(90_000.0), 4).ways[0]
    assert GradientSum(Ranks(0, 4, "cpu"), weights).bytes == data.sent == 2 * 3 / 4 * 4 * 90_000
