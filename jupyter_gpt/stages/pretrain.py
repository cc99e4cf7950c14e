"""`%%pretrain`: from a mixture of documents to a trained GPT.

The options, the recipe that follows from them, and what is kept; `pretrain_training.py` has the training itself. One
option, `depth`, sets the others as in nanochat: width, heads, vocabulary, context, batch, learning rates and length
follow from the number of layers; each can also be given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.imports import without_garbage_collection
from jupyter_gpt.models import adapters
from jupyter_gpt.nn import adamw8bit
from jupyter_gpt.options import Count, NotNegative, Positive, ProperShare, Recipe, label, option
from jupyter_gpt.runs.events import Progress
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.corpus import MIXTURE
from jupyter_gpt.stages.launch import launch
from jupyter_gpt.stages.stage import (
    LENGTH,
    MICRO_TOKENS,
    PROMPT_TEXTS,
    Optimizer,
    Schedule,
    check_base_mark,
    keep_model,
    loss_of,
    one_length,
    schedule,
    startable,
    steps_share,
    with_named_loss,
)

WARMUP, DECAY = 0.01, 0.5  # shares of the steps, unless given
FROM_SCRATCH = ("tokenizer", "vocab_size", "depth", "arch", "size", "width", "heads", "kv_heads", "mlp")
# Known shapes: arch, layers, width, heads, kv heads, MLP width, vocabulary, context, tied.
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


class Pretrain(Schedule):
    """train a GPT from scratch, or continue with a base

    Collects the documents, trains a tokenizer on them, packs them into rows and trains a transformer to predict the
    next token, with a live loss curve and samples. The model is gpt.models[NAME], and on disk a plain transformers
    folder. Stop it with the view's button or the notebook's ■: the model as of that step is evaluated once (■ again
    skips that) and kept, and %gpt resume NAME continues. A warning says if the loss diverges or does not fall, or if
    the model overfits. Without a length it trains on 20 tokens per parameter (Hoffmann et al. 2022). With --base it
    continues with that model (continued pretraining), its tokenizer and architecture, at a quarter of the usual rate.
    """

    magic: ClassVar[str] = "%%pretrain"
    groups: ClassVar[tuple[str, ...]] = ("Name and data", LENGTH, "Model", "Optimization", "Evaluation", "Running")
    body_help: ClassVar[str] = MIXTURE
    body_sketch: ClassVar[tuple[str, ...]] = ("source: weight", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%pretrain storyteller --depth 4 --steps 600",
        "stories: 3",
        "python: 1",
        "",
        "%%pretrain gpt --corpus bedtime --depth 8 --tokens 50M --background",
        "",
        "%%pretrain lawyer --base smollm2-135m --tokens 20M",
        "./statutes/*.txt: 3",
        "./letters/*.txt: 1",
    )

    mixture: object = option(
        None,
        "a mapping from sources to weights, or its YAML; or the documents: texts, rows, a DataFrame, a Path",
        positional=True,
        body=True,
        only="python",
    )
    corpus: str | None = option(
        None,
        "a corpus declared with %%corpus, instead of a body",
        "NAME",
        complete="corpora",
        group="Name and data",
        recipe=False,
    )
    base: str | None = option(
        None, "the model to continue with, which is not changed", "MODEL", complete="models", group="Name and data"
    )
    tokenizer: str = option(
        "bpe",
        "bpe (byte-level, trained on the documents), char, or the name of a model to share its tokenizer",
        "KIND",
        hints=("bpe", "char"),
        complete="models",
        group="Name and data",
    )
    vocab_size: Count | None = option(
        None, "tokens in the vocabulary, special ones included (default: by depth)", "N", group="Name and data"
    )
    held_out: ProperShare | None = option(
        None, "share of the documents held out for validation (default: by size)", "SHARE", group="Name and data"
    )
    depth: Count = option(
        4,
        "number of layers; sets width, heads, vocabulary, context, batch, learning rate and length unless given",
        "N",
        group="Model",
        recipe=False,
    )
    arch: Literal["llama", "qwen3", "gpt2"] | None = option(None, "the architecture (default: llama)", group="Model")
    context: Count | None = option(None, "context length in tokens", "T", group="Model")
    size: str | None = option(
        None,
        "a known shape instead of --depth: " + ", ".join(SIZES),
        "NAME",
        hints=tuple(SIZES),
        group="Model",
        recipe=False,
    )
    width: Count | None = option(None, "hidden size (default: 64 per layer)", "N", group="Model")
    heads: Count | None = option(None, "attention heads", "N", group="Model")
    kv_heads: Count | None = option(
        None, "key-value heads, fewer than --heads for grouped-query attention", "N", group="Model"
    )
    mlp: Count | None = option(
        None, "intermediate size of the MLP (default: 8/3 of the width; 4 times for gpt2)", "N", group="Model"
    )
    optimizer: Optimizer = option(
        "muon",
        "muon (Muon for matrices, AdamW for the rest), adamw, or adamw8bit (its moments in 8 bits, by the extra "
        "bitsandbytes)",
        group="Optimization",
    )
    lr: Positive | None = option(
        None,
        "peak learning rate of the matrices; other parameters keep their ratio to it",
        "X",
        group="Optimization",
    )
    batch_tokens: Count | None = option(
        None, "tokens of one optimizer step, by gradient accumulation", "N", group="Optimization"
    )
    rows: Count | None = option(
        None,
        "rows of one micro-batch; changes memory, not the result (default: by free memory)",
        "N",
        group="Optimization",
    )
    warmup: ProperShare | None = steps_share("rising", WARMUP)
    decay: ProperShare | None = steps_share("falling", DECAY)
    weight_decay: NotNegative | None = option(
        None, "weight decay (default: 0 for muon, 0.1 for adamw)", "X", group="Optimization"
    )
    compile: bool | None = option(
        None, "torch.compile the model (default: for longer runs on a GPU)", group="Optimization"
    )
    prompts: list[str] | None = option(
        None,
        f"{PROMPT_TEXTS}, that the samples continue (default: how held-out documents begin)",
        "TEXT",
        group="Evaluation",
        complete="files",
        lines=True,
    )

    def check_together(self) -> None:
        one_length(self, "steps", "tokens", "minutes")
        if self.base is not None:
            if own := [name for name in FROM_SCRATCH if name in self.model_fields_set]:
                flag = label(type(self), own[0])
                raise GPTError(f"{flag} is for a model from scratch, {self.base} has its own: leave it out")
            if self.steps is None and self.tokens is None and self.minutes is None:
                raise GPTError(f"say how long to continue with {self.base}: --steps, --tokens or --minutes")


class PretrainRecipe(Recipe, Pretrain):
    """A pretraining run in full. Lengths are in tokens, learning rates are peaks.

    `warmup` and `decay` are shares of `steps`; `rows` is the micro-batch, 0 until the memory of the device decides it,
    `batch_tokens` the tokens of one optimizer step (a multiple of rows * context). `steps` is 0 while only `minutes` is
    known: such a run first measures its speed.
    """

    base_mark: str = ""  # a hash of the base
    mixture: dict[str, float]
    name: str = ""
    arch: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp: int
    context: int
    vocab_size: int
    tied: bool
    steps: int = 0
    batch_tokens: int
    rows: int = 0
    lr: float
    lr_embedding: float
    lr_head: float
    lr_vectors: float
    weight_decay: float
    momentum: float = 0.95
    beta1: float
    beta2: float = 0.95
    warmup: float
    decay: float
    dtype: str = "auto"
    eval_every: int = 0
    eval_tokens: int
    sample_every: int = 0

    @property
    def accumulation(self) -> int:
        """Micro-batches in one optimizer step."""
        return self.batch_tokens // (self.rows * self.context)


def pretrain(session, options: Pretrain) -> Run:
    """Train a GPT from scratch; the model is `gpt.models[name]`. Blocks until the run ends, unless in the background;
    Ctrl-C stops it gracefully.

    Raises GPTError, one line, for what cannot be trained; an earlier model of that name is then untouched.
    """
    from jupyter_gpt.data import mixture as mixtures
    from jupyter_gpt.data import sources

    store.check_name(options.name)
    if (options.mixture is None) == (options.corpus is None):
        raise GPTError("say what to train on: sources with weights in the body, or --corpus NAME, not both")
    weights = session.corpora[options.corpus].weights if options.corpus is not None else options.mixture
    weights, variables = mixtures.read(weights, options.variables)
    variables = dict(variables or {})
    options = with_named_loss(options, variables)
    if options.base is None:
        recipe = recipe_of(options, weights)
    else:
        start = startable(session, options.base, options.name, adapter=False)
        recipe = recipe_of(options, weights, shape_of(start)).replace(base_mark=adapters.mark(start.folder))
    adamw8bit.check(options.optimizer, options.shard)
    tokenizer = options.tokenizer
    if tokenizer not in ("bpe", "char") and tokenizer not in session.models:
        raise GPTError(f"--tokenizer {tokenizer} is neither bpe, char nor a model{nearest(tokenizer, session.models)}")
    if tokenizer not in ("bpe", "char") and options.vocab_size:
        raise GPTError(f"--vocab-size is for a tokenizer that is trained, not for that of {tokenizer}: leave it out")
    for source in weights:
        sources.check(source, variables)
    requested = {**options.given, "mixture": weights, "tokenizer": tokenizer}
    requested.pop("corpus", None)
    return launch(session, options, "pretrain", recipe, requested, variables)


def recipe_of(options: Pretrain, mixture: Mapping[str, float], base: Mapping[str, Any] | None = None) -> PretrainRecipe:
    """The recipe of these options; what they leave open follows from `depth` (or `size`).

    width = 64 * depth; one head per 64 channels below a width of 512 and per 128 above; a vocabulary that grows as
    depth^2.5 from 2,048 at depth 4; a batch that grows as depth^4 from 1,024 tokens; without a length, 20 tokens per
    parameter (Hoffmann et al. 2022). `lr` is the peak for matrices, and the other groups keep their ratio to it. `base`
    is the shape of the model that is continued.

    Raises GPTError, one line, for anything that cannot be built.
    """
    shape = model_shape(options) if base is None else continued_shape(options, base)
    width, context = shape["width"], shape["context"]
    wanted = options.batch_tokens or min(524288, max(256, round(1024 * (shape["layers"] / 4) ** 4)))
    together = options.rows or max(1, min(round(wanted / context), MICRO_TOKENS // context))
    batch_tokens = together * context * max(1, round(wanted / (together * context)))
    steps, tokens = options.steps or 0, options.tokens
    if not steps and not options.minutes:
        steps = math.ceil((tokens or 20 * parameter_count(**shape)) / batch_tokens)
    muon = options.optimizer == "muon"
    scale = (768 / width) ** 0.5
    peak = options.lr or (0.02 if muon else 3e-3 * min(1.0, 256 / width)) * (1.0 if base is None else 0.25)
    ratio = peak / 0.02 if muon else 1.0
    recipe = PretrainRecipe.from_options(
        options,
        **shape,
        mixture=dict(mixture),
        steps=0,
        batch_tokens=batch_tokens,
        lr=peak,
        lr_embedding=0.03 * scale * ratio if muon else peak,
        lr_head=0.004 * scale * ratio if muon else peak,
        lr_vectors=0.01 * ratio if muon else peak,
        weight_decay=options.weight_decay if options.weight_decay is not None else (0.0 if muon else 0.1),
        beta1=0.8 if muon else 0.9,
        eval_tokens=options.eval_tokens or max(8192, min(16 * batch_tokens, 1 << 20)),
        **schedule(options, WARMUP, DECAY),
    )
    return recipe.with_steps(steps) if steps else recipe


def model_shape(options: Pretrain) -> dict:
    """The sizes of the model by name. Raises GPTError, one line, for sizes that contradict each other."""
    arch, depth, tied = options.arch, options.depth, None
    width, heads, kv_heads, mlp = options.width, options.heads, options.kv_heads, options.mlp
    vocab_size, context = options.vocab_size, options.context
    if options.size is not None:
        if options.size not in SIZES:
            raise GPTError(f"--size {options.size} is not known{nearest(options.size, SIZES)}")
        preset = SIZES[options.size]
        if arch not in (None, preset[0]):
            raise GPTError(f"--size {options.size} is a {preset[0]}; leave --arch out, or give the sizes one by one")
        arch, depth, tied = preset[0], preset[1], preset[8]
        width, heads, kv_heads = width or preset[2], heads or preset[3], kv_heads or preset[4]
        mlp, vocab_size, context = mlp or preset[5], vocab_size or preset[6], context or preset[7]
    arch = arch or "llama"
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
    return {
        "arch": arch,
        "layers": depth,
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads,
        "mlp": mlp or (4 * width if arch == "gpt2" else 64 * math.ceil(8 * width / 3 / 64)),
        "context": context or min(2048, max(256, 2 ** round(math.log2(64 * depth)))),
        # at least 320: every byte, special tokens, some merges
        "vocab_size": vocab_size or min(65536, max(320, 64 * round(32 * (depth / 4) ** 2.5))),
        "tied": arch == "gpt2" if tied is None else tied,
    }


def shape_of(start) -> dict[str, Any]:
    """The sizes of a model by name, as its configuration has them."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(start.folder).get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1  # a model that does not attend has none
    return {
        "arch": config.model_type,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "mlp": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size,
        "context": getattr(config, "max_position_embeddings", None) or 1024,
        "vocab_size": config.vocab_size,
        "tied": bool(getattr(config, "tie_word_embeddings", False)),
    }


