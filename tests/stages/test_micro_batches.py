"""Stages where memory is short: smaller micro-batches, recomputed activations, the same numbers; and what is
refused.
"""

import pytest

from helpers.stopping import stopped_at
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import devices as memory
from jupyter_gpt.nn import training_memory as formula
from jupyter_gpt.stages.rankings import Ranking

PROMPTS = [f"Tale {n}. The old fox" for n in range(8)]
ROWS = [{"prompt": f"How many birds saw {n} hens?", "completion": f"{n} birds."} for n in range(30)]
TEXTS = [(f"The fox saw {n} {word} birds.", word) for n in range(8) for word in ("glad", "sad")]
RL = {"max_tokens": 20, "prompts_per_step": 4, "samples": 4, "steps": 2, "eval_every": 2, "lora": 4}


def short(prompt, completion):
    return -float(len(completion))


STAGES = {
    "sft": lambda gpt, name, **o: gpt.sft(
        name, ROWS, "tiny", **{"context": 64, "batch_tokens": 512, "steps": 6, "lora": 4, **o}
    ),
    "sft in full": lambda gpt, name, **o: gpt.sft(
        name, ROWS, "tiny", context=64, batch_tokens=512, steps=3, optimizer="adamw", **o
    ),
    "classify": lambda gpt, name, **o: gpt.classify(name, TEXTS, "tiny", batch=16, steps=6, lr=1e-3, **o),
    "reward": lambda gpt, name, **o: gpt.reward(name, rankings="taste", steps=3, lora=4, **o),
    "grpo": lambda gpt, name, **o: gpt.rlhf(name, PROMPTS, policy="tiny", algo="grpo", reward=short, **RL, **o),
    "ppo": lambda gpt, name, **o: gpt.rlhf(name, PROMPTS, policy="tiny", algo="ppo", reward=short, **RL, **o),
    "dpo": lambda gpt, name, **o: gpt.rlhf(name, policy="tiny", algo="dpo", rankings="taste", **RL, **o),
}


@pytest.fixture
def ready(gpt, tiny_model):
    tiny_model(gpt, "tiny")
    for n in range(12):
        texts = tuple({"model": "tiny", "text": f"{text} {n}", "seed": 0} for text in ("saw 3 birds.", "xx xx"))
        gpt.rankings.named("taste").add(Ranking(PROMPTS[n % len(PROMPTS)], texts, ((0,), (1,)), time=float(n)))
    return gpt


@pytest.fixture
def asked(monkeypatch):
    """The steps and sizes that a fit was asked for, in order."""
    found, fit = [], formula.fit
    monkeypatch.setattr(
        formula,
        "fit",
        lambda what, step, sizes, *rest, **more: found.append((step, sizes)) or fit(what, step, sizes, *rest, **more),
    )
    return found


def numbers(run) -> list[float]:
    return [e[key] for e in run.events if e["event"] == "step" for key in ("loss", "grad_norm")]


@pytest.mark.parametrize("kind", STAGES)
def test_the_numbers_are_those_of_plenty(ready, kind, asked, monkeypatch):
    plenty = STAGES[kind](ready, "plenty", dtype="float32")
    step, sizes = asked[-1]
    assert (plenty.recipe["micro_tokens"], plenty.recipe["checkpointing"]) == (sizes[0], False)
    assert not any(e["event"] == "note" for e in plenty.events)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free", lambda device: int(step.bytes(sizes[-1], True) / formula.MARGIN) + 1)
        little = STAGES[kind](ready, "little", dtype="float32")
    assert little.recipe["micro_tokens"] < sizes[0] and little.recipe["checkpointing"] is True
    notes = [e["text"] for e in little.events if e["event"] == "note"]
    assert notes == [
        f"memory: {little.recipe['micro_tokens']:,} tokens go through the model at a time, and activations are "
        "recomputed in the backward pass (gradient checkpointing)"
    ]
    assert numbers(little) == pytest.approx(numbers(plenty), rel=2e-3, abs=2e-5)


@pytest.mark.parametrize("kind", ["sft", "classify"])
def test_resumed_it_is_what_it_was(ready, kind, asked, monkeypatch):
    STAGES[kind](ready, "first")
    step, sizes = asked[-1]
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free", lambda device: int(step.bytes(sizes[-1], True) / formula.MARGIN) + 1)
        run = stopped_at(1, STAGES[kind], ready, "a")
    keys = ("micro_tokens", "checkpointing")
    chosen = [run.recipe[key] for key in keys]
    assert run.status == "stopped" and chosen == [sizes[-1], True]
    again = ready.resume("a", variables={"data": ROWS})
    assert again.status == "finished" and [again.recipe[key] for key in keys] == chosen


def test_all_weights_are_refused_before_they_are_copied_and_an_adapter_is_advised(ready, asked, monkeypatch):
    from jupyter_gpt.nn import lora

    STAGES["sft in full"](ready, "whole", dtype="float32")
    module, least = ready.models["tiny"].module, asked[0][0].bytes(64, True)
    adapter = formula.finetuning(module, "float32", 64, rank=16, whole=64).bytes(64, True)
    monkeypatch.setattr(lora, "copied", lambda module: pytest.fail("copied all the same"))
    monkeypatch.setattr(memory, "free", lambda device: int((adapter + least) / 2))
    with pytest.raises(
        GPTError, match=r"^tiny needs about [\d.,]+ [kM]B to train: .* cpu has [\d.,]+ [kM]B free: --lora 16 needs"
    ):
        STAGES["sft in full"](ready, "more", dtype="float32")
    assert "more" not in ready.models


def test_a_base_in_few_bits_is_not_loaded_beside_them(ready, monkeypatch):
    """The quantised weights are stood in for; what counts is that the base itself is never read."""
    from jupyter_gpt.models import load

    module, real = ready.models["tiny"].module, load.load
    ready.unload("tiny")
    monkeypatch.setattr(load, "check_load_in", lambda bits: None)
    monkeypatch.setattr(load, "quantised", lambda model, bits: module)
    monkeypatch.setattr(
        load,
        "load",
        lambda model, *rest, **more: pytest.fail("loaded") if model.name == "tiny" else real(model, *rest, **more),
    )
    run = STAGES["sft"](ready, "small", load_in="4bit")
    assert run.status == "finished" and not ready.models.about("tiny").resident
    assert ready.models.about("small").base == "tiny"
