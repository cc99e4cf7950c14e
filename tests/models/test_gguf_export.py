"""Models as GGUF files: read back by transformers with the same logits, and by llama.cpp with the same greedy text."""

import json

import pytest
import torch

from helpers.errors import fail
from helpers.recipes import pretraining_recipe
from helpers.tiny import CHAT, TALES
from jupyter_gpt.data.tokenizer import delimiter, train_bpe, train_char
from jupyter_gpt.models.gguf import convert
from jupyter_gpt.stages.pretrain_training import build

TEXT = "The old fox saw 3 small birds: café, 🙂. It's 127  degrees"
KINDS = ("llama", "qwen3", "gpt2")


@pytest.fixture
def model(gpt):
    """`model(arch)`: a model of random weights and its logits of TEXT, which depend on the place of each token."""

    def make(name="fox", arch="llama", tokenizer=None, **changes):
        tokenizer = tokenizer or train_bpe(TALES, 320)
        tokenizer.chat_template = CHAT
        given = {"depth": 2, "width": 64, "heads": 4, "context": 64, "arch": arch, **changes}
        recipe = pretraining_recipe({"stories": 1}, **given)
        module = build(recipe, len(tokenizer), delimiter(tokenizer)).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in module.parameters():  # a fresh model has zeros where attention ends
                parameter.add_(0.05 * torch.randn_like(parameter))
        return gpt.models.keep(name, module, tokenizer, "pretrain", None, [f"{name} (pretrain)"], 0, licence="mit")

    return make


def logits(module, ids):
    with torch.no_grad():
        return module(torch.tensor([ids])).logits[0]


def read_back(file, **more):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32, **more).eval()


@pytest.mark.parametrize("arch", KINDS)
def test_transformers_reads_it_back_with_the_same_logits(gpt, model, tmp_path, arch):
    kept = model(arch=arch, kv_heads=4 if arch == "gpt2" else 2)
    file = gpt.save("fox", gguf=tmp_path / "out" / "fox.gguf", quantize="f32")
    assert file == tmp_path / "out" / "fox.gguf" and [path.name for path in file.parent.iterdir()] == ["fox.gguf"]
    ids = kept.tokenizer(TEXT).input_ids
    more = {} if arch == "llama" else {"config": kept.module.config}  # else sizes of the published models are assumed
    assert torch.allclose(logits(read_back(file, **more), ids), logits(kept.module, ids), atol=1e-4)


@pytest.mark.parametrize(("quantize", "worst"), [("f16", 0.01), ("q8_0", 0.1), ("q4_0", 1.0)])
def test_fewer_bits_are_near_and_take_less(gpt, model, tmp_path, quantize, worst):
    kept = model()
    ids = kept.tokenizer(TEXT).input_ids
    whole = gpt.save("fox", gguf=tmp_path / "whole.gguf", quantize="f32").stat().st_size
    file = gpt.save("fox", gguf=tmp_path / "small.gguf", quantize=quantize)
    difference = (logits(read_back(file), ids) - logits(kept.module, ids)).abs().max()
    assert 0 < difference < worst
    assert file.stat().st_size < whole * {"f16": 0.6, "q8_0": 0.4, "q4_0": 0.35}[quantize]


def test_a_qwen2_with_its_biases(gpt, tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = train_bpe(TALES, 320)
    sizes = dict(vocab_size=326, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    module = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2, rope_theta=5000.0)).eval()
    torch.nn.init.normal_(module.model.layers[0].self_attn.q_proj.bias)
    kept = gpt.models.keep("qwen", module, tokenizer, "pretrain", None, ["qwen"], 0)
    file = gpt.save("qwen", gguf=tmp_path / "qwen.gguf", quantize="f32")
    ids = kept.tokenizer(TEXT).input_ids
    assert torch.allclose(logits(read_back(file), ids), logits(module, ids), atol=1e-4)


def test_what_the_file_says(gpt, model, tmp_path):
    from gguf import GGUFReader

    kept = model()
    fields = GGUFReader(gpt.save("fox", gguf=tmp_path / "fox.gguf")).fields
    said = {key: field.contents() for key, field in fields.items()}
    eos = kept.tokenizer.eos_token_id
    assert said["general.architecture"] == "llama" and said["general.license"] == "mit"
    assert (said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    assert said["tokenizer.chat_template"] == CHAT and said["tokenizer.ggml.add_bos_token"] is False
    assert said["tokenizer.ggml.eos_token_id"] == said["tokenizer.ggml.bos_token_id"] == eos
    assert said["tokenizer.ggml.tokens"] == kept.tokenizer.convert_ids_to_tokens(range(len(kept.tokenizer)))
    assert said["tokenizer.ggml.token_type"][eos] == 3 and said["tokenizer.ggml.token_type"][-1] == 1
    assert str(tmp_path) not in json.dumps(said, default=str)


@pytest.mark.parametrize("arch", KINDS)
def test_pull_reads_it_with_its_own_tokens(gpt, model, tmp_path, monkeypatch, arch):
    """A Llama in a process of its own, as always; the others by what runs there."""
    kept = model(arch=arch, kv_heads=4 if arch == "gpt2" else 2)
    source = gpt.save("fox", gguf=tmp_path / "fox.gguf", quantize="f32")
    if arch == "llama":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "fox.gguf").write_bytes(b"GGUF, but another file of that name")
        monkeypatch.chdir(elsewhere)
        assert gpt.pull(str(source), "hen").licence == "MIT"
    else:
        assert convert(source, tmp_path / "folder") == {"licence": "mit"}
        gpt.pull(str(tmp_path / "folder"), "hen")
    ids = kept.tokenizer(TEXT).input_ids
    tokenizer = gpt.models["hen"].tokenizer
    assert tokenizer(TEXT).input_ids == ids and tokenizer.decode(ids) == TEXT
    assert tokenizer.chat_template == CHAT
    assert torch.allclose(logits(gpt.models["hen"].module, ids), logits(kept.module, ids), atol=1e-4)


