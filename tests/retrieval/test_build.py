"""Indexing runs: only what changed is embedded, a killed run goes on, nothing of a gone document is found."""

import os
import time

import numpy as np
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.retrieval import build
from jupyter_gpt.retrieval.document_sources import Item
from jupyter_gpt.retrieval.index import Index
from jupyter_gpt.retrieval.search import Searcher


@pytest.fixture
def index(tmp_path):
    made = Index(tmp_path / "index")
    made.write_about({"embedder": "words", "dimensions": 1024, "chunk_tokens": 12, "overlap": 0})
    return made


@pytest.fixture
def run(index, embedder):
    """`run(items)` brings the index up to date; `run.embedded` are the texts that were embedded for it."""

    def go(texts, stop=lambda steps: False, keep_others=False):
        embedder.seen.clear()
        items = [Item(name, text=text) for name, text in texts.items()] if isinstance(texts, dict) else texts
        report, steps = build.Report(), []
        for step in build.update(index, items, embedder, report, lambda: stop(steps), keep_others):
            steps.append(step)
        return report

    return go


def found(index, embedder, text, k=1, **options):
    [(_, vectors)] = embedder.batches([text], "query")
    return Searcher(index).search(text, vectors[0], k, **options)


TEXTS = {"a": "Leave is 27 days a year.", "b": "Trains are second class.", "c": "The printer is called Gutenberg."}


def test_only_what_changed_is_embedded(index, embedder, run):
    assert run(TEXTS).added == ["a", "b", "c"] and len(embedder.seen) == 3
    again = run(TEXTS)
    assert (again.unchanged, again.embedded, embedder.seen) == (3, 0, [])
    changed = run({**TEXTS, "b": "Trains are first class."})
    assert changed.changed == ["b"] and embedder.seen == ["Trains are first class."]
    assert found(index, embedder, "trains second class")[0].text == "Trains are first class."
    gone = run({key: TEXTS[key] for key in "ac"})
    assert gone.removed == ["b"] and embedder.seen == []
    assert {hit.source for hit in found(index, embedder, "trains first class", 3)} == {"a", "c"}
    assert index.counts()["documents"] == 2


def test_one_changed_paragraph_of_a_long_document(index, embedder, run):
    parts = [f"Rule {n} says that people of group {n} have {n} days." for n in range(30)]
    run({"a": "\n\n".join(parts)})
    parts[7] = "Rule 7 was taken back."
    run({"a": "\n\n".join(parts)})
    assert embedder.seen == ["Rule 7 was taken back."]


def test_a_run_that_was_stopped_goes_on(index, embedder, run):
    texts = {f"d{n}": f"Document {n} tells of the number {n}." for n in range(12)}
    first = run(texts, lambda steps: embedder.seen)  # while embedding
    assert first.stopped and 0 < first.embedded < 12
    already = set(embedder.seen)
    second = run(texts)
    assert not second.stopped and second.embedded == 12 - first.embedded
    assert not already & set(embedder.seen)
    third = run(
        {**texts, **{f"e{n}": f"Extra {n}." for n in range(5)}}, lambda steps: len(steps) >= 14
    )  # while reading
    assert third.stopped and third.embedded == 0
    assert found(index, embedder, "Document 3", 1)[0].source == "d3"


def test_vectors_without_an_entry_are_overwritten(index, embedder, run):
    run({"a": TEXTS["a"]})
    with (index.folder / "vectors-0.f32").open("ab") as file:
        file.write(os.urandom(1000))  # a kill between the vectors and the entry for them
    run(TEXTS)
    assert index.matrix().shape == (3, 1024)
    assert np.allclose(np.linalg.norm(index.matrix(), axis=1), 1, atol=1e-5)
    assert found(index, embedder, "printer Gutenberg")[0].source == "c"


