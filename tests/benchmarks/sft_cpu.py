"""Finetuning SmolLM2-135M with LoRA on a CPU: real tokens a second of TRL's SFTTrainer and of ours.

    python tests/benchmarks/sft_cpu.py --data instruction-data.json [--model FOLDER] [--steps 3] [--full] [--dtype
    float32]

`--data` is a JSON file of rows with `instruction`, `input` and `output`; without it, or without the model, it says why
it skips. All in one process, in the same number format, with the same adapter (rank 16 on every linear layer), the same
conversations in the same template, the loss on the answers, rows of 1,024 tokens packed by each in its own way, one row
a step. TRL as it comes (packing on; its default gradient checkpointing makes every activation twice), and TRL with that
off. A figure is the median over the steps, the first left out; tokens are those of conversations, padding is none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import jupyter_gpt  # noqa: F401  before torch: it tells OpenMP's threads how long to spin

T = 1024


def messages(row: dict) -> list[dict]:
    """A row as a conversation, as both read it."""
    asked = row["instruction"] + ("\n\n" + row["input"] if row["input"] else "")
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def rate(stamps: list[float], tokens: list[int]) -> float:
    """The median of tokens a second over the steps, the first left out (allocation, kernels chosen)."""
    return float(np.median([n / s for n, s in zip(tokens[1:], np.diff(stamps)[1:], strict=True)]))


def peer(model, tokenizer, rows: list[dict], arguments, checkpointing: bool) -> float:
    """Real tokens a second of TRL."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    stamps, tokens = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            if not stamps:
                stamps.append(time.perf_counter())

        def on_step_end(self, *args, **kwargs):
            stamps.append(time.perf_counter())

    class Counting(SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            mask = inputs.get("attention_mask")
            tokens.append(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
            return super().compute_loss(model, inputs, *args, **kwargs)

    data = Dataset.from_list([{"prompt": chat[:1], "completion": chat[1:]} for chat in map(messages, rows)])
    adapter = (
        None if arguments.full else LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder,
            max_steps=arguments.steps + 1,
            per_device_train_batch_size=1,
            max_length=T,
            packing=True,
            gradient_checkpointing=checkpointing,
            use_cpu=True,
            bf16=arguments.dtype == "bfloat16",
            learning_rate=1e-4,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            log_level="error",
        )
        trainer = Counting(
            model=model,
            args=settings,
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[Clock()],
        )
        trainer.train()
    del trainer
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    return rate(stamps, tokens)


def ours(model, tokenizer, rows: list[dict], arguments) -> float:
    """Real tokens a second of `%%sft`'s loop."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from helpers.recipes import finetuning_recipe
    from jupyter_gpt.models.scoring import result_of
    from jupyter_gpt.nn.lora import copied, lora
    from jupyter_gpt.runs.events import Step
    from jupyter_gpt.stages.sft_training import fitted, prepare

    recipe = finetuning_recipe(
        {"$rows": 1.0},
        "base",
        steps=arguments.steps + 1,
        context=T,
        batch_tokens=T,
        lr=1e-4,
        optimizer="adamw",
        dtype=arguments.dtype,
        eval_every=10**6,
        sample_every=10**6,
        held_out=0.0,
    )
    module = copied(model) if arguments.full else lora(model, 16)
    with tempfile.TemporaryDirectory() as folder:
        recipe = result_of(fitted(recipe, module))
        variables = {"rows": [{"messages": messages(r)} for r in rows]}
        training = result_of(prepare(recipe, Path(folder), module, tokenizer, variables))
        training.questions = []
        stamps, tokens = [time.perf_counter()], []
        for event in training.loop():
            if isinstance(event, Step):
                float(event.values["loss"])
                stamps.append(time.perf_counter())
                tokens.append(event.tokens - sum(tokens))
    return rate(stamps, tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a JSON file of rows with instruction, input and output")
    parser.add_argument(
        "--model", type=Path, help="the folder of SmolLM2-135M (default: from the cache of pulled models)"
    )
    parser.add_argument("--steps", type=int, default=3, help="steps of each that count")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--full", action="store_true", help="all weights instead of an adapter")
    parser.add_argument("--only", choices=("ours",), help="leave the peer out")
    arguments = parser.parse_args()
    if arguments.data is None:
        sys.exit("skipped: --data FILE names a JSON file of rows with instruction, input and output")
    if arguments.model is None:
        from jupyter_gpt.store import cache

        arguments.model = cache() / "models" / "smollm2-135m-instruct"
    if not (arguments.model / "config.json").exists():
        sys.exit(f"skipped: there is no model in {arguments.model}; %gpt pull smollm2-135m-instruct brings it")
    warnings.simplefilter("ignore")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jupyter_gpt.models.folder import quiet

    rows = json.loads(arguments.data.read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)

    def fresh():
        with quiet():
            return AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)

    found = {"ours": ours(fresh().requires_grad_(False).eval(), tokenizer, rows, arguments)}
    print(f"ours                        {found['ours']:8,.0f} tokens/s", flush=True)
    if arguments.only:
        return
    for name, checkpointing in (("TRL, no checkpointing", False), ("TRL as it comes", True)):
        found[name] = peer(fresh(), tokenizer, rows, arguments, checkpointing)
        print(f"{name:<27} {found[name]:8,.0f} tokens/s, ours {found['ours'] / found[name]:.2f}x", flush=True)


if __name__ == "__main__":
    main()
