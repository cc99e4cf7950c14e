"""`gpt.evaluate_index`: retrieval metrics by index (its embedder and chunk size), search and k; and how a model answers
without and with the index.
"""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.retrieval import mean, questions_of, recommended, right, scores
from jupyter_gpt.report.parts import Paragraph, Table, Varies
from jupyter_gpt.report.report import Report
from jupyter_gpt.stages.prompt_options import EvaluateIndex

WAYS = {"dense": {}, "--keyword": {"keyword": True}} | {f"--hybrid {w}": {"hybrid": w} for w in (0.25, 0.5, 0.75)}
KS = [1, 5, 10]
OWN = {"questions", "indexes", "ks", "models", "k", "progress"}  # all other options are those of `gpt.prompt`


def evaluate_index(session, options: EvaluateIndex):
    """A DataFrame with a row for each index and kind of search, named as the options of `%gpt search`, with `recall@k`,
    `mrr` and `ndcg@k`; `.attrs["questions"]` is their number.

    With `models`, also each model's share of right answers `closed` (without the index) and `open` (`gpt.rag` with `k`
    chunks); questions then need an `answer`. Raises GPTError for questions without evidence
    (`evaluation/retrieval.py`).
    """
    import pandas

    asked, ks = questions_of(options.questions), options.ks or KS
    if options.models and any(question.answer is None for question in asked):
        raise GPTError("to evaluate a model every question needs an `answer`")
    tell = options.progress or (lambda what, done, total: None)
    rows, texts = [], [question.text for question in asked]
    common = {"temperature": 0.0, "max_tokens": 64}
    common |= {name: value for name, value in options.chosen.items() if name not in OWN}
    for name in options.indexes:
        index = session.indexes[name]
        about = {"index": name, "embedder": index.about["embedder"], "chunk": index.about["chunk_tokens"]}
        vectors, search = index.vectors(texts), index.searcher.search
        for way, how in WAYS.items():
            tell(f"{name}, {way}", 0, 1)
            found = [search(text, vector, max(ks), **how) for text, vector in zip(texts, vectors, strict=True)]
            rows.append({**about, "search": way, **scores(asked, found, ks)})
        for model in options.models:
            closed = [done.text for done in session.prompts(texts, model=model, **common)]
            open_ = []
            for number, text in enumerate(texts):
                tell(f"{name}, {model}", number, len(texts))
                open_.append(session.rag(text, name, model=model, k=options.k, hybrid=True, **common).text)
            share = [
                mean(right(a, q.answer or "") for a, q in zip(said, asked, strict=True)) for said in (closed, open_)
            ]
            rows.append({**about, "search": f"{model}, k {options.k}", "closed": share[0], "open": share[1]})
    table = pandas.DataFrame(rows)
    table.attrs["questions"] = len(asked)
    return table


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
