"""From a mixture to tokens on disk: what is written, what is held out, what is refused."""

import sys
from types import ModuleType

import numpy as np
import pytest

from jupyter_gpt.data import files, mixture
from jupyter_gpt.data import prepare as preparing
from jupyter_gpt.data.documents import Documents
from jupyter_gpt.data.packing import Rows, validation_rows
from jupyter_gpt.data.prepare import prepare
from jupyter_gpt.data.split import PIECE, Portion, pieces
from jupyter_gpt.data.tokenizer import EOT, Encoder, train_bpe, train_char
from jupyter_gpt.errors import GPTError
from jupyter_gpt.stages.pretrain import Pretrain

WORDS = ["hen", "fox", "sat", "ran", "the", "red", "barn", "Mia", "Tom", "and"]


def story(seed: int, n: int) -> str:
    random = np.random.default_rng([seed, n])
    return " ".join(random.choice(WORDS, random.integers(5, 60))) + f" {n}.\n"


@pytest.fixture(autouse=True)
def stories(monkeypatch):
    fake = ModuleType("jupyter_gpt.data.stories")
    fake.documents = lambda seed: (story(seed, n) for n in range(10**9))
    monkeypatch.setitem(sys.modules, "jupyter_gpt.data.stories", fake)
    monkeypatch.setattr(preparing, "SAMPLE", (100_000, 200_000))


def done(generator):
    """(events, tokenizer, documents) of a preparation that runs to its end."""
    events = []
    while True:
        try:
            events.append(next(generator))
        except StopIteration as end:
            return events, *end.value


def text_of(tokenizer, documents, d) -> str:
    tokens = documents[d].tolist()
    assert documents.eot == tokenizer.convert_tokens_to_ids(EOT)
    begins = bool(documents.ended()[d - 1] or not documents.held_out[d])  # rather than goes on with the one before
    assert tokens.count(documents.eot) == begins and (tokens[0] == documents.eot) == begins
    return tokenizer.decode(tokens[begins:])


def test_endless_and_finite_sources(tmp_path):
    docs = [story(9, n) for n in range(100)]
    weights = {"stories": 3, "sums": 0, "$docs": 1}
    options = {"vocab_size": 280, "context": 64, "variables": {"docs": docs}}
    events, tokenizer, documents = done(prepare(weights, 40_000, tmp_path, **options))
    assert documents.names == ["stories", "$docs"] and documents.weights == [3, 1]
    assert len(tokenizer) == 280 and tokenizer.model_max_length == 64
    assert documents.tokens.dtype == np.uint16 and len(documents.tokens) == documents.offsets[-1]
    generated = documents.lengths()[documents.training(0)].sum()
    assert 30_000 <= generated < 34_000
    for source in (0, 1):
        held = documents.held_out[documents.source == source]
        assert 0 < held.mean() < 0.2
    of_docs = [text_of(tokenizer, documents, d) for d in np.flatnonzero(documents.source == 1)]
    assert of_docs == docs
    assert all(event.event == "progress" for event in events)
    stages = {event.stage for event in events}
    assert stages >= {
        "looking at stories",
        "training the tokenizer",
        "tokenizing stories",
        "tokenizing $docs",
    }
    assert not list(tmp_path.glob("*.tmp"))
    rows = documents.details["sources"]
    assert [row["exhausted"] for row in rows] == [False, True]
    assert rows[1]["bytes"] == sum(len(text.encode()) for text in docs)
    assert sum(row["tokens"] for row in rows) == documents.lengths()[~documents.held_out].sum()
    assert sum(row["held_out_tokens"] for row in rows) == documents.held_out_tokens()


