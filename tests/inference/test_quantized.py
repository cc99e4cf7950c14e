"""The engine on 8-bit and 4-bit weights: against the module with the same weights dequantised, and against itself."""

import copy

import pytest
import torch

from helpers.decoding import ids_of, run
from helpers.shapes import VOCAB, lora, random_prompts
from jupyter_gpt.inference import decode_forward as decode_forward_module
from jupyter_gpt.inference import forward
from jupyter_gpt.inference.decode_forward import decode_forward, unpacked
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.models.quantize import notes, quantize
from jupyter_gpt.nn import quantized
from jupyter_gpt.nn.quantized import QuantizedEmbedding, QuantizedLinear


def build(kind: str):
    """As `helpers.shapes.build`, in shapes that 4 bits take."""
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=128,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.1,
        )
    else:
        name = {"llama": "LlamaConfig", "qwen3": "Qwen3Config", "stablelm": "StableLmConfig"}[kind]
        config = getattr(transformers, name)(
            vocab_size=VOCAB,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            head_dim=16,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=kind == "llama",
            initializer_range=0.1,
        )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def rounded(module, dtype: str):
    copy_of = copy.deepcopy(module)
    return quantize(copy_of, dtype, lambda name, start, end: copy_of.get_parameter(name).detach()[start:end].float())


def dequantised(module, like):
    """An fp32 module of the class of `like` with the weights that a quantised `module` stands for."""
    found = copy.deepcopy(like).float()
    parts = dict(module.named_modules())
    with torch.no_grad():
        for name, part in found.named_modules():
            own = parts[name]
            if isinstance(own, QuantizedLinear):
                weight = own.weights.transposed(torch.float32).t()
                part.weight.copy_(weight.t() if type(part).__name__ == "Conv1D" else weight)
            elif isinstance(own, QuantizedEmbedding):
                part.weight.copy_(own.codes * own.scale[:, None])
            else:
                for key, parameter in part.named_parameters(recurse=False):
                    parameter.copy_(own.get_parameter(key))
    return found


@pytest.fixture(params=["as it comes", "torch's kernels", "none"])
def way(request, monkeypatch):
    if request.param != "as it comes":
        monkeypatch.setattr(quantized, "has_integer_products", lambda: False)
    if request.param == "none":
        monkeypatch.setattr(quantized, "has_kernels", lambda bits: False)


