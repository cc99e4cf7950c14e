"""Peak memory of PPO with one base in memory, against the same PPO with four models of their own.

    python tests/benchmarks/rlhf_memory.py [--steps 2] [--dtype float32]

SmolLM2-135M-Instruct, 8 completions of 64 tokens a step, a reward model of the same base, on the CPU; each way in a
process of its own, whose peak resident memory the system tells. "One base": policy and critic are adapters of rank 16,
the reward model too, the reference is the base. "Four models": the same adapters, each on a copy of the base. "Four
trained whole": policy and critic are copies whose every weight is trained. The model comes from the user's cache.
"""

from __future__ import annotations

import argparse
import copy
import resource
import subprocess
import sys
from pathlib import Path

WAYS = {"one": "one base, adapters", "four": "four models, adapters", "whole": "four models, trained whole"}
PROMPTS = ["Tell me about the fox.", "What do bees make?"]


def train(way: str, steps: int, dtype: str | None) -> None:
    """A few steps of PPO; prints the peak in MiB."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from helpers.recipes import rl_recipe
    from jupyter_gpt import gpt
    from jupyter_gpt.nn.logprobs import Reader
    from jupyter_gpt.stages import policy, ppo, rl_preparation
    from jupyter_gpt.stages.rollout import Reward

    model = gpt.models["smollm2-135m-instruct"]
    rank = 0 if way == "whole" else 16
    own = (lambda module: module) if way == "one" else copy.deepcopy
    rl_preparation.policy_of = lambda module, *rest: policy.policy_of(own(module), *rest)
    rl_preparation.critic_of = lambda module, *rest: policy.critic_of(own(module), *rest)
    judge = policy.scorer_of(own(model.module), rank, model.tokenizer.pad_token_id, 5).requires_grad_(False)
    recipe = rl_recipe(
        model.name,
        PROMPTS,
        algo="ppo",
        reward=["judge"],
        lora=rank,
        prompts_per_step=2,
        samples=4,
        max_tokens=64,
        steps=steps,
        held_out=0.0,
        dtype=dtype,
    )
    reward = Reward("judge", model=Reader(judge), tokenizer=model.tokenizer)
    preparation = rl_preparation.prepare(recipe, "aligned", model, ppo, [reward])
    while True:
        try:
            next(preparation)
        except StopIteration as end:
            training = end.value
            break
    for _ in range(steps):
        for _ in ppo.step(training):
            pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--dtype", help="of the activations (default: what this machine is fast in)")
    parser.add_argument("--way", choices=WAYS)
    args = parser.parse_args()
    if args.way:
        train(args.way, args.steps, args.dtype)
        return
    peaks = {}
    for way, title in WAYS.items():
        command = [sys.executable, __file__, "--way", way, "--steps", str(args.steps)]
        command += ["--dtype", args.dtype] if args.dtype else []
        peaks[way] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        print(f"{title}: {peaks[way]:,.0f} MiB, one base is {peaks['one'] / peaks[way]:.2f} of it", flush=True)


if __name__ == "__main__":
    main()
