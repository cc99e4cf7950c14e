"""`%gpt plan`: what a training would cost, before it is begun."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.notebook.magics.options import OUT, Command, Option
from jupyter_gpt.notebook.views import inspect as look
from jupyter_gpt.stages.published import DEVICES, KNOWN

PLAN = Command(
    name="%gpt plan",
    summary="what a training would cost: FLOPs, hours, dollars, memory",
    about=(
        "Computes what it takes to pretrain a model and, beside it, the stages after that at their usual "
        "sizes: finetuning, reward modelling, reinforcement. Alone it sets GPT-3 and LLaMA side by side. "
        "With a budget instead of a model it finds the compute-optimal size."
    ),
    groups=(
        (
            "Model or budget",
            (
                Option("MODEL", "parameters (124M, 7B) or a known model: " + ", ".join(KNOWN), hints=tuple(KNOWN)),
                Option("--tokens", "tokens to pretrain on (default: as published, or 20 a parameter)", "N"),
                Option("--flops", "a budget of compute, instead of MODEL (1e21)", "F"),
                Option("--dollars", "a budget of money, instead of MODEL (1000)", "D"),
                Option("--context", "tokens a row", "T", whole),
                Option("--optimizer", "whose state is held", choices=("adamw", "muon"), default="adamw"),
            ),
        ),
        (
            "Machine",
            (
                Option(
                    "--device", "which accelerator: " + ", ".join(DEVICES), "NAME", default="A100", hints=tuple(DEVICES)
                ),
                Option("--count", "how many pretrain (default: as many as end it in 30 days)", "N", whole),
                Option("--utilization", "share of its peak that is reached", "SHARE", number, default=0.45),
                Option("--dollars-per-hour", "price of one (default: an assumption, shown)", "D", number),
                OUT,
            ),
        ),
    ),
    examples=(
        "%gpt plan",
        "%gpt plan 124M --tokens 2.5B --device H100 --count 1",
        "%gpt plan --dollars 1000 --device H100",
    ),
)


def plan(gpt, given: dict, ip) -> object:
    """Shows the plan; the result is the `Plan`, or those of GPT-3 and LLaMA."""
    from jupyter_gpt.notebook.views.plan import plan_bundle, slide_bundle

    options = {name: value for name, value in given.items() if name != "out"}
    made = look.plan(gpt, **options)
    show(slide_bundle(**{"count": look.SLIDE_COUNT, **options}) if isinstance(made, list) else plan_bundle(made))
    return made
