"""`%%pretrain`: from a mixture of documents to a trained GPT, in one cell."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number, on_or_off, whole
from jupyter_gpt.notebook.magics.corpus import MIXTURE
from jupyter_gpt.notebook.magics.notebook import bind, watch
from jupyter_gpt.notebook.magics.options import CHECKPOINTING, DTYPE, LENGTH, RUNNING, Command, Option, parse
from jupyter_gpt.stages.pretrain_recipe import ARCHITECTURES, OPTIMIZERS, SIZES

COMMAND = Command(
    name="%%pretrain",
    summary="train a GPT from scratch",
    about=(
        "Collects the documents, trains a tokenizer on them, packs them into rows and trains a transformer "
        "to predict the next token, with a live loss curve and samples as it goes. The model stays in the "
        "kernel as gpt.models[NAME] and on disk as a plain transformers folder. Stop it with the view's "
        "button or the notebook's ■: the model as of that step is evaluated once (■ again skips that) and kept, and "
        "%gpt resume NAME goes on from it. A red line says when the loss diverges, when it does not fall, and when the "
        "model overfits. Without a length it trains on 20 tokens a parameter (Hoffmann et al. 2022)."
    ),
    groups=(
        (
            "Name and data",
            (
                Option("NAME", "what to call the model and its run", needed=True),
                Option("--corpus", "a corpus that %%corpus declared, instead of a body", "NAME", complete="corpora"),
                Option(
                    "--tokenizer",
                    "bpe (byte-level, trained here), char, or the name of a model to share its tokenizer",
                    "KIND",
                    default="bpe",
                    hints=("bpe", "char"),
                    complete="models",
                ),
                Option(
                    "--vocab-size", "tokens in the vocabulary, special ones included (default: by depth)", "N", whole
                ),
                Option("--held-out", "share of the documents kept for validation (default: by size)", "SHARE", number),
            ),
        ),
        ("Length", LENGTH),
        (
            "Model",
            (
                Option(
                    "--depth",
                    "layers; sets width, heads, vocabulary, context, batch, learning rate and "
                    "length, each of which can also be given",
                    "N",
                    whole,
                    default=4,
                ),
                Option("--arch", "the architecture", choices=ARCHITECTURES, default="llama"),
                Option("--context", "working memory: tokens a row, the most the model can attend to", "T", whole),
                Option("--size", "a known shape instead of --depth: " + ", ".join(SIZES), "NAME", hints=tuple(SIZES)),
                Option("--width", "channels of the residual stream (default: 64 a layer)", "N", whole),
                Option("--heads", "attention heads", "N", whole),
                Option("--kv-heads", "heads of keys and values, fewer than --heads for grouped attention", "N", whole),
                Option("--mlp", "channels inside the MLP (default: 8/3 of the width; 4 times for gpt2)", "N", whole),
            ),
        ),
        (
            "Optimisation",
            (
                Option(
                    "--optimizer",
                    "muon (matrices by Muon, the rest by AdamW) or adamw alone",
                    choices=OPTIMIZERS,
                    default="muon",
                ),
                Option("--lr", "peak learning rate of the matrices; the others keep their ratio to it", "X", number),
                Option("--batch-tokens", "tokens of one optimizer step, reached by accumulation", "N", whole),
                Option(
                    "--rows",
                    "rows of one micro-batch: fewer need less memory, same result (default: what the memory that "
                    "is free holds)",
                    "N",
                    whole,
                ),
                Option(
                    "--warmup", "share of the steps in which the learning rate rises (default: 0.01)", "SHARE", number
                ),
                Option("--decay", "share of the steps in which it falls to zero (default: 0.5)", "SHARE", number),
                Option("--weight-decay", "pull towards zero (default: 0 for muon, 0.1 for adamw)", "X", number),
                Option("--clip", "longest gradient, by norm (default: 1)", "X", number),
                DTYPE,
                CHECKPOINTING,
                Option(
                    "--compile",
                    "torch.compile the model (default: where it pays)",
                    kind=on_or_off,
                    choices=("on", "off"),
                ),
            ),
        ),
        (
            "Watching",
            (
                Option("--eval-every", "steps between validations (default: ten in a run)", "N", whole),
                Option("--eval-tokens", "held-out tokens read by each validation", "N", whole),
                Option("--sample-every", "steps between samples (default: six in a run)", "N", whole),
                Option(
                    "--prompts",
                    "the texts that the samples continue, each in quotes, or a $variable "
                    "with a list (default: how held-out documents begin)",
                    "TEXT",
                    many=True,
                ),
                Option("--beside", "earlier runs, drawn into the same charts", "RUN", complete="runs", many=True),
            ),
        ),
        ("Running", RUNNING),
    ),
    body=MIXTURE,
    examples=(
        "%%pretrain storyteller --depth 4 --steps 600",
        "stories: 3",
        "python: 1",
        "",
        "%%pretrain gpt --corpus bedtime --depth 8 --tokens 50M --background",
    ),
)


def run(ip, line: str, cell: str) -> None:
    """Trains, showing the live view; the cell ends when the run does, unless `--background`."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt

    name, out = given.pop("name"), given.pop("out", None)
    background = given.pop("background", False)
    others = [gpt.runs[other] for other in given.pop("beside", ())]
    job = gpt.pretrain(
        name,
        cell if cell.strip() else None,
        background=True,
        variables=ip.user_ns,
        **given,
    )
    watch(job, others, background)
    bind(ip, out, job if background or not out else gpt.models[name])
