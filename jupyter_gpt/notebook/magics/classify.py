"""`%%classify`: a base model becomes a classifier, as in GPT-1."""

from __future__ import annotations

from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.notebook import bind, watch
from jupyter_gpt.notebook.magics.options import DTYPE, RUNNING, STEPS, Command, Option, parse

COMMAND = Command(
    name="%%classify",
    summary="finetune a base model to classify texts",
    about=(
        "Puts a head of scores, one a label, on a base model and trains both on labelled texts (Radford et al. "
        "2018), or "
        "the head and an adapter with --lora. A part of the texts is held out: accuracy and F1 on it come with their "
        "intervals, and the confusion matrix as a picture. gpt.models[NAME].predict(texts) asks the classifier. With "
        "--from-scratch the same architecture learns from random weights: what it lacks is what the base had learned."
    ),
    groups=(
        (
            "Name and data",
            (
                Option("NAME", "what to call the classifier and its run", needed=True),
                Option("--base", "the model to start from", "MODEL", needed=True, complete="models"),
                Option(
                    "--bad-rows",
                    "a row that is no labelled text ends the run, or is skipped and counted",
                    choices=("refuse", "skip"),
                    default="refuse",
                ),
                Option("--held-out", "share of the texts to test on", "SHARE", number, default=0.2),
                Option("--context", "tokens read of each text, at most (default: 256)", "T", whole),
            ),
        ),
        (
            "Length",
            (STEPS, Option("--epochs", "see all texts so many times, instead of --steps (default: 3)", "N", number)),
        ),
        (
            "Training",
            (
                Option("--lora", "train an adapter of this rank and the head, and freeze the rest", "R", whole),
                Option("--lora-targets", "the layers it adapts (default: all linear layers)", "LAYER", many=True),
                Option("--from-scratch", "begin with random weights instead of the base's", kind=None),
                Option("--batch", "texts of one optimizer step", "N", whole, default=16),
                Option("--lr", "peak learning rate (default: by width; more for an adapter)", "X", number),
                Option("--weight-decay", "pull towards zero", "X", number, default=0),
                DTYPE,
            ),
        ),
        (
            "Watching",
            (
                Option("--eval-every", "steps between tests (default: six in a run)", "N", whole),
                Option("--sample-every", "steps between samples (default: three in a run)", "N", whole),
            ),
        ),
        ("Running", RUNNING),
    ),
    body="""
A text, a tab and its label in each line; or

  {"text": …, "label": …}   rows as JSON, one a line
  ./reviews.jsonl           files, globs or folders of such rows; .csv, .tsv and .parquet too
  $reviews                  a variable: (text, label) pairs, rows, or a DataFrame
""",
    sketch=("text<tab>label", "…"),
    examples=("%%classify mood --base smollm2-135m-instruct --lora 16", "./reviews.jsonl"),
)


def run(ip, line: str, cell: str) -> None:
    """Trains, showing the live view; the cell ends when the run does, unless `--background`."""
    given = parse(COMMAND, line, ip.user_ns)
    if given is None:
        return
    from jupyter_gpt import gpt

    name, out = given.pop("name"), given.pop("out", None)
    background = given.pop("background", False)
    job = gpt.classify(name, cell, given.pop("base"), background=True, variables=ip.user_ns, **given)
    watch(job, (), background)
    bind(ip, out, job if background or not out else gpt.models[name])
