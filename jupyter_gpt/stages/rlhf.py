"""`%%rlhf`: reinforcement learning from rankings or rewards, which aligns an assistant with them.

The options, the recipe that follows from them, the reward model and the algorithm of a run, and what is kept; `rl.py`
has the training that the algorithms `ppo.py`, `grpo.py` and `dpo.py` share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from pydantic import Field

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.options import Count, NotNegative, Number, Positive, Rank, Recipe, Share, option
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.events import Evaluation, Metric, Note, Progress, Step
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages import reward as reward_stage
from jupyter_gpt.stages.launch import claim, launch
from jupyter_gpt.stages.reward_function import check_columns
from jupyter_gpt.stages.stage import LENGTH, Training, keep_model

ALGORITHMS = ("ppo", "grpo", "dpo")
OWN = {  # options of one algorithm
    "clip_high": "grpo",
    "no_std": "grpo",
    "mask_truncated_completions": "grpo",
    "missing_eos_penalty": "ppo",
    "use_score_scaling": "ppo",
}
GRPO_LOSSES = ("dapo", "grpo", "dr_grpo", "gspo", "rloo")  # of each algorithm the first is the default
DPO_LOSSES = ("sigmoid", "ipo", "simpo", "orpo")
LOSSES = {"grpo": GRPO_LOSSES, "dpo": DPO_LOSSES}
Rewarding = str | Callable[..., Any]


class RLHF(Training):
    """reinforcement learning from rankings or rewards

    The policy completes the prompts, the completions get rewards, and better ones become more probable. PPO learns
    token by token with a critic, GRPO compares completions of one prompt with each other, DPO learns directly from
    rankings. Without --reward, a reward model is trained on the rankings first. Policy, reference, critic and reward
    model share one base in memory. A KL penalty keeps the policy close to the reference; a warning says if the KL grows
    too large or the policy collapses, and what to do. The model is gpt.models[NAME]; ■ keeps it as of that step.
    """

    magic: ClassVar[str] = "%%rlhf"
    groups: ClassVar[tuple[str, ...]] = (
        "Name and data",
        LENGTH,
        "Size",
        "Algorithm",
        "Optimization",
        "Evaluation",
        "Running",
    )
    body_help: ClassVar[str] = """
