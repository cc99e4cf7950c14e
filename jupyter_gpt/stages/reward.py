"""`%gpt reward`: a reward model, trained on rankings to score the better completion higher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models.models import REWARD_LABEL
from jupyter_gpt.options import Count, NotNegative, Positive, Rank, Recipe, option
from jupyter_gpt.runs.events import Note
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages import data_hashes as marks
from jupyter_gpt.stages.launch import launch
from jupyter_gpt.stages.stage import LENGTH, OpenShare, Training, one_length

NEEDED = 4  # rankings that tell completions apart: one to be held out, and something to learn from


class RewardModel(Training):
    """train a reward model on rankings

    Puts a head of one number on a language model and teaches it the order of the rankings (Plackett-Luce, for two
    Bradley-Terry). A completion that was cut at its token limit is read as it stands, with no token that ends it. Shows
    the loss as it falls, the accuracy on held-out rankings with its interval, whether the model is right when it is
    sure, and how it scores. gpt.models[NAME].score(prompt, completion) asks it; %%rlhf --reward NAME trains against it.
    """

    magic: ClassVar[str] = "%gpt reward"
    examples: ClassVar[tuple[str, ...]] = ("%gpt reward judge --rankings taste",)

    rankings: str = option(..., "rankings that %%rank kept", "NAME", complete="rankings", group="Name and data")
    base: str | None = option(
        None,
        "the language model it is made from (default: the one whose completions were ranked)",
        "MODEL",
        complete="models",
        group="Name and data",
    )
    held_out: OpenShare = option(0.1, "share of the prompts kept for validation", "SHARE", group="Name and data")
    max_tokens: Count | None = option(
        None, "prompt and completion together are cut to so many (default: the context)", "N", group="Name and data"
    )
    epochs: Positive | None = option(
        None, "passes over the rankings, instead of --steps (default: 2)", "N", group=LENGTH
    )
    batch: Count = option(8, "rankings of one step", "N", group="Optimization")
    lora: Rank = option(16, "rank of the LoRA adapter; 0 trains a copy of the whole model", "R", group="Optimization")
    lr: Positive | None = option(
        None, "peak learning rate (default: 3e-4, a tenth of that without LoRA)", "X", group="Optimization"
    )
    margin: NotNegative = option(0.0, "by how much the better one has to win", "X", group="Optimization")
    centring: NotNegative = option(0.01, "how strongly scores are drawn towards zero", "X", group="Optimization")
    eval_every: Count | None = option(
        None, "steps between validations (default: eight in a run)", "N", group="Evaluation"
    )

    def check_together(self) -> None:
        one_length(self, "steps", "epochs")


class RewardRecipe(Recipe, RewardModel):
    """`batch` rankings a step, `epochs` passes over them all unless `steps` says otherwise (0: not known before the
    rankings are counted). `max_tokens` bounds prompt and completion together; `held_out` is a share of the prompts.
    `marks` are hashes of the base and the rankings, under what they are. `micro_tokens` go through the model at once, a
    ranking at least.
    """

    NEWER: ClassVar[Mapping[str, object]] = {"marks": None, "micro_tokens": 0, "checkpointing": None}

    name: str = ""
    base: str
    steps: int = 0
    epochs: float = 2.0
    lr: float
    warmup: float = 0.05
    decay: float = 0.7
    clip: float = 1.0
    eval_every: int = 0
    dtype: str = "auto"
    marks: dict[str, str] | None = None
    micro_tokens: int = 0
    checkpointing: bool | None = None


RECIPE = RewardRecipe


def reward(session, options: RewardModel) -> Run:
    """Train a reward model; it is `gpt.models[name]`, and `gpt.models[name].score(prompt, completion)` asks it.

    Raises GPTError, one line, for rankings that are too few or all ties, saying how many are there and missing.
    """
    store.check_name(options.name)
    found = session.rankings[options.rankings].need(NEEDED)
    base = options.base or ranked_model(session, options.rankings, found)
    check_base(session, base)
    recipe = recipe_of(options, base)
    recipe = recipe.replace(marks=inputs(session, recipe))
    return launch(session, options, "reward", recipe, {**options.given, "base": base}, options.variables)


def recipe_of(options: RewardModel, base: str) -> RewardRecipe:
    """The recipe of these options; the learning rate of an adapter is ten times that of the whole model."""
    return RewardRecipe.from_options(options, base=base, lr=options.lr or (3e-4 if options.lora else 3e-5))


def ranked_model(session, rankings: str, found) -> str:
    """The one model of the store whose completions were ranked. Raises GPTError where there is none, or several."""
    names = list(dict.fromkeys(each["model"] for ranking in found for each in ranking.completions))
    here = [name for name in names if name in session.models and session.models.about(name).kind != "endpoint"]
    if len(here) != 1:
        whose = f"are of {', '.join(filter(None, names))}" if any(names) else "do not say whose completions they are of"
        raise GPTError(f"say which model the reward model is made from, --base MODEL: rankings {rankings} {whose}")
    return here[0]


def check_base(session, base: str) -> None:
    """Raises GPTError for a model that is not here, is behind a server, or has a head of scores already."""
    model = session.models.about(base)
    if model.kind == "endpoint":
        raise GPTError(f"{base} is behind a server: its weights cannot be trained here, pull it or choose another")
    if model.labels:
        raise GPTError(f"{base} is a {model.kind} model, which writes no text: choose a language model")


def inputs(session, recipe) -> dict[str, str]:
    """Marks of the base and the rankings."""
    return marks.of_model(session, recipe.base) | marks.of_rankings(session, recipe.rankings)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.stages.reward_training import prepare

    marks.check(run, recipe.marks, inputs(session, recipe))
    rankings = session.rankings[recipe.rankings]
    found = rankings.need(NEEDED)
    yield from (Note(text=note) for note in rankings.notes)
    base = session.models[recipe.base]
    return (yield from prepare(recipe, base, found, session.models.to_train(base, not recipe.lora, recipe.dtype)))


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    keep_as(session, run.name, run.provenance, training)


def keep_as(session, name: str, made: Provenance, training) -> None:
    """Keep a reward model under `name`."""
    below = session.models.about(training.recipe.base)
    session.models.keep(
        name,
        training.model,
        training.tokenizer,
        "reward",
        made,
        [*below.lineage, f"{name} (reward)"],
        training.step,
        licence=below.licence,
        base=(below.base or below.name) if training.recipe.lora else None,
        labels=[REWARD_LABEL],
    )