def test_it_opens_again(tmp_path):
    _, tokenizer, made = done(prepare({"stories": 1}, 5_000, tmp_path, tokenizer="char", context=32))
    opened = Documents.open(tmp_path)
    assert opened.names == ["stories"] and opened.eot == made.eot and len(opened) == len(made)
    assert isinstance(opened.tokens, np.memmap)
    again = opened.tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab()
    batch = Rows(opened, 32).batch(range(8))
    assert "hen" in again.decode(batch[0].tolist()) or "the" in again.decode(batch.ravel().tolist())
    rows, mask = validation_rows(opened, 32)
    assert mask.sum() == opened.held_out_tokens() and rows.max() < len(again)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        done(prepare({"stories": 1}, 5_000, tmp_path / name, vocab_size=300, context=32, seed=seed))
    a, b, c = ((tmp_path / name / "tokens.npy").read_bytes() for name in "abc")
    assert a == b != c


def test_one_long_document_gives_its_last_tenth(tmp_path):
    text = "".join(story(0, n) for n in range(700))
    _, tokenizer, documents = done(
        prepare({"$text": 1}, 10**6, tmp_path, tokenizer="char", context=64, variables={"text": text})
    )
    assert len(documents) == 2 and documents.held_out.tolist() == [False, True]
    assert documents.lengths()[0] == int(0.9 * len(text)) + 1  # every character, and the delimiter
    assert text_of(tokenizer, documents, 0) + text_of(tokenizer, documents, 1) == text
    assert Documents.open(tmp_path).ended().tolist() == [False, True]
    batch = Rows(documents, 64).batch(range(400))
    assert (batch[:, 1:] != documents.eot).all(), "where the training text breaks off, none ends"
    rows, mask = validation_rows(documents, 64)
    ends = (rows[:, 1:] == documents.eot) & mask
    assert rows[0, 0] != documents.eot and ends.sum() == 1 and ends[-1].any()


def test_short_ones_of_few_documents_are_held_out_whole(tmp_path):
    """Of a text that was cut there would be no end to learn."""
    docs = [story(1, n) for n in range(8)]
    options = {"tokenizer": "char", "context": 64}
    _, tokenizer, documents = done(prepare({"$docs": 1}, 10**4, tmp_path, variables={"docs": docs}, **options))
    assert [text_of(tokenizer, documents, d) for d in range(8)] == docs
    assert documents.held_out.sum() == 1 and documents.ended().all()
    _, _, turned = done(prepare({"$docs": 1}, 10**4, tmp_path, variables={"docs": docs[::-1]}, **options))
    assert turned.held_out.tolist() == documents.held_out.tolist()[::-1]
    one = {"docs": docs[:1], "long": ["".join(story(2, n) for n in range(30)), *docs[:3]]}
    _, _, documents = done(prepare({"$docs": 1, "$long": 1}, 10**4, tmp_path, variables=one, **options))
    assert documents.held_out.tolist() == [False, False, True, False, False, False]
    assert documents.ended().tolist() == [True, False, True, True, True, True]


def test_a_corpus_prepared_before_cuts_were_noted_opens(tmp_path):
    done(prepare({"stories": 1}, 5_000, tmp_path, tokenizer="char", context=32))
    (tmp_path / "cut_off.npy").unlink()
    assert Documents.open(tmp_path).ended().all()


def test_the_held_out_fraction_can_be_chosen(tmp_path):
    docs = {"few": ["a" * 1000], "many": [f"{n} is a number" for n in range(1000)]}
    weights = {"$few": 1, "$many": 1}
    options = {"tokenizer": "char", "context": 16, "variables": docs}
    _, _, documents = done(prepare(weights, 10**6, tmp_path, held_out=0.3, **options))
    assert documents.lengths()[:2].tolist() == [701, 300]
    assert 0.25 < documents.held_out[2:].mean() < 0.35
    _, _, documents = done(prepare(weights, 10**6, tmp_path, held_out=0, **options))
    assert documents.held_out_tokens() == 0 and len(validation_rows(documents, 16)[0]) == 0
    with pytest.raises(GPTError, match="--held-out 1 must be below 1"):
        Pretrain.of(name="a", held_out=1.0)