One prompt a line; empty lines are skipped. Without any, those of the rankings are used. `$rows` alone is a variable: a
list, DataFrame or Dataset of rows with `prompt` (or `question`) and other columns, such as `answer`. A reward function
is given the columns that it names: f(prompt, completion, answer) -> float; with `completions` for `completion` all at
once: f(prompts, completions, answer) -> list of float. `finish_reason` is "stop", or "length" of a truncated one.
"""
    body_sketch: ClassVar[tuple[str, ...]] = ("prompt", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%rlhf aligned --policy assistant --algo ppo --rankings taste",
        "Tell me about the fox.",
        "Why was Anna sad?",
        "",
        "%%rlhf polite --policy assistant --algo grpo --reward $polite --steps 40",
        "Tell me about the fox.",
    )

    prompts: str | Sequence[str | Mapping[str, Any]] | None = option(
        None, "the prompts, a list of texts or of rows, or one a line", positional=True, body=True, only="python"
    )
    policy: str = option(
        ..., "the model to start from, which is not changed", "MODEL", complete="models", group="Name and data"
    )
    algo: str | object = option(
        "ppo",
        "the algorithm: ppo, grpo, dpo, or a $variable with METRICS and step(training)",
        "ALGO",
        hints=ALGORITHMS,
        literal=True,
        group="Name and data",
    )
    rankings: str | None = option(
        None,
        "rankings made by %%rank: training data of DPO, or of a reward model",
        "NAME",
        complete="rankings",
        group="Name and data",
    )
    reward: Rewarding | Sequence[Rewarding] | None = option(
        None,
        "a reward model, or a $function(prompt, completion, columns …) -> float; several are summed",
        "REWARD",
        many=True,
        variable=True,
        complete="models",
        group="Name and data",
    )
    weights: Sequence[Number] | None = option(
        None, "weights of several rewards (default: 1 each)", "X", group="Name and data"
    )
    prompts_per_step: Count = option(8, "prompts of one step (for dpo: rankings)", "N", group="Size")
    samples: Count = option(8, "completions of each prompt", "K", group="Size")
    max_tokens: Count = option(64, "maximum tokens of a completion", "N", group="Size")
    rollouts: str | None = option(
        None,
        "ppo, grpo: the endpoint of a vLLM that samples the completions, as %gpt serve starts it (no GPU has run this)",
        "ENDPOINT",
        complete="models",
        group="Size",
    )
    lora: Rank = option(16, "rank of the LoRA adapters; 0 trains copies of the whole model", "R", group="Size")
    held_out: Share = option(0.1, "share of the prompts held out for evaluation", "SHARE", group="Size")
    lr: Positive | None = option(
        None, "peak learning rate of the policy (default: by algorithm)", "X", group="Algorithm"
    )
    value_lr: Positive | None = option(
        None, "peak learning rate of ppo's critic (default: three times as much)", "X", group="Algorithm"
    )
    kl: NotNegative = option(
        0.05,
        "coefficient of the KL penalty: reward (grpo: group advantage) per nat of KL to the reference",
        "X",
        group="Algorithm",
    )
    kl_target: Positive | None = option(
        None, "adapt the coefficient to this KL, in nats per completion", "NATS", group="Algorithm"
    )
    kl_limit: Positive = option(
        30.0, "KL to the reference above which a warning is shown, in nats per completion", "NATS", group="Algorithm"
    )
    clip: Positive = option(0.2, "clip range of the probability ratio to the sampling policy", "X", group="Algorithm")
    clip_high: Positive | None = option(
        None, "grpo: clip range above 1, where it is another than below (DAPO: 0.28)", "X", group="Algorithm"
    )
    loss: str | None = option(
        None,
        f"the loss, by its paper; grpo: {', '.join(GRPO_LOSSES)}; dpo: {', '.join(DPO_LOSSES)} (default: the first)",
        "LOSS",
        hints=(*GRPO_LOSSES, *DPO_LOSSES),
        group="Algorithm",
    )
    no_std: bool = option(
        False, "grpo: advantages not divided by the standard deviation, as --loss dr_grpo has them", group="Algorithm"
    )
    epochs: Count | None = option(None, "updates on each batch (default: 4, grpo 1)", "N", group="Algorithm")
    gamma: Share = option(1.0, "ppo: discount of later rewards", "X", group="Algorithm")
    lam: Share = option(0.95, "ppo: lambda of generalized advantage estimation", "X", group="Algorithm")
    mask_truncated_completions: bool = option(
        False, "grpo: exclude completions truncated at --max-tokens from the loss", group="Algorithm"
    )
    missing_eos_penalty: Positive | None = option(
        None, "ppo: reward subtracted from a completion truncated at --max-tokens", "X", group="Algorithm"
    )
    use_score_scaling: bool = option(
        False, "ppo: divide rewards by their standard deviation in the run so far", group="Algorithm"
    )
    beta: Positive = option(0.1, "dpo: strength of the KL constraint to the reference", "X", group="Algorithm")
    eval_every: Count | None = option(
        None, "steps between evaluations and samples (default: six in a run)", "N", group="Evaluation"
    )

    def check_together(self) -> None:
        if isinstance(self.algo, str) and self.algo not in ALGORITHMS and not self.algo.startswith("$"):
            likely = nearest(self.algo, ALGORITHMS)
            raise GPTError(f"--algo is {', '.join(ALGORITHMS)} or a $variable, not {self.algo!r:.40}{likely}")
        if self.algo == "grpo" and self.samples == 1:
            raise GPTError(
                "--samples 1 gives GRPO nothing to compare: it learns from several completions of one prompt"
            )
        if self.rollouts and (self.devices not in (None, 1) or self.nodes not in (None, 1)):
            raise GPTError("--rollouts serves one device: leave --devices and --nodes out")
        if self.rollouts and self.algo == "dpo":
            raise GPTError("--algo dpo samples nothing to train on: leave --rollouts out")
        losses = LOSSES.get(str(self.algo), ())
        if self.loss is not None and self.loss not in losses:
            known = f"of {self.algo} is {', '.join(losses)}" if losses else "belongs to --algo grpo and dpo"
            raise GPTError(f"--loss {known}, not {self.loss!r:.40}{nearest(self.loss, losses)}")
        for name, owner in OWN.items():
            if getattr(self, name) and self.algo != owner:
                raise GPTError(f"--{name.replace('_', '-')} belongs to --algo {owner}: leave it out with {self.algo}")


class RLRecipe(Recipe, RLHF):
    """A step of PPO or GRPO samples `samples` completions of each of `prompts_per_step` prompts, at most `max_tokens`
    long; one of DPO reads `prompts_per_step` rankings.

    columns: what the rows hold beside the prompt, by prompt.  reward, weights: names of reward models, or `$name` of a
    function, and their weights.  marks: hashes of the models
    and rankings, by what they are.  micro_tokens: the size of a micro-batch; 0 until it is decided.
    """

    NEWER: ClassVar[Mapping[str, object]] = {
        "mask_truncated_completions": False,
        "missing_eos_penalty": None,
        "use_score_scaling": False,
        "rollouts": None,
        "clip_high": None,
        "loss": None,
        "no_std": False,
        "columns": {},
        "marks": None,
        "micro_tokens": 0,
        "checkpointing": None,
    }

    name: str = ""
    algo: str
    prompts: list[str]
    columns: dict[str, dict[str, Any]] = Field(default_factory=dict)
    reward: list[str]
    weights: list[float]
    steps: int = 60
    lr: float
    value_lr: float
    warmup: float = 0.05
    decay: float = 0.3
    max_norm: float = 1.0
    epochs: int
    eval_every: int
    dtype: str = "auto"
    marks: dict[str, str] | None = None
    micro_tokens: int = 0
    checkpointing: bool | None = None

    @property
    def reads_rankings(self) -> bool:
        """Whether the rankings are used: for DPO's pairs, to train a reward model, or for their prompts."""
        return self.rankings is not None and (self.algo == "dpo" or not self.reward or not self.prompts)


