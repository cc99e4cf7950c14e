"""A loop of pretraining on random tokens."""

import numpy as np

from helpers.recipes import pretraining_recipe
from jupyter_gpt.nn.optimizer import optimizers
from jupyter_gpt.runs.events import Step
from jupyter_gpt.stages.pretrain_training import Training, build

DATA = np.random.default_rng(0).integers(0, 96, (64, 33))


class Rows:
    def batch(self, indices) -> np.ndarray:
        return DATA[np.asarray(indices) % len(DATA)]


def start(arch="llama", optimizer="muon", steps=6, rows=8, dtype="float32", seed=0) -> Training:
    recipe = pretraining_recipe(
        {"random": 1.0},
        arch=arch,
        depth=2,
        width=64,
        heads=4,
        context=32,
        vocab_size=96,
        steps=steps,
        rows=rows,
        batch_tokens=256,
        optimizer=optimizer,
        dtype=dtype,
        seed=seed,
        eval_every=steps,
        sample_every=steps,
    )
    model = build(recipe, 96, 0)
    held_out = {"random": (1.0, DATA[:2])}
    return Training(
        recipe=recipe,
        model=model,
        optimizers=optimizers(model, recipe),
        rows=Rows(),
        held_out=held_out,
        token_bytes=np.ones(96, np.float32),
        flops_per_token=0.0,
    )


def train(training: Training, until: int | None = None) -> list[float]:
    """Losses of the steps up to `until`."""
    losses = []
    for event in training.loop():
        if isinstance(event, Step):
            losses.append(float(event.values["loss"]))
            if event.step == until:
                break
    return losses
