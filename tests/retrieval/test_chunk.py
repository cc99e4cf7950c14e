"""Chunks: nothing is lost, none is too long, each knows its place."""

import gc
import re
import weakref
from itertools import pairwise

from jupyter_gpt.retrieval.chunk import chunker, with_heading
from jupyter_gpt.retrieval.read import parse


def count(text):
    return len(text.split())


def test_nothing_is_lost_and_none_is_too_long():
    text = "\n\n".join(
        f"Paragraph {n} tells of fox number {n}, which sang. It was glad of {n} birds." for n in range(60)
    )
    chunks = list(chunker(count, 40, 0.2)(parse(text.encode(), ".txt")))
    assert all(count(chunk.text) <= 40 for chunk in chunks)
    assert {int(n) for chunk in chunks for n in re.findall(r"Paragraph (\d+)", chunk.text)} == set(range(60))
    assert all(text[chunk.start : chunk.start + 20] == chunk.text[:20] for chunk in chunks)


def test_chunks_overlap_by_whole_sentences():
    text = " ".join(f"Fox {n} sang of {n} small birds." for n in range(100))
    document = parse(text.encode(), ".txt")
    apart = list(chunker(count, 40, 0)(document))
    over = list(chunker(count, 40, 0.4)(document))
    assert sum(count(c.text) for c in apart) == 700
    for before, after in pairwise(over):
        shared = document.text[after.start : before.start + len(before.text)]
        assert 0 < count(shared) <= 16 and shared.startswith("Fox") and after.text.startswith(shared)
    assert all(count(chunk.text) <= 40 for chunk in over)


def test_a_chunk_begins_where_a_part_does():
    text = "# Leave\n\n" + "Days are paid. " * 8 + "\n\n# Travel\n\n" + "Trains are slow. " * 8
    chunks = list(chunker(count, 30, 0)(parse(text.encode(), ".md")))
    assert [chunk.heading for chunk in chunks] == ["Leave", "Travel"]


def test_a_chunk_stays_on_its_page():
    rows = "\n".join(f"fox {n},{n} small birds" for n in range(30))
    chunks = list(chunker(count, 40, 0.4)(parse(f"who,what\n{rows}".encode(), ".csv")))
    assert [(chunk.page, chunk.text) for chunk in chunks] == [
        (n + 1, f"who: fox {n}\nwhat: {n} small birds") for n in range(30)
    ]


def test_the_heading_is_embedded_once():
    assert with_heading("27 days.", "Handbook > Leave") == "Handbook > Leave\n27 days."
    assert with_heading("## Leave\n27 days.", "Handbook > Leave") == "Handbook\n## Leave\n27 days."
    assert with_heading("27 days.", "") == "27 days."
    same = [next(chunker(count, 30, 0)(parse(text, ".md"))).hash for text in (b"# A\n\nx", b"# A\n\nx", b"# B\n\nx")]
    assert same[0] == same[1] != same[2]


def test_what_counts_is_given_back():
    """A model of the kernel may be what counts: once the cutting is done, nothing holds it."""

    class Counter:
        def count(self, text):
            return len(text.split())

    counter = Counter()
    gone = weakref.ref(counter)
    assert list(chunker(counter.count, 5)(parse(b"One two. Three four. " * 9, ".txt")))
    del counter
    gc.collect()
    assert gone() is None
