"""One GRPO step on this CPU, SmolLM2-135M-Instruct with LoRA of rank 16: ours, and TRL's GRPOTrainer as it comes.

    python tests/benchmarks/grpo_cpu.py [--steps N] [--prompts 8] [--samples 8] [--tokens 64] [--ours-only]

Both in one process, in turns, on the same prompts with the same reward, after a step that is not counted; completions
are of full length in both, for the tokens that end one are forbidden. Ours reports the KL to the reference, which takes
another pass; TRL's default has none. Reports seconds a step (median), of which generation, and tokens/s against the
engine's own at that batch. The model comes from the user's cache (%gpt pull smollm2-135m-instruct).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

PROMPTS = [
    "Tell me about the fox.",
    "What is the capital of France?",
    "Write a sentence about the sea.",
    "Why is the sky blue?",
    "Name three fruits.",
    "How do I boil an egg?",
    "What do bees make?",
    "Give me a tip for sleeping better.",
]


def reward(prompt: str, completion: str) -> float:
    """Short words."""
    words = completion.split()
    return -sum(map(len, words)) / max(1, len(words))


def ours(model, args) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each step, of the generation in it, and of the engine alone at that batch."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from helpers.recipes import rl_recipe
    from jupyter_gpt.inference.engine import generate
    from jupyter_gpt.inference.sampling import Request
    from jupyter_gpt.runs.worker import Call
    from jupyter_gpt.stages import grpo, rl, rl_preparation
    from jupyter_gpt.stages.rollout import Reward

    recipe = rl_recipe(
        model.name,
        PROMPTS[: args.prompts],
        algo="grpo",
        reward=["$reward"],
        prompts_per_step=args.prompts,
        samples=args.samples,
        max_tokens=args.tokens,
        steps=args.steps + 1,
        held_out=0.0,
    )
    preparation = rl_preparation.prepare(recipe, "aligned", model, grpo, [Reward("$reward", function=reward)])
    while True:
        try:
            next(preparation)
        except StopIteration as end:
            training = end.value
            break
    seconds, generating, alone = [], [], []
    rollout = rl.rollout_of

    def timed(*given):
        began = time.perf_counter()
        found = yield from rollout(*given)
        generating.append(time.perf_counter() - began)
        return found

    rl.rollout_of = timed
    for _ in range(args.steps + 1):
        began, answer, events = time.perf_counter(), None, grpo.step(training)
        while True:
            try:
                event = events.send(answer)
            except StopIteration:
                break
            answer = None
            if isinstance(event, Call):
                event.make()
                answer = event.result
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        asked = [
            Request(one.ids, samples=args.samples, max_tokens=args.tokens, seed=n)
            for n, one in enumerate(training.prompts)
        ]
        tokens = sum(token is not None for token in generate(model.module, asked))
        alone.append((time.perf_counter() - began) / tokens)
    rl.rollout_of = rollout
    return seconds[1:], generating[1:], alone[1:]


def theirs(model, args) -> list[float]:
    """Seconds of each step of TRL's trainer."""
    import tempfile

    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Clock(TrainerCallback):
        def __init__(self):
            self.at = []

        def on_step_begin(self, *_, **__):
            self.at.append(time.perf_counter())

        def on_step_end(self, *_, **__):
            self.at.append(time.perf_counter())

    rows = [{"prompt": [{"role": "user", "content": text}]} for text in PROMPTS[: args.prompts]]
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        num_generations=args.samples,
        max_completion_length=args.tokens,
        per_device_train_batch_size=args.prompts * args.samples,
        max_steps=args.steps + 1,
        report_to=[],
        use_cpu=model.device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        generation_kwargs={"min_new_tokens": args.tokens},
    )
    clock = Clock()
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(model.folder),
        lambda completions, **_: [reward("", c[0]["content"]) for c in completions],
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=model.tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        callbacks=[clock],
    )
    trainer.train()
    return [b - a for a, b in zip(clock.at[::2], clock.at[1::2], strict=True)][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 3), ("prompts", 8), ("samples", 8), ("tokens", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ours-only", action="store_true")
    args = parser.parse_args()
    from jupyter_gpt import gpt

    model = gpt.models["smollm2-135m-instruct"]
    seconds, generating, alone = ours(model, args)
    tokens = args.prompts * args.samples * args.tokens
    mine, drawing = statistics.median(seconds), statistics.median(generating)
    engine = 1 / statistics.median(alone)
    print(
        f"ours: {mine:.1f} s a step ({', '.join(f'{s:.1f}' for s in seconds)}), generation {drawing:.1f} s = "
        f"{tokens / drawing:.0f} tokens/s, {tokens / drawing / engine:.0%} of the engine's {engine:.0f}",
        flush=True,
    )
    if not args.ours_only:
        other = statistics.median(theirs(model, args))
        print(f"TRL's GRPOTrainer: {other:.1f} s a step; ours is {other / mine:.2f} times as fast")


if __name__ == "__main__":
    main()
