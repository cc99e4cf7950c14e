"""Documents that would never be read: each costs its time limit and nothing else."""

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jupyter_gpt.retrieval.chunk import chunker
from jupyter_gpt.retrieval.document_sources import Item
from jupyter_gpt.retrieval.read import Unreadable, html, markdown, plain
from jupyter_gpt.retrieval.reader_process import Reader
from jupyter_gpt.session import Session


def read(reader: Reader, item: Item):
    reading = reader.start(item)
    while not reading.done():
        pass
    return reading.result()


@pytest.fixture
def reader():
    found = Reader(seconds=60.0)
    yield found
    found.close()


@pytest.fixture
def trickle():
    """A server that sends a byte every tenth of a second, without an end: its address, and when it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            self.send_response(200)
            self.end_headers()
            try:
                while not over.wait(0.1):
                    self.wfile.write(b"a")
            except OSError:
                over.wait(0)

        def log_message(self, *arguments):
            """Nothing is printed."""

    asked, over = threading.Event(), threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    over.set()
    server.shutdown()
    server.server_close()


def test_documents_are_read_as_in_the_kernel(reader, tmp_path):
    (tmp_path / "a.md").write_text("# One\n\ncafé 🙂\n\n## Two\n\nx")
    (tmp_path / "b.txt").write_bytes(b"\0\1")
    for name in ("a.md", "b.txt", "none.txt"):
        item = Item(name, tmp_path / name)
        try:
            expected = item.load()
        except Unreadable as error:
            with pytest.raises(Unreadable) as caught:
                read(reader, item)
            assert str(caught.value) == str(error)
        else:
            assert read(reader, item) == expected
    assert read(reader, Item("$x", text="HELLO THERE\n\nyou")) == plain("HELLO THERE\n\nyou")


def test_nested_tags_take_at_most_their_time_and_the_next_document_is_read(reader, tmp_path):
    reader.seconds = 1.0
    (tmp_path / "deep.html").write_text("<div>" * 200_000)
    (tmp_path / "fine.html").write_text("<h1>Fine</h1><p>text</p>")
    began = time.monotonic()
    with pytest.raises(Unreadable, match=r"longer than 1 s|in its parser|is empty"):
        read(reader, Item("deep", tmp_path / "deep.html"))
    assert time.monotonic() - began < 30  # it ends at all; how soon is the limit's affair
    reader.seconds = 30.0
    assert "text" in read(reader, Item("fine", tmp_path / "fine.html")).text


def test_an_address_that_trickles_is_given_up(reader, trickle):
    reader.seconds = 1.0
    with pytest.raises(Unreadable, match="took longer than 1 s to read"):
        read(reader, Item(trickle[0]))


def test_a_reader_that_is_killed_costs_one_document(reader, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    item = Item("a", tmp_path / "a.txt")
    read(reader, item)
    os.kill(reader.process.pid, signal.SIGKILL)
    reader.process.wait()
    with pytest.raises(Unreadable, match="reader ended with exit code -9"):
        read(reader, item)
    assert read(reader, item).text == "text"


def test_a_stop_ends_an_indexing_run_that_waits_for_a_server(tiny_model, trickle, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_GPT_HOME", str(tmp_path / "home"))
    gpt = Session()
    tiny_model(gpt, "small")
    gpt.index("kb", "$texts", embedder="small", variables={"texts": ["one", "two"]}, chunk_tokens=40)
    address, asked = trickle

    def interrupt():
        asked.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    kept = gpt.index("kb", ["$texts", address], variables={"texts": ["one", "two"]})
    assert kept.report.stopped
    assert [hit.text for hit in kept.search("two", k=1)] == ["two"]


PATHOLOGICAL = {
    "hashes": "# " * 20_000 + " #" * 20_000,
    "a heading of hashes": "# a" + " #" * 20_000 + "x\n",
    "fences": "```\n" * 20_000,
    "quotations": ">" * 40_000,
    "lists": "- " * 20_000,
    "underlined": "a\n" * 20_000 + "===",
    "one paragraph": ("word " * 12 + "\n") * 20_000,
    "no space": "a" * 400_000,
    "blank lines": "\n" * 400_000,
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
@pytest.mark.timeout(60)  # each took from ten seconds to hours where a pattern was quadratic
def test_texts_on_which_a_quadratic_pattern_never_ends(name):
    for document in (markdown(PATHOLOGICAL[name]), plain(PATHOLOGICAL[name])):
        chunks = list(chunker(lambda text: len(text.split()) + len(text) // 8, 200)(document))
        assert not chunks or max(len(chunk.text) for chunk in chunks) < 2000 * 8


def test_a_page_may_nest_deeply():
    page = "<div>" * 200_000 + "<p>deep<script>no</script><p>down" + "</div>" * 200_000
    assert html(page).text == "deep\n\ndown"  # read in seconds; a minute was not enough where it was quadratic


def test_headings_underlined_and_front_matter():
    document = markdown("---\ntitle: x\n---\n\n# One\n\na\n\n    # code\n\n> # quoted\n\n## Two ##\n\nb")
    assert document.place(document.text.index("b"))[1] == "One > Two"
    assert document.place(document.text.index("# code"))[1] == "One"
    assert document.place(document.text.index("# quoted"))[1] == "One"
    document = markdown("Title\n=====\n\na\n\nPart\n----\n\nb")
    assert document.place(document.text.index("b"))[1] == "Title > Part"


def test_a_long_text_is_cut_as_a_whole_but_for_its_blocks():
    text = " ".join(f"Sentence {n} says {n * 7}." for n in range(30_000))
    chunks = list(chunker(lambda part: len(part.split()), 100)(plain(text)))
    covered = 0
    for chunk in chunks:
        assert text[chunk.start : chunk.start + len(chunk.text)] == chunk.text
        assert not text[covered : chunk.start].strip()
        covered = max(covered, chunk.start + len(chunk.text))
    assert not text[covered:].strip()
