"""Tokenizers: exact round trips, through disk too; special tokens reserved and never made from text."""

import inspect
import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from jupyter_gpt.data.tokenizer import (
    CHAT,
    EOT,
    MIN_VOCAB_SIZE,
    SPECIALS,
    UNKNOWN,
    Encoder,
    delimiter,
    token_bytes,
    train_bpe,
    train_char,
)
from jupyter_gpt.errors import GPTError

TEXTS = [inspect.getsource(json), inspect.getsource(json.decoder), "Mia had 12 hens , and Tom didn't .\n"]
AWKWARD = [
    "",
    " ",
    "\n",
    "  two leading, two trailing  ",
    "do n't , really . isn 't",
    "a\r\nb\r\n\r\nc\n\n\n  d\t\te",
    "naïve café — “quoted” 😀👩‍👩‍👧 日本語 \u200b\x00\x7f",
    "12345 1,234.5 x2y",
    "def f():\n    return  1\n",
    "I'LL we'Re 'S",
]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    train_bpe(TEXTS, 320).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def char(tmp_path_factory):
    folder = tmp_path_factory.mktemp("char")
    train_char([*TEXTS, *AWKWARD]).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", AWKWARD + TEXTS[:2])
def test_any_text_comes_back_exactly_after_a_reload(bpe, char, text):
    for tokenizer in (bpe, char):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
        (ids,) = Encoder(tokenizer)([text])
        assert tokenizer.decode(ids) == text
    assert len(char(text).input_ids) == len(text)


def test_sizes(bpe):
    assert len(bpe) == 320 == max(bpe.get_vocab().values()) + 1
    assert MIN_VOCAB_SIZE <= len(train_bpe(["tiny"], 5000)) < 300
    with pytest.raises(GPTError, match="at least 261"):
        train_bpe(TEXTS, 260)


def test_special_tokens_are_reserved(bpe, char):
    for tokenizer in (bpe, char):
        assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIALS] == list(range(len(SPECIALS)))
        assert tokenizer.eos_token == tokenizer.bos_token == tokenizer.pad_token == EOT
        assert delimiter(tokenizer) == 0
        assert tokenizer.chat_template is None
        assert set(CHAT) <= set(tokenizer.all_special_tokens)


def test_special_tokens_spelled_out_in_a_document_stay_text(bpe, char):
    text = f"a {EOT} b <|user|>"
    for tokenizer in (bpe, train_char([text])):
        (ids,) = Encoder(tokenizer)([text])
        assert not set(ids) & set(range(len(SPECIALS)))
        assert tokenizer.decode(ids) == text
        assert 0 in tokenizer(text).input_ids  # and the tokenizer itself still knows them


def test_digits_are_single_tokens(bpe):
    assert [bpe.decode([i]) for i in bpe("2748").input_ids] == list("2748")


def test_an_unknown_character(char):
    tokenizer = train_char(["abc"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("axc").input_ids) == ["a", UNKNOWN, "c"]
    with pytest.raises(GPTError, match="3 different characters"):
        train_char(["abc"], vocab_size=8)


def test_training_is_deterministic():
    first, second = (train_bpe(TEXTS, 400).backend_tokenizer.to_str() for _ in range(2))
    assert first == second
    assert json.loads(train_char(["ba"]).backend_tokenizer.to_str())["model"]["vocab"]["a"] == 6


@pytest.mark.parametrize("text", AWKWARD)
def test_token_bytes_add_up(bpe, char, text):
    for tokenizer in (bpe, char):
        count = token_bytes(tokenizer)
        assert count.dtype == np.int32 and count.shape == (len(tokenizer),)
        (ids,) = Encoder(tokenizer)([text])
        assert count[ids].sum() == len(text.encode())
        assert count[0] == 0


def test_token_bytes_of_a_sentencepiece_like_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "</s>": 1, "▁the": 2, "é": 3, "<0x0A>": 4}
    inner = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>")
    assert token_bytes(tokenizer).tolist() == [0, 0, 4, 2, 1]
    assert delimiter(tokenizer) == 1
    with pytest.raises(GPTError, match="end-of-text"):
        delimiter(PreTrainedTokenizerFast(tokenizer_object=inner))
