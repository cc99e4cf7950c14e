"""Rows for chat tokens that a base never learned: which they are, and an adapter that has them is peft's own
everywhere.
"""

import copy

import pytest
import torch

from helpers.recipes import pretraining_recipe
from helpers.shapes import build as build_shape
from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.data.tokenizer import CHAT, delimiter, train_bpe
from jupyter_gpt.nn import lora as adapters
from jupyter_gpt.nn.chat_tokens import template_tokens, untrained
from jupyter_gpt.nn.logprobs import Reader, logprobs
from jupyter_gpt.nn.lora import clone_adapter, lora, merged, own_tokens, plain_base
from jupyter_gpt.nn.lora_linear import TokenRows, token_rows, unwrapped
from jupyter_gpt.nn.loss import cross_entropy
from jupyter_gpt.nn.modules import trained
from jupyter_gpt.nn.optimizer import finetuning_optimizers
from jupyter_gpt.stages.policy import policy_of, scorer_of
from jupyter_gpt.stages.pretrain_training import build

TOKENS = [1, 2, 9, 11]  # some of them in ROWS
ROWS = [
    PromptCompletion((5, 6, 7), (8, 9, 10, 11)),
    PromptCompletion((12,), (13,)),
    PromptCompletion((3, 4, 5, 6, 7, 8), (9, 4)),
]
TALES = [f"Tale {n}. The old fox saw {n} small birds and was glad." for n in range(60)]


def tiny(arch="llama", vocab=90):
    recipe = pretraining_recipe(
        {"x": 1}, depth=2, width=32, heads=4, kv_heads=2 if arch != "gpt2" else None, context=64, arch=arch
    )
    model = build(recipe, vocab, 0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
    return model


def stablelm():
    return build_shape("stablelm", hidden_size=64).requires_grad_(False)


SHAPES = [
    lambda: tiny("llama"),
    lambda: tiny("qwen3"),
    lambda: tiny("gpt2"),
    stablelm,
]  # gpt2 is tied, stablelm not ours


def moved(model, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in trained(model):
            p.add_(torch.randn(p.shape, generator=generator).to(p.dtype) * 0.1)
    return model


def one_by_one(model, row):
    """Log-probability and entropy of each token of a completion by the model's own forward."""
    every = torch.log_softmax(model(input_ids=torch.tensor([row.ids])).logits[0].double(), -1)[len(row.prompt) - 1 : -1]
    return every.gather(1, torch.tensor(row.completion)[:, None])[:, 0], -(every.exp() * every).sum(-1)


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 1, 2, 9, 11, 40]])).logits


