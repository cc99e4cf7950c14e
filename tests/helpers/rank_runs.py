"""The same short trainings by one process or by several ranks: what `tests/nn/test_distributed.py` compares.

As a program, `python -m helpers.rank_runs FOLDER NAMES…`, each rank of torchrun's takes the steps of every run named,
and the first writes what they were to `FOLDER/steps.json`.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import torch

from helpers.tiny import DOCUMENTS, TINY, tiny_model
from jupyter_gpt.nn import distributed
from jupyter_gpt.nn.distributed import GradientSum
from jupyter_gpt.runs import checkpoint
from jupyter_gpt.runs.events import Step
from jupyter_gpt.runs.provenance import Provenance
from jupyter_gpt.runs.worker import Call
from jupyter_gpt.stages import launch, stage
from jupyter_gpt.stages.rankings import Ranking

ROWS = [
    {"prompt": f"How many birds saw {n} hens?", "completion": f"{n} birds" + ", so many" * (n % 4)} for n in range(40)
]
TEXTS = [(f"The fox saw {n} {word} birds.", word) for n in range(12) for word in ("glad", "sad")]
PROMPTS = [f"Tale {n}. The old fox" for n in range(9)]
SFT = {"context": 64, "batch_tokens": 512, "answer_tokens": 4, "steps": 8}
GRPO = {"algo": "grpo", "epochs": 2}
DAPO = {"algo": "grpo", "dynamic_sampling": 2, "missing_eos_penalty": 0.5, "held_out": 0.0}
KTO = {"algo": "dpo", "loss": "kto"}
RL = {"policy": "fox", "lora": 4, "max_tokens": 12, "prompts_per_step": 3, "samples": 4, "steps": 3, "eval_every": 3}
SHARD = ", sharded"
EVERY = {"dtype": "float32"}


def even(prompt: str, text: str) -> float:
    return sum(text.count(letter) for letter in "aeiou") - 0.1 * len(text)


def coarse(prompt: str, text: str) -> float:
    """Of many prompts all completions get the same."""
    return float(len(text) > 30)


def seldom(prompt: str, text: str) -> float | None:
    return None if "3" in prompt else 0.5


RUNS = {
    "pretrain muon": lambda gpt: pretrain(gpt, steps=20),
    "pretrain adamw": lambda gpt: pretrain(gpt, steps=20, optimizer="adamw", arch="gpt2"),
    "pretrain qwen3": lambda gpt: pretrain(gpt, steps=4, arch="qwen3", rows=4),
    "sft": lambda gpt: gpt.sft("run", ROWS, "fox", **{**SFT, "steps": 20}, optimizer="adamw", **EVERY),
    "sft muon": lambda gpt: gpt.sft("run", ROWS, "fox", **SFT, optimizer="muon", **EVERY),
    "sft lora": lambda gpt: gpt.sft("run", ROWS, "fox", **SFT, lora=4, **EVERY),
    "classify": lambda gpt: gpt.classify("run", TEXTS, "fox", batch=7, steps=5, lr=1e-3, **EVERY),
    "reward": lambda gpt: gpt.reward("run", rankings="taste", steps=4, lora=4, batch=3, **EVERY),
    "grpo": lambda gpt: gpt.rlhf("run", PROMPTS, reward=even, **GRPO, **RL, **EVERY),
    "ppo": lambda gpt: gpt.rlhf("run", PROMPTS, algo="ppo", reward=even, **RL, **EVERY),
    "dpo": lambda gpt: gpt.rlhf("run", algo="dpo", rankings="taste", **RL, **EVERY),
    "dapo": lambda gpt: gpt.rlhf("run", PROMPTS, reward=[coarse, seldom], **DAPO, **RL, **EVERY),
    "kto": lambda gpt: gpt.rlhf(
        "run", algo="dpo", loss="kto", rankings="taste", **{**RL, "prompts_per_step": 5}, **EVERY
    ),
}


LAST = 2  # steps after the checkpoint
CUT = [name + SHARD for name in ("pretrain muon", "pretrain adamw", "sft", "sft muon", "sft lora")]

RESUMED = ("pretrain muon", "pretrain muon" + SHARD, "sft" + SHARD, "ppo")


def pretrain(gpt, **options):
    return gpt.pretrain("run", {"$docs": 1.0}, variables={"docs": DOCUMENTS}, **{**TINY, **EVERY, **options})


def fox(gpt) -> None:
    """A model as if it were trained, since what writes into the stream of a fresh one is zero; and rankings."""
    model = tiny_model(gpt, "fox")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.module.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    gpt.models.keep("fox", model.module, model.tokenizer, "pretrain", None, model.lineage, 0)
    for n in range(12):
        texts = tuple({"model": "fox", "text": f"{text} {n}", "seed": 0} for text in ("saw 3 birds.", "xx xx"))
        gpt.rankings.named("taste").add(Ranking(PROMPTS[n % len(PROMPTS)], texts, ((0,), (1,)), time=float(n)))


def training_of(gpt, name: str):
    """The training of a run before its first step, without the run."""

    def kept(session, options, kind, recipe, requested, variables):
        run = launch.open_run(session, f"run-{len(session.runs)}", Provenance(kind), recipe.as_dict())
        return stage.stage(kind).preparation(session, run, recipe, variables)

    with ExitStack() as patches:
        for kind in stage.STAGES:
            patches.enter_context(mock.patch(f"jupyter_gpt.stages.{kind}.launch", kept))
        preparation = RUNS[name](gpt)
    while True:
        try:
            next(preparation)
        except StopIteration as end:
            return end.value


def steps_of(training, folder: Path | None = None) -> list[dict]:
    """The values of its steps; with a checkpoint in `folder` before the last of them."""
    found, answer, loop = [], None, training.loop()
    while True:
        try:
            event = loop.send(answer)
        except StopIteration:
            return found
        answer = None
        if isinstance(event, Call):
            event.make()
            answer = event.result
        if isinstance(event, Step):
            values = {key: float(value) for key, value in event.values.items() if value is not None}
            found.append({**values, "tokens": event.tokens})
            if folder and event.step == training.recipe.steps - LAST:
                state = training.state()
                if training.ranks is None or training.ranks.rank == 0:
                    checkpoint.save(folder, event.step, *state)


def started(gpt, name: str):
    """The training of a run, on all ranks."""
    training = training_of(gpt, name.removesuffix(SHARD))
    if training.ranks is not None:
        training.ranks.shard = name.endswith(SHARD)
    training.spread()
    return training


def take(gpt, names, folder: Path) -> dict[str, list[dict]]:
    """The steps of each run; and the last again, of those that are resumed."""
    found = {}
    for name in names:
        training = started(gpt, name)
        found[name] = steps_of(training, folder / name if name in RESUMED else None)
        if name in RESUMED:
            if training.ranks is not None:
                training.ranks.sum([0])  # the first has written
            found[name + " again"] = resumed(gpt, name, folder / name)
    return found


def resumed(gpt, name: str, folder: Path) -> list[dict]:
    """The last steps of a run, from a checkpoint."""
    training = started(gpt, name)
    training.load(checkpoint.latest(folder))
    return steps_of(training)


def gradients(ranks) -> list:
    """The sums over two ranks of gradients that only the first has, only the second, and none."""
    first, second, neither = parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    own = GradientSum(ranks, parameters)
    own.arm()
    (2 * first if ranks.rank == 0 else 3 * second).sum().backward()
    own.finish()
    return [first.grad.tolist(), second.grad.tolist(), neither.grad]


def main() -> None:
    import os

    from jupyter_gpt.session import Session

    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    rank = os.environ.get("RANK", "0")
    os.environ |= {f"JUPYTER_GPT_{key.upper()}": f"{folder}/{rank}/{key}" for key in ("home", "cache", "config")}
    gpt = Session()
    fox(gpt)  # transformers saves nothing on other ranks than the first
    ranks = distributed.start()
    found = take(gpt, names or [*RUNS, *CUT], Path(folder))
    if ranks is not None:
        found["gradients"] = gradients(ranks)
    if rank == "0":
        (Path(folder) / "steps.json").write_text(json.dumps(found))
    if ranks is not None:
        ranks.leave()


if __name__ == "__main__":
    main()