RECIPE = RLRecipe


def metrics_of(algo: str) -> Sequence[Metric]:
    """The metrics of an algorithm; none of one that a user wrote."""
    return () if algo.startswith("$") else algorithm_of(algo, {}).METRICS


def rlhf(session, options: RLHF) -> Run:
    """Train the policy; it is `gpt.models[name]`. Without a reward PPO and GRPO first make a reward model `NAME-reward`
    from the rankings, while DPO learns from those directly. Without prompts those of the rankings are used.

    Raises GPTError, one line, for what cannot be trained; what a function raises comes out as it is.
    """
    name = store.check_name(options.name)
    if name == options.policy:
        raise GPTError(f"{name} would take the place of the model it starts from: choose another name")
    reward_stage.check_base(session, options.policy)
    reward, algo = options.reward, options.algo
    texts, columns = rows_of(options.prompts, options.variables or {})
    sources: Any = [] if reward is None else list(reward) if isinstance(reward, list | tuple) else [reward]
    names, variables = named(sources, dict(options.variables or {}))
    if not isinstance(algo, str):
        usual = getattr(algo, "__name__", type(algo).__name__).rpartition(".")[2]
        name_of = next((key for key, value in variables.items() if value is algo), usual)
        options, variables = options.model_copy(update={"algo": f"${name_of}"}), {**variables, name_of: algo}
    check_algorithm(str(options.algo), variables)
    recipe = recipe_of(options, texts, names).replace(columns=columns)
    if recipe.rollouts is not None and session.models.about(recipe.rollouts).kind != "endpoint":
        raise GPTError(f"{recipe.rollouts} is no endpoint: `%gpt serve --engine vllm {options.policy}` makes one")
    for source in recipe.reward:
        check_reward(session, source, variables, columns)
    if options.rankings is not None:
        session.rankings[options.rankings].need(reward_stage.NEEDED)
    elif not texts:
        raise GPTError("there are no prompts to answer: write them in the body, one a line")
    recipe = recipe.replace(marks=marks_of(session, recipe))
    if options.algo != "dpo" and not names:
        claim(session, reward_name(name), own_reward(recipe, provenance.running_cell()), options.overwrite)
    requested = {**options.given, "prompts": texts, "algo": options.algo, "reward": names}
    requested |= {"columns": columns} if columns else {}
    return launch(session, options, "rlhf", recipe, requested, variables)


