"""`%gpt index`, `indexes`, `search`, `evaluate --index` and `%%rag` in a shell, on a real session with tiny models."""

import re

import pytest

TEXTS = {
    "leave.md": "Leave is 27 days a year.",
    "it.md": "The printer is called Gutenberg.",
    "far.md": "Zebras eat grass.",
}


@pytest.fixture
def gpt(gpt, tiny_model):
    tiny_model(gpt, "small")
    tiny_model(gpt, "chat", chat=True, context=2048)
    return gpt


@pytest.fixture
def docs(gpt, ip, succeed):
    ip.user_ns["texts"] = TEXTS
    succeed("%gpt index docs $texts --embedder small --chunk-tokens 40 --out kept")
    return ip.user_ns["kept"]


def test_index_and_indexes(gpt, docs, succeed, shown):
    assert docs is gpt.indexes["docs"]
    succeed("%gpt index docs", "%gpt indexes")
    assert shown[-2].startswith("docs: 3 documents, 3 chunks of at most 40 tokens, embedded with small (32 dimensions)")
    assert "«unchanged: 3»" in shown[-2]
    assert [line.split()[:4] for line in shown[-1].splitlines()[2:]] == [["docs", "3", "3", "small"]]
    assert re.sub("─+", "─", repr(gpt.indexes)).split() == re.sub("─+", "─", re.sub("[«»≈]", "", shown[-1])).split()


def test_search_shows_hits_and_a_map(docs, succeed, shown):
    names = succeed('%gpt search docs "The printer is called Gutenberg." --k 2 --hybrid --out hits')
    assert names["hits"][0].source == "$texts[it.md]" and len(names["hits"]) == 2
    assert "[1]" in shown[-1] and "map (PCA): 3 chunks of 3 documents" in shown[-1]
    assert "fused by reciprocal rank" in shown[-1]
    succeed('%gpt search docs --hybrid "The printer?"', '%gpt search docs "The printer?" --hybrid 0.7 --mmr')
    assert "fused by reciprocal rank" in shown[-2] and "rank (0.7 to 0.3), spread out" in shown[-1]
    names = succeed("%gpt search docs printer --keyword --out found")
    assert "ranked by BM25" in shown[-1] and [hit.source for hit in names["found"]] == ["$texts[it.md]"]
    succeed("%%rag chat --index docs --k 2 --near -1 --max-tokens 5 --keyword\nThe printer?")


def test_rag_answers_and_binds(docs, succeed, shown):
    names = succeed("day = 'year'", "%%rag chat --index docs --k 2 --near -1 --max-tokens 5 --out a\nLeave a {day}?")
    answer = names["a"]
    assert answer.question == "Leave a year?" and len(answer.hits) == 2
    assert "context of 2,048 tokens" in shown[-1] and "sources" in shown[-1] and shown[-1].startswith("«")
    succeed("%%rag chat --index docs --near 1.01\nWho was it?")
    assert shown[-1].startswith("«I don't know»")
    succeed("%%rag chat --index docs --near -1 --dry-run\nLeave?")
    assert "nothing was sent" in shown[-1] and "<source number=" in shown[-1]


def test_evaluate_an_index(docs, ip, succeed, shown):
    ip.user_ns["asked"] = [{"question": text, "quote": text} for text in TEXTS.values()]
    table = succeed("%gpt evaluate $asked --index docs --out table")["table"]
    assert list(table["search"]) == ["dense", "--keyword", "--hybrid 0.25", "--hybrid 0.5", "--hybrid 0.75"]
    assert (table["recall@5"] == 1).all() and table.attrs["questions"] == 3
    assert "best: index docs, " in shown[-1] and "3 questions); %%rag --index docs" in shown[-1]
    assert shown[-1].splitlines()[0].split()[:4] == ["index", "embedder", "chunk", "search"]


@pytest.mark.parametrize(
    "cell, said",
    [
        ("%%rag chat\nHi", "%%rag requires --index"),
        ("%%rag chat --index doc\nHi", "did you mean docs?"),
        ("%%rag chat --index docs\n", "the question is empty"),
        ("%gpt search docs x --filter page", "is not a comparison"),
        ("%gpt search docs x --map umap --k 0", "--k 0 must be above zero"),
        ("%gpt index new ./none.pdf", "there is no file"),
        ("%gpt index docs $texts --chunk-tokens 20", "40 tokens per chunk, not 20"),
        ("%gpt search docs x --hybrid 7", "from 0 to 1, not 7"),
        ("%gpt search docs x --keyword --hybrid", "leave one out"),
    ],
)
def test_mistakes(docs, fails, cell, said, shown):
    before = list(shown)
    assert said in fails(cell)
    assert shown == before


def test_options_and_names_are_completed(docs, ip):
    from jupyter_gpt.notebook.magics.completion import candidates

    assert ("docs", "name") in candidates("%%rag --index ", 0, "%%rag --index ", {})[1]
    assert ("--hybrid", "option") in candidates("%gpt search docs --h", 0, "%gpt search docs --h", {})[1]
