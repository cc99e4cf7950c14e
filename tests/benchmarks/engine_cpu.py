"""Sampling from a 135M Llama on a CPU: transformers' generate and our engine, prompt 512, 64 new tokens.

    python tests/benchmarks/engine_cpu.py [--rounds 3] [--busy] [--only "one sample"]

Random weights in the shape of SmolLM2-135M, in one process, turn by turn, so that a change in the machine's load meets
both; every sample has its full length. A first, untimed turn of each lets kernels be chosen and weights laid out, as
they are once per model in a kernel. Figures are medians over rounds, ratios medians of the rounds' ratios. On a machine
that others use, wall time says little: `--busy` runs one thread and counts its processor time instead.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request

PROMPT, NEW, VOCAB = 512, 64, 49152


def model(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def peer(module: LlamaForCausalLM, ids: list[int], samples: int, new: int) -> None:
    """transformers' generate, sampling from the whole distribution."""
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        out = module.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=True,
            top_k=0,
            num_return_sequences=samples,
            max_new_tokens=new,
            min_new_tokens=new,
            eos_token_id=0,
            pad_token_id=0,
        )
    assert out.shape == (samples, len(ids) + new)


def ours(module: LlamaForCausalLM, ids: list[int], samples: int, new: int) -> None:
    """The engine, with its log probabilities."""
    request = Request(tuple(ids), samples=samples, max_tokens=new)
    assert sum(token is not None for token in generate(module, [request])) == samples * new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="one thread, processor time")
    parser.add_argument("--only", default="", help="part of a case's name")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    clock: Callable[[], float] = time.process_time if given.busy else time.perf_counter
    if given.busy:
        torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {load:.1f} at the start")
    modules = {"fp32": model(torch.float32), "bf16": model(torch.bfloat16)}
    cases = [  # name, dtype, prompt, samples, new tokens, ratio owed
        ("one sample, fp32", "fp32", PROMPT, 1, NEW, 1.05),
        ("one sample, bf16", "bf16", PROMPT, 1, NEW, 1.2),
        ("first token of 128, fp32", "fp32", 128, 1, 1, 1.0),
        ("first token of 128, bf16", "bf16", 128, 1, 1, 1.0),
        ("16 samples, fp32", "fp32", PROMPT, 16, NEW, 2.2),
        ("16 samples, bf16", "bf16", PROMPT, 16, NEW, None),
    ]
    for name, dtype, prompt, samples, new, owed in cases:
        if given.only not in name:
            continue
        ids = torch.randint(1, VOCAB, (prompt,), generator=torch.Generator().manual_seed(1)).tolist()
        times: dict[Callable, list[float]] = {peer: [], ours: []}
        for run in (peer, ours):
            run(modules[dtype], ids[:32], 1, min(new * 16, 16))
        for _ in range(given.rounds if new > 1 else 3 * given.rounds):
            for run, taken in times.items():
                began = clock()
                run(modules[dtype], ids, samples, new)
                taken.append(clock() - began)
        theirs, mine = (statistics.median(taken) for taken in times.values())
        ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
        print(
            f"{name:26} generate {theirs:6.2f} s {samples * new / theirs:6.1f} tokens/s   ours {mine:6.2f} s "
            f"{samples * new / mine:6.1f} tokens/s   {ratio:.2f}x" + (f" (owed {owed})" if owed else ""),
            flush=True,
        )
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
