"""Finetuning in a session: full and with an adapter, stopped, resumed, continued, merged, and what it refuses."""

import pytest
import torch

from helpers.errors import fail
from helpers.stopping import stopped_at
from jupyter_gpt.data.tokenizer import CHAT
from jupyter_gpt.nn.lora_linear import is_adapter_parameter
from jupyter_gpt.notebook.views.run_report import run_report
from jupyter_gpt.session import Session

ROWS = [
    {"prompt": f"How many {what} saw the {who}?", "completion": f"{n} {what}."}
    for n in range(1, 7)
    for what in ("birds", "foxes", "hens")
    for who in ("old fox", "red hen")
]
SHORT = {"batch_tokens": 128, "context": 64, "steps": 6, "answer_tokens": 4, "sample_every": 100}


@pytest.fixture
def fox(gpt, tiny_model):
    model = tiny_model(gpt, "fox")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as if trained: what writes into the stream of a fresh model is zero, and has no direction
        for p in model.module.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return gpt.models.keep("fox", model.module, model.tokenizer, "pretrain", None, model.lineage, 0)


@pytest.fixture
def sft(gpt, fox):
    """`sft(name, **options)`: a short run on ROWS from the model fox."""

    def start(name="reply", **options):
        return gpt.sft(name, ROWS, options.pop("base", "fox"), **{**SHORT, **options})

    return start


def own(model):
    """The tensors that are a model's own, by name."""
    return {
        name: p.detach().clone()
        for name, p in model.module.named_parameters()
        if not model.base or is_adapter_parameter(name)
    }


def steps(run):
    return [(e["step"], e["loss"], e["grad_norm"], e["tokens"]) for e in run.events if e["event"] == "step"]


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": "adamw"}, {"lora": 2}, {"lora": 2, "dora": True, "rslora": True}]
)
def test_a_model_is_finetuned_and_kept(gpt, fox, sft, options):
    file = (fox.folder / "model.safetensors").read_bytes()
    before = {name: p.detach().clone() for name, p in fox.module.named_parameters()}
    run = sft(lr=0.01, steps=20, **options)
    assert run.status == "finished" and run.step == 20
    losses = run.history["loss"]
    assert losses.iloc[-3:].mean() < losses.iloc[:3].mean() - 0.2
    assert run.history["tokens"].is_monotonic_increasing and not run.history["val_loss"].dropna().empty
    model = gpt.models["reply"]
    assert model.has_chat and not fox.has_chat and model.lineage == ["fox (pretrain)", "reply (sft)"]
    assert model.base == ("fox" if "lora" in options else None)
    assert all(torch.equal(before[name], p) for name, p in fox.module.named_parameters()), "the base is as it was"
    assert (fox.folder / "model.safetensors").read_bytes() == file
    start = next(e for e in run.events if e["event"] == "start")
    if "lora" in options:
        assert start["trained"] == model.trained < 0.5 * start["parameters"]
        assert any(p.abs().max() > 0 for name, p in own(model).items() if "lora_B" in name)
        assert (
            run.recipe["trainable_tokens"] == list(CHAT) and sum("trainable_tokens" in name for name in own(model)) == 2
        )
    else:
        assert start["trained"] == start["parameters"] == fox.parameters
        assert any(not torch.equal(before[name], p) for name, p in model.module.named_parameters())
        assert model.module.generation_config.eos_token_id == sorted(
            {fox.tokenizer.eos_token_id, fox.tokenizer.convert_tokens_to_ids("<|end|>")}
        )
    asked = gpt.prompt("How many birds saw the red hen?", model="reply", temperature=0, max_tokens=8)
    assert asked.prompt.endswith("<|assistant|>")
    again = Session().models["reply"]
    assert all(torch.equal(p, again_p) for p, again_p in zip(own(model).values(), own(again).values(), strict=True))


def test_an_adapter_ends_its_answers_on_a_base_that_never_saw_the_end(gpt, fox, sft):
    """The row of `<|end|>` lies where pretraining leaves it, at the floor of the vocabulary."""
    end, ids = fox.tokenizer.convert_tokens_to_ids("<|end|>"), fox.tokenizer("How many birds?").input_ids
    with torch.no_grad():
        mean = fox.module.model(torch.tensor([ids])).last_hidden_state.mean((0, 1))
        fox.module.lm_head.weight[fox.tokenizer.convert_tokens_to_ids(list(CHAT))] = -3 * mean / mean.norm()
    gpt.models.keep("fox", fox.module, fox.tokenizer, "pretrain", None, fox.lineage, 0)
    run = sft(lora=2, lr=0.02, steps=60, batch_tokens=256)
    assert run.recipe["trainable_tokens"] == list(CHAT)
    answer = gpt.prompt("How many birds saw the red hen?", model="reply", temperature=0, max_tokens=12)
    assert answer.finish_reason == "stop"
    rows = [p for name, p in own(gpt.models["reply"]).items() if "trainable_tokens" in name]
    assert len(rows) == 2 and all(p.shape == (4, 32) for p in rows)
    assert not torch.equal(rows[1][3], fox.module.lm_head.weight[end])
    assert "with rows for <|system|>, <|user|>, <|assistant|>, <|end|>" in run_report(run).text