def held(tmp_path, docs, **options) -> set[str]:
    _, tokenizer, documents = done(
        prepare({"$docs": 1}, 10**6, tmp_path, tokenizer="char", context=16, variables={"docs": docs}, **options)
    )
    return {text_of(tokenizer, documents, d) for d in np.flatnonzero(documents.held_out)}


def test_the_split_outlives_growth_order_and_seed(tmp_path):
    docs = [story(1, n) for n in range(300)]
    first = held(tmp_path, docs)
    assert 5 < len(first) < 30
    assert held(tmp_path, docs[::-1], seed=7) == first
    grown = held(tmp_path, docs + [story(2, n) for n in range(100)])
    assert first < grown and not (grown - first) & set(docs)


def test_at_least_one_document_is_held_out(tmp_path):
    for n in range(5):
        docs = [f"document {n} {i} is here" for i in range(20)]
        assert len(held(tmp_path, docs)) >= 1


def test_a_run_that_one_of_many_documents_would_fill_reads_two(tmp_path):
    docs = ["".join(story(k, n) for n in range(60)) for k in range(30)]
    _, _, documents = done(prepare({"$docs": 1}, 100, tmp_path, tokenizer="char", context=16, variables={"docs": docs}))
    assert documents.held_out.tolist() in ([True, False], [False, True])


def test_no_more_is_held_out_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "HELD_OUT_MOST", 500)
    docs = [story(1, n) for n in range(300)]
    _, _, documents = done(
        prepare({"$docs": 1}, 10**6, tmp_path, tokenizer="char", context=16, variables={"docs": docs})
    )
    assert 0 < documents.held_out_tokens() <= 500
    assert int(documents.lengths().sum()) == len(documents.tokens)
    counted = documents.details["sources"][0]
    assert counted["tokens"] == documents.lengths()[~documents.held_out].sum()
    _, _, documents = done(
        prepare({"$text": 1}, 10**6, tmp_path, tokenizer="char", context=16, variables={"text": "".join(docs)})
    )
    assert 0 < documents.held_out_tokens() < 500 + 2 * PIECE


def test_a_long_document_is_read_only_as_far_as_needed(tmp_path):
    text = "".join(story(0, n) for n in range(5000))
    _, tokenizer, documents = done(
        prepare({"$text": 1}, 2_000, tmp_path, tokenizer="char", context=64, variables={"text": text})
    )
    assert 2_000 < documents.lengths()[~documents.held_out].sum() < 2_000 * 1.05 + 64 + 2 * PIECE
    assert documents.ended().tolist() == [False, True]
    assert text_of(tokenizer, documents, 1)[:50] == text[int(0.9 * len(text)) :][:50]


@pytest.mark.parametrize("kind", ["few", "many"])
@pytest.mark.parametrize("chunk", [5, 30_000])
def test_a_file_that_is_not_read_whole_gives_the_same_documents(tmp_path, monkeypatch, kind, chunk):
    text = "".join(story(0, n) + "\n日本語 Ω " * (n % 7 == 0) for n in range(2000))
    for n in range({"few": 1, "many": 25}[kind]):
        (tmp_path / f"{n}.txt").write_text(text[n * 10 :], "utf-8")
    found = []
    for long in (files.LONG, 1000):
        monkeypatch.setattr(files, "LONG", long)
        monkeypatch.setattr(files, "CHUNK", chunk)
        if long == 1000:
            monkeypatch.setattr(files, "contents", None)
        source, folder = f"{tmp_path}/*.txt", tmp_path / str(long)
        _, _, documents = done(prepare({source: 1}, 40_000, folder, vocab_size=400, context=64))
        names = ("tokens.npy", "offsets.npy", "held_out.npy", "cut_off.npy", "documents.json")
        found.append([(folder / name).read_bytes() for name in names])
        table = mixture.survey({source: 1.0})[0]
        found[-1].append((table.documents, table.tokens, table.bytes))
        assert documents.held_out.any()
    assert found[0] == found[1]


