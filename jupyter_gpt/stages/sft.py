"""`%%sft`: supervised finetuning. A base model becomes an assistant: next-token prediction on conversations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from jupyter_gpt import store
from jupyter_gpt.errors import GPTError
from jupyter_gpt.models import adapters
from jupyter_gpt.options import Count, NotNegative, Positive, ProperShare, Recipe, Share, option
from jupyter_gpt.runs.events import Progress
from jupyter_gpt.runs.run import Run
from jupyter_gpt.stages.launch import launch
from jupyter_gpt.stages.stage import LENGTH, Finetuning, Optimizer, Schedule, one_length, schedule

CONTEXT = 1024  # tokens a row, unless the base has fewer
EPOCHS = 3.0  # when no length is given and the data ends
GENERATED_TOKENS = 1_000_000  # when none is given and it does not
BATCH, LARGEST_BATCH = 2048, 65536  # tokens a step: the least, and the most that the length of a run makes of them
STEPS = 1000  # that a run is cut into where its length is known in tokens


class SFT(Finetuning, Schedule):
    """finetune a model on conversations: a base model becomes an assistant

    Supervised finetuning: the same language modelling, on little but good data, with the loss on what the assistant
    says alone. Before it trains, it shows the first conversations with the trained tokens marked; while it trains, the
    same questions are asked at fixed steps. With --lora only a small adapter is trained, and the base stays as it is;
    many adapters share one base in memory. A base that is an adapter itself is continued as a copy of it. Without a
    length it trains for three epochs, on generated conversations for a million tokens.
    """

    magic: ClassVar[str] = "%%sft"
    groups: ClassVar[tuple[str, ...]] = ("Name and data", LENGTH, "Adapter", "Optimization", "Evaluation", "Running")
    body_help: ClassVar[str] = """
One source a line with its weight, as YAML, or the conversations themselves.

  ./mine.jsonl: 1         a file, glob or folder; each row `messages`, `prompt` and `completion`, Alpaca's
                          `instruction`, `input`, `output`, or ShareGPT's `conversations`; .json, .csv and
                          .parquet too; OpenAI's `weight`, `tools` and `tool_calls` are heeded
  hf:owner/name: 1        a dataset of the Hugging Face hub
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
        "assistant", "tokens that the loss is on: those of the assistant, or all of them", group="Name and data"
    )
    context: Count | None = option(
        None,
        "tokens a row; longer conversations are cut or refused (default: 1024, or what the base was made for)",
        "T",
        group="Name and data",
    )
    over_long: Literal["cut", "refuse"] = option(
        "cut", "what becomes of conversations that are longer", group="Name and data"
    )
    bad_rows: Literal["refuse", "skip"] | None = option(
        None,
        "a row that cannot be learned from ends the run, or is skipped and counted (default: refuse; of a dataset "
        "of the hub "
        "skip)",
        group="Name and data",
    )
    held_out: ProperShare | None = option(
        None, "share of the conversations kept for validation (default: 0.05)", "SHARE", group="Name and data"
    )
    epochs: Positive | None = option(
        None,
        "see all conversations so many times, instead of --steps; of several sources as many tokens in all, by "
        "their weights",
        "N",
        group=LENGTH,
    )
    lora: Count | None = option(
        None,
        "train a LoRA adapter of this rank, and freeze the base; where the base has not learned the tokens of the chat "
        "template, their rows in embedding and head are trained with it",
        "R",
        group="Adapter",
    )
    lora_alpha: Positive | None = option(None, "scale of the adapter (default: twice the rank)", "X", group="Adapter")
    lora_dropout: ProperShare = option(0.0, "dropout of the adapter's inputs", "SHARE", group="Adapter")
    dora: bool = option(False, "learn the magnitudes of the weights too (DoRA)", group="Adapter")
    rslora: bool = option(False, "scale by the square root of the rank (rank-stabilized LoRA)", group="Adapter")
    load_in: Literal["4bit", "8bit"] | None = option(
        None, "hold the frozen base in so many bits (QLoRA), where the GPU's library can", group="Adapter"
    )
    merge_first: bool = option(
        False, "of a base that is an adapter: merge it into its base and train all weights", group="Adapter"
    )
    optimizer: Optimizer | None = option(
        None, "adamw, or muon for the matrices (default: muon for all weights of a narrow model)", group="Optimization"
    )
    lr: Positive | None = option(
        None, "peak learning rate (default: by width; more for an adapter)", "X", group="Optimization"
    )
    batch_tokens: Count | None = option(
        None,
        "tokens of one optimizer step, in packed rows (default: 2048; of a length in epochs or tokens a "
        "thousandth, from 2048 "
        "to 65536)",
        "N",
        group="Optimization",
    )
    micro_tokens: Count | None = option(
        None,
        "tokens that go through the model at once (micro-batch): fewer need less memory, same result (default: "
        "what the free "
        "memory holds)",
        "N",
        group="Optimization",
    )
    warmup: ProperShare | None = option(
        None, "share of the steps in which the learning rate rises (default: 0.02)", "SHARE", group="Optimization"
    )
    decay: Share | None = option(
        None, "share of the steps in which it falls to zero (default: 0.8)", "SHARE", group="Optimization"
    )
    weight_decay: NotNegative = option(0.0, "weight decay", "X", group="Optimization")
    questions: list[str] | None = option(
        None,
        "what is asked at fixed steps, each in quotes, or a $variable with a list (default: held-out questions)",
        "TEXT",
        group="Evaluation",
    )
    answer_tokens: Count = option(64, "tokens of such an answer, at most", "N", group="Evaluation")
    eval_tokens: Count = option(16384, "held-out tokens read by each validation", "N", group="Evaluation")
    sample_every: Count | None = option(
        None, "steps between the questions (default: six times in a run)", "N", group="Evaluation"
    )

    def check_together(self) -> None:
        one_length(self, "steps", "tokens", "minutes", "epochs")


