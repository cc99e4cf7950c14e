"""Pretraining a Llama of about 6M parameters on a CPU: tokens/s of transformers.Trainer and of ours.

    python tests/benchmarks/pretrain_cpu.py [--rounds 3] [--steps 6] [--together] [--busy]

Same shape, data and batch (8 rows of 256 tokens), turn by turn, so that a change in the machine's load meets everybody.
The peer as it comes (fp32) and with bf16=True, both with its default AdamW; ours as `%%pretrain` runs it (Muon with
AdamW; bf16 where the processor has it) and in fp32. Each turn is a process of its own, so that the peer runs as it
comes; with `--together` all run in this one, where the peer profits from what we tell the C library about memory and
OpenMP about waiting. A round's figure is the median over its steps, a contestant's the median over its rounds; the
ratios are medians over rounds too. On a machine that others use, wall time says little: `--busy` runs one thread and
counts its processor time instead.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROWS, T, VOCAB, LAYERS, WIDTH, HEADS, MLP = 8, 256, 2048, 6, 256, 4, 704
DATA = np.random.default_rng(0).integers(0, VOCAB, (512, T + 1))


class RandomRows:
    def batch(self, indices) -> np.ndarray:
        return DATA[np.asarray(indices) % len(DATA)]


def seconds_a_step(stamps: list[float]) -> float:
    """The median step, the first two (allocation, kernels chosen) left out."""
    return float(np.median(np.diff(stamps)[1:]))


def peer(bf16: bool, steps: int, clock: Callable[[], float]) -> float:
    """Seconds a step of transformers.Trainer."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    stamps = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            stamps.append(clock())

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=T,
        tie_word_embeddings=False,
    )
    dataset = [{"input_ids": torch.from_numpy(row[:-1]), "labels": torch.from_numpy(row[:-1])} for row in DATA]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=ROWS,
            max_steps=steps + 2,
            bf16=bf16,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            log_level="error",
        )
        Trainer(LlamaForCausalLM(config), arguments, train_dataset=dataset, callbacks=[Clock()]).train()
    return seconds_a_step(stamps)


def ours(dtype: str, optimizer: str, steps: int, clock: Callable[[], float]) -> float:
    """Seconds a step of our loop."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from helpers.recipes import pretraining_recipe
    from jupyter_gpt.nn.optimizer import optimizers
    from jupyter_gpt.runs.events import Step
    from jupyter_gpt.stages.pretrain_training import Training, build

    recipe = pretraining_recipe(
        {"random": 1.0},
        depth=LAYERS,
        width=WIDTH,
        heads=HEADS,
        mlp=MLP,
        context=T,
        vocab_size=VOCAB,
        rows=ROWS,
        batch_tokens=ROWS * T,
        steps=1000,
        dtype=dtype,
        optimizer=optimizer,
        eval_every=1000,
        sample_every=1000,
    )
    model = build(recipe, VOCAB, 0)
    held_out = {"random": (1.0, DATA[:1])}
    training = Training(
        recipe=recipe,
        model=model,
        optimizers=optimizers(model, recipe),
        rows=RandomRows(),
        held_out=held_out,
        token_bytes=np.ones(VOCAB, np.float32),
        flops_per_token=0.0,
    )
    stamps, loop = [], training.loop()
    for event in loop:
        if isinstance(event, Step):
            stamps.append(clock())
            if len(stamps) == steps + 2:
                break
    loop.close()
    return seconds_a_step(stamps)


def default_dtype() -> str:
    """What `%%pretrain` computes in on this machine."""
    from jupyter_gpt.nn.devices import choose_dtype

    return choose_dtype("cpu", WIDTH)


CONTESTANTS = {
    "Trainer, fp32": lambda steps, clock: peer(False, steps, clock),
    "ours, fp32": lambda steps, clock: ours("float32", "muon", steps, clock),
    "Trainer, bf16=True": lambda steps, clock: peer(True, steps, clock),
    "ours, default": lambda steps, clock: ours(default_dtype(), "muon", steps, clock),
    "ours, adamw": lambda steps, clock: ours(default_dtype(), "adamw", steps, clock),
}


def alone(name: str, given: argparse.Namespace) -> float:
    """Seconds a step of a contestant in a process of its own."""
    command = [sys.executable, __file__, "--turn", name, "--steps", str(given.steps), *["--busy"] * given.busy]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps a round")
    parser.add_argument("--busy", action="store_true", help="one thread, processor time")
    parser.add_argument("--together", action="store_true", help="all in one process")
    parser.add_argument("--turn", choices=CONTESTANTS, help="one turn of one contestant: prints its seconds a step")
    given = parser.parse_args()
    clock = time.process_time if given.busy else time.perf_counter
    if given.busy:
        torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if given.turn:
        print(CONTESTANTS[given.turn](given.steps, clock))
        return
    if given.together:
        import jupyter_gpt  # noqa: F401  before the first of torch's threads, as in a notebook

    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start")
    for _ in range(given.rounds):
        for name, run in CONTESTANTS.items():
            times[name].append(run(given.steps, clock) if given.together else alone(name, given))
    for name, values in times.items():
        print(
            f"{name:20} {ROWS * T / statistics.median(values):8,.0f} tokens/s   {statistics.median(values):.3f} s "
            f"a step"
        )
    fp32, mine32, bf16, mine, adamw = times.values()
    for label, theirs, own, owed in (
        ("default over Trainer fp32", fp32, mine, 1.8),
        ("default over Trainer bf16", bf16, mine, 1.2),
        ("fp32 over Trainer fp32", fp32, mine32, 1.0),
        ("adamw over Trainer bf16", bf16, adamw, 1.0),
    ):
        ratio = statistics.median(a / b for a, b in zip(theirs, own, strict=True))
        print(f"{label:26} {ratio:.2f}x (owed {owed})")
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