def test_the_same_questions_are_answered_at_fixed_steps(sft):
    run = sft(sample_every=3, questions=["How many hens?", "Who sang?"])
    asked = [(e["step"], e["prompt"]) for e in run.events if e["event"] == "sample"]
    assert asked == [(step, text) for step in (0, 3, 6) for text in ("How many hens?", "Who sang?")]
    held = sft("other", sample_every=6)
    texts = {e["prompt"] for e in held.events if e["event"] == "sample"}
    assert texts and texts <= {row["prompt"] for row in ROWS}
    assert "more than the context" in fail(sft, "long", questions=["fox " * 400])


@pytest.mark.parametrize("options", [{}, {"lora": 2}, {"lora": 2, "lora_dropout": 0.2}])
def test_stopped_and_resumed_ends_as_if_never_stopped(gpt, sft, options):
    whole = sft("whole", steps=8, **options)
    wanted, weights = steps(whole), own(gpt.models["whole"])
    part = stopped_at(3, sft, "part", steps=8, **options)
    assert part.status == "stopped" and "part" in gpt.models and 0 < part.step < 8, "what was reached is kept"
    later = Session()
    resumed = later.resume("part", variables={"data": ROWS})
    assert resumed.status == "finished" and steps(resumed) == wanted
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own(later.models["part"]).items())


def test_accumulated_gives_what_the_whole_batch_gives(gpt, sft):
    whole, parts = sft("whole", micro_tokens=1000, optimizer="adamw"), sft("parts", micro_tokens=20, optimizer="adamw")
    for (_, loss, norm, tokens), (_, other, other_norm, other_tokens) in zip(steps(whole), steps(parts), strict=True):
        assert loss == pytest.approx(other, abs=1e-4) and norm == pytest.approx(other_norm, rel=1e-3)
        assert tokens == other_tokens


def test_an_adapter_is_continued_as_a_copy_or_merged_first(gpt, sft):
    sft("one", lora=2, lr=0.01)
    one = own(gpt.models["one"])
    again = gpt.models["one"].folder / "adapter_model.safetensors"
    file = again.read_bytes()
    sft("two", base="one", lr=0.01)
    two = gpt.models["two"]
    assert two.base == "fox" and two.lineage == ["fox (pretrain)", "one (sft)", "two (sft)"]
    assert all(torch.equal(one[name], p) for name, p in own(gpt.models["one"]).items()) and again.read_bytes() == file
    assert any(not torch.equal(one[name], p) for name, p in own(two).items())
    sft("three", base="one", merge_first=True)
    assert gpt.models["three"].base is None and gpt.models["three"].parameters == gpt.models["fox"].parameters
    assert "leave --lora out to continue a copy" in fail(sft, "four", base="one", lora=2)
    assert "%gpt merge one NAME" in fail(sft, "four", base="one", lora=2, merge_first=True)
    assert "no adapter" in fail(sft, "four", merge_first=True)
    for option in ({"dora": True}, {"lora_alpha": 4}, {"lora_targets": ["q_proj"]}, {"load_in": "4bit"}):
        assert "was set when one was made" in fail(sft, "four", base="one", **option)
    assert fail(sft, "four", base="one", merge_first=True, dora=True) == "--dora belongs to an adapter: leave it out"


def test_a_copy_of_an_adapter_drops_as_the_adapter_did(sft):
    still = {"lora": 2, "lr": 1e-12}  # two adapters with the same weights
    sft("one", lora_dropout=0.5, **still)
    sft("none", **still)
    assert steps(sft("two", base="one")) == steps(sft("two", base="one")) != steps(sft("three", base="none"))


