"""The recipe of a reward model: everything that decides its numbers. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.stages.pretrain_recipe import DTYPES


@dataclass(frozen=True)
class RewardRecipe:
    """`batch` rankings a step, `epochs` passes over them all unless `steps` says otherwise (0: not known before the
    rankings are counted). `lora` is the rank of the adapter, 0 trains a copy in full. `max_tokens` bounds prompt and
    completion together; `held_out` is a share of the prompts. `dtype` is that of
    the activations; what is trained stays in fp32. `marks` are hashes of the base and the rankings, under what they
    are. `micro_tokens` go through the model at once, a ranking at least, with `checkpointing` their activations are
    recomputed: 0 and None until it is decided.
    """

    base: str
    rankings: str
    lora: int
    steps: int
    epochs: float
    batch: int
    lr: float
    warmup: float
    decay: float
    clip: float
    margin: float
    centring: float
    max_tokens: int | None
    held_out: float
    seed: int
    eval_every: int
    checkpoint_every: int | None
    dtype: str
    marks: dict[str, str] | None = None
    micro_tokens: int = 0
    checkpointing: bool | None = None

    def as_dict(self) -> dict:
        return asdict(self)


def above_zero(**values: float | None) -> None:
    """Raises GPTError for a value that is given and not above zero; each is named as its option."""
    for name, value in values.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise GPTError(f"--{name.replace('_', '-')} {value:g} must be above zero")


def not_negative(**values: float | None) -> None:
    """Raises GPTError for a value that is given and below zero."""
    for name, value in values.items():
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise GPTError(f"--{name.replace('_', '-')} {value:g} must not be below zero")


def known_dtype(dtype: str | None) -> str:
    """`dtype`, or `auto` where none is given: what this machine is fast in. Raises GPTError for one that is none."""
    if dtype not in (None, *DTYPES):
        raise GPTError(f"--dtype {dtype} is not known{nearest(dtype, DTYPES)}")
    return dtype or "auto"


def reward_recipe(
    base: str,
    rankings: str,
    *,
    lora: int = 16,
    steps: int | None = None,
    epochs: float | None = None,
    batch: int = 8,
    lr: float | None = None,
    margin: float = 0.0,
    centring: float = 0.01,
    max_tokens: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    dtype: str | None = None,
) -> RewardRecipe:
    """Resolve what the user said; the learning rate of an adapter is ten times that of the whole model.

    Raises GPTError, one line, for what cannot be trained.
    """
    above_zero(
        steps=steps,
        epochs=epochs,
        batch=batch,
        lr=lr,
        max_tokens=max_tokens,
        eval_every=eval_every,
        checkpoint_every=checkpoint_every,
    )
    not_negative(lora=lora, margin=margin, centring=centring)
    if not 0 < held_out < 1:
        raise GPTError(f"--held-out {held_out:g} is a share of the prompts: above 0 and below 1")
    if steps and epochs:
        raise GPTError("--steps and --epochs both set the length of the run: give one")
    return RewardRecipe(
        base=base,
        rankings=rankings,
        lora=lora,
        steps=steps or 0,
        epochs=epochs or 2.0,
        batch=batch,
        lr=lr or (3e-4 if lora else 3e-5),
        warmup=0.05,
        decay=0.7,
        clip=1.0,
        margin=margin,
        centring=centring,
        max_tokens=max_tokens,
        held_out=held_out,
        seed=seed,
        eval_every=eval_every or 0,
        checkpoint_every=checkpoint_every,
        dtype=known_dtype(dtype),
    )
