"""Twenty samples of one prompt on a CPU: one reading and twenty rows, against twenty separate calls of `generate`.

    python tests/benchmarks/samples.py [--samples 20] [--new 64] [--rounds 1]

The shape of SmolLM2-135M with random weights, a prompt of 512 tokens, fp32, every sample of its full length; in one
process, in turn. Owed: at most 0.5 times the wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
import transformers
from engine_cpu import PROMPT, VOCAB, model, ours, peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--new", type=int, default=64, help="tokens of each sample")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    module = model(torch.float32)
    ids = torch.randint(1, VOCAB, (PROMPT,), generator=torch.Generator().manual_seed(1)).tolist()
    for run in (peer, ours):  # kernels are chosen, weights laid out
        run(module, ids[:32], 2, 4)
    shares = []
    for _ in range(given.rounds):
        began = time.perf_counter()
        for _ in range(given.samples):
            peer(module, ids, 1, given.new)
        theirs = time.perf_counter() - began
        began = time.perf_counter()
        ours(module, ids, given.samples, given.new)
        mine = time.perf_counter() - began
        shares.append(mine / theirs)
        print(
            f"{given.samples} calls of generate {theirs:.1f} s, {given.samples} samples of one call {mine:.1f} s: "
            f"{mine / theirs:.2f}x",
            flush=True,
        )
    print(
        f"median {statistics.median(shares):.2f}x (owed: at most 0.5), prompt {PROMPT}, {given.new} new tokens, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
