"""`%gpt plan`: what a training would cost, before it is begun."""

from __future__ import annotations

from jupyter_gpt.errors import GPTError
from jupyter_gpt.magics.notebook import show
from jupyter_gpt.magics.options import OUT, Command, Option
from jupyter_gpt.magics.words import number, whole
from jupyter_gpt.training.published import DEVICES, KNOWN

SLIDE_COUNT = 2048  # devices on which GPT-3 and LLaMA are set side by side: as many as LLaMA had

PLAN = Command(
    name="%gpt plan",
    summary="what a training would cost: FLOPs, hours, dollars, memory",
    about=(
        "Computes what it takes to pretrain a model and, beside it, the stages after that at their usual "
        "sizes: finetuning, reward modelling, reinforcement. Alone it sets GPT-3 and LLaMA side by side. "
        "With a budget instead of a model it finds the compute-optimal size."
    ),
    groups=(
        ("Model or budget", (
            Option("MODEL", "parameters (124M, 7B) or a known model: " + ", ".join(KNOWN),
                   hints=tuple(KNOWN)),
            Option("--tokens", "tokens to pretrain on (default: as published, or 20 a parameter)", "N"),
            Option("--flops", "a budget of compute, instead of MODEL (1e21)", "F"),
            Option("--dollars", "a budget of money, instead of MODEL (1000)", "D"),
            Option("--context", "tokens a row", "T", whole),
            Option("--optimizer", "whose state is held", choices=("adamw", "muon"), default="adamw"),
        )),
        ("Machine", (
            Option("--device", "which accelerator: " + ", ".join(DEVICES), "NAME", default="A100",
                   hints=tuple(DEVICES)),
            Option("--count", "how many pretrain (default: as many as end it in 30 days)", "N", whole),
            Option("--utilization", "share of its peak that is reached", "SHARE", number, default=0.45),
            Option("--dollars-per-hour", "price of one (default: an assumption, shown)", "D", number),
            OUT,
        )),
    ),
    examples=(
        "%gpt plan",
        "%gpt plan 124M --tokens 2.5B --device H100 --count 1",
        "%gpt plan --dollars 1000 --device H100",
    ),
)  # fmt: skip


def plan(gpt, given: dict, ip) -> object:
    """Shows the plan; the result is the `Plan`, or those of GPT-3 and LLaMA."""
    from jupyter_gpt.training import plan as planner
    from jupyter_gpt.views.plan import plan_bundle, slide_bundle

    given = {name: value for name, value in given.items() if name != "out"}
    model = given.pop("model", None)
    budget = [f"--{name}" for name in ("flops", "dollars") if name in given]
    fixed = ["MODEL"] * (model is not None) + ["--tokens"] * ("tokens" in given)
    if budget and fixed:
        raise GPTError(f"%gpt plan finds the model and its tokens for {budget[0]}: leave {fixed[0]} out")
    if not budget and model is None:
        given.setdefault("count", SLIDE_COUNT)
        show(slide_bundle(**given))
        return [planner.plan(name, **given) for name in KNOWN]
    made = planner.optimal(**given) if budget else planner.plan(model, **given)
    show(plan_bundle(made))
    return made
