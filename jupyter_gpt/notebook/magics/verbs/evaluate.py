"""`%gpt evaluate`: which technique, with which model, is worth its price."""

from __future__ import annotations

from pathlib import Path

from jupyter_gpt.errors import GPTError, reading
from jupyter_gpt.notebook.lexer import number, whole
from jupyter_gpt.notebook.magics.notebook import show
from jupyter_gpt.notebook.magics.options import OUT, Command, Option, parse

EVALUATE = Command(
    name="%gpt evaluate",
    summary="techniques x models on questions with answers: accuracy, cost, what to use",
    about=(
        "First the best possible performance, then cost: asks every question with every technique of every model, "
        "batched, "
        "and shows accuracy with its interval, tokens, seconds and dollars of each, and which to use: the best, "
        "and the "
        "cheapest within its interval. What the expected answers are, numbers, letters of options, yes or no, or "
        "texts, "
        "decides how every reply is read, whichever technique it is from; a reply without a readable answer is "
        "counted and "
        "wrong, one cut off at --max-tokens too unless it named its answer. Results are kept as they come: ■ "
        "stops, the same "
        "line goes on."
    ),
    groups=(
        (
            "What",
            (
                Option(
                    "TASK",
                    "a $variable or a .csv, .json or .jsonl file with questions and answers, or reasoning-gym:NAME",
                    kept=True,
                    complete="files",
                    needed=True,
                ),
                Option("--models", "the models to ask", "MODEL", many=True, complete="models"),
                Option(
                    "--index",
                    "measure retrieval from these indexes instead, by meaning, --keyword and --hybrid with three "
                    "weights, "
                    "and say which finds most: questions that say where their answers stand (a `quote`, or "
                    "`source` and "
                    "`page`); with --models, answers with the book closed and open",
                    "NAME",
                    many=True,
                    complete="indexes",
                ),
                Option(
                    "--techniques",
                    "each in quotes, the flags of %%prompt; a word of no flag, such as direct, is none",
                    "FLAGS",
                    many=True,
                    default='direct "--cot" "--cot --samples 5 --vote"',
                ),
                Option("--questions", "the first N only (of reasoning-gym: 50)", "N", whole),
                Option(
                    "--score",
                    "f(answer, expected), true where it is right; answer is what the technique read off, or else "
                    "the whole reply (default: the same number, option, yes or no, or a sentence with the same words)",
                    "$FUNCTION",
                    kept=True,
                ),
            ),
        ),
        (
            "Sampling",
            (
                Option("--temperature", "for all of them", "T", number),
                Option("--max-tokens", "of each answer", "N", whole),
                Option("--as-assistant", "ask base models as assistants", kind=None),
                Option("--few-shot", "a $variable with pairs of question and worked answer", "$PAIRS", kept=True),
                Option("--seed", "decides the sampling, and which puzzles", "S", whole, default=0),
                OUT,
            ),
        ),
    ),
    examples=(
        '%gpt evaluate $riddles --models mine --techniques direct "--cot" "--reflect"',
        "%gpt evaluate reasoning-gym:chain_sum --models mine mini --questions 100",
    ),
)


def evaluate(gpt, given: dict, ip) -> object:
    """Measures and shows; the result is the evaluation."""
    from jupyter_gpt.notebook.views.evaluation import evaluation_bundle
    from jupyter_gpt.notebook.views.follow import is_live
    from jupyter_gpt.notebook.views.progress import Progress

    if "index" in given:
        return evaluate_index(gpt, given)
    if "models" not in given:
        raise GPTError("%gpt evaluate wants --models, the models to ask (or --index, the indexes to search)")
    options = {name: value for name, value in given.items() if name != "out"}
    if "techniques" in options:
        options["techniques"] = {text: flags(text, ip.user_ns) for text in options["techniques"]}
    line = Progress(lambda done, total: f"{done:,} of {total:,} answers") if is_live() else None
    try:
        found = gpt.evaluate(options.pop("task"), progress=line, **options)
    finally:
        if line:
            line.close()
    show(evaluation_bundle(found))
    return found


def evaluate_index(gpt, given: dict) -> object:
    """Retrieval from indexes; the result is the table."""
    from jupyter_gpt.notebook.views.retrieval import retrieval_bundle

    wrong = next((name for name in ("techniques", "score", "questions", "seed") if name in given), None)
    if wrong:
        raise GPTError(f"--{wrong} goes with techniques, not with --index")
    options = {name: value for name, value in given.items() if name not in ("task", "index", "out")}
    if isinstance(given["task"], str):
        import pandas

        read = pandas.read_csv if given["task"].endswith(".csv") else pandas.read_json
        if not Path(given["task"]).is_file():
            raise GPTError(f"there is no file of questions {given['task']}: JSON, JSON lines or CSV, or a $variable")
        with reading(given["task"], "it should be JSON, JSON lines or CSV"):
            options["questions"] = read(given["task"], **({"lines": True} if given["task"].endswith(".jsonl") else {}))
    else:
        options["questions"] = given["task"]
    table = gpt.evaluate_index(options.pop("questions"), given["index"], **options)
    show(retrieval_bundle(table))
    return table


def flags(text: str, variables) -> dict:
    """The options of one technique. Raises GPTError for flags that %%prompt has not, or that belong to the whole."""
    from jupyter_gpt.notebook.magics.prompt import COMMAND

    if not text.strip().startswith("-"):
        return {}
    given = parse(COMMAND, text, variables) or {}
    wrong = next((name for name in ("model", "out", "dry_run", "history", "seed") if name in given), None)
    if wrong:
        raise GPTError(f"--techniques {text!r}: --{wrong.replace('_', '-')} belongs to no technique")
    return given
