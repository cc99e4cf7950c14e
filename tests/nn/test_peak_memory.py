"""The formula for the memory of a training step against what the system says: the peak of a process's resident memory,
allocator, kernels' workspaces and all.
"""

import json
import sys

import pytest

from helpers.apart import printed
from jupyter_gpt.nn.training_memory import MARGIN

WORKSPACES = 48 << 20  # bytes of kernels, whatever the size of the model
MEASURED = """
import json, re
import numpy as np, torch
from types import SimpleNamespace
from helpers.recipes import pretraining_recipe
from jupyter_gpt.nn import devices
from jupyter_gpt.nn.optimizer import optimizers
from jupyter_gpt.stages.pretrain_training import Training, build, memory_step

def resident(key):
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(key + r":\\s+(\\d+)", file.read())[1])

def start(rows, width, depth, context):
    recipe = pretraining_recipe({{"none": 1.0}}, width=width, depth=depth, context=context, heads=4, steps=2, rows=rows,
                                batch_tokens=rows * context, **{options!r})
    model = build(recipe, recipe.vocab_size, 0)
    ids = np.random.default_rng(0).integers(0, recipe.vocab_size, (rows, context + 1))
    rows = SimpleNamespace(batch=lambda places: ids)
    return Training(recipe=recipe, model=model, optimizers=optimizers(model, recipe), rows=rows)

def step(training):
    training.backward(training.loss(training.micro_batch(1, 0).inputs), True)
    training.update(1)

step(start(2, 64, 2, 32))  # what is loaded at first use
training = start({rows}, 256, 6, 256)
devices.give_back(None)
before = resident("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
step(training)
step(training)
found, parameters = memory_step(training.recipe, training.recipe.vocab_size, "cpu")
told = found.bytes({rows} * 256, bool(training.recipe.checkpointing)) - 4 * parameters  # the weights are there
print(json.dumps([resident("VmHWM") - before, told]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process the peak of its memory anew")
@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (8, {"optimizer": "adamw", "dtype": "float32", "vocab_size": 4096}),
        (8, {"optimizer": "adamw", "dtype": "float32", "vocab_size": 4096, "checkpointing": True}),
        (8, {"optimizer": "muon", "dtype": "bfloat16", "vocab_size": 4096}),
        (4, {"optimizer": "muon", "dtype": "float32", "vocab_size": 50000}),
    ],
)
def test_the_peak_of_a_process_is_within_the_margin_of_the_formula(rows, options):
    measured, told = json.loads(printed(MEASURED.format(rows=rows, options=options)))
    assert told * 0.75 < measured < told / MARGIN + WORKSPACES
