"""Sampling from a 135M Llama in bf16 on one GPU: transformers' generate and our engine, prompt 128, 256 new tokens.

    python tests/benchmarks/engine_gpu.py [--rounds 3] [--new 256] [--attention] [--profile 32]

Random weights, one process, turn by turn; the first turn of each is not timed. Prints tokens/s for 1, 32 and 128
samples, the figures owed on an H100, and that the greedy tokens of a graph are those of the eager steps. `--attention`
compares the kernels for one query over a cache with a mask, `--profile N` tells where the time of N samples goes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).parent))
from engine_cpu import VOCAB, model, ours, peer
from figures import Figure, tell

from jupyter_gpt.inference import forward
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request

OWED = {1: 700, 32: 12_000, 128: 33_000}


def greedy(module, ids: list[int], count: int) -> list[int]:
    """The most probable continuation."""
    asked = [Request(tuple(ids), max_tokens=count, temperature=0)]
    return [token.id for token in generate(module, asked) if token is not None]


def agreement(module, ids: list[int]) -> float:
    """The share of greedy tokens, up to the first that differs, on which graphs and plain steps agree."""
    graphed = greedy(module, ids, 64)
    lean = forward.Decoder
    forward.Decoder = lambda module, lean: lean  # the lean forward itself, without graphs
    plain = greedy(module, ids, 64)
    forward.Decoder = lean
    same = next((n for n, (a, b) in enumerate(zip(graphed, plain, strict=True)) if a != b), len(plain))
    return same / len(plain)


def attention_kernels(calls: int = 100) -> None:
    """Microseconds of one call for each kernel, `calls` of them in one CUDA graph: 3 groups of 3 heads of 64, 384
    columns.
    """
    for rows in OWED:
        q, k, v = (torch.randn(rows, 3, n, 64, device="cuda", dtype=torch.bfloat16) for n in (3, 384, 384))
        bias = torch.zeros(rows, 1, 1, 384, device="cuda", dtype=torch.bfloat16)
        for backend in (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH, SDPBackend.CUDNN_ATTENTION):
            try:
                with sdpa_kernel(backend):
                    F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        for _ in range(calls):
                            F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
                graph.replay()
                torch.cuda.synchronize()
                began = time.perf_counter()
                graph.replay()
                torch.cuda.synchronize()
                told = f"{(time.perf_counter() - began) / calls * 1e6:.1f} us"
            except RuntimeError as error:
                told = str(error).splitlines()[0][:80]
            print(f"{rows:4} rows, {backend.name:20} {told}")


def profile(module, ids: list[int], samples: int) -> None:
    """The kernels of 64 tokens, and what the CPU does meanwhile."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    ours(module, ids, samples, 64)
    with torch.profiler.profile(activities=kinds) as seen:
        ours(module, ids, samples, 64)
    print(seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=30, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--attention", action="store_true", help="compare attention kernels only")
    parser.add_argument("--profile", type=int, metavar="N", help="profile N samples only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: there is no GPU here")
        return
    transformers.logging.set_verbosity_error()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    module = model(torch.bfloat16).cuda()
    ids = torch.randint(1, VOCAB, (128,), generator=torch.Generator().manual_seed(1)).tolist()
    if given.attention:
        return attention_kernels()
    if given.profile:
        return profile(module, ids, given.profile)
    print(f"greedy tokens of graphs and of plain steps: {agreement(module, ids):.0%} the same")
    print(f"in fp32: {agreement(model(torch.float32).cuda(), ids):.0%}")
    figures = []
    for samples, owed in OWED.items():
        times: dict = {theirs: [], ours: []}
        for turn in range(given.rounds + 1):
            for run, taken in times.items():
                torch.cuda.synchronize()
                began = time.perf_counter()
                run(module, ids, samples, given.new)
                torch.cuda.synchronize()
                if turn:
                    taken.append(time.perf_counter() - began)
        theirs_rate, rate = (samples * given.new / statistics.median(taken) for taken in times.values())
        figures.append(Figure(f"decoding, {samples} samples (peer: generate)", rate, "tokens/s", theirs_rate, owed))
        tell(figures, given.json)
    print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most")


def theirs(module, ids: list[int], samples: int, new: int) -> None:
    """generate, with the prompt on the GPU."""
    with torch.device("cuda"):
        peer(module, ids, samples, new)


if __name__ == "__main__":
    main()