def test_merging_makes_a_model_of_its_own(gpt, sft):
    sft("one", lora=2, lr=0.01)
    model, whole = gpt.models["one"], gpt.merge("one")
    assert (whole.name, whole.kind, whole.base) == ("one-merged", "merge", None)
    ids = model.tokenizer("The old fox saw", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.allclose(whole.module(ids).logits, model.module(ids).logits, atol=1e-5)
    loaded = Session().models["one-merged"]
    with torch.no_grad():
        assert torch.equal(loaded.module(ids).logits, whole.module(ids).logits)
    assert gpt.merge("one", "one-merged").name == "one-merged", "made again"
    assert "is not an adapter" in fail(gpt.merge, "fox")
    assert "part of what is merged" in fail(gpt.merge, "one", "fox")
    sft("two")
    assert "two was made by sft: choose another name" in fail(gpt.merge, "one", "two")


def seen(run, steps=None):
    """How often each conversation stands in the rows of a run's steps."""
    from collections import Counter

    from jupyter_gpt.data.conversation_dataset import Conversations
    from jupyter_gpt.data.conversation_rows import ConversationRows

    data = Conversations.open(run.folder / "data")
    rows, T = ConversationRows(data, run.recipe["context"], run.recipe["seed"]), run.recipe["context"]
    count = (run.steps if steps is None else steps) * run.recipe["batch_tokens"] // T
    rows.batch([count])
    found = Counter(rows._position[: rows._first[count]])
    return [found[begin] for begin in data.offsets[:-1][~data.held_out].tolist()]


@pytest.mark.parametrize("context", [24, 64])
@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_see_each_conversation_so_often(sft, context, epochs):
    """Conversations of more than half a row too, which leave much of it empty."""
    run = sft(steps=None, epochs=epochs, context=context)
    assert run.status == "finished" and min(seen(run)) == epochs
    assert min(seen(run, run.steps - 1)) < epochs, "not a step more than it takes"


def test_lengths(sft, gpt):
    run = sft("a", steps=None, tokens=500)
    told = run.history["tokens"].tolist()
    assert told[-2] < 500 <= told[-1]
    assert sft("b", steps=5).history["step"].iloc[-1] == 5
    default = sft("d", steps=None)
    assert min(seen(default)) == 3
    timed = sft("c", steps=None, minutes=0.005)
    assert timed.status == "finished" and timed.steps >= 1


def test_the_cell_and_other_data(gpt, fox):
    body = "user: Who sang?\nassistant: The red hen sang.\n---\nuser: Who saw it?\nassistant: The old fox."
    run = gpt.sft("talk", body, "fox", **SHORT)
    assert run.recipe["mixture"] == {"the cell": 1.0} and run.status == "finished"
    run = gpt.sft("mixed", {"$chats": 1, "stories-qa": 2}, "fox", variables={"chats": ROWS}, **{**SHORT, "steps": 2})
    assert run.status == "finished"


def test_what_is_refused(gpt, sft, fox, tmp_path):
    assert fail(gpt.sft, "x", ROWS) == "say what to finetune: --base MODEL"
    assert "say what to train on" in fail(gpt.sft, "x", None, "fox")
    assert "there is no model fix (did you mean fox?)" in fail(sft, base="fix")
    assert "choose another name" in fail(sft, "fox")
    assert "matches no layer" in fail(sft, lora=2, lora_targets=["q_prok"]) and "reply" not in gpt.models
    assert "add --lora RANK" in fail(sft, lora_targets=["q_proj"])
    assert "add --lora RANK" in fail(sft, load_in="4bit")
    assert "add --lora RANK" in fail(sft, lora_dropout=0.1)
    assert "both set the length" in fail(sft, tokens=100)
    assert "at most 64" in fail(sft, context=128)
    assert "--lr -1 must be above zero" in fail(sft, lr=-1)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 36 + '{"prompt": "a"}\n')
    assert "37" in fail(gpt.sft, "x", {str(rows): 1.0}, "fox", **SHORT)
    gpt.endpoint("there", "http://127.0.0.1:1/v1", "m")
    assert "behind a server" in fail(sft, base="there")


def test_four_bits_where_there_is_no_library_or_no_gpu(sft, monkeypatch):
    import importlib.util
    import sys
    import types

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    assert fail(sft, lora=2, load_in="4bit").startswith("--load-in 4bit needs the package bitsandbytes")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: types.SimpleNamespace())
    assert (
        fail(sft, lora=2, load_in="8bit") == "--load-in 8bit needs a CUDA GPU, and this machine has none: leave it out"
    )


def test_a_base_that_changed_is_not_resumed_upon(gpt, sft, tiny_model):
    stopped_at(2, sft, steps=50)
    tiny_model(gpt, "fox", seed=5)
    assert "is not what reply began with" in fail(gpt.resume, "reply", variables={"data": ROWS})


def test_any_architecture_is_finetuned(gpt, fox):
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    torch.manual_seed(0)
    config = Starcoder2Config(
        vocab_size=len(fox.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=16,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    gpt.models.keep("wind", Starcoder2ForCausalLM(config), fox.tokenizer, "pull", None, ["wind"], 0)
    for options in ({}, {"lora": 2}, {"lora": 2, "checkpointing": True}):
        run = gpt.sft("reply", ROWS, "wind", lr=0.01, overwrite=True, **{**SHORT, **options})
        assert run.status == "finished" and run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]


@pytest.mark.parametrize("options", [{}, {"lora": 2}])
def test_a_base_in_8_bits_is_trained_from_its_files(gpt, sft, options):
    """The run is the one of an unrounded base; the base in memory stays as it is."""
    exact = steps(sft("exact", **options))
    base = gpt.load("fox", dtype="int8")
    assert steps(sft("reply", **options)) == exact
    assert gpt.models["fox"] is base and base.dtype == "int8"
    reply = gpt.models["reply"]
    assert reply.dtype == ("int8" if options else "float32"), "an adapter is loaded on the base that is in memory"
    assert len(steps(sft("more", base="reply"))) == SHORT["steps"], "and trained on from there"
