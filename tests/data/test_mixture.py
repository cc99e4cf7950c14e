"""Mixtures: what a cell's body may look like, and the table it amounts to."""

import sys
from types import ModuleType

import pytest

from jupyter_gpt.data import mixture
from jupyter_gpt.data.mixture import check, parse, survey
from jupyter_gpt.data.tokenizer import train_char
from jupyter_gpt.errors import GPTError


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("stories: 3\npython: 1\n", {"stories": 3, "python": 1}),
        ("# mine\n./books/*.txt: 2\n$docs: 0.5  # half", {"./books/*.txt": 2, "$docs": 0.5}),
        ("*.txt: 1\nhf:a/b: 1e2", {"*.txt": 1, "hf:a/b": 100}),
        ("hf:owner/name:column: 2", {"hf:owner/name:column": 2}),
        ("*.txt: 1 # all\n'quoted.txt': 2\n\n# end", {"*.txt": 1, "quoted.txt": 2}),
        ("[a]*.txt: 1", {"[a]*.txt": 1}),
        ("'with: colon.txt': 1", {"with: colon.txt": 1}),
        ("{stories: 3, sums: 0}", {"stories": 3, "sums": 0}),
        ("books: 67.0%\nwiki: 4.5 %", {"books": 67, "wiki": 4.5}),
        ("1984: 1", {"1984": 1}),
        ("# one\n./mine.jsonl  # alone\n", {"./mine.jsonl": 1}),
        ("hf:owner/name:column", {"hf:owner/name:column": 1}),
        ("~/x.md: 1", {"~/x.md": 1}),
    ],
)
def test_bodies(body, expected):
    parsed = parse(body)
    assert parsed == expected
    assert list(parsed) == list(expected)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("---", "empty"),
        ("stories\nsums: 1", "stories has no weight"),
        ("- stories", "a line `source: weight`"),
        ("stories:", "stories has no weight"),
        ("stories: many", "'many', not a number"),
        ("stories: true", "not a number"),
        ("stories: .inf", "not a number"),
        ("stories: nan", "not a number"),
        ("stories: -1", "never negative"),
        ("stories: 0\nsums: 0", "every weight of the mixture is zero"),
        ("stories: 1\nstories: 2", "stories is twice"),
        ("stories:\n  weight: 1", "a line `source: weight`"),
        ("*.txt 1", "no weight"),
        ("*.txt: x", "not a number"),
    ],
)
def test_mistakes(body, said):
    with pytest.raises(GPTError, match=said) as refused:
        parse(body)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("weights", [{}, {"a": "1"}, {"a": True}, {"a": float("nan")}, {"a": -1}, {"a": 0}])
def test_check_refuses(weights):
    with pytest.raises(GPTError):
        check(weights)


@pytest.fixture
def stories(monkeypatch):
    fake = ModuleType("jupyter_gpt.data.stories")
    fake.documents = lambda seed: (f"once there were {n} hens" for n in range(10**9))
    monkeypatch.setitem(sys.modules, "jupyter_gpt.data.stories", fake)


def test_survey_counts(stories):
    docs = ["ab", "", "cde", "  "]
    tokenizer = train_char(["abcde"])
    endless, mine = survey({"stories": 3, "$docs": 1}, {"docs": docs}, horizon_tokens=28, tokenizer=tokenizer)
    assert (endless.documents, endless.tokens, endless.bytes, endless.epochs) == (None, None, None, None)
    assert (mine.documents, mine.tokens, mine.bytes) == (2, 7, 5)  # a delimiter each
    assert (mine.share, mine.epochs, mine.weight) == (0.25, 1.0, 1.0)
    assert not mine.varies and not mine.estimated


def test_survey_trains_a_tokenizer_where_there_is_none(stories):
    docs = {"docs": ["the hen sat"] * 500}
    endless, mine = survey({"stories": 1, "$docs": 1}, docs)
    assert mine.tokens < mine.bytes == 500 * 11
    assert mine.epochs is None and not mine.varies and not endless.varies


def test_survey_knows_what_varies(stories, monkeypatch):
    monkeypatch.setattr(mixture, "READ", 200_000)
    monkeypatch.setattr(mixture, "COUNT", 50_000)
    monkeypatch.setattr(mixture, "SAMPLE", 50_000)
    code, mine = survey({"python": 1, "$docs": 1}, {"docs": ["a"]})
    assert code.varies and mine.varies  # its merges come from this machine's Python
    assert code.estimated
    code, mine = survey({"python": 1, "$docs": 1}, {"docs": ["a"]}, tokenizer=train_char(["a"]))
    assert code.varies and not mine.varies


def test_a_large_source_is_estimated_from_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(mixture, "READ", 10_000)
    monkeypatch.setattr(mixture, "COUNT", 5_000)
    for n in range(100):
        (tmp_path / f"{n}.txt").write_text("abcd " * 200)
    (row,) = survey({f"{tmp_path}/*.txt": 1}, tokenizer=train_char(["abcd "]))
    assert row.estimated and (row.documents, row.bytes, row.tokens) == (100, 100_000, 100_100)


def test_survey_refuses_what_cannot_be_read():
    with pytest.raises(GPTError, match="no source"):
        survey({"stroies": 1})
    with pytest.raises(GPTError, match="no document with any text"):
        survey({"$docs": 1}, {"docs": [" "]}, tokenizer=train_char(["a"]))
    with pytest.raises(GPTError, match="half a character"):
        survey({"$docs": 1}, {"docs": ["\ud83d"]})


def test_a_list_of_files_is_not_taken_for_texts(tmp_path):
    (tmp_path / "one.txt").write_text("Once.")
    for files in ([str(tmp_path / "one.txt")], [tmp_path / "one.txt"], ["hf:owner/name"]):
        with pytest.raises(GPTError, match=r"sources are a mapping, \{source: weight, …\}"):
            mixture.read(files)
    assert mixture.read(["Once.", str(tmp_path / "one.txt")])[0] == {"$data": 1.0}
