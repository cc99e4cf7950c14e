"""Documents of every kind, with the pages and headings of their parts; and what cannot be read, with its reason."""

import io
import json

import pytest

from jupyter_gpt.retrieval import read
from jupyter_gpt.retrieval.read import Unreadable, parse


def reason(data: bytes, suffix: str) -> str:
    with pytest.raises(Unreadable) as caught:
        parse(data, suffix)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def place(document, words: str):
    return document.place(document.text.index(words))


def test_the_pages_of_a_pdf(pdf):
    document = parse(pdf("Leave is 27 days.", "Trains are second class."), ".pdf")
    assert place(document, "27 days") == (1, "")
    assert place(document, "second class") == (2, "")


def test_a_sentence_that_runs_over_the_page_stands_whole_where_it_begins(pdf):
    document = parse(pdf("The mirror was ground by", "hand in 1931. Visitors come on Thursdays."), ".pdf")
    assert place(document, "The mirror was ground by hand in 1931.") == (1, "")
    assert place(document, "Visitors come") == (2, "")
    apart = parse(pdf("A table of days", "Parental leave is long."), ".pdf")
    assert place(apart, "Parental leave") == (2, "")


def test_a_pdf_of_images_is_named_and_one_page_of_them_is_noted(pdf):
    assert "images" in reason(pdf("", ""), ".pdf")
    assert parse(pdf("One.", ""), ".pdf").notes == ("1 of its 2 pages have no text",)


def test_an_encrypted_pdf(pdf):
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("Secret."))))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    assert "encrypted" in reason(out.getvalue(), ".pdf")


def test_damaged_binary_and_empty_files(pdf):
    assert "damaged PDF" in reason(b"%PDF-1.4 nothing of it", ".pdf")
    assert reason(b"\x89PNG\0\0\0", ".txt") == "is a binary file"
    assert "UTF-8" in reason(b"caf\xe9 and more", ".txt")
    assert reason(b" \n ", ".md") == "is empty"
    assert "line 2" in reason(b'{"text": "a"}\n{oops\n', ".jsonl")
    assert "notebook" in reason(b"{}", ".ipynb")


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)  # sparse: it takes no room
    with pytest.raises(Unreadable, match="1,000 MB, more than 200 MB"):
        read.read(path)


def test_headings_of_markdown_are_paths():
    text = (
        "Intro.\n\n# Handbook\n\n## Leave\n\n27 days.\n\n```\n# no heading\n```\n\n## Travel\n\nTrains.\n\n# "
        "Other\n\nEnd."
    )
    document = parse(text.encode(), ".md")
    assert place(document, "Intro") == (None, "")
    assert place(document, "27 days") == (None, "Handbook > Leave")
    assert place(document, "# no heading") == (None, "Handbook > Leave")
    assert place(document, "Trains") == (None, "Handbook > Travel")
    assert place(document, "End") == (None, "Other")


def test_html_shows_what_its_reader_sees():
    text = (
        "<html><head><title>t</title></head><body><script>alert(1)</script><h1>IT  desk</h1><p>Passwords are\n changed"
        " every <b>90</b> days.</p><!-- hidden --><pre>a  b\n  c</pre><h2>Printers</h2><ul><li>Gutenberg<li>Caxton</ul>"
        "</body></html>"
    )
    document = parse(text.encode(), ".html")
    assert "alert" not in document.text and "hidden" not in document.text
    assert "Passwords are changed every 90 days." in document.text
    assert "a  b" in document.text
    assert place(document, "Caxton") == (None, "IT desk > Printers")


def test_titles_of_plain_text():
    text = (
        "THE JUNGLE\n\nIt was warm.\n\nCHAPTER I\n\nTHE WOLF\n\nA wolf\ncame.\n\nStop!\n\nCHAPTER II. The "
        "Bear\n\nA bear."
    )
    document = parse(text.encode(), ".txt")
    assert place(document, "warm") == (None, "THE JUNGLE")
    assert place(document, "A wolf") == (None, "THE JUNGLE > CHAPTER I: THE WOLF")
    assert place(document, "A bear") == (None, "THE JUNGLE > CHAPTER II. The Bear")


def test_full_lines_are_joined_and_others_kept():
    full = "A line that was broken only because it was as long as this,"
    assert read.unwrapped(f"{full}\nand goes on.\n\nshort\nlines\nstay") == f"{full} and goes on.\n\nshort\nlines\nstay"
    assert read.unwrapped(f"{full}\n- a list") == f"{full}\n- a list"
    assert read.unwrapped("x" * 60 + " hyphen-\nated word") == "x" * 60 + " hyphenated word"


def test_cells_rows_lines_and_functions():
    cells = [{"cell_type": "markdown", "source": ["# Rates\n", "of pay"]}, {"cell_type": "code", "source": "pay = 12"}]
    document = parse(json.dumps({"cells": cells}).encode(), ".ipynb")
    assert place(document, "pay = 12") == (2, "Rates")
    document = parse(b'name,days\nleave,27\n"sick, paid",9\n', ".csv")
    assert place(document, "days: 9") == (2, "") and "name: sick, paid" in document.text
    document = parse(b"name;days\nleave;27\n", ".csv")
    assert document.text == "name: leave\ndays: 27"
    chat = {
        "id": 3,
        "messages": [{"role": "user", "content": "Who mends the lift?"}, {"role": "assistant", "content": "Ida."}],
    }
    document = parse(json.dumps(chat).encode(), ".jsonl")
    assert document.text == "id: 3\nmessages:\nuser: Who mends the lift?\nassistant: Ida."
    document = parse(b'{"text": "one"}\n\n{"title": "two", "n": 3, "x": [1]}\n', ".jsonl")
    assert place(document, "title: two\nn: 3") == (3, "")
    document = parse(b"import os\n\ndef leave(days):\n    return days\n\nclass Train:\n    pass\n", ".py")
    assert place(document, "return days") == (None, "def leave")
    assert place(document, "pass") == (None, "class Train")


def test_utf16_and_a_byte_order_mark():
    assert parse("café".encode("utf-16"), ".txt").text == "café"
    assert parse(b"\xef\xbb\xbfone\r\ntwo", ".txt").text == "one\ntwo"
