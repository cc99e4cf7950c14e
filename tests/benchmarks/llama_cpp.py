"""Decoding beside llama.cpp on a CPU: the same GGUF file, prompt and tokens, one thread, in turns.

    pip install llama-cpp-py-sync
    python tests/benchmarks/llama_cpp.py FILE.gguf [--dtype int4] [--prompt 512] [--new 64] [--rounds 5]

FILE is read by llama.cpp as it is, and here with `%gpt pull FILE` in `--dtype`. Both read the prompt, then the same
tokens one by one, and take the most probable token after each. Time is the processor's. What llama.cpp was compiled for
is printed: it decides as much as its code.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import llama_cpp_py_sync as native
import torch

from jupyter_gpt import gpt
from jupyter_gpt.inference.forward import forward_of
from jupyter_gpt.inference.kv_cache import KVCache

ffi, lib = native._cffi_bindings.get_ffi(), native._cffi_bindings.get_lib()


def ours(module, prompt: list[int], tokens: list[int]) -> Callable[[], list[float]]:
    forward = forward_of(module)

    @torch.inference_mode()
    def run() -> list[float]:
        cache, times = KVCache(1, len(prompt) + len(tokens), torch.device("cpu")), []
        for ids in (prompt, *([token] for token in tokens)):
            began = time.process_time()
            positions, mask = cache.append([len(ids)], len(ids))
            forward(torch.tensor([ids]), positions, mask, cache, 1)[0, -1].argmax().item()
            times.append(time.process_time() - began)
        return times

    return run


def theirs(llama, prompt: list[int], tokens: list[int]) -> Callable[[], list[float]]:
    def run() -> list[float]:
        past, times = 0, []
        lib.llama_memory_clear(lib.llama_get_memory(llama._ctx), True)
        for ids in (prompt, *([token] for token in tokens)):
            began = time.process_time()
            past = llama._eval_tokens(ids, past)
            row = ffi.buffer(lib.llama_get_logits_ith(llama._ctx, -1), 4 * llama.n_vocab)
            torch.frombuffer(row, dtype=torch.float32).argmax().item()
            times.append(time.process_time() - began)
        return times

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--dtype", default="int4")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    numbers = torch.randint(100, 40000, (given.prompt + given.new,)).tolist()
    prompt, tokens = numbers[: given.prompt], numbers[given.prompt :]
    gpt.pull(given.file, "peer")
    gpt.unload("peer")
    module = gpt.load("peer", dtype=given.dtype).module
    found: dict[str, list[list[float]]] = {"ours": [], "llama.cpp": []}
    with native.Llama(given.file, n_ctx=given.prompt + given.new, n_threads=1, verbose=False) as llama:
        print("llama.cpp:", ffi.string(lib.llama_print_system_info()).decode())
        runs = {"ours": ours(module, prompt, tokens), "llama.cpp": theirs(llama, prompt, tokens)}
        runs["ours"]()  # weights are laid out, kernels chosen
        for _ in range(given.rounds):
            for name, run in runs.items():
                found[name].append(run())
    gpt.delete("peer")
    print(f"{Path(given.file).name}, {given.dtype}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    for what, seconds in (
        ("prompt, s", lambda times: times[0]),
        ("a step, ms", lambda times: 1000 * statistics.median(times[1:])),
        ("tokens/s, prompt included", lambda times: given.new / sum(times)),
    ):
        a, b = ([seconds(times) for times in found[name]] for name in found)
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        ratio = 1 / ratio if "tokens" in what else ratio
        medians = f"ours {statistics.median(a):7.2f}  llama.cpp {statistics.median(b):7.2f}"
        print(f"{what:26} {medians}  {ratio:.2f}x as fast")


if __name__ == "__main__":
    main()
