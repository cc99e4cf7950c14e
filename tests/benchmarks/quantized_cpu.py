"""A model with 8-bit and 4-bit weights on a CPU: tokens/s, memory and perplexity beside bf16 and fp32.

    python tests/benchmarks/quantized_cpu.py [--model NAME] [--rounds 3] [--busy] [--data FILE] [--tokens 8192]
        [--only speed|memory|perplexity]

Speed: prompt 512 and 64 new tokens, the formats in turn, so that a change in the machine's load meets all of them. The
time to the first token, of a prompt of 128 and of 512. Perplexity: of the start of FILE, or of generated stories,
in windows of 512 tokens. Memory: what the tensors take, and what the process has grown by, each format loaded in a
process of its own. `--busy` uses one thread and processor time.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from jupyter_gpt import gpt
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request

FORMATS = ("bfloat16", "int8", "int4")
OWED = {"int8": 1.6, "int4": 2.5}
WINDOW = 512


def run(module, ids: list[int], samples: int, new: int) -> None:
    request = Request(tuple(ids), samples=samples, max_tokens=new)
    assert sum(token is not None for token in generate(module, [request])) == samples * new


def speed(name: str, rounds: int, clock) -> None:
    modules = {}
    for dtype in FORMATS:  # each anew: a name is in memory once
        modules[dtype] = gpt.load(name, dtype=dtype).module
    ids = torch.randint(100, 40000, (WINDOW,), generator=torch.Generator().manual_seed(1)).tolist()
    for what, prompt, samples, new in (
        ("one sample", 512, 1, 64),
        ("4 samples", 512, 4, 64),
        ("16 samples", 512, 16, 64),
        ("first token of 128", 128, 1, 1),
        ("first token of 512", 512, 1, 1),
    ):
        taken: dict[str, list[float]] = {dtype: [] for dtype in FORMATS}
        for module in modules.values():
            run(module, ids[:32], 1, min(16, 16 * new))
        for _ in range(rounds):
            for dtype, module in modules.items():
                began = clock()
                run(module, ids[:prompt], samples, new)
                taken[dtype].append(clock() - began)
        line = [f"{what:20}"]
        for dtype, times in taken.items():
            ratio = statistics.median(a / b for a, b in zip(taken["bfloat16"], times, strict=True))
            seconds = statistics.median(times)
            owed = f" (owed {OWED[dtype]})" if samples == 1 and new > 1 and dtype in OWED else ""
            rate = f"{samples * new / seconds:6.1f} tokens/s" if new > 1 else f"{seconds:6.3f} s"
            line.append(f"{dtype} {rate} {ratio:.2f}x{owed}")
        print("   ".join(line), flush=True)


def perplexity(name: str, data: str | None, tokens: int) -> None:
    if data:
        text = Path(data).read_text(encoding="utf-8", errors="replace")
    else:
        from itertools import islice

        from jupyter_gpt.data.stories import documents

        text = "\n\n".join(islice(documents(7), tokens // 40))
    found = {}
    for dtype in ("float32", *FORMATS):
        model = gpt.load(name, dtype=dtype)
        ids = torch.tensor(model.tokenizer(text[: 8 * tokens]).input_ids[:tokens])
        total = count = 0
        with torch.inference_mode():
            for window in ids.split(WINDOW):
                logits = model.module(window[None]).logits[0, :-1].float()
                total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
                count += len(window) - 1
        found[dtype] = math.exp(total / count)
        print(f"perplexity of {count:,} tokens in {dtype}: {found[dtype]:.3f} ({found[dtype] / found['float32']:.4f})")


MEASURE = """
import resource, sys, psutil, torch
from jupyter_gpt import gpt
from jupyter_gpt.models import load, quantize
import accelerate, peft, transformers
name, dtype = sys.argv[1:]
model = gpt.models.about(name)
load.tokenizer_of(model)
quantize.skeleton(model.folder, None)
before = psutil.Process().memory_info().rss
model = gpt.load(name, dtype=dtype)
now, peak = psutil.Process().memory_info().rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(f"{dtype}: {model.memory / 1e6:.0f} MB of tensors; the process grew by {(now - before) / 1e6:.0f} MB, "
      f"at its peak {(peak - before) / 1e6:.0f} MB; loaded as {model.dtype}", *model.notes, sep="; ")
"""


def memory(name: str) -> None:
    for dtype in ("float32", *FORMATS):
        subprocess.run([sys.executable, "-c", MEASURE, name, dtype], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="one thread, processor time")
    parser.add_argument("--data", help="a text file for the perplexity")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--only", choices=("speed", "memory", "perplexity"))
    given = parser.parse_args()
    if given.busy:
        torch.set_num_threads(1)
    if given.model not in gpt.models:
        gpt.pull(given.model)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start")
    if given.only in (None, "memory"):
        memory(given.model)
    if given.only in (None, "speed"):
        speed(given.model, given.rounds, time.process_time if given.busy else time.perf_counter)
    if given.only in (None, "perplexity"):
        perplexity(given.model, given.data, given.tokens)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
