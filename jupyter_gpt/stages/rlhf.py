"""`%%rlhf`: reinforcement learning from rankings or rewards, which aligns an assistant with them.

The reward model and the algorithm of a run, and what is kept. `rlhf_options.py` has the options and the recipe that
follows from them, `rl_rows.py` reads prompts and votes; `rl.py` has the training that the algorithms `ppo.py`,
`grpo.py`, `dpo.py` and `kto.py` share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from typing import Any

from jupyter_gpt import store
from jupyter_gpt.data import conversation_formats as formats
from jupyter_gpt.data.render import Question
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.events import Evaluation, Metric, Note, Progress, Step
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages import reward as reward_stage
from jupyter_gpt.stages.launch import claim, launch
from jupyter_gpt.stages.reward_function import check_columns
from jupyter_gpt.stages.rl_rows import question_of, rows_of
from jupyter_gpt.stages.rlhf_options import RLHF, Rewarding, RLRecipe, recipe_of
from jupyter_gpt.stages.stage import another_name, as_variable, keep_model

RECIPE = RLRecipe
OF_LOSS = {"kto": "kto"}  # losses whose algorithm is a module of its own


def rlhf(session, options: RLHF) -> Run:
    """Train the policy; it is `gpt.models[name]`. Without a reward PPO and GRPO first make a reward model `NAME-reward`
    from the rankings, while DPO learns from those directly. Without prompts those of the rankings are used.

    Raises GPTError, one line, for what cannot be trained; what a function raises comes out as it is.
    """
    name = store.check_name(options.name)
    another_name(name, options.policy)
    reward_stage.check_base(session, options.policy)
    reward, algo = options.reward, options.algo
    kto = options.loss == "kto"
    most = round((options.steps or 60) * options.prompts_per_step / max(0.1, 1 - options.held_out))
    rows = rows_of(options.prompts, options.variables or {}, most, kto)
    texts, columns = list(dict.fromkeys(rows.texts)) if rows.votes else rows.texts, rows.columns
    sources: Any = [] if reward is None else list(reward) if isinstance(reward, list | tuple) else [reward]
    names, variables = named(sources, dict(options.variables or {}))
    options = options.model_copy(update={"algo": as_variable(algo, "algorithm", variables)})
    check_algorithm(str(options.algo), variables)
    recipe = recipe_of(options, texts, names).replace(columns=columns, chats=rows.chats, votes=rows.votes)
    for source in recipe.reward:
        check_reward(session, source, variables, columns)
    if kto and (options.rankings is None) == (not rows.votes):
        raise GPTError("--loss kto learns from votes: rows of prompt, completion and label in the body, or --rankings")
    if options.rankings is not None:
        session.rankings[options.rankings].need(reward_stage.NEEDED)
    elif not texts:
        raise GPTError("there are no prompts to answer: write them in the body, one a line")
    recipe = recipe.replace(marks=marks_of(session, recipe))
    if options.algo != "dpo" and not names:
        claim(session, reward_name(name), own_reward(recipe, provenance.running_cell()), options.overwrite)
    requested = {**options.given, "prompts": texts, "algo": options.algo, "reward": names}
    more = {"columns": columns, "chats": rows.chats, "votes": rows.votes}
    requested |= {key: value for key, value in more.items() if value}
    return launch(session, options, "rlhf", recipe, requested, variables)


def reward_name(name: str) -> str:
    """What the reward model is called that a run makes for itself."""
    return store.check_name(f"{name}-reward")


def own_reward(recipe, cell_id: str | None) -> Provenance:
    """The provenance of the reward model that a run of this recipe makes for itself."""
    requested = {"rankings": recipe.rankings, "base": recipe.policy, "lora": recipe.lora, "seed": recipe.seed}
    return Provenance("reward", cell_id, requested)


def named(sources: Sequence[Rewarding], variables: dict) -> tuple[list[str], dict]:
    """Each source of reward by a name that a recipe can hold, and the variables with the functions among them."""
    names = []
    for source in sources:
        if not isinstance(source, str) and not callable(source):
            raise GPTError(
                f"a reward is a function f(prompt, completion) -> float or a reward model, not {source!r:.60}"
            )
        names.append(as_variable(source, "reward", variables))
    parted = [re.fullmatch(r"(\$?[\w.-]+)[:=*] *(\d*\.?\d+)", name) for name in names]
    if any(parted):
        bare = " ".join(each[1] if each else name for name, each in zip(names, parted, strict=True))
        weights = " ".join(each[2] if each else "1" for each in parted)
        raise GPTError(f"weights of rewards have their own option: --reward {bare} --reward-weights {weights}")
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


def algorithm_of(name: str, variables: Mapping, loss: str | None = None) -> Any:
    """The `rl.Algorithm` of that name and loss. Raises GPTError as `check_algorithm` does."""
    check_algorithm(name, variables)
    return (
        variables[name[1:]] if name[0] == "$" else import_module(f"jupyter_gpt.stages.{OF_LOSS.get(loss or '', name)}")
    )


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
    from jupyter_gpt.stages.rl_preparation import prepare

    algorithm = algorithm_of(recipe.algo, variables or {}, recipe.loss)
    reward_stage.check_marks(run, recipe.marks, marks_of(session, recipe))
    rankings = []
    if recipe.reads_rankings:
        every = session.rankings[recipe.rankings]
        rankings = every.need(reward_stage.NEEDED)
        yield from (Note(text=note) for note in every.notes)
    chats = {each.prompt: list(each.messages) for each in rankings if each.messages}
    if recipe.algo != "dpo" and not recipe.prompts:  # which does not read the rankings again when it is resumed
        recipe = recipe.replace(chats=chats)
    if recipe.algo != "dpo" and not recipe.reward:
        recipe = yield from rewarded_first(session, run, recipe, rankings)
    rewards = [
        source_of(session, name, weight, variables or {}, recipe.columns, asked_of_rewards(recipe, chats))
        for name, weight in zip(recipe.reward, recipe.weights, strict=True)
    ]
    start = session.models[recipe.policy]
    weights = session.models.to_train(start, not recipe.lora, recipe.dtype)
    first = start.lineage[0].split(" (")[0]  # of its lineage: what alignment is compared with
    base = session.models[first] if first != start.name and first in session.models else None
    stop, sampler = stop_ids(start), None
    if recipe.rollout_dtype is not None:
        from jupyter_gpt.stages.rollout_copy import RolloutCopy

        if recipe.rollout_dtype != "bfloat16" and start.module.device.type != "cpu":
            raise GPTError(f"--rollout-dtype {recipe.rollout_dtype} is for CPUs: choose bfloat16 here")
        sampler = RolloutCopy(recipe.rollout_dtype)
    return (yield from prepare(recipe, run.name, start, algorithm, rewards, rankings, stop, base, weights, sampler))


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


def asked_of_rewards(recipe, messages: Mapping[str, list[dict]]) -> dict[str, Question]:
    """What reward models read before a completion where it is more than the prompt: its turns and its own system
    prompt. They do not read --system: rankings do not have that of the model that was sampled either."""
    own = recipe.replace(system=None)
    texts = [text for text, row in recipe.columns.items() if formats.has(row, "system")]
    return {text: question_of(own, text, messages.get(text, ())) for text in [*messages, *recipe.chats, *texts]}


def source_of(session, name: str, weight: float, variables: Mapping, columns: Mapping, asked: Mapping):
    """The reward of that name in the recipe. Raises GPTError for a function that does not exist any more, and for a
    reward model without a chat template where a prompt has turns or a system prompt."""
    from jupyter_gpt.data.prompt_completion import prompt_ids
    from jupyter_gpt.nn.logprobs import Reader
    from jupyter_gpt.stages.rollout import Reward

    if name.startswith("$"):
        check_reward(session, name, variables, columns)
        return Reward(name, weight, function=variables[name[1:]], columns=columns)
    model = session.models[name]
    for question in islice(asked.values(), 1):
        prompt_ids(name, model.tokenizer, question)
    return Reward(name, weight, model=Reader(model.module), tokenizer=model.tokenizer, asked=asked)


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    if training.sampler is not None:
        training.sampler.close()
    start = session.models.about(training.recipe.policy)
    keep_model(session, run, training, start, base=(start.base or start.name) if training.recipe.lora else None)
