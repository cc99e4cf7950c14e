"""Every stage on a GPU that is not there (`emulated_gpu.py`): each branch that only a GPU takes is walked, with real
numbers, as on an H100 and as on a T4, which has neither bfloat16 nor FlashAttention. Run against the oldest torch
allowed too."""

import itertools
import os
import shutil
import warnings

import pytest
import torch

from helpers import recorder
from helpers.emulated_gpu import GPU, Graph
from helpers.stage_losses import DOCUMENTS, PROMPTS, RL, ROWS, SFT, TINY, stage_losses
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.rankings import Ranking

CARDS = {"H100": ((9, 0), "NVIDIA H100 80GB HBM3"), "T4": ((7, 5), "Tesla T4")}


def with_cards(names: str, first, second):
    """Parametrize with a card and a value of each: half of the combinations, in which every pair of values occurs."""
    every = itertools.product(enumerate(CARDS), enumerate(first), enumerate(second))
    half = [(card, one, two) for (n, card), (i, one), (j, two) in every if (n + i + j) % 2 == 0]
    return pytest.mark.parametrize(f"card, {names}", half, indirect=["card"])


def short(prompt, completion):
    return -float(len(completion))


@pytest.fixture(params=CARDS)
def card(request, monkeypatch):
    capability, name = CARDS[request.param]
    total = 80 * 10**9 if request.param == "H100" else 16 * 10**9
    with GPU(monkeypatch, recorder, capability, total, int(0.9 * total), name) as gpu, warnings.catch_warnings():
        warnings.filterwarnings("error", message="decoding without CUDA graphs")
        gpu.name = request.param
        yield gpu


