"""The prefix cache on SmolLM2-135M: the second turn of a chat whose first was 1,000 tokens, and whether text changes.

    python tests/benchmarks/prefix_cache.py [--dtype float32] [--rounds 3] [--busy] [--only time|text]

Time: from the request to the first token, of the first turn, of the second with the cache, and of the second without.
Each round has another text. Text: chats of several turns, greedy and sampled, with the cache and without it: how many
answers differ, and the largest difference of the log-probabilities up to there. `--busy` uses one thread and processor
time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from itertools import islice

import torch

from jupyter_gpt import gpt
from jupyter_gpt.data.stories import documents
from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request, Token

QUESTIONS = (
    "Who is this story about?",
    "What happens at the end?",
    "Write one more sentence for it.",
    "Give the story a title.",
)
OWED = 0.15


def ids_of(tokenizer, messages: list[dict]) -> tuple[int, ...]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def tokens_of(module, request: Request, reuse: bool) -> list[Token]:
    return [token for token in generate(module, [request], reuse) if token is not None]


def times(model, rounds: int, clock) -> None:
    stop = frozenset({model.tokenizer.eos_token_id})
    taken: list[list[float]] = []
    for number in range(rounds + 1):
        text = "\n\n".join(islice(documents(number), 40))
        ids = model.tokenizer(text).input_ids[:960]
        chat = [{"role": "user", "content": f"{model.tokenizer.decode(ids)}\n\n{QUESTIONS[0]}"}]
        first = Request(ids_of(model.tokenizer, chat), max_tokens=64, temperature=0, stop_ids=stop)
        row, tokens = [], []
        began = clock()
        for token in generate(model.module, [first], True):
            if token is not None:
                row += [] if row else [clock() - began]
                tokens.append(token.id)
        answer = model.tokenizer.decode(tokens, skip_special_tokens=True)
        chat += [{"role": "assistant", "content": answer}, {"role": "user", "content": QUESTIONS[1]}]
        second = ids_of(model.tokenizer, chat)
        cached = 0
        for reuse in (True, False):
            began = clock()
            [token] = tokens_of(model.module, Request(second, max_tokens=1, temperature=0), reuse)
            row.append(clock() - began)
            cached += token.cached
        if number:  # the first lets kernels be chosen and weights laid out
            taken.append(row)
            print(
                f"first turn {len(first.ids)} tokens {row[0]:.3f} s, answer of {len(tokens)}; second turn "
                f"{len(second)} tokens, {cached} cached: {row[1]:.3f} s, {row[1] / row[0]:.3f} of the first; "
                f"uncached {row[2]:.3f} s",
                flush=True,
            )
    ratio = statistics.median(row[1] / row[0] for row in taken)
    print(f"first token of the second turn: {ratio:.3f} of the first turn's time (owed {OWED})", flush=True)


def texts(model, chats: int) -> None:
    stop = frozenset({model.tokenizer.eos_token_id})
    for temperature in (0.0, 0.7):
        differ = answers = total = 0
        worst = 0.0
        for number in range(chats):
            text = "\n\n".join(islice(documents(100 + number), 3))
            chat: list[dict] = []
            for turn, question in enumerate(QUESTIONS):
                chat.append({"role": "user", "content": question if turn else f"{text}\n\n{question}"})
                ids = ids_of(model.tokenizer, chat)
                request = Request(ids, max_tokens=48, temperature=temperature, stop_ids=stop, seed=turn)
                plain, cached = (tokens_of(model.module, request, reuse) for reuse in (False, True))
                same = 0
                while same < min(len(plain), len(cached)) and plain[same].id == cached[same].id:
                    worst = max(worst, abs(plain[same].logprob - cached[same].logprob))
                    same += 1
                answers, total = answers + 1, total + same
                differ += [token.id for token in plain] != [token.id for token in cached]
                answer = model.tokenizer.decode([token.id for token in plain], skip_special_tokens=True)
                chat.append({"role": "assistant", "content": answer})
        print(
            f"temperature {temperature}: {differ} of {answers} answers differ from those without the cache, "
            f"{total} equal tokens before that, log-probabilities apart by at most {worst:.1e} nats",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chats", type=int, default=12)
    parser.add_argument("--busy", action="store_true", help="one thread, processor time")
    parser.add_argument("--only", choices=("time", "text"))
    given = parser.parse_args()
    if given.busy:
        torch.set_num_threads(1)
    if "smollm2-135m-instruct" not in gpt.models:
        gpt.pull("smollm2-135m-instruct")
    model = gpt.load("smollm2-135m-instruct", dtype=given.dtype)
    print(f"{given.dtype}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} at the start")
    if given.only != "text":
        times(model, given.rounds, time.process_time if given.busy else time.perf_counter)
    if given.only != "time":
        texts(model, given.chats)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
