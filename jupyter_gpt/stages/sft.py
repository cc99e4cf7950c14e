"""`%%sft`: supervised finetuning. A base model becomes an assistant: next-token prediction on conversations.

The options, the recipe that follows from them, the model that is trained, and what is kept of it; `sft_training.py` has
the training itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters
from jupyter_gpt.nn import adamw8bit
from jupyter_gpt.options import Count, NotNegative, Positive, ProperShare, Recipe, Share, option
from jupyter_gpt.runs.events import Progress
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch
from jupyter_gpt.stages.stage import (
    LENGTH,
    Finetuning,
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

CONTEXT = 1024  # tokens per row, unless the base has fewer
EPOCHS = 3.0  # without a length, of data that ends
GENERATED_TOKENS = 1_000_000  # without a length, of data that does not
BATCH, LARGEST_BATCH = 2048, 65536  # tokens per step: the least, and the most that is derived from the length of a run
STEPS = 1000  # that a run is cut into if its length is known in tokens
WARMUP, DECAY = 0.02, 0.8  # shares of the steps, unless given


class SFT(Finetuning, Schedule):
    """finetune a model on conversations: a base model becomes an assistant

    Supervised finetuning: language modelling on little but good data, with the loss on the assistant's tokens only.
    Before training, the first conversations are shown with the trained tokens marked; during training, the same
    questions are answered at fixed steps. With --lora only a small adapter is trained, with rows in embedding and head
    for tokens of the chat template that the base has not learned; the base stays as it is, and many adapters share it
    in memory. A base that is an adapter itself is continued as a copy. Without a length it trains for three epochs, on
    generated conversations for a million tokens.
    """

    magic: ClassVar[str] = "%%sft"
    body_help: ClassVar[str] = """
One source a line with its weight, as YAML (one alone needs none), or the conversations themselves.

  ./mine.jsonl: 1         a file, glob or folder; each row `messages`, `prompt` and `completion`, Alpaca's
                          `instruction`, `input`, `output`, or ShareGPT's `conversations`; .json, .csv and
                          .parquet too; OpenAI's `weight`, `tools` and `tool_calls` are supported
  hf:owner/name: 1        a dataset of the Hugging Face hub, as hf:owner/name/config@split:column
  $chats: 1               a variable of this notebook: a list of rows, or a DataFrame
  stories-qa: 2           generated questions about generated stories
  sums-cot: 1             generated sums, the answers with their steps

  user: Who sang?         turns of `system:`, `user:` and `assistant:`;
  assistant: The hen.     `---` alone on a line between conversations
