"""`%gpt reward`: a reward model from rankings."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.notebook import watch
from jupyter_gpt.notebook.magics.options import RUNNING, STEPS, Command, Option
from jupyter_gpt.stages.pretrain_recipe import DTYPES

REWARD = Command(
    name="%gpt reward",
    summary="make a reward model from rankings",
    about=(
        "Puts a head of one number on a language model and teaches it the order of the rankings (Plackett-Luce, "
        "for two "
        "Bradley-Terry). A completion that was cut at its token limit is read as it stands, with no token that "
        "ends it. "
        "Shows the loss as it falls, the accuracy on held-out rankings with its interval, whether the model is "
        "right when it "
        "is sure, and how it scores. gpt.models[NAME].score(prompt, completion) asks it; %%rlhf --reward NAME "
        "trains against "
        "it."
    ),
    groups=(
        (
            "Name and data",
            (
                Option("NAME", "what to call the reward model and its run", needed=True),
                Option("--rankings", "what %%rank kept", "NAME", needed=True, complete="rankings"),
                Option(
                    "--base",
                    "the language model it is made from (default: the one whose completions were ranked)",
                    "MODEL",
                    complete="models",
                ),
                Option("--held-out", "share of the prompts kept for validation", "SHARE", number, default=0.1),
                Option(
                    "--max-tokens",
                    "prompt and completion together are cut to so many (default: the context)",
                    "N",
                    whole,
                ),
            ),
        ),
        (
            "Training",
            (
                STEPS,
                Option("--epochs", "passes over the rankings, instead of --steps", "N", number, default=2),
                Option("--batch", "rankings of one step", "N", whole, default=8),
                Option("--lora", "rank of the adapter; 0 trains a copy of the whole model", "R", whole, default=16),
                Option("--lr", "peak learning rate (default: 3e-4, a tenth of that without LoRA)", "X", number),
                Option(
                    "--dtype", "of the activations; what is trained stays float32 (default: by device)", choices=DTYPES
                ),
                Option("--margin", "by how much the better one has to win", "X", number, default=0),
                Option("--centring", "how strongly scores are drawn towards zero", "X", number, default=0.01),
                Option("--eval-every", "steps between validations (default: eight in a run)", "N", whole),
            ),
        ),
        ("Running", RUNNING),
    ),
    examples=("%gpt reward judge --rankings taste",),
)


def reward(gpt, given: dict, ip) -> object:
    """Trains, showing the live view; the result is the model, or the run in the background."""
    background = given.get("background", False)
    options = {key: value for key, value in given.items() if key not in ("name", "background", "out")}
    run = gpt.reward(given["name"], background=True, variables=ip.user_ns, **options)
    watch(run, background=background)
    return run if background or "out" not in given else gpt.models[run.name]
