"""The memory of preparing conversations for finetuning: peak of a process that tokenizes a generated file.

    python tests/benchmarks/sft_data_memory.py [--conversations 100000] [--words 60] [--format jsonl|json|csv|txt]

Conversations of four turns of some 60 words each (of two in CSV), a tokenizer of 4,096 tokens trained on the first of
them. Printed are the peak resident memory of the process, what of it the imports and the tokenizer took, and the bytes
on disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def conversations(count: int, length: int, turns: int) -> Iterator[list[dict]]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    for _ in range(count):
        said = [" ".join(draw.choices(words, k=draw.randint(2 * length // 3, 4 * length // 3))) for _ in range(turns)]
        roles = ("user", "assistant") * (turns // 2)
        yield [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]


def write(path: Path, count: int, length: int) -> None:
    """In the format that the suffix says."""
    kind = path.suffix
    with path.open("w", encoding="utf-8") as file:
        file.write({".json": "[", ".csv": "prompt,completion\n"}.get(kind, ""))
        for n, turns in enumerate(conversations(count, length, 2 if kind == ".csv" else 4)):
            if kind == ".csv":
                file.write(",".join(turn["content"] for turn in turns) + "\n")
            elif kind == ".txt":
                file.write("".join(f"{turn['role']}: {turn['content']}\n" for turn in turns) + "---\n")
            else:
                row = json.dumps({"messages": turns})
                file.write(f"{row}\n" if kind == ".jsonl" else f"{',' * (n > 0)}{row}")
        file.write("]" if kind == ".json" else "")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def prepare(path: Path, folder: Path, length: int) -> None:
    from jupyter_gpt.data import conversation_dataset, tokenizer
    from jupyter_gpt.data.chat import with_template

    texts = [turn["content"] for turns in conversations(2000, length, 4) for turn in turns]
    spoken = with_template(tokenizer.train_bpe(texts, 4096))
    before, begin = peak(), time.perf_counter()
    work = conversation_dataset.prepare({str(path): 1.0}, spoken, folder, context=1024)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found = end.value
            break
    took, size = time.perf_counter() - begin, sum(file.stat().st_size for file in folder.iterdir())
    print(
        f"{len(found):,} conversations, {len(found.tokens):,} tokens: peak {peak():.2f} GiB ({before:.2f} before), "
        f"{size / 2**30:.2f} GiB on disk, {took:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=60, help="of a turn, on average")
    parser.add_argument("--format", choices=("jsonl", "json", "csv", "txt"), default="jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"conversations.{options.format}"
        write(path, options.conversations, options.words)
        print(f"{path.stat().st_size / 2**30:.2f} GiB of {options.format}")
        given = (path, Path(folder) / "data", options.words)
        process = multiprocessing.get_context("spawn").Process(target=prepare, args=given)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
