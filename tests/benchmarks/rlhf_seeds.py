"""The embedded task over seeds: from an assistant made here, kinder answers; and what happens without the KL penalty.

    python tests/benchmarks/rlhf_seeds.py --model assistant [--algo ppo] [--seeds 5] [--steps 40] [--kl X] [--lr X]
    python tests/benchmarks/rlhf_seeds.py --model assistant --seeds 1 --kl 0 --lr 0.003      # the collapse

The model is one of this folder's store, made by %%sft from %%pretrain's stories. The reward is a function of the text:
half a point for each of two different friendly words. Reports for each seed the held-out reward before and after, the
share of the range that was left which it gained, the win rate over the start with its interval, KL, entropy, seconds.
"""

from __future__ import annotations

import argparse

KIND = frozenset(
    [
        "happy",
        "glad",
        "friend",
        "friends",
        "together",
        "kind",
        "smiled",
        "thanked",
        "helped",
        "love",
        "hugged",
        "laughed",
    ]
)
NAMES = ("Anna", "Tom", "the fox", "the dog", "Mia", "Ben", "the bear", "Theo", "Lily", "the cat")
QUESTIONS = (
    "Who was {}?",
    "What did {} do?",
    "Where did {} go?",
    "What did {} find?",
    "Why was {} sad?",
    "Tell me about {}.",
)


def kind(prompt: str, completion: str) -> float:
    """0, 0.5 or 1: how many different friendly words there are, two at most."""
    return min(1.0, len(KIND & {word.strip(".,!?").lower() for word in completion.split()}) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="assistant")
    parser.add_argument("--algo", default="grpo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kl", type=float, default=0.05)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    from jupyter_gpt import gpt

    prompts = [question.format(name) for name in NAMES for question in QUESTIONS]
    for seed in range(args.seeds):
        run = gpt.rlhf(
            f"seed-{seed}",
            prompts,
            policy=args.model,
            algo=args.algo,
            reward=kind,
            steps=args.steps,
            max_tokens=24,
            lr=args.lr,
            kl=args.kl,
            seed=seed,
            held_out=0.2,
            eval_every=args.steps,
            overwrite=True,
        )
        first, last = (e for e in run.events if e["event"] == "evaluation")
        rate, low, high = next(e for e in run.events if e["event"] == "table")["rows"][-1][1]
        gained = (last["reward"] - first["reward"]) / (1 - first["reward"])
        print(
            f"seed {seed}: reward {first['reward']:.2f} → {last['reward']:.2f} ({gained:.0%} of what was left), "
            f"win rate {rate:.2f} ({low:.2f} to {high:.2f}), KL {last['kl']:.1f} nats, entropy "
            f"{first['entropy']:.2f} → {last['entropy']:.2f}, identical {first['identical']:.2f} → "
            f"{last['identical']:.2f}, "
            f"{run.history['seconds'].iloc[-1]:.0f} s",
            flush=True,
        )
        for warning in (e for e in run.events if e["event"] == "warning"):
            print(f"    step {warning['step']}: {warning['text']}")


if __name__ == "__main__":
    main()
