"""Models loaded with 8-bit and 4-bit weights: what they take, what they say of themselves, what is made of them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.errors import fail
from helpers.recipes import pretraining_recipe
from helpers.tiny import TALES
from jupyter_gpt.models import quantize
from jupyter_gpt.nn import quantized
from jupyter_gpt.session import Session


@pytest.fixture
def wide_model(gpt):
    """A model whose linear layers are most of it."""

    def make(name="fox", width=128, **more):
        from jupyter_gpt.data.tokenizer import delimiter, train_bpe
        from jupyter_gpt.stages.pretrain_training import build

        tokenizer = train_bpe(TALES, 320)
        recipe = pretraining_recipe({"stories": 1}, depth=2, width=width, heads=2, context=64, **more)
        module = build(recipe, len(tokenizer), delimiter(tokenizer)).eval()
        return gpt.models.keep(name, module, tokenizer, "pretrain", None, [f"{name} (pretrain)"], 0)

    return make


def logits(model):
    ids = model.tokenizer("The old fox saw 3 small birds", return_tensors="pt").input_ids
    with torch.no_grad():
        return model.module(input_ids=ids).logits.float()


def test_loaded_in_int8_and_int4(gpt, wide_model):
    wide_model()
    whole = gpt.models["fox"]
    exact, memory = logits(whole), whole.memory
    for dtype, share, most in (("int8", 0.35, 0.1), ("int4", 0.27, 0.6)):
        model = gpt.load("fox", dtype=dtype)
        assert (model.dtype, model.device) == (dtype, "cpu")
        assert model.memory < share * memory
        assert (logits(model) - exact).abs().max() < most * exact.std()
        assert gpt.load("fox") is model and gpt.load("fox", dtype=dtype) is model
        needed = quantize.needed(model.folder, model.parameters, dtype)
        assert needed == pytest.approx(model.memory, rel=0.1), "what is asked of memory before it is loaded"
        first, again = ([str(s) for s in gpt.prompt("The old", model="fox", max_tokens=8).samples] for _ in range(2))
        assert first == again
        assert f"cpu, {dtype}, " in str(gpt.models.report)
    assert gpt.unload("fox").memory == 0
    assert torch.equal(logits(gpt.load("fox", dtype="float32")), exact)


def test_read_from_files_it_is_the_same_as_when_it_was_whole_in_memory(gpt, wide_model, monkeypatch):
    wide_model()
    gpt.unload("fox")
    streamed = gpt.load("fox", dtype="int4")
    found = logits(streamed)
    monkeypatch.setattr(quantize, "stored", lambda folder: {})
    gpt.unload("fox")
    assert torch.equal(logits(gpt.load("fox", dtype="int4")), found)


def test_weights_that_had_4_bits_stay_as_they_are(gpt, wide_model):
    """The folder of a pulled GGUF file holds its 4-bit weights dequantised."""
    gguf = pytest.importorskip("gguf")
    model = wide_model()
    gpt.unload("fox")
    file = model.folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if name.endswith("proj.weight"):
            tensor = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1
            kind = gguf.GGMLQuantizationType["Q4_1" if "down" in name else "Q4_0"]
            tensors[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(tensor.numpy(), kind), kind))
    save_file(tensors, file, {"format": "pt"})
    exact = logits(gpt.load("fox", dtype="float32"))
    rounding = (logits(gpt.load("fox", dtype="bfloat16")) - exact).abs().max()
    assert (logits(gpt.load("fox", dtype="int4")) - exact).abs().max() < 3 * rounding
    for name, part in gpt.models["fox"].module.named_modules():
        if name.endswith("_proj"):
            step = quantized.Int4.__name__ == type(getattr(part.weights, "whole", part.weights)).__name__
            assert step, "all of its layers have 4 bits"
            off = (part.weights.transposed(torch.float32).t() - tensors[f"{name}.weight"]).abs().max()
            assert off < 0.005 * tensors[f"{name}.weight"].abs().max(), "scales are rounded to bf16, codes are kept"


def test_layers_that_no_kernel_takes(gpt, wide_model):
    wide_model("odd", width=80)
    model = gpt.load("odd", dtype="int4")
    assert "linear layers have 8 bits: their shapes do not fit 4-bit kernels" in model.notes[0]
    assert gpt.prompt("The old", model="odd", max_tokens=4).samples
    assert not any("8 bits" in note for note in gpt.load("odd", dtype="int8").notes)
    wide_model("none", width=80, mlp=80)
    model = gpt.load("none", dtype="int4")
    assert model.dtype == "int8" and "its linear layers have 8 bits: their shapes do not fit" in model.notes[0]
    assert not any("int4 saves" in note for note in model.notes)


def test_a_cpu_without_the_instructions_is_told_of(gpt, wide_model, monkeypatch):
    wide_model()
    exact = logits(gpt.load("fox", dtype="int8"))
    gpt.unload("fox")
    monkeypatch.setattr(quantized, "has_integer_products", lambda: False)
    monkeypatch.setattr(quantized, "has_kernels", lambda bits: False)
    model = gpt.load("fox", dtype="int8")
    assert model.notes == ["this CPU has no fast int8 products: int8 saves memory here, and takes more time"]
    assert (logits(model) - exact).abs().max() < 0.1 * exact.std()


def test_what_it_gains_on_this_cpu_is_said(gpt, wide_model, monkeypatch):
    wide_model()
    monkeypatch.setattr(quantized, "has_kernels", lambda bits: True)
    monkeypatch.setattr(quantized, "cpu_flags", lambda: frozenset({"avx512f", "amx_bf16"}))
    assert "it saves memory here, no time" in gpt.load("fox", dtype="int8").notes[0]
    assert gpt.load("fox", dtype="int4").notes == []
    monkeypatch.setattr(quantized, "cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(quantized, "has_integer_products", lambda: False)
    assert gpt.models["fox"].notes == ["this CPU has no AVX-512: int4 saves memory here, and little time"]


def test_what_is_trained_on_it_starts_from_the_weights_on_disk(gpt, wide_model):
    wide_model()
    model = gpt.load("fox", dtype="int4")
    for whole in (True, False):
        module = gpt.models.to_train(model, whole, "auto")
        assert module.dtype == torch.float32 and not quantized.format_of(module)
    assert gpt.models["fox"] is model and model.dtype == "int4"
    assert "cannot be written" in fail(gpt.models.keep, "hen", model.module, model.tokenizer, "sft", None, ["hen"], 1)


def test_an_adapter_on_it_saved_and_merged(gpt, wide_model, tmp_path):
    from jupyter_gpt.nn.lora import lora

    base = wide_model()
    module = lora(gpt.models["fox"].module, 4)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if "lora_B" in name:
                p.add_(0.05)
    gpt.models.keep("reply", module, base.tokenizer, "sft", None, ["fox", "reply (sft)"], 5, base="fox")
    exact = logits(gpt.models["reply"])
    adapter = gpt.load("reply", dtype="int8")
    assert (adapter.dtype, gpt.models["fox"].dtype) == ("int8", "int8") and gpt.models.shares(adapter)
    assert (logits(adapter) - exact).abs().max() < 0.1 * exact.std()
    assert (logits(gpt.models["fox"]) - logits(adapter)).abs().max() > 0.1 * exact.std()
    assert gpt.prompt("The old", model="reply", max_tokens=4).samples
    merged = gpt.merge("reply", "both")
    assert merged.dtype == "float32" and torch.allclose(logits(merged), exact, atol=1e-3)
    folder = gpt.save("fox", tmp_path / "out")
    assert load_file(folder / "model.safetensors")["model.norm.weight"].dtype == torch.float32
    assert gpt.unload("fox").memory == 0


def test_what_does_not_fit_may_fit_in_fewer_bits(gpt, wide_model, monkeypatch):
    model = wide_model()
    gpt.unload("fox")
    monkeypatch.setattr("jupyter_gpt.nn.devices.free", lambda device: 1.5 * model.parameters)
    message = fail(gpt.load, "fox", dtype="float32")
    assert "--dtype bfloat16" not in message
    assert "--dtype int8 needs" in message and "--dtype int4 needs" in message
    monkeypatch.setattr("jupyter_gpt.nn.devices.free", lambda device: model.parameters)
    message = fail(gpt.load, "fox", dtype="int8")
    assert "--dtype int4 needs" in message and "--dtype int8 needs" not in message
    assert gpt.load("fox", dtype="int4").resident


def test_mistakes_and_damage_are_one_line(gpt, wide_model, monkeypatch):
    model = wide_model()
    gpt.unload("fox")
    assert "--dtype is float32 or bfloat16 or float16 or int8 or int4, not" in fail(gpt.load, "fox", dtype="int3")
    monkeypatch.setattr("jupyter_gpt.models.load.check_device", lambda device: device)
    assert fail(gpt.load, "fox", dtype="int8", device="cuda") == (
        "--dtype int8 is for CPUs: on cuda load it in bfloat16, or add --device cpu"
    )
    file = model.folder / "model.safetensors"
    tensors = load_file(file)
    left = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.up_proj" not in name}
    save_file(left, file, {"format": "pt"})
    assert "fox is damaged: 1 of its weights are missing" in fail(gpt.load, "fox", dtype="int8")
    assert not gpt.models.about("fox").resident


def test_a_pulled_model_is_loaded_at_once(gpt, wide_model, tmp_path):
    wide_model()
    gpt.save("fox", tmp_path / "fox")
    pulled = gpt.pull(str(tmp_path / "fox"), "reynard", dtype="int8")
    assert (pulled.name, pulled.dtype, pulled.resident) == ("reynard", "int8", True)
    assert not Session().models.about("reynard").resident
    assert json.loads((pulled.folder / "config.json").read_text())["model_type"] == "llama"
