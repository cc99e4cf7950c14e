"""When a run of RL goes wrong in one of the ways it goes wrong, and what to do about it, in words.

An alarm is an event `warning`, told when it begins and again only after it has been over.
"""

from __future__ import annotations

from collections.abc import Iterator

from jupyter_gpt.errors import GPTError

CONSTANT = 3  # first steps whose rewards may all be the same before there is nothing to learn
IDENTICAL, ENTROPY = 0.9, 0.25  # share of identical samples, and share of the first entropy, that are a collapse


def alarms(training, told: dict) -> Iterator[dict]:
    """Warnings that the step's figures `told` give cause for.

    Raises GPTError when all rewards of the first steps were the same.
    """
    recipe, step = training.recipe, training.step
    causes = {}
    if told.get("spread") is not None:
        same = float(told["spread"]) == 0.0
        training.constant = training.constant + 1 if same and training.constant == step - 1 else training.constant
        if training.constant >= CONSTANT:
            raise GPTError(
                f"the reward gave the same {float(told['reward']):g} to every completion of the first {CONSTANT} steps: there "
                "is nothing to learn from; it must tell better completions from worse ones"
            )
        if same:
            causes["constant"] = "all completions of this step had the same reward: there was nothing to learn from it"
    held = f"--beta (now {recipe.beta:g})" if recipe.algo == "dpo" else f"--kl (now {recipe.kl:g})"
    lower = f"Raise {held}, lower --lr (now {recipe.lr:g}), or keep an earlier model: fewer --steps"
    kl, entropy, identical = (told.get(key) for key in ("kl", "entropy", "identical"))
    if kl is not None and float(kl) > recipe.kl_limit:
        causes["kl"] = (
            f"the KL to the reference is {float(kl):.1f} nats a completion, over the limit of {recipe.kl_limit:g}: the policy "
            f"is running away from the model it started from. {lower}"
        )
    fallen = entropy is not None and training.first_entropy and float(entropy) < ENTROPY * training.first_entropy
    if identical is not None and identical >= IDENTICAL:
        causes["collapse"] = f"the policy has collapsed: {identical:.0%} of its completions of a prompt are alike. {lower}"
    elif fallen:
        causes["collapse"] = (
            f"the policy has collapsed: its entropy fell from {training.first_entropy:.2f} to {float(entropy):.2f} nats a "
            f"token. {lower}"
        )
    for cause, text in causes.items():
        if cause not in training.alarmed:
            yield {"event": "warning", "step": step, "cause": cause, "text": text}
    training.alarmed = list(causes)
