"""The batch's slide: which cells are green, yellow and red, one colour a document, a window that is said."""

import re

import numpy as np
import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.report.text import columns
from jupyter_gpt.stages.tokens import GREEN, RED, YELLOW, _documents, batch_report

EOT = 0


class Words:
    """A tokenizer whose token n is the word `wN`."""

    def decode(self, ids, **options):
        return " ".join(f"w{i}" for i in ids)


def batch(b=3, t=8):
    rows = np.arange(1, b * (t + 1) + 1).reshape(b, t + 1)
    rows[:, 0] = EOT
    rows[0, 4] = EOT
    return rows


def cells(html):
    """The (colour, label) of each cell, row by row."""
    rows = re.sub("</?b>", "", html).split("<tr>")[2:]
    cell = r'<span style="background-color:([^;]+);[^"]*" title="[^"]*">([^<]*)</span>'
    return [found for row in rows if (found := re.findall(cell, row))]


def test_green_yellow_and_red_stand_where_attention_does():
    rows = cells(batch_report(batch(), Words(), EOT, (1, 3)).html)
    assert [colour for colour, _ in rows[1][:5]] == [YELLOW, YELLOW, YELLOW, GREEN, RED]
    assert rows[1][3][1] == f"w{batch()[1, 3]}" and rows[1][4][1] == f"w{batch()[1, 4]}"
    others = [colour for row in (rows[0], rows[2], [*rows[1][5:]]) for colour, _ in row]
    assert not {GREEN, YELLOW, RED} & set(others)


def test_documents_change_at_delimiters_and_at_rows():
    assert _documents([[0, 5, 0, 6], [7, 8, 0, 9]], EOT) == [[0, 0, 1, 1], [2, 2, 3, 3]]
    rows = cells(batch_report(batch(), Words(), EOT, (2, 1)).html)
    assert len({colour for colour, _ in rows[0]}) == 2  # two documents in this row
    assert "4 documents" in batch_report(batch(), Words(), EOT).text


def test_the_delimiter_is_marked():
    report = batch_report(batch(), Words(), EOT)
    assert report.text.count("<|eot|>") == 4 + 1  # four in the grid, one in the legend
    assert "document 0, the delimiter &lt;|endoftext|&gt;" in report.html


def test_the_text_says_what_the_html_shows():
    lines = batch_report(batch(), Words(), EOT, (1, 2)).text.splitlines()
    below = lines[lines.index(next(line for line in lines if line.startswith("row 1"))) + 1]
    assert below.split() == ["sees", "sees", "here", "next"]
    row = lines[lines.index(below) - 1]
    assert below.index("next") == row.index(f"w{batch()[1, 3]}")


def test_a_window_shows_the_cell_and_its_target():
    wide = np.arange(1, 2 * 101 + 1).reshape(2, 101)
    report = batch_report(wide, Words(), EOT, (0, 60), shown_columns=10)
    assert "a batch of 2 × 100 tokens" in report.text and "columns 52–61" in report.text
    assert report.data["columns"] == [52, 61]
    last = batch_report(wide, Words(), EOT, (1, 99), shown_columns=10)
    assert last.data["columns"][1] == 100 and cells(last.html)[1][-1][0] == RED
    tall = batch_report(np.arange(1, 61).reshape(20, 3), Words(), EOT, (15, 0), shown_rows=4)
    assert tall.data["rows"] == [12, 15]


def test_a_cell_is_chosen_when_none_is_given():
    row, column = batch_report(batch(), Words(), EOT).data["highlight"]
    assert 0 <= row < 3 and 0 < column < 8


def test_rows_align_also_with_wide_characters():
    class Wide(Words):
        def decode(self, ids, **options):
            return "価格" if ids[0] % 2 else "a"

    lines = batch_report(batch(), Wide(), EOT, (0, 1)).text.splitlines()[2:]
    body = [line for line in lines if line.startswith("row")]
    assert len({columns(line) - columns(line.split()[-1]) for line in body}) == 1


def test_hostile_tokens_are_escaped():
    class Evil(Words):
        def decode(self, ids, **options):
            return "<b>\"'</b>"

    html = batch_report(batch(), Evil(), EOT, name="<script>").html
    assert "&lt;b&gt;&quot;&#x27;" in html and "<script" not in html and "<b>&quot;" not in html


def test_what_varies_is_marked_and_not_in_the_json():
    report = batch_report(batch(), Words(), EOT, varies=True)
    assert "tokens" not in report.data and "tokens" in report.metadata
    outside = re.sub(r"«[^»]*»", "«»", report.text)
    assert "w2" in report.text and "w2" not in outside and "≈4 documents" in outside
    assert "w2" not in re.sub(r"«[^»]*»", "«»", report.html)


@pytest.mark.parametrize("rows", [[], [[1]], [[1, 2], [1, 2, 3]]])
def test_what_is_no_batch(rows):
    with pytest.raises(GPTError, match="B, T"):
        batch_report(rows, Words(), EOT)


@pytest.mark.parametrize("cell", [(3, 0), (0, 8), (-1, 0)])
def test_a_cell_that_is_not_there(cell):
    with pytest.raises(GPTError, match="no cell"):
        batch_report(batch(), Words(), EOT, cell)
