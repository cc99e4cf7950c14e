"""Sixteen samples and a training step of each architecture that has forwards of ours, beside transformers' own.

    python tests/benchmarks/shapes_cpu.py [--only gemma2 …] [--rounds 2] [--new 24] [--texts 2]

Random weights of about 100M parameters in fp32, one thread, its processor time: what others do on the machine disturbs
it least. Decoding: a prompt of 128 tokens, 16 samples, `generate` and our engine in turn. Training: forward and
backward of texts of 256 tokens, logits and loss included. Each after an untimed turn; best of the rounds.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import cross_entropy

from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request
from jupyter_gpt.nn.architectures import KINDS
from jupyter_gpt.nn.output_head import OutputHead, output_head
from jupyter_gpt.nn.transformer import Trunk

PROMPT, SAMPLES, VOCAB = 128, 16, 32000
SHAPE = dict(
    vocab_size=VOCAB,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=4,
    head_dim=64,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
WINDOW = dict(sliding_window=96)  # shorter than the prompt
OPTIONS = {
    "mistral": WINDOW,
    "phi3": WINDOW,
    "gemma2": WINDOW,
    "gemma3_text": WINDOW,
    "qwen2": dict(use_sliding_window=True, max_window_layers=6, **WINDOW),
}


def model(kind: str):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE, **OPTIONS.get(kind, {}))).eval()


def by_generate(module, ids: list[int], new: int) -> None:
    with torch.inference_mode():
        module.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=True,
            top_k=0,
            num_return_sequences=SAMPLES,
            max_new_tokens=new,
            min_new_tokens=new,
        )


def by_engine(module, ids: list[int], new: int) -> None:
    for _ in generate(module, [Request(tuple(ids), samples=SAMPLES, max_tokens=new, seed=1)]):
        pass


def own_loss(module, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = module(input_ids=ids, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def our_loss(trunk: Trunk, head: OutputHead, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return head.cross_entropy(trunk(ids), targets)


def step(module, loss: Callable, rows: torch.Tensor) -> None:
    loss(rows[:, :-1], rows[:, 1:].contiguous()).backward()
    module.zero_grad()


def best(functions: list, rounds: int) -> list[float]:
    """The least processor time of each, turn by turn."""
    found = [[] for _ in functions]
    for turn in range(rounds + 1):
        for times, function in zip(found, functions, strict=True):
            begin = time.process_time()
            function()
            times += [time.process_time() - begin] * (turn > 0)
    return [min(times) for times in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--texts", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    ids = torch.randint(1, VOCAB, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = torch.randint(1, VOCAB, (options.texts, 257), generator=torch.Generator().manual_seed(0))
    print("architecture | parameters | generate, s | engine, s | ratio | own step, s | step, s | ratio")
    for kind in options.only:
        module = model(kind)
        count = sum(p.numel() for p in module.parameters())
        trunk = Trunk(module, 256, torch.float32)
        decoding = [partial(each, module, ids, options.new) for each in (by_generate, by_engine)]
        losses = [partial(own_loss, module), partial(our_loss, trunk, output_head(trunk))]
        theirs, ours = best(decoding, options.rounds)
        own_step, our_step = best([partial(step, module, loss, rows) for loss in losses], options.rounds)
        print(
            f"{kind} | {count / 1e6:.0f}M | {theirs:.2f} | {ours:.2f} | {theirs / ours:.2f} | {own_step:.2f} | "
            f"{our_step:.2f} | {own_step / our_step:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
