"""The loss of a model on texts: against transformers' own, in windows of the context, and what is refused."""

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from helpers.errors import fail
from helpers.tiny import TALES
from jupyter_gpt.data.tokenizer import delimiter


def ids_of(model, text: str) -> list[int]:
    return [delimiter(model.tokenizer), *model.tokenizer(text, add_special_tokens=False).input_ids]


def own_loss(model, ids: list[int]) -> float:
    row = torch.tensor([ids])
    with torch.no_grad():
        return float(model.module(input_ids=row, labels=row).loss)


def test_the_loss_of_each_text_is_that_of_transformers(gpt, tiny_model):
    model = tiny_model(gpt, "fox")
    texts = [TALES[0], "The hen sang.", TALES[31]]
    assert max(len(ids_of(model, text)) for text in texts) <= 64, "each fits in the context"
    assert model.losses(texts) == pytest.approx([own_loss(model, ids_of(model, text)) for text in texts], abs=1e-4)
    assert model.losses(texts[1]) == pytest.approx(model.losses(texts)[1], abs=1e-5)


def test_a_text_begins_as_its_tokenizer_begins_it(gpt, tiny_model):
    """With `<s>`, as those of Llama and Gemma do, and not with the `</s>` that ends a text."""
    model = tiny_model(gpt, "fox")
    model.tokenizer.bos_token = "<|system|>"
    first = model.tokenizer.bos_token_id
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", first)]
    )
    text = TALES[0]
    ids = model.tokenizer(text).input_ids
    assert ids[0] == first != delimiter(model.tokenizer)
    assert model.losses(text) == pytest.approx(own_loss(model, ids), abs=1e-4)


def test_a_long_text_is_read_in_windows_each_token_once(gpt, tiny_model):
    model = tiny_model(gpt, "fox", context=16)
    text = " ".join(TALES[:3])
    ids = ids_of(model, text)
    assert len(ids) > 48
    pieces = [ids[first : first + 16] for first in range(0, len(ids) - 1, 15)]
    sums = [own_loss(model, piece) * (len(piece) - 1) for piece in pieces]
    assert model.losses(text) == pytest.approx(sum(sums) / (len(ids) - 1), abs=1e-4)


def test_what_has_no_loss(gpt, tiny_model):
    model = tiny_model(gpt, "fox")
    assert fail(model.losses, ["The hen sang.", ""]).startswith("losses takes a text or a list of texts")
    assert fail(model.losses, 3).startswith("losses takes a text")
    gpt.models.keep("head", model.module, model.tokenizer, "classify", None, ["head"], 0, labels=["a", "b"])
    assert "predicts no text" in fail(gpt.models["head"].losses, "The hen sang.")
    gpt.unload("fox")
    assert "not in memory" in fail(model.losses, "The hen sang.")
