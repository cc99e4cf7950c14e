"""`gpt.rlhf`: the stage of runs that train a policy by reinforcement learning, from rankings or rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.runs import provenance
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages import data_hashes as marks
from jupyter_gpt.stages import reward as reward_stage
from jupyter_gpt.stages.launch import claim, launch
from jupyter_gpt.stages.rl_recipe import DEFAULT_ALGORITHM, rl_recipe

Rewarding = str | Callable[[str, str], float]


def rlhf(
    session,
    name: str,
    prompts: str | Sequence[str] | None = None,
    *,
    policy: str,
    algo: str = DEFAULT_ALGORITHM,
    rankings: str | None = None,
    reward: Rewarding | Sequence[Rewarding] | None = None,
    background: bool = False,
    overwrite: bool = False,
    variables: Mapping | None = None,
    **options,
) -> Run:
    """Train the model `policy` by `algo` (ppo, grpo or dpo) on `prompts`, a list or one a line; it is
    `gpt.models[name]`.

    `reward` is the name of a reward model, a function f(prompt, completion) -> float, `$name` of one in `variables`, or
    several of these with `weights`; without it PPO and GRPO first make a reward model `NAME-reward` from `rankings`,
    while DPO learns from those directly. Without prompts those of the rankings are used. `options` are those of
    `jupyter_gpt.stages.rl_recipe.rl_recipe`. Blocks until the run ends, unless `background`; Ctrl-C stops it
    gracefully.

    Raises GPTError, one line, for what cannot be trained; what a function raises comes out as it is.
    """
    store.check_name(name)
    if name == policy:
        raise GPTError(f"{name} would take the place of the model it starts from: choose another name")
    reward_stage.check_base(session, policy)
    texts = lines(prompts)
    sources = [] if reward is None else list(reward) if isinstance(reward, list | tuple) else [reward]
    names, variables = named(sources, dict(variables or {}))
    recipe = rl_recipe(policy, texts, algo=algo, rankings=rankings, reward=names, **options)
    for source in recipe.reward:
        check_reward(session, source, variables)
    if rankings is not None:
        session.rankings[rankings].need(reward_stage.NEEDED)
    elif not texts:
        raise GPTError("there are no prompts to answer: write them in the body, one a line")
    recipe = replace(recipe, marks=inputs(session, recipe))
    if algo != "dpo" and not names:
        claim(session, reward_name(name), own_reward(recipe, provenance.running_cell()), overwrite)
    requested = {"prompts": texts, "policy": policy, "algo": algo, "rankings": rankings, "reward": names, **options}
    return launch(
        session, name, "rlhf", recipe, requested, overwrite=overwrite, background=background, variables=variables
    )


def reward_name(name: str) -> str:
    """What the reward model is called that a run makes for itself."""
    return store.check_name(f"{name}-reward")


def own_reward(recipe, cell_id: str | None) -> Provenance:
    """The provenance of the reward model that a run of this recipe makes for itself."""
    requested = {"rankings": recipe.rankings, "base": recipe.policy, "lora": recipe.lora, "seed": recipe.seed}
    return Provenance("reward", cell_id, requested)


def lines(prompts: str | Sequence[str] | None) -> list[str]:
    """Prompts as a list; of a text, its lines that are not empty."""
    found = prompts.splitlines() if isinstance(prompts, str) else list(prompts or ())
    return [text.strip() for text in found if text.strip()]


def named(sources: Sequence[Rewarding], variables: dict) -> tuple[list[str], dict]:
    """Each source of reward by a name that a recipe can hold, and the variables with the functions among them."""
    names = []
    for source in sources:
        if callable(source):
            held = next((key for key, value in variables.items() if value is source), None)
            known = held or getattr(source, "__name__", "reward")
            spellings = (known, *(f"{known}_{n}" for n in range(2, len(sources) + len(variables) + 3)))
            key = next(name for name in spellings if variables.get(name, source) is source)  # two may have one name
            variables[key] = source
            source = f"${key}"
        elif not isinstance(source, str):
            raise GPTError(
                f"a reward is a function f(prompt, completion) -> float or a reward model, not {source!r:.60}"
            )
        names.append(source)
    return names, variables


def check_reward(session, source: str, variables: Mapping) -> None:
    """Raises GPTError for a reward that is neither a reward model nor a function."""
    if source.startswith("$"):
        if source[1:] not in variables:
            raise GPTError(f"there is no variable {source[1:]} to reward with{nearest(source[1:], variables)}")
        if not callable(variables[source[1:]]):
            raise GPTError(f"{source} is no function: a reward is f(prompt, completion) -> float")
    elif session.models.about(source).kind == "endpoint" or not session.models.about(source).is_reward_model:
        raise GPTError(f"{source} is no reward model: %gpt reward makes one from rankings, or give a function as $name")


def inputs(session, recipe) -> dict[str, str]:
    """Marks of the policy's start, which is the reference too, of the reward models, and of rankings that are read. The
    prompts are in the recipe; of functions there are none."""
    found = marks.of_model(session, recipe.policy)
    for name in recipe.reward:
        found |= {} if name.startswith("$") else marks.of_model(session, name)
    return found | (marks.of_rankings(session, recipe.rankings) if recipe.reads_rankings else {})


def recipe_from(values: dict):
    """The recipe that `recipe.yaml` holds."""
    from jupyter_gpt.stages.pretrain_recipe import read_back
    from jupyter_gpt.stages.rl_recipe import RLRecipe

    return read_back(RLRecipe, values)


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.prompting.generation import ends
    from jupyter_gpt.stages.rl_prepare import prepare

    marks.check(run, recipe.marks, inputs(session, recipe))
    rankings = []
    if recipe.reads_rankings:
        kept = session.rankings[recipe.rankings]
        rankings = kept.need(reward_stage.NEEDED)
        yield from ({"event": "note", "text": note} for note in kept.notes)
    if recipe.algo != "dpo" and not recipe.reward:
        recipe = yield from rewarded_first(session, run, recipe, rankings)
    rewards = [
        source_of(session, name, weight, variables or {})
        for name, weight in zip(recipe.reward, recipe.weights, strict=True)
    ]
    start = session.models[recipe.policy]
    weights = session.models.to_train(start, not recipe.lora, recipe.dtype)
    return (
        yield from prepare(recipe, run.name, start, rewards, rankings, ends(start), first_of(session, start), weights)
    )


def first_of(session, start):
    """The first model of a lineage, if it is another one and still here: what alignment is compared with."""
    name = start.lineage[0].split(" (")[0]
    return session.models[name] if name != start.name and name in session.models else None


def rewarded_first(session, run: Run, recipe, rankings) -> Iterator:
    """Make the reward model of a run that has none; its steps are progress. Returns the recipe with it."""
    from jupyter_gpt.stages.reward_prepare import prepare
    from jupyter_gpt.stages.reward_recipe import reward_recipe

    name = reward_name(run.name)
    own = reward_recipe(recipe.policy, recipe.rankings, lora=recipe.lora, seed=recipe.seed)
    start = session.models[recipe.policy]
    training = yield from prepare(own, start, rankings, session.models.to_train(start, not own.lora, own.dtype))
    for event in training.loop():
        if event is not None and event["event"] == "step":
            yield {
                "event": "progress",
                "stage": f"training the reward model {name}",
                "done": event["step"],
                "total": training.recipe.steps,
                "unit": "steps",
            }
        elif event is not None and event["event"] == "evaluation":
            last = event
        yield None
    yield {
        "event": "note",
        "text": f"{name} orders {last['accuracy']:.0%} of {last['pairs']} held-out pairs as the ranker "
        f"did (95% interval {last['low']:.0%} to {last['high']:.0%})",
    }
    reward_stage.keep_as(session, name, own_reward(recipe, run.provenance.cell_id), training)
    known = {**(recipe.marks or {}), **marks.of_model(session, name)}
    return replace(recipe, reward=[name], weights=[1.0], marks=known)


def source_of(session, name: str, weight: float, variables: Mapping):
    """A source of reward by its name in the recipe. Raises GPTError for a function that is not there any more."""
    from jupyter_gpt.nn.logprobs import Reader
    from jupyter_gpt.stages.rewards import Reward

    if name.startswith("$"):
        check_reward(session, name, variables)
        return Reward(name, weight, function=variables[name[1:]])
    model = session.models[name]
    return Reward(name, weight, model=Reader(model.module), tokenizer=model.tokenizer)


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    below = session.models.about(training.recipe.policy)
    session.models.keep(
        run.name,
        training.model,
        training.tokenizer,
        "rlhf",
        run.provenance,
        [*below.lineage, f"{run.name} (rlhf)"],
        training.step,
        licence=below.licence,
        base=(below.base or below.name) if training.recipe.lora else None,
    )