def continued_shape(options: Pretrain, base: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of a base in rows of `--context`, at most 1,024 tokens unless given. Raises GPTError for longer ones
    than it was made for."""
    if options.context is not None and options.context > base["context"]:
        most = f"{base['context']:,}"
        raise GPTError(f"--context {options.context} is more than {options.base} was made for: at most {most}")
    return {**base, "context": options.context or min(base["context"], 1024)}


def parameter_count(
    arch: str, layers: int, width: int, heads: int, kv_heads: int, mlp: int, vocab_size: int, tied: bool, context: int
) -> int:
    """Parameters of the transformers module that this shape builds, exactly."""
    if arch == "gpt2":
        block = 4 * width * width + 4 * width + 2 * width * mlp + mlp + width + 4 * width
        return layers * block + 2 * width + (1 if tied else 2) * vocab_size * width + context * width
    head = width // heads
    block = 2 * width * width + 2 * width * kv_heads * head + 3 * width * mlp + 2 * width
    block += 2 * head if arch == "qwen3" else 0
    return layers * block + width + (1 if tied else 2) * vocab_size * width


RECIPE = PretrainRecipe


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events; returns the `Training` at step 0."""
    with without_garbage_collection():
        from jupyter_gpt.nn.devices import default_device
        from jupyter_gpt.stages.pretrain_training import prepare

    base = None
    if recipe.base is not None:
        yield Progress(stage=f"loading {recipe.base}", unit="parameters")
        check_base_mark(session, run, recipe)
        start = session.models[recipe.base]
        base = session.models.to_train(start, True, recipe.dtype)
    named = recipe.base or (recipe.tokenizer if recipe.tokenizer not in ("bpe", "char") else None)
    tokenizer = session.models[named].tokenizer if named else None
    training = yield from prepare(recipe, run.folder, default_device(), variables, tokenizer, base)
    training.own_loss = loss_of(recipe.loss, variables)
    return training


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    base = training.recipe.base
    keep_model(session, run, training, None if base is None else session.models.about(base))
