"""Recipes of runs as the stages make them, from options alone, without a session."""

from dataclasses import asdict
from types import SimpleNamespace

from jupyter_gpt.stages import classify, loop, pretrain, reward, rlhf, sft

__all__ = ["classify_recipe", "finetuning_recipe", "pretraining_recipe", "reward_recipe", "rl_recipe", "run_of"]


def pretraining_recipe(mixture, **options):
    return pretrain.recipe_of(pretrain.Pretrain.of(name="run", **options), mixture)


def finetuning_recipe(mixture, base, *, cell=None, base_mark="", adapter=None, **options):
    return sft.recipe_of(sft.SFT.of(name="run", **options), mixture, base, cell, base_mark, adapter)


def classify_recipe(base, *, cell=None, base_mark="", **options):
    return classify.recipe_of(classify.Classify.of(name="run", base=base, **options), cell, base_mark)


def reward_recipe(base, rankings, **options):
    return reward.recipe_of(reward.RewardModel.of(name="run", rankings=rankings, **options), base)


def rl_recipe(policy, prompts, *, reward=(), **options):
    return rlhf.recipe_of(rlhf.RLHF.of(name="run", policy=policy, **options), prompts, reward)


def run_of(kind, recipe, events, status="finished"):
    """What a report reads of a run with this recipe that told these events, and declared the metrics of its stage."""
    step = max((event.get("step", 0) for event in events), default=0)
    own = (
        rlhf.algorithm_of(recipe.algo, {})
        if kind == "rlhf"
        else {"classify": classify, "reward": reward}.get(kind, loop)
    )
    metrics = {"metrics": [asdict(metric) for metric in own.METRICS]}
    events = [{"time": 0.0, **(metrics if event["event"] == "start" else {}), **event} for event in events]
    return SimpleNamespace(
        name="a", kind=kind, status=status, recipe=recipe.as_dict(), steps=step, step=step, events=events
    )
