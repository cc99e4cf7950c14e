"""Supervised the 135M shape of SmolLM2 on one GPU: real tokens a second of `%%sft`'s loop and of TRL's SFTTrainer.

    python tests/benchmarks/sft_gpu.py [--steps 30] [--batch 16] [--lora RANK] [--only ours]

Random weights, and random conversations of 64 to 600 tokens of which the last half is trained on; bf16, AdamW. TRL as
it comes: `--batch` conversations a step, padded, SDPA, its gradient checkpointing on. Ours packs rows of 1,024 tokens
and takes as many of them a step as hold `--batch` conversations. A figure is the median over the steps, the first five
left out; padding counts as nothing. Wanted on an H100: 180,000 tokens/s.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from figures import Figure, tell

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.recipes import finetuning_recipe
from jupyter_gpt.data.conversation_dataset import Conversations
from jupyter_gpt.data.conversation_rows import ConversationRows
from jupyter_gpt.nn.devices import peak_flops
from jupyter_gpt.nn.lora import copied, lora
from jupyter_gpt.nn.optimizer import finetuning_optimizers
from jupyter_gpt.runs.events import Step
from jupyter_gpt.stages.sft_training import Supervised
from jupyter_gpt.stages.speed import training_flops

T, VOCAB, SHORTEST, LONGEST, WARM = 1024, 49152, 64, 600, 5


def model_of_shape(layers: int = 30, vocab: int = VOCAB):
    """SmolLM2-135M's shape with random weights, as a model waits on a GPU: frozen, in bf16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16).requires_grad_(False).eval()


def conversations(count: int) -> Conversations:
    """Random ones, the last half of each trained on."""
    random = np.random.default_rng(0)
    lengths = random.integers(SHORTEST, LONGEST + 1, count)
    trained = np.concatenate([np.arange(n) >= n // 2 for n in lengths])
    return Conversations(
        random.integers(1, VOCAB, lengths.sum()).astype(np.int32),
        trained,
        np.concatenate([[0], np.cumsum(lengths)]),
        np.zeros(count, np.int32),
        np.zeros(count, bool),
        ["random"],
        [1.0],
        0,
    )


def rate(stamps: list[float], tokens: list[int]) -> float:
    """The median of tokens a second over the steps that count."""
    return float(np.median([n / s for n, s in zip(tokens[1:], np.diff(stamps), strict=True)][WARM - 1 :]))


def ours(base, found: Conversations, steps: int, batch: int, rank: int | None) -> tuple[float, float | None]:
    """Real tokens a second, and the share of the device's peak."""
    device = base.device.type
    model = lora(base, rank) if rank else copied(base)
    rows = max(1, round(batch * (SHORTEST + LONGEST) / 2 / T))
    recipe = finetuning_recipe(
        {"random": 1.0},
        "base",
        steps=steps + WARM,
        lora=rank,
        context=T,
        batch_tokens=rows * T,
        lr=1e-4,
        optimizer="adamw",
        dtype="bfloat16",
        eval_every=10**6,
        sample_every=10**6,
    )
    recipe = recipe.for_base(576, 8192, "bfloat16").replace(micro_tokens=32768).with_steps(steps + WARM)
    training = Supervised(
        recipe=recipe,
        model=model,
        optimizers=finetuning_optimizers(model, recipe),
        rows=ConversationRows(found, T),
        ends=frozenset(),
        flops_per_token=training_flops(model),
        peak_flops=peak_flops(device, "bfloat16"),
    )
    stamps, tokens = [], []
    for event in training.loop():
        if isinstance(event, Step):
            float(event.values["loss"])  # waits for the device
            stamps.append(time.perf_counter())
            tokens.append(event.tokens - sum(tokens))
    speed = rate(stamps, tokens)
    return speed, training.peak_flops and speed * training.flops_per_token / training.peak_flops


def peer(model, found: Conversations, steps: int, batch: int, rank: int | None) -> float:
    """Real tokens a second of TRL."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from jupyter_gpt.data.tokenizer import train_bpe

    stamps, tokens = [], []

    class Counting(SFTTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            tokens.append(int(inputs["attention_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **kwargs)

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            float(loss)  # waits for the device
            stamps.append(time.perf_counter())
            return loss

    rows = [found[c] for c in range(len(found))]
    data = Dataset.from_list(
        [{"input_ids": ids.tolist(), "labels": np.where(trained, ids, -100).tolist()} for ids, trained in rows]
    )
    tokenizer = train_bpe(["The old fox saw three small birds and was glad."] * 20, 320)
    adapter = (
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM") if rank else None
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder,
            max_steps=steps + WARM,
            per_device_train_batch_size=batch,
            max_length=T,
            learning_rate=1e-4,
            bf16=True,
            use_cpu=model.device.type == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            log_level="error",
        )
        Counting(
            model=model.float().requires_grad_(True),
            args=settings,
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=adapter,
        ).train()
    return rate(stamps, tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="steps of each that count")
    parser.add_argument("--batch", type=int, default=16, help="conversations of one step")
    parser.add_argument("--lora", type=int, help="an adapter of this rank instead of all weights")
    parser.add_argument("--only", choices=("ours",), help="leave the peer out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: there is no GPU here")
        return
    warnings.simplefilter("ignore")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    found = conversations(2000)
    mine, share = ours(model_of_shape().cuda(), found, given.steps, given.batch, given.lora)
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"ours: {share:.1%} of the peak without the head, {memory:.1f} GiB at most", flush=True)
    theirs = None
    if given.only is None and importlib.util.find_spec("trl"):
        theirs = peer(model_of_shape().cuda(), found, given.steps, given.batch, given.lora)
    what = f"SFT 135M, mixed rows, {f'LoRA of rank {given.lora}' if given.lora else 'all weights'} (peer: TRL)"
    tell([Figure(what, mine, "tokens/s", theirs, 180_000)], given.json)


if __name__ == "__main__":
    main()