@pytest.mark.parametrize("shape", SHAPES)
def test_an_adapter_with_rows_begins_as_its_base_and_leaves_it_alone(shape):
    base = shape()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = lora(base, 2, tokens=TOKENS)
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    rows = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert len(rows) == (1 if tied else 2) and own_tokens(model) == TOKENS
    assert torch.equal(logits(model), logits(base))
    moved(model)
    assert (logits(model) - logits(base))[..., TOKENS].abs().min() > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())
    assert torch.equal(logits(plain_base(model)), logits(base))
    whole = merged(model)
    assert type(whole) is type(base) and torch.allclose(logits(whole), logits(model), atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("more", [{}, {"dora": True, "rslora": True}])
def test_the_saved_folder_is_peft_s_own_on_the_plain_base(shape, more, tmp_path):
    from peft import PeftModel

    base = shape()
    model = moved(lora(base, 2, tokens=TOKENS, **more))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    assert torch.equal(logits(loaded), logits(model))
    second = clone_adapter(model)
    assert own_tokens(second) == TOKENS and torch.equal(logits(second), logits(model))
    kept = logits(model)
    moved(second, 6)
    assert torch.equal(logits(model), kept) and not torch.equal(logits(second), kept)


@pytest.mark.parametrize("shape", SHAPES)
def test_log_probabilities_and_their_gradients_are_those_of_peft(shape):
    weights, found = torch.randn(3, 4), []
    for own in (True, False):
        model = moved(lora(shape(), 2, tokens=TOKENS))
        if own:
            reader = Reader(model)
            assert reader.head.matrix is model.get_output_embeddings(), "the whole of the head, rows and all"
            logp, entropy = logprobs(reader, ROWS)
            expected = [one_by_one(model, row) for row in ROWS]
            for n, (nats, spread) in enumerate(expected):
                torch.testing.assert_close(logp[n, : len(nats)].double(), nats, atol=2e-5, rtol=1e-5)
                torch.testing.assert_close(entropy[n, : len(nats)].double(), spread, atol=2e-5, rtol=1e-5)
        else:
            each = [one_by_one(model, row)[0] for row in ROWS]
            logp = torch.stack([torch.nn.functional.pad(nats, (0, 4 - len(nats))) for nats in each])
        (logp * weights).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name in found[1]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_loss_over_a_table_with_rows_is_that_over_the_table_they_make(dtype):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, rows = (torch.randn(n, 16, generator=generator, dtype=dtype) for n in (600, 50, 2))
    targets = torch.randint(0, 50, (600,), generator=generator)
    targets[::7] = -100
    ids, found = torch.tensor([3, 41]), []
    for own in (True, False):
        h, r = hidden.clone().requires_grad_(True), rows.clone().requires_grad_(True)
        if own:
            loss = cross_entropy(h, weight, targets, own=TokenRows(ids, r))
        else:
            loss = torch.nn.functional.cross_entropy((h @ weight.index_copy(0, ids, r).t()).float(), targets)
        loss.backward()
        found.append((loss.detach().double(), h.grad, r.grad))
    tolerance = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float64 else {"atol": 2e-3, "rtol": 5e-2}
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_policy_and_reward_model_of_such_an_adapter_go_on_from_its_rows_and_the_reference_does_not_move():
    base = tiny()
    start = moved(lora(base, 2, tokens=TOKENS))
    kept = logits(start)
    policy = policy_of(start, 8, 0)
    assert torch.equal(logits(policy), kept)
    moved(policy, 7)
    assert torch.equal(logits(start), kept) and not torch.equal(logits(policy), kept)
    reference, plain = logprobs(Reader(start), ROWS)[0], logprobs(Reader(base), ROWS)[0]
    torch.testing.assert_close(reference[0].double(), one_by_one(start, ROWS[0])[0], atol=2e-5, rtol=1e-5)
    assert (reference - plain).abs().max() > 1e-2
    scorer = scorer_of(start, 8, 0, 1)
    ids = torch.tensor([[5, *TOKENS]])
    hidden = start.get_base_model().model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(scorer.get_base_model().model(input_ids=ids).last_hidden_state, hidden)
    assert own_tokens(scorer) == TOKENS


def test_rows_are_stepped_without_decay_and_by_no_muon():
    from types import SimpleNamespace

    model = lora(tiny(), 2, tokens=TOKENS)
    rows = {p for name, p in model.named_parameters() if "trainable_tokens_delta" in name}
    betas = {"momentum": 0.95, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "lr": 0.01}
    for kind in ("adamw", "muon"):
        found = finetuning_optimizers(model, SimpleNamespace(optimizer=kind, weight_decay=0.1, **betas))
        groups = [group for group in found.adamw.param_groups if rows & set(group["params"])]
        assert sum(len(rows & set(group["params"])) for group in groups) == 2
        assert all(group["weight_decay"] == 0 for group in groups)
        assert {name for p, name in found.names.items() if p in rows} < set(found.names.values())


def test_an_adapter_that_is_off_shows_the_rows_of_its_base():
    base = tiny()
    model = moved(lora(base, 2, tokens=TOKENS))
    head = model.get_output_embeddings()
    assert token_rows(head).ids.tolist() == TOKENS and unwrapped(head).weight is base.lm_head.weight
    with model.disable_adapter():
        assert token_rows(head) is None
        torch.testing.assert_close(logprobs(Reader(model), ROWS)[0], logprobs(Reader(base), ROWS)[0])
    assert token_rows(base.lm_head) is None


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TALES, 320)


def test_of_a_base_made_here_the_chat_tokens_are_new_and_those_of_an_assistant_are_not(tokenizer):
    base = tiny(vocab=len(tokenizer))
    assert untrained(base, tokenizer) == tokenizer.convert_tokens_to_ids(list(CHAT))
    assert delimiter(tokenizer) in template_tokens(tokenizer) and delimiter(tokenizer) not in untrained(base, tokenizer)
    from jupyter_gpt.data.chat import with_template

    assert untrained(base, with_template(tokenizer)) == []


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_of_a_vocabulary_that_was_extended_the_new_tokens_are_found_until_they_are_learned(arch, tokenizer):
    from jupyter_gpt.data.chat import CHATML

    base, known = tiny(arch, len(tokenizer)), copy.deepcopy(tokenizer)
    known.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    known.chat_template = CHATML
    marks = known.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    torch.manual_seed(0)
    base.resize_token_embeddings(len(known), pad_to_multiple_of=64)
    assert untrained(base, known) == marks
    with torch.no_grad():
        base.get_output_embeddings().weight[marks] += 0.1 * torch.randn(2, 32)
    assert untrained(base, known) == []


def test_of_a_published_assistant_none_is_new(smollm2):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    known = AutoTokenizer.from_pretrained(smollm2)
    assert template_tokens(known) == set(known.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    assert untrained(AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32), known) == []


def test_a_head_with_a_bias_has_no_rows_in_peft(tokenizer):
    from transformers import PhiConfig, PhiForCausalLM

    model = PhiForCausalLM(
        PhiConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
        )
    )
    assert untrained(model, tokenizer) == []
    assert adapters.row_targets(model, []) is None
