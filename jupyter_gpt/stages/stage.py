"""The stages that train: the options that mean the same on each of them.

Every kind of run has a module beside this one, its stage. It has `RECIPE`, which reads a recipe back;
`preparation(session, run, recipe, variables)`, a generator of progress events that returns the training;
`keep(session, run, training)`, which registers its model; and perhaps `METRICS`. `launch.py` starts and resumes them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from jupyter_gpt.errors import GPTError, nearest
from jupyter_gpt.models import adapters
from jupyter_gpt.options import Count, Number, Options, Positive, option
from jupyter_gpt.runs.launchers.launcher import SHIPPED
from jupyter_gpt.runs.retention import BEST, LAST
from jupyter_gpt.runs.run import Run
from jupyter_gpt.runs.trackers import Tracker

Optimizer = Literal["muon", "adamw", "adamw8bit"]
Dtype = Literal["float32", "bfloat16", "float16"]
PROMPT_TEXTS = "texts in quotes, a $variable with a list of them, or a text file with one per line"  # of --prompts
OVERWRITE = "replace an existing NAME; not needed for the same cell, or the same options on the same data"
OpenShare = Annotated[Number, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
LENGTH, RUNNING = "Length", "Running"
LOGITS = 1 << 27  # of a micro-batch, for a loss of the user's own
MICRO_TOKENS = 65536  # tokens of pretraining in one pass, where the memory holds them


def count_or_all(text: str) -> int | str:
    """A number of devices as it is typed. Raises ValueError with what is expected."""
    if text != "all" and not text.isdecimal():
        raise ValueError("a number of devices, or all")
    return text if text == "all" else int(text)


class Bound(Options):
    """The option of every magic: its result can be bound to a variable."""

    out: str | None = option(None, "bind the result to this variable of the notebook", "VAR", only="magic")


def device_count(value: int | str) -> int | str:
    """Raises ValueError for what is neither a number above zero nor "all"."""
    if value != "all" and (isinstance(value, str) or value < 1):
        raise ValueError("must be above zero, or all")
    return value


def typed_keep(text: str) -> int | str:
    """What `--keep` is given, as it is typed. Raises ValueError with what is expected."""
    if text not in (BEST, LAST) and not text.isdecimal():
        raise ValueError(f"{BEST}, {LAST} or a number of checkpoints")
    return text if text in (BEST, LAST) else int(text)


def checked_keep(value: int | str) -> int | str:
    """Raises ValueError for what `--keep` cannot be."""
    if value not in (BEST, LAST) and (isinstance(value, str) or value < 0):
        raise ValueError(f"must be {BEST}, {LAST} or a number of checkpoints")
    return value


class Elsewhere(Options):
    """Where a run is made, if not in the kernel. The same run on other devices makes the same model."""

    detach: bool = option(
        False,
        "train in a process of its own, which outlives this kernel, and return at once; %gpt show NAME follows it",
        group=RUNNING,
    )
    devices: Annotated[int | str, AfterValidator(device_count)] | None = option(
        None,
        "train on this many devices, data parallel, in a process each; or on all there are: the same model up to "
        "rounding, which with muon in bfloat16 is 0.4% of an update and with adamw a millionth",
        "N|all",
        kind=count_or_all,
        hints=("all",),
        group=RUNNING,
    )
    shard: bool = option(
        False, "divide weights, gradients and optimizer state among the devices (FSDP2)", group=RUNNING
    )
    on: str | None = option(
        None,
        "what starts the processes: processes (on this machine), slurm, ray[:ADDRESS], or another launcher",
        "LAUNCHER",
        hints=SHIPPED,
        group=RUNNING,
    )
    nodes: Count | None = option(None, "machines with that many devices each, of a cluster", "M", group=RUNNING)
    callbacks: list[Callable] | None = option(
        None,
        "functions called on the main thread with each event of the run: Start, Step, Evaluation, Sample, Alarm, "
        "Checkpoint; one that raises ends the run, with a checkpoint",
        only="python",
        group=RUNNING,
    )

    @property
    def elsewhere(self) -> bool:
        """Whether the run is made in processes of its own."""
        return self.detach or self.devices is not None or self.on is not None or self.nodes is not None or self.shard


class Training(Elsewhere):
    """Options of every stage that trains."""

    groups: ClassVar[tuple[str, ...]] = ("Name and data", LENGTH, "Adapter", "Optimization", "Evaluation", RUNNING)

    name: str = option(..., "name of the model and its run", place=True, group="Name and data")
    steps: Count | None = option(None, "optimizer steps; use this in a notebook that is shared", "N", group=LENGTH)
    dtype: Dtype | None = option(
        None,
        "data type of the activations; trained weights stay float32 (default: bfloat16 where the hardware is fast in "
        "it, float16 with loss scaling on GPUs before Ampere, else float32)",
        group="Optimization",
    )
    seed: Seed = option(0, "random seed of data order, initial weights and sampling", "S", group=RUNNING)
    checkpoint_every: Count | None = option(
        None,
        "steps between checkpoints on disk (default: one per minute, less often if they take over 1% of the time)",
        "N",
        group=RUNNING,
    )
    keep: Annotated[int | str, AfterValidator(checked_keep)] | None = option(
        None,
        "checkpoints that stay after the end, for %gpt load: best (by validation loss, in RL by reward), last, or the "
        "newest N (default: that before the learning rate falls, from where %gpt resume makes a run longer; 0: none)",
        "best|last|N",
        kind=typed_keep,
        hints=(BEST, LAST),
        group=RUNNING,
    )
    background: bool = option(False, "return at once; a later cell that needs the model waits for it", group=RUNNING)
    log_to: list[Tracker] | None = option(
        None,
        "also log metrics, samples and the recipe to these trackers, on this machine: tensorboard and wandb (offline) "
        "in the run's folder, mlflow and trackio where they keep theirs; their own environment variables, as "
        "WANDB_MODE=online, send it elsewhere",
        "TRACKER",
        parted=True,
        group=RUNNING,
    )
    overwrite: bool = option(False, OVERWRITE, group=RUNNING)
    dry_run: bool = option(False, "train nothing: show what would be started, and where", group=RUNNING)
    out: str | None = option(
        None, "bind the result to this variable of the notebook", "VAR", group=RUNNING, only="magic"
    )
    beside: list[str] | None = option(
        None, "earlier runs, drawn into the same charts", "RUN", complete="runs", group="Evaluation", only="magic"
    )
    variables: Mapping | None = option(None, "values of `$name` sources, by name", only="python")

    def check_devices(self, ranks: int, shard: bool) -> None:
        """Raises GPTError for what does not train on that many devices, or divided among them."""
        if shard:
            raise GPTError("--shard is for pretraining and supervised finetuning: leave it out")


class Finetuning(Training):
    """Options of the stages that train on from a model."""

    lora: Count | None = option(
        None,
        "train a LoRA adapter of this rank and freeze the base (a new head is trained in full)",
        "R",
        group="Adapter",
    )
    lora_targets: list[str] | None = option(
        None,
        "names of the layers it adapts (default: all linear layers but the head)",
        "LAYER",
        parted=True,
        hints=("all-linear", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        group="Adapter",
    )


class Schedule(Training):
    """Options of next-token training."""

    tokens: Count | None = option(
        None, "train on this many tokens in total, instead of --steps (10M, 1.5B)", "N", group=LENGTH
    )
    minutes: Positive | None = option(
        None,
        "train for about this long, instead of --steps; the number of steps depends on the machine",
        "M",
        group=LENGTH,
    )
    clip: Positive = option(1.0, "maximum gradient norm (gradient clipping)", "X", group="Optimization")
    checkpointing: bool | None = option(
        None,
        "gradient checkpointing: recompute activations in the backward pass; less memory, a third more work (default: "
        "if the free memory requires it)",
        group="Optimization",
    )
    eval_every: Count | None = option(
        None, "steps between validations (default: ten in a run)", "N", group="Evaluation"
    )
    eval_tokens: Count | None = option(None, "held-out tokens of each validation", "N", group="Evaluation")
    sample_every: Count | None = option(None, "steps between samples (default: six in a run)", "N", group="Evaluation")
    loss: str | Callable | None = option(
        None,
        "a loss of your own, $f: f(logits, targets), float32 logits (N, V) and token ids (N,) to their mean loss; the "
        "validation loss stays cross-entropy",
        "$FUNCTION",
        literal=True,
        group="Optimization",
    )

    def check_devices(self, ranks: int, shard: bool) -> None:
        if shard and ranks == 1:
            raise GPTError("--shard divides a model among devices: give --devices 2 or more")

    def with_steps(self, steps: int) -> Any:
        """The recipe with its length: evaluations and samples whose distance is open are spread over it."""
        eval_every, sample_every = self.eval_every or max(1, steps // 10), self.sample_every or max(1, steps // 6)
        return self.replace(steps=steps, eval_every=eval_every, sample_every=sample_every)


def steps_share(rate: str, default: float) -> Any:
    """`--warmup` or `--decay`, which `schedule` resolves."""
    about = f"share of the steps with a {rate} learning rate (default: {default:g})"
    return option(None, about, "SHARE", group="Optimization")


def one_length(options: Any, *names: str) -> None:
    """Raises GPTError where more than one option sets the length of the run."""
    given = [f"--{name}" for name in names if getattr(options, name) is not None]
    if len(given) > 1:
        raise GPTError(f"{' and '.join(given)} both set the length of the run: give one")


def schedule(options: Any, warmup: float, decay: float) -> dict[str, float]:
    """Warm-up and decay as shares of the steps: as given, else these, or what the other leaves of the run.

    Raises GPTError where together they are longer than the run.
    """
    first, last = options.warmup, options.decay
    if first is not None and last is not None and first + last > 1 + 1e-9:
        raise GPTError(f"--warmup {first:g} and --decay {last:g} are shares of the steps: together they are at most 1")
    first = min(warmup, 1 - (last or 0.0)) if first is None else first
    return {"warmup": first, "decay": min(decay, 1 - first) if last is None else last}


def as_variable(value: Any, usual: str, variables: dict) -> str:
    """The `$name` of an object, which a recipe can hold: its name among the variables, which gain it otherwise."""
    if isinstance(value, str):
        return value
    own = next((key for key, each in variables.items() if each is value), None)
    called = getattr(value, "__name__", type(value).__name__).rpartition(".")[2]
    own = own or (usual if called == "<lambda>" else called)
    key, number = own, 2
    while variables.get(key, value) is not value:  # two may have one name
        key, number = f"{own}_{number}", number + 1
    variables[key] = value
    return f"${key}"


def loss_of(name: str | None, variables: Mapping | None) -> Callable | None:
    """A loss of the user's own by its `$name`; None for cross-entropy. Raises GPTError where there is no such one."""
    if name is None:
        return None
    found = (variables or {}).get(name.removeprefix("$"))
    if name[0] != "$" or not callable(found):
        known = nearest(name.removeprefix("$"), variables or {})
        raise GPTError(f"--loss {name} is no $variable with a function f(logits, targets){known}")
    return found