def pretrained(gpt, name="base", **options):
    return gpt.pretrain(name, {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **{**TINY, **options})


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Folders with a base, by card and architecture."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture
def base(gpt, card, homes):
    """`base(arch)`: there is a base of that architecture, trained on this card once for all tests."""

    def make(arch="llama"):
        kept, home = homes / f"{card.name}-{arch}", os.environ["JUPYTER_GPT_HOME"]
        if not kept.exists():
            pretrained(gpt, arch=arch)
            shutil.copytree(home, kept)
        else:
            shutil.copytree(kept, home)

    return make


def on_gpu(gpt, run, card) -> None:
    """Whether it ran there, in the format that the card has, and left a model there."""
    start = next(e for e in run.events if e["event"] == "start")
    assert run.status == "finished" and start["device"] == "cuda"
    assert run.recipe["dtype"] == ("bfloat16" if card.name == "H100" else "float16")
    notes = [e["text"] for e in run.events if e["event"] == "note" and "bfloat16" in e["text"]]
    assert bool(notes) == (card.name == "T4") and all(note.startswith("Tesla T4 has no bfloat16") for note in notes)
    model = gpt.models[run.name]
    assert model.device.startswith("cuda") and all(card.memory.holds(p) for p in model.module.parameters())


@with_cards("arch, optimizer", ["llama", "qwen3", "gpt2"], ["muon", "adamw"])
def test_pretraining_and_graphs(gpt, card, arch, optimizer):
    run = pretrained(gpt, arch=arch, optimizer=optimizer)
    on_gpu(gpt, run, card)
    half = torch.bfloat16 if card.name == "H100" else torch.float16
    assert {p.dtype for p in gpt.models["base"].module.parameters()} == {half}
    before = Graph.replays
    done = gpt.prompt("The old fox", model="base", max_tokens=24, samples=3)
    assert len(done.samples) == 3 and Graph.replays > before, "decoding replays graphs"


def test_grouped_heads_and_recomputation(gpt, card):
    run = pretrained(gpt, heads=4, kv_heads=2, checkpointing=True)
    on_gpu(gpt, run, card)
    assert run.recipe["checkpointing"] is True


@with_cards(
    "options, arch",
    [{}, {"lora": 4}, {"lora": 4, "lora_dropout": 0.1}, {"lora": 4, "dora": True}, {"lora": 4, "checkpointing": True}],
    ["llama", "gpt2"],
)
def test_finetuning(gpt, card, base, arch, options):
    base(arch)
    run = gpt.sft("chat", ROWS, "base", **SFT, **options)
    on_gpu(gpt, run, card)
    assert gpt.prompt("How many birds saw 3 hens?", model="chat", max_tokens=4).text is not None


@pytest.mark.parametrize("options", [{}, {"lora": 4}, {"from_scratch": True}])
def test_classifying(gpt, card, base, options):
    base()
    run = gpt.classify(
        "mood",
        [(f"The fox saw {n} {word} birds.", word) for n in range(8) for word in ("glad", "sad")],
        "base",
        steps=3,
        **options,
    )
    on_gpu(gpt, run, card)
    assert gpt.models["mood"].predict(["The fox saw 9 glad birds."]) in (["glad"], ["sad"])


@with_cards("algo, rank", ["ppo", "grpo", "dpo", "kto"], [0, 4])
def test_rewards_and_reinforcement_learning(gpt, card, base, algo, rank):
    base()
    for n in range(8):
        texts = tuple({"model": "base", "text": f"{text} {n}", "seed": 0} for text in ("saw 3 birds.", "xx xx"))
        gpt.rankings.named("taste").add(Ranking(PROMPTS[n % len(PROMPTS)], texts, ((0,), (1,)), time=float(n)))
    if algo == "ppo":
        on_gpu(gpt, gpt.reward("judge", rankings="taste", base="base", steps=2, lora=rank), card)
    given = {
        "ppo": {"algo": "ppo", "prompts": PROMPTS, "reward": "judge"},
        "grpo": {"algo": "grpo", "prompts": PROMPTS, "reward": [short, short], "dynamic_sampling": 2},
        "dpo": {"algo": "dpo", "rankings": "taste"},
        "kto": {"algo": "dpo", "rankings": "taste", "loss": "kto"},
    }[algo]
    on_gpu(gpt, gpt.rlhf("policy", policy="base", lora=rank, **given, **RL), card)


def test_transformers_own_forward(gpt, card, base):
    """A shape that is not written out here goes through autocast, or on a card without bfloat16 has fp32 weights."""
    from transformers import StableLmConfig, StableLmForCausalLM

    base()
    llama = gpt.models["base"]
    config = StableLmConfig(
        vocab_size=llama.module.config.vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    module = StableLmForCausalLM(config).to("cuda").eval()
    gpt.models.keep("qwen", module, llama.tokenizer, "pull", None, ["qwen (pull)"], 0)
    for options in ({}, {"lora": 4}, {"lora": 4, "checkpointing": True}):
        run = gpt.sft("chat", ROWS, "qwen", overwrite=True, **SFT, **options)
        on_gpu(gpt, run, card)
    policy = gpt.rlhf("policy", PROMPTS, policy="qwen", algo="grpo", reward=short, lora=4, **RL)
    on_gpu(gpt, policy, card)


@pytest.mark.parametrize("card", ["H100"], indirect=True)
def test_minutes_are_measured_by_steps_that_are_waited_for(gpt, card):
    assert pretrained(gpt, steps=None, minutes=0.06).recipe["steps"] >= 1
    run = gpt.sft("chat", ROWS, "base", **{**SFT, "steps": None, "minutes": 0.06})
    assert run.status == "finished" and run.recipe["steps"] >= 1


def test_micro_batches_and_what_does_not_fit(gpt, card, monkeypatch):
    run = pretrained(gpt, rows=None, batch_tokens=1024, context=32)
    assert (run.recipe["rows"], run.recipe["checkpointing"]) == (32, False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (200_000, 80 * 10**9))
    with pytest.raises(GPTError, match=r"needs about .* to train: .* cuda has 200 kB free"):
        pretrained(gpt, "more")
    with pytest.raises(GPTError, match=r"^base needs about .* cuda has 200 kB free"):
        gpt.sft("chat", ROWS, "base", **SFT)


def test_the_numbers_are_those_of_a_cpu(gpt, monkeypatch):
    """In fp32, stage by stage; sampling aside, whose kernels round otherwise."""

    cpu = stage_losses(gpt, "")
    with monkeypatch.context() as patch, GPU(patch, recorder, *CARDS["T4"][:1]):
        gpu = stage_losses(gpt, "-gpu")
    for stage, losses in cpu.items():
        assert gpu[stage] == pytest.approx(losses, rel=1e-4), stage


def test_the_emulation_refuses_what_a_gpu_refuses(monkeypatch):
    with monkeypatch.context() as patch, GPU(patch, recorder) as gpu:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device == torch.device("cuda:0") == (there * 2 + 1).device and here.device.type == "cpu"
        assert (
            there.cpu().device.type == "cpu"
            and here.to("cuda").device.type == "cuda"
            and there.to(here).device.type == "cpu"
        )
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there * torch.tensor(2.0)).device.type == "cuda", "a single number may lie anywhere"
        weight = torch.ones(3, device="cuda", requires_grad=True)
        (weight * there).sum().backward()
        assert weight.grad.device.type == "cuda" and gpu.kernels.ran
    assert there.device.type == "cpu" and not torch.cuda.is_available()
