"""The table of `%gpt evaluate --index`: what each index finds, and what is answered with the book closed and open."""

from __future__ import annotations

from jupyter_gpt.evaluation.retrieval import recommended
from jupyter_gpt.notebook.views.bundle import Bundle, about, marked, plain, quoted
from jupyter_gpt.notebook.views.table import html_table, text_table


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
    lines = words_on(table.to_dict("records"), table.attrs["questions"])
    text = "\n".join([text_table(head, rows, sides), "", *map(quoted, lines)])
    html = html_table(head, rows, sides) + f"<p>{'<br>'.join(marked(plain(line)) for line in lines)}</p>"
    return Bundle(text, html, data, {"rows": table.to_dict("records")})


def words_on(rows: list[dict], questions: int) -> list[str]:
    """Which way of searching which index finds most, how sure that is, and how it is asked for."""
    best, figure, (low, high), within = recommended(rows, questions)
    flags = "" if best["search"] == "dense" else f" {best['search']}"
    said = (
        f"best: index {best['index']}, {best['search']}: {figure} {best[figure]:.3f} ({low:.3f} to {high:.3f}, "
        f"{questions:,} "
        f"questions); %%rag --index {best['index']}{flags}"
    )
    if not within:
        return [said, "nothing else is within its interval"]
    others = ", ".join(f"{row['index']} {row['search']} {row[figure]:.3f}" for row in within[:6])
    return [said, f"within its interval: {others}{' …' if len(within) > 6 else ''}"]
