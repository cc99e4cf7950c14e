"""Packed streams: each text as if it were alone, through our forward and through a model's own, with adapters too."""

import numpy as np
import pytest
import torch

from helpers.recipes import pretraining_recipe
from helpers.shapes import FULL
from helpers.shapes import build as build_shape
from jupyter_gpt.data.conversation_rows import IGNORE, PADDING, Batch
from jupyter_gpt.nn import cpu_kernels
from jupyter_gpt.nn.lora import copied, lora
from jupyter_gpt.nn.lora_linear import token_rows, unwrapped
from jupyter_gpt.nn.loss import cross_entropy
from jupyter_gpt.nn.modules import trained
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.nn.varlen import Segments, groups, stream
from jupyter_gpt.stages.pretrain_training import build

LENGTHS = [[5, 9, 3], [12, 4], [1, 70]]  # texts in three rows of 72 cells


def batch(seed=0, T=72, vocab=96):
    random = np.random.default_rng(seed)
    B = len(LENGTHS)
    ids, targets = np.full((B, T), 7), np.full((B, T), IGNORE)
    positions, document = np.zeros((B, T), np.int64), np.full((B, T), PADDING, np.int32)
    for row, lengths in enumerate(LENGTHS):
        at = 0
        for n, length in enumerate(lengths):
            here = slice(at, at + length)
            ids[row, here], positions[row, here], document[row, here] = (
                random.integers(0, vocab, length),
                np.arange(length),
                n,
            )
            targets[row, at + length // 2 : at + length] = random.integers(0, vocab, length - length // 2)
            at += length
        positions[row, at:] = np.arange(T - at)
    return Batch(ids, targets, positions, document)


def texts(rows):
    """The ids and targets of each text by itself, `(1, n)`."""
    for row, lengths in enumerate(LENGTHS):
        at = 0
        for length in lengths:
            here = slice(at, at + length)
            yield torch.from_numpy(rows.ids[row, here])[None], torch.from_numpy(rows.targets[row, here])[None]
            at += length


def tiny(arch="llama", kv_heads=None, dtype=torch.float64):
    recipe = pretraining_recipe({"x": 1}, depth=2, width=32, heads=4, kv_heads=kv_heads, context=128, arch=arch)
    model = build(recipe, 96, 0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return model.to(dtype)


def losses(model, rows, dtype, **options):
    """Mean loss over the trained tokens of a stream through the trunk, with its gradients by name."""
    flat = stream(rows, "cpu", **options)
    trunk = Trunk(model, 128, dtype)
    hidden = trunk(flat.ids, flat.segments)[0, flat.trained]
    head = model.get_output_embeddings()
    loss = cross_entropy(hidden, unwrapped(head).weight, flat.targets, own=token_rows(head))
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.detach(), found


def own(model, rows):
    """The same through transformers, text by text."""
    total, count = 0.0, 0
    for ids, targets in texts(rows):
        logits = model(input_ids=ids).logits
        total = total + torch.nn.functional.cross_entropy(logits[0], targets[0], ignore_index=IGNORE, reduction="sum")
        count += int((targets != IGNORE).sum())
    (total / count).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return (total / count).detach(), found


CASES = [("llama", None), ("llama", 2), ("qwen3", 2), ("gpt2", None)]


@pytest.mark.parametrize("arch, kv_heads", CASES)
@pytest.mark.parametrize("padded", [False, True])
def test_packed_hidden_states_are_those_of_each_text_alone(arch, kv_heads, padded):
    model, rows = tiny(arch, kv_heads), batch()
    flat = stream(rows, "cpu", padded)
    with torch.no_grad():
        trunk = Trunk(model, 128, torch.float64)
        packed = trunk(flat.ids, flat.segments)[0]
        ours = [trunk(ids)[0] for ids, _ in texts(rows)]
        alone = [model.base_model(input_ids=ids).last_hidden_state[0] for ids, _ in texts(rows)]
    if padded:
        packed = packed[torch.from_numpy(rows.document.ravel() != PADDING)]
    assert torch.allclose(packed, torch.cat(ours), atol=1e-12)
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)  # transformers' norms go through fp32


def test_packed_logits_of_smollm2_are_those_of_each_text_alone(smollm2):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    said = ["The old fox.", "Why is the sky blue? " * 9, "2 + 2 = 4, and 4 + 4 = 8; so much is certain. " * 4, "Yes"]
    ids = [tokenizer(text, return_tensors="pt").input_ids for text in said]
    lengths = [row.shape[1] for row in ids]
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    segments = Segments(lengths, torch.cat([torch.arange(n) for n in lengths]), bounds, max(lengths))
    with torch.no_grad():
        packed = model.lm_head(Trunk(model, 128, torch.float32)(torch.cat(ids, 1), segments))[0]
        alone = torch.cat([model(input_ids=row).logits[0] for row in ids])
    assert max(lengths) > 50 and torch.allclose(packed, alone, atol=1e-4, rtol=1e-5)  # logits reach 20


@pytest.mark.parametrize("arch, kv_heads", CASES)
@pytest.mark.parametrize(
    "adapter",
    [
        None,
        {},
        {"rslora": True, "targets": ["q_proj", "down_proj", "c_attn"]},
        {"dora": True},
        {"tokens": [*range(5, 40)]},
    ],
)
def test_packed_losses_and_gradients_are_those_of_transformers(arch, kv_heads, adapter):
    base, rows = tiny(arch, kv_heads), batch()
    if adapter is None:
        model = base.requires_grad_(True)
    else:
        adapter = dict(adapter)
        if "targets" in adapter:
            adapter["targets"] = [t for t in adapter["targets"] if (t == "c_attn") == (arch == "gpt2")]
        model = lora(base, 3, **adapter).double()
        with torch.no_grad():
            for p in trained(model):
                p.add_(torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(4)) * 0.1)
    loss, gradients = losses(model, rows, torch.float64)
    wanted, theirs = own(model, rows)
    assert abs(loss - wanted) < 1e-5  # the loss itself is summed in fp32
    assert gradients.keys() == theirs.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    for name, gradient in theirs.items():
        assert torch.allclose(gradients[name], gradient, atol=1e-5, rtol=1e-4), name


