"""The table of `%gpt evaluate --index`: what each index finds, and what is answered with the book closed and open."""

from __future__ import annotations

from jupyter_gpt.views.bundle import Bundle, about
from jupyter_gpt.views.table import html_table, text_table


def retrieval_bundle(table) -> Bundle:
    """A bundle of the DataFrame of `gpt.evaluate_index`; figures may differ on another machine."""
    words = ["index", "embedder", "chunk", "search"]
    numbers = [name for name in table.columns if name not in words]
    head = (*words, *numbers)
    rows = [
        (
            *(str(row[name]) for name in words),
            *("" if row[name] != row[name] else about(row[name], 3) for name in numbers),
        )
        for row in table.to_dict("records")
    ]
    sides = "ll" + "rl" + "r" * len(numbers)
    data = {"view": "retrieval", "indexes": list(dict.fromkeys(table["index"]))}
    return Bundle(
        text_table(head, rows, sides), html_table(head, rows, sides), data, {"rows": table.to_dict("records")}
    )
