"""When a run of RL goes wrong in one of the ways it goes wrong, and what to do about it, in words.

They are told as those of a loss are (`alarms.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jupyter_gpt.runs.alarms import begun
from jupyter_gpt.runs.events import Alarm

CONSTANT = 3  # steps one after another whose rewards do not differ, before it is told
IDENTICAL, ENTROPY = 0.9, 0.25  # share of identical samples, and share of the first entropy, that are a collapse


def alarms(training, values: Mapping) -> Iterator[Alarm]:
    """Warnings that the `values` of a step or an evaluation give cause for.

    Rewards that do not differ are no reason to end a run: where one completion in a hundred succeeds, half of all steps
    of 64 have none. They are told once a run.
    """
    recipe, step = training.recipe, training.step
    causes = {}
    if values.get("spread") is not None:
        training.constant = training.constant + 1 if float(values["spread"]) == 0.0 else 0
    if training.constant >= CONSTANT or "constant" in training.alarmed:
        alike = "all completions of each prompt" if recipe.algo == "grpo" else "all completions"
        causes["constant"] = (
            f"in the last {CONSTANT} steps {alike} had the same reward, so there was nothing to learn from. The "
            f"run goes on. If "
            f"they all failed: more --samples (now {recipe.samples}) or --prompts-per-step (now "
            f"{recipe.prompts_per_step}), easier "
            "prompts, or a reward that gives partial credit. If they all succeeded: harder prompts, or fewer --steps"
        )
    held = f"--beta (now {recipe.beta:g})" if recipe.algo == "dpo" else f"--kl (now {recipe.kl:g})"
    lower = f"Raise {held}, lower --lr (now {recipe.lr:g}), or keep an earlier model: fewer --steps"
    kl, entropy, identical = (values.get(key) for key in ("kl", "entropy", "identical"))
    if kl is not None and float(kl) > recipe.kl_limit:
        causes["kl"] = (
            f"the KL to the reference is {float(kl):.1f} nats per completion, over the limit of {recipe.kl_limit:g}: "
            f"the policy "
            f"is running away from the model it started from. {lower}"
        )
    entropy = None if entropy is None else float(entropy)
    if identical is not None and identical >= IDENTICAL:
        causes["collapse"] = (
            f"the policy has collapsed: {identical:.0%} of its completions of a prompt are the same. {lower}"
        )
    elif entropy is not None and training.first_entropy and entropy < ENTROPY * training.first_entropy:
        causes["collapse"] = (
            f"the policy has collapsed: its entropy fell from {training.first_entropy:.2f} to {entropy:.2f} nats per "
            f"token. {lower}"
        )
    yield from begun(step, causes, training.alarmed)
    training.alarmed = list(causes)
