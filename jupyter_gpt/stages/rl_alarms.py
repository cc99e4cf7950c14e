"""Alarms of reinforcement learning: a policy that runs away or collapses, rewards that do not differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jupyter_gpt.runs.alarms import begun
from jupyter_gpt.runs.events import Alarm

CONSTANT = 3  # consecutive steps without different rewards that raise an alarm
COLLAPSED_IDENTICAL = 0.9  # share of identical samples that is a collapse
COLLAPSED_ENTROPY = 0.25  # share of the first entropy that is a collapse


def alarms(training, values: Mapping) -> Iterator[Alarm]:
    """Alarms that the `values` of a step or an evaluation give cause for.

    Rewards that do not differ are no reason to end a run: if one completion in a hundred succeeds, half of all steps of
    64 have none. That alarm is raised once a run.
    """
    recipe, causes = training.recipe, {}
    if values.get("spread") is not None:
        training.constant = training.constant + 1 if float(values["spread"]) == 0.0 else 0
    if training.constant >= CONSTANT or "constant" in training.alarmed:
        alike = "all completions of each prompt" if recipe.algo == "grpo" else "all completions"
        causes["constant"] = (
            f"in the last {CONSTANT} steps {alike} had the same reward, so there was nothing to learn from. The run "
            f"goes on. If they all failed: more --samples (now {recipe.samples}) or --prompts-per-step (now "
            f"{recipe.prompts_per_step}), easier prompts, or a reward that gives partial credit. If they all "
            "succeeded: harder prompts, or fewer --steps"
        )
    coefficient = f"--beta (now {recipe.beta:g})" if recipe.algo == "dpo" else f"--kl (now {recipe.kl:g})"
    advice = f"Raise {coefficient}, lower --lr (now {recipe.lr:g}), or keep an earlier model: fewer --steps"
    distance, entropy, identical = (values.get(key) for key in ("kl", "entropy", "identical"))
    least = COLLAPSED_ENTROPY * (training.first_entropy or 0.0)
    if distance is not None and float(distance) > recipe.kl_limit:
        causes["kl"] = (
            f"the KL to the reference is {float(distance):.1f} nats per completion, over the limit of "
            f"{recipe.kl_limit:g}: the policy is running away from the model it started from. {advice}"
        )
    if identical is not None and identical >= COLLAPSED_IDENTICAL:
        causes["collapse"] = (
            f"the policy has collapsed: {identical:.0%} of its completions of a prompt are the same. {advice}"
        )
    elif entropy is not None and float(entropy) < least:
        causes["collapse"] = (
            f"the policy has collapsed: its entropy fell from {training.first_entropy:.2f} to {float(entropy):.2f} "
            f"nats per token. {advice}"
        )
    yield from begun(training.step, causes, training.alarmed)
    training.alarmed = list(causes)
