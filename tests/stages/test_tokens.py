"""Tokens shown exactly: their bytes spell the text again, split characters are hex, evil text stays text."""

import pytest

from helpers import rendered
from jupyter_gpt.data.token_text import Piece, pieces, readable, token_text, visible
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.tokens import tokens_report

TEXT = "Hello world,\n\tthe 価格 €5 🙂\u200b <script>alert('x')</script>\x00<|endoftext|>the\xa0talk"


def byte_level(trim: bool = False):
    """A tiny byte-level BPE as `%%pretrain` makes; `trim` gives offsets without the space, as GPT-2's are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if trim:
        made.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["Hello world, the talk of the town"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")


def fallback():
    """A tokenizer of whole characters that falls back to `<0xE2>` bytes, as LLaMA's does."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "a": 1, "b": 2} | {f"<0x{i:02X}>": 3 + i for i in range(256)}
    made = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def words():
    """A tokenizer of whole words, which is not byte-level and says where its words stand."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "héllo": 1, "world": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


@pytest.mark.parametrize("trim", [False, True])
def test_the_bytes_spell_the_text(trim):
    tokenizer = byte_level(trim)
    found = pieces(tokenizer, TEXT)
    assert b"".join(piece.bytes for piece in found) == TEXT.encode()
    assert [piece.id for piece in found] == tokenizer(TEXT)["input_ids"]
    assert " world" in [piece.text for piece in found]
    assert "<|endoftext|>" in [piece.text for piece in found]


def test_a_character_split_over_tokens_shows_its_bytes():
    assert [piece.text for piece in pieces(byte_level(), "€")] == ["<e2>", "<82>", "<ac>"]


def test_one_token_from_its_integer():
    tokenizer = byte_level()
    names = [token_text(tokenizer, i) for i in tokenizer(" world€")["input_ids"]]
    assert names == [" world", "<e2>", "<82>", "<ac>"]


def test_byte_fallback_keeps_one_byte_a_token():
    found = pieces(fallback(), "a€b")
    assert [piece.bytes for piece in found] == [b"a", b"\xe2", b"\x82", b"\xac", b"b"]


def test_words_come_from_the_offsets():
    assert [piece.text for piece in pieces(words(), "héllo big world")] == ["héllo", "big", "world"]


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(GPTError, match="fast tokenizer"):
        pieces(object(), "text")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        (b" \xe2\x82", " <e2 82>"),
        (b"\xacA\xff", "<ac>A<ff>"),
        (b"\x9f\xe2\x82\xac", "<9f>€"),
        (b"\xf0\x9f", "<f0 9f>"),
        ("価".encode(), "価"),
        (b"", ""),
    ],
)
def test_readable(raw, shown):
    assert readable(raw) == shown


def test_whitespace_and_control_characters_are_visible():
    assert visible("a b\n\t\r\x00\x7f\xa0\u200b価") == "a·b⏎⇥␍␀␡⍽\\u200b価"


def test_the_bundle_counts_and_shows_integers():
    report = tokens_report("story", [Piece(7, "Hello", b"Hello"), Piece(12, " world", b" world")])
    assert report.text == "story: 2 tokens, 11 bytes, 5.50 bytes per token\n\nHello│·world\n7    │12"
    assert report.data["tokens"] == [{"id": 7, "text": "Hello"}, {"id": 12, "text": " world"}]
    assert ">12<" in report.html and "·world" in report.html


def test_the_grid_aligns_also_with_wide_characters():
    report = tokens_report("wide", [Piece(1, "価格", "価格".encode()), Piece(22222, "a", b"a")])
    assert report.text.splitlines()[2:] == ["価格│a", "1   │22222"]


def test_long_lines_wrap_and_newlines_break():
    from jupyter_gpt.report.text import columns

    report = tokens_report(
        "long", [Piece(i, "word", b"word") for i in range(100)] + [Piece(5, "\n", b"\n"), Piece(6, "x", b"x")]
    )
    assert all(columns(line) <= 96 for line in report.text.splitlines())
    assert report.text.splitlines()[-2:] == ["x", "6"]


def test_hostile_text_stays_text():
    evil = "<script>\"'&</script>"
    html = tokens_report(f"<b>{evil}", [Piece(1, evil, evil.encode())]).html
    assert "<script" not in html and "<b><b>" not in html
    assert "&lt;script&gt;&quot;&#x27;&amp;" in html


def test_what_varies_is_marked_and_not_in_the_json():
    found = [Piece(1, "a»b", "a»b".encode())]
    report = tokens_report("mine", found, varies=True)
    assert report.text == "mine: ≈1 tokens, 4 bytes, ≈4.00 bytes per token\n\n«\na›b\n1\n»"
    assert rendered.visible(report.html).split("\n")[0] == "mine: 1 tokens, 4 bytes, 4.00 bytes per token"
    assert "a»b" in rendered.visible(report.html) and "&raquo;" not in rendered.folded(report.html)
    assert "tokens" not in report.data and report.metadata["tokens"][0]["id"] == 1


def test_no_text_and_very_much_text():
    assert tokens_report("none", []).text == "none: 0 tokens, 0 bytes, 0.00 bytes per token"
    report = tokens_report("much", [Piece(1, "a", b"a")] * 5000)
    assert "… and 3,000 more tokens" in report.text and "… and 3,000 more tokens" in report.html
    assert len(report.data["tokens"]) == 5000
