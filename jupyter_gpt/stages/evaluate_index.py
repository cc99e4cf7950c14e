"""`gpt.evaluate_index`: retrieval metrics by index (its embedder and chunk size), search and k; and how a model answers
without and with the index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jupyter_gpt.errors import GPTError
from jupyter_gpt.evaluation.retrieval import mean, questions_of, right, scores

WAYS = {"dense": {}, "--keyword": {"keyword": True}} | {f"--hybrid {w}": {"hybrid": w} for w in (0.25, 0.5, 0.75)}
KS = (1, 5, 10)


def evaluate_index(
    session,
    questions: object,
    indexes: Sequence[str] | str,
    *,
    ks: Sequence[int] = KS,
    models: Sequence[str] = (),
    k: int = 4,
    progress: Callable[[str, int, int], None] | None = None,
    **options,
):
    """A DataFrame with a row for each index and kind of search, named as the options of `%gpt search`, with `recall@k`,
    `mrr` and `ndcg@k`; `.attrs["questions"]` is their number.

    With `models`, also each model's share of right answers `closed` (without the index) and `open` (`gpt.rag` with `k`
    chunks); questions then need an `answer`. `options` are those of `gpt.prompt`. Raises GPTError for questions without
    evidence (`evaluation/retrieval.py`).
    """
    import pandas

    asked, indexes = questions_of(questions), [indexes] if isinstance(indexes, str) else list(indexes)
    if not ks or min(ks) < 1:
        raise GPTError(f"--ks must be numbers of hits, each 1 or more, not {list(ks)}")
    if models and any(question.answer is None for question in asked):
        raise GPTError("to evaluate a model every question needs an `answer`")
    tell = progress or (lambda what, done, total: None)
    rows, most = [], max(ks)
    for name in indexes:
        kept = session.indexes[name]
        about = {"index": name, "embedder": kept.about["embedder"], "chunk": kept.about["chunk_tokens"]}
        texts = [question.text for question in asked]
        vectors, searcher = kept.vectors(texts), kept.searcher
        for way, how in WAYS.items():
            tell(f"{name}, {way}", 0, 1)
            found = [searcher.search(text, vector, most, **how) for text, vector in zip(texts, vectors, strict=True)]
            rows.append({**about, "search": way, **scores(asked, found, ks)})
        for model in models:
            options = {"temperature": 0.0, "max_tokens": 64, **options}
            closed = [done.text for done in session.prompts(texts, model=model, **options)]
            open_ = []
            for number, text in enumerate(texts):
                tell(f"{name}, {model}", number, len(texts))
                open_.append(session.rag(text, name, model=model, k=k, hybrid=True, **options).text)
            share = [
                mean(right(a, q.answer or "") for a, q in zip(said, asked, strict=True)) for said in (closed, open_)
            ]
            rows.append({**about, "search": f"{model}, k {k}", "closed": share[0], "open": share[1]})
    table = pandas.DataFrame(rows)
    table.attrs["questions"] = len(asked)
    return table