def near(found, wanted, most: float) -> None:
    """The error's root mean square, as a share of the spread of the logits."""
    assert (found.float() - wanted.float()).pow(2).mean().sqrt() < most * wanted.float().std()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "stablelm"])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_forwards_are_those_of_the_dequantised_model(way, kind, dtype):
    plain = build(kind)
    module = rounded(plain, dtype)
    assert quantized.format_of(module) == dtype and not notes(module, dtype)[:-1]
    exact = dequantised(module, plain)
    ids = torch.randint(1, VOCAB, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = exact(ids).logits
        near(module(ids).logits, wanted, 0.03)
    prompt, request = tuple(ids[0].tolist()), Request(tuple(ids[0].tolist()), max_tokens=12, temperature=0)
    tokens = run(module, [request])[0, 0]
    if kind != "stablelm":
        assert decode_forward(module, unpacked) is not None, "our decoding forward takes it"
    full = exact(torch.tensor([[*prompt, *ids_of(tokens)]])).logits[0].log_softmax(-1)[len(prompt) - 1 :]
    for place, token in enumerate(tokens):
        assert token.logprob == pytest.approx(full[place, token.id].item(), abs=0.15)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_large_batch_is_decoded_with_a_copy_in_bf16(monkeypatch, kind):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no layout of bf16 weights")
    plain = build(kind)
    module, made = lora(rounded(plain, "int4")), []
    widened = decode_forward_module.widened
    monkeypatch.setattr(decode_forward_module, "widened", lambda layers: made.append(1) or widened(layers))
    request = Request(random_prompts(1)[0], samples=forward.WIDE, max_tokens=forward.PATIENCE + 12, seed=1)
    found = run(module, [request])
    assert made, "the copy was made"
    made.clear()
    monkeypatch.setattr(forward, "WIDE", 1000)
    for key, tokens in run(module, [request]).items():
        for mine, other in zip(found[key], tokens, strict=True):
            if mine.id != other.id:
                break
            assert mine.logprob == pytest.approx(other.logprob, abs=0.1)
    assert not made
    monkeypatch.setattr("jupyter_gpt.nn.devices.free", lambda device: 1000)
    monkeypatch.setattr(forward, "WIDE", 2)
    assert len(run(module, [request])) == request.samples and not made, "where memory is short it is not"


def test_int8_says_what_fp32_says():
    plain = build("llama")
    module, prompts = rounded(plain, "int8"), random_prompts(12)
    with torch.no_grad():
        for prompt in prompts:
            near(module(torch.tensor([prompt])).logits, plain(torch.tensor([prompt])).logits, 0.04)
    asked = [Request(prompt, max_tokens=8, temperature=0) for prompt in prompts]
    mine, theirs = run(module, asked), run(plain, asked)
    same = sum(ids_of(mine[key])[0] == ids_of(theirs[key])[0] for key in theirs)
    assert same >= len(prompts) - 1


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_sample_does_not_depend_on_those_beside_it(way, dtype):
    module, prompts = rounded(build("llama"), dtype), random_prompts(6)
    beside = run(module, [Request(prompts[0], samples=5, max_tokens=10, seed=3)])
    for (_, sample), tokens in beside.items():
        alone = run(module, [Request(prompts[0], max_tokens=10, seed=3 + sample)])[0, 0]
        assert ids_of(alone) == ids_of(tokens)
        assert [t.logprob for t in alone] == pytest.approx([t.logprob for t in tokens], abs=0.03)
    mixed = run(module, [Request(prompt, max_tokens=1, temperature=0) for prompt in prompts])
    for number, prompt in enumerate(prompts):  # read beside prompts of other lengths
        alone = run(module, [Request(prompt, max_tokens=1, temperature=0)])[0, 0]
        assert alone[0].logprob == pytest.approx(mixed[number, 0][0].logprob, abs=0.1)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("tokens", [None, [5, 9]])
def test_an_adapter_on_top(kind, tokens):
    if kind == "gpt2" and tokens:
        pytest.skip("the same code as for Llama")
    plain = build(kind)
    module = rounded(plain, "int4")
    exact = lora(dequantised(module, plain), tokens=tokens)
    adapted = lora(module, tokens=tokens)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "trainable_tokens" in name:
                parameter.copy_(exact.get_parameter(name))
    if kind == "llama":
        assert decode_forward(adapted, unpacked) is not None
    prompt = random_prompts(1)[0]
    asked = [Request((*prompt, 5, 9, 5), max_tokens=10, temperature=0)]
    found = run(adapted, asked)[0, 0]
    with torch.no_grad():
        full = exact(torch.tensor([[*prompt, 5, 9, 5, *ids_of(found)]])).logits[0].log_softmax(-1)[len(prompt) + 2 :]
    for place, token in enumerate(found):
        assert token.logprob == pytest.approx(full[place, token.id].item(), abs=0.25)
    with torch.no_grad():
        bare = dequantised(rounded(plain, "int4"), plain)(torch.tensor([[*prompt, 5, 9, 5, *ids_of(found)]])).logits[0]
    assert (bare.log_softmax(-1)[len(prompt) + 2 :] - full).abs().max() > 1, "the adapter does something"


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_a_known_prefix_gives_what_reading_it_gives(dtype):
    module = build("llama").bfloat16() if dtype == "bfloat16" else rounded(build("llama"), dtype)
    shared = tuple(range(1, 61))
    asked = [Request((*shared, n, 5), max_tokens=1, temperature=n % 2, top_logprobs=VOCAB) for n in (7, 8)]
    plain = run(module, asked)
    run(module, [Request(shared, max_tokens=3, temperature=0)], reuse=True)
    known = run(module, asked, reuse=True)
    assert [known[n, 0][0].cached for n in range(2)] == [60, 60]
    for key, [token] in known.items():
        found, wanted = (torch.tensor([nats for _, nats in sorted(each.top)]) for each in (token, plain[key][0]))
        assert (found - wanted).abs().max() < 0.05 * wanted.std()
    again = run(module, asked[:1], reuse=True)
    assert again[0, 0][0].top == known[0, 0][0].top, "a prompt that is known as a whole gives the same bits"
    assert again[0, 0][0].cached == 62
