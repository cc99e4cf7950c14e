"""Which documents a source stands for."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.retrieval.document_sources import find_documents
from jupyter_gpt.retrieval.read import Unreadable


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("docs/a.txt", "docs/deep/b.md", "docs/.hidden/c.txt", "docs/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(sources, variables=None):
    return [item.source for item in find_documents(sources, variables)[0]]


def test_folders_globs_and_files_each_once(docs):
    items, passed = find_documents(["docs", "docs/*.txt", str(docs / "docs/a.txt")])
    assert [item.source for item in items] == ["docs/a.txt", "docs/deep/b.md"]
    assert passed == [("docs/x.png", ".png is not a kind of text that is read")]
    assert names(["docs/**/*.md"]) == ["docs/deep/b.md"]
    assert names(["docs/x.png"]) == ["docs/x.png"]  # named by hand, it is looked at, and then found to be binary


def test_what_must_not_be_looked_at_is_passed_over(docs, monkeypatch):
    real = Path.is_file

    def is_file(path):
        if path.name == "b.md":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert names(["docs"]) == ["docs/a.txt"]
    assert names(["docs/**/*"]) == ["docs/a.txt", "docs/x.png"]


@pytest.mark.parametrize(
    "source, said",
    [
        ("empty", "the folder empty has no file to index"),
        ("docs/*.pdf", "no file matches"),
        ("docs/a.tx", "did you mean a.txt"),
        ("$nobody", "there is no variable $nobody"),
        ("$number", "is a int"),
        ("$nothing", "has no text"),
    ],
)
def test_what_is_not_there(docs, source, said):
    with pytest.raises(GPTError, match=r"^[^\n]*$") as caught:
        find_documents([source], {"number": 3, "nothing": []})
    assert said in str(caught.value)


def test_variables(docs):
    frame = pd.DataFrame({"text": ["x", "y"], "n": [1, 2]})
    variables = {"one": "a text", "many": ["p", "q"], "named": {"faq": "z"}, "frame": frame}
    assert names(["$one"], variables) == ["$one"]
    assert names(["$many"], variables) == ["$many[0]", "$many[1]"]
    assert names(["$named"], variables) == ["$named[faq]"]
    assert names(["$frame"], variables) == ["$frame[0]", "$frame[1]"]


def test_an_address_is_fetched_only_when_it_is_typed():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = b'<p>Leave is 27 days. <a href="/other.html">more</a></p>'
            self.send_response(200 if self.path == "/page" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing: tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    [item] = find_documents([f"{address}/page"])[0]
    assert asked == [] and item.load().text == "Leave is 27 days. more"
    assert asked == ["/page"]
    with pytest.raises(Unreadable, match="404"):
        find_documents([f"{address}/gone"])[0][0].load()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("source", ["a" * 5000, f"{'a' * 5000}/*.txt", f"docs/{'a' * 300}.txt"])
def test_a_name_that_is_too_long_is_a_file_that_is_not_there(docs, source):
    with pytest.raises(GPTError, match=r"there is no file|no file matches"):
        find_documents([source])


def test_a_folder_that_goes_while_it_is_walked_is_left_out(docs, monkeypatch):
    (docs / "docs" / "gone").mkdir()
    walk = os.walk

    def going(path, *more, **options):
        for folder, folders, files in walk(path, *more, **options):
            yield folder, folders, files
            if "gone" in folders:
                (docs / "docs" / "gone").rmdir()

    monkeypatch.setattr(os, "walk", going)
    assert names(["docs"]) == ["docs/a.txt", "docs/deep/b.md"]
