"""The recipe of a finetuning run: everything that decides its numbers, kept as YAML. Nothing here imports torch.

What depends on the base (its width, its context) is filled in by `for_base`; what depends on the data or the machine
(the steps of so many epochs or minutes) by `stages/sft_prepare.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.nn.schedule import shares
from jupyter_gpt.stages.pretrain_recipe import DTYPES, OPTIMIZERS, read_back

LOAD_IN = ("4bit", "8bit")
CONTEXT = 1024  # tokens a row, unless the base has fewer
EPOCHS = 3.0  # when no length is given and the data ends
GENERATED_TOKENS = 1_000_000  # when none is given and it does not
BATCH, LARGEST_BATCH = 2048, 65536  # tokens a step: the least, and the most that the length of a run makes of them
STEPS = 1000  # that a run is cut into where its length is known in tokens


@dataclass(frozen=True)
class FinetuningRecipe:
    """A finetuning run in full. Token counts are tokens, lengths are tokens, learning rates are peaks.

    `base` is a full model, `adapter` the adapter of it that is continued; `lora` is the rank, 0 for full finetuning.
    `trainable_tokens` are those whose rows in embedding and head a new adapter trains too, None until the base is at
    hand. `batch_tokens` are cells of packed rows of `context` tokens, `micro_tokens` the most that go through the model
    at
    once, 0 until the memory of the device has decided it; with `checkpointing` activations are recomputed in the
    backward pass. `warmup` and `decay` are shares of `steps`, which is 0 until the data or the machine has said it.
    `bad_rows`:
    what becomes of rows that cannot be learned from, see `data/conversations.py`.
    """

    mixture: dict[str, float]
    cell: str | None
    base: str
    base_mark: str
    adapter: str | None
    merge_first: bool
    lora: int
    lora_alpha: float | None
    lora_targets: list[str] | None
    dora: bool
    rslora: bool
    lora_dropout: float
    load_in: str | None
    context: int
    batch_tokens: int
    micro_tokens: int
    steps: int
    minutes: float | None
    tokens: int | None
    epochs: float | None
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    beta1: float
    beta2: float
    eps: float
    warmup: float
    decay: float
    clip: float
    seed: int
    dtype: str
    checkpointing: bool | None
    train_on: str
    over_long: str
    held_out: float | None
    questions: list[str] | None
    answer_tokens: int
    eval_every: int
    eval_tokens: int
    sample_every: int
    checkpoint_every: int | None
    trainable_tokens: Sequence[str] | None = ()  # none in runs from before there was such a field
    bad_rows: str | None = None

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> FinetuningRecipe:
        """Read back what `as_dict` wrote. Raises GPTError for a recipe of another version."""
        return read_back(cls, values)


def finetuning_recipe(
    mixture: dict[str, float],
    base: str,
    *,
    cell: str | None = None,
    base_mark: str = "",
    adapter: str | None = None,
    merge_first: bool = False,
    lora: int | None = None,
    lora_alpha: float | None = None,
    lora_targets: list[str] | str | None = None,
    dora: bool = False,
    rslora: bool = False,
    lora_dropout: float = 0.0,
    load_in: str | None = None,
    context: int | None = None,
    batch_tokens: int | None = None,
    micro_tokens: int | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    tokens: int | None = None,
    epochs: float | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    weight_decay: float = 0.0,
    warmup: float | None = None,
    decay: float | None = None,
    clip: float = 1.0,
    seed: int = 0,
    dtype: str | None = None,
    checkpointing: bool | None = None,
    train_on: str = "assistant",
    over_long: str = "cut",
    held_out: float | None = None,
    questions: list[str] | None = None,
    answer_tokens: int | None = None,
    eval_every: int | None = None,
    eval_tokens: int | None = None,
    sample_every: int | None = None,
    checkpoint_every: int | None = None,
    bad_rows: str | None = None,
) -> FinetuningRecipe:
    """What the user said, checked; what they left open is 0, None or "auto" until `for_base`.

    Raises GPTError, one line, for anything that cannot be trained.
    """
    given = [
        f"--{flag}"
        for flag, value in (("steps", steps), ("tokens", tokens), ("minutes", minutes), ("epochs", epochs))
        if value is not None
    ]
    if len(given) > 1:
        raise GPTError(f"{' and '.join(given)} both set the length of the run: give one")
    for flag, value, known in (
        ("optimizer", optimizer, OPTIMIZERS),
        ("dtype", dtype, DTYPES),
        ("load-in", load_in, LOAD_IN),
        ("train-on", train_on, ("assistant", "all")),
        ("over-long", over_long, ("cut", "refuse")),
        ("bad-rows", bad_rows, ("refuse", "skip")),
    ):
        if value is not None and value not in known:
            raise GPTError(f"--{flag} {value} is not known{nearest(str(value), known)}")
    positive = {
        "lora": lora,
        "lora-alpha": lora_alpha,
        "context": context,
        "batch-tokens": batch_tokens,
        "micro-tokens": micro_tokens,
        "steps": steps,
        "minutes": minutes,
        "tokens": tokens,
        "epochs": epochs,
        "lr": lr,
        "clip": clip,
        "answer-tokens": answer_tokens,
        "eval-every": eval_every,
        "eval-tokens": eval_tokens,
        "sample-every": sample_every,
        "checkpoint-every": checkpoint_every,
    }
    for flag, value in positive.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise GPTError(f"--{flag} {value} must be above zero")
    for flag, share in (("warmup", warmup), ("decay", decay), ("held-out", held_out), ("lora-dropout", lora_dropout)):
        if share is not None and not 0 <= share <= 1 - (flag != "decay") * 1e-9:
            raise GPTError(f"--{flag} {share} is a share of the whole: from 0 to 1")
    warmup, decay = shares(warmup, decay, (0.02, 0.8))
    adapters = (
        ("lora-targets", lora_targets),
        ("lora-alpha", lora_alpha),
        ("lora-dropout", lora_dropout),
        ("dora", dora),
        ("rslora", rslora),
        ("load-in", load_in),
    )
    for flag, value in adapters if lora is None else ():
        if value and adapter and not merge_first:
            raise GPTError(
                f"--{flag} was settled when {adapter} was made, and a copy of it goes on as it is: leave it out"
            )
        if value and flag == "load-in":
            raise GPTError(
                f"--load-in {load_in} holds the base in so few bits that only an adapter can learn: add --lora RANK"
            )
        if value:
            raise GPTError(f"--{flag} belongs to an adapter: " + ("leave it out" if merge_first else "add --lora RANK"))
    return FinetuningRecipe(
        mixture=dict(mixture),
        cell=cell,
        base=base,
        base_mark=base_mark,
        adapter=adapter,
        merge_first=merge_first,
        lora=lora or 0,
        lora_alpha=lora_alpha,
        lora_targets=[lora_targets] if isinstance(lora_targets, str) else lora_targets,
        dora=dora,
        rslora=rslora,
        lora_dropout=lora_dropout,
        trainable_tokens=None,
        load_in=load_in,
        context=context or 0,
        batch_tokens=batch_tokens or 0,
        micro_tokens=micro_tokens or 0,
        steps=steps or 0,
        minutes=minutes,
        tokens=tokens,
        epochs=epochs,
        optimizer=optimizer or "auto",
        lr=lr or 0.0,
        weight_decay=weight_decay,
        momentum=0.95,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        warmup=warmup,
        decay=decay,
        clip=clip,
        seed=seed,
        dtype=dtype or "auto",
        checkpointing=checkpointing,
        train_on=train_on,
        over_long=over_long,
        held_out=held_out,
        questions=questions,
        answer_tokens=answer_tokens or 64,
        eval_every=eval_every or 0,
        eval_tokens=eval_tokens or 16384,
        sample_every=sample_every or 0,
        checkpoint_every=checkpoint_every,
        bad_rows=bad_rows,
    )


def for_base(recipe: FinetuningRecipe, width: int, context: int, dtype: str, parameters: int, device: str):
    """The recipe with what follows from the base: its width, its context, its size, the number format that pays.

    Full finetuning of a narrow model takes Muon, as its pretraining did: at a width of 256 it learns in half the steps.
    AdamW's rate falls with the width; an adapter's is ten times that of full finetuning.
    """
    if recipe.context > context:
        raise GPTError(f"--context {recipe.context} is more than the base was made for: at most {context:,}")
    adapted = bool(recipe.lora or (recipe.adapter and not recipe.merge_first))
    optimizer = recipe.optimizer
    if optimizer == "auto":
        optimizer = "muon" if width < 512 and not adapted else "adamw"
    usual = min(1e-3, 1e-4 * (576 / width)) * (10 if adapted else 1)
    lr = recipe.lr or (0.02 if optimizer == "muon" else usual)
    row = recipe.context or min(CONTEXT, context)
    batch = recipe.batch_tokens or (BATCH if recipe.steps or recipe.minutes else 0)
    micro = recipe.micro_tokens or (32768 if device == "cuda" else max(512, min(8192, int(1e11 / parameters))))
    return replace(
        recipe,
        optimizer=optimizer,
        lr=lr,
        context=row,
        batch_tokens=whole_rows(batch, row),
        micro_tokens=micro,
        dtype=dtype if recipe.dtype == "auto" else recipe.dtype,
    )


def whole_rows(tokens: float, row: int) -> int:
    """A batch of about `tokens` in rows of `row` tokens; 0 stays 0."""
    return row * max(1, round(tokens / row)) if tokens else 0


def with_tokens(recipe: FinetuningRecipe, tokens: int) -> FinetuningRecipe:
    """The recipe of a run of so many tokens: a thousand steps of them, where no batch was given, in batches that fields
    of
    data have been tuned with, 2,048 tokens at least and 65,536 at most."""
    batch = recipe.batch_tokens
    if not batch:
        batch = whole_rows(
            min(LARGEST_BATCH, max(BATCH, 2 ** round(math.log2(max(1, tokens / STEPS))))), recipe.context
        )
    return with_steps(replace(recipe, batch_tokens=batch), math.ceil(tokens / batch))


def with_steps(recipe: FinetuningRecipe, steps: int) -> FinetuningRecipe:
    """The recipe with its horizon known: evaluations and samples that were left open spread over it."""
    return replace(
        recipe,
        steps=steps,
        eval_every=recipe.eval_every or max(1, steps // 10),
        sample_every=recipe.sample_every or max(1, steps // 6),
    )