def with_named_loss(options: Any, variables: dict) -> Any:
    """The options with the `$name` of a loss. Raises GPTError where there is no such function."""
    if options.loss is not None:
        options = options.model_copy(update={"loss": as_variable(options.loss, "loss", variables)})
    loss_of(options.loss, variables)
    return options


def another_name(name: str, base: str) -> None:
    """Raises GPTError where a model would replace the one that it is made from."""
    if name == base:
        raise GPTError(f"{name} would take the place of the model it starts from: choose another name")


def startable(session, base: str, name: str, adapter: bool = True) -> Any:
    """The model `base`, as the start of a training named `name`; `adapter` tells whether it may be an adapter.

    Raises GPTError for a model behind a server, for one that is not a language model, and for one of the same name.
    """
    session.finish_first(base)
    start = session.models.about(base)
    if start.kind == "endpoint":
        raise GPTError(f"{base} is behind a server: only a model of this kernel can be trained")
    if start.labels:
        raise GPTError(f"{base} ({start.kind}) answers with numbers: finetune the model it was made from")
    another_name(name, base)
    if start.base and not adapter:
        raise GPTError(f"{base} is an adapter of {start.base}: %gpt merge {base} NAME, then --base NAME")
    return start


def check_base_mark(session, run: Run, recipe: Any) -> None:
    """Raises GPTError if the weights of the base have changed since the run began."""
    if recipe.base_mark != adapters.mark(session.models.about(recipe.base).folder):
        raise GPTError(f"{recipe.base} is not what {run.name} began with: run its cell again")


STAGES = ("pretrain", "sft", "classify", "reward", "rlhf")  # kinds of runs, each a module


def stage(kind: str):
    """The module of a kind of run. Raises GPTError for one that this version does not know."""
    if kind not in STAGES:
        raise GPTError(f"runs of the kind {kind} were made by another version of jupyter_gpt")
    return importlib.import_module(f"jupyter_gpt.stages.{kind}")


def keep_model(session, run: Run, training, start=None, name: str | None = None, made=None, **more) -> None:
    """Register what was trained, `start` being the model that it was made from. Its name and provenance are those of
    the run unless given."""
    name, made = name or run.name, made or run.provenance
    more = {"licence": start.licence if start else None, **more}
    lineage = [*(start.lineage if start else []), f"{name} ({made.kind})"]
    session.models.keep(name, training.model, training.tokenizer, made.kind, made, lineage, training.step, **more)
