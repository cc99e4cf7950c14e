"""Every stage's loss, on every architecture, is that of the model's own logits: packed beside other texts or alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.architectures import ARCHITECTURES, ROPES, VOCAB, tiny
from jupyter_gpt.data.conversation_rows import IGNORE, PADDING, Batch
from jupyter_gpt.data.prompt_completion import PromptCompletion
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.scoring import scores
from jupyter_gpt.nn.heads import with_head
from jupyter_gpt.nn.logprobs import Reader, logprobs
from jupyter_gpt.nn.lora import copied, lora, merged
from jupyter_gpt.nn.modules import context_of, trained
from jupyter_gpt.stages.pretrain_training import Training, held_out_losses
from jupyter_gpt.stages.sft_training import Supervised

T = 14
LENGTHS = (9, 5, 12)
TEXTS = torch.randint(5, VOCAB, (3, T), generator=torch.Generator().manual_seed(1))
MARGIN = {"rtol": 1e-4, "atol": 2e-5}


def texts():
    """Each text's ids `(1, n)`, and the places that are trained on: those before its second half."""
    for ids, length in zip(TEXTS, LENGTHS, strict=True):
        yield ids[None, :length], slice(length // 2 - 1, length - 1)


def packed():
    """The first two texts in one row, the third in another."""
    ids, targets = np.full((2, T), 7), np.full((2, T), IGNORE)
    positions, document = np.tile(np.arange(T), (2, 1)), np.full((2, T), PADDING, np.int32)
    for n, (row, at) in enumerate([(0, 0), (0, LENGTHS[0]), (1, 0)]):
        here, text = slice(at, at + LENGTHS[n]), TEXTS[n, : LENGTHS[n]].numpy()
        ids[row, here], positions[row, here], document[row, here] = text, np.arange(LENGTHS[n]), n
        targets[row, at + LENGTHS[n] // 2 - 1 : at + LENGTHS[n] - 1] = text[LENGTHS[n] // 2 :]
    return Batch(ids, targets, positions, document)


def finetuning(model):
    """A finetuning run as its loop sees it, one validation batch among it."""
    recipe = SimpleNamespace(checkpointing=False, context=T, dtype="float32", batch_tokens=2 * T, micro_tokens=4096)
    rows = SimpleNamespace(batch=lambda places: packed())
    held_out = {"texts": (1.0, [packed()])}
    return Supervised(recipe=recipe, model=model, optimizers=None, rows=rows, held_out=held_out, ends=frozenset())


def own(model):
    """The nats of every trained token of every text, by the model's own forward and torch's cross-entropy."""
    found = []
    for ids, places in texts():
        logits = model(input_ids=ids, use_cache=False).logits[0, places].float()
        found.append(cross_entropy(logits, ids[0, places.start + 1 : places.stop + 1], reduction="none"))
    return found


def gradients(model):
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def check(model):
    """The losses of all stages and their gradients."""
    wanted = own(model)
    mean = torch.cat(wanted).mean()
    mean.backward()
    theirs = gradients(model)

    training = finetuning(model)
    micro = training.micro_batch(1, 0)
    loss = training.loss(micro.inputs)
    loss.backward()
    ours = gradients(model)
    torch.testing.assert_close(loss, mean, **MARGIN)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            ours[name], gradient, rtol=1e-3, atol=2e-5 + 1e-4 * scale, msg=lambda m, n=name: n + m
        )
    assert list(training.evaluate())[-1].values["val_loss"] == pytest.approx(float(mean.detach()), rel=1e-4), (
        "validation"
    )

    rows = [
        PromptCompletion(tuple(ids[0, : p.start + 1].tolist()), tuple(ids[0, p.start + 1 :].tolist()))
        for ids, p in texts()
    ]
    found, _ = logprobs(Reader(model), rows)
    for row, nats in zip(found, wanted, strict=True):
        torch.testing.assert_close(-row[: len(nats)], nats, **MARGIN)
    found[2].sum().backward()
    assert gradients(model).keys() == theirs.keys()
    return theirs


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_loss_of_every_stage_is_the_model_s_own(kind):
    base = tiny(kind)
    model = copied(base)
    check(model)

    recipe = SimpleNamespace(checkpointing=False, context=T, dtype="float32")
    trunk, head = Training(recipe=recipe, model=model, optimizers=None, rows=None).forward_functions()[1:]
    with torch.no_grad():
        logits = torch.cat([model(input_ids=row[None, :-1], use_cache=False).logits[0] for row in TEXTS]).float()
    wanted = cross_entropy(logits, TEXTS[:, 1:].flatten())
    ids, targets = TEXTS[:, :-1], TEXTS[:, 1:].contiguous()  # rows of one length, each byte a token
    nats, count, _, _ = held_out_losses(trunk, head, torch.ones(VOCAB), ids, targets)
    assert count == targets.numel() and nats / count == pytest.approx(float(wanted), rel=1e-4), "pretraining"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_adapter_reaches_all_that_it_adapts_and_merges_to_the_same_model(kind):
    base = tiny(kind)
    model = lora(base, 4)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trained(model):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    gradients = check(model)
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    whole = merged(model)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(own(whole)), torch.cat(own(model)), **MARGIN)
    assert not torch.allclose(torch.cat(own(model)), torch.cat(own(base)), atol=1e-3)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_scores_are_those_of_the_library_s_classifier(kind):
    try:
        model = lora(with_head(tiny(kind), ["reward"], 0, seed=1), 4, task="SEQ_CLS")
    except GPTError as error:
        assert any(why in str(error) for why in ("has no classifier for", "a classifier of another make"))
        return
    with torch.no_grad():
        for parameter in trained(model):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1)
        rows = [ids[0].tolist() for ids, _ in texts()]
        wanted = torch.cat([model(input_ids=ids).logits[0] for ids, _ in texts()]).float()
        torch.testing.assert_close(scores(Reader(model), rows), wanted, **MARGIN)


@pytest.mark.parametrize("kind", ["llama", "starcoder2"])
@pytest.mark.parametrize("rope", ROPES)
def test_rotations_that_depend_on_the_longest_text_are_each_text_s_own(kind, rope):
    """The texts have 9, 5 and 12 tokens, and the model was trained on 8."""
    positions = 8 if rope == "dynamic" else 32
    model = copied(tiny(kind, max_position_embeddings=positions, rope_parameters=ROPES[rope]))
    check(model)
    assert context_of(model) == 32


def test_the_context_of_scaled_rope_is_what_the_configuration_says_unless_it_grows():
    linear = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    assert context_of(tiny("llama", rope_parameters=linear)) == context_of(tiny("llama")) == 64
    assert context_of(tiny("xlnet")) == context_of(tiny("bloom")) == 1 << 30
