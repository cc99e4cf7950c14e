"""The planner against what was published, and against arithmetic done by hand."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.sizes import parse_size, short
from jupyter_gpt.stages.plan import Plan
from jupyter_gpt.stages.planning import chinchilla_loss, count_for, guess_shape, memory, optimal, plan
from jupyter_gpt.stages.published import DEVICES, KNOWN, Shape, find_device, find_known


def test_gpt3_flops_are_the_published_ones():
    assert plan("gpt-3-175b").pretraining.flops == pytest.approx(3.14e23, rel=0.02)


def test_llama_hours_are_the_published_ones():
    made = plan("llama-65b", device="A100", count=2048, utilization=0.45)
    assert made.device.tflops == 312
    assert made.pretraining.device_hours == pytest.approx(1_022_362, rel=0.10)
    assert made.pretraining.days == pytest.approx(21, rel=0.10)


def test_hours_days_and_dollars_by_hand():
    cost = plan(1e9, 1e10, device="H100", count=4, utilization=0.5, dollars_per_hour=3).pretraining
    assert cost.flops == 6e19
    assert cost.device_hours == pytest.approx(6e19 / (989e12 * 0.5) / 3600)
    assert cost.days == pytest.approx(cost.device_hours / 4 / 24)
    assert cost.dollars == pytest.approx(3 * cost.device_hours)


def test_the_attention_term_is_palms_and_stands_apart():
    llama = KNOWN["LLaMA-65B"]
    assert llama.shape.attention_flops(1) == 12 * 80 * 2048 * 8192
    cost = plan("llama").pretraining
    assert cost.flops == 6 * 65.2e9 * 1.4e12
    assert cost.attention / cost.flops == pytest.approx(0.041, abs=0.001)


@pytest.mark.parametrize(
    ("flops", "parameters", "tokens"),
    [(1.21e20, 1e9, 20.2e9), (1.23e22, 10e9, 205.1e9), (5.76e23, 67e9, 1.5e12), (3.85e24, 175e9, 3.7e12)],
)
def test_optimal_sizes_are_chinchillas_table_3(flops, parameters, tokens):
    made = optimal(flops=flops)
    assert made.parameters == pytest.approx(parameters, rel=0.08)
    assert made.tokens == pytest.approx(tokens, rel=0.08)
    assert made.pretraining.flops == pytest.approx(flops)


def test_a_budget_in_dollars_is_spent_whole():
    made = optimal(dollars="100K", device="H100", dollars_per_hour=2)
    assert made.pretraining.dollars == pytest.approx(100_000)
    assert made.tokens == pytest.approx(20 * made.parameters)
    assert made.name == "compute-optimal for $100,000"


def test_the_talks_contrast_thousands_for_months_and_up_to_a_hundred_for_days():
    for name in ("gpt3", "llama"):
        first, *later = plan(name, device="V100").costs
        assert 1000 <= first.count <= 10_000 and 20 < first.days < 40
        assert all(cost.days <= 3 for cost in later)
    for cost in plan("llama", device="A100").costs[1:]:
        assert 1 <= cost.count <= 100 and cost.dollars < 0.001 * plan("llama").pretraining.dollars


def test_llamas_fit_is_better_than_gpt3s_though_it_is_smaller():
    gpt3, llama = (chinchilla_loss(known.parameters, known.tokens) for known in KNOWN.values())
    assert llama == pytest.approx(1.939, abs=0.002)
    assert gpt3 == pytest.approx(2.002, abs=0.002)


def test_memory_by_hand():
    shape = Shape(layers=2, heads=4, width=8, context=16)
    held = memory(1000, shape, "adamw", rows=3)
    assert (held.weights, held.gradients, held.optimizer) == (2000, 2000, 12_000)
    assert held.activations == 34 * 16 * 3 * 8 * 2
    assert memory(1000, shape, "muon").optimizer == 8000
    rl = memory(1000, shape, trained=2, frozen=2, tokens=10, sampled_rows=5)
    assert rl.frozen == 4000 and rl.weights == 4000
    assert rl.kv_cache == 2 * 2 * 2 * 8 * 10 * 5  # keys and values, bytes, layers, width, tokens, rows
    assert held.total == sum(asdict(held).values())


def test_enough_devices_hold_the_memory_and_one_less_does_not():
    cost = plan("gpt3", device="A100").pretraining
    usable = 80e9 * 0.9
    assert cost.least * usable >= cost.memory.total > (cost.least - 1) * usable
    assert not plan("gpt3", device="A100", count=8).pretraining.fits
    assert plan("gpt3", device="A100", count=cost.least).pretraining.fits


def test_count_for_whole_nodes():
    assert count_for(1, 30) == 1
    assert count_for(24 * 30 * 5, 30) == 5
    assert count_for(24 * 30 * 9, 30) == 16
    assert count_for(1, 30, least=41) == 48


def test_guessed_shapes_are_near_the_published_ones():
    for known in KNOWN.values():
        shape = guess_shape(known.parameters)
        assert shape.width == pytest.approx(known.shape.width, rel=0.15)
        assert shape.layers == pytest.approx(known.shape.layers, rel=0.25)
        assert shape.estimated and shape.width % shape.heads == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("175B", 175e9),
        ("1.4T", 1.4e12),
        ("124M", 124e6),
        ("300e9", 3e11),
        ("1_000", 1000),
        ("2,048", 2048),
        (" 7 b ", 7e9),
        (".5M", 5e5),
        (3, 3.0),
        ("10K", 1e4),
        ("3.14e23", 3.14e23),
    ],
)
def test_sizes(text, value):
    assert parse_size(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "B", "12X", "-3B", "0", "nan", "inf", "1e999", 0, -5, float("inf"), "1.2.3"])
def test_what_is_no_size(text):
    with pytest.raises(GPTError):
        parse_size(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [(175e9, "175B"), (1.4e12, "1.4T"), (65.2e9, "65.2B"), (999.9e6, "1B"), (512, "512"), (7e4, "70K")],
)
def test_short(number, text):
    assert short(number) == text


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("a100", "A100"),
        ("A100-80GB", "A100"),
        ("rtx 4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("h100 SXM5", "H100"),
    ],
)
def test_devices_are_spelled_freely(spelled, name):
    assert find_device(spelled) is DEVICES[name]


def test_every_device_is_found_by_its_name():
    assert [find_device(name).name for name in DEVICES] == list(DEVICES)


def test_known_models_by_their_beginning():
    assert find_known("gpt3").name == find_known("GPT-3").name == "GPT-3-175B"
    assert find_known("LLaMA").name == "LLaMA-65B"
    assert find_known("llama-7b") is None and find_known("g") is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: plan("lama-65b"), "did you mean LLaMA-65B"),
        (lambda: plan("7B", device="H10"), "did you mean H100"),
        (lambda: Plan.of(count=0), "above zero"),
        (lambda: Plan.of(utilization=45), "1 or less"),
        (lambda: Plan.of(dollars_per_hour=-1), "zero or more"),
        (lambda: plan("7B", tokens="many"), "not a size"),
        (lambda: Plan.of(optimizer="adamv"), "did you mean"),
        (lambda: Plan.of(context=0), "above zero"),
        (lambda: optimal(), "one of the two"),
        (lambda: optimal(flops=1e20, dollars=5), "one of the two"),
        (lambda: optimal(dollars=5, dollars_per_hour=0), "above 0"),
    ],
)
def test_mistakes_are_one_clear_line(call, says):
    with pytest.raises(GPTError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_plan_is_plain_data():
    assert json.loads(json.dumps(asdict(plan("124M"))))["parameters"] == 124e6


def test_the_planner_needs_neither_numpy_nor_torch():
    code = "import sys, jupyter_gpt.stages.planning as p; p.plan('gpt3')\nprint({'numpy', 'torch'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_a_size_of_pretrain_and_a_model_of_ones_own(gpt, train):
    assert (made := gpt.plan("gpt2")).parameters == 124_439_808 and made.name == "gpt2"
    assert made.shape == Shape(12, 12, 768, 1024, 50257) and made.tokens == 20 * made.parameters
    train("mine", steps=1)
    own, module = gpt.plan("mine", context=16), gpt.models["mine"].module
    assert own.parameters == sum(p.numel() for p in module.parameters()) and own.name == "mine"
    assert own.shape.layers == module.config.num_hidden_layers and own.shape.context == 16 and not own.shape.estimated
    rows = "user: Who?\nassistant: Me."
    gpt.sft("adapted", rows, base="mine", lora=2, steps=1)
    assert gpt.plan("adapted").parameters == own.parameters, "an adapter is no part of what is pretrained"
