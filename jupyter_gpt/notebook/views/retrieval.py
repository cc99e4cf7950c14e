"""The table of `%gpt evaluate --index`: what each index finds, and accuracy without and with retrieval."""

from __future__ import annotations

from jupyter_gpt.evaluation.retrieval import recommended
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report


def retrieval_report(table) -> Report:
    """A report of the DataFrame of `gpt.evaluate_index`; figures may differ on another machine."""
    words = ["index", "embedder", "chunk", "search"]
    numbers = [name for name in table.columns if name not in words]
    records = table.to_dict("records")
    rows = [
        [
            *(str(row[name]) for name in words),
            *("" if row[name] != row[name] else Varies(row[name], 3) for name in numbers),
        ]
        for row in records
    ]
    lines = [Paragraph(Varies(line)) for line in words_on(records, table.attrs["questions"])]
    return Report(
        "",
        [Table((*words, *numbers), rows, "llrl" + "r" * len(numbers)), *lines],
        {"view": "retrieval", "indexes": list(dict.fromkeys(table["index"]))},
        {"rows": records},
    )


def words_on(rows: list[dict], questions: int) -> list[str]:
    """Which index and which search finds most, how sure that is, and how it is asked for."""
    best, figure, (low, high), within = recommended(rows, questions)
    flags = "" if best["search"] == "dense" else f" {best['search']}"
    said = (
        f"best: index {best['index']}, {best['search']}: {figure} {best[figure]:.3f} ({low:.3f} to {high:.3f}, "
        f"{questions:,} questions); %%rag --index {best['index']}{flags}"
    )
    if not within:
        return [said, "nothing else is within its interval"]
    others = ", ".join(f"{row['index']} {row['search']} {row[figure]:.3f}" for row in within[:6])
    return [said, f"within its interval: {others}{' …' if len(within) > 6 else ''}"]
