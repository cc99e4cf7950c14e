"""The formula for the memory of a training step, against the bytes of real steps; and what is chosen by it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from helpers import architectures, counted
from helpers.recipes import pretraining_recipe
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn import devices as free_memory
from jupyter_gpt.nn import training_memory as memory
from jupyter_gpt.nn import transformer
from jupyter_gpt.nn.lora import lora
from jupyter_gpt.nn.loss import chunk_rows, cross_entropy
from jupyter_gpt.nn.optimizer import optimizers
from jupyter_gpt.nn.sizes import amount
from jupyter_gpt.nn.training_memory import ENOUGH, MARGIN, choose, finetuning, fit, halves
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.nn.varlen import Segments
from jupyter_gpt.stages.pretrain_training import build, memory_step


def llama(kind="Llama", width=128, layers=3, heads=4, kv=4, mlp=352, vocab=512, **more):
    import transformers

    config = getattr(transformers, f"{kind}{'Text' * (kind == 'Gemma3')}Config")(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=width // heads,
        vocab_size=vocab,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **more,
    )
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def gpt2(width=128, layers=3, heads=4, vocab=512):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            n_positions=4096,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            vocab_size=vocab,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


OURS = {
    "llama": llama,
    "wide mlp": lambda: llama(width=96, heads=3, kv=3, mlp=768, layers=2),
    "grouped": lambda: llama(heads=8, kv=2),
    "qwen3": lambda: llama("Qwen3", kv=2),
    "gpt2": gpt2,
    "qwen2": lambda: llama("Qwen2", kv=2),
    "mistral": lambda: llama("Mistral", kv=2, sliding_window=128),
    "gemma2": lambda: llama("Gemma2", kv=2),
    "gemma3": lambda: llama("Gemma3", kv=2),
    "olmo2": lambda: llama("Olmo2", kv=2),
}
ARCHITECTURE_LAYERS = {"gemma3n_text": "abcd"}
OWN = {  # through transformers' own forward
    "stablelm": lambda: llama("StableLm", kv=2),
    "starcoder2": lambda: llama("Starcoder2", kv=2, sliding_window=None),
    "phi": lambda: llama("Phi", mlp=512),
    "cohere2": lambda: llama("Cohere2", kv=2),
}


def model_of(kind: str, device: str, rank: int | None = None):
    torch.manual_seed(0)
    model = (OURS | OWN)[kind]()
    return (model if rank is None else lora(model.requires_grad_(False), rank)).to(device)


def stream(tokens: int, text: int, device: str) -> Segments:
    """Texts of `text` tokens, end to end."""
    lengths = [text] * (tokens // text)
    bounds = torch.arange(0, tokens + 1, text, dtype=torch.int32).to(device)
    return Segments(lengths, torch.arange(text).repeat(len(lengths)).to(device), bounds, text)


def peak_of(model, rows: int, T: int, dtype: torch.dtype, recomputed: bool, packed: bool = False) -> int:
    """Bytes at the height of a micro-batch, beyond the weights: with the gradients of one before it."""
    trunk, device, n = Trunk(model, 2048, dtype, recomputed), model.device.type, rows * T
    ids = torch.zeros((1, n) if packed else (rows, T), dtype=torch.long, device=device)
    targets = torch.zeros(n, dtype=torch.long, device=device)
    segments = stream(n, T, device) if packed else None
    for p in model.parameters():
        p.grad = None
    with counted.Counted([*counted.known(model, trunk), ids, targets]) as count:
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        cross_entropy(trunk(ids, segments), model.get_output_embeddings().weight, targets).backward()
    return count.peak


def told(model, dtype: str, T: int, tokens: int, recomputed: bool) -> float:
    """The same by the formula."""
    gradients = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    return finetuning(model, dtype, T).activations(tokens, recomputed) + gradients


@pytest.mark.parametrize("rank", [None, 8])
@pytest.mark.parametrize("kind", OURS)
def test_the_peak_of_a_step_is_the_formulas(kind, rank, monkeypatch):
    """On a CPU with attention by hand and with torch's; on the meta device as on a GPU with and without
    FlashAttention. Each shape is in one data type with full weights, and in the other with an adapter.
    """
    counted.as_on_a_gpu(monkeypatch)
    shapes = [
        ("cpu", 4, 256, False),
        ("cpu", 1, 1024, False),
        ("cpu", 8, 128, True),
        ("meta", 4, 1024, False),
        ("meta", 8, 512, True),
    ]
    models = {device: model_of(kind, device, rank) for device in ("cpu", "meta")}
    for number, (device, rows, T, packed) in enumerate(shapes):
        model, dtype = models[device], ("float32", "bfloat16")[(number + (rank is None)) % 2]
        for recomputed in (False, True):
            peak = peak_of(model, rows, T, getattr(torch, dtype), recomputed, packed)
            ratio = told(model, dtype, T, rows * T, recomputed) / peak
            assert 0.83 < ratio < 1.26, (device, rows, T, packed, dtype, recomputed, ratio)


@pytest.mark.parametrize("rank", [None, 8])
@pytest.mark.parametrize("kind", OWN)
def test_of_transformers_own_forward_the_formula_is_an_upper_bound(kind, rank):
    model = model_of(kind, "cpu", rank)
    for T in (256, 1024):
        for dtype in ("float32", "bfloat16"):
            peak = peak_of(model, 1, T, getattr(torch, dtype), False)
            ratio = told(model, dtype, T, T, False) / peak
            assert 0.9 < ratio < 2.0, (T, dtype, ratio)


@pytest.mark.parametrize("kind", ["stablelm", "llama"])
def test_recomputed_is_the_same_gradient_in_less_memory(kind):
    """Also through transformers' own forward, which recomputes in training mode only."""
    model, ids = model_of(kind, "cpu"), torch.arange(256)[None]
    found = []
    for recomputed in (False, True):
        trunk = Trunk(model, 256, torch.float32, recomputed)
        with counted.Counted(counted.known(model, trunk)) as count:
            trunk(ids).square().mean().backward()
        body = [p for name, p in model.named_parameters() if "lm_head" not in name]
        found.append((count.peak, [p.grad.clone() for p in body]))
        model.zero_grad()
    (plain, gradients), (less, again) = found
    assert less < 0.75 * plain
    assert all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


