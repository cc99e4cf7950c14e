"""`%gpt plan`, with the real planner: it is only arithmetic."""

import pytest


@pytest.fixture
def plan(ip, fake_gpt, shown):
    """Runs a line and gives (what it bound, the text it showed)."""

    def run(line: str):
        ip.run_cell(f"%gpt plan {line} --out p").raise_error()
        return ip.user_ns["p"], shown.pop()

    return run


def test_alone_it_sets_gpt3_beside_llama(plan):
    (gpt3, llama), text = plan("")
    assert "GPT-3-175B" in text
    assert "LLaMA-65B" in text
    assert (gpt3.name, llama.name) == ("GPT-3-175B", "LLaMA-65B")
    assert gpt3.pretraining.count == llama.pretraining.count == 2048


def test_a_size_and_a_machine(plan):
    made, text = plan("124M --tokens 2.5B --device h100 --count 8 --utilization .4 --dollars-per-hour 3")
    assert (made.parameters, made.tokens, made.utilization) == (124e6, 2.5e9, 0.4)
    assert (made.device.name, made.device.dollars_per_hour, made.pretraining.count) == ("H100", 3.0, 8)
    assert "124M parameters" in text


def test_a_budget(plan):
    made, _ = plan("--flops 1.2e20")
    assert made.parameters == pytest.approx(1e9)
    assert made.tokens == pytest.approx(2e10)
    made, _ = plan("--dollars 1k --context 1024 --optimizer muon")
    assert made.pretraining.dollars == pytest.approx(1000)
    assert (made.shape.context, made.optimizer) == (1024, "muon")


def test_mistakes(fails, fake_gpt):
    assert "neither a size" in fails("%gpt plan gpt4")
    assert "did you mean" in fails("%gpt plan 1B --device A10O")
    assert fails("%gpt plan 1B --flops 1e20") == (
        "%gpt plan finds the model and its tokens for --flops: leave MODEL out"
    )
    assert fails("%gpt plan --dollars 100 --tokens 1B") == (
        "%gpt plan finds the model and its tokens for --dollars: leave --tokens out"
    )
    message = "%gpt plan --optimizer: expected adamw or adamw8bit or muon, got 'sgd'"
    assert fails("%gpt plan 1B --optimizer sgd") == message