def recipe_of(options: RLHF, prompts: Sequence[str], reward: Sequence[str]) -> RLRecipe:
    """The recipe of these options. Raises GPTError, one line, for what cannot be trained."""
    algo = options.algo
    if algo != "dpo" and not reward and not options.rankings:
        raise GPTError(f"--algo {algo} needs a reward: --reward NAME or $function, or --rankings to train one on")
    if algo == "dpo" and not options.rankings:
        raise GPTError("--algo dpo learns directly from rankings: give --rankings NAME")
    weights = list(options.weights or [1.0] * len(reward))
    if len(weights) != len(reward):
        raise GPTError(f"there are {len(reward)} rewards and {len(weights)} --weights: give one of each")
    peak = options.lr or (1e-4 if algo == "dpo" else 3e-4) * (1.0 if options.lora else 0.1)
    return RLRecipe.from_options(
        options,
        prompts=list(prompts),
        reward=list(reward),
        weights=weights,
        lr=peak,
        value_lr=options.value_lr or 3 * peak,
        kl=0.0 if algo == "dpo" else options.kl,
        loss=options.loss or LOSSES.get(str(algo), (None,))[0],
        no_std=options.no_std or options.loss == "dr_grpo",
        epochs=options.epochs or (4 if algo == "ppo" else 1),
        eval_every=options.eval_every or max(1, (options.steps or 60) // 6),
    )


def reward_name(name: str) -> str:
    """What the reward model is called that a run makes for itself."""
    return store.check_name(f"{name}-reward")


def own_reward(recipe, cell_id: str | None) -> Provenance:
    """The provenance of the reward model that a run of this recipe makes for itself."""
    requested = {"rankings": recipe.rankings, "base": recipe.policy, "lora": recipe.lora, "seed": recipe.seed}
    return Provenance("reward", cell_id, requested)


def rows_of(prompts: Any, variables: Mapping) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The prompts, and by prompt what their rows hold beside it. Of a text the lines that are not empty; `$name` alone
    is a variable. Raises GPTError for rows without a prompt, and for one prompt with two contents."""
    rows = prompts.splitlines() if isinstance(prompts, str) else list(prompts or ())
    if len(rows) == 1 and isinstance(rows[0], str) and rows[0].strip().removeprefix("$").isidentifier():
        name = rows[0].strip()
        if name.startswith("$"):
            if name[1:] not in variables:
                raise GPTError(f"there is no variable {name[1:]} with prompts{nearest(name[1:], variables)}")
            found = variables[name[1:]]
            rows = found.to_dict("records") if hasattr(found, "iloc") else list(found)
    texts, columns = [], {}
    for number, row in enumerate(rows):
        own = {} if isinstance(row, str) else dict(row)
        text = row if isinstance(row, str) else own.pop("prompt", None) or own.pop("question", None)
        if not isinstance(text, str):
            raise GPTError(f"row {number} of the prompts has no text named prompt or question: {row!s:.60}")
        text = text.strip()
        if own and columns.setdefault(text, own) != own:
            raise GPTError(f"the prompt {text[:40]!r} stands in two rows whose other columns differ")
        texts += [text] * bool(text)
    try:
        json.dumps(columns)
    except TypeError as error:
        message = "the columns of the prompts go into the recipe, so they are texts, numbers or lists"
        raise GPTError(f"{message}: {error}") from None
    return texts, columns


def named(sources: Sequence[Rewarding], variables: dict) -> tuple[list[str], dict]:
    """Each source of reward by a name that a recipe can hold, and the variables with the functions among them."""
    names = []
    for source in sources:
        if callable(source):
            variable = next((key for key, value in variables.items() if value is source), None)
            usual = variable or getattr(source, "__name__", "reward")
            spellings = (usual, *(f"{usual}_{n}" for n in range(2, len(sources) + len(variables) + 3)))
            key = next(name for name in spellings if variables.get(name, source) is source)  # two may have one name
            variables[key] = source
            source = f"${key}"
        elif not isinstance(source, str):
            raise GPTError(
                f"a reward is a function f(prompt, completion) -> float or a reward model, not {source!r:.60}"
            )
        names.append(source)
    return names, variables


def check_reward(session, source: str, variables: Mapping, columns: Mapping[str, Mapping]) -> None:
    """Raises GPTError for a reward that is neither a reward model nor a function, or names a column there is not."""
    if source.startswith("$"):
        if source[1:] not in variables:
            raise GPTError(f"there is no variable {source[1:]} to reward with{nearest(source[1:], variables)}")
        if not callable(variables[source[1:]]):
            raise GPTError(f"{source} is no function: a reward is f(prompt, completion) -> float")
        check_columns(source, variables[source[1:]], columns)
    elif session.models.about(source).kind == "endpoint" or not session.models.about(source).is_reward_model:
        raise GPTError(
            f"{source} is not a reward model: `%gpt reward` trains one from rankings, or give a function as $name"
        )


def algorithm_of(name: str, variables: Mapping) -> Any:
    """The `rl.Algorithm` of that name. Raises GPTError as `check_algorithm` does."""
    check_algorithm(name, variables)
    return variables[name[1:]] if name[0] == "$" else import_module(f"jupyter_gpt.stages.{name}")


def check_algorithm(name: str, variables: Mapping) -> None:
    """Raises GPTError, one line, for a `$name` that does not exist or is no algorithm."""
    if name[0] != "$":
        return
    if name[1:] not in variables:
        known = nearest(name[1:], variables)
        raise GPTError(f"there is no variable {name[1:]}{known}: --algo {name} needs it, to resume a run too")
    algorithm = variables[name[1:]]
    metrics = getattr(algorithm, "METRICS", None)
    declared = isinstance(metrics, list | tuple) and all(isinstance(metric, Metric) for metric in metrics)
    if isinstance(algorithm, type) or not declared or not callable(getattr(algorithm, "step", None)):
        raise GPTError(
            f"--algo {name} is no algorithm: it must be a module or an object, not a class, with METRICS, a list of "
            "Metric, and a generator step(training)"
        )


def marks_of(session, recipe) -> dict[str, str]:
    """Hashes of the policy's start, which is the reference too, of the reward models, and of rankings that are used.
    The prompts are in the recipe; functions have none."""
    models = [recipe.policy, *(name for name in recipe.reward if not name.startswith("$"))]
    marks = {key: mark for name in models for key, mark in reward_stage.mark_of_model(session, name).items()}
    return marks | (reward_stage.mark_of_rankings(session, recipe.rankings) if recipe.reads_rankings else {})


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events; returns the `RL` at step 0."""
    from jupyter_gpt.prompting.generation import stop_ids
    from jupyter_gpt.stages.rl import prepare

    algorithm = algorithm_of(recipe.algo, variables or {})
    reward_stage.check_marks(run, recipe.marks, marks_of(session, recipe))
    rankings = []
    if recipe.reads_rankings:
        every = session.rankings[recipe.rankings]
        rankings = every.need(reward_stage.NEEDED)
        yield from (Note(text=note) for note in every.notes)
    if recipe.algo != "dpo" and not recipe.reward:
        recipe = yield from rewarded_first(session, run, recipe, rankings)
    rewards = [
        source_of(session, name, weight, variables or {}, recipe.columns)
        for name, weight in zip(recipe.reward, recipe.weights, strict=True)
    ]
    start = session.models[recipe.policy]
    weights = session.models.to_train(start, not recipe.lora, recipe.dtype)
    first = start.lineage[0].split(" (")[0]  # of its lineage: what alignment is compared with
    base = session.models[first] if first != start.name and first in session.models else None
    stop, server = stop_ids(start), None
    if recipe.rollouts is not None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise GPTError("--rollouts serves one device: leave --devices and --nodes out")
        from jupyter_gpt.stages.rollout_server import RolloutServer

        server = RolloutServer(session.models.endpoints[recipe.rollouts], run.folder)
    return (yield from prepare(recipe, run.name, start, algorithm, rewards, rankings, stop, base, weights, server))


def rewarded_first(session, run: Run, recipe, rankings) -> Iterator:
    """Train the reward model of a run that has none; its steps are progress. Returns the recipe with it."""
    name = reward_name(run.name)
    options = reward_stage.RewardModel.of(name=name, rankings=recipe.rankings, lora=recipe.lora, seed=recipe.seed)
    own = reward_stage.recipe_of(options, recipe.policy)
    start = session.models[recipe.policy]
    weights = session.models.to_train(start, not own.lora, own.dtype)
    training = yield from reward_stage.prepare(own, start, rankings, weights)
    training.ranks = None  # the others wait until all is prepared
    for event in training.loop():
        if isinstance(event, Step):
            stage, total = f"training the reward model {name}", training.recipe.steps
            yield Progress(stage=stage, done=event.step, total=total, unit="steps")
        elif isinstance(event, Evaluation):
            last = event
        yield None
    values = last.values
    yield Note(
        text=f"{name} orders {values['accuracy']:.0%} of {last.facts['pairs']} held-out pairs as the ranker "
        f"did (95% interval {values['low']:.0%} to {values['high']:.0%})"
    )
    reward_stage.keep_as(session, run, name, own_reward(recipe, run.provenance.cell_id), training)
    marks = {**(recipe.marks or {}), **reward_stage.mark_of_model(session, name)}
    return recipe.replace(reward=[name], weights=[1.0], marks=marks)


def source_of(session, name: str, weight: float, variables: Mapping, columns: Mapping[str, Mapping]):
    """The reward of that name in the recipe. Raises GPTError for a function that does not exist any more."""
    from jupyter_gpt.nn.logprobs import Reader
    from jupyter_gpt.stages.rollout import Reward

    if name.startswith("$"):
        check_reward(session, name, variables, columns)
        return Reward(name, weight, function=variables[name[1:]], columns=columns)
    model = session.models[name]
    return Reward(name, weight, model=Reader(model.module), tokenizer=model.tokenizer)


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    if training.server is not None:
        training.server.close()
    start = session.models.about(training.recipe.policy)
    keep_model(session, run, training, start, base=(start.base or start.name) if training.recipe.lora else None)
