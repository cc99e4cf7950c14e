"""Every architecture that has forwards of ours, with all that its configuration can ask for, against transformers: the
training forward. `tests/inference/test_shapes.py` does the same for the decoding forward."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.shapes import FULL, PADDING, VOCAB, build, full
from jupyter_gpt.nn.architectures import KINDS, is_known_architecture
from jupyter_gpt.nn.lora import copied, lora
from jupyter_gpt.nn.modules import trained
from jupyter_gpt.nn.output_head import output_head
from jupyter_gpt.nn.transformer import Trunk
from jupyter_gpt.nn.varlen import Segments

CONTEXT = 64
LENGTHS = [5, 31, 1, 12, 60]  # windows are of 7


def texts(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, PADDING, (1, n), generator=generator) for n in lengths]


def packed(rows):
    lengths = [row.shape[1] for row in rows]
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Segments(lengths, torch.cat([torch.arange(n) for n in lengths]), bounds, max(lengths))


def gradients(model, logits):
    """Of a loss that every logit has a part in, by name."""
    targets = torch.randint(0, VOCAB, (len(logits),), generator=torch.Generator().manual_seed(2))
    cross_entropy(logits, targets).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def equal(model, logits, wanted):
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    ours, theirs = gradients(model, logits), gradients(model, wanted)
    assert ours.keys() == theirs.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-3, atol=1e-6 + 1e-4 * scale, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_all_of_the_table_is_tried():
    assert {name.partition(" ")[0] for name in FULL} == {"gpt2", *KINDS}


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("attention", ["cpu kernels", "fused kernels"])
def test_logits_and_gradients_are_those_of_transformers(name, attention):
    model = copied(full(name))
    trunk, rows = Trunk(model, CONTEXT, torch.float32), torch.cat(texts([40] * 3))
    assert trunk.architecture is not None
    if attention == "fused kernels":
        trunk.mask = trunk.mask[:5, :5]  # as if cpu_kernels.LONGEST were 5
    logits = output_head(trunk).logits(trunk(rows).flatten(0, 1))
    equal(model, logits, model(input_ids=rows, use_cache=False).logits.flatten(0, 1))


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("attention", ["cpu kernels", "fused kernels"])
def test_packed_texts_are_each_by_itself(name, adapter, attention):
    model, rows = full(name), texts()
    if adapter:
        model = lora(model.requires_grad_(False), 4)
        with torch.no_grad():
            for parameter in trained(model):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)) * 0.1)
    else:
        model = copied(model)
    trunk = Trunk(model, CONTEXT, torch.float32)
    if attention == "fused kernels":
        trunk.mask = trunk.mask[:5, :5]
    logits = output_head(trunk).logits(trunk(torch.cat(rows, 1), packed(rows))[0])
    equal(model, logits, torch.cat([model(input_ids=row, use_cache=False).logits[0] for row in rows]))


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text", "olmo2"])
def test_half_precision_is_as_near_to_single_as_transformers_is(name):
    model, rows = full(name).requires_grad_(False), torch.cat(texts([40] * 3))
    trunk = Trunk(model, CONTEXT, torch.bfloat16)
    with torch.no_grad():
        wanted = model.model(input_ids=rows).last_hidden_state
        ours = (trunk(rows).float() - wanted).abs().mean()
        with trunk.autocast(torch.device("cpu")):
            theirs = (model.model(input_ids=rows).last_hidden_state.float() - wanted).abs().mean()
    assert ours < 1.5 * theirs


LONG = dict(rope_type="longrope", rope_theta=1e4, factor=4.0, short_factor=[1.0] * 8, long_factor=[2.0] * 8)
UNKNOWN = {
    "rotations that depend on the length": (
        "phi3",
        dict(rope_parameters=LONG, num_attention_heads=3, num_key_value_heads=1),
    ),
    "dynamic rotations": ("mistral", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0))),
    "of one type of layer only": (
        "gemma3_text",
        dict(
            rope_parameters=dict(
                full_attention=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0),
                sliding_attention=dict(rope_type="default", rope_theta=1e4),
            ),
            layer_types=["sliding_attention", "full_attention"],
        ),
    ),
    "part of each head rotated": (
        "phi3",
        dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)),
    ),
    "another activation": ("qwen2", dict(hidden_act="relu")),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_the_table_does_not_know_goes_its_own_way(what):
    kind, options = UNKNOWN[what]
    model = copied(build(kind, **options))
    trunk, rows = Trunk(model, CONTEXT, torch.float32), texts()
    assert not is_known_architecture(model) and trunk.architecture is None
    logits = output_head(trunk).logits(trunk(torch.cat(rows, 1), packed(rows))[0])
    equal(model, logits, torch.cat([model(input_ids=row, use_cache=False).logits[0] for row in rows]))


def test_a_model_that_sees_later_tokens_is_not_known():
    assert not is_known_architecture(build("gemma3_text", use_bidirectional_attention=True))
