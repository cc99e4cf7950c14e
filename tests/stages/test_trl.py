"""The same run as TRL's SFTTrainer: loss and gradient norm of 20 steps, full and LoRA, on the same batches."""

import math

import numpy as np
import pytest
import torch

from helpers.recipes import finetuning_recipe, pretraining_recipe
from jupyter_gpt.data.conversation_dataset import Conversations
from jupyter_gpt.data.conversation_rows import laid_out
from jupyter_gpt.data.tokenizer import train_bpe
from jupyter_gpt.nn.lora import clone_adapter, copied, lora
from jupyter_gpt.nn.optimizer import finetuning_optimizers
from jupyter_gpt.runs.events import Step
from jupyter_gpt.stages.pretrain_training import build
from jupyter_gpt.stages.sft_training import Supervised

trl = pytest.importorskip("trl")

STEPS, BATCH, LR = 20, 4, 1e-3


def conversations(tokenizer):
    """80 conversations of 6 to 40 tokens, a random end of each trained on."""
    random = np.random.default_rng(0)
    lengths = random.integers(6, 41, STEPS * BATCH)
    tokens = random.integers(5, len(tokenizer), lengths.sum()).astype(np.int32)
    trained = np.concatenate([np.arange(n) >= random.integers(1, n - 2) for n in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n = len(lengths)
    return Conversations(
        tokens, trained, offsets, np.zeros(n, np.int32), np.zeros(n, bool), ["x"], [1.0], tokenizer.eos_token_id
    )


class InOrder:
    """The batches TRL makes: BATCH conversations a step, in their order; packed into one row, or each in its own."""

    def __init__(self, found: Conversations, packed: bool):
        self.found, self.packed = found, packed

    def batch(self, rows):
        pieces = [(int(self.found.offsets[c]), int(self.found.lengths()[c])) for c in rows]
        return laid_out(self.found, [pieces] if self.packed else [[p] for p in pieces], 256)


def base():
    recipe = pretraining_recipe({"x": 1}, depth=2, width=32, heads=2, context=256)
    model = build(recipe, 320, 0).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    return model


def theirs(model, tokenizer, found, tmp_path):
    from datasets import Dataset

    rows = [found[c] for c in range(len(found))]
    data = Dataset.from_list(
        [{"input_ids": ids.tolist(), "labels": np.where(trained, ids, -100).tolist()} for ids, trained in rows]
    )
    losses, norms = [], []

    class Listening(trl.SFTTrainer):
        def compute_loss(self, *args, **kwargs):
            result = super().compute_loss(*args, **kwargs)
            losses.append(float(result[0] if isinstance(result, tuple) else result))
            return result

        def log(self, logs, *args, **kwargs):
            if "grad_norm" in logs:
                norms.append(float(logs["grad_norm"]))

    settings = trl.SFTConfig(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=LR,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        train_sampling_strategy="sequential",
        optim="adamw_torch",
        disable_tqdm=True,
        dataset_num_proc=None,
        max_length=256,
    )
    Listening(model=model, args=settings, train_dataset=data, processing_class=tokenizer).train()
    return losses, norms


def ours(model, tokenizer, found, packed):
    recipe = finetuning_recipe(
        {"x": 1},
        "base",
        steps=STEPS,
        optimizer="adamw",
        lr=LR,
        warmup=0.0,
        decay=0.0,
        context=256,
        batch_tokens=256 * BATCH,
        dtype="float32",
    )
    recipe = recipe.for_base(32, 256, "float32").replace(micro_tokens=8192).with_steps(STEPS)
    training = Supervised(
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        optimizers=finetuning_optimizers(model, recipe),
        rows=InOrder(found, packed),
        ends=frozenset(),
        flops_per_token=0.0,
    )
    events = [event for event in training.loop() if isinstance(event, Step)]
    return [float(e.values["loss"]) for e in events], [float(e.values["grad_norm"]) for e in events]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_twenty_steps_are_those_of_trl(tmp_path, adapter, packed):
    tokenizer = train_bpe(["The old fox saw three small birds and was glad."] * 20, 320)
    found = conversations(tokenizer)
    start = lora(base(), 4) if adapter else base()
    mine, their_model = (clone_adapter(start), clone_adapter(start)) if adapter else (copied(start), copied(start))
    loss, norm = ours(mine, tokenizer, found, packed)
    their_loss, their_norm = theirs(their_model, tokenizer, found, tmp_path)
    assert len(loss) == len(their_loss) == len(their_norm) == STEPS
    assert loss[-1] != loss[0] and all(map(math.isfinite, norm))
    np.testing.assert_allclose(loss, their_loss, atol=1e-4)
    np.testing.assert_allclose(norm, their_norm, atol=1e-4)