class SFTRecipe(Recipe, SFT):
    """A finetuning run in full. Token counts are tokens, lengths are tokens, learning rates are peaks.

    `base` is a full model, `adapter` the adapter of it that is continued; `lora` is the rank, 0 for full finetuning.
    `trainable_tokens` are those whose rows in embedding and head a new adapter trains too, None until the base is at
    hand. `batch_tokens` are cells of packed rows of `context` tokens. What is 0 or "auto" is open until `for_base` or
    the data has decided it.
    """

    NEWER: ClassVar[Mapping[str, object]] = {"trainable_tokens": (), "bad_rows": None}

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
    def adapts(self) -> bool:
        """Whether an adapter is trained, not all weights."""
        return bool(self.lora or (self.adapter and not self.merge_first))

    def for_base(self, width: int, context: int, dtype: str, parameters: int, device: str) -> SFTRecipe:
        """The recipe with what follows from the base: its width, its context, its size, the number format that pays.

        Full finetuning of a narrow model takes Muon, as its pretraining did: at a width of 256 it learns in half the
        steps. AdamW's rate falls with the width. An adapter's is ten times that of full finetuning, and more on a base
        narrower than 576, which is far from saturated by its small update.
        """
        if self.context > context:
            raise GPTError(f"--context {self.context} is more than the base was made for: at most {context:,}")
        narrow = 576 / width
        optimizer = (
            self.optimizer if self.optimizer != "auto" else "muon" if width < 512 and not self.adapts else "adamw"
        )
        full = 0.02 if optimizer == "muon" else min(1e-3, 1e-4 * narrow)
        row = self.context or min(CONTEXT, context)
        batch = self.batch_tokens or (BATCH if self.steps or self.minutes else 0)
        micro = 32768 if device == "cuda" else max(512, min(8192, int(1e11 / parameters)))
        return self.replace(
            optimizer=optimizer,
            lr=self.lr or (min(5e-3, 1e-3 * narrow * max(1.0, narrow)) if self.adapts else full),
            context=row,
            batch_tokens=whole_rows(batch, row),
            micro_tokens=self.micro_tokens or micro,
            dtype=dtype if self.dtype == "auto" else self.dtype,
        )

    def tokens_to_read(self, once: int, endless: bool) -> int:
        """Tokens that the run reads: as many as asked, or the data as often as asked, of `once` tokens each time; of a
        generated source, which has no end, a million.
        """
        if self.tokens or (self.epochs is None and endless):
            return self.tokens or GENERATED_TOKENS
        return math.floor((self.epochs or EPOCHS) * once + 0.5)

    def with_tokens(self, tokens: int) -> SFTRecipe:
        """The recipe of a run of so many tokens: a thousand steps of them, where no batch was given, in batches that
        fields of data have been tuned with, 2,048 tokens at least and 65,536 at most.
        """
        usual = min(LARGEST_BATCH, max(BATCH, 2 ** round(math.log2(max(1, tokens / STEPS)))))
        batch = self.batch_tokens or whole_rows(usual, self.context)
        return self.replace(batch_tokens=batch).with_steps(math.ceil(tokens / batch))

    def with_steps(self, steps: int) -> SFTRecipe:
        """The recipe with its length known: evaluations and samples that were left open spread over it."""
        return self.replace(
            steps=steps,
            eval_every=self.eval_every or max(1, steps // 10),
            sample_every=self.sample_every or max(1, steps // 6),
        )


def whole_rows(tokens: float, row: int) -> int:
    """A batch of about `tokens` in rows of `row` tokens; 0 stays 0."""
    return row * max(1, round(tokens / row)) if tokens else 0


RECIPE = SFTRecipe


def sft(session, options: SFT) -> Run:
    """Finetune `options.base`; the model is `gpt.models[name]`. Blocks until the run ends, unless in the background.

    Raises GPTError, one line, for what cannot be trained; whatever had that name before is then untouched.
    """
    from jupyter_gpt.data import conversations
    from jupyter_gpt.models.load import check_load_in

    name, base = store.check_name(options.name), options.base
    if base is None:
        raise GPTError("say what to finetune: --base MODEL")
    if options.data is None:
        raise GPTError("say what to train on: sources with weights, or conversations, in the body")
    mixture, cell, variables = read_data(options.data, options.variables, options.bad_rows)
    start = startable(session, base)
    if base == name:
        raise GPTError(f"{name} would replace the model it is made from: choose another name")
    check_adapter(options, start)
    root = session.models.about(session.models.base_of(start)) if start.base else start
    recipe = recipe_of(options, mixture, root.name, cell, adapters.mark(root.folder), base if start.base else None)
    check_load_in(recipe.load_in)
    for source in mixture:
        conversations.check(source, variables, cell, recipe.bad_rows)
    requested = {"mixture": mixture, "cell": cell, **options.given}
    requested.pop("data", None)
    return launch(session, options, "sft", recipe, requested, variables)


def check_adapter(options: SFT, start) -> None:
    """Raises GPTError where the options of adapters do not fit the model to start from."""
    base = options.base
    if options.merge_first and not start.base:
        raise GPTError(f"{base} is no adapter: there is nothing to merge first")
    if options.merge_first and options.lora:
        raise GPTError(
            f"--lora on merged weights needs them as a model of their own: %gpt merge {base} NAME, then --base NAME"
        )
    if start.base and options.lora:
        raise GPTError(
            f"{base} is an adapter of {start.base}: leave --lora out to go on with a copy of it, or --merge-first "
            "to train all weights"
        )


def recipe_of(
    options: SFT,
    mixture: Mapping[str, float],
    base: str,
    cell: str | None = None,
    base_mark: str = "",
    adapter: str | None = None,
) -> SFTRecipe:
    """The recipe of these options, as far as it is known before base, data and machine are.

    Raises GPTError, one line, for what contradicts itself.
    """
    for name in ("lora_targets", "lora_alpha", "lora_dropout", "dora", "rslora", "load_in") if not options.lora else ():
        if not getattr(options, name):
            continue
        flag = f"--{name.replace('_', '-')}"
        if adapter and not options.merge_first:
            raise GPTError(
                f"{flag} was settled when {adapter} was made, and a copy of it goes on as it is: leave it out"
            )
        if name == "load_in":
            raise GPTError(
                f"{flag} {options.load_in} holds the base in so few bits that only an adapter can learn: add "
                f"--lora RANK"
            )
        raise GPTError(
            f"{flag} belongs to an adapter: " + ("leave it out" if options.merge_first else "add --lora RANK")
        )
    return SFTRecipe.from_options(
        options,
        mixture=dict(mixture),
        cell=cell,
        base=base,
        base_mark=base_mark,
        adapter=adapter,
        **schedule(options, 0.02, 0.8),
    )


def read_data(
    data, variables: Mapping | None, bad_rows: str | None = None
) -> tuple[dict[str, float], str | None, Mapping | None]:
    """The mixture, the cell's conversations where it has them, and the variables, with a list of rows as one of
    them.
    """
    from jupyter_gpt.data import conversations, mixture

    if isinstance(data, str):
        parsed = conversations.parse(data, bad_rows)
        return ({conversations.CELL: 1.0}, parsed, variables) if isinstance(parsed, str) else (parsed, None, variables)
    weights, variables = mixture.read(data, variables)
    return weights, None, variables


def startable(session, base: str):
    """The model to start from. Raises GPTError for one behind a server, and for one that does not speak."""
    session.finish_first(base)
    start = session.models.about(base)
    if start.kind == "endpoint":
        raise GPTError(f"{base} is behind a server: only a model of this kernel can be trained")
    if start.labels:
        raise GPTError(f"{base} ({start.kind}) answers with numbers: finetune the model it was made from")
    return start


def preparation(session, run: Run, recipe, variables: Mapping | None) -> Iterator:
    """Progress events, and at the end the training at step 0."""
    from jupyter_gpt.models.load import quantised, tokenizer_of
    from jupyter_gpt.stages.sft_training import check_room, prepare

    yield Progress(stage=f"loading {recipe.base}", unit="parameters")
    if recipe.base_mark != adapters.mark(session.models.about(recipe.base).folder):
        raise GPTError(f"{recipe.base} is not what {run.name} began with: run its cell again")
    if recipe.load_in:  # in few bits, and not beside them as it is
        start = session.models.about(recipe.base)
        base, tokenizer = quantised(start, recipe.load_in), start.tokenizer or tokenizer_of(start)
    else:
        start = session.models[recipe.adapter or recipe.base]
        base, tokenizer = session.models[recipe.base].module, start.tokenizer
        goes_on = recipe.adapter and not recipe.merge_first
        check_room(recipe, base, start.module.peft_config["default"].r if goes_on else recipe.lora)
        if recipe.lora:
            base = session.models.to_train(start, False, recipe.dtype)
    recipe = with_chat_tokens(recipe, base, tokenizer)
    model = trainable(session, recipe, start, base, tokenizer)
    return (yield from prepare(recipe, run.folder, model, tokenizer, variables))


def with_chat_tokens(recipe, base, tokenizer):
    """The recipe with the tokens whose rows a new adapter trains too: those of the chat template that the base never
    saw.
    """
    from jupyter_gpt.nn.chat_tokens import untrained

    if recipe.trainable_tokens is not None:
        return recipe
    ids = untrained(base, tokenizer) if recipe.lora else []
    return recipe.replace(trainable_tokens=tokenizer.convert_ids_to_tokens(ids))


def trainable(session, recipe, start, base, tokenizer):
    """The module to train: an adapter on a weight-sharing copy of the module `base`, a copy of an adapter, or of all
    the weights of `start`."""
    from jupyter_gpt.nn import lora

    if recipe.adapter and recipe.merge_first:
        return lora.merged(session.models.full_precision(start)).requires_grad_(True)
    if recipe.adapter:
        return lora.clone_adapter(session.models.to_train(start, False, recipe.dtype), recipe.seed)
    if not recipe.lora:
        return lora.copied(session.models.full_precision(start))
    return lora.lora(
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


def keep(session, run: Run, training) -> None:
    """Register what was trained."""
    recipe, module = training.recipe, training.model
    start = session.models.about(recipe.adapter or recipe.base)
    lineage = [*start.lineage, f"{run.name} (sft)"]
    options = {"licence": start.licence}
    if adapters.is_adapter(module):
        options["base"] = recipe.base
    else:  # so that whoever loads the folder stops where an answer ends
        module.generation_config.eos_token_id = sorted(training.ends)
    session.models.keep(
        run.name, module, training.tokenizer, run.kind, run.provenance, lineage, training.step, **options
    )
