"""Speculative decoding on a CPU: plain decoding and prompt lookup of SmolLM2-135M-Instruct, turn by turn.

    python tests/benchmarks/speculative_cpu.py [MODEL] [--rounds 3] [--tokens 200] [--temperature 0]

Prompts in three groups: to repeat or edit a given passage or code (owed: 1.3 times plain decoding), to answer from a
passage, and open prose, which repeats nothing (owed: never below 0.95). Times are processor time of one thread, prefill
included; figures are medians over rounds of the ratio of both in one turn. Texts are compared: how many of the answers
differ, and at what token first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from jupyter_gpt.inference.engine import generate
from jupyter_gpt.inference.sampling import Request

PASSAGE = """The harbour of Lindholm froze in the first week of January. The ferry stayed at its quay, and the three
fishing boats were drawn up on the beach with ropes and rollers. Children skated as far as the lighthouse, which
nobody had reached on foot since 1947. The keeper, Mrs Aaltonen, served them hot blackcurrant juice and showed them
the lamp, whose lens had been ground in Paris in 1871. On the ninth day the wind turned to the south, and the ice
broke with a noise like artillery."""
CODE = '''def moving_average(values, window):
    """Return the moving average of a list of numbers."""
    if window <= 0:
        raise ValueError("window must be positive")
    averages = []
    total = 0.0
    for index, value in enumerate(values):
        total += value
        if index >= window:
            total -= values[index - window]
        if index >= window - 1:
            averages.append(total / window)
    return averages
'''
GROUPS = {
    "quoting": [
        f"Repeat this text word for word:\n\n{PASSAGE}",
        f"Copy this Python function exactly as it is:\n\n{CODE}",
        f"Rename the parameter window to width in this Python function, and write the whole function:\n\n{CODE}",
        f"Correct the spelling of this text and write all of it again:\n\n{PASSAGE.replace('the', 'teh')}",
        f"Add a line that prints the result before the return, and write the whole function:\n\n{CODE}",
    ],
    "answers from a passage": [
        f"{PASSAGE}\n\nQuote the sentence that says who served the children juice.",
        f"{PASSAGE}\n\nSummarize the text in three sentences.",
        f"{CODE}\nExplain this function line by line.",
    ],
    "open prose": [
        "Write a story about a girl who finds a map in her grandmother's attic.",
        "Explain how vaccines work to a curious ten-year-old.",
        "What should I consider before I move to another country?",
        "Describe a market in the early morning.",
        "Write a letter to a friend about your first week in a new job.",
        "Give me your opinion on learning to cook.",
    ],
}
OPENINGS = [
    "Once upon a time",
    "One day",
    "Tom and",
    "The dog",
    "Anna had a",
    "It was a sunny day",
    "There was a",
    "A fox",
]
OWED = {"quoting": 1.3, "open prose": 0.95}


def loaded(name: str):
    """A resident module and its tokenizer, by the name of a model here or its folder."""
    if not Path(name).is_dir():
        from jupyter_gpt import gpt

        name = str(gpt.models[name].folder)
    module = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    return module, transformers.AutoTokenizer.from_pretrained(name)


def prompts_of(tokenizer) -> dict[str, list[tuple[int, ...]]]:
    """Chats for an assistant; for a base model beginnings of stories."""
    if not tokenizer.chat_template:
        return {"stories": [tuple(tokenizer(text)["input_ids"]) for text in OPENINGS]}

    def ids(text: str) -> tuple[int, ...]:
        chat = [{"role": "user", "content": text}]
        return tuple(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

    return {group: [ids(text.replace("\\\n", "\n")) for text in texts] for group, texts in GROUPS.items()}


def run(module, request: Request) -> tuple[float, list]:
    """Processor seconds and the tokens."""
    began = time.process_time()
    tokens = [token for token in generate(module, [request]) if token is not None]
    return time.process_time() - began, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--only", default="", help="part of a group's name")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    module, tokenizer = loaded(given.model)
    load = os.getloadavg()[0]
    print(f"one thread, torch {torch.__version__}, load {load:.1f}; temperature {given.temperature:g}")
    ends = frozenset({tokenizer.eos_token_id})
    for group, prompts in prompts_of(tokenizer).items():
        if given.only not in group:
            continue
        ratios, different, drafted, accepted, count = [], [], 0, 0, 0
        for number, ids in enumerate(prompts):
            plain = Request(ids, max_tokens=given.tokens, temperature=given.temperature, stop_ids=ends, seed=number)
            quick, taken = replace(plain, lookup=True), []
            for request in (plain, quick):
                run(module, replace(request, max_tokens=12))
            for _ in range(given.rounds):
                (slow, expected), (fast, found) = run(module, plain), run(module, quick)
                taken.append((slow / len(expected)) / (fast / len(found)))
            said, meant = ([token.id for token in tokens] for tokens in (found, expected))
            ratios.append(statistics.median(taken))
            drafted, accepted = drafted + sum(t.drafted for t in found), accepted + sum(t.accepted for t in found)
            count += len(found)
            if said != meant:
                different.append(next(n for n, (a, b) in enumerate(zip(said, meant, strict=False)) if a != b))
            print(
                f"   {ratios[-1]:.2f}x  {len(found)} tokens, {fast:.2f} s  {tokenizer.decode(said[:14])!r}", flush=True
            )
        owed = f" (owed {OWED[group]})" if group in OWED else ""
        print(
            f"{group:24} {statistics.geometric_mean(ratios):.2f}x, {min(ratios):.2f} to {max(ratios):.2f}{owed}; "
            f"{accepted} of {drafted} drafted tokens accepted, of {count}; other texts: {len(different)} of "
            f"{len(prompts)}, at tokens {different}",
            flush=True,
        )
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
