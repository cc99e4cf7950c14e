"""Stages on an Apple GPU that is not there (`emulated_gpu.py`): it has no float64, no pinned memory and no bfloat16
before macOS 14. No real one has run them."""

import pytest
import torch

from helpers import recorder
from helpers.emulated_gpu import GPU
from helpers.stage_losses import DOCUMENTS, PROMPTS, RL, ROWS, SFT, TINY, stage_losses
from jupyter_gpt.nn import devices


def short(prompt, completion):
    return -float(len(completion))


@pytest.fixture(params=[(15, 0), (13, 3)], ids=["macOS 15", "macOS 13"])
def mac(request, monkeypatch):
    with GPU(monkeypatch, recorder, request.param, 16 * 10**9, 12 * 10**9, "Apple M2", "mps") as gpu:
        gpu.half = torch.bfloat16 if request.param >= (14, 0) else torch.float16
        yield gpu


def on_gpu(gpt, run, mac):
    start = next(e for e in run.events if e["event"] == "start")
    assert run.status == "finished" and (start["device"], start["dtype"]) == ("mps", "float32")
    model = gpt.models[run.name]
    assert model.device == "mps" and all(mac.memory.holds(p) for p in model.module.parameters())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_pretraining_and_decoding(gpt, mac, optimizer):
    run = gpt.pretrain("base", {"$docs": 1.0}, variables={"docs": DOCUMENTS}, optimizer=optimizer, **TINY)
    on_gpu(gpt, run, mac)
    assert {p.dtype for p in gpt.models["base"].module.parameters()} == {mac.half}
    done = gpt.prompt("The old fox", model="base", max_tokens=12, samples=3, temperature=0.8, top_p=0.9, top_k=20)
    assert len(done.samples) == 3 and done.logprobs
    assert len(gpt.models["base"].losses(["The old fox saw 3 birds."])) == 1


def test_finetuning_and_reinforcement_learning(gpt, mac):
    gpt.pretrain("base", {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **TINY)
    on_gpu(gpt, gpt.sft("chat", ROWS, "base", lora=4, lora_dropout=0.1, **SFT), mac)
    for algo in ("grpo", "ppo"):
        on_gpu(gpt, gpt.rlhf(algo, PROMPTS, policy="base", algo=algo, reward=short, lora=4, **RL), mac)


def test_the_numbers_are_those_of_a_cpu(gpt, monkeypatch):
    cpu = stage_losses(gpt, "")
    with monkeypatch.context() as patch, GPU(patch, recorder, (15, 0), kind="mps"):
        found = stage_losses(gpt, "-mps")
    for stage, losses in cpu.items():
        assert found[stage] == pytest.approx(losses, rel=1e-4), stage


def test_what_the_device_is_and_has(monkeypatch, mac):
    assert devices.default_device() == "mps" and devices.free("mps") == 12 * 10**9
    assert devices.peak_flops("mps", "float32") is None and devices.choose_dtype("mps", 4096) == "float32"
    monkeypatch.setattr(devices, "current_ranks", object)
    assert devices.default_device() == "cpu"  # gloo sums what is on the host
    with pytest.raises(TypeError, match="float64"):
        torch.ones(2, device="mps").double()
