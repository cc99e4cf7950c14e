"""`%gpt merge`: an adapter and its base become one full model."""

from __future__ import annotations

from jupyter_gpt.notebook.magics.options import OUT, OVERWRITE, Command, Option

MERGE = Command(
    name="%gpt merge",
    summary="make a full model of an adapter and its base",
    about="Adds what the adapter learned to the weights of its base, in a model of its own. Adapter and base stay "
    "as they are.",
    groups=(
        (
            "Options",
            (
                Option("MODEL", "an adapter: what %%sft --lora made", needed=True, complete="models"),
                Option("AS", "what to call the full model (default: MODEL-merged)"),
                OVERWRITE,
                OUT,
            ),
        ),
    ),
    examples=("%gpt merge assistant", "%gpt merge assistant assistant-full"),
)


def merge(gpt, given: dict, ip) -> object:
    """Merges and says what came of it; the result is the model."""
    model = gpt.merge(given["model"], given.get("as"), overwrite="overwrite" in given)
    print(f"{model.name}: {given['model']} merged into its base, {model.parameters:,} parameters")
    return model
