"""Questions about generated facts that no model has seen: with the book closed, and with it open.

    python tests/benchmarks/rag_facts.py [--model smollm2-135m-instruct] [--facts 240] [--questions 60] [--k 4]
        [--taught 120]

Also what retrieval alone does on them. An answer is right when the fact's value stands in it. A small model mixes up
the sources: so an adapter of it is then taught to read, by `gpt.sft` on `--taught` questions about the facts of another
town, put as `gpt.rag` puts them and answered with the fact and its number (or that it is not there), and asked the
same.
"""

from __future__ import annotations

import argparse
from random import Random

from facts import documents, facts

from jupyter_gpt import gpt

ELSEWHERE = 7  # the seed of the other town


def index(name: str, texts: list[str]) -> None:
    gpt.index(name, "$texts", variables={"texts": texts}, overwrite=True)


def lessons(model: str, count: int, together: int, k: int) -> list[dict]:
    """Conversations: the question among up to k sources, the answer from one of them."""
    index("elsewhere", documents(6 * count, ELSEWHERE, together))
    draw, rows = Random(0), []
    for fact in draw.sample(facts(6 * count, ELSEWHERE), count):
        put = gpt.rag(
            fact.question, "elsewhere", model=model, k=draw.randint(1, k), hybrid=True, max_tokens=32, dry_run=True
        )
        place = next((n for n, hit in enumerate(put.hits, start=1) if fact.text in hit.text), None)
        said = f"{fact.text[:-1]} [{place}]." if place else "I don't know."
        rows.append({"messages": [{"role": "user", "content": put.stuffed}, {"role": "assistant", "content": said}]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--facts", type=int, default=240)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--together", type=int, default=4, help="facts in a document")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--taught", type=int, default=120, help="questions that the reader learns from; 0: no reader")
    given = parser.parse_args()
    models = [given.model]
    if given.taught:
        rows = lessons(given.model, given.taught, given.together, given.k)
        gpt.sft("reader", rows, given.model, lora=16, epochs=1, overwrite=True)
        models.append("reader")
    found, texts = facts(given.facts), documents(given.facts, together=given.together)
    index("benchmark-facts", texts)
    step = max(1, len(found) // given.questions)
    asked = [{"question": f.question, "quote": f.text, "answer": f.answer} for f in found[::step]][: given.questions]
    table = gpt.evaluate_index(asked, "benchmark-facts", models=models, k=given.k, max_tokens=32)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
