"""Sources: each kind is read exactly and again; each kind of bad input is one clear line."""

import json
import sys
from itertools import islice
from types import ModuleType

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.errors import fail
from jupyter_gpt.data import hub, sources
from jupyter_gpt.data.sources import check, read
from jupyter_gpt.errors import GPTError


@pytest.fixture
def books(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books" / "inner").mkdir(parents=True)
    (tmp_path / "books" / "a.txt").write_bytes("\ufeffOne.\r\nTwo é.\n".encode())
    (tmp_path / "books" / "b.md").write_text("# Three\n")
    (tmp_path / "books" / "inner" / "c.jsonl").write_text('{"n": 1, "text": "four"}\n\n{"text": "five\\u00e9"}\n')
    pq.write_table(pa.table({"n": [1, 2, 3], "story": ["six", None, "seven"]}), tmp_path / "books" / "d.parquet")
    (tmp_path / "books" / "e.pdf").write_bytes(b"%PDF")
    return tmp_path


def texts(source, variables=None, seed=0):
    check(source, variables)
    once, twice = list(read(source, variables, seed)), list(read(source, variables, seed))
    assert once == twice
    return once


def refusal(source, variables=None) -> str:
    """What `check` says; reading must refuse it too, with the same words or at least in one line."""
    line = fail(check, source, variables)
    assert len(line) < 250
    return line


def test_files_are_read_byte_for_byte(books):
    assert texts("books/a.txt") == ["One.\r\nTwo é.\n"]
    assert texts("./books/b.md") == ["# Three\n"]
    assert texts("books/inner/c.jsonl") == ["four", "fiveé"]
    assert texts(str(books / "books" / "d.parquet")) == ["six", "seven"]


def test_globs_and_folders(books, monkeypatch):
    assert sorted(texts("./books/*.txt")) == ["One.\r\nTwo é.\n"]
    assert len(texts("books/*")) == 4  # the pdf is passed over
    assert len(texts("books")) == len(texts("books/**/*")) == 6
    monkeypatch.setenv("HOME", str(books))
    assert len(texts("~/books/*.md")) == 1


def test_the_seed_orders_the_files(tmp_path):
    for n in range(20):
        (tmp_path / f"{n:02}.txt").write_text(str(n))
    source = f"{tmp_path}/*.txt"
    assert texts(source, seed=1) != texts(source, seed=2)
    assert sorted(texts(source, seed=1)) == sorted(texts(source, seed=2))


def test_file_mistakes(books):
    assert "did you mean stories" in refusal("storeis")
    assert "no file matches ./nothing/*.txt" in refusal("./nothing/*.txt")
    assert "did you mean a.txt" in refusal("books/aa.txt")
    assert "missing or empty" in refusal("./nowhere/a.txt")
    assert "not a file of text" in refusal("books/e.pdf")
    assert "no file to read (1 of other kinds)" in refusal("books/*.pdf")
    (books / "empty").mkdir()
    assert "no file to read" in refusal("empty")
    (books / "empty.txt").touch()
    assert "empty.txt is empty" in refusal("empty.txt")


def converted(said, begins):
    """What the file holds that a refusal tells to make, by the line of Python it gives."""
    import re

    assert said.startswith(begins) and "\n" not in said
    code = re.search(r"convert it with `(.*)`", said)[1]
    exec(code, {})
    return list(read(re.search(r"Path\('([^']*)'\)\.write_text", code)[1]))


def test_bytes_that_are_not_text(books):
    (books / "latin.txt").write_bytes("caf\xe9 noir".encode("latin-1"))
    assert converted(refusal("latin.txt"), "latin.txt, line 1 is not UTF-8: byte 0xE9 at column 4; ") == [
        "caf\xe9 noir"
    ]
    (books / "binary.txt").write_bytes(b"abc\0def")
    assert refusal("binary.txt").startswith("binary.txt, line 1 has a zero byte: ")
    (books / "wide.txt").write_bytes("hello".encode("utf-16"))
    assert converted(refusal("wide.txt"), "wide.txt is UTF-16, not UTF-8: ") == ["hello"]
    (books / "bare.txt").write_bytes("hello \xe9".encode("utf-16-le"))
    assert converted(refusal("bare.txt"), "bare.txt is UTF-16, not UTF-8: ") == ["hello \xe9"]
    (books / "rows.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    said = "rows.jsonl, line 2 is not UTF-8: byte 0xE9 at column 14; "
    assert converted(refusal("rows.jsonl"), said) == ["fine", "caf\xe9"]
    (books / "both.jsonl").write_bytes('{"text": "caf\xe9"}\n'.encode() + b'{"text": "caf\xe9"}\n')
    assert refusal("both.jsonl").endswith("the text before it is UTF-8: save the whole file as UTF-8")
    for source in ("latin.txt", "binary.txt", "rows.jsonl"):
        with pytest.raises(GPTError, match=source):
            list(read(source))


def test_rows_that_are_not_documents(books):
    for text, said in [
        ("{not json}\n", "line 1 is not JSON"),
        ("[1, 2]\n", "is a list"),
        ('{"a": "x", "b": "y"}\n', "several that hold strings: a, b"),
        ('{"a": 1}\n', "no other string"),
    ]:
        (books / "bad.jsonl").write_text(text)
        assert said in refusal("bad.jsonl")
    (books / "bad.parquet").write_text("not parquet")
    assert "not a parquet file" in refusal("bad.parquet")
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), books / "bad.parquet")
    assert "several that hold strings" in refusal("bad.parquet")


