"""Questions about generated facts that no model has seen: with the book closed, and with it open.

    python tests/benchmarks/rag_facts.py [--model smollm2-135m-instruct] [--facts 240] [--questions 60] [--k 4]

Also what retrieval alone does on them. An answer is right when the fact's value stands in it.
"""

from __future__ import annotations

import argparse

from jupyter_gpt import gpt
from jupyter_gpt.data.facts import documents, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--facts", type=int, default=240)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--together", type=int, default=4, help="facts in a document")
    parser.add_argument("--k", type=int, default=4)
    given = parser.parse_args()
    found, texts = facts(given.facts), documents(given.facts, together=given.together)
    gpt.index("benchmark-facts", "$texts", variables={"texts": texts}, overwrite=True)
    step = max(1, len(found) // given.questions)
    asked = [{"question": f.question, "quote": f.text, "answer": f.answer} for f in found[::step]][: given.questions]
    table = gpt.evaluate_index(asked, "benchmark-facts", models=[given.model], k=given.k, max_tokens=32)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
