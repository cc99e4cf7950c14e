"""Filters: what they mean, and that nothing is ever evaluated."""

import sqlite3

import pytest

from jupyter_gpt.errors import GPTError
from jupyter_gpt.retrieval.search import sql_condition

ROWS = [
    ("a.pdf", 1, "Leave", "27 days", 0),
    ("a.pdf", 5, "Travel", "Trains", 1),
    ("b.md", None, "Leave > Sick", "9 days", 0),
]


def matching(text):
    where, values = sql_condition(text)
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE d (source)")
    db.execute("CREATE TABLE c (page, heading, text, n, source)")
    db.executemany("INSERT INTO d VALUES (?)", {(row[0],) for row in ROWS})
    db.executemany("INSERT INTO c VALUES (?, ?, ?, ?, ?)", [(*row[1:], row[0]) for row in ROWS])
    return [
        text
        for (text,) in db.execute(
            f"SELECT c.text FROM c JOIN d ON c.source = d.source WHERE {where} ORDER BY c.rowid", values
        )
    ]


@pytest.mark.parametrize(
    "text, found",
    [
        ("page > 3", ["Trains"]),
        ("page <= 3", ["27 days"]),
        ("1 < page < 9", ["Trains"]),
        ("source == 'a.pdf' and page != 5", ["27 days"]),
        ("source in ('b.md', 'c.md')", ["9 days"]),
        ("'leave' in heading", ["27 days", "9 days"]),
        ("not ('leave' in heading)", ["Trains"]),
        ("'leave' not in heading or page == 1", ["27 days", "Trains"]),
        ("'DAYS' in text and 'a' in source", ["27 days"]),
        ("page > -1", ["27 days", "Trains"]),
        ('text == "x\' OR 1=1 --"', []),
    ],
)
def test_what_a_filter_means(text, found):
    assert matching(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "page",
        "pages > 3",
        "page > 3; DROP TABLE c",
        "page > heading()",
        "",
        "source == b'x'",
        "page > 3 and",
        "'x' in ('a' in text)",
        "page is None",
        "(lambda: 1)() > 0",
        "page > True",
        "f'{page}' == 'x'",
        "((((" * 300,
        "-source > 1",
    ],
)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(GPTError, match=r"^--filter[^\n]*$"):
        sql_condition(text)


def test_constants_that_are_no_value_of_a_database():
    for text in ("page > -'a'", "page > -None", "page > 99999999999999999999", "text == '\ud800'", "page > -x", "a\0b"):
        with pytest.raises(GPTError, match="--filter"):
            sql_condition(text)
    assert sql_condition("page > -3") == ("(c.page > ?)", [-3])
