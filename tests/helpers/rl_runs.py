"""What the tests of reward models and of reinforcement learning share: prompts, rankings, options of small runs."""

from jupyter_gpt.stages.rankings import Ranking

PROMPTS = [f"Tale {n}. The old fox" for n in range(12)]
SMALL = {"max_tokens": 6, "prompts_per_step": 2, "samples": 4, "lora": 4, "steps": 3, "eval_every": 3}


def short(prompt, completion):
    """A reward that a random model can satisfy: few letters."""
    return -float(len(completion))


def rank(gpt, name="taste", count=12, order=((0,), (1,)), texts=("saw 3 small birds.", "xx xx")):
    for n in range(count):
        completions = tuple({"model": "tiny", "text": f"{text} {n}", "seed": 0} for text in texts)
        gpt.rankings.named(name).add(Ranking(PROMPTS[n % len(PROMPTS)], completions, order, time=float(n)))


def bytes_of(gpt, name):
    return {key: p.detach().numpy().tobytes() for key, p in gpt.models[name].module.named_parameters()}


def figures(run):
    keys = (
        "step",
        "loss",
        "reward",
        "kl",
        "entropy",
        "length",
        "grad_norm",
        "value_loss",
        "accuracy",
        "text",
        "val_loss",
    )
    return [{k: e[k] for k in keys if k in e} for e in run.events if e["event"] in ("step", "evaluation", "sample")]