def test_a_row_whose_text_is_null_is_left_out(books):
    """As an empty cell of parquet or of a DataFrame."""
    (books / "rows.jsonl").write_text('{"text": "a", "url": "x"}\n{"text": null, "url": "y"}\n{"text": "b"}\n')
    assert texts("rows.jsonl") == ["a", "b"]


def test_variables():
    frame = pd.DataFrame({"text": ["a", None, "b"], "other": ["x", "y", "z"]})
    variables = {
        "docs": ["a", "b"],
        "one": "a text",
        "pair": ("a",),
        "rows": [{"text": "a", "title": "t"}, {"body": "b"}],
        "frame": frame,
        "series": frame["other"],
        "single": frame[["other"]],
        "_hidden": ["a"],
        "number": 3,
        "generator": (x for x in "ab"),
        "mixed": ["a", 1],
        "empty": [],
        "table": {"a": 1},
        "numbers": pd.DataFrame({"n": [1]}),
        "two": pd.DataFrame({"a": ["x"], "b": ["y"]}),
    }
    assert texts("$docs", variables) == ["a", "b"]
    assert texts("$one", variables) == ["a text"]
    assert texts("$pair", variables) == ["a"]
    assert texts("$rows", variables) == ["a", "b"]
    assert texts("$frame", variables) == ["a", "b"]
    assert texts("$series", variables) == ["x", "y", "z"]
    assert texts("$single", variables) == ["x", "y", "z"]
    assert "did you mean $docs" in refusal("$doc", variables)
    assert "is a int" in refusal("$number", variables)
    assert "generator = list(generator)" in refusal("$generator", variables)
    assert list(variables["generator"]) == ["a", "b"]  # refusing it did not use it up
    assert refusal("$empty", variables) == "$empty is empty"
    assert "is a dict" in refusal("$table", variables)
    assert "single column of strings; it has n" in refusal("$numbers", variables)
    assert "it has a, b" in refusal("$two", variables)
    with pytest.raises(GPTError, match=r"item 1 of \$mixed is a int"):
        list(read("$mixed", variables))
    assert "no variable $docs" in refusal("$docs", None)


def test_the_standard_library():
    some = list(islice(read("python", seed=3), 5))
    assert some == list(islice(read("python", seed=3), 5)) != list(islice(read("python", seed=4), 5))
    assert all("\n" in text for text in some)
    check("python")
    names = {path.name for path in sources._stdlib()}
    assert "dataclasses.py" in names and "decoder.py" in names and "test_json.py" not in names
    assert sources.size("python") > 2_000_000