"""
    body_sketch: ClassVar[tuple[str, ...]] = ("source: weight", "…")
    examples: ClassVar[tuple[str, ...]] = (
        "%%sft assistant --base storyteller --steps 300",
        "stories-qa: 1",
        "",
        "%%sft polite --base smollm2-135m-instruct --lora 16 --epochs 2",
        "./mine.jsonl: 1",
    )

    data: object = option(
        None,
        "a mixture of sources with weights, conversations as text, or rows: a list, a DataFrame, a Path",
        positional=True,
        body=True,
        only="python",
        recipe=False,
    )
    base: str | None = option(
        None, "the model to start from", "MODEL", positional=True, needed=True, complete="models", group="Name and data"
    )
    train_on: Literal["assistant", "all"] = option(
        "assistant", "tokens with a loss: the assistant's, or all", group="Name and data"
    )
    context: Count | None = option(
        None, "context length in tokens (default: 1024, or that of the base if shorter)", "T", group="Name and data"
    )
    over_long: Literal["cut", "refuse"] = option(
        "cut", "longer conversations: truncate them, or raise an error", group="Name and data"
    )
    bad_rows: Literal["refuse", "skip"] | None = option(
        None,
        "an invalid row: end the run, or skip the row and count it (default: refuse; skip for a dataset of the hub)",
        group="Name and data",
    )
    held_out: ProperShare | None = option(
        None, "share of the conversations held out for validation (default: 0.05)", "SHARE", group="Name and data"
    )
    epochs: Positive | None = option(
        None, "passes over the conversations, instead of --steps; sources are seen by their weights", "N", group=LENGTH
    )
    lora_alpha: Positive | None = option(None, "scale of the adapter (default: twice the rank)", "X", group="Adapter")
    lora_dropout: ProperShare = option(0.0, "dropout of the adapter's inputs", "SHARE", group="Adapter")
    dora: bool = option(False, "train the magnitudes of the weights too (DoRA)", group="Adapter")
    rslora: bool = option(False, "scale by the square root of the rank (rank-stabilized LoRA)", group="Adapter")
    load_in: Literal["4bit", "8bit"] | None = option(
        None, "quantize the frozen base (QLoRA), if the GPU's library can", group="Adapter"
    )
    merge_first: bool = option(
        False, "merge a base that is an adapter into its own base, and train all weights", group="Adapter"
    )
    optimizer: Optimizer | None = option(
        None,
        "adamw, adamw8bit (its moments in 8 bits, by the extra bitsandbytes), or muon for the matrices (default: muon "
        "for all weights of a narrow model, else adamw)",
        group="Optimization",
    )
    lr: Positive | None = option(
        None, "peak learning rate (default: by width; higher for an adapter)", "X", group="Optimization"
    )
    batch_tokens: Count | None = option(
        None,
        "tokens of one optimizer step, in packed rows (default: 2048 to 65536, by length)",
        "N",
        group="Optimization",
    )
    micro_tokens: Count | None = option(
        None,
        "tokens of one micro-batch; changes memory, not the result (default: by free memory)",
        "N",
        group="Optimization",
    )
    warmup: ProperShare | None = steps_share("rising", WARMUP)
    decay: Share | None = steps_share("falling", DECAY)
    weight_decay: NotNegative = option(0.0, "weight decay", "X", group="Optimization")
    questions: list[str] | None = option(
        None,
        "questions asked at fixed steps, each in quotes, or a $variable with a list (default: held-out questions)",
        "TEXT",
        group="Evaluation",
    )
    answer_tokens: Count = option(64, "maximum tokens of such an answer", "N", group="Evaluation")
    eval_tokens: Count = option(16384, "held-out tokens of each validation", "N", group="Evaluation")

    def check_together(self) -> None:
        one_length(self, "steps", "tokens", "minutes", "epochs")


class SFTRecipe(Recipe, SFT):
    """A finetuning run in full. Lengths are in tokens, learning rates are peaks.

    `base` is a full model, `adapter` the adapter of it that is continued; `lora` is the rank, 0 for full finetuning.
    `trainable_tokens` are the tokens whose rows in embedding and head a new adapter trains too, None until the base is
    loaded. `batch_tokens` counts packed rows of `context` tokens, padding included. What is 0 or "auto" is open until
    `for_base` or the data decides it.
    """

    mixture: dict[str, float]
    cell: str | None = None
    base: str
    base_mark: str = ""
    adapter: str | None = None
    trainable_tokens: list[str] | None = None
    name: str = ""
    lora: int = 0
    context: int = 0
    batch_tokens: int = 0
    micro_tokens: int = 0
    steps: int = 0
    lr: float = 0.0
    optimizer: str = "auto"
    dtype: str = "auto"
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    warmup: float = 0.0
    decay: float = 0.0
    eval_every: int = 0
    sample_every: int = 0

    @property
    def continues(self) -> bool:
        """Whether a copy of an adapter is trained."""
        return self.adapter is not None and not self.merge_first

    def for_base(self, width: int, context: int, dtype: str) -> SFTRecipe:
        """The recipe with what follows from the base: its width, its context and the data type that pays.

        Full finetuning of a narrow model uses Muon, as its pretraining did: at a width of 256 it learns in half the
        steps. AdamW's rate falls with the width. An adapter's is ten times that of full finetuning, and more on a base
        narrower than 576, which is far from saturated by its small update.
        """
        if self.context > context:
            raise GPTError(f"--context {self.context} is more than the base was made for: at most {context:,}")
        narrow, adapts = 576 / width, bool(self.lora) or self.continues
        optimizer = self.optimizer if self.optimizer != "auto" else "muon" if width < 512 and not adapts else "adamw"
        full = 0.02 if optimizer == "muon" else min(1e-3, 1e-4 * narrow)
        row = self.context or min(CONTEXT, context)
        return self.replace(
            optimizer=optimizer,
            lr=self.lr or (min(5e-3, 1e-3 * narrow * max(1.0, narrow)) if adapts else full),
            context=row,
            batch_tokens=whole_rows(self.batch_tokens or (BATCH if self.steps or self.minutes else 0), row),
            dtype=dtype if self.dtype == "auto" else self.dtype,
        )

    def tokens_to_read(self, once: int, endless: bool) -> int:
        """Tokens that the run reads: as many as given, or passes over the data of `once` tokens; of a generated source,
        which has no end, a million.
        """
        if self.tokens or (self.epochs is None and endless):
            return self.tokens or GENERATED_TOKENS
        return math.floor((self.epochs or EPOCHS) * once + 0.5)

    def with_tokens(self, tokens: int) -> SFTRecipe:
        """The recipe of a run of so many tokens: without a batch size, a thousand steps of 2,048 to 65,536 tokens,
        sizes that data of this scale has been tuned with.
        """
        usual = min(LARGEST_BATCH, max(BATCH, 2 ** round(math.log2(max(1, tokens / STEPS)))))
        batch = self.batch_tokens or whole_rows(usual, self.context)
        return self.replace(batch_tokens=batch).with_steps(math.ceil(tokens / batch))


def whole_rows(tokens: float, row: int) -> int:
    """A batch of about `tokens` in rows of `row` tokens; 0 stays 0."""
    return row * max(1, round(tokens / row)) if tokens else 0


RECIPE = SFTRecipe


def sft(session, options: SFT) -> Run:
    """Finetune `options.base`; the model is `gpt.models[name]`. Blocks until the run ends, unless in the background.

    Raises GPTError, one line, for what cannot be trained; an earlier model of that name is then untouched.
    """
    from jupyter_gpt.data import conversations, mixture
    from jupyter_gpt.models.load import check_load_in

    name, base, data, variables = store.check_name(options.name), options.base, options.data, options.variables
    if base is None:
        raise GPTError("say what to finetune: --base MODEL")
    if data is None:
        raise GPTError("say what to train on: sources with weights, or conversations, in the body")
    parsed, cell = conversations.parse(data, options.bad_rows) if isinstance(data, str) else data, None
    if isinstance(parsed, str):
        parsed, cell = {conversations.CELL: 1.0}, parsed
    elif not isinstance(data, str):
        parsed, variables = mixture.read(data, variables)
    weights: Any = parsed
    adamw8bit.check(options.optimizer, options.shard)
    start = startable(session, base, name)
    if options.merge_first and not start.base:
        raise GPTError(f"{base} is no adapter: there is nothing to merge first")
    if options.merge_first and options.lora:
        raise GPTError(
            f"--lora on merged weights needs them as a model of their own: %gpt merge {base} NAME, then --base NAME"
        )
    if start.base and options.lora:
        raise GPTError(
            f"{base} is an adapter of {start.base}: leave --lora out to continue a copy of it, or --merge-first to "
            "train all weights"
        )
    root = session.models.about(session.models.base_of(start)) if start.base else start
    variables = dict(variables or {})
    options = with_named_loss(options, variables)
    recipe = recipe_of(options, weights, root.name, cell, adapters.mark(root.folder), base if start.base else None)
    check_load_in(recipe.load_in)
    for source in weights:
        conversations.check(source, variables, cell, recipe.bad_rows)
    requested = {"mixture": weights, "cell": cell, **options.given}
    requested.pop("data", None)
    return launch(session, options, "sft", recipe, requested, variables)


def recipe_of(
    options: SFT,
    mixture: Mapping[str, float],
    base: str,
    cell: str | None = None,
    base_mark: str = "",
    adapter: str | None = None,
) -> SFTRecipe:
    """The recipe of these options, as far as it is known before base, data and machine are.

    Raises GPTError, one line, for options that contradict each other.
    """
    of_adapters = ("lora_targets", "lora_alpha", "lora_dropout", "dora", "rslora", "load_in")
    if not options.lora and (name := next((name for name in of_adapters if getattr(options, name)), None)):
        flag = f"--{name.replace('_', '-')}"
        if adapter and not options.merge_first:
            raise GPTError(f"{flag} was set when {adapter} was made, and a copy of it keeps it: leave it out")
        if name == "load_in":
            raise GPTError(
                f"{flag} {options.load_in}: a quantized base can only be trained with an adapter: add --lora RANK"
            )
        raise GPTError(f"{flag} belongs to an adapter: {'leave it out' if options.merge_first else 'add --lora RANK'}")
    origin = {"cell": cell, "base": base, "base_mark": base_mark, "adapter": adapter}
    return SFTRecipe.from_options(options, mixture=dict(mixture), **origin, **schedule(options, WARMUP, DECAY))


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events; returns the `Supervised` at step 0."""
    from jupyter_gpt.models.load import quantised, tokenizer_of
    from jupyter_gpt.nn import lora
    from jupyter_gpt.nn.chat_tokens import untrained
    from jupyter_gpt.stages.sft_training import fitted, prepare

    yield Progress(stage=f"loading {recipe.base}", unit="parameters")
    check_base_mark(session, run, recipe)
    if recipe.load_in:  # quantized alone, not beside the full weights
        start = session.models.about(recipe.base)
        base, tokenizer = quantised(start, recipe.load_in), start.tokenizer or tokenizer_of(start)
    else:
        start = session.models[recipe.adapter or recipe.base]
        base, tokenizer = session.models[recipe.base].module, start.tokenizer
    rank = start.module.peft_config["default"].r if recipe.continues else recipe.lora
    recipe = yield from fitted(recipe, base, rank)  # before anything is copied
    if recipe.lora and not recipe.load_in:
        base = session.models.to_train(start, False, recipe.dtype)
    if recipe.trainable_tokens is None:
        ids = untrained(base, tokenizer) if recipe.lora else []
        recipe = recipe.replace(trainable_tokens=tokenizer.convert_ids_to_tokens(ids))
    if recipe.continues:
        model = lora.clone_adapter(session.models.to_train(start, False, recipe.dtype), recipe.seed)
    elif recipe.adapter:
        model = lora.merged(session.models.full_precision(start)).requires_grad_(True)
    elif not recipe.lora:
        model = lora.copied(session.models.full_precision(start))
    else:
        model = lora.lora(
            base,
            recipe.lora,
            recipe.lora_alpha,
            recipe.lora_targets,
            dora=recipe.dora,
            rslora=recipe.rslora,
            dropout=recipe.lora_dropout,
            tokens=tokenizer.convert_tokens_to_ids(recipe.trainable_tokens),
            seed=recipe.seed,
        )
    training = yield from prepare(recipe, run.folder, model, tokenizer, variables)
    training.own_loss = loss_of(recipe.loss, variables)
    return training


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    recipe, module = training.recipe, training.model
    base = recipe.base if adapters.is_adapter(module) else None
    if base is None and module.can_generate():  # whoever loads the folder stops where an answer ends
        module.generation_config.eos_token_id = sorted(training.ends)
    keep_model(session, run, training, session.models.about(recipe.adapter or recipe.base), base=base)