@pytest.mark.parametrize("kind", ["mamba", "gemma3n_text", "rwkv", "falcon_h1", "mixtral", "opt", "mpt", "openai-gpt"])
def test_whatever_a_configuration_calls_its_sizes_there_is_a_shape(kind):
    step = finetuning(architectures.tiny(kind).requires_grad_(True), "float32", 64)
    assert step.shape.layers == len(ARCHITECTURE_LAYERS.get(kind, "ab")) and step.shape.width == 32 and step.trained
    assert 0 < step.bytes(64, True) < step.bytes(64, False)


def test_an_architecture_that_cannot_recompute_is_not_asked_to(monkeypatch):
    monkeypatch.setattr(transformer, "recomputable", lambda model: False)
    model = model_of("stablelm", "cpu")
    step = finetuning(model, "float32", 64)
    assert choose(step, halves(4096, 64), None, int(step.bytes(4096, True) * 1.1)) == (1024, False)


@pytest.fixture
def h100(monkeypatch):
    """What the logits ask of a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=85 * 10**9))


@pytest.mark.parametrize(
    ("size", "tokens", "least", "most"), [("qwen3-0.6b", 65536, 85e9, 110e9), ("smollm-135m", 65536, 45e9, 60e9)]
)
def test_what_named_sizes_took_at_once(size, tokens, least, most, monkeypatch, h100):
    """A micro-batch of 65,536 tokens, whatever the model, was more than most GPUs have; the bytes are counted."""
    counted.as_on_a_gpu(monkeypatch)
    recipe = pretraining_recipe({"none": 1.0}, size=size, steps=10, dtype="bfloat16")
    with torch.device("meta"):
        model = build(recipe, recipe.vocab_size, 0)
    step, parameters = memory_step(recipe, recipe.vocab_size, "cuda")
    state = 4 * parameters
    peak = state + peak_of(model, tokens // recipe.context, recipe.context, torch.bfloat16, False)
    assert least < step.bytes(tokens, False) < most
    assert 0.9 < step.bytes(tokens, False) / peak < 1.2


def test_the_updates_of_muon_take_what_is_said():
    recipe = pretraining_recipe({"none": 1.0}, depth=8, steps=10, dtype="float32")
    with torch.device("meta"):
        model = build(recipe, recipe.vocab_size, 0)
        own = optimizers(model, recipe)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
    own.muon.dtype = torch.float32
    with counted.Counted(
        [*counted.known(model), *own.muon.buffers.values(), *(p.grad for p in model.parameters())]
    ) as count:
        own.muon.step(1.0)
    assert 0.8 < memory_step(recipe, recipe.vocab_size, "cuda")[0].update / count.peak < 1.3


def step_of(device: str = "cuda", **options):
    """A step of a small shape as if on `device`."""
    return replace(finetuning(model_of("llama", "meta"), "float32", 1024, whole=1024), device=device, **options)


def test_rather_fewer_tokens_than_recomputing_until_they_keep_the_device_busy(h100):
    step = step_of()
    sizes = halves(65536, 1024)
    assert choose(step, sizes, None, None) == (65536, False), "nobody knows what is free"
    met = []
    for room in (
        step.bytes(65536, False),
        step.bytes(16384, False),
        step.bytes(ENOUGH["cuda"], False),
        step.bytes(4096, False),
    ):
        met.append(choose(step, sizes, None, int(room / MARGIN) + 1))
    assert met[:3] == [(65536, False), (16384, False), (8192, False)]
    assert met[3][1] and step.bytes(*met[3]) <= step.bytes(4096, False) < step.bytes(2 * met[3][0], True)
    assert choose(step, sizes, False, int(step.bytes(4096, False) / MARGIN) + 1) == (4096, False)
    assert choose(step, sizes, True, 1 << 50) == (65536, True)
    assert choose(step, sizes, None, int(step.bytes(1024, True))) == (1024, True), "the least without a margin"
    assert choose(step, sizes, None, int(step.bytes(1024, True)) - 1) is None


def test_a_text_passes_whole_however_small_the_micro_batch(h100):
    step = step_of()
    assert step.bytes(64, False) == step.bytes(1024, False) < step.bytes(2048, False)


def test_what_cannot_fit_says_how_much_and_what_would(monkeypatch):
    step, adapter = step_of("cpu"), finetuning(model_of("llama", "meta", 16), "float32", 1024)
    adapter = replace(adapter, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(free_memory, "free", lambda device: int(step.bytes(1024, True)) - 1)
        with pytest.raises(GPTError) as error:
            fit("base", step, halves(4096, 1024), None, "cpu", adapter)
    told = str(error.value)
    assert told.startswith(f"base needs about {amount(step.bytes(1024, True))} to train: ") and "\n" not in told
    assert "for 1,024 tokens at a time. cpu has" in told
    assert told.endswith(f"or --context 512 needs {amount(replace(step, whole=512, text=512).bytes(512, True))}")
    assert f"--lora 16 needs {amount(adapter.bytes(1024, True))}" in told
    with monkeypatch.context() as patch:
        patch.setattr(free_memory, "free", lambda device: 1000)
        with pytest.raises(GPTError, match=r"cpu has 1 kB free: a smaller model would fit$"):
            fit("base", step, [1024], None, "cpu", adapter)


def test_logits_stay_under_a_tenth_of_a_gpu(monkeypatch):
    """Three numbers for each: themselves, their softmax in fp32, their gradient."""
    for total in (16 * 10**9, 24 * 10**9, 85 * 10**9):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device, t=total: SimpleNamespace(total_memory=t)
        )
        rows = chunk_rows(128256, "cuda")
        assert rows > 256 and rows * 128256 * (2 + 4 + 2) < total / 10
        assert (
            memory.Step(memory.Shape(2, 64, 2, 64, 64, 256, 128256, 10**6), "cuda", 2, 64, 0, False, False).logits(
                10**6
            )
            < 0.11 * total
        )


def test_free_memory_of_a_gpu_counts_what_its_allocator_holds(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7_000, 80_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3_000)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 8_000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3_000)
    assert free_memory.free("cuda:0") == 9_000 and free_memory.free("mps") == 5_000
    assert 0 < free_memory.free("cpu") < 1 << 50