def test_duplicates_share_their_chunks_and_outlive_one_another(index, embedder, run):
    report = run({"a": TEXTS["a"], "copy": TEXTS["a"]})
    assert report.duplicates == [("copy", "a")] and len(embedder.seen) == 1
    [hit] = found(index, embedder, "leave days", 5)
    assert hit.sources == ("a", "copy")
    run({"copy": TEXTS["a"]})
    [hit] = found(index, embedder, "leave days", 5)
    assert hit.sources == ("copy",) and embedder.seen == []


def test_tombstones_are_taken_out_when_they_are_many(index, embedder, run):
    texts = {f"d{n}": f"Document {n} tells of the number {n}." for n in range(20)}
    run(texts)
    run({name: texts[name] for name in list(texts)[2:]})  # 2 of 20: they stay as tombstones
    assert len(index.matrix()) == 20 and int(index.alive().sum()) == 18
    assert "d0" not in {hit.source for hit in found(index, embedder, "Document 0 tells of the number 0", 20)}
    report = run({name: texts[name] for name in list(texts)[8:]})
    assert report.compacted == 8 and len(index.matrix()) == 12
    assert [path.name for path in index.folder.glob("vectors-*")] == ["vectors-1.f32"]
    for n in (8, 19):
        assert found(index, embedder, f"Document {n} tells of the number {n}")[0].source == f"d{n}"


def test_what_comes_back_is_not_embedded_again(index, embedder, run):
    texts = {f"d{n}": f"Document {n} tells of the number {n}." for n in range(20)}
    run(texts)
    run({name: texts[name] for name in list(texts)[1:]})
    run(texts)
    assert embedder.seen == [] and found(index, embedder, "Document 0 tells")[0].source == "d0"


def test_what_cannot_be_read_is_named_and_passed_over(index, embedder, run, tmp_path):
    for name, data in (("good.txt", b"Leave is 27 days."), ("bad.txt", b"\0\1\2"), ("empty.md", b"")):
        (tmp_path / name).write_bytes(data)
    items = [Item(name, tmp_path / name) for name in ("good.txt", "bad.txt", "empty.md", "gone.txt")]
    report = run(items)
    assert report.added == ["good.txt"]
    assert report.skipped[:2] == [("bad.txt", "is a binary file"), ("empty.md", "is empty")]
    assert report.skipped[2][0] == "gone.txt" and report.skipped[2][1].startswith("cannot be read")


def test_a_file_is_known_by_its_time_or_by_its_content(index, embedder, run, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("Leave is 27 days.")
    os.utime(path, (time.time() - 100, time.time() - 100))
    items = [Item("a.txt", path)]
    run(items)
    read = []
    monkeypatch.setattr(build, "hash_of", lambda item: read.append(item) or build.hashlib.sha256(b"").hexdigest())
    assert run(items).unchanged == 1 and read == []
    monkeypatch.undo()
    path.touch()  # another time, the same content
    assert run(items).unchanged == 1 and embedder.seen == []
    path.write_text("Leave is 28 days.")  # the same length, changed within the clock's grain
    assert run(items).changed == ["a.txt"] and len(embedder.seen) == 1


def test_up_to_date_needs_no_embedder(index, run):
    items = [Item(name, text=text) for name, text in TEXTS.items()]
    assert not build.up_to_date(index, items)
    run(items)
    assert build.up_to_date(index, items)
    assert not build.up_to_date(index, items[:2]) and build.up_to_date(index, items[:2], keep_others=True)
    assert not build.up_to_date(index, [*items, Item("d", text="new")])


def test_damage_is_one_line(index, run):
    run(TEXTS)
    (index.folder / "vectors-0.f32").write_bytes(b"short")
    with pytest.raises(GPTError, match="cut short"):
        Searcher(index)
    (index.folder / "chunks.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(GPTError, match="damaged"):
        index.counts()
    (index.folder / "index.json").write_text("{")
    with pytest.raises(GPTError, match="damaged"):
        _ = index.about


def test_no_file_of_an_index_is_a_pickle(index, run):
    run(TEXTS)
    for path in index.folder.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80"), path
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)
