"""`%gpt VERB`: one line for everything that is not a cell of its own; each verb is a small function below."""

from __future__ import annotations

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.magics.notebook import bind, show
from jupyter_gpt.magics.options import BACKGROUND, OUT, SEED, Command, Option, help_text, parse
from jupyter_gpt.magics.words import number, whole
from jupyter_gpt.training.published import DEVICES, KNOWN
from jupyter_gpt.views.bundle import about

RUN = Option("RUN", "the run's name", complete="runs", needed=True)
MODEL = Option("MODEL", "the model's name", complete="models", needed=True)


def models(gpt, given: dict, ip) -> object:
    """Every model, in memory or on disk."""
    from jupyter_gpt.magics.listing import models_bundle

    show(models_bundle(gpt.models))
    return gpt.models


def runs(gpt, given: dict, ip) -> object:
    """Every run, those of earlier kernels included."""
    from jupyter_gpt.magics.listing import runs_bundle

    show(runs_bundle(gpt.runs))
    return gpt.runs


def show_run(gpt, given: dict, ip) -> object:
    """The run's view, live while it still runs."""
    from jupyter_gpt.views.curve import run_bundle
    from jupyter_gpt.views.follow import follow

    run = gpt.runs[given["run"]]
    if run.status in ("running", "paused"):
        follow(run, run_bundle, background=True)
    else:
        show(run_bundle(run))
    return run


def stop(gpt, given: dict, ip) -> object:
    """Ends the run gracefully; the model as of its last step is kept."""
    run = gpt.stop(given["run"])
    print(f"{run.name} is {run.status} at step {about(run.step, 0)} of {run.steps:,}")
    return run


def resume(gpt, given: dict, ip) -> object:
    """Goes on from the last checkpoint, as if the run had never ended."""
    from jupyter_gpt.views.curve import run_bundle
    from jupyter_gpt.views.follow import follow

    background = given.get("background", False)
    run = gpt.resume(given["run"], variables=ip.user_ns, background=True)
    follow(run, run_bundle, background=background)
    return run if background else gpt.models[run.name]


def tokens(gpt, given: dict, ip) -> object:
    """A text as the model's tokens."""
    from jupyter_gpt.views.tokens import tokens_bundle

    tokenizer = gpt.models[given["model"]].tokenizer
    text = " ".join(given["text"])
    show(tokens_bundle(tokenizer, text))
    return tokenizer(text, add_special_tokens=False).input_ids


def batch(gpt, given: dict, ip) -> object:
    """Some rows of the batches a run reads."""
    from jupyter_gpt.views.batch import batch_bundle

    bundle = batch_bundle(gpt.runs[given.pop("run")], **given)
    show(bundle)
    return bundle


def plan_cost(gpt, given: dict, ip) -> object:
    """What a training would cost; with no model and no budget, GPT-3 and LLaMA beside each other."""
    from jupyter_gpt.training.plan import optimal, plan
    from jupyter_gpt.views.plan import plan_bundle, slide_bundle

    model = given.pop("model", None)
    budget = "flops" in given or "dollars" in given
    if model is None and not budget:
        show(slide_bundle(**given))
        return [plan(name, **given) for name in KNOWN]
    if model is not None and budget:
        raise GPTError("%gpt plan takes a MODEL or a budget (--flops, --dollars), not both")
    made = plan(model, **given) if model is not None else optimal(**given)
    show(plan_bundle(made))
    return made


COMMANDS = (
    (models, Command(
        "%gpt models", "the models, in memory and on disk",
        "Lists every model of this folder: its size, what it was made from, and where it is.",
        (("Options", (OUT,)),),
    )),
    (runs, Command(
        "%gpt runs", "the runs and how they stand",
        "Lists every training run of this folder, also those of earlier kernels: how it stands, how far it "
        "got, its last losses.",
        (("Options", (OUT,)),),
    )),
    (show_run, Command(
        "%gpt show", "a run's curves and samples, live if it still runs",
        "Opens the view of a run again, after its cell is gone or the page was loaded anew.",
        (("Options", (RUN, OUT)),),
        examples=("%gpt show storyteller",),
    )),
    (stop, Command(
        "%gpt stop", "end a run after the step in hand",
        "Ends a run gracefully: the model as of its last step is kept and usable, and %gpt resume goes on "
        "from there.",
        (("Options", (RUN, OUT)),),
        examples=("%gpt stop storyteller",),
    )),
    (resume, Command(
        "%gpt resume", "go on with a run from its last checkpoint",
        "Goes on with a run that was stopped, failed, or lost its kernel, in this kernel or a new one. A "
        "$variable that it was trained on has to exist again.",
        (("Options", (RUN, BACKGROUND, OUT)),),
        examples=("%gpt resume storyteller",),
    )),
    (tokens, Command(
        "%gpt tokens", "a text as a model's tokens",
        "Shows the text as coloured tokens with their integers, their count and the bytes a token.",
        (("Options", (
            MODEL,
            Option("TEXT", "the text, in quotes; or a $variable", many=True, needed=True),
            OUT,
        )),),
        examples=('%gpt tokens storyteller "Once upon a time"',),
    )),
    (batch, Command(
        "%gpt batch", "rows of the batches that a run reads",
        "Draws some rows as the run reads them: documents end to end, one colour a document, the delimiter "
        "marked, and one cell with all it may attend to and its target.",
        (("Options", (
            RUN,
            Option("--rows", "rows to draw", "N", whole, default=4),
            Option("--cols", "tokens of each row to draw", "N", whole, default=10),
            SEED,
            OUT,
        )),),
        examples=("%gpt batch storyteller --rows 3",),
    )),
    (plan_cost, Command(
        "%gpt plan", "what a training would cost: FLOPs, hours, dollars, memory",
        "Computes what it takes to pretrain a model and, beside it, the stages after that at their usual "
        "sizes: finetuning, reward modelling, reinforcement. Alone it sets GPT-3 and LLaMA side by side. With "
        "a budget instead of a model it finds the compute-optimal size.",
        (
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
                Option("--count", "how many of them pretrain (default: as many as end it in 30 days)",
                       "N", whole),
                Option("--utilization", "share of the device's peak that is reached", "SHARE", number,
                       default=0.45),
                Option("--dollars-per-hour", "price of one device (default: an assumption, shown)", "D",
                       number),
                OUT,
            )),
        ),
        examples=(
            "%gpt plan",
            "%gpt plan 124M --tokens 2.5B --device H100 --count 1",
            "%gpt plan --dollars 1000 --device H100",
        ),
    )),
)  # fmt: skip
VERBS = {command.name.split()[1]: (function, command) for function, command in COMMANDS}


def overview() -> str:
    """What `%gpt` alone prints: every verb with its line."""
    lines = [f"  {verb:<8}  {command.summary}" for verb, (_, command) in VERBS.items()]
    return "\n".join(
        ["%gpt VERB: look after models and runs", "", *lines, "", "%gpt VERB --help explains one."]
    )


def run(ip, line: str) -> None:
    """Does what the verb says; alone, or asked for help, says what there is."""
    verb, _, rest = line.strip().partition(" ")
    if verb in ("", "help", "--help", "-h"):
        asked = rest.strip()
        print(help_text(_verb(asked)[1]) if asked else overview())
        return
    function, command = _verb(verb)
    given = parse(command, rest, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt

    out = given.pop("out", None)
    bind(ip, out, function(gpt, given, ip))


def _verb(verb: str) -> tuple:
    if verb not in VERBS:
        raise GPTError(f"%gpt has no verb {verb}{nearest(verb, VERBS)}")
    return VERBS[verb]
