"""What retrieval finds of questions whose answers are known: by meaning, by words, and by both.

    python tests/benchmarks/retrieval.py [--data FOLDER --questions FILE] [--chunk-tokens 200] [--embedder minilm]

FILE is JSON (or JSON lines) of rows with `question` and one of `quote`, `source`, `chunk` (`evaluation/retrieval.py`).
Without both, the texts are generated facts, whose invented names favour the search by words.
"""

from __future__ import annotations

import argparse

from facts import documents, facts

from jupyter_gpt import gpt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+")
    parser.add_argument("--questions")
    parser.add_argument("--chunk-tokens", type=int, default=200)
    parser.add_argument("--embedder", default="minilm")
    given = parser.parse_args()
    if bool(given.data) != bool(given.questions):
        parser.error("--data and --questions go together")
    options = {"embedder": given.embedder, "chunk_tokens": given.chunk_tokens, "overwrite": True}
    if given.data:
        import pandas

        kept = gpt.index("benchmark-retrieval", given.data, **options)
        asked = pandas.read_json(given.questions, lines=given.questions.endswith("l")).to_dict("records")
    else:
        kept = gpt.index("benchmark-retrieval", "$texts", variables={"texts": documents(240)}, **options)
        asked = [{"question": fact.question, "quote": fact.text} for fact in facts(240)]
    table = gpt.evaluate_index(asked, kept.name, ks=(1, 5, 10))
    at = table.set_index("search")["recall@5"]
    print(f"{kept}, {len(asked)} questions")
    print(table.drop(columns=["index", "embedder", "chunk"]).round(3).to_string(index=False))
    print(
        "recall@5 of hybrid less the better of both: "
        f"{100 * (at['--hybrid 0.5'] - max(at['dense'], at['--keyword'])):+.1f} points "
        "(wanted: -2 or more)"
    )


if __name__ == "__main__":
    main()
