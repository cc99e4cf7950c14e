"""Text from tokens: whatever is shown on the way stays, and the end is what the tokenizer says of all of them."""

import random

import pytest

from jupyter_gpt.data.tokenizer import train_bpe, train_char
from jupyter_gpt.inference.answer import BROKEN, Detokenizer, decoder

HARD = "é naïve 🙂👩‍👩‍👧 日本語 — café, don't  stop\n\n\tx = {1: '£'} ƒ 🏳️‍🌈 end"


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(["plain words, and no letter that needs two bytes"] * 3, 280)


def said(tokenizer, ids, prompt=()):
    """What is told after each token, and at the end."""
    reader = Detokenizer(decoder(tokenizer), prompt)
    told = []
    for token in ids:
        reader.add([token])
        told.append(reader.text)
    return told, reader.end()


def test_no_half_character_is_ever_told(bpe):
    ids = bpe(HARD, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(HARD)  # characters are split over tokens
    told, end = said(bpe, ids, bpe("Begin: ")["input_ids"])
    assert end == HARD
    assert all(HARD.startswith(text) and BROKEN not in text for text in told)
    assert len(set(told)) > len(HARD) // 2  # and it does not wait for the end


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_end_as_the_tokenizer_has_them(bpe, seed):
    dice = random.Random(seed)
    ids = [dice.randrange(len(bpe)) for _ in range(60)]
    told, end = said(bpe, ids)
    assert end == bpe.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert all(end.startswith(text) for text in told)


def test_several_tokens_at_once_are_the_same_text(bpe):
    ids = bpe(HARD, add_special_tokens=False)["input_ids"]
    reader = Detokenizer(decoder(bpe))
    for start in range(0, len(ids), 7):
        reader.add(ids[start : start + 7])
    assert reader.end() == HARD


def test_a_cut_character_is_shown_as_broken_only_at_the_end(bpe):
    ids = bpe("ab🙂", add_special_tokens=False)["input_ids"][:-1]
    told, end = said(bpe, ids)
    assert told[-1] == "ab"
    assert end == "ab" + BROKEN


def test_a_character_tokenizer():
    tokenizer = train_char([HARD])
    assert said(tokenizer, tokenizer(HARD)["input_ids"])[1] == HARD


def test_the_space_that_sentencepiece_drops_at_the_front_is_kept():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "▁Once": 1, "▁upon": 2, "▁a": 3}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert tokenizer.decode([2, 3]) == "upon a"
    assert said(tokenizer, [2, 3], prompt=[1])[1] == " upon a"