def test_no_token_sees_another_text():
    model, rows = tiny(), batch()
    flat = stream(rows, "cpu")
    other = flat.ids.clone()
    other[0, :5] = (other[0, :5] + 1) % 96
    trunk = Trunk(model, 128, torch.float64)
    with torch.no_grad():
        a, b = trunk(flat.ids, flat.segments)[0], trunk(other, flat.segments)[0]
    assert not torch.equal(a[:5], b[:5])
    assert torch.equal(a[5:], b[5:])


def test_a_model_of_another_architecture_goes_its_own_way():
    model = copied(build_shape("starcoder2", sliding_window=8)).double()
    rows = batch()
    assert Trunk(model, 128, torch.float64).architecture is None
    loss, gradients = losses(model, rows, torch.float64)
    wanted, theirs = own(model, rows)
    assert abs(loss - wanted) < 1e-5
    assert all(torch.allclose(gradients[name], theirs[name], atol=1e-5) for name in theirs)


def test_long_texts_take_torch_s_kernel():
    from jupyter_gpt.nn import cpu_kernels

    model, rows = tiny(), batch()
    flat = stream(rows, "cpu")
    trunk = Trunk(model, 128, torch.float64)
    with torch.no_grad():
        short = trunk(flat.ids, flat.segments)
        trunk.mask = trunk.mask[:16, :16]  # as if cpu_kernels.LONGEST were 16
        long = trunk(flat.ids, flat.segments)
    assert cpu_kernels.LONGEST > 16 and torch.allclose(short, long, atol=1e-12)


def test_blocks_made_again_give_the_same_gradients():
    model, rows = tiny().requires_grad_(True), batch()
    flat = stream(rows, "cpu")
    found = []
    for recomputed in (False, True):
        hidden = Trunk(model, 128, torch.float64, recomputed)(flat.ids, flat.segments)
        hidden.square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_bias_and_other_extras_of_foreign_llamas():
    model = copied(build_shape("llama", **FULL["llama"]))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_()
    for one in (model.double(), lora(copied(model).requires_grad_(False), 2).double()):
        loss, gradients = losses(one, batch(), torch.float64)
        wanted, theirs = own(one, batch())
        assert abs(loss - wanted) < 1e-5
        assert all(torch.allclose(gradients[name], theirs[name], atol=1e-5) for name in theirs)
    assert Trunk(build_shape("llama", hidden_act="gelu"), 128, torch.float32).architecture is None


def test_texts_of_like_length_are_padded_together():
    lengths = [100, 3, 98, 4, 5, 50]
    found = groups(lengths)
    assert sorted(n for group in found for n in group) == list(range(6))
    padded = sum(max(lengths[n] for n in group) * len(group) for group in found)
    assert padded < 1.5 * sum(lengths) + 32 * len(found)
    assert groups([]) == []


@pytest.mark.parametrize("lengths", [[300, 40, 40, 38, 1, 100, 97, 2], [40] * 3, [7], [270, 260, 257]])
def test_texts_laid_side_by_side_attend_as_each_by_itself(lengths):
    G, r, h, N = 2, 3, 8, sum(lengths)
    generator = torch.Generator().manual_seed(0)

    def drawn(heads):
        return torch.randn(1, heads, N, h, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v, weights = drawn(G * r), drawn(G), drawn(G), torch.randn(N, G * r, h, generator=generator).double()
    mask = torch.full((512, 512), float("-inf"), dtype=torch.float64).triu_(1)
    found = cpu_kernels.PackedAttention.apply(q, k, v, mask, lengths)[0]
    alone = torch.cat(
        [
            torch.nn.functional.scaled_dot_product_attention(*text, is_causal=True, enable_gqa=True)
            for text in zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
        ],
        dim=2,
    )[0].transpose(0, 1)
    assert torch.allclose(found, alone, atol=1e-12)
    for x, y in zip(*(torch.autograd.grad((y * weights).sum(), (q, k, v)) for y in (found, alone)), strict=True):
        assert torch.allclose(x, y, atol=1e-12)