def test_generated_sources(monkeypatch):
    fake = ModuleType("jupyter_gpt.data.stories")
    fake.documents = lambda seed: (f"story {seed}.{n}" for n in range(10**9))
    monkeypatch.setitem(sys.modules, "jupyter_gpt.data.stories", fake)
    check("stories")
    assert list(islice(read("stories", seed=5), 2)) == ["story 5.0", "story 5.1"]


class FakeHub(ModuleType):
    """Stands in for `datasets`: one data set, or the exception it raises."""

    def __init__(self, rows):
        super().__init__("datasets")
        self.bars = True
        self.are_progress_bars_disabled = lambda: not self.bars
        self.disable_progress_bars = lambda: setattr(self, "bars", False)
        self.enable_progress_bars = lambda: setattr(self, "bars", True)
        self.rows = rows

    def load_dataset(self, name, config, split, streaming):
        assert streaming and not self.bars
        self.asked = (name, config, split)
        if isinstance(self.rows, Exception):
            raise self.rows
        return InOrder(self.rows)


class InOrder(list):
    def shuffle(self, seed, buffer_size):
        return self


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("hf:owner/name", ("owner/name", None, "train")),
        ("hf:name", ("name", None, "train")),
        ("hf:openai/gsm8k/main", ("openai/gsm8k", "main", "train")),
        ("hf:owner/name/en-1.0@test:text", ("owner/name", "en-1.0", "test")),
        ("hf:owner/name@test", ("owner/name", None, "test")),
    ],
)
def test_a_config_and_a_split_of_the_hub(monkeypatch, source, asked):
    monkeypatch.setattr(hub, "reach", lambda: None)
    fake = FakeHub([{"text": "a"}])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert texts(source) == ["a"]
    assert fake.asked == asked


def test_rows_of_the_hub_are_shuffled_and_the_same_each_time(monkeypatch):
    """By the real library, on a data set that is streamed from here."""
    import datasets

    monkeypatch.setattr(hub, "reach", lambda: None)
    rows = [{"text": str(n)} for n in range(50)]
    stream = datasets.IterableDataset.from_generator(lambda: iter(rows))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split, streaming: stream)
    found = texts("hf:owner/name")
    assert found == texts("hf:owner/name") != [row["text"] for row in rows]
    assert sorted(found, key=int) == [row["text"] for row in rows]


def test_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "reach", lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", FakeHub([{"id": 1, "text": "a"}, {"id": 2, "text": None}]))
    assert texts("hf:owner/name") == texts("hf:owner/name:text") == ["a"]
    assert "no column body; it has id, text" in refusal("hf:owner/name:body")
    assert "row 0 of hf:owner/name:id is a int, not a string" in refusal("hf:owner/name:id")
    assert "write hf:owner/name" in refusal("hf:not a name")
    monkeypatch.setitem(sys.modules, "datasets", FakeHub([{"a": "x", "b": "y"}]))
    assert "choose one: hf:o/n:column" in refusal("hf:o/n")
    monkeypatch.setitem(sys.modules, "datasets", FakeHub([]))
    assert refusal("hf:o/n") == "hf:o/n is empty"
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(RuntimeError("Dataset 'o/n' doesn't exist\nmore")))
    assert refusal("hf:o/n") == "cannot read hf:o/n: RuntimeError: Dataset 'o/n' doesn't exist"
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'jupyter_gpt[data]'" in refusal("hf:o/n")


def test_an_unreachable_hub_is_told_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setitem(sys.modules, "datasets", FakeHub([{"text": "a"}]))
    assert "cannot be reached" in refusal("hf:o/n")


def test_rows_of_json_with_half_a_character(tmp_path):
    path = tmp_path / "half.jsonl"
    path.write_text(json.dumps({"text": "ab\ud83d"}))
    assert list(read(str(path))) == ["ab\ud83d"]  # `prepare` is where it is refused
