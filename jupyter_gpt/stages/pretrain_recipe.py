"""The recipe of a run: everything that decides its numbers, resolved before the first step and kept as YAML.

One dial, `depth`, sets the rest as nanochat has it: width, heads, vocabulary, working memory, batch, learning rates and
horizon follow from the number of layers; each can be set by itself. Nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, field, fields, replace

from jupyter_gpt.errors import GPTError, nearest, reading
from jupyter_gpt.nn.parameter_count import parameter_count
from jupyter_gpt.nn.schedule import shares

ARCHITECTURES = ("llama", "qwen3", "gpt2")
OPTIMIZERS = ("muon", "adamw")
DTYPES = ("float32", "bfloat16")
MICRO_TOKENS = 65536  # of pretraining, where the memory holds them

# The shapes people ask for by name: arch, layers, width, heads, kv heads, MLP width, vocabulary, context, tied.
SIZES = {
    "gpt2": ("gpt2", 12, 768, 12, 12, 3072, 50257, 1024, True),
    "gpt2-medium": ("gpt2", 24, 1024, 16, 16, 4096, 50257, 1024, True),
    "gpt2-large": ("gpt2", 36, 1280, 20, 20, 5120, 50257, 1024, True),
    "gpt2-xl": ("gpt2", 48, 1600, 25, 25, 6400, 50257, 1024, True),
    "llama-124m": ("llama", 12, 768, 6, 6, 2048, 50304, 1024, True),
    "smollm-135m": ("llama", 30, 576, 9, 3, 1536, 49152, 2048, True),
    "smollm-360m": ("llama", 32, 960, 15, 5, 2560, 49152, 2048, True),
    "qwen3-0.6b": ("qwen3", 28, 1024, 16, 8, 3072, 65536, 2048, True),
}


@dataclass(frozen=True)
class Recipe:
    """A pretraining run in full. Token counts are tokens, lengths are tokens, learning rates are peaks.

    `warmup` and `decay` are shares of `steps`; `rows` is the micro-batch, 0 until the memory of the device has decided
    it, `batch_tokens` the tokens of one optimiser step (a multiple of rows * context, reached by accumulation); with
    `checkpointing` activations are recomputed in the backward pass (None: not decided yet); `held_out` the share kept
    for validation (None: by size). `steps` is 0 while only `minutes` is known: the first thing such a run does is to
    measure itself.
    """

    mixture: dict[str, float]
    arch: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp: int
    context: int
    vocab_size: int
    tokenizer: str
    tied: bool
    steps: int
    minutes: float | None
    batch_tokens: int
    rows: int
    optimizer: str
    lr: float
    lr_embedding: float
    lr_head: float
    lr_vectors: float
    weight_decay: float
    momentum: float
    beta1: float
    beta2: float
    warmup: float
    decay: float
    clip: float
    seed: int
    dtype: str
    compile: bool | None
    eval_every: int
    eval_tokens: int
    sample_every: int
    checkpoint_every: int | None
    held_out: float | None
    prompts: list[str] | None = field(default=None)
    checkpointing: bool | None = None

    @property
    def accumulation(self) -> int:
        """Micro-batches in one optimiser step."""
        return self.batch_tokens // (self.rows * self.context)

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Recipe:
        """Read back what `as_dict` wrote. Raises GPTError for a recipe of another version."""
        return read_back(cls, values)


def read_back(kind: type, values: dict):
    """The recipe of class `kind` that its `as_dict` wrote. A field that has a default may be missing: it is newer.

    Raises GPTError for a recipe of another version.
    """
    from pydantic import TypeAdapter

    known = {field.name: field for field in fields(kind)}
    needed = {name for name, field in known.items() if field.default is MISSING}
    if odd := (values.keys() - known.keys()) | (needed - values.keys()):
        raise GPTError(
            f"this run was made by another version of jupyter_gpt (its recipe differs in: {', '.join(sorted(odd))})"
        )
    with reading("the recipe of this run", "--overwrite makes the run anew"):
        TypeAdapter(kind).validate_python(values)
        return kind(**values)


def power_of_two(x: float) -> int:
    return 2 ** round(math.log2(x))


def pretraining_recipe(
    mixture: dict[str, float],
    *,
    depth: int = 4,
    width: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    mlp: int | None = None,
    size: str | None = None,
    arch: str | None = None,
    context: int | None = None,
    vocab_size: int | None = None,
    tokenizer: str = "bpe",
    steps: int | None = None,
    tokens: int | None = None,
    minutes: float | None = None,
    batch_tokens: int | None = None,
    rows: int | None = None,
    optimizer: str = "muon",
    lr: float | None = None,
    warmup: float | None = None,
    decay: float | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
    seed: int = 0,
    dtype: str | None = None,
    compile: bool | None = None,
    eval_every: int | None = None,
    eval_tokens: int | None = None,
    sample_every: int | None = None,
    prompts: list[str] | None = None,
    checkpoint_every: int | None = None,
    held_out: float | None = None,
    checkpointing: bool | None = None,
) -> Recipe:
    """Resolve what the user said into a full recipe; what they left open follows from `depth` (or `size`).

    width = 64 * depth; one head per 64 channels below a width of 512 and per 128 above; a vocabulary that grows as
    depth^2.5 from 2,048 at depth 4; a batch that grows as depth^4 from 1,024 tokens; 20 tokens a parameter when no
    horizon is given (Hoffmann et al. 2022). `lr` scales all groups alike: it is the peak for matrices, and the other
    groups keep their ratio to it.

    Raises GPTError, one line, for anything that cannot be built.
    """
    if size is not None:
        if size not in SIZES:
            raise GPTError(f"--size {size} is not known{nearest(size, SIZES)}")
        preset = SIZES[size]
        if arch not in (None, preset[0]):
            raise GPTError(f"--size {size} is a {preset[0]}; leave --arch out, or give the sizes one by one")
        arch, depth, tied = preset[0], preset[1], preset[8]
        width, heads, kv_heads = width or preset[2], heads or preset[3], kv_heads or preset[4]
        mlp, vocab_size, context = mlp or preset[5], vocab_size or preset[6], context or preset[7]
    else:
        arch = arch or "llama"
        tied = arch == "gpt2"
    for flag, value, known in (
        ("arch", arch, ARCHITECTURES),
        ("optimizer", optimizer, OPTIMIZERS),
        ("dtype", dtype or "float32", DTYPES),
    ):
        if value not in known:
            raise GPTError(f"--{flag} {value} is not known{nearest(str(value), known)}")
    given = [f"--{flag}" for flag, v in (("steps", steps), ("tokens", tokens), ("minutes", minutes)) if v is not None]
    if len(given) > 1:
        raise GPTError(f"{' and '.join(given)} both set the length of the run: give one")
    positive = {
        "depth": depth,
        "width": width,
        "heads": heads,
        "kv-heads": kv_heads,
        "mlp": mlp,
        "context": context,
        "vocab-size": vocab_size,
        "steps": steps,
        "tokens": tokens,
        "minutes": minutes,
        "batch-tokens": batch_tokens,
        "rows": rows,
        "lr": lr,
        "clip": clip,
        "eval-every": eval_every,
        "eval-tokens": eval_tokens,
        "sample-every": sample_every,
        "checkpoint-every": checkpoint_every,
    }
    for flag, value in positive.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise GPTError(f"--{flag} {value} must be above zero")
    for flag, share in (("warmup", warmup), ("decay", decay), ("held-out", held_out)):
        if share is not None and not 0 <= share < 1:
            raise GPTError(f"--{flag} {share} is a share of the whole: from 0 up to, not including, 1")
    warmup, decay = shares(warmup, decay, (0.01, 0.5))

    width = width or 64 * depth
    heads = heads or max(1, width // (128 if width >= 512 else 64))
    if width % heads:
        raise GPTError(f"--width {width} does not divide into --heads {heads}")
    if arch != "gpt2" and width // heads % 2:
        raise GPTError(
            f"--width {width} over --heads {heads} gives heads of {width // heads}: rotary positions need even"
        )
    kv_heads = kv_heads or heads
    if heads % kv_heads:
        raise GPTError(f"--heads {heads} is not a multiple of --kv-heads {kv_heads}")
    mlp = mlp or (4 * width if arch == "gpt2" else 64 * math.ceil(8 * width / 3 / 64))
    context = context or min(2048, max(256, power_of_two(64 * depth)))
    vocab_size = vocab_size or min(
        65536, max(320, 64 * round(32 * (depth / 4) ** 2.5))
    )  # 320: every byte, special tokens, some merges
    wanted = batch_tokens or min(524288, max(256, round(1024 * (depth / 4) ** 4)))
    together = rows or max(1, min(round(wanted / context), MICRO_TOKENS // context))
    batch_tokens = together * context * max(1, round(wanted / (together * context)))

    parameters = parameter_count(arch, depth, width, heads, kv_heads, mlp, vocab_size, tied, context)
    if tokens is None and minutes is None and steps is None:
        tokens = 20 * parameters
    steps = steps or (math.ceil(tokens / batch_tokens) if tokens else 0)
    scale = (768 / width) ** 0.5
    peak = lr or (0.02 if optimizer == "muon" else 3e-3 * min(1.0, 256 / width))
    muon = optimizer == "muon"
    ratio = peak / 0.02 if muon else 1.0
    table = 0.03 * scale * ratio if muon else peak
    recipe = Recipe(
        mixture=dict(mixture),
        arch=arch,
        layers=depth,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        mlp=mlp,
        context=context,
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        tied=tied,
        steps=0,
        minutes=minutes,
        batch_tokens=batch_tokens,
        rows=rows or 0,
        optimizer=optimizer,
        lr=peak,
        lr_embedding=table,
        lr_head=0.004 * scale * ratio if muon else peak,
        lr_vectors=0.01 * ratio if muon else peak,
        weight_decay=weight_decay if weight_decay is not None else (0.0 if muon else 0.1),
        momentum=0.95,
        beta1=0.8 if muon else 0.9,
        beta2=0.95,
        warmup=warmup,
        decay=decay,
        clip=clip or 1.0,
        seed=seed,
        dtype=dtype or "auto",
        compile=compile,
        eval_every=eval_every or 0,
        eval_tokens=eval_tokens or max(8192, min(16 * batch_tokens, 1 << 20)),
        sample_every=sample_every or 0,
        checkpoint_every=checkpoint_every,
        held_out=held_out,
        prompts=prompts,
        checkpointing=checkpointing,
    )
    return with_steps(recipe, steps) if steps else recipe


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with its horizon known: evaluations and samples that were left open spread over it."""
    return replace(
        recipe,
        steps=steps,
        eval_every=recipe.eval_every or max(1, steps // 10),
        sample_every=recipe.sample_every or max(1, steps // 6),
    )