def test_an_adapter_is_merged_on_the_way(gpt, model, tmp_path):
    model("base")
    gpt.sft("tuned", [("a", "b"), ("c", "d")] * 4, "base", lora=4, steps=8, lr=0.05)
    file = gpt.save("tuned", gguf=tmp_path / "tuned.gguf", quantize="f32")
    tuned, base = gpt.models["tuned"], gpt.models["base"]
    ids = tuned.tokenizer(TEXT).input_ids
    assert torch.allclose(logits(read_back(file), ids), logits(tuned.module, ids), atol=1e-4)
    assert not torch.allclose(logits(base.module, ids), logits(tuned.module, ids), atol=1e-2)


def test_what_cannot_be_a_gguf_file(gpt, model, tmp_path):
    from transformers import PhiConfig, PhiForCausalLM

    model("chars", tokenizer=train_char(TALES))
    assert "tokenizer that llama.cpp does not know" in fail(gpt.save, "chars", gguf=tmp_path / "chars.gguf")
    sizes = dict(vocab_size=326, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    gpt.models.keep("phi", PhiForCausalLM(PhiConfig(**sizes)), train_bpe(TALES, 320), "pretrain", None, ["phi"], 0)
    assert "phi is a phi: this package writes" in fail(gpt.save, "phi", gguf=tmp_path / "phi.gguf")
    model("odd", mlp=80)
    assert "rows of 80; use --quantize f16" in fail(gpt.save, "odd", gguf=tmp_path / "odd.gguf", quantize="q4_0")
    large = model("large")
    with torch.no_grad():
        large.module.model.embed_tokens.weight[0, 0] = 1e6
    gpt.models.keep("large", large.module, large.tokenizer, "pretrain", None, ["large"], 0)
    assert "beyond the range of f16" in fail(gpt.save, "large", gguf=tmp_path / "large.gguf")
    assert list(tmp_path.glob("*.gguf")) == [] and list(tmp_path.glob(".writing*")) == []
    assert "not a .gguf file" in fail(gpt.save, "odd", gguf=tmp_path / "odd")
    assert fail(gpt.save, "odd") == "%gpt save requires FOLDER, or --gguf FILE"
    assert "give one" in fail(gpt.save, "odd", tmp_path / "odd", gguf="odd.gguf")
    assert "give --gguf FILE" in fail(gpt.save, "odd", tmp_path / "odd", quantize="f16")


def test_another_file_is_not_overwritten(gpt, model, tmp_path):
    model("fox")
    model("hen", arch="gpt2")
    file = gpt.save("fox", gguf=tmp_path / "fox.gguf")
    assert gpt.save("fox", gguf=file) == file, "the same again"
    assert "something else in it" in fail(gpt.save, "hen", gguf=file)
    assert gpt.save("hen", gguf=file, overwrite=True) == file
    notes = tmp_path / "notes.gguf"
    notes.write_text("years of work")
    assert "something else in it" in fail(gpt.save, "fox", gguf=notes)
    assert notes.read_text() == "years of work"


def greedy(native, llama, ids, count):
    """The tokens that llama.cpp finds most likely, one after another."""
    ffi, lib = native._cffi_bindings.get_ffi(), native._cffi_bindings.get_lib()
    found, past = [], 0
    new = list(ids)
    while len(found) < count:
        past = llama._eval_tokens(new, past)
        row = ffi.unpack(lib.llama_get_logits_ith(llama._ctx, -1), llama.n_vocab)
        new = [max(range(len(row)), key=row.__getitem__)]
        found += new
    return found


@pytest.mark.parametrize("arch", KINDS)
def test_llama_cpp_goes_on_as_transformers_does(gpt, model, tmp_path, arch):
    native = pytest.importorskip("llama_cpp_py_sync", reason="pip install llama-cpp-py-sync, a build of llama.cpp")
    kept = model(arch=arch, kv_heads=4 if arch == "gpt2" else 2)
    file = gpt.save("fox", gguf=tmp_path / "fox.gguf", quantize="f32")
    ids = kept.tokenizer(TEXT).input_ids
    with native.Llama(str(file), n_ctx=64, n_threads=1, verbose=False) as llama:
        assert llama.tokenize(TEXT, add_special=False) == ids
        ours = kept.module.generate(torch.tensor([ids]), max_new_tokens=32, do_sample=False, eos_token_id=None)
        theirs = greedy(native, llama, ids, 32)
    same = sum(a == b for a, b in zip(ours[0, len(ids) :].tolist(), theirs, strict=True))
    assert same >= 30