@pytest.mark.parametrize("text", ["a b_ c 12 3, x\n\n  y\n" * 5000, "word " * 9000, "x" * 50_000, "日本語。" * 9000])
def test_seams_change_no_token(text):
    tokenizer = train_bpe([text[:3000], "the word was 12 words, a_b"], 300)
    encode = Encoder(tokenizer)
    cut = [piece.text for piece in pieces(Portion(text, False, 0.0))]
    assert "".join(cut) == text
    assert [i for ids in encode(cut) for i in ids] == encode([text])[0]


def test_special_tokens_in_documents_stay_text(tmp_path):
    docs = [f"{n} <|endoftext|> and <|user|> again" for n in range(50)]
    _, tokenizer, documents = done(
        prepare({"$docs": 1}, 10**5, tmp_path, vocab_size=300, context=16, variables={"docs": docs})
    )
    assert (np.asarray(documents.tokens) == documents.eot).sum() == len(documents) == 50
    assert {text_of(tokenizer, documents, d) for d in range(50)} == set(docs)


def test_a_tokenizer_of_another_model(tmp_path):
    mine = train_char("".join(WORDS) + " .\n0123456789")
    _, tokenizer, documents = done(prepare({"stories": 1}, 3_000, tmp_path, tokenizer=mine, context=32))
    assert tokenizer.get_vocab() == mine.get_vocab() and documents.tokens.max() < len(mine)
    assert tokenizer.model_max_length == 32 != mine.model_max_length  # the other model's is left alone


def test_a_large_vocabulary_takes_wide_tokens(tmp_path):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))) + "".join(map(chr, range(0x10000, 0x10000 + 60_000)))
    _, tokenizer, documents = done(
        prepare({"$text": 1}, 10**6, tmp_path, tokenizer="char", context=64, variables={"text": text})
    )
    assert len(tokenizer) > 2**16 and documents.tokens.dtype == np.uint32
    assert text_of(tokenizer, documents, 0) == text[:72_000]


def test_a_stop_leaves_nothing_half_made(tmp_path):
    run = prepare({"stories": 1}, 10**6, tmp_path, tokenizer="char", context=32)
    for event in run:
        if event.stage == "tokenizing stories" and event.done:
            break
    assert list(tmp_path.glob("tokens.npy.tmp"))
    run.close()
    assert not list(tmp_path.glob("*.tmp"))
    with pytest.raises(GPTError, match="did not finish"):
        Documents.open(tmp_path)


@pytest.mark.parametrize(
    ("weights", "options", "said"),
    [
        ({"storeis": 1}, {}, "did you mean stories"),
        ({"$short": 1}, {"context": 64}, "tokens to train on, too few for a row of context 64"),
        ({"stories": 1, "$blank": 1}, {}, r"\$blank has no document with any text"),
        ({"$half": 1}, {}, "U\\+D83D, a lone surrogate, at character 3"),
        ({"stories": 0}, {}, "every weight of the mixture is zero"),
        ({"stories": 1}, {"vocab_size": 200}, "at least 261"),
        ({"stories": 1}, {"tokenizer": "chars"}, "bpe, char or that of a model, not 'chars'"),
        ({"stories": 1}, {"tokenizer": "char", "vocab_size": 10}, "more than 10: raise --vocab-size"),
        ({"$docs": 1}, {}, r"no variable \$docs"),
    ],
)
def test_mistakes(tmp_path, weights, options, said):
    variables = {"short": ["too short"], "blank": ["", " \n"], "half": ["abc\ud83d"]}
    with pytest.raises(GPTError, match=said) as refused:
        done(prepare(weights, 1000, tmp_path, variables=variables, **options))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("*.tmp"))


def test_another_format_is_told(tmp_path):
    (tmp_path / "documents.json").write_text('{"format": 99}')
    with pytest.raises(GPTError, match="another version"):
        Documents.open(tmp_path)
