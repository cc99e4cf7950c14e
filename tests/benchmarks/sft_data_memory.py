"""The memory of preparing conversations for finetuning: peak of a process that tokenizes a generated file.

    python tests/benchmarks/sft_data_memory.py [--conversations 100000]

A file of JSON lines, four turns of some 60 words each, a tokenizer of 4,096 tokens trained on a part of it. Printed are
the peak resident memory of the process, what of it the imports and the tokenizer took, and the bytes on disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from pathlib import Path


def write(path: Path, count: int) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            said = [" ".join(draw.choices(words, k=draw.randint(40, 80))) for _ in range(4)]
            roles = ("user", "assistant") * 2
            turns = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
            file.write(json.dumps({"messages": turns}) + "\n")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def prepare(path: Path, folder: Path) -> None:
    from itertools import islice

    from jupyter_gpt.data import conversation_dataset, tokenizer
    from jupyter_gpt.data.chat import with_template

    with path.open(encoding="utf-8") as file:
        texts = [turn["content"] for line in islice(file, 2000) for turn in json.loads(line)["messages"]]
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conversations.jsonl"
        write(path, options.conversations)
        print(f"{path.stat().st_size / 2**30:.2f} GiB of JSON lines")
        process = multiprocessing.get_context("spawn").Process(target=prepare, args=(path, Path(folder) / "data"))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
